"""The journal's news: what people asked for is answered, and what waits is placed."""

from __future__ import annotations

import heapq
import math
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from core.errors import LabError
from core.failpoint import failpoint
from core.journal import Event, query
from core.journal.query import Job
from core.spec import Needs
from core.states import Cause, EventKind, JobState, LaneState
from lanes import decide, lookups
from lanes.dispatch import Dispatch
from lanes.ledger import grant_of
from lanes.longest import Length
from lanes.lookups import Waiting
from lanes.mirror import Mirror, Spec, say
from lanes.outlook import Outlook
from lanes.placement import LaneView, Placed, Wanted, can_ever, place, room
from lanes.roster import GONE, Roster
from lanes.sweeps import LiveSweep, Sweeps
from lanes.twins import Doubler

_PAGE = 256
_PAGES = 40  # ten thousand jobs: what one look at the queue may cost
_MOST = 512  # candidates of one placement
_SPREAD = 64  # of a long sweep so many besides its longest cells
_BATCH_S, _BATCH_PART = (
    0.5,
    0.05,
)  # of a sweep over unlike lanes a batch is at most so long, and so much of what is left
_UNLIMITED = 1 << 30


@dataclass(frozen=True)
class _Candidate:
    """Something that may be placed now: a job, a cell, or a batch of either.

    Attributes:
        cells: of a sweep: the one that is placed by itself, or those of a batch; none: as many as fit.
        length: what these cells should take.
        most, rest_s, bars: see `Wanted`.
        spare: a cell that is only there to choose from.
    """

    order: tuple[int, int]
    spec: Spec
    jobs: tuple[Waiting, ...] = ()
    sweep: LiveSweep | None = None
    cells: tuple[int, ...] = ()
    length: Length | None = None
    pooled: bool = False
    most: int | None = None
    rest_s: float = 0.0
    spare: bool = False
    bars: frozenset[str] = frozenset()


