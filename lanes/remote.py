"""The controller's hold on a lane that is reached over ssh.

As with every lane, one thread listens and one tells. What differs: the link may be down, for minutes or days, and
that is news of its own; what an attempt needs is sent before it starts, and what it leaves is fetched, by workers that
neither the listener nor a cancel ever waits for.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from core.cluster import LaneConfig
from core.home import Home
from lanes.environment.which import known, lane_python
from lanes.handle import LaneHandle
from lanes.later import Message
from lanes.transport import LinkDown, LinkRefused, RemoteError

_POLL_S = 2.0
_ANSWER_S = 30.0  # a call whose answer takes longer than this counts as lost
_PAUSE_S = 1.0  # between two looks at a link that is down
_CARRIERS = 4  # attempts that are sent or fetched at once
_BACK_S = 10.0  # after a pause that we asked for, the link may take this long to be there again

# What is left to do when work is done and may be begun anew: a message, mostly.
After = Callable[[], None]


class RemoteHandle(LaneHandle):
    """A lane at the far end of a link."""

    def __init__(self, home: Home, config: LaneConfig, inbox: Callable[[Message], None]) -> None:
        super().__init__(home, config, inbox)
        # Apart, so that results come back however much there is to send.
        self._workers = {
            what: ThreadPoolExecutor(_CARRIERS, thread_name_prefix=f"{what}-{config.name}")
            for what in ("begin", "fetch")
        }
        self._busy = threading.Lock()
        # Begins and fetches, so that none is done twice at once.
        self._under_way: dict[tuple[str, int, int], Future[None] | None] = {}
        self._left = threading.Event()  # nothing more is to be said to the lane
        self._closed_until = 0.0  # we closed the connection ourselves
        self._silent_until = 0.0  # by the clock of people: when it is to be there again
        self._root = ""  # the agent's folder on the lane, as it said

    @property
    def remote(self) -> bool:
        return True

    @property
    def interpreter(self) -> str | None:
        """For attempts; None: the one that runs the agent."""
        return lane_python(self.config, known(self._home, self.name))

    def stop(self) -> None:
        super().stop()
        for workers in self._workers.values():
            workers.shutdown(wait=False, cancel_futures=True)

    def leave(self) -> None:
        """Stop, and say nothing more to the lane: it is no longer ours. Never waits; `close` is to follow."""
        self._left.set()
        self.stop()

    def close(self) -> None:
        """Leave, and end the actor with its connection."""
        self.leave()
        with self._lock:
            actor, self._actor = self._actor, None
        if actor is not None:
            import ray

            with contextlib.suppress(Exception):
                ray.get(actor.close.remote(), timeout=5)
            with contextlib.suppress(Exception):
                ray.kill(actor)

    # What others ask of the lane, on threads of their own.

    def ask(self, method: str, *args: Any, timeout_s: float = 60.0, **named: Any) -> Any:
        """Call the lane's agent. Raises LinkDown, LinkRefused, RemoteError."""
        return self._do("call", method, *args, timeout_s=timeout_s, **named)

    def carry(self, method: str, *args: Any, **named: Any) -> Any:
        """Call the lane's carrier."""
        return self._do("carry", method, *args, **named)

    def link(self) -> dict[str, Any]:
        found: dict[str, Any] = self._do("link")
        return found

    def knock(self) -> None:
        # Who asks about the lane while we keep it closed must not end that.
        if time.monotonic() >= self._closed_until - _BACK_S:
            self._do("knock")

    def close_for(self, seconds: float) -> None:
        """Close every connection, and open none for so long."""
        self._closed_until = time.monotonic() + seconds + _BACK_S
        self._silent_until = time.time() + seconds
        self._do("drop", float(seconds))
        self._stopping.wait(seconds)

    def let_go(self, patience_s: float) -> str:
        """Have everything of ours on the lane revoked, then give up its ownership.

        Returns:
            empty, or one sentence about what would not end.
        """
        deadline = time.monotonic() + patience_s
        self._cancel_begins(deadline)  # or one that is still being sent would start behind our back
        cursor: dict[str, Any] | None = None
        while True:
            frame = self.ask("poll", cursor, 0.5, timeout_s=_ANSWER_S)
            cursor = frame["cursor"]
            left = [r for r in frame["reports"] if not r.get("clear")]
            if not left or time.monotonic() > deadline:
                break
            for report in left:
                self.ask("signal", int(report["job"]), int(report["attempt"]), "revoke", timeout_s=_ANSWER_S)
        if left:
            return (
                f"{len(left)} attempts there have not ended yet"
                if len(left) > 1
                else "1 attempt there has not ended yet"
            )
        self.ask("release", timeout_s=_ANSWER_S)
        self.stop()  # now: the listener would have the lane ours again
        return ""

    def fetch(self, job: int, n: int, expect: dict[str, Any] | None, then: Callable[[Exception | None], None]) -> None:
        """Bring what an attempt has left to the head, on one of our workers, then call `then` there.

        Args:
            expect: everything that the seal of the attempt with this nonce and key names; None: it has no seal, bring
                its log and its newest checkpoint.
            then: told what went wrong, if it was not the link: that is another message, and then it is asked again.
        """

        def work() -> After:
            wrong: Exception | None = None
            try:
                if expect is not None:
                    self._do("fetch", job, n, expect)
                else:
                    self._do("carry", "catch_up", job, n)
            except (LinkDown, LinkRefused) as error:
                why = str(error)
                return lambda: self._not_fetched(job, n, why)
            except Exception as error:
                if self._stopping.is_set() or _of_ray(error):
                    # That our actor went says nothing about what the lane has.
                    why = f"{type(error).__name__}: {error}"
                    return lambda: self._not_fetched(job, n, why)
                wrong = error
            return lambda: then(wrong)

        if not self._once("fetch", job, n, work):
            self._not_fetched(job, n, "it was being fetched")

    def _not_fetched(self, job: int, n: int, why: str) -> None:
        self._inbox(("not-fetched", self.name, ((job, n), why)))

    def tidy(self, open_jobs: list[int]) -> None:
        """Have the lane remove what it kept for next attempts of jobs that have ended since."""

        def work() -> None:
            with contextlib.suppress(Exception):  # the next time will do as well
                self.carry("tidy", open_jobs)

        self._once("fetch", 0, 0, work)

    # The two threads.

    def _settings(self) -> dict[str, Any]:
        from lanes.ssh import settings

        return {"ssh": settings.of(self._home, self.config), "home": self._home, "config": self.config}

    def _concurrency(self) -> int:
        return 64  # begins, fetches and batches wait in it, and a cancel must still get through

    def _greet(self, actor: Any) -> None:
        """The listener says hello, once the link is there."""

    def _do(self, what: str, *args: Any, **named: Any) -> Any:
        """Call the actor; after its death once more through a new one. Our own exceptions come through as they are."""
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        for last in (False, True):
            actor = self._get_actor()
            if self._left.is_set():
                raise LinkDown(f"lane {self.name} is not held this way any more")
            try:
                return ray.get(getattr(actor, what).remote(*args, **named))
            except RayActorError:
                self._drop_actor(actor)
                if last or self._stopping.is_set():
                    raise
            except RayTaskError as error:
                raise getattr(error, "cause", None) or error from None
        raise AssertionError

    def _listen(self) -> None:
        cursor: dict[str, Any] = {}
        greeted = False
        while not self._stopping.is_set():
            try:
                if not greeted:
                    hello = self._do("call", "hello", timeout_s=_ANSWER_S)
                    self._root = str(self._do("call", "where", timeout_s=_ANSWER_S)["root"])
                    self._inbox(("lane-up", self.name, hello))
                    greeted = True
                frame = self._do("listen", cursor, _POLL_S, _ANSWER_S)
                cursor = frame["cursor"]
                self._inbox(("frame", self.name, frame))
            except (LinkDown, LinkRefused) as error:
                greeted = False
                self._say_link(error)
                self._stopping.wait(_PAUSE_S)
            except RemoteError as error:
                self._inbox(("lane-error", self.name, f"the agent stumbled: {error}"))
                self._stopping.wait(_PAUSE_S)
            except Exception as error:
                if self._stopping.is_set():
                    return
                greeted = False
                self._inbox(("lane-error", self.name, f"{type(error).__name__}: {error}"))
                self._stopping.wait(_PAUSE_S)

    def _say_link(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        try:
            link = self.link()
        except Exception:
            link = {"up": False, "age_s": None, "error": str(error), "refused": None, "address": self.config.host or ""}
        if (link.get("refused") or {}).get("cause") == "evicted":
            # By an older connection of our own that was slow to be made: nobody has to do anything about that.
            if self._stopping.wait(_PAUSE_S):
                return
            with contextlib.suppress(Exception):
                self.knock()
        on_purpose = time.monotonic() < self._closed_until
        why = link.get("error") or str(error)
        if on_purpose:
            why = f"silent until {time.strftime('%H:%M', time.localtime(self._silent_until))} for its admission"
        said = {**link, "error": why, "on_purpose": on_purpose, "silent_until": self._silent_until}
        self._inbox(("link", self.name, said))

    def _tell(self) -> None:
        while not self._stopping.is_set():
            item = self._outbox.get()
            if item is None:
                return
            method, args, named = item
            try:
                if method == "start":
                    self._begin(args)
                    continue
                if method == "signal":
                    self._cancel_begin(int(args[0]), int(args[1]))
                answer = self._do("call", method, *self._there(method, args), timeout_s=_ANSWER_S, **named)
                if method == "reap" and answer.get("ok"):
                    self.carry("forget", int(args[0]), int(args[1]))
                self._inbox(("told", self.name, (method, args, named, answer)))
            except Exception as error:
                if self._stopping.is_set():
                    return
                self._inbox(("tell-failed", self.name, (method, args, named, f"{type(error).__name__}: {error}")))

    def _there(self, method: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The same with the lane's paths in place of the head's."""
        if method == "adopt":
            return ([[job, n, f"{self._root}/attempts/{job}/{n}"] for job, n, _path in args[0]],)
        return args

    def _begin(self, args: tuple[Any, ...]) -> None:
        frozen = args[0]
        job, n = int(frozen["job"]), int(frozen["attempt"])

        def work() -> None:
            try:
                order = {"frozen": frozen, "lane_python": self.interpreter}  # read now: it may have been made since
                answer = self._do("begin", order)
                self._inbox(("told", self.name, ("start", args, {}, answer)))
            except Exception as error:
                if not self._stopping.is_set():
                    why = f"{type(error).__name__}: {error}"
                    self._inbox(("tell-failed", self.name, ("start", args, {}, why)))

        self._once("begin", job, n, work)

    def _cancel_begin(self, job: int, n: int) -> None:
        """End the sending of an attempt; one whose turn has not come ends here and now."""
        with self._busy:
            future = self._under_way.get(("begin", job, n))
        if future is not None and future.cancel():
            answer = {"ok": False, "cause": "cancelled", "reason": "it was cancelled before it was sent to the lane"}
            self._inbox(("told", self.name, ("start", ({"job": job, "attempt": n},), {}, answer)))
        else:
            self._do("cancel_begin", job, n)

    def _cancel_begins(self, deadline: float) -> None:
        """End all sending, and wait for that until `deadline` (monotonic)."""
        while begins := self._begins():
            for job, n in begins:
                self._cancel_begin(job, n)
            if time.monotonic() > deadline or self._stopping.wait(0.1):
                return

    def _begins(self) -> list[tuple[int, int]]:
        with self._busy:
            return [(job, n) for what, job, n in self._under_way if what == "begin"]

    def _once(self, what: str, job: int, n: int, work: Callable[[], After | None]) -> bool:
        """Have a worker do `work`, unless the same is under way. False: it will not be done.

        What `work` returns is called when the same may be asked for again: a message about it may lead to just that.
        """
        key = (what, job, n)
        with self._busy:
            if key in self._under_way or self._stopping.is_set():
                return False
            self._under_way[key] = None

        def guarded() -> None:
            after: After | None = None
            try:
                after = work()
            finally:
                with self._busy:
                    self._under_way.pop(key, None)
            if after is not None:
                after()

        def ended(future: Future[None]) -> None:
            if future.cancelled():
                with self._busy:
                    self._under_way.pop(key, None)
                if what == "fetch" and job:
                    self._not_fetched(job, n, "the lane is held anew")

        try:
            future = self._workers[what].submit(guarded)
        except RuntimeError:  # shut down meanwhile
            with self._busy:
                self._under_way.pop(key, None)
            return False
        with self._busy:
            if key in self._under_way:
                self._under_way[key] = future
        future.add_done_callback(ended)
        return True


def _of_ray(error: Exception) -> bool:
    """Did the actor fail, and not what it was asked to do?"""
    from ray.exceptions import RayError, RayTaskError

    return isinstance(error, RayError) and not isinstance(error, RayTaskError)
