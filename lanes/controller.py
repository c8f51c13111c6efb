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
import secrets
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core import cluster as clusters
from core.errors import DiskFull, Exit, LabError
from core.failpoint import failpoint
from core.home import Home
from core.journal import Event, Journal, Role, query
from core.journal.backup import Backups
from core.journal.query import Attempt, Job
from core.live import LiveWriter, boot_id
from core.spec import Needs
from core.states import AttemptState, Cause, EventKind, JobState, LaneState
from lanes import decide
from lanes.decide import Ended
from lanes.freeze import freeze
from lanes.guardian import start_and_watch_guardian, take_lock
from lanes.handle import LaneHandle
from lanes.harvest import NoRoom, harvest
from lanes.ledger import LaneBook, grant_of
from lanes.placement import Wanted, place
from lanes.ray_session import RaySession
from lanes.wakeup import WakeSocket

Message = tuple[str, str, Any]

_TICK_S = 0.25
_RETRY_S = 5.0


class Controller:
    """All state of one running controller. See `run`."""

    def __init__(self, home: Home, journal: Journal) -> None:
        self.home = home
        self.journal = journal
        self.live = LiveWriter(home)
        self.backups = Backups(home)
        self.cluster = clusters.load(home.cluster_file)
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.books = {lane.name: LaneBook(lane) for lane in self.cluster.lanes}
        self.handles: dict[str, LaneHandle] = {}
        self.open: dict[tuple[int, int], Attempt] = {}
        self.harvesting: set[tuple[int, int]] = set()
        self.harvesters = ThreadPoolExecutor(2, thread_name_prefix="harvest")
        self.deferred: list[tuple[float, Message]] = []
        self.session: RaySession | None = None
        self.ending: str | None = None  # why we are going down
        self.killing = False  # down --kill: stop all attempts first
        self.crowded = False  # the disk is full: finish what runs, place nothing
        self._data_version = -1

    # The life of a controller.

    def run(self) -> None:
        """Take up the journal, then work until asked to go down."""
        self.journal.hold_reserve()
        self._declare_lanes()
        for attempt in query.open_attempts(self.journal.conn):
            self._take_up(attempt)
        self.session = RaySession.start(self.home)
        info = {
            "pid": os.getpid(),
            "boot": boot_id(),
            "cluster": str(self.home.cluster_file or ""),
            "ray": [[w.name, w.pid] for w in self.session.watched],
        }
        with self.journal.transaction() as tx:
            tx.append(EventKind.CONTROLLER_UP, data=info)
        say(f"up, pid {os.getpid()}, {len(self.open)} attempts to take up")
        self._start_lanes()
        while True:
            self._handle_messages()
            failpoint("controller.tick")
            dead = self.session.dead()
            if dead:
                # An attached driver would be ended by Ray a minute from now. Crash now; the guardian starts us afresh.
                say(f"Ray's {dead} died; starting afresh")
                os._exit(75)
            if self._journal_changed():
                try:
                    self._answer_wishes()
                    self._place()
                except DiskFull:
                    self._out_of_disk(("wake", "", None))
            self._bring_back()
            self.backups.maybe()
            if self.ending and not (self.killing and self.open):
                break
        self._go_down()

    def end(self, why: str) -> None:
        """Ask the loop to end (from a signal handler)."""
        self.ending = self.ending or why
        self.inbox.put(("wake", "", None))

    def _go_down(self) -> None:
        for handle in self.handles.values():
            handle.stop()
        self.harvesters.shutdown(wait=True)
        self._drain_inbox()
        with self.journal.transaction() as tx:
            tx.append(EventKind.CONTROLLER_DOWN, data={"why": self.ending or "asked"})
        if self.session is not None:
            self.session.stop()
        self.backups.finish()
        self.live.close()
        say(f"down ({self.ending})")

    # Lanes.

    def _declare_lanes(self) -> None:
        known = {lane.name: lane for lane in query.lanes(self.journal.conn)}
        with self.journal.transaction() as tx:
            for name, book in self.books.items():
                old = known.get(name)
                if old is not None and old.state is LaneState.DRAINING:
                    book.state, book.reason = old.state, old.reason
                elif book.config.transport == "local":
                    book.state = LaneState.DECLARED
                else:
                    book.reason = "not admitted yet"
                if old is None or (book.state is not LaneState.DRAINING and old.state is not LaneState.UP):
                    tx.append(EventKind.LANE, lane=name, data={"state": book.state, "reason": book.reason})
            for name in known.keys() - self.books.keys():
                if known[name].state is not LaneState.DOWN:
                    tx.append(
                        EventKind.LANE, lane=name, data={"state": LaneState.DOWN, "reason": "no longer in cluster.yaml"}
                    )

    def _start_lanes(self) -> None:
        for name, book in self.books.items():
            if book.config.transport == "local":
                self.handles[name] = LaneHandle(self.home, book.config, self.inbox.put)
                self.handles[name].start()

    def _lane_up(self, name: str, hello: dict[str, Any]) -> None:
        """A (new) actor of the lane answers: it is told again all that could have been lost on the way."""
        book = self.books[name]
        book.hello = hello
        self.live.lane(name, hello)
        if book.state is not LaneState.DRAINING:
            book.state, book.reason = LaneState.UP, ""
        with self.journal.transaction() as tx:
            tx.append(EventKind.LANE, lane=name, data={"state": book.state, "reason": book.reason, "info": hello})
        handle = self.handles[name]
        mine = [a for a in self.open.values() if a.lane == name]
        handle.tell("adopt", [[a.job, a.n, str(self.home.run_dir(a.job, a.n).path)] for a in mine])
        for attempt in mine:
            job = query.job(self.journal.conn, attempt.job)
            if attempt.state is AttemptState.PLACED:
                self._tell_start(job, attempt)
            if job.state is JobState.CANCELLING:
                self._tell_stop(attempt, Cause.CANCELLED)
        self._place()

    # The journal's news.

    def _journal_changed(self) -> bool:
        version = self.journal.data_version()
        if version == self._data_version:
            return False
        self._data_version = version
        return True

    def _answer_wishes(self) -> None:
        conn = self.journal.conn
        down = query.down_wish(conn)
        if down is not None and self.ending is None:
            self.ending, self.killing = "asked", bool(down.get("kill"))
            if self.killing:
                for attempt in self.open.values():
                    self._tell_stop(attempt, Cause.PREEMPTED)
        for lane in query.lanes(conn):
            if lane.wish in ("drain", "resume"):
                self._answer_lane(lane)
        for job in query.wishes(conn):
            self._answer_job(job)

    def _answer_lane(self, lane: query.Lane) -> None:
        book = self.books.get(lane.name)
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
        with self.journal.transaction() as tx:
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
        with self.journal.transaction() as tx:
            tx.extend(events)
        failpoint(f"controller.after_{events[0].kind}")
        if events[0].kind is EventKind.CANCELLING:
            for attempt in self.open.values():
                if attempt.job == job.id:
                    self._tell_stop(attempt, Cause.CANCELLED)

    # Placement.

    def _place(self) -> None:
        if self.ending or self._is_crowded():
            return
        while self._place_some():
            pass

    def _place_some(self) -> bool:
        """Place what fits. True when something changed that may let more fit."""
        conn = self.journal.conn
        views = [book.view() for book in self.books.values()]
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
        with self.journal.transaction() as tx:
            tx.extend(events)
        failpoint("controller.after_placed")
        for event in events:
            if event.kind is EventKind.PLACED:
                assert event.job is not None
                attempt = next(a for a in query.attempts(conn, event.job) if a.n == event.attempt)
                self._take_up(attempt)
                self._tell_start(query.job(conn, event.job), attempt)
        return True

    def _take_up(self, attempt: Attempt) -> None:
        self.open[(attempt.job, attempt.n)] = attempt
        if attempt.lane in self.books:
            self.books[attempt.lane].hold(attempt)

    def _tell_start(self, job: Job, attempt: Attempt) -> None:
        handle = self.handles.get(attempt.lane)
        if handle is not None:
            spec = query.spec_of(self.journal.conn, job.spec)
            frozen = freeze(self.home, job, attempt, spec, wake=handle.socket)
            handle.tell("start", frozen, str(self.home.run_dir(job.id, attempt.n).path))

    def _tell_stop(self, attempt: Attempt, cause: Cause) -> None:
        handle = self.handles.get(attempt.lane)
        if handle is not None:
            job = query.job(self.journal.conn, attempt.job)
            grace = float(query.spec_of(self.journal.conn, job.spec)["limits"]["grace_s"])
            handle.tell("signal", attempt.job, attempt.n, "stop", str(cause), grace)

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
        try:
            self._dispatch(message)
        except DiskFull:
            self._out_of_disk(message)

    def _dispatch(self, message: Message) -> None:
        what, lane, body = message
        if what == "lane-up":
            self._lane_up(lane, body)
        elif what == "frame":
            self.live.write(body["reports"])
            for report in body["reports"]:
                self._report(lane, report)
        elif what == "harvest":
            if body in self.open:
                self._harvest(body)
        elif what == "harvested":
            self._commit(*body)
        elif what == "no-room":
            self.harvesting.discard(body)  # it is sealed and stays so; its rows wait for room
            self._out_of_disk(("harvest", lane, body))
        elif what in ("lane-error", "tell-failed"):
            say(f"lane {lane}: {body}")
        elif what == "told" and body[0] == "start" and not body[2].get("ok", True):
            say(f"lane {lane}: start refused: {body[2]}")

    def _report(self, lane: str, report: dict[str, Any]) -> None:
        at = (int(report["job"]), int(report["attempt"]))
        attempt = self.open.get(at)
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
            attempt = self._reread(at)
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

    def _unknown(self, lane: str, at: tuple[int, int], report: dict[str, Any]) -> None:
        """The lane has an attempt that the journal has ended, or never placed: it is revoked, then forgotten."""
        handle = self.handles[lane]
        if report["phase"] in ("starting", "running"):
            handle.tell("signal", at[0], at[1], "revoke", str(Cause.CANCELLED), 0.0)
        elif report.get("clear"):
            handle.tell("reap", at[0], at[1])
            self.live.forget(*at)

    def _reread(self, at: tuple[int, int]) -> Attempt:
        attempt = next(a for a in query.attempts(self.journal.conn, at[0]) if a.n == at[1])
        self.open[at] = attempt
        return attempt

    # From sealed to committed.

    def _harvest(self, at: tuple[int, int]) -> None:
        if at in self.harvesting:
            return
        self.harvesting.add(at)
        job, attempt = query.job(self.journal.conn, at[0]), self.open[at]

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
        self.harvesting.discard(at)
        if at in self.open:
            failpoint("controller.before_commit")
            self._conclude(at, end)
            failpoint("controller.after_commit")

    def _conclude(self, at: tuple[int, int], end: Ended) -> None:
        """The one place where an attempt ends: decision and record in one transaction, then the slot is free."""
        attempt = self.open[at]
        self._record_end(at, attempt, end)
        del self.open[at]
        if attempt.lane in self.books:
            self.books[attempt.lane].release(*at)
        if attempt.lane in self.handles:
            self.handles[attempt.lane].tell("reap", at[0], at[1])
        self.live.forget(*at)
        self._place()

    def _record_end(self, at: tuple[int, int], attempt: Attempt, end: Ended) -> None:
        conn = self.journal.conn
        with self.journal.transaction() as tx:
            job = query.job(conn, at[0])
            if job.state.terminal or self._reread(at).state.terminal:
                return
            if self.killing and end.cause is Cause.PREEMPTED:
                end = Ended(
                    AttemptState.REVOKED, Cause.PREEMPTED, "stopped by `lab down --kill`", end.exit_code, end.seconds
                )
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
        self.crowded = True
        at_once = self.journal.release_reserve()
        if not at_once:
            say(f"the disk of {self.home.path} is full: {message[0]} {message[2]!r:.60} waits for space")
        self.deferred.append((time.monotonic() + (0.0 if at_once else _RETRY_S), message))

    def _bring_back(self) -> None:
        now = time.monotonic()
        due = [message for when, message in self.deferred if when <= now]
        self.deferred = [(when, message) for when, message in self.deferred if when > now]
        for message in due:
            if message[0] == "wake":
                self._data_version = -1
            self._handle(message)
        if self.crowded and not self.deferred and not self._is_crowded():
            self._place()

    def _is_crowded(self) -> bool:
        """Still no room for the reserve: nothing new is started."""
        if self.crowded and self.journal.hold_reserve():
            self.crowded = False
            say("there is room on the disk again")
        return self.crowded


def say(message: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} controller: {message}", flush=True)


def main(argv: list[str]) -> int:
    home = Home(Path(argv[0]), Path(argv[1]) if len(argv) > 1 and argv[1] else None)
    try:
        lock = take_lock(home.controller_lock, patience_s=2.0)
        if lock is None:
            say("another controller holds this home")
            return Exit.REFUSED
        with Journal.open(home, Role.CONTROLLER, create=True) as journal:
            controller = Controller(home, journal)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, lambda n, _frame: controller.end(signal.Signals(n).name))
            with (
                WakeSocket(home, controller.inbox.put),
                start_and_watch_guardian(home, lambda: controller.ending == "asked"),
            ):
                controller.run()
    except LabError as error:
        say(f"refused: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # Ray's threads have nothing more to say, and a hung interpreter exit would keep the lock.
    sys.stdout.flush()
    os._exit(code)
