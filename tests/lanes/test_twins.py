"""Second copies of batches, in a world where a test says how each batch ends: which of the two counts, what becomes of
the other, and when there is no copy at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from core.states import AttemptState, Cause, JobState, LaneState
from core.states import EventKind as K
from lanes.dispatch import Dispatch
from lanes.flights import Flight
from lanes.outlook import Outlook
from lanes.pool.front import Front
from tests.lanes.fakepool import OF_THE_FIRST_S, Chance, World, ended

Make = Callable[..., World]

_STEPS = 160  # of one run by chance


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes worlds, and ends them."""
    worlds: list[World] = []

    def one(**more: Any) -> World:
        worlds.append(World(tmp_path / str(len(worlds)), **more))
        return worlds[-1]

    yield one
    for world in worlds:
        world.close()


class Stuck(NamedTuple):
    """A sweep of which all cells have ended but those of one batch."""

    world: World
    sweep: int
    first: str
    cell: int


def stuck(world: World, cells: int = 9, size: int = 1, *, overdue: bool = True, **spec: Any) -> Stuck:
    """A sweep whose first batch holds it up; every other cell took a moment.

    Args:
        overdue: it already takes so long that a copy is worth it.
    """
    sweep = world.sweep(cells, spec=spec)
    world.pool.size_ = size
    world.turn()
    first = next(iter(world.pool.batches))
    world.end_all(but=[first])
    assert len(world.jobs(first)) == size
    if overdue:
        world.now += OF_THE_FIRST_S
    return Stuck(world, sweep, first, world.jobs(first)[0])


def copy_of(it: Stuck) -> str:
    """The second copy, which is there after this turn."""
    it.world.turn()
    (copy,) = it.world.copies
    assert it.world.cells(copy) == it.world.cells(it.first)
    assert it.world.lane(copy) != it.world.lane(it.first)
    return copy


def is_cancelled(it: Stuck) -> None:
    assert it.world.state(it.cell) is JobState.CANCELLED
    it.world.check_over(it.sweep)


def ends_well(it: Stuck) -> None:
    it.world.end_all()
    assert it.world.state(it.sweep) is JobState.SUCCEEDED
    it.world.check_over(it.sweep)


# Which of the two counts.


def test_the_copy_that_ends_first_counts(make: Make) -> None:
    it = stuck(make())
    copy = copy_of(it)
    lane = it.world.lane(copy)
    it.world.end(copy)
    it.world.turn()
    assert it.world.stopped(it.first) == {Cause.PREEMPTED}
    assert it.world.state(it.sweep) is JobState.SUCCEEDED
    assert [(a.n, a.lane, a.state) for a in it.world.attempts(it.cell)] == [(1, lane, AttemptState.SUCCEEDED)]
    ends_well(it)
    assert it.world.won() == 1


def part_counts(make: Make) -> None:
    """A copy whose worker begins no new cell after two of four."""
    it = stuck(make(), 24, 4)
    copy = copy_of(it)
    jobs = it.world.jobs(copy)
    it.world.end(copy, back=jobs[2:])
    it.world.turn()
    assert it.world.won() == 1, "what it has done counts"
    assert [it.world.state(job) for job in jobs[:2]] == [JobState.SUCCEEDED] * 2
    assert not any(it.world.state(job).terminal for job in jobs[2:])
    ends_well(it)


def test_a_copy_that_did_part_of_its_cells_counts(make: Make) -> None:
    part_counts(make)


def test_that_test_finds_a_copy_thrown_away_for_want_of_some_cells(make: Make, monkeypatch: Any) -> None:
    """The negative twin: were only whole copies to count, the part that is done would be done again for nothing."""
    real = Dispatch._twin_back
    monkeypatch.setattr(Dispatch, "_twin_back", lambda self, twin, done: done.back or real(self, twin, done))
    with pytest.raises(AssertionError, match="what it has done counts"):
        part_counts(make)


def test_a_copy_of_which_nothing_was_done_counts_for_nothing(make: Make) -> None:
    it = stuck(make())
    copy = copy_of(it)
    it.world.end(copy, back=it.world.jobs(copy))
    it.world.turn()
    assert it.world.won() == 0
    assert it.world.stopped(it.first) == set()
    ends_well(it)


