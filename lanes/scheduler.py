"""The journal's news: what people asked for is answered, and what waits is placed."""

from __future__ import annotations

import secrets
from typing import Any

from core.failpoint import failpoint
from core.journal import Event, query
from core.journal.query import Job
from core.spec import Needs
from core.states import Cause, EventKind, JobState, LaneState
from lanes import decide
from lanes.ledger import grant_of
from lanes.mirror import Mirror
from lanes.placement import Wanted, place


class Scheduler:
    """Answers requests and places jobs; every answer is one transaction."""

    def __init__(self, mirror: Mirror) -> None:
        self.m = mirror

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
        candidates = query.queue(conn)
        if not candidates:
            return False
        specs: dict[str, dict[str, Any]] = {}
        wanted: list[Wanted] = []
        by_id: dict[int, Job] = {}
        events: list[Event] = []
        for job in candidates:
            failed = [
                u for cond, u in query.dependencies(conn, job.id) if cond == "ok" and u.state is not JobState.SUCCEEDED
            ]
            if failed:
                events.append(decide.skipped(job, failed[0]))
                continue
            if job.spec not in specs:
                specs[job.spec] = query.spec_of(conn, job.spec)
            wanted.append(Wanted(job.id, Needs.model_validate(specs[job.spec]["needs"])))
            by_id[job.id] = job
        needs = {w.job: w.needs for w in wanted}
        for p in place(wanted, views):
            job = by_id[p.job]
            data = {"nonce": secrets.token_hex(8), "grant": grant_of(needs[p.job], p.gpus)}
            events.append(Event(EventKind.PLACED, job.id, job.attempts + 1, p.lane, data))
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
