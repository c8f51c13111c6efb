"""Placement is a pure function: slots, reservation, exclusive names, no oversubscription."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from core.spec import Needs
from lanes.placement import Capacity, LaneView, Wanted, can_ever, place

ROLES = frozenset({"eval", "train", "sweep", "promote"})


def lane(
    name: str = "local",
    *,
    cores: int = 4,
    free: int | None = None,
    gpus: int = 0,
    memory_mb: int | None = None,
    resources: frozenset[str] = frozenset(),
    open: bool = True,
    roles: frozenset[str] = ROLES,
) -> LaneView:
    total = Capacity(cores, memory_mb, tuple(range(gpus)), resources)
    return LaneView(name, total, replace(total, cores=cores if free is None else free), roles, open)


def names(wanted: list[Wanted], *lanes: LaneView) -> dict[int, str]:
    return {p.job: p.lane for p in place(wanted, lanes)}


def test_order_is_priority_then_age_as_given() -> None:
    wanted = [Wanted(i, Needs(cores=2)) for i in (7, 3, 9)]
    assert names(wanted, lane(cores=4)) == {7: "local", 3: "local"}


def test_a_closed_lane_gets_nothing() -> None:
    assert names([Wanted(1, Needs())], lane(open=False)) == {}


def test_a_large_job_is_not_starved_by_small_ones_behind_it() -> None:
    wanted = [Wanted(1, Needs(cores=4)), Wanted(2, Needs(cores=1)), Wanted(3, Needs(cores=1))]
    # One of four cores is busy: the large job waits, and the small ones may not take what it waits for.
    assert names(wanted, lane(cores=4, free=3)) == {}
    # The twin: without the large job they go at once.
    assert names(wanted[1:], lane(cores=4, free=3)) == {2: "local", 3: "local"}


def test_a_waiting_gpu_job_leaves_the_other_cores_to_others() -> None:
    view = lane(cores=8, gpus=1)
    busy = replace(view, free=replace(view.free, gpus=(), cores=7))
    wanted = [Wanted(1, Needs(cores=2, gpus=1)), Wanted(2, Needs(cores=5)), Wanted(3, Needs(cores=1))]
    assert names(wanted, busy) == {2: "local"}


def test_an_exclusive_name_is_held_once_and_holds_up_nobody_else() -> None:
    view = lane(cores=8, resources=frozenset({"scorer"}))
    score = Needs(resources=("scorer",))
    assert names([Wanted(1, score), Wanted(2, score), Wanted(3, Needs(cores=7))], view) == {1: "local", 3: "local"}


def test_gpus_are_given_by_index_and_never_twice() -> None:
    placed = place([Wanted(i, Needs(gpus=1)) for i in range(3)], [lane(cores=8, gpus=2)])
    assert sorted(p.gpus for p in placed) == [(0,), (1,)]


def test_roles_lane_and_size_are_respected() -> None:
    small = lane("small", cores=2, roles=frozenset({"eval"}))
    big = lane("big", cores=16)
    assert names([Wanted(1, Needs(role="train"))], small, big) == {1: "big"}
    assert names([Wanted(1, Needs(lane="small"))], small, big) == {1: "small"}
    assert can_ever(Needs(cores=3), small) == "has 2 cores, 3 needed"
    assert can_ever(Needs(gpus=1), big) == "has 0 GPUs, 1 needed"
    assert can_ever(Needs(resources=("scorer",)), big) == "does not offer scorer"


@given(st.integers(0, 10_000))
def test_no_lane_is_ever_oversubscribed(seed: int) -> None:
    rng = random.Random(seed)
    lanes = [
        lane(
            f"l{i}",
            cores=rng.randint(1, 8),
            gpus=rng.randint(0, 2),
            memory_mb=rng.choice([None, 1000]),
            resources=frozenset({"x"}),
        )
        for i in range(rng.randint(1, 4))
    ]
    wanted = [
        Wanted(
            i,
            Needs(
                cores=rng.randint(1, 8),
                gpus=rng.choice([0, 0, 1]),
                memory_mb=rng.choice([None, 16, 600]),
                resources=rng.choice([(), ("x",)]),
            ),
        )
        for i in range(12)
    ]
    needs = {w.job: w.needs for w in wanted}
    placed = place(wanted, lanes)
    assert len({p.job for p in placed}) == len(placed)
    for view in lanes:
        mine = [p for p in placed if p.lane == view.name]
        assert sum(needs[p.job].cores for p in mine) <= view.free.cores
        gpus = [g for p in mine for g in p.gpus]
        assert len(gpus) == len(set(gpus)) == sum(needs[p.job].gpus for p in mine)
        assert sum("x" in needs[p.job].resources for p in mine) <= 1
        if view.free.memory_mb is not None:
            assert sum(needs[p.job].memory_mb or 0 for p in mine) <= view.free.memory_mb
