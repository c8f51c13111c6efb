"""`lab submit --plan`: what would run where, what is answered already, and how long it should take. Writes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.home import Home
from core.journal import Journal, Role, query
from core.spec import InputFile, Needs
from core.states import Cond, JobState
from core.study import Take
from lab.answers import Standing, answer_in_cache
from lab.cache import live_after, look_up
from lab.cells import Cell
from lab.ordering import in_order
from lab.planning import Prepared, PreparedSweep, Preparer, Request
from lab.ranking import Ranked, rank
from lab.resident import Lanes
from lab.studies import unfold
from lanes.ends import read_ends, work_of_job
from lanes.ledger import LaneBook
from lanes.placement import Wanted, can_ever, place, shortage
from lanes.speeds import Speeds

_SAMPLE = 256  # cells of a sweep of which the time is reckoned


@dataclass(frozen=True)
class Planned:
    """What a submit of this request would do now.

    Attributes:
        lane: where it would go, as things are; None when it is answered already or would wait.
        why: one sentence: the answer that is there, the lane, or what it would wait for.
        cached_id: the finished job that answers it.
        expected_s: what it should take where it would go, as `lanes` has it; None: nobody knows. Of a sweep: all of
            its cells that would run, one after the other.
        cells: of a sweep; 0: a job.
        done, live: cells that finished jobs, and jobs that are under way, would answer.
        at_once: how many cells would run at the same time on the lanes as they are.
        lanes: all lanes for it (of a sweep for its first cell), where it should be done first in front.
        live_id: the job under way that answers it.
        after: what it waits for: ids in the journal, or names of other jobs of the same submit.
        takes: of these, what it takes files of.
        study: the study that it is a node of; `said` are its notes, of its first node.
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
    live_id: int | None = None
    after: tuple[tuple[Cond, int | str], ...] = ()
    takes: tuple[Take, ...] = ()
    study: str = ""
    said: tuple[str, ...] = ()

    @property
    def to_run(self) -> int:
        """How many jobs would run."""
        if self.cells:
            return self.cells - self.done - self.live
        return 0 if self.cached_id is not None or self.live_id is not None else 1


@dataclass
class Known:
    """What is planned of jobs that others of the same submit take files of, and what the cache said of their keys."""

    jobs: dict[str, Planned] = field(default_factory=dict)
    standing: Standing = field(default_factory=dict)

    def maker(self, conn: sqlite3.Connection, what: int | str) -> tuple[int | None, str]:
        """(the job whose files are taken, why they will be others than those that are there)."""
        if isinstance(what, int):
            state = query.job(conn, what).state
            return what, "" if state.terminal else f"job {what}, which has not ended"
        found = self.jobs[what]
        if found.cached_id is not None:
            return found.cached_id, ""
        return found.live_id, f"{what}, which {'has not ended' if found.live_id is not None else 'would run'}"


def plan(home: Home, requests: Sequence[Request], *, cwd: Path) -> list[Planned]:
    """Say what `submit` would do with `requests`.

    Raises:
        LabError: whatever submit would refuse.
    """
    journal = Journal.open(home, Role.READER) if home.journal.exists() else None
    try:
        with Preparer(home, cwd, journal, lanes=Lanes(home, start=False)) as preparer:
            prepared = preparer.prepare_all(unfold(preparer, requests))
            places = in_order(prepared)
            conn = journal.conn if journal else None
            speeds = read_ends(conn) if conn is not None else Speeds()
            known = Known()
            found: dict[int, Planned] = {}
            for place in places:
                p = prepared[place]
                if isinstance(p, Prepared):
                    found[place] = _planned(home, conn, preparer.books, speeds, p, known)
                else:
                    found[place] = _planned_sweep(home, conn, preparer.books, speeds, p)
                known.jobs.setdefault(p.request.name, found[place])
            return [found[place] for place in range(len(prepared))]
    finally:
        if journal is not None:
            journal.close()