def test_a_copy_that_read_undeclared_files_counts(make: Make) -> None:
    """It did its work: what it read besides is told of it as of any other."""
    it = stuck(make())
    copy = copy_of(it)
    it.world.end(copy, ends=ended(it.world.cells(copy), AttemptState.SUCCEEDED, Cause.OK, undeclared=("/etc/x",)))
    it.world.turn()
    assert it.world.won() == 1
    assert it.world.state(it.cell) is JobState.SUCCEEDED
    ends_well(it)


def test_a_copy_that_fails_harms_nothing(make: Make) -> None:
    """The first goes on, and what it says counts."""
    it = stuck(make())
    copy = copy_of(it)
    it.world.end(copy, ends=ended(it.world.cells(copy), AttemptState.FAILED))
    it.world.turn()
    assert it.world.state(it.cell) is JobState.RUNNING
    assert it.world.stopped(it.first) == set()
    ends_well(it)


def one_copy_only(make: Make) -> None:
    it = stuck(make())
    copy = copy_of(it)
    it.world.end(copy, ends=ended(it.world.cells(copy), AttemptState.FAILED))
    begun = len(it.world.pool.started)
    it.world.turn(times=50)
    assert len(it.world.pool.started) == begun, "one copy is all"
    ends_well(it)


def test_a_batch_gets_one_copy_however_that_fares(make: Make) -> None:
    one_copy_only(make)


def test_that_test_finds_a_batch_that_is_copied_again_and_again(make: Make, monkeypatch: Any) -> None:
    """The negative twin: a lane where the cell fails at once would start copies without end."""
    real = Dispatch.double

    def forgetful(self: Dispatch, nonce: str, lane: str, gpus: tuple[int, ...]) -> None:
        real(self, nonce, lane, gpus)
        self.twins.tried.clear()

    monkeypatch.setattr(Dispatch, "double", forgetful)
    with pytest.raises(AssertionError, match="one copy is all"):
        one_copy_only(make)


def test_an_attempt_that_was_lost_is_evidence_and_its_copy_is_stopped(make: Make) -> None:
    """The copy may not hide that a lane lost an attempt: the cell goes back to the queue, and runs a second time."""
    it = stuck(make())
    copy = copy_of(it)
    lane = it.world.lane(it.first)
    it.world.end(it.first, ends=ended(it.world.cells(it.first), AttemptState.LOST, Cause.LANE_REBOOTED))
    it.world.turn()
    assert it.world.stopped(copy) == {Cause.PREEMPTED}
    it.world.end(copy)
    ends_well(it)
    said = [(a.n, a.state, a.cause) for a in it.world.attempts(it.cell)]
    assert said == [(1, AttemptState.LOST, Cause.LANE_REBOOTED), (2, AttemptState.SUCCEEDED, Cause.OK)]
    assert it.world.attempts(it.cell)[0].lane == lane
    assert it.world.won() == 0


def test_the_copy_takes_the_place_of_a_first_that_came_back_with_nothing(make: Make) -> None:
    it = stuck(make())
    copy = copy_of(it)
    lane = it.world.lane(copy)
    it.world.end(it.first, back=[it.cell])
    it.world.turn()
    assert it.world.stopped(copy) == set()
    assert it.world.placed(it.cell) == [(1, lane)]
    ends_well(it)


# What becomes of the other.


def test_the_slower_copys_slot_is_held_until_its_lane_lets_it_go(make: Make) -> None:
    it = stuck(make())
    copy = copy_of(it)
    fast, slow = it.world.lane(copy), it.world.lane(it.first)
    it.world.end(copy)
    it.world.turn(times=5)
    assert (it.world.free(fast), it.world.free(slow)) == (1, 0)
    # Nothing else is sent to a slot whose worker is not done, though cells wait that want it.
    other = it.world.sweep(3)
    it.world.turn(times=5)
    assert {it.world.lane(n) for n in it.world.pool.batches if n != it.first} == {fast}
    it.world.end(it.first, ends=ended(it.world.cells(it.first), AttemptState.CANCELLED, Cause.PREEMPTED))
    assert it.world.free(slow) == 1
    it.world.end_all()
    it.world.check_over(it.sweep, other)


def test_what_the_slower_one_says_later_is_refused(make: Make) -> None:
    it = stuck(make())
    copy = copy_of(it)
    it.world.end(copy)
    it.world.turn()
    it.world.end(it.first, ends=ended(it.world.cells(it.first), AttemptState.FAILED))
    it.world.turn()
    assert it.world.state(it.cell) is JobState.SUCCEEDED
    assert len(it.world.attempts(it.cell)) == 1
    ends_well(it)