class Scheduler:
    """Answers requests and says what is placed where."""

    def __init__(self, mirror: Mirror, sweeps: Sweeps, dispatch: Dispatch, roster: Roster) -> None:
        self.m = mirror
        self.roster = roster
        self.sweeps = sweeps
        self.dispatch = dispatch
        self._queue: list[Waiting] = []  # the first of those that could be placed; the journal has more if `_more`
        self._more = False
        self._unanswerable: set[tuple[int, str | None]] = set()
        self.outlook = dispatch.outlook = Outlook(mirror)
        self._doubler = Doubler(mirror, sweeps, dispatch, self.outlook)
        self._shallow = False  # the last look was a short one, for want of a free slot

    # What people asked for.

    def is_asked(self) -> bool:
        """Is anything asked that was not answered?"""
        return lookups.is_asked(self.m.journal.conn)

    @property
    def has_more(self) -> bool:
        """May the next placement read more of the queue from the journal?"""
        return self._more

    def answer_wishes(self) -> None:
        conn = self.m.journal.conn
        down = query.down_wish(conn)
        if down is not None and self.m.ending is None:
            self.m.ending, self.m.killing = "asked", bool(down.get("kill"))
            if self.m.killing:
                for attempt in self.m.open.values():
                    self.m.tell_stop(attempt, Cause.PREEMPTED)
        for lane, wish, reason in lookups.lane_wishes(conn):
            self._answer_lane(lane, wish, reason)
        wishes = [job for job in query.wishes(conn) if (job.id, job.wish) not in self._unanswerable]
        # What is said of a sweep as it ends is said of its cells too: each is answered once.
        ending = {job.id for job in wishes if job.is_sweep and job.wish == "cancel"}
        answers = [(job, self._answers(job)) for job in wishes if job.sweep not in ending]
        answers = [(job, events) for job, events in answers if events]
        if not answers:
            return
        events = [e for _, each in answers for e in each]
        kinds = dict.fromkeys(str(e.kind) for e in events)
        for kind in kinds:
            failpoint(f"controller.before_{kind}")
        try:
            self.m.record(events)
        except LabError:
            raise
        except Exception:
            events = self._record_singly(answers)
        for kind in kinds:
            failpoint(f"controller.after_{kind}")
        self._stop(events)

    def _record_singly(self, answers: Sequence[tuple[Job, list[Event]]]) -> list[Event]:
        """One answer that cannot be recorded (a bug of ours) must not keep the others from theirs, for ever."""
        done: list[Event] = []
        for job, events in answers:
            try:
                self.m.record(events)
                done += events
            except LabError:
                raise
            except Exception as error:
                self._unanswerable.add((job.id, job.wish))
                say(f"job {job.id}: what was asked ({job.wish}) cannot be done: {type(error).__name__}: {error}")
        return done

    def _answer_lane(self, name: str, wish: str, reason: str) -> None:
        book = self.m.books.get(name)
        if book is None:
            self.roster.set_state(name, LaneState.DOWN, GONE)
        elif wish == "drain":
            self.roster.set_state(name, LaneState.DRAINING, reason or "drained")
        else:
            self.roster.set_state(name, LaneState.UP, "")

    def _answers(self, job: Job) -> list[Event]:
        if job.is_sweep:
            return self.sweeps.answer(job)
        waiting = job.state in (JobState.QUEUED, JobState.HELD)
        if job.wish == "cancel" and waiting:
            return [decide.cancelled_in_queue(job)]
        if job.wish == "cancel":
            return [Event(EventKind.CANCELLING, job=job.id, data={"reason": "cancel asked"})]
        if job.wish == "hold" and waiting:
            return [Event(EventKind.HELD, job=job.id)]
        if job.wish == "release" and waiting:
            return [Event(EventKind.RELEASED, job=job.id)]
        # A hold of a running job stays a wish: it is kept from starting again, not stopped.
        return []

    def _stop(self, events: Iterable[Event]) -> None:
        """Tell those who run what is being cancelled."""
        jobs: set[int] = set()
        for event in events:
            if event.kind is EventKind.CANCELLING and event.job is not None:
                jobs.add(event.job)
            elif event.kind is EventKind.CELLS and event.data["state"] == JobState.CANCELLING:
                jobs.update(i for first, last in event.data["cells"] for i in range(first, last + 1))
        if not jobs:
            return
        for attempt in self.m.open.values():
            if attempt.job in jobs:
                self.m.tell_stop(attempt, Cause.CANCELLED)
        self.dispatch.stop(jobs)

    # Placement.

    def place(self) -> list[Event]:
        """Send the batches that fit, and return the events of the attempts that are to be started."""
        if self.m.ending or self.m.is_crowded():
            return []
        if not (self.m.stale or self._more or self._queue or any(s.placeable for s in self.sweeps.live.values())):
            return []  # nothing waits: a batch that came back by itself is recorded the sooner
        views = [book.view() for book in self.m.books.values()]
        if not any(v.open or v.admitting for v in views):
            return []
        self._look(views)
        if not any((v.open or v.admitting) and v.free.cores > 0 for v in views):
            return []
        self.outlook.unlike = sum(v.open for v in views) > 1
        candidates = self._candidates(views)
        if not candidates:
            return []
        if not self.outlook.unlike:
            wanted = [Wanted(i, c.spec.needs, c.pooled, bars=c.bars) for i, c in enumerate(candidates)]
            return self._carry_out(candidates, place(wanted, views))
        views = [self.outlook.view(book) for book in self.m.books.values()]
        wanted = [self._timed(i, c) for i, c in enumerate(candidates)]
        paces = {family: self.outlook.pace(family, views) for family in {w.family for w in wanted}}
        return self._carry_out(candidates, place(wanted, views, paces, now=self.outlook.clock()), views)

    def double(self) -> None:
        """Lanes that nothing waits for do once more what holds up the end of a sweep."""
        if not self.m.ending and not self.m.is_crowded():
            self._doubler.look(self._queue)

    def _timed(self, number: int, c: _Candidate) -> Wanted:
        """A candidate with the time that it should take."""
        if c.pooled and not c.cells:  # a batch is soon done wherever it goes
            family = self.outlook.work(c.spec, {}).family
            return Wanted(number, c.spec.needs, c.pooled, family=family, bars=c.bars)
        job = c.cells[0] if c.cells else c.jobs[0].id
        length = c.length if c.cells else self.outlook.length_of(job)
        return Wanted(
            number,
            c.spec.needs,
            c.pooled,
            family=self.outlook.family_of(job),
            work_s=None if length is None else length.expected,
            at_most=None if length is None else length.at_most,
            group=None if c.sweep is None else c.sweep.id,
            most=c.most,
            rest_s=c.rest_s,
            bars=c.bars,
        )

    def _carry_out(
        self, candidates: Sequence[_Candidate], placed: Sequence[Placed], unlike: Sequence[LaneView] = ()
    ) -> list[Event]:
        events: list[Event] = []
        gone: set[int] = set()
        slots = dict(self.dispatch.flying)
        for p in placed:
            c = candidates[p.job]
            if c.pooled and c.sweep is not None:
                slots[c.sweep.id] = slots.get(c.sweep.id, 0) + 1
        for p in placed:
            c = candidates[p.job]
            if c.pooled and c.sweep is not None:
                n = self.outlook.slots(c.spec, p.lane, unlike) if unlike else slots[c.sweep.id]
                self.dispatch.send_cells(c.sweep, c.spec, p.lane, p.gpus, slots=n, cells=c.cells)
            elif c.pooled:
                self.dispatch.send_jobs(c.jobs, c.spec, p.lane, p.gpus)
                gone.update(job.id for job in c.jobs)
            else:
                job = query.job(self.m.journal.conn, c.cells[0]) if c.cells else c.jobs[0]
                gone.add(job.id)
                data = {"nonce": secrets.token_hex(8), "grant": grant_of(c.spec.needs, p.gpus)}
                events.append(Event(EventKind.PLACED, job.id, self._next_attempt(job.id, job.attempts), p.lane, data))
        if gone:
            self._queue = [job for job in self._queue if job.id not in gone]
        return events

    def _candidates(self, views: list[LaneView]) -> list[_Candidate]:
        """In the order of the queue, single jobs among sweeps, as far as it is worth looking."""
        both = heapq.merge(self._single(views), self._of_sweeps(views), key=lambda c: c.order)
        out: list[_Candidate] = []
        left = _MOST
        for c in both:
            left -= not c.spare
            if left < 0:
                break
            out.append(c)
        return out

    def _single(self, views: list[LaneView]) -> Iterator[_Candidate]:
        crews: dict[str, list[Waiting]] = {}
        waits = self.m.waits
        queue = [job for job in self._queue if job.id not in waits]
        for job in queue:
            if job.pooled and self.dispatch.poolable(self.m.spec(job.spec)):
                crews.setdefault(job.spec, []).append(job)
        for job in queue:
            spec = self.m.spec(job.spec)
            if job.spec not in crews or not job.pooled:
                yield _Candidate((-job.priority, job.id), spec, (job,))
                continue
            mine = crews[job.spec]
            if mine and mine[0] is job:  # at the place of the first, as many at once as leave every slot its share
                bars = self.dispatch.bars(spec)
                slots = max(1, room(spec.needs, views, pooled=True, bars=bars))
                n = min(self.dispatch.size(spec), math.ceil(len(mine) / slots))
                crews[job.spec] = mine[n:]
                yield _Candidate((-job.priority, job.id), spec, tuple(mine[:n]), pooled=True, bars=bars)

    def _of_sweeps(self, views: list[LaneView]) -> Iterator[_Candidate]:
        """Of each open sweep as many as could be placed, and one more: it keeps its place in the queue."""
        for sweep in self.sweeps.placeable():
            order = (-sweep.priority, sweep.id)
            first = [] if sweep.uniform else self._specs_of(sweep, 1)
            if not (sweep.uniform or first):
                continue
            spec = self.m.spec(first[0][1] if first else sweep.spec)
            pooled = sweep.row.pooled and self.dispatch.poolable(spec)
            bars: frozenset[str] = self.dispatch.bars(spec) if pooled else frozenset()
            busy = self.dispatch.flying[sweep.id] if pooled else sweep.started
            left = _UNLIMITED if sweep.row.at_once is None else sweep.row.at_once - busy
            n = min(left, room(spec.needs, views, pooled=pooled, bars=bars) + 1, len(sweep.waiting))
            if n <= 0:
                continue
            if self.outlook.unlike and sweep.uniform and (not pooled or self.outlook.is_long(spec)):
                most = min(left, len(sweep.waiting))
                yield from self._longest(sweep, spec, order, n, most, views, pooled=pooled, bars=bars)
            elif pooled:
                for _ in range(n):
                    yield _Candidate(order, spec, sweep=sweep, pooled=True, bars=bars)
            elif sweep.uniform:
                for cell in self._first(sweep, n):
                    yield _Candidate(order, spec, sweep=sweep, cells=(cell,))
            else:
                for cell, digest in self._specs_of(sweep, n):
                    yield _Candidate(order, self.m.spec(digest), sweep=sweep, cells=(cell,))

    def _longest(
        self,
        sweep: LiveSweep,
        spec: Spec,
        order: tuple[int, int],
        n: int,
        most: int,
        views: list[LaneView],
        *,
        pooled: bool,
        bars: frozenset[str],
    ) -> Iterator[_Candidate]:
        """Of a sweep over unlike lanes the longest cells that wait, and some of every other length to choose from."""
        found = self.outlook.order(sweep)
        waits = self.m.waits
        ends = self.outlook.ends(next(iter(sweep.waiting)))
        cells, rest_s = found.first(max(n, _MOST - _SPREAD), ends=ends, spread=_SPREAD)
        if pooled:
            # So long that the way there hardly counts, and short enough for all lanes to end together.
            most_s = min(_BATCH_S, _BATCH_PART * self.outlook.rest_s(found, cells, rest_s, views))
            parts = found.bundles(cells, most_s)
        else:
            parts = [(cell,) for cell in cells if cell not in waits]
        for i, part in enumerate(parts):
            length = found.whole(part) if ends else None
            yield _Candidate(
                order, spec, (), sweep, part, length, pooled, most=most, rest_s=rest_s, spare=i >= n, bars=bars
            )

    def _specs_of(self, sweep: LiveSweep, n: int) -> list[tuple[int, str]]:
        rows = lookups.cells(self.m.journal.conn, [(cell, cell) for cell in self._first(sweep, n)], sweep.spec)
        return [(row.id, row.spec) for row in rows]

    def _first(self, sweep: LiveSweep, n: int) -> list[int]:
        """The first cells that wait, but for those that are to start again later."""
        waits = self.m.waits
        cells = [i for a, b in sweep.waiting.peek(n + len(waits)) for i in range(a, b + 1)]
        return [cell for cell in cells if cell not in waits][:n]

    def _look(self, views: list[LaneView]) -> None:
        """Look at the queue of single jobs again, if it may not be what it was."""
        free = any(v.open and v.free.cores > 0 for v in views)
        deeper = self._more and (len(self._queue) < _PAGE // 4 or (self._shallow and free))
        if not self.m.stale and not deeper:
            return
        self.m.stale, self._more, self._shallow = False, False, not free
        self._queue, skipped = [], []
        conn = self.m.journal.conn
        for job in self._pages(views):
            needs = query.dependencies(conn, job.id) if job.depends else []
            failed = [u for cond, u in needs if cond == "ok" and not _went_well(u)]
            if failed:
                skipped.append(decide.skipped(query.job(conn, job.id), failed[0]))
            else:
                self._queue.append(job)
        if skipped:
            self.m.record(skipped)  # others may wait for these: the queue is stale again

    def _pages(self, views: list[LaneView]) -> Iterator[Waiting]:
        """The queue in order, as far as it is worth looking: what no open lane could take hides nothing behind it."""
        open_lanes = [v for v in views if v.open]
        pages = _PAGES if any(v.free.cores > 0 for v in open_lanes) else 1
        after: tuple[int, int] | None = None
        for _ in range(pages):
            page = lookups.queue(self.m.journal.conn, _PAGE, after=after)
            yield from page
            if len(page) < _PAGE:
                return
            able = sum(any(can_ever(self._needs(job), v) is None for v in open_lanes) for job in page)
            if able >= _PAGE // 2:
                break
            after = (page[-1].priority, page[-1].id)
        self._more = True

    def _needs(self, job: Waiting) -> Needs:
        return self.m.spec(job.spec).needs

    def _next_attempt(self, job: int, attempts: int) -> int:
        """One past every attempt that has left a trace: a run directory may outlive the row that it belonged to."""
        n = attempts + 1
        while self.m.home.run_dir(job, n).path.exists():
            n += 1
        return n


def _went_well(job: Job) -> bool:
    return job.state is JobState.SUCCEEDED