def _cell_seconds(speeds: Speeds, lane: str | None, p: PreparedSweep, cells: Sequence[Cell]) -> float | None:
    """What one of these cells should take on that lane, on average: reckoned for some of them, evenly spread."""
    if lane is None or not cells:
        return None
    needs = p.spec.needs.model_dump(mode="json")
    some = cells[:: -(-len(cells) // _SAMPLE)]
    works = [work_of_job(p.kind.name, c.spec or p.spec_digest, json.loads(c.params), needs) for c in some]
    found = [takes.factor for work in works if (takes := speeds.seconds(lane, work)) is not None]
    return sum(found) / len(found) if found else None


def _likely(lane: str | None, lanes: Sequence[Ranked]) -> Ranked | None:
    """The lane whose times count: where it would go now, else where it should be done first."""
    return next((r for r in lanes if r.lane == lane), next((r for r in lanes if r.can), None))


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
    home: Home, conn: sqlite3.Connection | None, books: dict[str, LaneBook], speeds: Speeds, p: PreparedSweep
) -> Planned:
    first = json.loads(p.cells.rows[0].params) if p.cells.rows else {}
    lanes = _lanes(conn, books, speeds, p, first)
    likely = _likely(None, lanes)
    lane, why = _where(books, p.spec.needs, lanes)
    total, done, live = len(p.cells.rows), 0, 0
    cached_id: int | None = None
    new = p.cells.rows
    if conn is not None and not p.request.force:
        found = look_up(home, conn, [c.key for c in p.cells.rows], sure=True)
        done, live = len(found.done), len(found.live.keys() - found.done.keys())
        new = [c for c in new if c.key not in found.done and c.key not in found.live]
        same = [j for j in query.jobs(conn, key=p.key) if j.is_sweep and j.state is JobState.SUCCEEDED]
        if done == total:
            lane, why = None, "every cell is there already: nothing would run"
            cached_id = same[0].id if same else None
        elif done + live == total:
            lane, why = None, "every cell is there already, or under way: nothing new would run"
        elif found.why:
            why = f"{why} ({next(iter(found.why.values()))})"
    where = lane or (likely.lane if likely is not None else None)
    one = _cell_seconds(speeds, where, p, new)
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
    speeds: Speeds,
    p: Prepared | PreparedSweep,
    params: Mapping[str, object],
) -> tuple[Ranked, ...]:
    needs = p.spec.needs
    work = work_of_job(p.kind.name, p.spec_digest, params, needs.model_dump(mode="json"))
    return tuple(rank(conn, books, needs, work, speeds))


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


def _planned(
    home: Home, conn: sqlite3.Connection | None, books: dict[str, LaneBook], speeds: Speeds, p: Prepared, known: Known
) -> Planned:
    lanes = _lanes(conn, books, speeds, p, p.params)
    lane, why = _where(books, p.spec.needs, lanes)
    cached_id: int | None = None
    live_id: int | None = None
    if conn is not None and not p.request.force:
        job, reason = answer_in_cache(home, conn, p.key, standing=known.standing)
        makers = [known.maker(conn, take.job) for take in p.request.takes]
        anew = next((said for _, said in makers if said), "")
        if job is not None and not anew:
            cached_id, lane, why = job.id, None, f"job {job.id} is the same and succeeded: nothing would run"
        else:
            live = live_after(conn, p.key, [i if i is not None else -1 for i, _ in makers])
            if live is not None:
                live_id, lane = live, None
                why = f"job {live} is the same and {query.job(conn, live).state}: nothing new would run"
            elif job is not None:
                why = f"{why} (job {job.id} is the same, but it takes files of {anew})"
            elif reason:
                why = f"{why} ({reason})"
    likely = _likely(lane, lanes)
    expected = 0.0 if cached_id else likely.takes_s if likely is not None else None
    found = {"lane": lane, "why": why, "cached_id": cached_id, "live_id": live_id, "expected_s": expected}
    return _plan_of(p, params=p.params, lanes=lanes, **found)


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
        after=p.after,
        takes=tuple(p.request.takes),
        study=p.request.study,
        said=tuple(p.request.notes),
        **found,
    )