def makes_way(make: Make) -> None:
    """Both slots are taken, one by a copy, as another sweep comes."""
    it = stuck(make())
    copy = copy_of(it)
    lane = it.world.lane(copy)
    other = it.world.sweep(4)
    it.world.turn(times=3)
    assert it.world.stopped(copy) == {Cause.PREEMPTED}, "a copy makes way"
    assert it.world.stopped(it.first) == set(), "a copy is stopped by its nonce, and its first goes on"
    it.world.end(copy, ends=ended(it.world.cells(copy), AttemptState.CANCELLED, Cause.PREEMPTED))
    it.world.turn()
    assert [it.world.lane(n) for n in it.world.pool.batches if n != it.first] == [lane]
    it.world.end_all(but=[it.first])
    assert it.world.state(other) is JobState.SUCCEEDED
    assert it.world.placed(it.cell) == [(1, it.world.lane(it.first))]
    ends_well(it)


def test_a_copy_makes_way_for_work_that_waits(make: Make) -> None:
    makes_way(make)


def test_that_test_finds_a_copy_that_stays(make: Make, monkeypatch: Any) -> None:
    """The negative twin: a copy without end would keep others from the lane for as long."""
    monkeypatch.setattr(Dispatch, "end_copies", lambda self, lanes: None)
    with pytest.raises(AssertionError, match="a copy makes way"):
        makes_way(make)


def test_that_test_finds_a_first_that_is_stopped_with_its_copy(make: Make, monkeypatch: Any) -> None:
    """The negative twin: both have the same cells, so a stop that names only cells stops both."""

    def by_cells(self: Front, batch: Any, cause: Cause) -> None:
        self.stop_cells({c.job for c in batch.cells}, cause)

    monkeypatch.setattr(Front, "stop_batch", by_cells)
    with pytest.raises(AssertionError, match="its first goes on"):
        makes_way(make)


def test_a_copy_stays_while_what_waits_could_not_use_its_slot(make: Make) -> None:
    it = stuck(make())
    copy = copy_of(it)
    it.world.sweep(2, spec={"needs": {"cores": 50}})
    it.world.turn(times=5)
    assert it.world.copies == [copy]
    assert it.world.stopped(copy) == set()


# What people ask for.


def test_nothing_is_started_again_that_is_being_cancelled(make: Make) -> None:
    it = stuck(make(), overdue=False, limits={"grace_s": 60.0})
    it.world.ask(K.CANCEL_ASKED, it.cell)
    it.world.turn()
    assert it.world.state(it.cell) is JobState.CANCELLING
    begun = len(it.world.pool.started)
    it.world.now += OF_THE_FIRST_S
    it.world.turn(times=5)
    assert len(it.world.pool.started) == begun
    it.world.end(it.first, ends=ended(it.world.cells(it.first), AttemptState.CANCELLED, Cause.CANCELLED))
    it.world.turn()
    is_cancelled(it)


def test_a_cancel_stops_both_copies(make: Make) -> None:
    it = stuck(make())
    copy = copy_of(it)
    it.world.ask(K.CANCEL_ASKED, it.cell)
    it.world.turn()
    assert it.world.stopped(copy) == it.world.stopped(it.first) == {Cause.CANCELLED}
    for nonce in (copy, it.first):
        it.world.end(nonce, ends=ended(it.world.cells(nonce), AttemptState.CANCELLED, Cause.CANCELLED))
        it.world.turn()
    is_cancelled(it)


def test_a_copy_of_what_was_cancelled_meanwhile_counts_for_nothing(make: Make) -> None:
    """The first comes back as if it had never begun: its cell is cancelled, and the copy has no place to take."""
    it = stuck(make())
    copy = copy_of(it)
    it.world.ask(K.CANCEL_ASKED, it.cell)
    it.world.turn()
    it.world.end(it.first, back=[it.cell])
    it.world.turn()
    assert it.world.state(it.cell) is JobState.CANCELLED
    it.world.end(copy)
    it.world.turn()
    is_cancelled(it)


def test_a_hold_keeps_the_first_running(make: Make) -> None:
    """It is the first that people know of, and a hold stops nothing that runs: the cell's end is the first's."""
    it = stuck(make())
    copy = copy_of(it)
    it.world.ask(K.HOLD_ASKED, it.cell)
    it.world.turn()
    it.world.end(copy)
    it.world.turn()
    assert it.world.state(it.cell) is JobState.RUNNING
    assert it.world.stopped(it.first) == set()
    it.world.end(it.first)
    it.world.turn()
    assert it.world.state(it.cell) is JobState.SUCCEEDED
    assert it.world.won() == 0
    it.world.check_over(it.sweep)


