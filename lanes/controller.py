"""The controller: Ray driver, only writer of states, crash-only.

Start and recovery are one path: read the journal, ask each lane's agent, take up again what runs, collect what is
finished, requeue what is gone. Everything that it knows in memory can be rebuilt from there, so it may be killed
anywhere.

One thread owns the state and writes the journal (`Controller.run`); listeners, tellers and harvesters only put
messages into its inbox.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from core import cluster as clusters
from core.errors import DiskFull, Exit, LabError, Unavailable
from core.failpoint import failpoint
from core.home import Home
from core.journal import Journal, Role, query
from core.journal.backup import Backups
from core.journal.query import Attempt
from core.live import LiveWriter, boot_id
from core.states import AttemptState, Cause, EventKind, JobState, LaneState
from lanes import decide
from lanes.decide import Ended
from lanes.guardian import start_and_watch_guardian, take_lock
from lanes.handle import LaneHandle
from lanes.harvest import NoRoom, harvest
from lanes.later import Later, Message
from lanes.ledger import LaneBook
from lanes.mirror import Mirror, say
from lanes.ray_session import RaySession
from lanes.scheduler import Scheduler
from lanes.wakeup import WakeSocket

_TICK_S = 0.25
_TROUBLES = 3  # an attempt that makes us stumble this often is given up
_RECORD_S = 2.0


class Controller:
    """All state of one running controller. See `run`."""

    def __init__(self, home: Home, journal: Journal) -> None:
        self.home = home
        self.journal = journal
        self.live = LiveWriter(home)
        self.backups = Backups(home)
        self.m = Mirror(home, journal, clusters.load(home.cluster_file))
        self.scheduler = Scheduler(self.m)
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.harvesting: set[tuple[int, int]] = set()
        self.harvesters = ThreadPoolExecutor(2, thread_name_prefix="harvest")
        self.deferred = Later()
        self.trouble: Counter[tuple[int, int]] = Counter()
        self.session: RaySession | None = None
        self._data_version = -1

    # The life of a controller.

    def run(self) -> None:
        """Take up the journal, then work until asked to go down."""
        self.journal.hold_reserve()
        attempts = query.open_attempts(self.journal.conn)
        self._keep_lanes_of({a.lane for a in attempts})
        self._declare_lanes()
        for attempt in attempts:
            self.m.take_up(attempt)
        self.session = RaySession.start(self.home)
        self.catch_signals()  # Ray has put its own handlers in their place
        info = {
            "pid": os.getpid(),
            "boot": boot_id(),
            "cluster": str(self.home.cluster_file or ""),
            "ray": [[w.name, w.pid] for w in self.session.watched],
        }
        with self.journal.transaction() as tx:
            tx.append(EventKind.CONTROLLER_UP, data=info)
        say(f"up, pid {os.getpid()}, {len(self.m.open)} attempts to take up")
        self._start_lanes()
        record_at = 0.0
        while True:
            self._handle_messages()
            failpoint("controller.tick")
            dead = self.session.dead()
            if dead:
                # An attached driver would be ended by Ray a minute from now. Crash now; the guardian starts us afresh.
                say(f"Ray's {dead} died; starting afresh")
                os._exit(75)
            if self._journal_changed():
                self._handle(("journal", "", None))
            self._bring_back()
            if time.monotonic() > record_at:
                record_at = time.monotonic() + _RECORD_S
                self.session.record()
            self.backups.maybe()
            if self.m.ending and not (self.m.killing and self.m.open):
                break
        self._go_down()

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
        self.harvesters.shutdown(wait=True)
        self._drain_inbox()
        with self.journal.transaction() as tx:
            tx.append(EventKind.CONTROLLER_DOWN, data={"why": self.m.ending or "asked"})
        if self.session is not None:
            self.session.stop()
        self.backups.finish()
        self.live.close()
        say(f"down ({self.m.ending})")

    # Lanes.

    def _keep_lanes_of(self, names: set[str]) -> None:
        """A lane that has left cluster.yaml with attempts still on it is drained, not forgotten."""
        for name in sorted(names - self.m.books.keys()):
            if self.home.lane_root(name).is_dir():
                book = LaneBook(clusters.LaneConfig(name), LaneState.DRAINING, "no longer in cluster.yaml")
                self.m.books[name] = book

    def _declare_lanes(self) -> None:
        known = {lane.name: lane for lane in query.lanes(self.journal.conn)}
        with self.journal.transaction() as tx:
            for name, book in self.m.books.items():
                old = known.get(name)
                if old is not None and old.state is LaneState.DRAINING:
                    book.state, book.reason = old.state, old.reason
                elif book.config.transport != "local":
                    book.reason = "not admitted yet"
                if old is None or (book.state is not LaneState.DRAINING and old.state is not LaneState.UP):
                    tx.append(EventKind.LANE, lane=name, data={"state": book.state, "reason": book.reason})
            for name in known.keys() - self.m.books.keys():
                if known[name].state is not LaneState.DOWN:
                    tx.append(
                        EventKind.LANE, lane=name, data={"state": LaneState.DOWN, "reason": "no longer in cluster.yaml"}
                    )

    def _start_lanes(self) -> None:
        for name, book in self.m.books.items():
            if book.config.transport == "local":
                self.m.handles[name] = LaneHandle(self.home, book.config, self.inbox.put)
                self.m.handles[name].start()

    def _lane_up(self, name: str, hello: dict[str, Any]) -> None:
        """A (new) actor of the lane answers: it is told again all that could have been lost on the way."""
        book = self.m.books[name]
        book.hello = hello
        self.live.lane(name, hello)
        if book.state is not LaneState.DRAINING:
            book.state, book.reason = LaneState.UP, ""
        with self.journal.transaction() as tx:
            tx.append(EventKind.LANE, lane=name, data={"state": book.state, "reason": book.reason, "info": hello})
        if self.session is not None:
            self.session.record()
        handle = self.m.handles[name]
        mine = [a for a in self.m.open.values() if a.lane == name]
        handle.tell("adopt", [[a.job, a.n, str(self.home.run_dir(a.job, a.n).path)] for a in mine])
        for attempt in mine:
            job = query.job(self.journal.conn, attempt.job)
            if attempt.state is AttemptState.PLACED:
                self.m.tell_start(job, attempt)
            if job.state is JobState.CANCELLING:
                self.m.tell_stop(attempt, Cause.CANCELLED)
            elif self.m.killing:
                self.m.tell_stop(attempt, Cause.PREEMPTED)
        self.scheduler.place()

    # The journal's news.

    def _journal_changed(self) -> bool:
        version = self.journal.data_version()
        if version == self._data_version:
            return False
        self._data_version = version
        return True

    # What the lanes say.

    def _handle_messages(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._handle(self.inbox.get(timeout=_TICK_S))
            self._drain_inbox()

    def _drain_inbox(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
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
        if what == "lane-up":
            self._lane_up(lane, body)
        elif what == "frame":
            self.live.write(body["reports"])
            for report in body["reports"]:
                self._guarded((int(report["job"]), int(report["attempt"])), self._report, lane, report)
        elif what == "journal":
            self.scheduler.answer_wishes()
            self.scheduler.place()
        elif what == "harvest":
            if body in self.m.open:
                self._harvest(body)
        elif what == "harvested":
            self._guarded(body[0], self._commit, *body)
        elif what == "no-room":
            self.harvesting.discard(body)  # it is sealed and stays so; its rows wait for room
            self._out_of_disk(("harvest", lane, body))
        elif what == "lane-error":
            say(f"lane {lane}: {body}")
        elif what == "tell-failed":
            say(f"lane {lane}: {body[0]} failed: {body[3]}")
            self.deferred.put(("tell", lane, body[:3]))
        elif what == "tell":
            self._tell_again(lane, *body)
        elif what == "told":
            self._told(lane, *body)

    def _guarded(self, at: tuple[int, int], function: Callable[..., None], *args: Any) -> None:
        """Call `function` for one attempt. An error of ours about one attempt must not take the others with it."""
        try:
            function(*args)
        except (DiskFull, Unavailable):
            raise
        except Exception as error:
            say(f"job {at[0]} attempt {at[1]}: a bug of ours\n{traceback.format_exc()}")
            self.trouble[at] += 1
            self.harvesting.discard(at)
            if self.trouble[at] >= _TROUBLES and at in self.m.open:
                message = f"it could not be recorded: {type(error).__name__}: {str(error)!a}"
                self._conclude(at, Ended(AttemptState.FAILED, Cause.BAD_SEAL, message))

    def _told(self, lane: str, method: str, args: tuple[Any, ...], named: dict[str, Any], answer: Any) -> None:
        if method == "start" and not answer.get("ok", True):
            self._start_refused(args[0], answer)
        elif method == "signal" and not answer.get("ok", True):
            # The agent does not know it yet, or could not write the request down: ask again.
            self.deferred.put(("tell", lane, (method, args, named)))

    def _tell_again(self, lane: str, method: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Once more what got lost on the way, as long as it still matters."""
        at = (int(args[0]["job"]), int(args[0]["attempt"])) if method == "start" else (int(args[0]), int(args[1]))
        if lane in self.m.handles and (at in self.m.open or method == "reap"):
            self.m.handles[lane].tell(method, *args, **named)

    def _report(self, lane: str, report: dict[str, Any]) -> None:
        at = (int(report["job"]), int(report["attempt"]))
        attempt = self.m.open.get(at)
        if attempt is None:
            self._unknown(lane, at, report)
            return
        phase = report["phase"]
        if attempt.state is AttemptState.PLACED and phase in ("running", "ended") and report.get("pid"):
            failpoint("controller.before_started")
            with self.journal.transaction() as tx:
                tx.append(
                    EventKind.STARTED,
                    job=at[0],
                    attempt=at[1],
                    lane=lane,
                    data={"pid": report["pid"], "boot": report.get("boot_id")},
                )
            failpoint("controller.after_started")
            attempt = self.m.reread(at)
        if phase == "ended" and report.get("sealed") and report.get("clear"):
            self._harvest(at)
        elif phase == "lost" and report.get("clear"):
            self._conclude(at, self._lost(at, str(report.get("reason") or Cause.RUNNER_DIED)))

    def _lost(self, at: tuple[int, int], reason: str) -> Ended:
        sentences = {
            Cause.RUNNER_DIED: "its supervisor was killed",
            Cause.LANE_REBOOTED: "the lane was started anew while it ran",
            Cause.START_LOST: "it was placed, but never began",
        }
        cause = Cause(reason) if reason in {str(c) for c in sentences} else Cause.RUNNER_DIED
        return Ended(AttemptState.LOST, cause, sentences[cause])

    def _start_refused(self, frozen: dict[str, Any], answer: dict[str, Any]) -> None:
        at = (int(frozen["job"]), int(frozen["attempt"]))
        if at in self.m.open:
            cause = Cause.DISK_FULL if answer.get("cause") == Cause.DISK_FULL else Cause.SETUP
            self._conclude(at, Ended(AttemptState.FAILED, cause, str(answer.get("reason") or "the lane refused it")))

    def _unknown(self, lane: str, at: tuple[int, int], report: dict[str, Any]) -> None:
        """The lane has an attempt that the journal has ended, or never placed: it is revoked, then forgotten."""
        handle = self.m.handles[lane]
        if report["phase"] in ("starting", "running"):
            handle.tell("signal", at[0], at[1], "revoke")
        elif report.get("clear"):
            handle.tell("reap", at[0], at[1])
            self.live.forget(*at)

    # From sealed to committed.

    def _harvest(self, at: tuple[int, int]) -> None:
        if at in self.harvesting:
            return
        self.harvesting.add(at)
        job, attempt = query.job(self.journal.conn, at[0]), self.m.open[at]

        def work() -> None:
            try:
                self.inbox.put(("harvested", attempt.lane, (at, harvest(self.home, job, attempt))))
            except NoRoom:
                self.inbox.put(("no-room", attempt.lane, at))
            except BaseException as error:
                message = f"it could not be collected: {type(error).__name__}: {error}"
                self.inbox.put(("harvested", attempt.lane, (at, Ended(AttemptState.FAILED, Cause.BAD_SEAL, message))))

        self.harvesters.submit(work)

    def _commit(self, at: tuple[int, int], end: Ended) -> None:
        if at in self.m.open:
            failpoint("controller.before_commit")
            self._conclude(at, end)
            failpoint("controller.after_commit")
        self.harvesting.discard(at)  # not before: until it is recorded, no frame may have it collected again

    def _conclude(self, at: tuple[int, int], end: Ended) -> None:
        """The one place where an attempt ends: decision and record in one transaction, then the slot is free."""
        attempt = self.m.open[at]
        self._record_end(at, attempt, end)
        self.m.let_go(attempt)
        self.live.forget(*at)
        self.scheduler.place()

    def _record_end(self, at: tuple[int, int], attempt: Attempt, end: Ended) -> None:
        conn = self.journal.conn
        with self.journal.transaction() as tx:
            job = query.job(conn, at[0])
            if job.state.terminal or self.m.reread(at).state.terminal:
                return
            if self.m.killing and end.cause is Cause.PREEMPTED:
                end = replace(end, state=AttemptState.REVOKED, message="stopped by `lab down --kill`", parts=())
            events = decide.conclude(job, attempt, query.attempts(conn, job.id), query.spec_of(conn, job.spec), end)
            tx.extend(events)
        for event in events:
            if event.kind is EventKind.JOB_ENDED:
                say(f"job {at[0]} attempt {at[1]}: {event.data['state']} {event.data['reason']}".rstrip())
            elif event.kind is EventKind.REQUEUED:
                say(f"job {at[0]} goes back to the queue: {event.data['reason']}")

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
            self._handle(("journal", "", None))


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
