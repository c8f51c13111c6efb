"""What the controller expects: when what runs should end, how long what waits should take, which cells go first.

Feeds `Speeds` with the ends that are committed, and gives placement its times. All of it is a guess that only says in
which order and where; nothing is lost when a controller starts without it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from core.journal import Event, query
from core.states import AttemptState, EventKind
from lanes import ends, lookups
from lanes.ledger import LaneBook
from lanes.longest import Length, Longest
from lanes.mirror import Mirror, Spec
from lanes.speeds import Speeds, Work
from lanes.sweeps import LiveSweep
from lanes.views import LaneView, Pace, Running

_NOBODY_KNOWS_S = 60.0  # what runs of a kind of which nothing has ended; see Running.left
_BATCH_S = 0.1  # of batches of one kind on one lane an end is looked at no more often than this
_WORKS = 20_000  # jobs and cells whose work is kept
_LONG_S = 0.005  # pooled cells that take longer than this are put together by how long each should take
_SHARED = 64  # cells of one batch among which its time is divided
_At = tuple[int, int] | str


class Outlook:
    """Expectations of one running controller. Owned by its one thread."""

    def __init__(self, mirror: Mirror, clock: Callable[[], float] = time.monotonic) -> None:
        self.m = mirror
        self.clock = clock
        self.speeds = Speeds()
        self.unlike = False  # more than one lane is open: it matters which job goes where
        self._running: dict[_At, tuple[float, float]] = {}  # what holds a slot -> since, and until when it should
        self._works: dict[int, Work] = {}
        self._orders: dict[int, Longest] = {}
        self._paces: dict[str, tuple[object, Pace]] = {}
        self._looked: dict[tuple[str, int], float] = {}
        mirror.listeners.append(self.hear)

    def load(self) -> None:
        """Take up what the journal knows, and what runs."""
        self.speeds = ends.read_ends(self.m.journal.conn)
        now, wall = self.clock(), time.time()
        for at, attempt in self.m.open.items():
            since = now - max(0.0, wall - attempt.placed)
            self._running[at] = (since, since + self._takes(attempt.lane, self._work_of(at[0])))

    # Listening.

    def hear(self, events: Sequence[Event]) -> None:
        for event in events:
            kind = event.kind
            if kind is EventKind.BATCH_ENDED:
                self._batch_ended(event)
            elif kind is EventKind.LANE and event.lane is not None:
                ends.tell_probe(self.speeds, event.lane, event.data.get("info") or {})
            elif event.job is None:
                continue
            elif kind is EventKind.PLACED and event.attempt is not None:
                now = self.clock()
                until = now + self._takes(str(event.lane), self._work_of(event.job))
                self._running[event.job, event.attempt] = (now, until)
                self._gone(event.job)
            elif kind is EventKind.ATTEMPT_ENDED and event.attempt is not None:
                self._attempt_ended(event, (event.job, event.attempt))
            elif kind in (EventKind.JOB_ENDED, EventKind.HELD):
                self._gone(event.job)
                self._orders.pop(event.job, None)
                self._works.pop(event.job, None)

    def _attempt_ended(self, event: Event, at: tuple[int, int]) -> None:
        self._running.pop(at, None)
        seconds = event.data.get("seconds")
        if event.data["state"] != AttemptState.SUCCEEDED or not seconds or event.lane is None:
            return
        self.speeds.ended(event.lane, self._work_of(at[0]), float(seconds))
        attempt = self.m.open.get(at)
        if attempt is not None and attempt.started is not None:
            # All three by the head's clock; a jump of it is smoothed over.
            self.speeds.started(event.lane, attempt.started - attempt.placed)
            self.speeds.closed(event.lane, time.time() - attempt.started - float(seconds))

    def _batch_ended(self, event: Event) -> None:
        """Of a batch only the time of all its cells is known: each has the part that it should have had."""
        ok, seconds, now = event.data["ok"], event.data["seconds"], self.clock()
        if not ok or not seconds or event.lane is None or not self._is_due(event.lane, ok[0][0], now, seconds):
            return
        n = sum(last - first + 1 for first, last, _ in ok)
        if n > _SHARED:
            job = query.job(self.m.journal.conn, ok[0][0])
            work = ends.work_of_job(job.kind, job.spec, {}, self.m.spec(job.spec).data["needs"])
            self.speeds.ended(event.lane, work, seconds / n)
            return
        works = [self._work_of(cell) for first, last, _ in ok for cell in range(first, last + 1)]
        parts = [x.expected if (x := self.length(w)) is not None else 1.0 for w in works]
        whole = sum(parts)
        for i in {0, n // 2, n - 1}:
            self.speeds.ended(event.lane, works[i], seconds * parts[i] / whole)

    def _is_due(self, lane: str, cell: int, now: float, seconds: float) -> bool:
        """There are thousands of short batches a second, and each would teach the same."""
        key = (lane, cell >> 16)
        if seconds < _BATCH_S and now - self._looked.get(key, -_BATCH_S) < _BATCH_S:
            return False
        if len(self._looked) > 1000:
            self._looked.clear()
        self._looked[key] = now
        return True

    # What placement asks.

    def view(self, book: LaneBook) -> LaneView:
        """The lane with when what runs there should end."""
        view, now = book.view(), self.clock()
        running = []
        for at, grant in book.held.items():
            since, until = self._running.get(at) or (now, now + _NOBODY_KNOWS_S)
            memory, gpus = grant.get("memory_mb"), tuple(grant.get("gpus") or ())
            names = frozenset(grant.get("resources") or ())
            running.append(Running(since, until, int(grant.get("cores", 1)), memory, gpus, names))
        name = book.config.name
        return replace(view, start_s=self.speeds.overhead_s(name), running=tuple(running))

    def sent(self, nonce: str, lane: str, spec: Spec, cells: Sequence[int]) -> None:
        """A batch was given to the lane."""
        now = self.clock()
        if len(cells) <= _SHARED:
            takes = sum(self._takes(lane, self._work_of(cell)) for cell in cells)
        else:
            takes = len(cells) * self._takes(lane, self.work(spec, {}))
        self._running[nonce] = (now, now + takes - (len(cells) - 1) * self.speeds.overhead_s(lane))
        for cell in cells if self._orders else ():
            self._gone(cell)

    def back(self, nonce: str) -> None:
        """A batch came back."""
        self._running.pop(nonce, None)

    def running(self, nonce: str) -> tuple[float, float] | None:
        """Since when a batch that was sent runs, and until when it should."""
        return self._running.get(nonce)

    def work(self, spec: Spec, params: Mapping[str, Any]) -> Work:
        """What is to be done with these parameters."""
        return ends.work_of_job(spec.data["kind"], spec.digest, params, spec.data["needs"])

    def length(self, work: Work) -> Length | None:
        """Seconds on an ordinary lane; None: nothing of that kind has ended."""
        found = self.speeds.work(work)
        return None if found is None else Length(found.factor, found.at_most)

    def length_of(self, job: int) -> Length | None:
        return self.length(self._work_of(job))

    def family_of(self, job: int) -> str:
        return self._work_of(job).family

    def pace(self, family: str, views: Sequence[LaneView]) -> Pace:
        """How the lanes do this kind of work."""
        stamp = (self.speeds.fits(family), tuple((v.name, v.total.cores) for v in views if v.open))
        known = self._paces.get(family)
        if known is None or known[0] != stamp:
            if len(self._paces) > 200:
                self._paces.clear()
            known = self._paces[family] = (stamp, self.speeds.pace(family, stamp[1]))
        return known[1]

    def ends(self, job: int) -> int:
        """How many ends stand behind what is expected of this job or cell."""
        return self.speeds.ends(self.family_of(job))

    def slots(self, spec: Spec, lane: str, views: Sequence[LaneView]) -> int:
        """By how many slots like those of `lane` a sweep's cells are shared."""
        pace = self.pace(self.work(spec, {}).family, [v for v in views if v.open and v.pools])
        return max(1, math.ceil(pace.slow.get(lane, 1.0) * pace.power / spec.needs.cores))

    def is_long(self, spec: Spec) -> bool:
        """Do pooled cells of this spec take so long that each should be placed by itself?"""
        found = self.length(self.work(spec, {}))
        return found is not None and found.expected > _LONG_S

    def rest_s(self, order: Longest, cells: Sequence[int], rest_s: float, views: Sequence[LaneView]) -> float:
        """Seconds in which all lanes together could do `cells` and the rest."""
        power = self.pace(self.family_of(cells[0]), views).power if cells else 0.0
        return (order.whole(cells).expected + rest_s) / power if power > 0 else 0.0

    def order(self, sweep: LiveSweep) -> Longest:
        """The cells of a sweep that wait, the longest first."""
        found = self._orders.get(sweep.id)
        if found is None or len(found) != len(sweep.waiting):
            found = self._orders[sweep.id] = Longest(self.length_of, sweep.waiting)
        return found

    def _gone(self, cell: int) -> None:
        for order in self._orders.values():
            order.discard(cell)

    # Work.

    def _takes(self, lane: str, work: Work) -> float:
        found = self.speeds.seconds(lane, work)
        return self.speeds.overhead_s(lane) + (found.factor if found is not None else _NOBODY_KNOWS_S)

    def _work_of(self, job: int) -> Work:
        found = self._works.get(job)
        if found is None:
            if len(self._works) > _WORKS:
                self._works.clear()
            _, spec, params = lookups.told_of(self.m.journal.conn, job)
            found = self._works[job] = self.work(self.m.spec(spec), json.loads(params))
        return found