# When there is a copy at all.


def test_a_lane_that_is_out_of_reach_with_the_last_cell_does_not_hold_up_the_end(make: Make) -> None:
    it = stuck(make(), overdue=False)
    it.world.set_lane(it.world.lane(it.first), LaneState.UNREACHABLE)
    it.world.now += OF_THE_FIRST_S
    copy = copy_of(it)
    it.world.end(copy)
    it.world.turn()
    assert it.world.state(it.sweep) is JobState.SUCCEEDED


def test_what_is_soon_done_gets_no_copy(make: Make) -> None:
    """And when it is not done so soon after all it gets one."""
    world = make()
    sweep = world.sweep(9)
    world.turn()
    while len(world.controller.sweeps.live[sweep].waiting):
        world.end(next(iter(world.pool.batches)))
        world.turn(0.01)
    other, first = world.pool.batches
    world.end(other)
    world.turn(times=4)
    assert world.copies == []
    world.now += OF_THE_FIRST_S
    it = Stuck(world, sweep, first, world.jobs(first)[0])
    copy_of(it)
    ends_well(it)


def order_holds(make: Make) -> None:
    """One cell of a sweep over unlike lanes is cancelled while it waits, another comes back: as many wait as before,
    and not the same."""
    world = make()
    sweep = world.sweep(14)
    world.turn()
    for _ in range(5):
        for nonce in list(world.pool.batches):
            world.end(nonce)
        world.turn(0.01)
    live = world.controller.sweeps.live[sweep]
    gone = max(live.waiting)
    world.ask(K.CANCEL_ASKED, gone)
    first = next(iter(world.pool.batches))
    (back,) = world.jobs(first)
    world.end(first, back=[back])
    world.turn()
    world.end_all()
    assert world.state(back) is JobState.SUCCEEDED, "it waits for ever"
    assert world.state(gone) is JobState.CANCELLED
    world.check_over(sweep)


def test_a_cell_that_comes_back_as_another_is_cancelled_runs(make: Make) -> None:
    order_holds(make)


def test_that_test_finds_a_cell_that_waits_for_ever(make: Make, monkeypatch: Any) -> None:
    """The negative twin: the order of the cells that wait hears nothing of the one that is cancelled."""
    real = Outlook.hear

    def deaf(self: Outlook, events: Any) -> None:
        real(self, [e for e in events if e.kind is not K.JOB_ENDED])

    monkeypatch.setattr(Outlook, "hear", deaf)
    with pytest.raises(AssertionError, match="it waits for ever"):
        order_holds(make)


# Anything, in any order.


def by_chance(folder: Path, seeds: range, capsys: pytest.CaptureFixture[str]) -> int:
    """A run for each seed. Returns how many copies counted in all of them."""
    won = 0
    for seed in seeds:
        chance = Chance(folder / str(seed), seed)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("lanes.dispatch.write_ended", chance.write_ended)
                for _ in range(_STEPS):
                    chance.step()
                    if chance.over:
                        break
                chance.finish()
            bugs = capsys.readouterr().out.split("a bug of ours")[1:]
            assert all("said the test" in bug for bug in bugs), bugs
            won += chance.world.won()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        finally:
            chance.world.close()
        shutil.rmtree(folder / str(seed))
    return won


def test_whatever_happens_each_cell_ends_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert by_chance(tmp_path, range(25), capsys) > 0, "no copy counted: this has tried nothing"


@pytest.mark.long
def test_whatever_happens_each_cell_ends_once_for_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert by_chance(tmp_path, range(25, 400), capsys) > 0


def test_that_test_finds_a_slot_that_is_let_go_too_early(
    tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The negative twin: what lost is taken for gone as soon as it is told to stop."""
    real = Dispatch._beat

    def hasty(self: Dispatch, twin: Flight) -> None:
        real(self, twin)
        self.m.books[twin.batch.lane].release_batch(twin.batch.nonce)

    monkeypatch.setattr(Dispatch, "_beat", hasty)
    with pytest.raises(AssertionError, match="slots that are held"):
        by_chance(tmp_path, range(25), capsys)
