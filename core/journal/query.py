"""Reading the journal: plain rows as frozen dataclasses. Imports nothing heavy: `lab status` stands on this."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from core.errors import NotFound
from core.states import AttemptState, Cond, JobState, LaneState


@dataclass(frozen=True)
class Job:
    id: int
    spec: str
    kind: str
    name: str
    params: dict[str, Any]
    key: str
    state: JobState
    cause: str | None
    reason: str | None
    priority: int
    attempts: int
    lane: str | None
    wish: str | None
    idem: str | None
    tags: tuple[str, ...]
    note: str
    submitted: float
    started: float | None
    ended: float | None
    undeclared: bool
    rerun_of: int | None
    sweep: int | None = None  # of which it is a cell
    cells: int | None = None  # how many it has: it is a sweep
    pooled: bool = False

    @property
    def is_sweep(self) -> bool:
        return self.cells is not None


@dataclass(frozen=True)
class Sweep:
    """What a sweep is beyond its row among the jobs.

    Attributes:
        cells: of its own: the jobs id + 1 to id + cells.
        total: with those that other jobs answer (`members`).
        axes: (name, values) of each axis, for people.
        open: its dependencies are fulfilled: cells may be placed.
    """

    id: int
    cells: int
    total: int
    pooled: bool
    at_once: int | None
    max_fails: int | None
    axes: tuple[tuple[str, tuple[Any, ...]], ...]
    open: bool

    @property
    def own(self) -> range:
        return range(self.id + 1, self.id + self.cells + 1)


@dataclass(frozen=True)
class Batch:
    """Cells that were given to one warm worker at once. `cells` holds (first job, last job, attempt)."""

    seq: int
    lane: str
    dir: str
    nonce: str
    grant: dict[str, Any]
    cells: tuple[tuple[int, int, int], ...]
    placed: float


@dataclass(frozen=True)
class Attempt:
    job: int
    n: int
    lane: str
    state: AttemptState
    nonce: str
    grant: dict[str, Any]
    cause: str | None
    message: str | None
    exit_code: int | None
    pid: int | None
    boot: str | None
    seconds: float | None
    cpu_s: float | None
    max_rss_mb: float | None
    placed: float
    started: float | None
    ended: float | None
    undeclared: tuple[str, ...]
    manifest: str | None
    batch: str | None = None  # the folder, below Home.batches, of the batch in which it ran


@dataclass(frozen=True)
class Lane:
    name: str
    state: LaneState
    reason: str
    wish: str | None
    info: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Rows of one table, of the jobs `first` to `last` (not of each between). `attempt` None: of more than one."""

    id: int
    table: str
    path: str  # relative to tables/; empty: see `payload`
    rows: int
    bytes: int
    sha256: str
    first: int
    last: int
    attempt: int | None

    @property
    def inline(self) -> bool:
        """Are the rows in the journal itself, until they are compacted?"""
        return not self.path


@dataclass(frozen=True)
class EventRow:
    seq: int
    at: float
    kind: str
    job: int | None
    attempt: int | None
    lane: str | None
    data: dict[str, Any]


def counts(conn: sqlite3.Connection, *, top: bool = False) -> dict[JobState, int]:
    """How many jobs are in each state. `top`: a sweep counts as one, its cells do not; else the other way round."""
    out: dict[JobState, int] = {}
    if top:
        asked = ["SELECT state, count(*) FROM job_state WHERE sweep IS NULL GROUP BY state"]
    else:
        asked = [
            "SELECT state, count(*) FROM job_state WHERE sweep IS NULL GROUP BY state",
            "SELECT s.state, -1 FROM sweep w JOIN job_state s ON s.id = w.id",
            "SELECT state, count(*) FROM job_state WHERE sweep IS NOT NULL GROUP BY sweep, state",
        ]
    for sql in asked:
        for state, n in conn.execute(sql):
            out[JobState(state)] = out.get(JobState(state), 0) + int(n)
    return {state: n for state, n in out.items() if n}


