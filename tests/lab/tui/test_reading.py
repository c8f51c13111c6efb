"""Reading homes as they are: growing, locked, replaced, damaged, missing. Nothing raises, little is read."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lab.tui.curves
from core.home import Home
from core.journal import Event, Journal, Role, query
from core.journal.store import Tx
from core.live import LiveWriter
from core.states import EventKind as K
from core.states import JobState as S
from lab.tui.curves import MOST_SERIES, Curves, Together
from lab.tui.facts import Series, Want
from lab.tui.feed import Looker, Paces
from lab.tui.looking import LiveNews
from lab.tui.reading import MOST_ENDED, MOST_QUEUED, JournalReader
from tests.lab.conftest import Submit
from tests.lab.journals import SPEC, many_jobs


class Clock:
    """Time that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def write(home: Home, work: Callable[[Tx], Any]) -> None:
    with Journal.open(home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
        work(tx)


def add_sweep(home: Home, cells: int, *, members: tuple[int, ...] = ()) -> int:
    """A sweep that is open. Returns its id."""
    found: list[int] = []

    def work(tx: Tx) -> None:
        s = tx.next_job_id()
        tx.append(K.SPEC, data={"digest": "d", "data": json.dumps(SPEC)})
        tx.add_cells((s + i, s, f"{s + i:064x}", f"a={i}", json.dumps({"a": i}), None) for i in range(1, cells + 1))
        data = {
            "spec": "d", "kind": "toy", "name": "grid", "params": {}, "key": f"{s:064x}", "priority": 0, "idem": None,
            "tags": ["night"], "note": "", "held": False, "rerun_of": None, "after": [], "cells": cells, "pooled": 1,
            "at_once": None, "max_fails": None, "axes": [["a", list(range(cells))]], "members": list(members),
        }  # fmt: skip
        tx.append(K.SWEPT, job=s, data=data)
        tx.append(K.SWEEP_OPENED, job=s)
        found.append(s)

    write(home, work)
    return found[0]


def end(home: Home, job: int, state: str = "succeeded", reason: str = "") -> None:
    write(home, lambda tx: tx.append(K.JOB_ENDED, job=job, data={"state": state, "cause": "ok", "reason": reason}))


def run_cells(home: Home, sweep: int, ok: int, failed: int, lane: str = "local") -> None:
    """A batch of so many cells from the first on, of which the last ones failed; and one that is still at it."""

    def work(tx: Tx) -> None:
        n = ok + failed
        data = {"dir": "1-x", "nonce": "x", "grant": {"cores": 1}, "cells": [[sweep + 1, sweep + n, 1]]}
        batch = tx.append(K.BATCH_PLACED, lane=lane, data=data)
        for i in range(ok + 1, n + 1):
            bad = {"batch": batch, "state": "failed", "cause": "error", "message": "boom", "seconds": 0.1,
                   "to": "failed", "reason": f"boom {i}", "undeclared": []}  # fmt: skip
            tx.append(K.CELL_ENDED, job=sweep + i, attempt=1, lane=lane, data=bad)
        done = {"batch": batch, "seconds": 1.0, "cause": "ok", "reason": "", "manifest": "m",
                "ok": [[sweep + 1, sweep + ok, 1]], "back": [], "parts": []}  # fmt: skip
        tx.append(K.BATCH_ENDED, lane=lane, data=done)
        more = {"dir": "2-x", "nonce": "y", "grant": {"cores": 2}, "cells": [[sweep + n + 1, sweep + n + 5, 1]]}
        tx.append(K.BATCH_PLACED, lane=lane, data=more)

    write(home, work)


def test_nothing_is_read_while_nothing_changed(home: Home) -> None:
    many_jobs(home, 30)
    reader = JournalReader(home)
    first = reader.read(Want())
    assert reader.changes == 1
    assert reader.read(Want()) is first
    assert reader.read(Want(selected=5)) is first  # what is selected is another reader's business
    assert reader.changes == 1
    end(home, 28)
    assert reader.read(Want()) is not first
    assert reader.changes == 2
    reader.close()


def test_only_rows_that_changed_are_read_in_full(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    many_jobs(home, 30)
    clock = Clock()
    reader = JournalReader(home, clock)
    reader.read(Want())
    clock.now += 1.0
    asked: list[int] = []
    real = query.jobs
    monkeypatch.setattr(query, "jobs", lambda conn, **k: asked.extend(k["ids"]) or real(conn, **k))
    end(home, 28, "failed", "it broke")
    facts = reader.read(Want())
    assert asked == [28]
    found = next(j for j in facts.jobs if j.id == 28)
    assert (found.state, found.reason) == (S.FAILED, "it broke")
    assert facts.counts[S.FAILED] == 3
    reader.close()


def test_jobs_that_come_and_end_between_two_looks_are_seen(home: Home) -> None:
    many_jobs(home, 3)
    reader = JournalReader(home)
    reader.read(Want())
    with Journal.open(home) as journal:
        data = query.events(journal.conn, job_id=1)[0].data

    def work(tx: Tx) -> None:
        tx.append(K.SUBMITTED, job=9, data={**data, "name": "quick", "key": "9" * 64})
        tx.append(K.JOB_ENDED, job=9, data={"state": "succeeded", "cause": "ok", "reason": ""})

    write(home, work)
    assert 9 in {j.id for j in reader.read(Want()).jobs}
    reader.close()


def test_of_long_ago_only_what_the_filter_finds(home: Home) -> None:
    many_jobs(home, 500)
    reader = JournalReader(home)
    facts = reader.read(Want())
    assert len([j for j in facts.jobs if j.state.terminal]) == MOST_ENDED
    assert facts.counts[S.SUCCEEDED] + facts.counts[S.FAILED] == 497
    found = {j.id for j in reader.read(Want(text=("number", "37"))).jobs}
    assert {37, 137, 370} <= found
    found = {j.id for j in reader.read(Want(states=(S.FAILED,))).jobs if j.state.terminal}
    assert found == set(range(10, 498, 10))
    found = {j.id for j in reader.read(Want(tags=("tenth",), kinds=("nothing",))).jobs if j.state.terminal}
    assert found == set()
    reader.close()


def test_a_long_queue_is_read_from_its_head(home: Home) -> None:
    many_jobs(home, MOST_QUEUED + 200, live=MOST_QUEUED + 150)
    reader = JournalReader(home)
    facts = reader.read(Want())
    queued = [j for j in facts.jobs if j.state is S.QUEUED]
    assert len(queued) == MOST_QUEUED
    assert facts.unread == facts.counts[S.QUEUED] - MOST_QUEUED > 0
    reader.close()


def test_a_sweep_folded_and_unfolded(home: Home) -> None:
    many_jobs(home, 20)
    s = add_sweep(home, 1000, members=(1, 10))
    run_cells(home, s, 40, 3)
    reader = JournalReader(home)
    facts = reader.read(Want())
    assert [j.id for j in facts.jobs if j.sweep is not None] == []
    fact = facts.sweeps[s]
    assert fact.counts == {S.SUCCEEDED: 41, S.FAILED: 4, S.RUNNING: 5, S.QUEUED: 952}
    assert (fact.first_failed, fact.first_error) == (s + 41, "boom 41")
    assert facts.holdings[-1].cells == 5
    assert sum(n for _, n in facts.done["local"]) >= 43
    cells = reader.read(Want(unfolded=((s, 20),))).cells[s]
    assert [c.state for c in cells] == [S.RUNNING] * 5 + [S.FAILED] * 4 + [S.QUEUED] * 11
    assert 10 in {c.id for c in cells}  # answered by a job of another day
    failed = reader.read(Want(unfolded=((s, 20),), cell_states=(S.FAILED,))).cells[s]
    assert [c.id for c in failed] == [s + 41, s + 42, s + 43, 10]
    reader.close()


def test_a_hundred_thousand_cells_cost_milliseconds(home: Home) -> None:
    import time

    s = add_sweep(home, 100_000)
    reader = JournalReader(home)
    reader.read(Want(unfolded=((s, 100),)))
    run_cells(home, s, 500, 3)
    began = time.thread_time()
    facts = reader.read(Want(unfolded=((s, 100),)))
    assert time.thread_time() - began < 0.2
    assert len(facts.cells[s]) == 100
    assert facts.cells[s][0].state is S.RUNNING
    reader.close()


def test_what_is_costly_is_counted_less_often(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    many_jobs(home, 30)
    reader = JournalReader(home, clock)
    spent = [0.0]
    counted: list[float] = []

    def counts(*_: Any, **__: Any) -> dict[S, int]:
        spent[0] += 0.5
        counted.append(clock.now)
        return {S.QUEUED: len(counted)}

    monkeypatch.setattr("lab.tui.reading.time.thread_time", lambda: spent[0])
    monkeypatch.setattr(query, "counts", counts)
    for job in (28, 29, 30):
        reader.read(Want())
        end(home, job)
        clock.now += 1.0
    assert len(counted) == 1  # half a second of work: not again for 25 s
    clock.now += 25.0
    assert reader.read(Want()).counts == {S.QUEUED: 2}
    reader.close()


def test_a_home_that_is_not_there_yet_is_waited_for(home: Home) -> None:
    clock = Clock()
    reader = JournalReader(home, clock)
    assert reader.read(Want()).jobs == ()
    assert "there is no lab home" in reader.trouble
    many_jobs(home, 3)
    clock.now += 10.0
    assert len(reader.read(Want()).jobs) == 3
    assert reader.trouble == ""
    reader.close()


def test_a_journal_that_was_replaced_is_opened_anew(home: Home, tmp_path: Path) -> None:
    clock = Clock()
    many_jobs(home, 3)
    reader = JournalReader(home, clock)
    assert len(reader.read(Want()).jobs) == 3
    other = Home(tmp_path / "other")
    many_jobs(other, 7)
    for name in ("journal.db", "journal.witness"):
        os.replace(other.path / name, home.path / name)
    for name in ("journal.db-wal", "journal.db-shm"):
        (home.path / name).unlink(missing_ok=True)
    assert len(reader.read(Want()).jobs) == 3  # the last that was read, and why
    assert "replaced" in reader.trouble
    clock.now += 10.0
    assert len(reader.read(Want()).jobs) == 7
    assert reader.trouble == ""
    reader.close()


def test_a_damaged_journal_is_said_not_raised(home: Home) -> None:
    clock = Clock()
    many_jobs(home, 3)
    for name in ("journal.db-wal", "journal.db-shm"):
        (home.path / name).unlink(missing_ok=True)
    (home.path / "journal.db").write_bytes(b"this is no database" * 1000)
    reader = JournalReader(home, clock)
    assert reader.read(Want()).jobs == ()
    assert "damaged" in reader.trouble
    reader.close()


def test_a_writer_in_the_middle_of_its_work_is_no_trouble(home: Home) -> None:
    many_jobs(home, 3)
    reader = JournalReader(home)
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.append(K.HOLD_ASKED, job=2)
        assert len(reader.read(Want()).jobs) == 3
        assert reader.trouble == ""
    reader.close()


def test_live_news_are_read_when_they_changed_and_age_by_themselves(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.create()
    writer = LiveWriter(home)
    report = {"job": 1, "attempt": 1, "phase": "running", "beat": 3, "step": 5}
    writer.write([report])
    clock = Clock()
    news = LiveNews(home, clock)
    first = news.read()[0][(1, 1)]
    assert first.step == 5
    read: list[int] = []
    real = news.__class__.read.__globals__["read_attempts"]
    monkeypatch.setitem(news.__class__.read.__globals__, "read_attempts", lambda h: read.append(1) or real(h))
    clock.now += 30.0
    aged = news.read()[0][(1, 1)].age_s
    assert aged is not None
    assert first.age_s is not None
    assert aged - first.age_s == pytest.approx(30.0)
    assert read == []
    writer.write([{**report, "beat": 4, "step": 6}])
    assert news.read()[0][(1, 1)].step == 6
    assert read == [1]
    for name in ("live.db", "live.db-wal", "live.db-shm"):
        (home.path / name).unlink(missing_ok=True)
    assert news.read() == ({}, {})
    home.live.write_bytes(b"junk" * 4096)
    assert news.read()[0] == {}
    news.close()
    writer.close()


def test_one_job_in_depth(home: Home, ask: Submit) -> None:
    ask()
    ask(alpha=2.0)
    placed = {"nonce": "n", "grant": {"cores": 1}}
    write(home, lambda tx: tx.append(K.PLACED, job=1, attempt=1, lane="local", data=placed))
    run = home.run_dir(1, 1)
    run.path.mkdir(parents=True)
    run.log.write_bytes(b"one\n\x1b]52;c;AAAA\x07two\n")
    writer = LiveWriter(home)
    rows = [json.dumps({"step": i, "loss": 1.0 / (i + 1), "name": "x"}) for i in range(50)]
    writer.write([{"job": 1, "attempt": 1, "phase": "running", "beat": 1, "metrics": rows, "metrics_from": 0}])
    looker = Looker(home)
    detail = looker.look(Want(selected=1)).detail
    assert detail is not None
    assert detail.log == ("one", "two")
    assert list(detail.curves) == ["loss"]
    assert detail.curves["loss"][0][-1] == 49.0
    assert "running" in detail.explained[0]
    queued = looker.look(Want(selected=2)).detail
    assert queued is not None
    assert "waits for" in queued.explained[0]
    assert queued.log_note == "nothing was printed: it has not started"
    assert looker.look(Want(selected=12345)).detail is None
    looker.close()
    writer.close()


def told(writer: LiveWriter, job: int, attempt: int, rows: list[dict[str, Any]], *, at: int = 0) -> None:
    lines = [json.dumps(row) for row in rows]
    report = {"job": job, "attempt": attempt, "phase": "running", "beat": 1, "metrics": lines, "metrics_from": at}
    writer.write([report])


def test_a_curve_goes_on_where_the_next_attempt_began(home: Home) -> None:
    write(home, lambda tx: None)
    writer = LiveWriter(home)
    told(writer, 7, 1, [{"step": n, "epoch": n // 4, "loss": float(n)} for n in range(1, 21)])
    curves = Curves()
    curves.read(home, 7, 1)
    assert list(curves.points) == ["loss"], "an epoch is no number to be drawn"
    assert curves.points["loss"][0][-1] == 20.0
    # From the checkpoint of step 10: the steps beyond are made once more, with other numbers here.
    told(writer, 7, 2, [{"step": 11, "loss": 110.0}])
    curves.read(home, 7, 2)
    assert curves.points["loss"] == ((*map(float, range(1, 11)), 11.0), (*map(float, range(1, 11)), 110.0))
    told(writer, 7, 2, [{"step": 12, "loss": 120.0}], at=1000)
    curves.read(home, 7, 2)
    assert curves.points["loss"][1][-2:] == (110.0, 120.0)
    # Whoever comes later sees the same, and an attempt that started over leaves nothing of those before.
    late = Curves()
    late.read(home, 7, 2)
    assert late.points == curves.points
    told(writer, 7, 3, [{"step": 1, "loss": 5.0}])
    curves.read(home, 7, 3)
    assert curves.points["loss"] == ((1.0,), (5.0,))
    writer.close()


def test_the_cells_of_a_sweep_have_a_curve_each(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = add_sweep(home, MOST_SERIES + 4)
    placed = {"nonce": "n", "grant": {"cores": 1}}

    def start(job: int) -> None:
        write(home, lambda tx: tx.append(K.PLACED, job=job, attempt=1, lane="local", data=placed))

    writer = LiveWriter(home)
    for job in (sweep + 2, sweep + 1):
        start(job)
        told(writer, job, 1, [{"step": n, "loss": float(job)} for n in range(3)])
    together = Together()

    def read(version: int) -> tuple[Series, ...]:
        with Journal.open(home) as journal:
            return together.read(home, journal.conn, sweep, version)

    found = read(1)
    assert [(one.job, one.label, one.curves["loss"][1]) for one in found] == [
        (sweep + 1, "a=1", (sweep + 1.0,) * 3),
        (sweep + 2, "a=2", (sweep + 2.0,) * 3),
    ]
    assert {one.state for one in found} == {S.RUNNING}
    # Of many the first of those that run; one that has ended gives way, and is not read again.
    ended = {"state": "succeeded", "cause": "ok", "reason": "", "undeclared": 0}
    write(home, lambda tx: tx.append(K.JOB_ENDED, job=sweep + 1, data=ended))
    assert [one.state for one in read(2)] == [S.SUCCEEDED, S.RUNNING]
    asked: list[int] = []
    real = lab.tui.curves.metric_rows
    monkeypatch.setattr(
        lab.tui.curves, "metric_rows", lambda h, job, *a, **k: asked.append(job) or real(h, job, *a, **k)
    )
    read(2)
    assert asked == [sweep + 2]
    for job in range(sweep + 3, sweep + MOST_SERIES + 3):
        start(job)
        told(writer, job, 1, [{"step": 1, "loss": 1.0}])
    assert [one.job for one in read(3)] == list(range(sweep + 2, sweep + MOST_SERIES + 2))
    writer.close()


def test_the_reason_for_waiting_is_not_worked_out_each_second(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    import lab.explain

    clock = Clock()
    many_jobs(home, 30)
    asked: list[int] = []
    real = lab.explain.explain
    monkeypatch.setattr(lab.explain, "explain", lambda *a: asked.append(1) or real(*a))
    looker = Looker(home, clock)
    for i in range(4):
        assert looker.look(Want(selected=30)).detail is not None
        write(home, lambda tx, i=i: tx.extend([Event(K.HOLD_ASKED, job=29)]))  # type: ignore[misc]
        clock.now += 1.0
    assert len(asked) == 1
    clock.now += 60.0
    looker.look(Want(selected=30))
    assert len(asked) == 2
    looker.close()


def test_paces_begin_anew_with_a_new_attempt() -> None:
    paces = Paces()
    for t in range(5):
        paces.note(1, float(t), 10.0 * t)
    assert paces.rates() == {1: 10.0}
    paces.note(1, 5.0, 2.0)
    assert paces.rates() == {}
    paces.keep(set())
    assert paces.rates() == {}


def test_reading_leaves_a_home_as_it_was(home: Home) -> None:
    many_jobs(home, 30)
    before = sqlite3.connect(home.journal).execute("SELECT max(seq) FROM event").fetchone()
    files = {p.name for p in home.path.iterdir() if not p.name.endswith(("-wal", "-shm"))}
    looker = Looker(home)
    for selected in (1, 28, 30):
        looker.look(Want(selected=selected))
    looker.close()
    assert sqlite3.connect(home.journal).execute("SELECT max(seq) FROM event").fetchone() == before
    assert {p.name for p in home.path.iterdir() if not p.name.endswith(("-wal", "-shm"))} <= files | {"digests.db"}
    shutil.rmtree(home.path)
    assert Looker(home).look(Want()).trouble
