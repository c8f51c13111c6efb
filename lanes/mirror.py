"""What the controller holds in memory: a mirror of the journal that can be rebuilt at any moment, and its lanes."""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from core.cluster import Cluster
from core.home import Home
from core.journal import Event, Journal, query
from core.journal.query import Attempt, Job
from core.made import NotThere
from core.spec import Needs
from core.states import Cause, EventKind
from lanes.freeze import freeze
from lanes.handle import LaneHandle
from lanes.later import RETRY_S
from lanes.ledger import LaneBook
from lanes.taken import with_made_inputs

_SPECS = 256  # how many are kept parsed

# What may let another job go, or takes one out of the queue.
_STIRS = frozenset(
    {
        EventKind.JOB_ENDED,
        EventKind.REQUEUED,
        EventKind.HELD,
        EventKind.RELEASED,
        EventKind.LANE,
    }
)


@dataclass(frozen=True)
class Spec:
    """A spec of the journal, with the part that placement asks for over and over."""

    digest: str
    data: dict[str, Any]
    needs: Needs


class Mirror:
    """Open attempts, the lanes' books, and the words that go to the lanes. Owned by the controller's one thread.

    `heard` is told of every event that this controller has committed: what others keep in memory about jobs they keep
    by listening, not by asking the journal again.
    """

    def __init__(self, home: Home, journal: Journal, cluster: Cluster) -> None:
        self.home = home
        self.journal = journal
        self.books = {lane.name: LaneBook(lane) for lane in cluster.lanes}
        self.handles: dict[str, LaneHandle] = {}
        self.open: dict[tuple[int, int], Attempt] = {}
        self.ending: str | None = None  # why we are going down
        self.killing = False  # down --kill: stop all attempts first
        self.crowded = False  # the disk is full: finish what runs, place nothing
        self.stale = True  # the queue may not be what it was when last looked at
        self._waits: dict[int, float] = {}  # jobs that may not start again yet: until when, by our clock
        self.listeners: list[Callable[[Sequence[Event]], None]] = []
        self._look_again = 0.0
        self._specs: OrderedDict[str, Spec] = OrderedDict()

    def record(self, events: Sequence[Event]) -> None:
        """Commit `events`, then let everybody know."""
        with self.journal.transaction() as tx:
            tx.extend(events)
        self.heard(events)

    def heard(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.kind in _STIRS:
                self.stale = True
            if event.kind is EventKind.REQUEUED and event.job is not None and event.data.get("wait_s"):
                self._waits[event.job] = time.monotonic() + float(event.data["wait_s"])
        for listener in self.listeners:
            listener(events)

    @property
    def waits(self) -> set[int]:
        """Jobs in the queue that are to start again, but not yet. A controller that was started anew knows none."""
        if self._waits:
            now = time.monotonic()
            self._waits = {job: until for job, until in self._waits.items() if until > now}
        return set(self._waits)

    def spec(self, digest: str) -> Spec:
        found = self._specs.get(digest)
        if found is None:
            data = query.spec_of(self.journal.conn, digest)
            found = self._specs[digest] = Spec(digest, data, Needs.model_validate(data["needs"]))
            while len(self._specs) > _SPECS:
                self._specs.popitem(last=False)
        else:
            self._specs.move_to_end(digest)
        return found

    def take_up(self, attempt: Attempt) -> None:
        self.open[(attempt.job, attempt.n)] = attempt
        if attempt.lane in self.books:
            self.books[attempt.lane].hold(attempt)

    def reread(self, at: tuple[int, int]) -> Attempt:
        attempt = next(a for a in query.attempts(self.journal.conn, at[0]) if a.n == at[1])
        self.open[at] = attempt
        return attempt

    def let_go(self, attempt: Attempt) -> None:
        """The attempt has ended and nothing of it lives: its slot is free."""
        del self.open[(attempt.job, attempt.n)]
        if attempt.lane in self.books:
            self.books[attempt.lane].release(attempt.job, attempt.n)
        if attempt.lane in self.handles:
            self.handles[attempt.lane].tell("reap", attempt.job, attempt.n)

    def tell_start(self, job: Job, attempt: Attempt) -> None:
        handle = self.handles.get(attempt.lane)
        if handle is not None:
            spec = query.spec_of(self.journal.conn, job.spec)
            try:
                spec = with_made_inputs(self.home, self.journal.conn, job, spec)
            except NotThere as error:
                handle.refuse_start(job.id, attempt.n, Cause.STALE_INPUT, error.message)
                return
            frozen = freeze(self.home, job, attempt, spec, wake=handle.socket)
            handle.tell("start", frozen, str(self.home.run_dir(job.id, attempt.n).path))

    def tell_stop(self, attempt: Attempt, cause: Cause) -> None:
        handle = self.handles.get(attempt.lane)
        if handle is not None:
            job = query.job(self.journal.conn, attempt.job)
            grace = float(query.spec_of(self.journal.conn, job.spec)["limits"]["grace_s"])
            handle.tell("signal", attempt.job, attempt.n, "stop", cause=str(cause), grace_s=grace)

    def is_crowded(self) -> bool:
        """Still no room for the reserve: nothing new is started."""
        if self.crowded and time.monotonic() >= self._look_again:
            self._look_again = time.monotonic() + RETRY_S
            if self.journal.hold_reserve():
                self.crowded = False
                say("there is room on the disk again")
        return self.crowded


def say(message: str, who: str = "controller") -> None:
    """A line in the controller's log. The log may be on the very disk that is full: that stops nothing."""
    with contextlib.suppress(OSError):
        print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {who}: {message}", flush=True)
