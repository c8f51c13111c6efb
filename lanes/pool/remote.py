"""The pool of one remote lane, as the controller sees it: what lanes.pool.pool is for this machine.

Batches go to the lane's agent, which has workers run them (lanes.agent.crews); their ends are asked for until they are
here, then forgotten there. A link that is down changes nothing: what was sent runs on, and its end waits for us. What
the controller has given up is dropped by the lane when it is next heard of, and whatever it says of it is refused.

Three threads: one sends (a snapshot of code may take minutes), one asks for ends, one has cells stopped.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from core.errors import LabError
from core.fsio import no_space
from core.home import Home
from core.states import Cause
from lanes.later import Message
from lanes.patience import unreachable_s
from lanes.pool import bring
from lanes.pool.books import BARRED_S, FarBooks
from lanes.pool.crew import crew_key
from lanes.pool.ends import never_ready, not_begun, whole
from lanes.pool.far import Far, RayWorkers, Reach, crew_of, order_of, setup_of
from lanes.pool.types import Batch, BatchDone
from lanes.transport import LinkDown, LinkRefused, RemoteError

POLL_S = 2.0  # for so long the lane waits for an end before it says that there is none
ANSWER_S = 30.0
PAUSE_S = 0.5  # between two tries over a link that is down
UNSENT_S = 3.0  # a batch that has not left waits no longer than this for the link
FULL_S = 20.0  # or whose disk was full
_UNFIT = 3  # times that a batch is fetched again when its files are not what they should be


class RemotePool(FarBooks):
    """All batches of one remote lane. Its methods never wait for the lane.

    Args:
        reach: the hold on the lane as it is now.
        say: puts a message into the controller's inbox; called from any thread.
        ray: on a joined lane, who starts workers there.
    """

    def __init__(
        self,
        home: Home,
        lane: str,
        reach: Callable[[], Reach],
        say: Callable[[Message], None],
        *,
        ray: RayWorkers | None = None,
    ) -> None:
        super().__init__(ray)
        self.lane = lane
        self._home = home
        self._reach = reach
        self._say = say
        self._begun: dict[str, str] = {}  # crews that the lane knows -> the agent's folder there
        self._number = int(time.time() * 1000)
        self._polls = 0
        self._acked: list[str] = []
        self._down_since: float | None = None
        self._closed = threading.Event()
        self._awake = threading.Event()
        self._awake.set()  # the lane may have something of an earlier controller's
        self._outbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stops: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=work, name=f"pool-{lane}-{work.__name__.strip('_')}", daemon=True)
            for work in (self._send_all, self._listen, self._stop_all)
        ]
        for thread in self._threads:
            thread.start()

    # What the controller asks.

    def start(self, batch: Batch, *, time_limit: float | None = None, ahead: bool = False) -> None:
        """Have the batch sent. Its end comes as a message, always."""
        if time_limit is None:
            time_limit = (batch.spec.get("limits") or {}).get("time_s")
        with self._lock:
            self._number += 1
            self._running[batch.nonce] = Far(batch, time_limit, ahead, time.monotonic(), self._number)
        self._outbox.put(batch.nonce)
        self._awake.set()

    def adopt(self, batch: Batch) -> None:
        """An earlier controller had sent this one: what became of it the lane will say."""
        with self._lock:
            far = Far(batch, None, False, time.monotonic(), 0, tried=True, sent=self._polls, adopted=True)
            self._running[batch.nonce] = far
        self._awake.set()

    def stop_cells(self, jobs: set[int], cause: Cause, *, only: str = "") -> None:
        """Have cells stopped: those that have not begun do not begin, one that runs has its grace, then is killed.

        Args:
            only: nonce of the one batch that is meant; others may have the same cells.
        """
        now = time.monotonic()
        ask: dict[str, dict[str, str]] = {}
        with self._lock:
            for nonce, far in [*self._running.items()]:
                mine = [c.job for c in far.batch.cells if c.job in jobs and c.job not in far.stops]
                if not mine or (only and nonce != only):
                    continue
                far.stops.update((job, (now, str(cause))) for job in mine)
                if not far.tried:
                    self._return(far)
                elif far.sent is not None:
                    ask[nonce] = {str(job): str(cause) for job in mine}
        if ask:
            self._stops.put(("crew_stop_cells", ask))

    def look_again(self) -> None:
        """The lane is heard again: what it has of ours that nobody wants is dropped."""
        self._awake.set()

    def give_up(self) -> None:
        """The lane is not to be waited for: all its cells come back, and what it says of them later is refused."""
        with self._lock:
            for far in [*self._running.values()]:
                self._return(far)

    def tick(self) -> None:
        """Give up what has waited for the lane for longer than it may. Called a few times a second."""
        with self._lock:
            if self._down_since is None:
                return
            down = time.monotonic() - self._down_since
            for far in [*self._running.values()]:
                most = unreachable_s(far.batch.spec)
                if (not far.tried and down > UNSENT_S) or (most is not None and down > most):
                    self._return(far)

    def close(self, *, kill: bool = False, patience_s: float = 2.0) -> None:
        """Ask no more and say no more. What runs there runs on for the next controller, unless it is to be killed."""
        self._closed.set()
        self._awake.set()
        self._outbox.put(None)
        self._stops.put(None)
        if kill:
            with contextlib.suppress(Exception), self._lock:
                nonces = sorted(self._running)
                self._reach().ask("crew_drop", nonces, timeout_s=patience_s)
                self._reach().ask("crew_end", timeout_s=patience_s)

    # Sending.

    def _send_all(self) -> None:
        while (nonce := self._outbox.get()) is not None and not self._closed.is_set():
            while not self._closed.is_set():
                with self._lock:
                    far = self._running.get(nonce)
                if far is None:
                    break
                try:
                    self._send(far)
                    break
                except (LinkDown, LinkRefused):
                    self._is_down()
                    self._closed.wait(PAUSE_S)
                except _Refused as error:
                    self._refused(far, error)
                    break
                except Exception as error:
                    self._end(far, whole(far.batch, Cause.START_LOST, f"lane {self.lane} did not take it: {error}"))
                    break

    def _send(self, far: Far) -> None:
        batch = far.batch
        reach = self._reach()
        crew = self._begin(reach, batch)
        order = order_of(reach, far, self._begun[crew])
        with self._lock:
            if batch.nonce not in self._running:
                return
            if self._down_since is not None:
                raise LinkDown("the link is down")  # as long as it has not left, it is free to go elsewhere
            far.tried = True
        for again in (True, False):
            answer = reach.ask("crew_send", crew, far.number, batch.nonce, far.ahead, order, timeout_s=ANSWER_S)
            if answer.get("cause") != "unknown-crew" or not again:
                break
            self._begun.pop(crew, None)
            self._begin(reach, batch)
        if not answer.get("ok"):
            raise _Refused(str(answer.get("cause")), str(answer.get("reason")))
        with self._lock:
            far.sent = self._polls
            stops = {str(job): cause for job, (_, cause) in far.stops.items()}
            gone = batch.nonce not in self._running
        self._awake.set()
        if gone:
            self._stops.put(("crew_drop", [batch.nonce]))
        elif stops:
            self._stops.put(("crew_stop_cells", {batch.nonce: stops}))

    def _begin(self, reach: Reach, batch: Batch) -> str:
        """The crew's name on the lane, made known there with the code that it runs."""
        spec = batch.spec
        key = crew_key(spec)
        crew = crew_of(spec, reach.interpreter, ray=self._ray is not None)
        if crew in self._begun:
            return crew
        code = str(reach.carry("ensure_code", str(spec["kind_code"]["store"])))
        setup = setup_of(self._home, batch, crew, reach.interpreter, code, ray=self._ray is not None)
        answer = reach.ask("crew_begin", crew, setup, timeout_s=ANSWER_S)
        if not answer.get("ok"):
            raise _Refused(str(answer.get("cause")), str(answer.get("reason")))
        with self._lock:
            self._begun[crew] = str(answer["root"])
            self._crews[crew] = key
        return crew

    def _refused(self, far: Far, error: _Refused) -> None:
        if error.cause == "disk-full":
            self._bar("", FULL_S, f"the disk of lane {self.lane} is full")
            self._end(far, bring.back(far.batch))
        else:
            self._end(far, whole(far.batch, Cause.START_LOST, f"lane {self.lane} did not take it: {error}"))

    # Asking for ends.

    def _listen(self) -> None:
        while not self._closed.is_set():
            self._awake.wait()
            self._awake.clear()  # whatever comes from here on is for the next poll
            if self._closed.is_set():
                return
            with self._lock:
                acked, self._acked = self._acked, []
                self._polls += 1
                poll = self._polls
            try:
                wait = POLL_S if self._running and self._down_since is None else 0.0
                answer = self._reach().ask("crew_poll", acked, wait, timeout_s=ANSWER_S)
                self._down_since = None
                self._hear(answer, poll)
            except (LinkDown, LinkRefused):
                self._is_down()
                self._keep_acks(acked)
                self._closed.wait(PAUSE_S)
            except (RemoteError, OSError, LabError, Exception) as error:
                self._keep_acks(acked)
                if not self._closed.is_set():
                    self._say(("lane-error", self.lane, f"its pool: {type(error).__name__}: {error}"))
                self._closed.wait(PAUSE_S * (4 if no_space(error) else 1))
            with self._lock:
                if self._running or (self._acked and self._down_since is None):
                    self._awake.set()

    def _keep_acks(self, acked: list[str]) -> None:
        with self._lock:
            self._acked = [*acked, *self._acked]

    def _hear(self, answer: Mapping[str, Any], poll: int) -> None:
        data, at = bytes(answer["data"]), 0
        here = set(answer["known"])
        self._take_bars(answer.get("refused") or {})
        for end in answer["ends"]:
            nonce = str(end["nonce"])
            files, at = bring.split(end["files"], data, at)
            with self._lock:
                far = self._running.get(nonce)
            here.discard(nonce)
            if far is not None:
                done = self._done(far, end, files)
                if done is None:
                    continue
                self._end(far, done)
            with self._lock:
                self._acked.append(nonce)
        with self._lock:
            ends = {str(e["nonce"]) for e in answer["ends"]}
            strange = sorted(here - self._running.keys() - ends)
            lost = [
                f
                for n, f in self._running.items()
                if f.sent is not None and f.sent < poll and n not in here and n not in ends
            ]
        if strange:
            self._stops.put(("crew_drop", strange))
            if not self._running:
                self._closed.wait(PAUSE_S)
        for far in lost:
            self._end(far, bring.fetched(self._home.batches, far.batch) or bring.back(far.batch))
        if self._ray is not None:
            for folder in answer.get("wants") or ():
                self._ray.start(str(folder))

    def _done(self, far: Far, end: Mapping[str, Any], files: Mapping[str, bytes]) -> BatchDone | None:
        """How it ended; None when its files have to be fetched once more."""
        batch, how = far.batch, end["how"]
        if how in ("answer", "death"):

            def read(name: str, offset: int, size: int) -> bytes:
                found: bytes = self._reach().ask("crew_read", batch.nonce, name, offset, size, timeout_s=ANSWER_S)
                return found

            try:
                done = bring.bring(self._home.batches, batch, end, files, read)
            except bring.Unfit as error:
                far.unfit += 1
                return None if far.unfit < _UNFIT else bring.unfit(batch, str(error))
            if end.get("no_room"):
                self._bar("", FULL_S, f"the disk of lane {self.lane} is full")
            with self._lock:
                self._sizer(crew_key(batch.spec)).measured(len(done.ok) + len(done.ends), done.seconds)
            return done
        if how == "refused":
            # Another lane may well be able to: the cells go back, and none are sent here for a while.
            self._bar(crew_key(batch.spec), BARRED_S, str(end["message"]))
        elif how == "never":
            return never_ready(batch, int(end["deaths"]), None, late=bool(end["late"]))
        elif how == "not-started" and not end.get("full"):
            return whole(batch, Cause.START_LOST, str(end["message"]))
        elif how == "not-started":
            self._bar("", FULL_S, f"the disk of lane {self.lane} is full")
        return not_begun(far)

    # Stopping.

    def _stop_all(self) -> None:
        while (item := self._stops.get()) is not None and not self._closed.is_set():
            while not self._closed.is_set():
                try:
                    self._reach().ask(item[0], item[1], timeout_s=ANSWER_S)
                    self._awake.set()  # is it gone?
                    break
                except (LinkDown, LinkRefused):
                    if item[0] == "crew_drop":
                        break  # what is still there is found again by the first poll
                    self._closed.wait(PAUSE_S)
                except Exception as error:
                    self._say(("lane-error", self.lane, f"its pool: {item[0]}: {type(error).__name__}: {error}"))
                    break

    # Books.

    def _is_down(self) -> None:
        if self._down_since is None:
            self._down_since = time.monotonic()

    def _return(self, far: Far) -> None:
        """What was asked to stop is stopped, the rest goes back."""
        self._end(far, not_begun(far))

    def _end(self, far: Far, done: BatchDone) -> None:
        with self._lock:
            if self._running.pop(far.batch.nonce, None) is None or self._closed.is_set():
                return
        self._say(("batch", self.lane, done))


class _Refused(Exception):
    """The lane answered, and did not take it."""

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause
