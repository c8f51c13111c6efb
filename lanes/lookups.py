"""What the controller asks of the journal in bulk: few columns of many rows, where `query` gives whole rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from core.states import JobState
from lanes.ranges import Span


class CellRow(NamedTuple):
    """A cell, or a pooled job by itself, as it is about to be placed."""

    id: int
    key: str
    params: str  # JSON
    spec: str
    attempts: int


class Waiting(NamedTuple):
    """A job (no sweep, no cell) that could be placed now.

    Attributes:
        key, params: of one that is pooled, else "".
        depends: others had to end first.
    """

    id: int
    priority: int
    pooled: bool
    attempts: int
    spec: str
    key: str
    params: str  # JSON
    depends: bool

    @property
    def row(self) -> CellRow:
        return CellRow(self.id, self.key, self.params, self.spec, self.attempts)


def queue(conn: sqlite3.Connection, limit: int, *, after: tuple[int, int] | None = None) -> list[Waiting]:
    """What `query.queue` says, in the same order, of a job only what its placement needs: one event is read, once.

    Args:
        after: (priority, id) of the last job of the page before.
    """
    priority, last = after or (1 << 62, 0)
    rows = conn.execute(_QUEUE, (priority, priority, last, limit))
    return [Waiting(r[0], r[1], bool(r[2]), r[3], r[4], r[5], r[6], bool(r[7])) for r in rows]


_QUEUE = """SELECT s.id, s.priority, s.pooled, s.attempts, e.data ->> '$.spec',
        iif(s.pooled, s.key, ''), iif(s.pooled, e.data ->> '$.params', ''),
        EXISTS (SELECT 1 FROM dep WHERE job = s.id)
    FROM job_state s JOIN event e ON e.seq = s.submit
    WHERE s.state = 'queued' AND s.sweep IS NULL AND s.cells IS NULL AND s.wish IS NULL
        AND NOT EXISTS (SELECT 1 FROM dep d JOIN job_state u ON u.id = d.needs WHERE d.job = s.id AND u.ended IS NULL)
        AND (s.priority < ? OR (s.priority = ? AND s.id > ?))
    ORDER BY s.priority DESC, s.id LIMIT ?"""


def live_sweeps(conn: sqlite3.Connection, after: int) -> list[int]:
    """Ids above `after` of sweeps that have not ended."""
    sql = """SELECT s.id FROM sweep s JOIN job_state j ON j.id = s.id
             WHERE s.id > ? AND j.ended IS NULL AND j.sweep IS NULL ORDER BY s.id"""
    return [int(r[0]) for r in conn.execute(sql, (after,))]


def own_counts(conn: sqlite3.Connection, sweep: int) -> dict[JobState, int]:
    """How many of a sweep's own cells are in each state."""
    rows = conn.execute("SELECT state, count(*) FROM job_state WHERE sweep = ? GROUP BY state", (sweep,))
    return {JobState(r[0]): int(r[1]) for r in rows}


def own_ids(conn: sqlite3.Connection, sweep: int, state: JobState) -> list[int]:
    """A sweep's own cells in one state, ascending."""
    rows = conn.execute("SELECT id FROM job_state WHERE sweep = ? AND state = ? ORDER BY id", (sweep, state))
    return [int(r[0]) for r in rows]


def member_states(conn: sqlite3.Connection, sweep: int) -> list[tuple[int, JobState]]:
    rows = conn.execute(
        "SELECT m.job, s.state FROM member m JOIN job_state s ON s.id = m.job WHERE m.sweep = ?", (sweep,)
    )
    return [(int(r[0]), JobState(r[1])) for r in rows]


def has_own_specs(conn: sqlite3.Connection, sweep: int, cells: int) -> bool:
    """Do some cells have a spec that is not the sweep's?"""
    sql = "SELECT 1 FROM cell WHERE id BETWEEN ? AND ? AND spec IS NOT NULL LIMIT 1"
    return conn.execute(sql, (sweep + 1, sweep + cells)).fetchone() is not None


