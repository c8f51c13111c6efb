"""Sweeps and batches in the journal: many cells in few events, and every promise kept for each of them."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from core.errors import NotFound
from core.home import Home
from core.journal import Journal, Role, query, schema
from core.journal.apply import replay
from core.journal.recover import recover
from core.journal.store import Tx
from core.states import EventKind as K
from core.states import JobState
from tests.core.test_journal import ended, home, state_dump, submitted  # noqa: F401


def sweep(tx: Tx, cells: int, **more: Any) -> int:
    """Record a sweep. Returns its id."""
    s = tx.next_job_id()
    tx.add_cells((s + 1 + i, s, f"{s:08x}{i:056x}", f"a={i}", json.dumps({"a": i}), None) for i in range(cells))
    data = {
        "spec": "d1",
        "kind": "toy",
        "name": "a sweep",
        "params": {},
        "key": f"{s:064x}",
        "priority": 0,
        "idem": None,
        "tags": ["night"],
        "note": "",
        "held": False,
        "rerun_of": None,
        "after": [],
        "cells": cells,
        "pooled": 1,
        "at_once": None,
        "max_fails": None,
        "axes": [["a", list(range(cells))]],
        "members": [],
        **more,
    }
    tx.append(K.SWEPT, job=s, data=data)
    return s


def placed(tx: Tx, *ranges: list[int]) -> int:
    data = {"dir": f"{ranges[0][0]}-x", "nonce": "x", "grant": {"cores": 1}, "cells": list(ranges)}
    return tx.append(K.BATCH_PLACED, lane="local", data=data)


def batch_ended(tx: Tx, batch: int, ok: list[list[int]], back: Sequence[list[int]] = (), rows: int = 0) -> int:
    first, last = (ok[0][0], ok[-1][1]) if ok else (0, 0)
    parts = [{"table": "t", "path": "", "rows": rows, "bytes": 3, "sha256": "x", "first": first, "last": last}]
    data = {
        "batch": batch,
        "seconds": 0.1,
        "cause": "ok",
        "reason": "",
        "manifest": "m",
        "ok": ok,
        "back": list(back),
        "parts": parts if rows else [],
    }
    seq = tx.append(K.BATCH_ENDED, lane="local", data=data)
    if rows:
        tx.attach(seq, 0, b"abc")
    return seq


def cell_ended(tx: Tx, batch: int, job: int, n: int, to: str, **more: Any) -> None:
    state = "failed" if to in ("failed", "queued") else to
    data = {
        "batch": batch,
        "state": state,
        "cause": "error",
        "message": "boom",
        "seconds": 0.5,
        "to": to,
        "reason": "boom",
        "undeclared": [],
        **more,
    }
    tx.append(K.CELL_ENDED, job=job, attempt=n, lane="local", data=data)


@pytest.fixture
def journal(home: Home) -> Any:  # noqa: F811
    with Journal.open(home, Role.CONTROLLER, create=True) as opened:
        with opened.transaction() as tx:
            tx.append(K.SPEC, data={"digest": "d1", "data": "{}"})
        yield opened


def test_a_sweep_is_a_row_and_its_cells_are_jobs(journal: Journal) -> None:
    with journal.transaction() as tx:
        s = sweep(tx, 5, at_once=2, max_fails=1)
        other = tx.next_job_id()
        tx.extend([submitted(other)])
    conn = journal.conn
    row, cell = query.job(conn, s), query.job(conn, s + 3)
    assert (row.cells, row.is_sweep, row.state, row.tags) == (5, True, JobState.QUEUED, ("night",))
    assert (cell.sweep, cell.params, cell.name, cell.spec, cell.pooled) == (s, {"a": 2}, "a=2", "d1", True)
    found = query.sweep(conn, s)
    assert (list(found.own), found.total, found.at_once, found.max_fails, found.open) == (
        [s + 1, s + 2, s + 3, s + 4, s + 5], 5, 2, 1, False,
    )  # fmt: skip
    assert other == s + 6
    # Only the plain job is in the plain queue; a folded list has two rows.
    assert [j.id for j in query.queue(conn)] == [other]
    assert [j.id for j in query.jobs(conn, top=True, newest_first=False)] == [s, other]
    assert len(query.jobs(conn, states=(JobState.QUEUED,))) == 7
    assert query.counts(conn, top=True) == {JobState.QUEUED: 2}
    assert query.counts(conn) == {JobState.QUEUED: 6}
    assert query.job_ids(conn, [other, s]) == [other, *range(s + 1, s + 6)]
    with pytest.raises(NotFound, match="is a cell of sweep"):
        query.sweep(conn, s + 1)


def test_cells_end_once_and_in_the_way_that_was_said(journal: Journal) -> None:
    conn = journal.conn
    with journal.transaction() as tx:
        s = sweep(tx, 10)
        tx.append(K.SWEEP_OPENED, job=s)
        batch = placed(tx, [s + 1, s + 8, 1])
    assert query.sweep_counts(conn, s) == {JobState.RUNNING: 8, JobState.QUEUED: 2}
    assert [b.cells for b in query.open_batches(conn)] == [((s + 1, s + 8, 1),)]
    assert query.batch_of(conn, s + 4).dir == f"{s + 1}-x"  # type: ignore[union-attr]
    with journal.transaction() as tx:
        cell_ended(tx, batch, s + 2, 1, "failed")
        cell_ended(tx, batch, s + 3, 1, "queued", cause="runner-died")
        cell_ended(tx, batch, s + 4, 1, "succeeded", cause="ok", message="", reason="", undeclared=["/etc/x"])
        batch_ended(tx, batch, [[s + 1, s + 1, 1], [s + 5, s + 6, 1]], [[s + 7, s + 8, 1]], rows=4)
        tx.append(K.CELLS, data={"cells": [[s + 9, s + 10]], "state": "skipped", "cause": "max-fails", "reason": "r"})
    assert query.sweep_counts(conn, s) == {
        JobState.SUCCEEDED: 4, JobState.FAILED: 1, JobState.QUEUED: 3, JobState.SKIPPED: 2,
    }  # fmt: skip
    failed, again, odd, fine = (query.job(conn, s + i) for i in (2, 3, 4, 5))
    assert (failed.cause, failed.reason, query.first_failure(conn, s)) == ("error", "boom", failed)
    assert (again.attempts, again.cause, again.lane) == (1, "runner-died", None)
    assert odd.undeclared
    assert not fine.undeclared
    assert (fine.cause, fine.lane, fine.attempts) == ("ok", "local", 1)
    one = query.attempts(conn, s + 5)[0]
    assert (one.state, one.batch, one.manifest, one.seconds) == ("succeeded", f"{s + 1}-x", "m", None)
    assert query.attempts(conn, s + 2)[0].seconds == 0.5
    assert (query.job(conn, s + 7).attempts, query.attempts(conn, s + 7)) == (0, [])
    part = query.parts(conn, job_id=s + 5)[0]
    assert part.inline
    assert query.payload(conn, part.id) == b"abc"
    assert not query.open_batches(conn)
    # A cell that has ended never ends again, in whatever form that is said; nothing of such a transaction is kept.
    for again_said in (
        lambda tx: tx.extend([ended(s + 5)]),
        lambda tx: cell_ended(tx, batch, s + 5, 2, "failed"),
        lambda tx: batch_ended(tx, batch, [[s + 5, s + 5, 1]]),
        lambda tx: placed(tx, [s + 5, s + 5, 2]),
        lambda tx: tx.append(
            K.CELLS, data={"cells": [[s + 5, s + 5]], "state": "cancelled", "cause": "c", "reason": ""}
        ),
    ):
        with pytest.raises(sqlite3.IntegrityError), journal.transaction() as tx:
            again_said(tx)
    assert query.job(conn, s + 5) == fine


def test_members_count_and_compaction_replaces_parts(journal: Journal) -> None:
    conn = journal.conn
    with journal.transaction() as tx:
        first = sweep(tx, 4)
        second = sweep(tx, 2, members=[first + 1, first + 2])
        batch = placed(tx, [first + 1, first + 4, 1])
        batch_ended(tx, batch, [[first + 1, first + 4, 1]], rows=4)
    assert query.sweep_counts(conn, second) == {JobState.QUEUED: 2, JobState.SUCCEEDED: 2}
    assert query.sweep(conn, second).total == 4
    assert [j.id for j in query.cells(conn, second)] == [first + 1, first + 2, second + 1, second + 2]
    assert [j.id for j in query.cells(conn, second, states=(JobState.QUEUED,), limit=1)] == [second + 1]
    old = query.parts(conn)
    new = {"table": "t", "path": "t/c.parquet", "rows": 4, "bytes": 9, "sha256": "y", "first": 2, "last": 5}
    with journal.transaction() as tx:
        tx.append(K.COMPACTED, data={"table": "t", "replaces": [p.id for p in old], "parts": [new]})
        tx.drop_payload([p.id for p in old])
    assert [p.path for p in query.parts(conn)] == ["t/c.parquet"]
    assert query.payload(conn, old[0].id) is None
    with pytest.raises(sqlite3.IntegrityError), journal.transaction() as tx:  # they are no longer there
        tx.append(K.COMPACTED, data={"table": "t", "replaces": [p.id for p in old], "parts": [new]})


def live_sweeps(journal: Journal, rng: random.Random) -> list[int]:
    """Random but lawful sweeps among plain jobs."""
    sweeps: list[int] = []
    waiting: dict[int, int] = {}
    open_batches: list[tuple[int, list[list[int]]]] = []
    parts: list[int] = []
    for turn in range(60):
        with journal.transaction() as tx:
            for _ in range(rng.randint(1, 3)):
                what = rng.random()
                if what < 0.15 or turn == 0:
                    job = tx.next_job_id()
                    tx.extend([submitted(job)])
                    if rng.random() < 0.5:
                        tx.append(
                            K.PLACED, job=job, attempt=1, lane="local", data={"nonce": "n", "grant": {"cores": 1}}
                        )
                        end = {"state": "succeeded", "cause": "ok", "parts": []}
                        tx.append(K.ATTEMPT_ENDED, job=job, attempt=1, lane="local", data=end)
                        tx.extend([ended(job)])
                elif what < 0.3:
                    s = sweep(tx, rng.randint(1, 30), pooled=rng.randint(0, 1))
                    tx.append(K.SWEEP_OPENED, job=s)
                    sweeps.append(s)
                    waiting.update(dict.fromkeys(query.sweep(tx.conn, s).own, 1))
                elif what < 0.6 and waiting:
                    first = rng.choice(sorted(waiting))
                    n = waiting[first]
                    run = [first]
                    while waiting.get(run[-1] + 1) == n and len(run) < 9:
                        run.append(run[-1] + 1)
                    for job in run:
                        del waiting[job]
                    if rng.random() < 0.2:
                        tx.append(
                            K.CELLS,
                            data={"cells": [[run[0], run[-1]]], "state": "skipped", "cause": "max-fails", "reason": ""},
                        )
                    elif rng.random() < 0.2:  # the plain way
                        tx.append(
                            K.PLACED, job=run[0], attempt=n, lane="local", data={"nonce": "n", "grant": {"cores": 1}}
                        )
                        tx.append(K.STARTED, job=run[0], attempt=n, lane="local", data={"pid": 1, "boot": "b"})
                        end = {"state": "failed", "cause": "error", "parts": []}
                        tx.append(K.ATTEMPT_ENDED, job=run[0], attempt=n, lane="local", data=end)
                        tx.extend([ended(run[0], "failed")])
                        waiting.update(dict.fromkeys(run[1:], n))
                    else:
                        open_batches.append((placed(tx, [run[0], run[-1], n]), [run, [n]]))
                elif open_batches:
                    batch, (run, (n,)) = open_batches.pop(rng.randrange(len(open_batches)))
                    job = run[0]
                    to = rng.choice(["failed", "queued", "cancelled"])
                    cell_ended(tx, batch, job, n, to)
                    if to == "queued":
                        waiting[job] = n + 1
                    ok = [[run[1], run[-1], n]] if len(run) > 1 else []
                    if ok:
                        parts.append(batch_ended(tx, batch, ok, rows=3) * 256)
                    else:
                        batch_ended(tx, batch, [])
                elif len(parts) > 2:
                    part = {"table": "t", "path": f"t/{turn}", "rows": 6, "bytes": 1, "sha256": "", "first": 1}
                    data = {"table": "t", "replaces": parts[:2], "parts": [{**part, "last": 9}]}
                    parts = [*parts[2:], tx.append(K.COMPACTED, data=data) * 256]
    return sweeps


@pytest.mark.parametrize("seed", range(6))
def test_replay_gives_the_same_state(journal: Journal, seed: int) -> None:
    live_sweeps(journal, random.Random(seed))
    conn = journal.conn
    before = state_dump(conn)
    assert len(before["sweep"]) > 2
    assert before["batch"]
    for drop in (None, "batch-ended", "swept"):
        conn.execute("BEGIN")
        if drop is not None:  # the twin: without one event it is another state, or none at all
            conn.execute("DELETE FROM event WHERE seq = (SELECT max(seq) FROM event WHERE kind = ?)", (drop,))
        schema.drop_state(conn)
        schema.create_state(conn)
        try:
            replay(conn)
            same = state_dump(conn) == before
        except sqlite3.IntegrityError:
            same = False
        conn.execute("ROLLBACK")
        assert same is (drop is None)


def test_recovery_keeps_cells_and_rows_that_were_not_in_files_yet(home: Home, tmp_path: Path) -> None:  # noqa: F811
    with Journal.open(home, Role.CONTROLLER, create=True) as journal:
        with journal.transaction() as tx:
            plain = tx.next_job_id()
            tx.extend([submitted(plain)])
            s = sweep(tx, 20)
            batch = placed(tx, [s + 1, s + 20, 1])
            batch_ended(tx, batch, [[s + 1, s + 20, 1]], rows=20)
        before = state_dump(journal.conn)
    report = recover(home)
    assert report.lost == 0
    with Journal.open(home, Role.CONTROLLER) as journal:
        assert state_dump(journal.conn) == before
        part = query.parts(journal.conn, job_id=s + 7)[0]
        assert query.payload(journal.conn, part.id) == b"abc"
        with journal.transaction() as tx:
            assert tx.next_job_id() == s + 21
        # A sweep whose cells cannot be read was not submitted: it and what follows is said to be lost.
        journal.conn.execute("DELETE FROM cell WHERE id = ?", (s + 7,))
    for kept in home.path.glob("damaged-*"):  # there they would be found again
        shutil.rmtree(kept)
    report = recover(home)
    assert report.lost == 4
    with Journal.open(home) as journal:
        assert [j.id for j in query.jobs(journal.conn)] == [plain]


def test_the_newest_are_found_without_reading_all(home: Home) -> None:  # noqa: F811
    """Counted in steps of SQLite, not in seconds: what ended last must not cost more when more has ended."""
    with Journal.open(home, Role.CONTROLLER, create=True) as journal:
        with journal.transaction() as tx:
            tx.extend(e for job in range(1, 3001) for e in (submitted(job), ended(job)))
        steps: list[None] = []
        journal.conn.set_progress_handler(lambda: steps.append(None), 1000)
        assert len(query.jobs(journal.conn, states=(JobState.SUCCEEDED, JobState.FAILED), limit=8, top=True)) == 8
        few = len(steps)
        journal.conn.execute("SELECT * FROM job WHERE state = 'succeeded' ORDER BY name LIMIT 8").fetchall()
        assert few < 10 < len(steps) - few, "the twin reads all of them"
