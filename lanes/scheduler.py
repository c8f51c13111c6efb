"""The journal's news: what people asked for is answered, and what waits is placed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from core.failpoint import failpoint
from core.journal import Event, query
from core.journal.query import Job
from core.spec import Needs
from core.states import Cause, EventKind, JobState, LaneState
from lanes import decide
from lanes.ledger import grant_of
from lanes.mirror import Mirror
from lanes.placement import LaneView, Wanted, can_ever, place

_PAGE = 256
_PAGES = 40  # ten thousand jobs: what one look at the queue may cost


class Scheduler:
    """Answers requests and places jobs; every answer is one transaction."""

    def __init__(self, mirror: Mirror) -> None:
        self.m = mirror
        self._specs: dict[str, Needs] = {}

    def answer_wishes(self) -> None:
        conn = self.m.journal.conn
        down = query.down_wish(conn)
        if down is not None and self.m.ending is None:
            self.m.ending, self.m.killing = "asked", bool(down.get("kill"))
            if self.m.killing:
                for attempt in self.m.open.values():
                    self.m.tell_stop(attempt, Cause.PREEMPTED)
        for lane in query.lanes(conn):
            if lane.wish in ("drain", "resume"):
                self._answer_lane(lane)
        for job in query.wishes(conn):
            self._answer_job(job)

    def _answer_lane(self, lane: query.Lane) -> None:
        book = self.m.books.get(lane.name)
        if book is None:
            state, reason = LaneState.DOWN, "no longer in cluster.yaml"
        elif lane.wish == "drain":
            state, reason = LaneState.DRAINING, lane.reason or "drained"
        elif book.config.transport != "local":
            state, reason = LaneState.DECLARED, "not admitted yet"
        else:
            state, reason = (LaneState.UP if book.hello else LaneState.DECLARED), ""
        if book is not None:
            book.state, book.reason = state, reason
        with self.m.journal.transaction() as tx:
            tx.append(EventKind.LANE, lane=lane.name, data={"state": state, "reason": reason})

    def _answer_job(self, job: Job) -> None:
        events: list[Event] = []
        waiting = job.state in (JobState.QUEUED, JobState.HELD)
        if job.wish == "cancel" and waiting:
            events.append(decide.cancelled_in_queue(job))
        elif job.wish == "cancel":
            events.append(Event(EventKind.CANCELLING, job=job.id, data={"reason": "cancel asked"}))
        elif job.wish == "hold" and job.state is JobState.QUEUED:
            events.append(Event(EventKind.HELD, job=job.id))
        elif job.wish == "release" and waiting:
            events.append(Event(EventKind.RELEASED, job=job.id))
        # A hold of a running job stays a wish: it is kept from starting again, not stopped.
        if not events:
            return
        failpoint(f"controller.before_{events[0].kind}")
        with self.m.journal.transaction() as tx:
            tx.extend(events)
        failpoint(f"controller.after_{events[0].kind}")
        if events[0].kind is EventKind.CANCELLING:
            for attempt in self.m.open.values():
                if attempt.job == job.id:
                    self.m.tell_stop(attempt, Cause.CANCELLED)

    def place(self) -> None:
        if self.m.ending or self.m.is_crowded():
            return
        while self._place_some():
            pass

    def _place_some(self) -> bool:
        """Place what fits. True when something changed that may let more fit."""
        conn = self.m.journal.conn
        views = [book.view() for book in self.m.books.values()]
        if not any(v.open for v in views):
            return False
        events: list[Event] = []
        wanted: list[Wanted] = []
        by_id: dict[int, Job] = {}
        self._specs = {}
        for job in self._candidates(views):
            failed = [u for cond, u in query.dependencies(conn, job.id) if cond == "ok" and not _went_well(u)]
            if failed:
                events.append(decide.skipped(job, failed[0]))
            else:
                wanted.append(Wanted(job.id, self._needs(job)))
                by_id[job.id] = job
        needs = {w.job: w.needs for w in wanted}
        for p in place(wanted, views):
            data = {"nonce": secrets.token_hex(8), "grant": grant_of(needs[p.job], p.gpus)}
            events.append(Event(EventKind.PLACED, p.job, self._next_attempt(by_id[p.job]), p.lane, data))
        if not events:
            return False
        failpoint("controller.before_placed")
        with self.m.journal.transaction() as tx:
            tx.extend(events)
        failpoint("controller.after_placed")
        for event in events:
            if event.kind is EventKind.PLACED:
                assert event.job is not None
                attempt = next(a for a in query.attempts(conn, event.job) if a.n == event.attempt)
                self.m.take_up(attempt)
                self.m.tell_start(query.job(conn, event.job), attempt)
        return True

    def _candidates(self, views: list[LaneView]) -> Iterator[Job]:
        """The queue in order, as far as it is worth looking: what no open lane could take hides nothing behind it."""
        open_lanes = [v for v in views if v.open]
        pages = _PAGES if any(v.free.cores > 0 for v in open_lanes) else 1
        after: tuple[int, int] | None = None
        for _ in range(pages):
            page = query.queue(self.m.journal.conn, _PAGE, after=after)
            yield from page
            able = sum(any(can_ever(self._needs(job), v) is None for v in open_lanes) for job in page)
            if len(page) < _PAGE or able >= _PAGE // 2:
                return
            after = (page[-1].priority, page[-1].id)

    def _needs(self, job: Job) -> Needs:
        if job.spec not in self._specs:
            spec = query.spec_of(self.m.journal.conn, job.spec)
            self._specs[job.spec] = Needs.model_validate(spec["needs"])
        return self._specs[job.spec]

    def _next_attempt(self, job: Job) -> int:
        """One past every attempt that has left a trace: a run directory may outlive the row that it belonged to."""
        n = job.attempts + 1
        while self.m.home.run_dir(job.id, n).path.exists():
            n += 1
        return n


def _went_well(job: Job) -> bool:
    return job.state is JobState.SUCCEEDED
