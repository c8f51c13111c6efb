"""Quarantine: a lane is blamed for what it did, not for jobs that could begin nowhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.cluster import Cluster, LaneConfig
from core.home import Home
from core.journal import Event, Journal, Role, query
from core.live import LiveWriter
from core.states import AttemptState, Cause, EventKind
from lanes.admission.misbehaviour import AttemptEnd, is_own, misbehaves
from lanes.attempts import Attempts
from lanes.decide import Ended
from lanes.later import Later, Message
from lanes.mirror import Mirror

# The rule.


def unready(*jobs: int, own: bool = False, cause: Cause = Cause.SETUP) -> list[AttemptEnd]:
    return [AttemptEnd(cause, job=job, own=own) for job in jobs]


def test_five_jobs_that_cannot_begin_are_enough() -> None:
    assert "5 jobs in a row could not even begin there (setup)" in (misbehaves(unready(1, 2, 3, 4, 5)) or "")
    assert misbehaves(unready(1, 2, 3, 4)) is None


def test_one_job_is_one_witness_however_often_it_is_tried() -> None:
    assert misbehaves(unready(*[1, 2, 3, 4] * 5)) is None
    assert misbehaves(unready(*[1, 2, 3, 4] * 5, 5)) is not None


def test_who_is_at_fault_by_itself_neither_counts_nor_clears_the_lane() -> None:
    assert misbehaves(unready(*range(20), own=True)) is None
    mixed = [e for job in range(5) for e in (*unready(job), *unready(*range(100, 110), own=True))]
    assert misbehaves(mixed) is not None


def test_a_job_that_began_clears_the_lane() -> None:
    assert misbehaves([*unready(1, 2, 3), AttemptEnd("error", job=4), *unready(5, 6)]) is None


@pytest.mark.parametrize(
    ("elsewhere", "own"),
    [
        ([], False),  # nobody knows
        (["setup"], True),
        (["setup", "cancelled", "unreachable"], True),
        (["start-lost"], False),  # for another reason
        (["setup", "ok"], False),  # it can begin somewhere
        (["setup", "error"], False),
    ],
)
def test_whose_fault_it_is(elsewhere: list[str], own: bool) -> None:  # noqa: FBT001
    assert is_own(Cause.SETUP, elsewhere) is own
    assert not is_own(Cause.ERROR, ["error"])


# With a journal.

BAD = {"packages": {"nope": "1"}}


class World:
    """Attempts of a controller with three lanes, of which nobody runs anything."""

    def __init__(self, home: Home, journal: Journal) -> None:
        self.inbox: list[Message] = []
        self.journal = journal
        self.m = Mirror(home, journal, Cluster(tuple(LaneConfig(n, transport="ssh", host=n) for n in "abc")))
        for name, book in self.m.books.items():
            book.admitted = frozenset({"eval"})
            self.m.record([Event(EventKind.ADMITTED, lane=name, data={"role": "eval", "ok": True})])
        self.live = LiveWriter(home)
        self.attempts = Attempts(self.m, self.live, self.inbox.append, Later())
        self._jobs = 0

    def job(self, lane: str, cause: Cause, **spec: object) -> None:
        """A job of its own submit, with one attempt on that lane that ended so."""
        self._jobs += 1
        job, digest = self._jobs, f"spec-{self._jobs}"
        told = {"needs": {}, "limits": {}, "argv": ["lab", "submit", str(job)], **spec}
        data = {"kind": "toy", "key": f"{job:064d}", "params": {}, "spec": digest, "priority": 0, "idem": None}
        self.m.record(
            [
                Event(EventKind.SPEC, data={"digest": digest, "data": told}),
                Event(EventKind.SUBMITTED, job, data={**data, "name": "", "tags": [], "note": "", "after": []}),
                Event(EventKind.PLACED, job, 1, lane, {"nonce": "n", "grant": {"cores": 1}}),
            ]
        )
        self.m.take_up(query.attempts(self.journal.conn, job)[0])
        state = AttemptState.SUCCEEDED if cause is Cause.OK else AttemptState.FAILED
        self.attempts.harvested((job, 1), Ended(state, cause))

    @property
    def quarantined(self) -> list[str]:
        return sorted({lane for what, lane, _why in self.inbox if what == "quarantine"})


@pytest.fixture
def world(lab_home: Home) -> Iterator[World]:
    lab_home.create()
    with Journal.open(lab_home, Role.CONTROLLER, create=True) as journal:
        found = World(lab_home, journal)
        yield found
        found.attempts.finish()
        found.live.close()


def test_jobs_that_can_begin_nowhere_quarantine_no_lane(world: World) -> None:
    for i in range(30):
        world.job("abc"[i % 3], Cause.SETUP, **BAD)
    assert world.quarantined == []


def test_work_that_can_begin_nowhere_does_not_take_lane_after_lane(world: World) -> None:
    """Whoever it meets first cannot be told from a lane that is broken; the next ones can."""
    for lane in "abc":
        for _ in range(10):
            world.job(lane, Cause.SETUP, **BAD)
    assert world.quarantined == ["a"]


def test_a_lane_on_which_nothing_can_begin_is_quarantined(world: World) -> None:
    for i in range(5):
        world.job("a", Cause.OK)
        world.job("b", Cause.SETUP)
        assert world.quarantined == (["b"] if i == 4 else [])


def test_a_broken_lane_is_found_among_jobs_that_can_begin_nowhere(world: World) -> None:
    world.job("a", Cause.OK)
    for _ in range(5):
        world.job("a", Cause.SETUP, **BAD)
        world.job("b", Cause.SETUP, **BAD)
        world.job("b", Cause.SETUP)
    assert world.quarantined == ["b"]


def test_two_broken_lanes_do_not_excuse_each_other(world: World) -> None:
    for _ in range(6):
        world.job("a", Cause.SETUP)
        world.job("b", Cause.SETUP)
        world.job("c", Cause.OK)
    assert world.quarantined == ["a", "b"]
