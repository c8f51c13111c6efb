"""What is pinned: jobs whose files and rows retention never takes, and by whom."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import BadInput
from core.home import Home
from core.journal import Event, Journal, query
from core.states import EventKind


@dataclass(frozen=True)
class Pin:
    """One job that is pinned, by a claim or by a person.

    Attributes:
        claim: its name; empty: a person said so.
        why: in that person's words.
    """

    job: int
    claim: str = ""
    why: str = ""
    at: float = 0.0

    @property
    def by(self) -> str:
        return f"claim {self.claim}" if self.claim else f"by hand: {self.why}" if self.why else "by hand"


def pinned(home: Home, conn: sqlite3.Connection) -> list[Pin]:
    """All pins, oldest first: those made by hand, and what standing claims cite, by id or by name.

    What the pinned jobs took files from is pinned with them (see `lab.held`).
    """
    if conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'pin'").fetchone() is None:
        return []  # a journal as an older version left it
    from lab.claims.pins import pins

    at = dict(conn.execute(_AT).fetchall())
    return [Pin(p.job, p.claim, p.why or "", at.get(p.seq, 0.0)) for p in pins(home, conn)]


def pin(journal: Journal, jobs: Sequence[int], why: str) -> None:
    """Pin jobs by hand, each once: a second reason replaces the first.

    Raises:
        NotFound: an id that does not exist.
        BadInput: no reason, or what the job left was discarded already.
    """
    if not why.strip():
        raise BadInput("a pin without a reason stays for ever, and nobody knows why", hint="add --why TEXT")
    with journal.transaction() as tx:
        for job in jobs:
            query.job(tx.conn, job)
            gone = tx.conn.execute("SELECT 1 FROM discarded WHERE job = ? AND attempt = 0", (job,)).fetchone()
            if gone is not None:
                hint = f"`lab rerun {job}` makes them again"
                raise BadInput(f"the results of job {job} were discarded: there is nothing to pin", hint=hint)
        tx.extend(Event(EventKind.PINNED, job, data={"claim": "", "why": why.strip()}) for job in jobs)


def unpin(journal: Journal, jobs: Sequence[int]) -> None:
    """Take back pins made by hand; those of claims stay.

    Raises:
        BadInput: a job that nobody pinned by hand.
    """
    with journal.transaction() as tx:
        by_hand = {p.job for p in pinned(journal.home, tx.conn) if not p.claim}
        claims = {p.job: p.claim for p in pinned(journal.home, tx.conn) if p.claim}
        for job in jobs:
            if job not in by_hand:
                hint = f"claim {claims[job]} cites it; withdraw the claim" if job in claims else "`lab gc --pins` lists"
                raise BadInput(f"job {job} was not pinned by hand", hint=hint)
        tx.extend(Event(EventKind.UNPINNED, job, data={"claim": ""}) for job in jobs)


_AT = "SELECT seq, at FROM event WHERE seq IN (SELECT seq FROM pin UNION SELECT stated FROM claim)"
