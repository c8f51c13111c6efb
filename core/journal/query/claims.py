"""Claims, waivers and pins, as the journal has them. A label is never stored: see core.claims."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from core.errors import NotFound


@dataclass(frozen=True)
class ClaimRow:
    """One claim.

    Attributes:
        stated: sequence number of the event that stated it; at: when, wall clock.
        definition: all of it, as it was stated; digest: of that.
        withdrawn: why it was withdrawn; None: it stands.
        evaluated: the newest record of an evaluation; None: there is none.
        highest: the newest record in which it had reached what it wants.
    """

    name: str
    stated: int
    at: float
    by: str
    definition: dict[str, Any]
    digest: str
    withdrawn: str | None = None
    evaluated: dict[str, Any] | None = None
    highest: dict[str, Any] | None = None


@dataclass(frozen=True)
class WaiverRow:
    seq: int
    at: float
    claim: str
    gate: str
    job: int
    by: str
    why: str


@dataclass(frozen=True)
class PinRow:
    """A job that retention leaves alone. `claim` is empty where a person pinned it."""

    job: int
    claim: str
    seq: int
    by: str
    why: str


def claims(conn: sqlite3.Connection, *, standing: bool = False) -> list[ClaimRow]:
    """Every claim, oldest first; `standing`: without those that were withdrawn."""
    where = "WHERE c.withdrawn IS NULL " if standing else ""
    return [_claim(r) for r in conn.execute(f"{_CLAIMS} {where}ORDER BY c.stated")]


def claim(conn: sqlite3.Connection, name: str) -> ClaimRow:
    """The claim `name`. Raises NotFound."""
    row = conn.execute(f"{_CLAIMS} WHERE c.name = ?", (name,)).fetchone()
    if row is None:
        there = ", ".join(str(r[0]) for r in conn.execute("SELECT name FROM claim ORDER BY stated DESC LIMIT 5"))
        hint = f"there are: {there}" if there else "`lab claim new FILE` states one"
        raise NotFound(f"there is no claim {name!r}", hint=hint)
    return _claim(row)


_CLAIMS = """SELECT c.name, c.stated, s.at, s.data, w.data ->> '$.why', e.data, h.data, e.seq, h.seq FROM claim c
    JOIN event s ON s.seq = c.stated LEFT JOIN event w ON w.seq = c.withdrawn
    LEFT JOIN event e ON e.seq = c.evaluated LEFT JOIN event h ON h.seq = c.highest"""


def waivers(conn: sqlite3.Connection, name: str) -> list[WaiverRow]:
    """Waivers that a claim was given since it was stated, oldest first."""
    sql = """SELECT w.seq, e.at, w.claim, w.gate, w.job, e.data ->> '$.by', e.data ->> '$.why' FROM waiver w
        JOIN event e ON e.seq = w.seq JOIN claim c ON c.name = w.claim AND w.seq > c.stated
        WHERE w.claim = ? ORDER BY w.seq"""
    return [WaiverRow(*r) for r in conn.execute(sql, (name,))]


def pins(conn: sqlite3.Connection) -> list[PinRow]:
    """Everything that is pinned, oldest first."""
    sql = """SELECT p.job, p.claim, p.seq, coalesce(e.data ->> '$.by', ''), coalesce(e.data ->> '$.why', '')
        FROM pin p JOIN event e ON e.seq = p.seq ORDER BY p.seq, p.job"""
    return [PinRow(*r) for r in conn.execute(sql)]


def _claim(r: sqlite3.Row) -> ClaimRow:
    said = json.loads(r[3])
    return ClaimRow(
        name=r[0],
        stated=r[1],
        at=r[2],
        by=str(said.get("by", "")),
        definition=dict(said["definition"]),
        digest=str(said["digest"]),
        withdrawn=r[4],
        evaluated={**json.loads(r[5]), "seq": r[7]} if r[5] is not None else None,
        highest={**json.loads(r[6]), "seq": r[8]} if r[6] is not None else None,
    )
