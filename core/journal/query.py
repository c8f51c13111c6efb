"""Reading the journal: plain rows as frozen dataclasses. Imports nothing heavy: `lab status` stands on this."""

from __future__ import annotations

import json
import sqlite3
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


@dataclass(frozen=True)
class Lane:
    name: str
    state: LaneState
    reason: str
    wish: str | None
    info: dict[str, Any]


@dataclass(frozen=True)
class Part:
    job: int
    attempt: int
    table: str
    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class EventRow:
    seq: int
    at: float
    kind: str
    job: int | None
    attempt: int | None
    lane: str | None
    data: dict[str, Any]


def counts(conn: sqlite3.Connection) -> dict[JobState, int]:
    """How many jobs are in each state."""
    return {JobState(r[0]): int(r[1]) for r in conn.execute("SELECT state, count(*) FROM job GROUP BY state")}


def job(conn: sqlite3.Connection, job_id: int) -> Job:
    """The job `job_id`. Raises NotFound."""
    row = conn.execute("SELECT * FROM job WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        last = conn.execute("SELECT max(id) FROM job").fetchone()[0]
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
) -> list[Job]:
    where, args = ["true"], []
    if states:
        where.append(f"state IN ({', '.join('?' * len(states))})")
        args += [str(s) for s in states]
        if not any(s.terminal for s in states):
            where.append("ended IS NULL")  # lets the index of live jobs answer
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


def queue(conn: sqlite3.Connection, limit: int = 256, *, after: tuple[int, int] | None = None) -> list[Job]:
    """Jobs that could be placed now, in the order in which they should be: priority, then age.

    Args:
        after: (priority, id) of the last job of the page before.
    """
    priority, last = after or (1 << 62, 0)
    rows = conn.execute(
        """SELECT * FROM job WHERE state = 'queued' AND wish IS NULL AND NOT EXISTS (
               SELECT 1 FROM dep d JOIN job u ON u.id = d.needs WHERE d.job = job.id AND u.ended IS NULL)
           AND (priority < ? OR (priority = ? AND id > ?))
           ORDER BY priority DESC, id LIMIT ?""",
        (priority, priority, last, limit),
    )
    return [_job(r) for r in rows]


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
    where, args = ["true"], []
    if table is not None:
        where.append("tbl = ?")
        args.append(table)
    if job_id is not None:
        where.append("job = ?")
        args.append(str(job_id))
    columns = "job, attempt, tbl, path, rows, bytes, sha256"
    sql = f"SELECT {columns} FROM part WHERE {' AND '.join(where)} ORDER BY job, attempt"
    return [Part(*r) for r in conn.execute(sql, args)]


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
    )


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
    )
