"""The ladder of admission, and what was asked about lanes."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RungRow:
    """The newest word on one rung. `role` is empty for the rungs that all roles share."""

    lane: str
    role: str
    rung: str
    ok: bool
    seq: int
    at: float
    data: dict[str, Any]  # message, hint, evidence


@dataclass(frozen=True)
class AskRow:
    """Something asked about a lane, and when. `answer` is the answering event's data; None: it is not answered yet."""

    seq: int
    lane: str
    what: str
    data: dict[str, Any]
    answer: dict[str, Any] | None
    at: float = 0.0


def rungs(conn: sqlite3.Connection, lane: str | None = None) -> list[RungRow]:
    """The newest word on each rung, of one lane or of all, oldest first."""
    sql = """SELECT r.lane, r.role, r.rung, r.ok, r.seq, e.at, e.data FROM rung r JOIN event e ON e.seq = r.seq
             WHERE ?1 IS NULL OR r.lane = ?1 ORDER BY r.seq"""
    return [RungRow(r[0], r[1], r[2], bool(r[3]), r[4], r[5], json.loads(r[6])) for r in conn.execute(sql, (lane,))]


def admitted(conn: sqlite3.Connection) -> dict[str, frozenset[str]]:
    """Lane -> the roles that it was admitted for and still has."""
    found: dict[str, set[str]] = {}
    for lane, role in conn.execute("SELECT lane, role FROM admitted"):
        found.setdefault(lane, set()).add(role)
    return {lane: frozenset(roles) for lane, roles in found.items()}


def admitted_as(conn: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """(lane, role) -> the machine that the lane's name stood for when it was admitted, where that was said."""
    sql = """SELECT a.lane, a.role, e.data ->> '$.place' FROM admitted a JOIN event e ON e.seq = a.seq
             WHERE e.data ->> '$.place' IS NOT NULL"""
    return {(r[0], r[1]): str(r[2]) for r in conn.execute(sql)}


def open_asks(conn: sqlite3.Connection) -> list[AskRow]:
    """What was asked about lanes and is not answered, oldest first."""
    sql = """SELECT a.seq, a.lane, a.what, e.data, e.at FROM lane_ask a JOIN event e ON e.seq = a.seq
             WHERE a.answered IS NULL ORDER BY a.seq"""
    return [AskRow(r[0], r[1], r[2], json.loads(r[3]), None, r[4]) for r in conn.execute(sql)]


def ask(conn: sqlite3.Connection, seq: int) -> AskRow | None:
    """One thing that was asked, with its answer if there is one."""
    sql = """SELECT a.seq, a.lane, a.what, e.data, w.data, e.at FROM lane_ask a JOIN event e ON e.seq = a.seq
             LEFT JOIN event w ON w.seq = a.answered WHERE a.seq = ?"""
    row = conn.execute(sql, (seq,)).fetchone()
    if row is None:
        return None
    answer = json.loads(row[4]) if row[4] is not None else None
    return AskRow(row[0], row[1], row[2], json.loads(row[3]), answer, row[5])
