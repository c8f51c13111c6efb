"""What claims pin: the jobs that they cite, those that they name and that came later among them."""

from __future__ import annotations

import sqlite3

from core.claims.definition import read
from core.errors import BadInput
from core.home import Home
from core.journal import query
from core.journal.query import PinRow
from lab.claims.resolve import resolve


def pinned(home: Home, conn: sqlite3.Connection) -> frozenset[int]:
    """Jobs whose files and rows retention must leave alone: pinned by a person, or cited by a claim that stands."""
    return frozenset(row.job for row in pins(home, conn))


def pins(home: Home, conn: sqlite3.Connection) -> list[PinRow]:
    """The same with who pinned them, oldest first."""
    out = query.pins(conn)
    known = {(p.job, p.claim) for p in out}
    for row in query.claims(conn, standing=True):
        try:
            jobs = resolve(conn, read(row.definition), row.stated).jobs.values()
        except BadInput:
            continue  # stated by another version: what it cited then is pinned by rows
        out += [PinRow(j.id, row.name, row.stated, row.by, "") for j in jobs if (j.id, row.name) not in known]
    return out
