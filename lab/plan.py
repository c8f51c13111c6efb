"""`lab submit --plan`: what would run where, what is answered already, and how long it should take. Writes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.home import Home
from core.journal import Journal, Role, query
from core.spec import InputFile, Needs
from core.states import JobState
from lab.answers import answer_in_cache
from lab.cache import look_up
from lab.ordering import in_order
from lab.planning import Prepared, PreparedSweep, Preparer, Request
from lab.ranking import Ranked, rank
from lab.resident import Lanes
from lab.studies import unfold
from lanes.ends import work_of_job
from lanes.ledger import LaneBook
from lanes.placement import Wanted, can_ever, place, shortage


@dataclass(frozen=True)
class Planned:
    """What a submit of this request would do now.

    Attributes:
        lane: where it would go, as things are; None when it is answered already or would wait.
        why: one sentence: the answer that is there, the lane, or what it would wait for.
        cached_id: the finished job that answers it.
        expected_s: the median time of this kind there, or anywhere; None: never run yet. Of a sweep: of all of its
            cells that would run, one after the other.
        cells: of a sweep; 0: a job.
        done, live: cells that finished jobs, and jobs that are under way, would answer.
        at_once: how many cells would run at the same time on the lanes as they are.
        lanes: all lanes for it (of a sweep for its first cell), where it should be done first in front.
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
    cells: int = 0
    done: int = 0
    live: int = 0
    at_once: int = 1
    lanes: tuple[Ranked, ...] = ()

    @property
    def to_run(self) -> int:
        """How many jobs would run."""
        if self.cells:
            return self.cells - self.done - self.live
        return 0 if self.cached_id is not None else 1


def plan(home: Home, requests: Sequence[Request], *, cwd: Path) -> list[Planned]:
    """Say what `submit` would do with `requests`.

    Raises:
        LabError: whatever submit would refuse.
    """
    journal = Journal.open(home, Role.READER) if home.journal.exists() else None
    try:
        with Preparer(home, cwd, journal, lanes=Lanes(home, start=False)) as preparer:
            prepared = [preparer.prepare(r) for r in unfold(preparer, requests)]
            in_order(prepared)
            conn = journal.conn if journal else None
            return [
                _planned(home, conn, preparer.books, p)
                if isinstance(p, Prepared)
                else _planned_sweep(home, conn, preparer.books, p)
                for p in prepared
            ]
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
    seconds = sorted(float(r[0]) for r in rows) or _in_batches(conn, kind)
    return seconds[len(seconds) // 2] if seconds else None


def _in_batches(conn: sqlite3.Connection, kind: str) -> list[float]:
    """Seconds a cell in the newest batches of this kind, shortest first: only the batch's own time is known."""
    rows = conn.execute(
        "SELECT e.data FROM batch b JOIN event e ON e.seq = b.ended ORDER BY b.seq DESC LIMIT 50"
    ).fetchall()
    out = []
    for (text,) in rows:
        data = json.loads(text)
        count = sum(last - first + 1 for first, last, _ in data["ok"])
        if count and query.job(conn, data["ok"][0][0]).kind == kind:
            out.append(float(data["seconds"]) / count)
    return sorted(out)


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


def _planned_sweep(
    home: Home, conn: sqlite3.Connection | None, books: dict[str, LaneBook], p: PreparedSweep
) -> Planned:
    first = json.loads(p.cells.rows[0].params) if p.cells.rows else {}
    lanes = _lanes(conn, books, p, first)
    lane, why = _where(books, p.spec.needs, lanes)
    total, done, live = len(p.cells.rows), 0, 0
    cached_id: int | None = None
    expected: float | None = None
    if conn is not None:
        if not p.request.force:
            found = look_up(home, conn, [c.key for c in p.cells.rows], sure=True)
            done, live = len(found.done), len(found.live.keys() - found.done.keys())
            same = [j for j in query.jobs(conn, key=p.key) if j.is_sweep and j.state is JobState.SUCCEEDED]
            if done == total:
                lane, why = None, "every cell is there already: nothing would run"
                cached_id = same[0].id if same else None
            elif done + live == total:
                lane, why = None, "every cell is there already, or under way: nothing new would run"
            elif found.why:
                why = f"{why} ({next(iter(found.why.values()))})"
        one = expected_seconds(conn, p.kind.name, lane) or expected_seconds(conn, p.kind.name)
        expected = one * (total - done - live) if one is not None else None
    fitting = _slots(books, p.spec.needs)
    wanted = min(fitting, p.request.at_once or fitting, max(1, total - done - live))
    return _plan_of(
        p,
        params={**p.cells.base, **{name: list(values) for name, values in p.cells.axes}},
        lane=lane,
        why=why,
        cached_id=cached_id,
        expected_s=expected,
        lanes=lanes,
        cells=total,
        done=done,
        live=live,
        at_once=max(1, wanted),
    )


def _slots(books: dict[str, LaneBook], needs: Needs) -> int:
    """How many attempts with these needs all lanes could hold at once."""
    out = 0
    for book in books.values():
        view = book.view()
        if not book.hello or can_ever(needs, view) is not None:
            continue
        fits = view.total.cores // needs.cores
        if needs.gpus:
            fits = min(fits, len(view.total.gpus) // needs.gpus)
        if needs.memory_mb and view.total.memory_mb is not None:
            fits = min(fits, view.total.memory_mb // needs.memory_mb)
        out += min(fits, 1) if needs.resources else fits
    return out


def _lanes(
    conn: sqlite3.Connection | None,
    books: dict[str, LaneBook],
    p: Prepared | PreparedSweep,
    params: Mapping[str, object],
) -> tuple[Ranked, ...]:
    needs = p.spec.needs
    work = work_of_job(p.kind.name, p.spec_digest, params, needs.model_dump(mode="json"))
    return tuple(rank(conn, books, needs, work))


def _where(books: dict[str, LaneBook], needs: Needs, lanes: Sequence[Ranked]) -> tuple[str | None, str]:
    lane, why = where_now(books, needs)
    best = next((r for r in lanes if r.can), None)
    if lane is not None and best is not None and best.lane != lane:
        lane = best.lane
        why = f"{lane} has room now" if best.free else f"{lane} should be done with it first, though it is busy now"
    if lane is None and not any(book.hello and book.state == "up" for book in books.values()):
        # Nothing was ever started here: the first submit starts it.
        able = [n for n, b in books.items() if b.hello and can_ever(needs, b.view()) is None]
        if able:
            return able[0], f"{able[0]}, once the controller is up"
    return lane, why


def _planned(home: Home, conn: sqlite3.Connection | None, books: dict[str, LaneBook], p: Prepared) -> Planned:
    lanes = _lanes(conn, books, p, p.params)
    lane, why = _where(books, p.spec.needs, lanes)
    cached_id: int | None = None
    expected: float | None = None
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
    return _plan_of(p, params=p.params, lane=lane, why=why, cached_id=cached_id, expected_s=expected, lanes=lanes)


def _plan_of(p: Prepared | PreparedSweep, **found: Any) -> Planned:
    user = p.snapshots[1].listing if len(p.snapshots) > 1 else None
    return Planned(
        kind=p.kind.name,
        name=p.name,
        key=p.key,
        needs=p.spec.needs,
        inputs=p.spec.inputs,
        code=p.spec.code.root if p.spec.code else None,
        code_files=len(user.entries) if user else 0,
        code_bytes=user.size if user else 0,
        notes=p.notes,
        **found,
    )
