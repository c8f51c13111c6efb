"""Sweeps, their cells, and the batches in which cells ran."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from core.errors import NotFound
from core.journal.query.jobs import job
from core.journal.query.rows import Batch, Job, Sweep, batch_from, job_of, sweep_of
from core.states import JobState


def sweep(conn: sqlite3.Connection, sweep_id: int) -> Sweep:
    """The sweep `sweep_id`. Raises NotFound."""
    row = conn.execute(f"{_SWEEPS} WHERE w.id = ?", (sweep_id,)).fetchone()
    if row is None:
        found = job(conn, sweep_id)  # NotFound, where there is none
        of = f"; it is a cell of sweep {found.sweep}" if found.sweep is not None else ""
        raise NotFound(f"job {sweep_id} is no sweep{of}", hint=f"`lab status {sweep_id}` shows it")
    return sweep_of(row)


def sweeps(conn: sqlite3.Connection, *, live_only: bool = False) -> list[Sweep]:
    """Sweeps, oldest first."""
    live = " JOIN job_state s ON s.id = w.id WHERE s.ended IS NULL AND s.sweep IS NULL" if live_only else ""
    return [sweep_of(r) for r in conn.execute(f"{_SWEEPS}{live} ORDER BY w.id")]


_SWEEPS = "SELECT w.id, w.cells, w.total, w.pooled, w.at_once, w.max_fails, w.axes, w.open FROM sweep w"


def sweep_counts(conn: sqlite3.Connection, sweep_id: int) -> dict[JobState, int]:
    """How many cells of a sweep are in each state; those that other jobs answer are counted too."""
    out: dict[JobState, int] = {}
    for sql in (
        "SELECT state, count(*) FROM job_state WHERE sweep = ? GROUP BY state",
        "SELECT s.state, count(*) FROM member m JOIN job_state s ON s.id = m.job WHERE m.sweep = ? GROUP BY 1",
    ):
        for state, n in conn.execute(sql, (sweep_id,)):
            out[JobState(state)] = out.get(JobState(state), 0) + int(n)
    return out


def cells(
    conn: sqlite3.Connection,
    sweep_id: int,
    *,
    states: tuple[JobState, ...] = (),
    limit: int | None = None,
    after: int = 0,
) -> list[Job]:
    """Cells of a sweep by id, those that other jobs answer among them.

    Args:
        after: only ids above this one.
    """
    only = f" AND state IN ({', '.join('?' * len(states))})" if states else ""
    args = [str(s) for s in states]
    rows = conn.execute(
        f"""SELECT * FROM job WHERE id IN (
                SELECT id FROM job_state WHERE sweep = ?{only}
                UNION ALL SELECT s.id FROM member m JOIN job_state s ON s.id = m.job WHERE m.sweep = ?{only})
            AND id > ? ORDER BY id{f" LIMIT {int(limit)}" if limit is not None else ""}""",
        (sweep_id, *args, sweep_id, *args, after),
    )
    return [job_of(r) for r in rows]


def members(conn: sqlite3.Connection, sweep_id: int) -> list[int]:
    """Jobs outside of a sweep that answer cells of it."""
    return [int(r[0]) for r in conn.execute("SELECT job FROM member WHERE sweep = ? ORDER BY job", (sweep_id,))]


def job_ids(conn: sqlite3.Connection, ids: Iterable[int]) -> list[int]:
    """`ids`, with the cells and members of each sweep in its place; none twice, in order of first mention."""
    out: dict[int, None] = {}
    for i in ids:
        row = conn.execute("SELECT cells FROM sweep WHERE id = ?", (i,)).fetchone()
        if row is None:
            out[i] = None
        else:
            out.update(dict.fromkeys(sorted([*range(i + 1, i + int(row[0]) + 1), *members(conn, i)])))
    return list(out)


def first_failure(conn: sqlite3.Connection, sweep_id: int) -> Job | None:
    """The cell of a sweep that failed first."""
    row = conn.execute(
        "SELECT id FROM job_state WHERE sweep = ? AND state = 'failed' ORDER BY ended, id LIMIT 1", (sweep_id,)
    ).fetchone()
    return job(conn, row[0]) if row else None


def open_batches(conn: sqlite3.Connection) -> list[Batch]:
    """Batches of which no end is recorded."""
    return [batch_from(r) for r in conn.execute(f"{_BATCHES} WHERE b.ended IS NULL ORDER BY b.seq")]


def batch_of(conn: sqlite3.Connection, job_id: int, n: int | None = None) -> Batch | None:
    """The batch in which attempt `n` (None: the newest) of a job ran or runs; None for one that ran by itself."""
    which = "BETWEEN ? * 4096 + 1 AND ? * 4096 + 4095" if n is None else "= ? * 4096 + ?"
    row = conn.execute(
        f"{_BATCHES} WHERE b.seq = (SELECT placed FROM attempt_state WHERE id {which} ORDER BY id DESC LIMIT 1)",
        (job_id, job_id if n is None else n),
    ).fetchone()
    found = batch_from(row) if row else None
    if n is None:
        for batch in open_batches(conn):
            if any(first <= job_id <= last for first, last, _ in batch.cells):
                return batch
    return found


_BATCHES = "SELECT b.seq, b.lane, b.dir, e.at, e.data FROM batch b JOIN event e ON e.seq = b.seq"
