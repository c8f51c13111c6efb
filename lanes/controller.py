"""The controller: Ray driver, only writer of states, crash-only.

Start and recovery are one path: read the journal, ask each lane's agent, take up again what runs, collect what is
finished, requeue what is gone. Everything that it knows in memory can be rebuilt from there, so it may be killed
anywhere.

One thread owns the state and writes the journal (`Controller.run`); listeners, tellers and harvesters only put
messages into its inbox.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core import cluster as clusters
from core.errors import DiskFull, Exit, LabError, Unavailable
from core.failpoint import failpoint
from core.home import Home
from core.journal import Event, Journal, Role, query
from core.journal.backup import Backups
from core.live import LiveWriter, boot_id
from core.states import EventKind, JobState
from lanes import aftermath
from lanes.asks import SAID, Asks
from lanes.attempts import Attempts
from lanes.compactor import Compactor
from lanes.dispatch import Dispatch
from lanes.guardian import start_and_watch_guardian, take_lock
from lanes.later import Later, Message
from lanes.mirror import Mirror, say
from lanes.notify import News
from lanes.pool.pool import Pool
from lanes.ray_session import RaySession
from lanes.recorder import Recorder
from lanes.roster import Roster
from lanes.scheduler import Scheduler
from lanes.sweeps import Sweeps
from lanes.wakeup import WakeSocket

_TICK_S = 0.25
_RECORD_S = 2.0
_COMMIT_S, _GLANCE_S = 0.003, 0.00003  # how long a commit that was announced is looked out for, and how often
_DRAIN = 256  # messages handled before what they led to is recorded
_ROUNDS = 50


class Controller:
    """All state of one running controller. See `run`."""

    def __init__(self, home: Home, journal: Journal) -> None:
        self.home = home
        self.journal = journal
        self.live = LiveWriter(home)
        self.backups = Backups(home)
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.cluster = cluster = clusters.load(home.cluster_file)
        self.m = Mirror(home, journal, cluster)
        self.news = News(home, journal, cluster)
        self.sweeps = Sweeps(self.m, self.news.failing)
        self.m.listeners += [self.news.hear, _log]
        self.roster = Roster(self.m, self.live, self.inbox.put)
        self.dispatch = Dispatch(self.m, Pool(home, self.inbox.put))
        self.recorder = Recorder(self.m, self.dispatch)
        self.scheduler = Scheduler(self.m, self.sweeps, self.dispatch, self.roster)
        self.asks = Asks(self.m, self.roster, self.inbox.put)
        self.compactor = Compactor(home, journal, self.inbox.put)
        self.deferred = Later()
        self.attempts = Attempts(self.m, self.live, self.inbox.put, self.deferred)
        self.session: RaySession | None = None
        self._data_version = -1
        self._changed = True  # the journal has news that are not answered
        self._blocked = False  # the journal takes nothing just now: what is to be recorded waits
        self._look_at = self._record_at = 0.0  # when to look after Ray's processes again

    # The life of a controller.

    def run(self) -> None:
        """Take up the journal, then work until asked to go down."""
        self.journal.hold_reserve()
        attempts = query.open_attempts(self.journal.conn)
        self.roster.keep_lanes_of({a.lane for a in attempts})
        self.roster.declare()
        for attempt in attempts:
            self.m.take_up(attempt)
        joins = any(book.config.transport == "joined" for book in self.m.books.values())
        self.session = RaySession.start(self.home, self.cluster.ray if joins else None)
        self.dispatch.pool.join(self.session)
        self.catch_signals()  # Ray has put its own handlers in their place
        info = {
            "pid": os.getpid(),
            "boot": boot_id(),
            "cluster": str(self.home.cluster_file or ""),
            "ray": [[w.name, w.pid] for w in self.session.watched],
            "joins": joins,
        }
        with self.journal.transaction() as tx:
            tx.append(EventKind.CONTROLLER_UP, data=info)
        self.sweeps.look()
        aftermath.recover(self.dispatch)
        self.scheduler.outlook.load()
        say(f"up, pid {os.getpid()}, {len(self.m.open)} attempt{'s' if len(self.m.open) != 1 else ''} to take up")
        self.roster.start()
        # What is there now stays. Without this each batch of cells has the collector go through all of Ray again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 100)
        while True:
            self._handle_messages()
            failpoint("controller.tick")
            did = self._turn()
            self._look_after()
            self.compactor.maybe(time.monotonic(), not did and not self.dispatch.flights)
            # What is out of reach cannot be ended now: it is found again, and judged, by the next controller.
            left = self.m.killing and any(not self.roster.out_of_reach(a.lane) for a in self.m.open.values())
            if self.m.ending and not left:
                break
        self._go_down()

    def _look_after(self) -> None:
        """What need not be done at every turn."""
        self._bring_back()
        now = time.monotonic()
        if now < self._look_at or self.session is None:
            return
        self._look_at = now + _TICK_S
        dead = self.session.dead()
        if dead:
            # An attached driver would be ended by Ray a minute from now. Crash now; the guardian starts us afresh.
            say(f"Ray's {dead} died; starting afresh")
            os._exit(75)
        self.dispatch.pool.tick()
        self.attempts.out_of_patience(now)
        self.backups.maybe()
        if now > self._record_at:
            self._record_at = now + _RECORD_S
            self.session.record()

    def catch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda n, _frame: self.end(signal.Signals(n).name))

    def end(self, why: str) -> None:
        """Ask the loop to end (from a signal handler)."""
        self.m.ending = self.m.ending or why
        self.inbox.put(("wake", "", None))

    def _go_down(self) -> None:
        for handle in self.m.handles.values():
            handle.stop()
        self.roster.leaving.finish()
        self.attempts.finish()
        self._drain_inbox()
        aftermath.abandon(self.dispatch)
        self.compactor.finish()
        self._drain_inbox()
        self._guard_work(self.recorder.record, [])
        with self.journal.transaction() as tx:
            tx.append(EventKind.CONTROLLER_DOWN, data={"why": self.m.ending or "asked"})
        self.news.finish()
        if self.session is not None:
            self.session.stop()
        self.backups.finish()
        self.live.close()
        say(f"down ({self.m.ending})")

    # One turn: answer, send, record.

    def _turn(self) -> bool:
        """True when something was recorded."""
        version = self.journal.data_version()
        if version != self._data_version:
            self._data_version, self._changed = version, True
        return not self._blocked and self._guard_work(self._work)

    def _guard_work(self, work: Callable[..., bool], *args: Any) -> bool:
        """Do `work`, or later what the journal does not take now."""
        try:
            return work(*args)
        except DiskFull:
            self._blocked = True
            self._out_of_disk(("work", "", None))
        except Unavailable as error:  # somebody holds the journal for very long
            say(f"{error}")
            self._blocked = True
            self.deferred.put(("work", "", None))
        self.m.stale = True  # what was not recorded has not happened
        return False

    def _work(self) -> bool:
        did = False
        if self._changed:
            self.sweeps.look()
            if self.scheduler.is_asked():
                did = self.recorder.record([], now=True)  # what is asked may be about cells that were just sent
                self.scheduler.answer_wishes()
                self.asks.look()
            self.m.stale = True
            self._changed = False
        for _ in range(_ROUNDS):
            more = self.sweeps.settle()
            if self.dispatch.is_doubtful(self.sweeps.limited):
                more = self.recorder.record([]) or more
                self.sweeps.settle()
            if self.dispatch.fresh and (self.m.stale or self.scheduler.has_more):
                # The queue is read again: what was sent must not be in it any more.
                more = self.recorder.record([], now=True) or more
            placed = self.scheduler.place()
            if not self.m.ending and not self.m.is_crowded():
                self.dispatch.send_ahead(self.sweeps.placeable())
                self.scheduler.double()
            more = self.recorder.record(placed) or more
            did = did or more
            if not more or not (self.m.stale or self.sweeps.touched):
                break
        return did

    def _await_commit(self) -> None:
        """Somebody is about to commit: see it as soon as it is there, and not when they come to tell us."""
        until = time.monotonic() + _COMMIT_S
        while self.inbox.empty() and not self.m.ending and time.monotonic() < until:
            if self.journal.data_version() != self._data_version:
                break
            time.sleep(_GLANCE_S)

    # What the lanes say.

    def _handle_messages(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._handle(self.inbox.get(timeout=min(_TICK_S, self.dispatch.patience() or _TICK_S)))
            self._drain_inbox()

    def _drain_inbox(self) -> None:
        with contextlib.suppress(queue.Empty):
            for _ in range(_DRAIN):
                self._handle(self.inbox.get_nowait())

    def _handle(self, message: Message) -> None:
        """Do what `message` says, or later what cannot be done now; nothing that one job does stops the rest."""
        try:
            self._dispatch(message)
        except DiskFull:
            self._out_of_disk(message)
        except Unavailable as error:  # somebody holds the journal for very long
            say(f"{error}")
            self.deferred.put(message)

    def _dispatch(self, message: Message) -> None:
        what, lane, body = message
        if what == "batch":
            self.dispatch.take(body)
        elif what == "soon":
            self._await_commit()
        elif what == "lane-up":
            self.roster.up(lane, body)
            self.dispatch.pool.met(lane)
            if self.session is not None:
                self.session.record()
        elif what == "frame":
            self.roster.answered(lane, body.get("usage"))
            self.attempts.frame(lane, body["reports"])
        elif what == "link":
            self.roster.link(lane, body)
        elif what == "answered":
            self.asks.answer(*body)
        elif what == "not-fetched":
            self.attempts.not_fetched(lane, *body)
        elif what == "lost":
            self.attempts.lost(*body)
        elif what == "lane-gone":
            self.dispatch.lane_gone(lane)
        elif what == "leave":
            self.roster.leave(lane)
        elif what in SAID:
            self.asks.hear(what, lane, body)
        elif what == "work":
            self._blocked = False
        elif what == "harvest":
            if body in self.m.open:
                self.attempts.harvest(body)
        elif what == "harvested":
            self.attempts.harvested(*body)
        elif what == "no-room":
            self.attempts.no_room(body)
            self._out_of_disk(("harvest", lane, body))
        elif what == "lane-error":
            self.roster.trouble(lane, str(body))
        elif what == "tell-failed":
            self.roster.tell_failed(lane, str(body[0]), str(body[3]))
            self.deferred.put(("tell", lane, body[:3]))
        elif what == "tell":
            self.attempts.tell_again(lane, *body)
        elif what == "told":
            self.attempts.told(lane, *body)
        elif what == "compacted":
            with self.journal.transaction() as tx:
                self.compactor.commit(tx, body)
            self.compactor.after_commit(body)

    # A full disk.

    def _out_of_disk(self, message: Message) -> None:
        """Give up the reserve, which is there for what an attempt did, and come back to `message`; nothing is lost."""
        self.m.crowded = True
        if self.journal.release_reserve():
            self.deferred.put(message, 0.0)
        else:
            say(f"the disk of {self.home.path} is full: {message[0]} {message[2]!r:.60} waits for space")
            self.deferred.put(message)

    def _bring_back(self) -> None:
        for message in self.deferred.due():
            self._handle(message)
        if self.m.crowded and not self.deferred and not self.m.is_crowded():
            self.m.stale = True


def _log(events: Sequence[Event]) -> None:
    """A line in our log for each end, and for each return to the queue."""
    for event in events:
        number = f"job {event.job} attempt {event.attempt}" if event.attempt else f"job {event.job}"
        if event.kind is EventKind.JOB_ENDED:
            say(f"{number}: {event.data['state']} {event.data['reason']}".rstrip())
        elif event.kind is EventKind.REQUEUED or (
            event.kind is EventKind.CELL_ENDED and event.data["to"] == JobState.QUEUED
        ):
            say(f"{number} goes back to the queue: {event.data['reason']}")


def main(argv: list[str]) -> int:
    home = Home(Path(argv[0]), Path(argv[1]) if len(argv) > 1 and argv[1] else None)
    try:
        lock = take_lock(home.controller_lock, patience_s=2.0)
        if lock is None:
            say("another controller holds this home")
            return Exit.REFUSED
        with Journal.open(home, Role.CONTROLLER, create=True) as journal:
            controller = Controller(home, journal)
            controller.catch_signals()
            with (
                WakeSocket(home, controller.inbox.put),
                start_and_watch_guardian(home, lambda: controller.m.ending == "asked"),
            ):
                controller.run()
    except LabError as error:
        say(f"refused: {error}")
        if isinstance(error, DiskFull):
            home.reserve.unlink(missing_ok=True)  # the next start has this much more room
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    code = int(Exit.INTERNAL)
    try:
        code = main(sys.argv[1:])
    except BaseException:
        with contextlib.suppress(OSError):
            traceback.print_exc()
    # Ray's threads have nothing more to say, and a hung interpreter exit would keep the lock.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)