def cells(conn: sqlite3.Connection, spans: Iterable[Span], spec: str) -> list[CellRow]:
    """Cells of one sweep, whose spec is `spec` where they have none of their own."""
    sql = """SELECT c.id, c.key, c.params, coalesce(c.spec, ?), s.attempts
             FROM cell c JOIN job_state s ON s.id = c.id WHERE c.id BETWEEN ? AND ? ORDER BY c.id"""
    return [CellRow(*r) for first, last in spans for r in conn.execute(sql, (spec, first, last))]


def jobs(conn: sqlite3.Connection, spans: Iterable[Span]) -> list[CellRow]:
    """The same of any jobs; dearer."""
    sql = "SELECT id, key, params, spec, attempts FROM job WHERE id BETWEEN ? AND ? ORDER BY id"
    return [CellRow(*r) for first, last in spans for r in conn.execute(sql, (first, last))]


def unwanted(conn: sqlite3.Connection, spans: Iterable[Span]) -> set[int]:
    """Jobs that are being cancelled, or whose cancel was asked for."""
    sql = "SELECT id FROM job_state WHERE id BETWEEN ? AND ? AND (state = 'cancelling' OR wish = 'cancel')"
    return {int(r[0]) for span in spans for r in conn.execute(sql, span)}


def all_queued(conn: sqlite3.Connection, spans: Iterable[Span]) -> bool:
    """Do all of these wait, neither held nor running nor ended?"""
    sql = "SELECT count(*) FROM job_state WHERE id BETWEEN ? AND ? AND state = 'queued'"
    return all(conn.execute(sql, (a, b)).fetchone()[0] == b - a + 1 for a, b in spans)


def wishes(conn: sqlite3.Connection, spans: Iterable[Span]) -> dict[int, str]:
    """What is asked for of these jobs and not yet answered."""
    sql = "SELECT id, wish FROM job_state WHERE wish IS NOT NULL AND id BETWEEN ? AND ?"
    return {int(r[0]): str(r[1]) for span in spans for r in conn.execute(sql, span)}


def needed(conn: sqlite3.Connection, first: int, last: int) -> bool:
    """Does any job wait for one of these?"""
    return conn.execute("SELECT 1 FROM dep WHERE needs BETWEEN ? AND ? LIMIT 1", (first, last)).fetchone() is not None


def lane_wishes(conn: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """(lane, wish, reason) of lanes of which something is asked."""
    return [(r[0], r[1], r[2]) for r in conn.execute("SELECT name, wish, reason FROM lane WHERE wish IS NOT NULL")]


def is_asked(conn: sqlite3.Connection) -> bool:
    """Is there any wish of a person: about a job, a lane, or the controller itself?"""
    sql = """SELECT EXISTS(SELECT 1 FROM job_state WHERE wish IS NOT NULL)
             OR EXISTS(SELECT 1 FROM lane WHERE wish IS NOT NULL) OR EXISTS(SELECT 1 FROM down_wish)
             OR EXISTS(SELECT 1 FROM lane_ask WHERE answered IS NULL)"""
    return bool(conn.execute(sql).fetchone()[0])


def begun(conn: sqlite3.Connection) -> list[int]:
    """Jobs that have had an attempt and may have another."""
    sql = "SELECT id FROM job_state WHERE ended IS NULL AND attempts > 0 AND NOT pooled ORDER BY id"
    return [int(r[0]) for r in conn.execute(sql)]


def sweep_of(conn: sqlite3.Connection, job: int) -> int | None:
    row = conn.execute("SELECT sweep FROM job_state WHERE id = ?", (job,)).fetchone()
    return None if row is None or row[0] is None else int(row[0])


def causes(conn: sqlite3.Connection, jobs: Sequence[tuple[int, int]], cause: str) -> dict[int, int]:
    """How many earlier attempts of each (job, attempt) ended for `cause`."""
    sql = "SELECT count(*) FROM attempt WHERE id BETWEEN ? AND ? AND cause = ?"
    return {j: int(conn.execute(sql, (j * 4096 + 1, j * 4096 + n - 1, cause)).fetchone()[0]) for j, n in jobs}


def told_of(conn: sqlite3.Connection, job: int) -> tuple[str, str, str]:
    """(kind, spec digest, parameters as JSON) of any job or cell."""
    kind, spec, params = conn.execute("SELECT kind, spec, params FROM job WHERE id = ?", (job,)).fetchone()
    return str(kind), str(spec), str(params)
