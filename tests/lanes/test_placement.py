"""Placement is a pure function: slots, reservation, exclusive names, no oversubscription."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.spec import Needs
from lanes.placement import Capacity, LaneView, Pace, Running, Wanted, can_ever, place, portion

ROLES = frozenset({"eval", "train", "sweep", "promote"})
NOBODY: frozenset[str] = frozenset()


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


# Lanes that are not alike.


def timed(
    wanted: list[Wanted], *lanes: LaneView, slow: dict[str, float], family: str = "k", unsure: frozenset[str] = NOBODY
) -> dict[int, str]:
    pace = Pace(slow, sum(v.total.cores / slow[v.name] for v in lanes), unsure)
    return {p.job: p.lane for p in place(wanted, lanes, {family: pace})}


def work(job: int, seconds: float | None, **more: Any) -> Wanted:
    return Wanted(job, more.pop("needs", Needs()), family="k", work_s=seconds, **more)


def busy(view: LaneView, until: float) -> LaneView:
    """All of it is held until then."""
    held = Running(0.0, until, view.total.cores)
    return replace(view, free=replace(view.free, cores=0), running=(held,))


SPEEDS = {"quick": 1.0, "slow": 4.0}


def test_a_job_goes_where_it_is_done_first() -> None:
    quick, slow = lane("quick", cores=1), lane("slow", cores=1)
    assert timed([work(1, 10.0)], quick, slow, slow=SPEEDS) == {1: "quick"}
    # The second has 20 s to go behind the first on the quick lane, 40 s on the slow one: it waits.
    assert timed([work(1, 10.0), work(2, 10.0)], quick, slow, slow=SPEEDS) == {1: "quick"}
    # Enough of them, and the slow lane is the sooner one for some.
    many = [work(i, 10.0) for i in range(8)]
    assert timed(many, quick, slow, slow=SPEEDS) == {0: "quick", 3: "slow"}
    # The twin: without paces the slow lane takes the next at once.
    assert names([work(1, 10.0), work(2, 10.0)], quick, slow) == {1: "slow", 2: "quick"}


def test_a_slow_lane_stays_idle_when_the_quick_one_is_soon_free() -> None:
    quick, slow = lane("quick", cores=1), lane("slow", cores=1)
    assert timed([work(1, 10.0)], busy(quick, 15.0), slow, slow=SPEEDS) == {}
    assert timed([work(1, 10.0)], busy(quick, 35.0), slow, slow=SPEEDS) == {1: "slow"}
    # What runs longer than it should is not waited for for ever.
    late = replace(quick, free=replace(quick.free, cores=0), running=(Running(-200.0, 5.0, 1),))
    assert timed([work(1, 10.0)], late, slow, slow=SPEEDS) == {1: "slow"}


def test_nobody_waits_for_a_guess() -> None:
    quick, slow = busy(lane("quick", cores=1), 1.0), lane("slow", cores=1)
    assert timed([work(1, None)], quick, slow, slow=SPEEDS) == {1: "slow"}
    assert timed([work(1, None), work(2, None)], lane("quick"), slow, slow=SPEEDS) == {1: "quick", 2: "quick"}


def test_the_last_long_cell_does_not_go_to_the_slowest_lane() -> None:
    quick, slow = busy(lane("quick", cores=1), 10.0), lane("slow", cores=1)
    long_and_short = [work(1, 3.0, group=7), work(2, 60.0, group=7)]
    assert timed(long_and_short, quick, slow, slow=SPEEDS) == {1: "slow"}
    assert timed([work(2, 60.0, group=7)], quick, slow, slow=SPEEDS) == {}
    # While there is much else to do the slow lane ends it before the rest is done.
    assert timed([work(2, 60.0, group=7, rest_s=1000.0)], quick, slow, slow=SPEEDS) == {2: "slow"}


def test_cells_go_longest_first() -> None:
    cells = [work(i, float(i), group=1, rest_s=1000.0) for i in range(1, 9)]
    assert timed(cells, lane("quick", cores=1), lane("slow", cores=1), slow=SPEEDS) == {8: "quick", 7: "slow"}


def test_no_more_of_a_sweep_than_it_may_have_at_once() -> None:
    cells = [work(i, 5.0, group=1, most=2, rest_s=1000.0) for i in range(8)]
    assert len(timed(cells, lane("quick"), lane("slow"), slow=SPEEDS)) == 2


def test_an_unknown_lane_is_tried_on_a_short_cell() -> None:
    cells = [work(i, float(i), group=1, rest_s=1000.0) for i in range(1, 9)]
    lanes = lane("quick", cores=1), lane("new", cores=1)
    assert timed(cells, *lanes, slow={"quick": 1.0, "new": 3.0}, unsure=frozenset({"new"})) == {8: "quick", 1: "new"}
    # And not with the last one.
    last = [work(1, 10.0, group=1)]
    assert timed(last, busy(lanes[0], 5.0), lanes[1], slow={"quick": 1.0, "new": 3.0}) == {}


def test_what_waits_for_the_quick_lane_leaves_the_slow_one_to_those_behind() -> None:
    quick, slow = busy(lane("quick", cores=1), 15.0), lane("slow", cores=1)
    waits, other = work(1, 10.0), Wanted(2, Needs(), family="other")
    pace = Pace(SPEEDS, 1.25)
    placed = place([waits, other], [quick, slow], {"k": pace, "other": pace})
    assert [(p.job, p.lane) for p in placed] == [(2, "slow")]


def test_one_scorer_a_lane() -> None:
    score = Needs(resources=("scorer",))
    lanes = [lane(name, cores=8, resources=frozenset({"scorer"})) for name in ("quick", "slow")]
    wanted = [work(i, 100.0, needs=score) for i in range(5)]
    found = timed([*wanted, work(9, 1.0)], *lanes, slow=SPEEDS)
    assert found == {0: "quick", 3: "slow", 9: "quick"}


def test_a_closed_lane_is_nobodys_best() -> None:
    lanes = lane("quick", open=False), lane("slow", cores=1), lane("other", cores=1)
    assert timed([work(1, 10.0)], *lanes, slow={**SPEEDS, "other": 2.0}) == {1: "other"}


def test_a_step_of_a_ladder_goes_to_its_own_lane_and_nowhere_else() -> None:
    step = Needs(lane="new", admission=True, role="train")
    new = replace(lane("new", open=False, roles=frozenset()), admitting=True)
    assert names([Wanted(1, step)], new, lane("other")) == {1: "new"}
    assert timed([work(1, 1.0, needs=step)], new, lane("quick"), lane("slow"), slow={**SPEEDS, "new": 1.0}) == {
        1: "new"
    }
    # Twins: nothing else enters there, and without leave not even that.
    assert names([Wanted(1, Needs(lane="new"))], new, lane("other")) == {}
    assert names([Wanted(1, step)], replace(new, admitting=False), lane("other")) == {}


@given(st.integers(0, 10_000))
def test_no_unlike_lane_is_ever_oversubscribed(seed: int) -> None:
    rng = random.Random(seed)
    lanes, slow = [], {}
    for i in range(rng.randint(2, 5)):
        view = lane(f"l{i}", cores=rng.randint(1, 8), gpus=rng.randint(0, 2), resources=frozenset({"x"}))
        slow[view.name] = rng.choice((0.5, 1.0, 3.0))
        lanes.append(busy(view, rng.uniform(0, 50)) if rng.random() < 0.3 else view)
    needs = [
        Needs(cores=rng.randint(1, 4), gpus=rng.choice([0, 0, 1]), resources=rng.choice([(), ("x",)])) for _ in range(4)
    ]
    wanted = []
    for i in range(15):
        group = rng.choice([None, 1, 2])
        seconds = rng.choice([None, rng.uniform(1, 60)])
        wanted.append(work(i, seconds, needs=needs[(group or 0) + rng.choice([0, 0, 1])], group=group))
    pace = Pace(slow, sum(v.total.cores / slow[v.name] for v in lanes))
    placed = place(wanted, lanes, {"k": pace})
    by_job = {w.job: w.needs for w in wanted}
    assert len({p.job for p in placed}) == len(placed)
    for view in lanes:
        mine = [p for p in placed if p.lane == view.name]
        assert sum(by_job[p.job].cores for p in mine) <= view.free.cores
        gpus = [g for p in mine for g in p.gpus]
        assert len(gpus) == len(set(gpus)) == sum(by_job[p.job].gpus for p in mine)
        assert sum("x" in by_job[p.job].resources for p in mine) <= 1


def test_portions_end_together() -> None:
    slots = [1.0, 2.0, 4.0]
    shares = [portion(700, slow, slots) for slow in slots]
    assert shares == [400, 200, 100]
    assert portion(1, 4.0, slots) == 1
