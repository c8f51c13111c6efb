"""The controller's attempts: what the lanes report of them, and their ends, from sealed to committed."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from core.errors import DiskFull, Unavailable
from core.failpoint import failpoint
from core.journal import query
from core.journal.query import Attempt, Job
from core.live import LiveWriter
from core.states import AttemptState, Cause, EventKind
from lanes import decide
from lanes.admission.misbehaviour import history_of, misbehaves
from lanes.carrier.errors import BadHarvest
from lanes.decide import Ended
from lanes.harvest import NoRoom, harvest
from lanes.later import Later, Message
from lanes.mirror import Mirror, say
from lanes.patience import unreachable_s
from lanes.remote import RemoteHandle

_REFUSALS = {str(c) for c in (Cause.DISK_FULL, Cause.STALE_INPUT, Cause.LANE_REFUSED, Cause.CANCELLED)}
_SUSPECT = frozenset({Cause.BAD_SEAL, Cause.RUNNER_DIED, Cause.SETUP, Cause.START_LOST, Cause.LANE_REFUSED})
_TROUBLES = 3  # an attempt that makes us stumble this often is given up


class Attempts:
    """Attempts that run by themselves, each in processes of its own."""

    def __init__(self, mirror: Mirror, live: LiveWriter, inbox: Callable[[Message], None], deferred: Later) -> None:
        self.m = mirror
        self.home = mirror.home
        self.journal = mirror.journal
        self.live = live
        self._inbox = inbox
        self._deferred = deferred
        self._harvesting: set[tuple[int, int]] = set()
        self._harvesters = ThreadPoolExecutor(2, thread_name_prefix="harvest")
        self._trouble: Counter[tuple[int, int]] = Counter()
        self._stumbled: Counter[tuple[int, int]] = Counter()  # fetches that failed for no reason of the lane's

    def frame(self, lane: str, reports: list[dict[str, Any]]) -> None:
        """News of all attempts of a lane."""
        self.live.write(reports)
        for report in reports:
            self._guarded((int(report["job"]), int(report["attempt"])), self._report, lane, report)

    def harvested(self, at: tuple[int, int], end: Ended) -> None:
        self._guarded(at, self._commit, at, end)

    def no_room(self, at: tuple[int, int]) -> None:
        """It is sealed and stays so; its rows wait for room."""
        self._harvesting.discard(at)

    def finish(self) -> None:
        self._harvesters.shutdown(wait=True)

    def told(self, lane: str, method: str, args: tuple[Any, ...], named: dict[str, Any], answer: Any) -> None:
        if method == "start" and not answer.get("ok", True):
            self._start_refused(args[0], answer)
        elif method == "signal" and not answer.get("ok", True):
            # The agent does not know it yet, or could not write the request down: ask again.
            self._deferred.put(("tell", lane, (method, args, named)))

    def tell_again(self, lane: str, method: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Once more what got lost on the way, as long as it still matters."""
        if method == "adopt":
            there = tuple(row for row in args[0] if (int(row[0]), int(row[1])) in self.m.open)
            if lane in self.m.handles and there:
                self.m.handles[lane].tell("adopt", there)
            return
        at = (int(args[0]["job"]), int(args[0]["attempt"])) if method == "start" else (int(args[0]), int(args[1]))
        if lane in self.m.handles and (at in self.m.open or method == "reap"):
            self.m.handles[lane].tell(method, *args, **named)

    def harvest(self, at: tuple[int, int]) -> None:
        if at in self._harvesting:
            return
        self._harvesting.add(at)
        job, attempt = query.job(self.journal.conn, at[0]), self.m.open[at]

        handle, book = self.m.handles.get(attempt.lane), self.m.books.get(attempt.lane)
        if handle is None and book is not None and book.config.remote:
            self._harvesting.discard(at)  # it lies there still, and is told of when the lane is held again
            return

        def work(wrong: Exception | None = None) -> None:
            try:
                if wrong is not None and not isinstance(wrong, BadHarvest | NoRoom):
                    # Not what the lane has is wrong, but something on the way. What is given up is removed there.
                    self._stumbled[at] += 1
                    if self._stumbled[at] < _TROUBLES:
                        why = f"{type(wrong).__name__}: {wrong}"
                        self._inbox(("not-fetched", attempt.lane, (at, why)))
                        return
                if wrong is not None:
                    raise wrong
                self._inbox(("harvested", attempt.lane, (at, harvest(self.home, job, attempt))))
            except NoRoom:
                self._inbox(("no-room", attempt.lane, at))
            except BaseException as error:
                message = f"it could not be collected: {type(error).__name__}: {error}"
                self._inbox(("harvested", attempt.lane, (at, Ended(AttemptState.FAILED, Cause.BAD_SEAL, message))))

        if isinstance(handle, RemoteHandle):
            handle.fetch(*at, {"nonce": attempt.nonce, "key": job.key}, work)
        else:
            self._harvesters.submit(work)

    def not_fetched(self, lane: str, at: tuple[int, int], why: str) -> None:
        """The link went while it was fetched: the lane's next frame has us go on where it stopped."""
        self._harvesting.discard(at)
        say(f"job {at[0]} attempt {at[1]} is not wholly here yet: {why}")

    def lost(self, at: tuple[int, int], end: Ended) -> None:
        """The attempt is given up without its lane's word. Whatever it comes back with is refused."""
        if at in self.m.open:
            self._guarded(at, self._conclude, at, end)

    def out_of_patience(self, now: float) -> None:
        """Give up what has been out of reach for longer than its job allows."""
        for at, attempt in list(self.m.open.items()):
            book = self.m.books.get(attempt.lane)
            if book is None or book.down_since is None or at in self._harvesting:
                continue
            spec = query.spec_of(self.journal.conn, query.job(self.journal.conn, at[0]).spec)
            limit = unreachable_s(spec)
            if limit is not None and now - book.down_since >= limit:
                message = f"lane {attempt.lane} was out of reach for longer than {limit:g} s"
                self.lost(at, Ended(AttemptState.LOST, Cause.UNREACHABLE, message))

    def _guarded(self, at: tuple[int, int], function: Callable[..., None], *args: Any) -> None:
        """Call `function` for one attempt. An error of ours about one attempt must not take the others with it."""
        try:
            function(*args)
        except (DiskFull, Unavailable):
            raise
        except Exception as error:
            say(f"job {at[0]} attempt {at[1]}: a bug of ours\n{traceback.format_exc()}")
            self._trouble[at] += 1
            self._harvesting.discard(at)
            if self._trouble[at] >= _TROUBLES and at in self.m.open:
                message = f"it could not be recorded: {type(error).__name__}: {str(error)!a}"
                self._conclude(at, Ended(AttemptState.FAILED, Cause.BAD_SEAL, message))

    def _report(self, lane: str, report: dict[str, Any]) -> None:
        at = (int(report["job"]), int(report["attempt"]))
        attempt = self.m.open.get(at)
        if attempt is None or attempt.lane != lane:
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
            self.harvest(at)
        elif phase == "lost" and report.get("clear"):
            self._take_leave(at, self._lost(at, str(report.get("reason") or Cause.RUNNER_DIED)))

    def _take_leave(self, at: tuple[int, int], end: Ended) -> None:
        """An attempt ended without a seal: first bring what it left, for the next one goes on from there."""
        handle = self.m.handles.get(self.m.open[at].lane)
        if not isinstance(handle, RemoteHandle):
            self._conclude(at, end)
            return
        if at in self._harvesting:
            return
        self._harvesting.add(at)

        def work(wrong: Exception | None) -> None:
            if wrong is not None:
                say(f"job {at[0]} attempt {at[1]}: what it left could not be brought: {wrong}")
            self._inbox(("harvested", handle.name, (at, end)))

        handle.fetch(*at, None, work)

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
            word = str(answer.get("cause") or "")
            cause = Cause(word) if word in _REFUSALS else Cause.SETUP
            if cause is Cause.CANCELLED:  # of a job that is not (else that counts): it was stopped, and runs later
                cause = Cause.PREEMPTED
            self._conclude(at, Ended(AttemptState.FAILED, cause, str(answer.get("reason") or "the lane refused it")))

    def _unknown(self, lane: str, at: tuple[int, int], report: dict[str, Any]) -> None:
        """The lane has an attempt that the journal has ended, or never placed: it is revoked, then forgotten."""
        handle = self.m.handles.get(lane)
        if handle is None:  # the last words of a lane that we have left
            return
        if report["phase"] in ("starting", "running"):
            handle.tell("signal", at[0], at[1], "revoke")
        elif report.get("clear"):
            handle.tell("reap", at[0], at[1])
            self.live.forget(*at)

    # From sealed to committed.

    def _commit(self, at: tuple[int, int], end: Ended) -> None:
        if at in self.m.open:
            failpoint("controller.before_commit")
            self._conclude(at, end)
            failpoint("controller.after_commit")
        self._harvesting.discard(at)  # not before: until it is recorded, no frame may have it collected again

    def _conclude(self, at: tuple[int, int], end: Ended) -> None:
        """The one place where an attempt ends: decision and record in one transaction, then the slot is free."""
        attempt = self.m.open[at]
        self._record_end(at, attempt, end)
        self.m.let_go(attempt)
        self.live.forget(*at)
        for counts in (self._trouble, self._stumbled):
            counts.pop(at, None)

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
        self.m.heard(events)
        self._doubt(attempt.lane, job, end)

    def _doubt(self, lane: str, job: Job, end: Ended) -> None:
        """Does a remote lane deserve its admission still, after an end that may be its own fault?"""
        book = self.m.books.get(lane)
        if book is None or not book.admitted or not (end.cause in _SUSPECT or job.kind == "parity"):
            return
        why = misbehaves(history_of(self.journal.conn, lane))
        if why is not None:
            self._inbox(("quarantine", lane, why))
