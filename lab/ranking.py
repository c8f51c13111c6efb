"""Which lane a job should go to, and why: what placement would weigh, for `lab explain` and `--plan`.

Made from the journal alone: no controller is asked, nothing is written.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from core.journal import query
from core.journal.query import Job
from core.spec import Needs
from lanes import ends
from lanes.ledger import LaneBook
from lanes.speeds import Speeds, Work
from lanes.views import LaneView, Running, able, can_ever, fits, openings, shortage

_NOBODY_KNOWS_S = 60.0


@dataclass(frozen=True)
class Ranked:
    """One lane, for one job. Seconds are None where nobody knows.

    Attributes:
        can: it may start there, as soon as there is room.
        free: there is room now.
        why: why it cannot, or what it waits for; empty where neither.
        wait_s: until there is room; start_s: from there to its beginning; takes_s: from there to its end.
        speed: for this kind of work, the fastest lane being 1.
        ends: how many runs of its kind on that lane the speed is known from; `known_from` says what else.
    """

    lane: str
    can: bool
    free: bool
    why: str
    wait_s: float | None
    start_s: float
    takes_s: float | None
    speed: float | None
    ends: int
    known_from: str

    @property
    def finish_s(self) -> float | None:
        """Seconds from now until it should be done there."""
        if self.wait_s is None or self.takes_s is None:
            return None
        return self.wait_s + self.start_s + self.takes_s

    def json(self) -> dict[str, Any]:
        return {**asdict(self), "finish_s": self.finish_s}


def rank_job(
    conn: sqlite3.Connection,
    books: Mapping[str, LaneBook],
    job: Job,
    spec: Mapping[str, Any],
    barred: Mapping[str, str] | None = None,
) -> list[Ranked]:
    """The lanes for a job, or for a cell of a sweep; best first. `barred`: as for `rank`."""
    needs = Needs.model_validate(spec["needs"])
    return rank(conn, books, needs, ends.work_of_job(job.kind, job.spec, job.params, spec["needs"]), barred=barred)


def barred_from(lanes: Mapping[str, Mapping[str, Any]], spec: str) -> dict[str, str]:
    """Lanes whose warm workers take no cells of this spec now, and why, as the controller told it last.

    Args:
        lanes: of live.db.
    """
    told = {name: (live.get("barred") or {}).get(spec) for name, live in lanes.items()}
    return {name: str(why) for name, why in told.items() if why}


def rank(
    conn: sqlite3.Connection | None,
    books: Mapping[str, LaneBook],
    needs: Needs,
    work: Work,
    speeds: Speeds | None = None,
    barred: Mapping[str, str] | None = None,
) -> list[Ranked]:
    """The lanes for such a job: those that can, the earliest expected finish first; then those that cannot.

    Args:
        speeds: what was read of the ends already.
        barred: lanes that could, but whose warm workers take nothing of it now: why.
    """
    if speeds is None:
        speeds = ends.read_ends(conn) if conn is not None else Speeds()
    views = _views(conn, books, speeds)
    slow = {name: speeds.slowness(name, work.family) for name in views}
    known = {name: speeds.known_from(name, work.family) for name in views}
    quickest = min((s.log for name, s in slow.items() if known[name]), default=0.0)
    found = []
    could = [name for name, view in views.items() if able(needs, view, False)]
    barred = barred or {}
    for name, view in views.items():
        # Where no lane has a warm worker for it, it runs by itself.
        bar = barred.get(name, "") if any(other not in barred for other in could) else ""
        can = name in could and not bar
        why = "" if can else can_ever(needs, view) or view.why or f"no warm worker for it now: {bar}"
        opens = openings(needs, view)[:1] if can else []
        free = can and fits(needs, view.free)
        if can and not free:
            why = shortage(needs, view.free) or ""
        takes = speeds.seconds(name, work)
        found.append(
            Ranked(
                lane=name,
                can=can,
                free=free,
                why=why,
                wait_s=opens[0] if opens else None,
                start_s=speeds.overhead_s(name),
                takes_s=takes.factor if takes is not None else None,
                speed=round(min(1.0, math.exp(quickest - slow[name].log)), 3) if known[name] else None,
                ends=slow[name].ends,
                known_from=known[name],
            )
        )
    order = {name: i for i, name in enumerate(views)}
    return sorted(
        found,
        key=lambda r: (
            not r.can,
            math.inf if r.wait_s is None else r.wait_s if r.takes_s is None else r.wait_s + r.start_s + r.takes_s,
            -(r.speed or 0.0),
            order[r.lane],
        ),
    )


def _views(conn: sqlite3.Connection | None, books: Mapping[str, LaneBook], speeds: Speeds) -> dict[str, LaneView]:
    """The lanes with when what runs there should end, counted from now."""
    now = time.time()
    running: dict[str, list[Running]] = {}
    specs: dict[str, dict[str, Any]] = {}
    for attempt in query.open_attempts(conn) if conn is not None else ():
        assert conn is not None
        job = query.job(conn, attempt.job)
        work = ends.work_of_job(job.kind, job.spec, job.params, ends.needs_of(conn, specs, job.spec))
        takes = speeds.seconds(attempt.lane, work)
        until = attempt.placed + speeds.overhead_s(attempt.lane)
        until += takes.factor if takes is not None else _NOBODY_KNOWS_S
        running.setdefault(attempt.lane, []).append(_held(attempt.grant, attempt.placed - now, until - now))
    for batch in query.open_batches(conn) if conn is not None else ():
        # Batches are short; one that is not is nearly over as far as anybody can say.
        running.setdefault(batch.lane, []).append(_held(batch.grant, batch.placed - now, 0.0))
    return {name: replace(book.view(), running=tuple(running.get(name, ()))) for name, book in books.items()}


def _held(grant: Mapping[str, Any], since: float, until: float) -> Running:
    gpus, names = tuple(grant.get("gpus") or ()), frozenset(grant.get("resources") or ())
    return Running(min(0.0, since), until, int(grant.get("cores", 1)), grant.get("memory_mb"), gpus, names)
