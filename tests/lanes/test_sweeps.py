"""Sweeps: opened, placed, stopped, ended; and the pure parts that decide it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.home import Home
from core.journal import Event, Journal, Role, query
from core.states import AttemptState, Cause, JobState
from core.states import EventKind as K
from lanes import decide
from lanes.decide import Known, conclude_batch, sweep_ended, tally
from lanes.pool.types import BatchDone, CellEnd
from lanes.ranges import Ids, count, runs_of, spans_of
from lanes.start import wake
from tests.lanes.cells import Submitter, ask, check_cells, counts, grid, wait_end
from tests.lanes.test_decide import job as job_row
from tests.support import job, tail, wait_for, wait_state

import toysweep  # isort: skip  (tests/lanes is put on the path by tests.lanes.cells)

CORES = len(os.sched_getaffinity(0))
S = JobState


# Ranges.

ids = st.sets(st.integers(1, 60))


@given(ids, st.lists(st.integers(1, 60), max_size=20), st.integers(0, 70))
def test_ids_are_a_set(start: set[int], changes: list[int], n: int) -> None:
    mine, model = Ids(spans_of(sorted(start))), set(start)
    for i in changes:
        assert (i in mine) == (i in model)
        if i % 2:
            mine.add(i)
            model.add(i)
        else:
            assert mine.discard(i) == (i in model)
            model.discard(i)
    assert list(mine) == sorted(model)
    assert len(mine) == len(model)
    assert mine.spans() == spans_of(sorted(model))
    want = sorted(model)[:n]
    assert mine.peek(n) == spans_of(want) == mine.take(n)
    assert count(spans_of(want)) == len(want)
    assert list(mine) == sorted(model)[n:]
    assert len(mine) == len(model) - len(want)


def test_whole_spans_are_merged() -> None:
    some = Ids([(5, 9), (1, 3)])
    some.add(4)
    some.add(8, 12)
    assert some.spans() == [(1, 12)]
    assert len(some) == 12
    assert runs_of([(1, 1), (2, 1), (3, 2), (5, 2)]) == [[1, 2, 1], [3, 3, 2], [5, 5, 2]]


# What follows from the end of a batch.


def done(ok: list[int], ends: list[CellEnd] = [], back: list[int] = []) -> BatchDone:  # noqa: B006
    return BatchDone("n", ok, ends, back, {}, 0.1, None)


def cell_end(number: int, state: AttemptState, cause: Cause, message: str = "boom") -> CellEnd:
    return CellEnd(number, 1, state, cause, message, 0.1, ())


def known(*jobs: int, **more: Any) -> Known:
    return Known(seq=9, lane="local", attempts=dict.fromkeys(jobs, 1), spec={}, **more)


def test_what_went_plainly_well_needs_no_word_of_its_own() -> None:
    verdict = conclude_batch(done([1, 2, 3]), known(1, 2, 3))
    assert (verdict.ok, verdict.back, verdict.ended) == ([1, 2, 3], [], [])


def test_each_cell_of_a_batch_gets_one_answer() -> None:
    """Whatever the worker says twice, forgets, or says of cells that are not of this batch."""
    failed = cell_end(2, AttemptState.FAILED, Cause.ERROR)
    told = done([1, 2, 99], [failed, failed, cell_end(98, AttemptState.FAILED, Cause.ERROR)], [1])
    verdict = conclude_batch(told, known(1, 2, 3, 4))
    assert verdict.ok == [1]
    assert [(e.job, e.data["to"]) for e in verdict.ended] == [(2, "failed")]
    assert verdict.back == [3, 4]
    assert verdict.committed == {1}


def test_cells_are_retried_by_cause_and_bounded() -> None:
    died = cell_end(1, AttemptState.LOST, Cause.RUNNER_DIED)
    assert conclude_batch(done([], [died]), known(1)).ended[0].data["to"] == "queued"
    last = conclude_batch(done([], [died]), known(1, used={1: 3})).ended[0]
    assert last.data["to"] == "failed"
    assert "retried 3 times" in last.data["reason"]
    own_fault = cell_end(1, AttemptState.FAILED, Cause.ERROR)
    assert conclude_batch(done([], [own_fault]), known(1)).ended[0].data["to"] == "failed"


def test_what_is_being_cancelled_commits_nothing() -> None:
    ends = [cell_end(2, AttemptState.FAILED, Cause.ERROR)]
    verdict = conclude_batch(done([1, 4], ends, [3]), known(1, 2, 3, 4, unwanted=frozenset({1, 2, 3})))
    assert verdict.committed == {4}
    assert (verdict.ok, verdict.back) == ([4], [])
    assert {e.job: (e.data["state"], e.data["to"]) for e in verdict.ended} == dict.fromkeys(
        (1, 2, 3), ("cancelled", "cancelled")
    )
    # The twin: what nobody cancelled is not lost because the pool says that it was stopped.
    stopped = [cell_end(1, AttemptState.CANCELLED, Cause.CANCELLED)]
    assert conclude_batch(done([], stopped), known(1)).back == [1]


def test_undeclared_files_are_told_and_the_row_counts() -> None:
    end = CellEnd(1, 1, AttemptState.SUCCEEDED, Cause.OK, "", 0.1, ("/etc/hosts",))
    verdict = conclude_batch(done([2], [end]), known(1, 2))
    assert verdict.committed == {1, 2}
    assert (verdict.ended[0].data["to"], verdict.ended[0].data["undeclared"]) == ("succeeded", ["/etc/hosts"])


def test_a_wish_to_hold_is_answered_when_the_cell_is_back() -> None:
    verdict = conclude_batch(done([1], back=[2]), known(1, 2, wishes={2: "hold"}))
    assert [(e.kind, e.job) for e in verdict.answered] == [(K.HELD, 2)]


def test_how_a_sweep_ended_in_a_sentence() -> None:
    some = {S.SUCCEEDED: 985, S.FAILED: 12, S.SKIPPED: 3}
    assert tally(some, 1000) == "12 of 1,000 cells failed, 3 were skipped"
    event = sweep_ended(job_row(cells=1000), some, "error")
    assert (event.data["state"], event.data["cause"]) == ("failed", "error")
    assert sweep_ended(job_row(cells=2), {S.SUCCEEDED: 2}, None).data["state"] == "succeeded"
    assert sweep_ended(job_row(cells=2), {S.SUCCEEDED: 1, S.CANCELLED: 1}, None).data["reason"] == (
        "1 of 2 cells was cancelled"
    )
    cancelled = sweep_ended(job_row(cells=2, state=S.CANCELLING), {S.SUCCEEDED: 1, S.CANCELLED: 1}, None)
    assert (cancelled.data["state"], cancelled.data["reason"]) == ("cancelled", "cancelled; 1 of 2 cells had succeeded")


# Real sweeps. Each test is done once with cells in batches and once with cells that run by themselves.


@pytest.fixture(params=["pooled", "plain"])
def sub(request: pytest.FixtureRequest, shared_home: Home) -> Callable[..., Submitter]:
    kind = toysweep.Toy() if request.param == "pooled" else toysweep.Plain()
    return lambda **spec: Submitter(shared_home, kind, **spec)


@pytest.fixture
def go(tmp_path: Path) -> Iterator[Path]:
    """A file for which cells wait; there at the end, so that a failed test leaves no lane full."""
    path = tmp_path / "go"
    yield path
    path.touch()


def test_a_sweep_of_which_some_fail(shared_home: Home, sub: Callable[..., Submitter]) -> None:
    s = sub(retries={"signal": 0, "runner-died": 0}).sweep(grid(8, fail=[3], die=[5]))
    end = wait_end(shared_home, s)
    assert (end.state, end.reason) == (S.FAILED, "2 of 8 cells failed")
    check_cells(shared_home, s, {3: S.FAILED, 5: S.FAILED})
    with Journal.open(shared_home) as journal:
        first = query.first_failure(journal.conn, s)
    assert first is not None
    assert end.cause == first.cause
    assert "no luck with 3" in str(job(shared_home, s + 4).reason)
    fine = sub().sweep(grid(3))
    assert wait_end(shared_home, fine).state is S.SUCCEEDED
    check_cells(shared_home, fine)


def test_a_killed_cell_starts_again_later_and_holds_up_no_other(shared_home: Home, tmp_path: Path) -> None:
    """Cell 0 is the first of the queue; while it may not start again, the cells behind it run, one at a time."""
    cells = [{**cell, "mark": str(tmp_path / "mark")} for cell in grid(4, die_once=[0])]
    s = Submitter(shared_home, toysweep.Plain()).sweep(cells, at_once=1)
    assert wait_end(shared_home, s).state is S.SUCCEEDED
    with Journal.open(shared_home) as journal:
        events = query.events(journal.conn)
        placed = [e.job for e in events if e.kind == K.PLACED and e.job is not None and s < e.job <= s + 4]
        again = next(e for e in query.events(journal.conn, job_id=s + 1) if e.kind == K.REQUEUED)
    assert sorted(placed) == [s + 1, s + 1, s + 2, s + 3, s + 4]
    assert placed[:2] == [s + 1, s + 2]
    assert again.data["wait_s"] > 0


def most_at_once(home: Home, sweep: int) -> int:
    """The largest number of batches, or of attempts, of a sweep that were open at once, by the journal."""
    now = most = 0
    with Journal.open(home) as journal:
        size = query.sweep(journal.conn, sweep).cells
        mine: set[int] = set()
        for e in query.events(journal.conn):
            cell = e.job is not None and sweep < e.job <= sweep + size
            if e.kind == K.BATCH_PLACED and sweep < e.data["cells"][0][0] <= sweep + size:
                mine.add(e.seq)
                now += 1
            elif e.kind == K.BATCH_ENDED and e.data["batch"] in mine:
                now -= 1
            elif cell and e.kind == K.PLACED:
                now += 1
            elif cell and e.kind == K.ATTEMPT_ENDED:
                now -= 1
            most = max(most, now)
    return most


@pytest.mark.skipif(CORES < 2, reason="one core runs one thing at a time anyhow")
def test_at_once(shared_home: Home, sub: Callable[..., Submitter]) -> None:
    cells = [{"i": i, "s": 0.05} for i in range(6)]
    one = sub().sweep(cells, at_once=1)
    wait_end(shared_home, one)
    assert most_at_once(shared_home, one) == 1
    check_cells(shared_home, one)
    free = sub().sweep(cells)
    wait_end(shared_home, free)
    assert most_at_once(shared_home, free) > 1


def test_dependencies_on_and_of_sweeps(shared_home: Home, sub: Callable[..., Submitter]) -> None:
    mine = sub()
    good, bad = mine.sweep(grid(2)), mine.sweep(grid(2, fail=[0]))
    after_good = mine.sweep(grid(2), after=[["ok", good]])
    after_bad = mine.sweep(grid(3), after=[["ok", bad]])
    anyhow = mine.job({"i": 1}, after=[["any", bad]])
    never = mine.job({"i": 2}, after=[["ok", after_bad]])
    after_cell = mine.job({"i": 3}, after=[["ok", good + 1]])
    assert wait_end(shared_home, after_good).state is S.SUCCEEDED
    skipped = wait_end(shared_home, after_bad)
    assert (skipped.state, skipped.cause) == (S.SKIPPED, Cause.DEPENDENCY)
    assert f"job {bad}" in str(skipped.reason)
    assert counts(shared_home, after_bad) == {"skipped": 3}
    assert wait_end(shared_home, anyhow).state is S.SUCCEEDED
    assert wait_end(shared_home, never).state is S.SKIPPED
    assert wait_end(shared_home, after_cell).state is S.SUCCEEDED
    for s in (good, bad, after_good, after_bad):
        check_cells(shared_home, s)


def test_hold_and_release(shared_home: Home, sub: Callable[..., Submitter]) -> None:
    mine = sub()
    s = mine.sweep(grid(3), held=True)
    wait_end(shared_home, mine.sweep(grid(2)))
    assert counts(shared_home, s) == {"queued": 3}
    assert job(shared_home, s).state is S.HELD
    # One of its cells is held by itself, and stays when the sweep is not what is released.
    ask(shared_home, K.HOLD_ASKED, s + 2)
    wait_state(shared_home, s + 2, S.HELD)
    ask(shared_home, K.CANCEL_ASKED, s + 3)
    wait_state(shared_home, s + 3, S.CANCELLED)
    ask(shared_home, K.RELEASE_ASKED, s + 2)
    wait_state(shared_home, s + 2, S.QUEUED)
    ask(shared_home, K.RELEASE_ASKED, s)
    end = wait_end(shared_home, s)
    assert (end.state, end.cause, end.reason) == (S.FAILED, Cause.CANCELLED, "1 of 3 cells was cancelled")
    check_cells(shared_home, s, {2: S.CANCELLED})


def test_a_held_cell_holds_the_end_of_its_sweep(shared_home: Home, sub: Callable[..., Submitter]) -> None:
    mine = sub()
    s = mine.sweep(grid(3), held=True)
    ask(shared_home, K.HOLD_ASKED, s + 1)
    wait_state(shared_home, s + 1, S.HELD)
    with Journal.open(shared_home) as journal:
        sweep_row = query.job(journal.conn, s)
    assert sweep_row.state is S.HELD
    ask(shared_home, K.RELEASE_ASKED, s)  # lets all of it go, as it holds all of it
    assert wait_end(shared_home, s).state is S.SUCCEEDED
    check_cells(shared_home, s)


def test_cancel_of_a_sweep(shared_home: Home, sub: Callable[..., Submitter], tmp_path: Path, go: Path) -> None:
    cells = [{"i": i, "do": "wait", "mark": str(go)} for i in range(40)]
    mine = sub()
    s = mine.sweep(cells)
    wait_for(lambda: list(tmp_path.glob("go.*")), f"a cell to run\n{tail(shared_home)}")
    ask(shared_home, K.CANCEL_ASKED, s)
    ask(shared_home, K.CANCEL_ASKED, s)
    end = wait_end(shared_home, s)
    assert (end.state, end.cause) == (S.CANCELLED, Cause.CANCELLED)
    assert check_cells(shared_home, s) == {S.CANCELLED: 40}
    # The slots are free again.
    assert wait_end(shared_home, mine.sweep(grid(2))).state is S.SUCCEEDED


def test_cancel_before_it_began(shared_home: Home, sub: Callable[..., Submitter]) -> None:
    s = sub().sweep(grid(4), held=True)
    ask(shared_home, K.CANCEL_ASKED, s)
    assert wait_end(shared_home, s).state is S.CANCELLED
    assert check_cells(shared_home, s) == {S.CANCELLED: 4}


def test_borrowed_cells_are_waited_for(
    shared_home: Home, sub: Callable[..., Submitter], tmp_path: Path, go: Path
) -> None:
    mine = sub()
    lender = mine.sweep([{"i": 1, "do": "wait", "mark": str(go)}, {"i": 2, "do": "fail"}])
    wait_for(lambda: list(tmp_path.glob("go.*")), f"a cell to run\n{tail(shared_home)}")
    borrower = mine.sweep(grid(2), members=[lender + 1])
    all_borrowed = mine.sweep([], members=[lender + 1])
    unlucky = mine.sweep(grid(1), members=[lender + 2])
    wait_for(lambda: counts(shared_home, borrower).get("succeeded") == 2 or None, "its own cells")
    assert job(shared_home, borrower).state is S.RUNNING
    wait_for(lambda: job(shared_home, all_borrowed).state is S.RUNNING, "the one without cells of its own to run")
    go.touch()
    assert wait_end(shared_home, borrower).state is S.SUCCEEDED
    assert counts(shared_home, borrower) == {"succeeded": 3}
    assert wait_end(shared_home, all_borrowed).state is S.SUCCEEDED
    end = wait_end(shared_home, unlucky)
    assert (end.state, end.cause, end.reason) == (S.FAILED, Cause.ERROR, "1 of 2 cells failed")


def test_a_sweep_that_cannot_be_placed_hides_nothing(shared_home: Home, sub: Callable[..., Submitter]) -> None:
    stuck = sub(needs={"lane": "elsewhere"}).sweep(grid(600), priority=5)
    behind = sub().sweep(grid(2))
    assert wait_end(shared_home, behind).state is S.SUCCEEDED
    assert counts(shared_home, stuck) == {"queued": 600}
    ask(shared_home, K.CANCEL_ASKED, stuck)
    wait_end(shared_home, stuck)


def test_priority_goes_before_age(shared_home: Home, sub: Callable[..., Submitter], tmp_path: Path, go: Path) -> None:
    mine = sub()
    blocker = mine.sweep([{"i": i, "do": "wait", "mark": str(go)} for i in range(CORES)])
    full = {"running": CORES}
    wait_for(lambda: counts(shared_home, blocker) == full, f"the lane to be full\n{tail(shared_home)}")
    low, high = mine.sweep(grid(2), priority=1), mine.sweep(grid(2), priority=5)
    go.touch()
    for s in (blocker, low, high):
        wait_end(shared_home, s)
    with Journal.open(shared_home) as journal:
        placed = [
            e.job if e.kind == K.PLACED else e.data["cells"][0][0]
            for e in query.events(journal.conn)
            if e.kind in (K.PLACED, K.BATCH_PLACED)
        ]
    order = [p for p in placed if p in (*range(low + 1, low + 3), *range(high + 1, high + 3))]
    assert min(order.index(p) for p in order if p > high) < min(order.index(p) for p in order if p <= low + 2)


def test_a_plain_requeue_answers_what_was_asked_meanwhile() -> None:
    row = job_row(wish="hold")
    assert [e.kind for e in decide.answered_in_queue(row.id, row.wish)] == [K.HELD]
    assert decide.answered_in_queue(row.id, None) == []


def test_a_sweep_and_its_cells_are_asked_about_at_once(shared_home: Home, sub: Callable[..., Submitter]) -> None:
    """One answer for each: a cell that ends with its sweep is not ended a second time, nor held after its end."""
    mine = sub()
    for first in (K.CANCEL_ASKED, K.HOLD_ASKED):
        s = mine.sweep(grid(6), held=True)
        with Journal.open(shared_home, Role.CLIENT) as journal, journal.transaction() as tx:
            tx.extend([Event(first, job=s + 3), Event(K.CANCEL_ASKED, job=s), Event(first, job=s + 5)])
        wake(shared_home)
        assert wait_end(shared_home, s).state is JobState.CANCELLED
        assert counts(shared_home, s) == {"cancelled": 6}


def test_what_has_ended_is_never_held_again(tmp_path: Path) -> None:
    """An event that says so does no harm, in a replay either."""
    with Journal.open(Home(tmp_path / "home"), Role.CONTROLLER, create=True) as journal:
        with journal.transaction() as tx:
            data = {"spec": "d", "kind": "k", "name": "", "params": {}, "key": "x", "priority": 0, "after": []}
            tx.append(K.SUBMITTED, job=1, data={**data, "tags": [], "note": ""})
            tx.append(K.JOB_ENDED, job=1, data={"state": "cancelled", "cause": "cancelled", "reason": ""})
            for kind in (K.HELD, K.RELEASED, K.CANCELLING, K.REQUEUED):
                tx.append(kind, job=1)
        assert query.job(journal.conn, 1).state is JobState.CANCELLED
