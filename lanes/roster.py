"""The controller's lanes: declared, started, up, out of reach, up again.

A lane that does not answer is `unreachable`: that is the state of a link, and no attempt on it fails by that alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from core import cluster as clusters
from core.journal import Event, query
from core.live import LiveWriter
from core.states import AttemptState, Cause, EventKind, JobState, LaneState
from lanes.handle import LaneHandle
from lanes.later import Message
from lanes.ledger import LaneBook
from lanes.mirror import Mirror, say

_LOST_S = 20.0  # without an answer for so long, after it said that something is wrong
_SEEN_S = 1.0


class Roster:
    """What happens to lanes as a whole."""

    def __init__(self, mirror: Mirror, live: LiveWriter, inbox: Callable[[Message], None]) -> None:
        self.m = mirror
        self._live = live
        self._inbox = inbox
        self._seen: dict[str, float] = {}  # lane -> when the live view was last told of it
        self._troubled: dict[str, float] = {}  # lane -> since when nothing but errors came from it

    def keep_lanes_of(self, names: set[str]) -> None:
        """A lane that has left cluster.yaml with attempts still on it is drained, not forgotten."""
        for name in sorted(names - self.m.books.keys()):
            if self.m.home.lane_root(name).is_dir():
                book = LaneBook(clusters.LaneConfig(name), LaneState.DRAINING, "no longer in cluster.yaml")
                self.m.books[name] = book

    def declare(self) -> None:
        known = {lane.name: lane for lane in query.lanes(self.m.journal.conn)}
        events = []
        for name, book in self.m.books.items():
            old = known.get(name)
            if old is not None and old.state is LaneState.DRAINING:
                book.state, book.reason = old.state, old.reason
            elif book.config.transport != "local":
                book.reason = "not admitted yet"
            if old is None or (book.state is not LaneState.DRAINING and old.state is not LaneState.UP):
                events.append(_lane_event(name, book.state, book.reason))
        for name in known.keys() - self.m.books.keys():
            if known[name].state is not LaneState.DOWN:
                events.append(_lane_event(name, LaneState.DOWN, "no longer in cluster.yaml"))
        self.m.record(events)

    def start(self) -> None:
        for name, book in self.m.books.items():
            if book.config.transport == "local":
                self.m.handles[name] = LaneHandle(self.m.home, book.config, self._inbox)
                self.m.handles[name].start()

    def up(self, name: str, hello: dict[str, Any]) -> None:
        """A (new) actor of the lane answers: it is told again all that could have been lost on the way."""
        book = self.m.books[name]
        self._troubled.pop(name, None)
        book.hello = hello
        self._live.lane(name, hello)
        if book.state is not LaneState.DRAINING:
            book.state, book.reason = LaneState.UP, ""
        self.m.record([_lane_event(name, book.state, book.reason, info=hello)])
        handle = self.m.handles[name]
        mine = [a for a in self.m.open.values() if a.lane == name]
        handle.tell("adopt", [[a.job, a.n, str(self.m.home.run_dir(a.job, a.n).path)] for a in mine])
        for attempt in mine:
            job = query.job(self.m.journal.conn, attempt.job)
            if attempt.state is AttemptState.PLACED:
                self.m.tell_start(job, attempt)
            if job.state is JobState.CANCELLING:
                self.m.tell_stop(attempt, Cause.CANCELLED)
            elif self.m.killing:
                self.m.tell_stop(attempt, Cause.PREEMPTED)

    def answered(self, name: str, usage: dict[str, Any] | None = None) -> None:
        """The lane said something: the link is there. `usage`: how busy it is, for the live view."""
        self._troubled.pop(name, None)
        book = self.m.books[name]
        now = time.monotonic()
        if now - self._seen.get(name, -_SEEN_S) >= _SEEN_S:
            self._seen[name] = now
            self._live.lane(name, {**book.hello, "usage": usage or {}})
        if book.state is LaneState.UNREACHABLE:
            book.state, book.reason = LaneState.UP, ""
            self.m.record([_lane_event(name, book.state, "")])
            say(f"lane {name} answers again")

    def trouble(self, name: str, message: str) -> None:
        """The lane was asked and did not answer as it should."""
        say(f"lane {name}: {message}")
        since = self._troubled.setdefault(name, time.monotonic())
        book = self.m.books[name]
        if book.state is LaneState.UP and time.monotonic() - since >= _LOST_S:
            book.state, book.reason = LaneState.UNREACHABLE, message
            self.m.record([_lane_event(name, book.state, message)])


def _lane_event(name: str, state: LaneState, reason: str, **more: Any) -> Event:
    return Event(EventKind.LANE, lane=name, data={"state": str(state), "reason": reason, **more})
