"""Who reads for the screen: one thread, once a second, and at once when the screen asks for something else."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from core.home import Home
from core.states import JobState
from lab.output import job as look
from lab.tui.facts import JournalFacts, Snapshot, Want
from lab.tui.looking import Depth, Lanes, LiveNews
from lab.tui.reading import JournalReader
from lanes.start import controller_alive

EVERY_S = 1.0
_PACE_S = 60.0  # progress is compared with that of so long ago
_PACE_LEAST_S = 3.0


class Looker:
    """Makes snapshots. Belongs to the thread that calls it."""

    def __init__(self, home: Home, clock: Callable[[], float] = time.monotonic) -> None:
        self._home = home
        self._clock = clock
        self.reader = JournalReader(home, clock)
        self._live = LiveNews(home, clock)
        self._lanes = Lanes(home)
        self._depth = Depth(home, clock)
        self._paces = Paces()

    def look(self, want: Want) -> Snapshot:
        facts = self.reader.read(want)
        live, probes = self._live.read()
        now = self._clock()
        for job in facts.jobs:
            if job.state is JobState.RUNNING:
                news = look.with_goal(live.get((job.id, job.attempts)), job)
                if job.is_sweep and job.id in facts.sweeps:
                    self._paces.note(job.id, now, float(facts.sweeps[job.id].ended))
                elif news is not None and news.done is not None:
                    self._paces.note(job.id, now, news.done)
        self._paces.keep({j.id for j in facts.jobs if j.state is JobState.RUNNING})
        lanes = self._lanes.look(facts, probes)
        detail = None
        if want.selected is not None:
            conn, sweep = self.reader.conn, facts.sweeps.get(want.selected)
            try:
                detail = self._depth.look(conn, want.selected, sweep, self.reader.changes, whole_log=want.whole_log)
            except sqlite3.Error:  # the next look opens the journal anew and says what is wrong
                detail = None
        return Snapshot(
            str(self._home.path),
            time.time(),
            facts,
            live,
            lanes,
            self._paces.rates(),
            detail,
            controller_alive(self._home),
            self.reader.trouble or self._lanes.trouble,
        )

    def close(self) -> None:
        self.reader.close()
        self._live.close()


class Paces:
    """How fast things go forward, from what was seen of them lately."""

    def __init__(self) -> None:
        self._seen: dict[int, deque[tuple[float, float]]] = {}

    def note(self, key: int, now: float, done: float) -> None:
        seen = self._seen.setdefault(key, deque())
        if seen and done < seen[-1][1]:
            seen.clear()  # a new attempt
        seen.append((now, done))
        while len(seen) > 2 and seen[1][0] < now - _PACE_S:
            seen.popleft()

    def keep(self, keys: set[int]) -> None:
        for key in self._seen.keys() - keys:
            del self._seen[key]

    def rates(self) -> dict[int, float]:
        out = {}
        for key, seen in self._seen.items():
            span, gone = seen[-1][0] - seen[0][0], seen[-1][1] - seen[0][1]
            if span >= _PACE_LEAST_S and gone > 0:
                out[key] = gone / span
        return out


class Feed(threading.Thread):
    """Looks every second and hands each snapshot to `deliver`, which must be safe to call from a thread."""

    def __init__(self, home: Home, deliver: Callable[[Snapshot], None], every_s: float = EVERY_S) -> None:
        super().__init__(name="lab-top-reader", daemon=True)
        self._home = home
        self._deliver = deliver
        self._every_s = every_s
        self._want = Want()
        self._poke = threading.Event()
        self._stopped = False
        self._last = Snapshot(str(home.path), 0.0, JournalFacts())

    def want(self, want: Want) -> None:
        """From now on read this; now, if it is something else."""
        if want != self._want:
            self._want = want
            self._poke.set()

    def poke(self) -> None:
        self._poke.set()

    def stop(self) -> None:
        self._stopped = True
        self._poke.set()

    def run(self) -> None:
        looker = Looker(self._home)
        due = time.monotonic()
        try:
            while not self._stopped:
                self._poke.clear()
                try:
                    self._last = looker.look(self._want)
                except Exception as error:  # a bug of ours must not end the screen: it says so and goes on
                    said = f"a bug of lab: {type(error).__name__}: {error}"
                    self._last = replace(self._last, at=time.time(), trouble=said)
                if not self._stopped:
                    self._deliver(self._last)
                now = time.monotonic()
                due = max(due + self._every_s, now + 0.1) if now >= due else due
                self._poke.wait(max(0.0, due - now))
        finally:
            looker.close()