def job(conn: sqlite3.Connection, job_id: int) -> Job:
    """The job `job_id`. Raises NotFound."""
    row = conn.execute("SELECT * FROM job WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        last = conn.execute("SELECT max(id) FROM job_state").fetchone()[0]
        raise NotFound(
            f"there is no job {job_id}",
            hint=f"ids so far go from 1 to {last}; `lab status --all` lists them"
            if last
            else "nothing was submitted yet",
        )
    return _job(row)


def jobs(
    conn: sqlite3.Connection,
    *,
    states: tuple[JobState, ...] = (),
    kind: str | None = None,
    tag: str | None = None,
    ids: tuple[int, ...] = (),
    key: str | None = None,
    limit: int | None = None,
    newest_first: bool = True,
    top: bool = False,
    sweep: int | None = None,
) -> list[Job]:
    """Jobs that are all of what is asked for. `top`: a sweep, but not its cells; `sweep`: only its own cells."""
    where, args = ["true"], []
    if top:
        where.append("sweep IS NULL")
    if sweep is not None:
        where.append("sweep = ?")
        args.append(str(sweep))
    if states:
        # What has ended is looked for from the newest on: by the index of states, all of it would be sorted first.
        column = "+state" if any(s.terminal for s in states) else "state"
        where.append(f"{column} IN ({', '.join('?' * len(states))})")
        args += [str(s) for s in states]
        if not any(s.terminal for s in states):
            if top:
                where.append("ended IS NULL")  # lets the index of live jobs answer
            elif sweep is None:
                where.append(f"id IN ({_LIVE} AND {where[-1]})")
                args += [str(s) for s in states]
    if kind is not None:
        where.append("kind = ?")
        args.append(kind)
    if key is not None:
        where.append("key = ?")
        args.append(key)
    if tag is not None:
        where.append("EXISTS (SELECT 1 FROM json_each(tags) t WHERE t.value = ?)")
        args.append(tag)
    if ids:
        where.append(f"id IN ({', '.join(str(int(i)) for i in ids)})")
    order = "id DESC" if newest_first else "id"
    tail = f" LIMIT {int(limit)}" if limit is not None else ""
    return [
        _job(r) for r in conn.execute(f"SELECT * FROM job WHERE {' AND '.join(where)} ORDER BY {order}{tail}", args)
    ]


# Live jobs, by the indexes: a cell lives only while its sweep does.
_LIVE = """SELECT id FROM job_state WHERE ended IS NULL AND sweep IS NULL UNION ALL
    SELECT id FROM job_state WHERE sweep IN (
        SELECT id FROM job_state WHERE ended IS NULL AND sweep IS NULL AND cells IS NOT NULL)"""


def queue(conn: sqlite3.Connection, limit: int = 256, *, after: tuple[int, int] | None = None) -> list[Job]:
    """Jobs (no sweeps, no cells) that could be placed now, in the order in which they should be: priority, then age.

    Args:
        after: (priority, id) of the last job of the page before.
    """
    priority, last = after or (1 << 62, 0)
    rows = conn.execute(
        """SELECT * FROM job WHERE state = 'queued' AND sweep IS NULL AND cells IS NULL AND wish IS NULL
           AND NOT EXISTS (
               SELECT 1 FROM dep d JOIN job_state u ON u.id = d.needs WHERE d.job = job.id AND u.ended IS NULL)
           AND (priority < ? OR (priority = ? AND id > ?))
           ORDER BY priority DESC, id LIMIT ?""",
        (priority, priority, last, limit),
    )
    return [_job(r) for r in rows]


def sweep(conn: sqlite3.Connection, sweep_id: int) -> Sweep:
    """The sweep `sweep_id`. Raises NotFound."""
    row = conn.execute(f"{_SWEEPS} WHERE w.id = ?", (sweep_id,)).fetchone()
    if row is None:
        found = job(conn, sweep_id)  # NotFound, where there is none
        of = f"; it is a cell of sweep {found.sweep}" if found.sweep is not None else ""
        raise NotFound(f"job {sweep_id} is no sweep{of}", hint=f"`lab status {sweep_id}` shows it")
    return _sweep(row)


def sweeps(conn: sqlite3.Connection, *, live_only: bool = False) -> list[Sweep]:
    """Sweeps, oldest first."""
    live = " JOIN job_state s ON s.id = w.id WHERE s.ended IS NULL AND s.sweep IS NULL" if live_only else ""
    return [_sweep(r) for r in conn.execute(f"{_SWEEPS}{live} ORDER BY w.id")]


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
    return [_job(r) for r in rows]


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
    return [_batch(r) for r in conn.execute(f"{_BATCHES} WHERE b.ended IS NULL ORDER BY b.seq")]


def batch_of(conn: sqlite3.Connection, job_id: int, n: int | None = None) -> Batch | None:
    """The batch in which attempt `n` (None: the newest) of a job ran or runs; None for one that ran by itself."""
    which = "BETWEEN ? * 4096 + 1 AND ? * 4096 + 4095" if n is None else "= ? * 4096 + ?"
    row = conn.execute(
        f"{_BATCHES} WHERE b.seq = (SELECT placed FROM attempt_state WHERE id {which} ORDER BY id DESC LIMIT 1)",
        (job_id, job_id if n is None else n),
    ).fetchone()
    found = _batch(row) if row else None
    if n is None:
        for batch in open_batches(conn):
            if any(first <= job_id <= last for first, last, _ in batch.cells):
                return batch
    return found


_BATCHES = "SELECT b.seq, b.lane, b.dir, e.at, e.data FROM batch b JOIN event e ON e.seq = b.seq"


def wishes(conn: sqlite3.Connection) -> list[Job]:
    """Jobs for which something was asked that the controller has not answered."""
    return [_job(r) for r in conn.execute("SELECT * FROM job WHERE wish IS NOT NULL ORDER BY id")]


def dependencies(conn: sqlite3.Connection, job_id: int) -> list[tuple[Cond, Job]]:
    rows = conn.execute("SELECT cond, needs FROM dep WHERE job = ? ORDER BY needs", (job_id,)).fetchall()
    return [(Cond(r[0]), job(conn, r[1])) for r in rows]


def dependents(conn: sqlite3.Connection, job_id: int) -> list[tuple[Cond, Job]]:
    rows = conn.execute("SELECT cond, job FROM dep WHERE needs = ? ORDER BY job", (job_id,)).fetchall()
    return [(Cond(r[0]), job(conn, r[1])) for r in rows]


def spec_of(conn: sqlite3.Connection, digest: str) -> dict[str, Any]:
    """What the jobs of one submit share (inputs, code, needs, limits, ...)."""
    row = conn.execute("SELECT data FROM spec WHERE digest = ?", (digest,)).fetchone()
    if row is None:
        raise NotFound(f"the journal holds no spec {digest[:12]}")
    return dict(json.loads(row[0]))


def attempts(conn: sqlite3.Connection, job_id: int) -> list[Attempt]:
    return [_attempt(r) for r in conn.execute(_ATTEMPTS, (job_id, job_id))]


_ATTEMPTS = "SELECT * FROM attempt WHERE id BETWEEN ? * 4096 AND ? * 4096 + 4095 ORDER BY id"


def open_attempts(conn: sqlite3.Connection) -> list[Attempt]:
    """Attempts that hold slots: placed or running, on any lane."""
    return [_attempt(r) for r in conn.execute("SELECT * FROM attempt WHERE ended_seq IS NULL ORDER BY id")]


def lanes(conn: sqlite3.Connection) -> list[Lane]:
    rows = conn.execute("SELECT name, state, reason, wish, data FROM lane ORDER BY name")
    return [Lane(r[0], LaneState(r[1]), r[2], r[3], json.loads(r[4])) for r in rows]


def parts(conn: sqlite3.Connection, *, table: str | None = None, job_id: int | None = None) -> list[Part]:
    """Live parts. With `job_id` those that may hold rows of it: a part of many jobs spans ids that have none."""
    where: list[str] = ["true"]
    args: list[str | int] = []
    if table is not None:
        where.append("tbl = ?")
        args.append(table)
    if job_id is not None:
        where.append("first <= ? AND last >= ?")
        args += [job_id, job_id]
    sql = f"SELECT {_PART} FROM part WHERE {' AND '.join(where)} ORDER BY tbl, first, id"
    return [Part(*r) for r in conn.execute(sql, args)]


_PART = "id, tbl, path, rows, bytes, sha256, first, last, attempt"


def payload(conn: sqlite3.Connection, part_id: int) -> bytes | None:
    """The rows of an inline part: an Arrow IPC stream without the columns `lane` and `key`."""
    row = conn.execute("SELECT data FROM payload WHERE id = ?", (part_id,)).fetchone()
    return bytes(row[0]) if row else None


def events(
    conn: sqlite3.Connection, *, job_id: int | None = None, after: int = 0, limit: int = 100_000
) -> list[EventRow]:
    where = "seq > ?" + (" AND job = ?" if job_id is not None else "")
    args = (after, job_id, limit) if job_id is not None else (after, limit)
    rows = conn.execute(
        f"SELECT seq, at, kind, job, attempt, lane, data FROM event WHERE {where} ORDER BY seq LIMIT ?", args
    )
    return [EventRow(r[0], r[1], r[2], r[3], r[4], r[5], json.loads(r[6])) for r in rows]


def controller(conn: sqlite3.Connection) -> tuple[dict[str, Any], str | None] | None:
    """(what the last controller said of itself, why it is down or None), or None when there never was one."""
    row = conn.execute("SELECT data, down FROM controller").fetchone()
    return (json.loads(row[0]), row[1]) if row else None


def down_wish(conn: sqlite3.Connection) -> dict[str, Any] | None:
    row = conn.execute("SELECT data FROM down_wish").fetchone()
    return dict(json.loads(row[0])) if row else None


def _job(r: sqlite3.Row) -> Job:
    return Job(
        id=r["id"],
        spec=r["spec"],
        kind=r["kind"],
        name=r["name"],
        params=json.loads(r["params"]),
        key=r["key"],
        state=JobState(r["state"]),
        cause=r["cause"],
        reason=r["reason"],
        priority=r["priority"],
        attempts=r["attempts"],
        lane=r["lane"],
        wish=r["wish"],
        idem=r["idem"],
        tags=tuple(json.loads(r["tags"])),
        note=r["note"],
        submitted=r["submitted"],
        started=r["started"],
        ended=r["ended"],
        undeclared=bool(r["undeclared"]),
        rerun_of=r["rerun_of"],
        sweep=r["sweep"],
        cells=r["cells"],
        pooled=bool(r["pooled"]),
    )


def _sweep(r: sqlite3.Row) -> Sweep:
    axes = tuple((str(name), tuple(values)) for name, values in json.loads(r[6]))
    return Sweep(r[0], r[1], r[2], bool(r[3]), r[4], r[5], axes, bool(r[7]))


def _batch(r: sqlite3.Row) -> Batch:
    data = json.loads(r[4])
    cells = tuple((int(a), int(b), int(n)) for a, b, n in data["cells"])
    return Batch(r[0], r[1], r[2], data["nonce"], data["grant"], cells, r[3])


def _attempt(r: sqlite3.Row) -> Attempt:
    return Attempt(
        job=r["job"],
        n=r["n"],
        lane=r["lane"],
        state=AttemptState(r["state"]),
        nonce=r["nonce"],
        grant=json.loads(r["grant_"]),
        cause=r["cause"],
        message=r["message"],
        exit_code=r["exit_code"],
        pid=r["pid"],
        boot=r["boot"],
        seconds=r["seconds"],
        cpu_s=r["cpu_s"],
        max_rss_mb=r["max_rss_mb"],
        placed=r["placed"],
        started=r["started"],
        ended=r["ended"],
        undeclared=tuple(json.loads(r["undeclared"])),
        manifest=r["manifest"],
        batch=r["batch"],
    )
