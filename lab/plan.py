"""`lab submit --plan`: what would run where, what is answered already, and how long it should take. Writes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.home import Home
from core.journal import Journal, Role, query
from core.spec import InputFile, Needs
from core.states import JobState
from lab.answers import answer_in_cache
from lab.ordering import in_order
from lab.planning import Prepared, Preparer, Request
from lanes.ledger import LaneBook
from lanes.placement import Wanted, can_ever, place, shortage


@dataclass(frozen=True)
class Planned:
    """What a submit of this request would do now.

    Attributes:
        lane: where it would go, as things are; None when it is answered already or would wait.
        why: one sentence: the answer that is there, the lane, or what it would wait for.
        cached_id: the finished job that answers it.
        expected_s: the median time of this kind there, or anywhere; None: never run yet.
    """

    kind: str
    name: str
    params: dict[str, object]
    key: str
    needs: Needs
    lane: str | None
    why: str
    cached_id: int | None
    expected_s: float | None
    inputs: tuple[InputFile, ...]
    code: str | None
    code_files: int
    code_bytes: int
    notes: tuple[str, ...]


def plan(home: Home, requests: Sequence[Request], *, cwd: Path) -> list[Planned]:
    """Say what `submit` would do with `requests`.

    Raises:
        LabError: whatever submit would refuse.
    """
    journal = Journal.open(home, Role.READER) if home.journal.exists() else None
    try:
        with Preparer(home, cwd, journal) as preparer:
            prepared = [preparer.prepare(r) for r in requests]
            in_order(prepared)
            return [_planned(home, journal.conn if journal else None, preparer.books, p) for p in prepared]
    finally:
        if journal is not None:
            journal.close()


def expected_seconds(conn: sqlite3.Connection, kind: str, lane: str | None = None) -> float | None:
    """The median time of the last 50 successful attempts of this kind (on this lane)."""
    where, args = ("AND a.lane = ?", [kind, lane]) if lane is not None else ("", [kind])
    rows = conn.execute(
        f"""SELECT a.seconds FROM attempt a JOIN job j ON j.id = a.job
            WHERE j.kind = ? AND a.state = 'succeeded' AND a.seconds IS NOT NULL {where}
            ORDER BY a.id DESC LIMIT 50""",
        args,
    ).fetchall()
    seconds = sorted(float(r[0]) for r in rows)
    return seconds[len(seconds) // 2] if seconds else None


def where_now(books: dict[str, LaneBook], needs: Needs) -> tuple[str | None, str]:
    """(the lane that has room now, why) or (None, what would have to be otherwise)."""
    views = [book.view() for book in books.values()]
    found = place([Wanted(0, needs)], views)
    if found:
        return found[0].lane, f"{found[0].lane} has room now"
    reasons = []
    for view in views:
        why = can_ever(needs, view) or view.why or shortage(needs, view.free) or "kept for a job before it"
        reasons.append(f"{view.name}: {why}")
    return None, "; ".join(reasons)


def _planned(home: Home, conn: sqlite3.Connection | None, books: dict[str, LaneBook], p: Prepared) -> Planned:
    lane, why = where_now(books, p.spec.needs)
    cached_id: int | None = None
    expected: float | None = None
    if lane is None and not any(book.hello and book.state == "up" for book in books.values()):
        # Nothing was ever started here: the first submit starts it.
        able = [n for n, b in books.items() if b.hello and can_ever(p.spec.needs, b.view()) is None]
        if able:
            lane, why = able[0], f"{able[0]}, once the controller is up"
    if conn is not None:
        if not p.request.force:
            job, reason = answer_in_cache(home, conn, p.key)
            if job is not None:
                cached_id, lane, why = job.id, None, f"job {job.id} is the same and succeeded: nothing would run"
            else:
                live = query.jobs(conn, states=(JobState.RUNNING, JobState.QUEUED, JobState.HELD), key=p.key)
                if live:
                    lane, why = None, f"job {live[-1].id} is the same and {live[-1].state}: nothing new would run"
                elif reason:
                    why = f"{why} ({reason})"
        expected = (
            0.0 if cached_id else expected_seconds(conn, p.kind.name, lane) or expected_seconds(conn, p.kind.name)
        )
    user = p.snapshots[1].listing if len(p.snapshots) > 1 else None
    return Planned(
        kind=p.kind.name,
        name=p.name,
        params=p.params,
        key=p.key,
        needs=p.spec.needs,
        lane=lane,
        why=why,
        cached_id=cached_id,
        expected_s=expected,
        inputs=p.spec.inputs,
        code=p.spec.code.root if p.spec.code else None,
        code_files=len(user.entries) if user else 0,
        code_bytes=user.size if user else 0,
        notes=p.notes,
    )
