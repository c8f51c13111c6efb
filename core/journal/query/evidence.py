"""Attempts, table parts, events, and what the controller says of itself and its lanes."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from core.errors import NotFound
from core.journal.query.rows import Attempt, EventRow, Lane, Part, attempt_of
from core.states import LaneState


def attempts(conn: sqlite3.Connection, job_id: int) -> list[Attempt]:
    return [attempt_of(r) for r in conn.execute(_ATTEMPTS, (job_id, job_id))]


_ATTEMPTS = "SELECT * FROM attempt WHERE id BETWEEN ? * 4096 AND ? * 4096 + 4095 ORDER BY id"


def open_attempts(conn: sqlite3.Connection) -> list[Attempt]:
    """Attempts that hold slots: placed or running, on any lane."""
    return [attempt_of(r) for r in conn.execute("SELECT * FROM attempt WHERE ended_seq IS NULL ORDER BY id")]


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


def spec_of(conn: sqlite3.Connection, digest: str) -> dict[str, Any]:
    """What the jobs of one submit share (inputs, code, needs, limits, ...)."""
    row = conn.execute("SELECT data FROM spec WHERE digest = ?", (digest,)).fetchone()
    if row is None:
        raise NotFound(f"the journal holds no spec {digest[:12]}")
    return dict(json.loads(row[0]))


def lanes(conn: sqlite3.Connection) -> list[Lane]:
    rows = conn.execute("SELECT name, state, reason, wish, data FROM lane ORDER BY name")
    return [Lane(r[0], LaneState(r[1]), r[2], r[3], json.loads(r[4])) for r in rows]


def controller(conn: sqlite3.Connection) -> tuple[dict[str, Any], str | None] | None:
    """(what the last controller said of itself, why it is down or None), or None when there never was one."""
    row = conn.execute("SELECT data, down FROM controller").fetchone()
    return (json.loads(row[0]), row[1]) if row else None


def down_wish(conn: sqlite3.Connection) -> dict[str, Any] | None:
    row = conn.execute("SELECT data FROM down_wish").fetchone()
    return dict(json.loads(row[0])) if row else None
