"""The controller's hold on one lane: a Ray actor, one thread that listens, one that tells.

The listener long-polls the agent; the teller sends start, signal and reap in order. Both put what they learn into
the controller's inbox and never touch its state. When the actor dies both make one and the same new actor.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from core.cluster import LaneConfig
from core.home import Home
from lanes.later import Message
from lanes.transport import LinkDown

_POLL_S = 2.0
_CALL_TIMEOUT_S = 60.0


class LaneHandle:
    """A lane that can be placed on (its state lives in the controller)."""

    def __init__(self, home: Home, config: LaneConfig, inbox: Callable[[Message], None]) -> None:
        self.name = config.name
        self.config = config
        self._home = home
        self._inbox = inbox
        self._outbox: queue.SimpleQueue[tuple[str, tuple[Any, ...], dict[str, Any]] | None] = queue.SimpleQueue()
        self._actor: Any = None
        self.why_left = ""  # once it is held no more: why, for those who are at work with it
        self.after: threading.Thread | None = None  # closes an earlier connection to the lane, before we make ours
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._listen, name=f"listen-{self.name}", daemon=True),
            threading.Thread(target=self._tell, name=f"tell-{self.name}", daemon=True),
        ]

    @property
    def socket(self) -> str:
        return str(self._home.runtime / f"agent-{self.name}.sock")

    @property
    def remote(self) -> bool:
        """Are its files elsewhere, so that they must be sent and fetched?"""
        return False

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both threads. May be called again, and from any thread."""
        self._stopping.set()
        self._outbox.put(None)

    def tell(self, method: str, *args: Any, **named: Any) -> None:
        """Have the agent do something, in order, without waiting for it."""
        self._outbox.put((method, args, named))

    def refuse_start(self, job: int, attempt: int, cause: str, reason: str) -> None:
        """The attempt cannot start, and the head knows it already: as if the lane had said so."""
        frozen = {"job": job, "attempt": attempt}
        answer = {"ok": False, "cause": str(cause), "reason": reason}
        self._inbox(("told", self.name, ("start", (frozen,), {}, answer)))

    def actor_pid(self) -> int:
        import ray

        return int(ray.get(self._get_actor().pid.remote(), timeout=_CALL_TIMEOUT_S))

    def _get_actor(self) -> Any:
        """The actor; a new one after the old one died, with a `lane-up` message that carries the agent's hello."""
        import ray

        from lanes.actor import LaneActor
        from lanes.ray_session import actor_options

        if self.after is not None:
            self.after.join()
        with self._lock:
            if self._actor is None:
                if self._stopping.is_set():
                    # Whoever still holds us must not make one beside that of the handle which came after us.
                    raise LinkDown(f"lane {self.name} is not held this way any more")
                # The name is not reused: a dead actor's name stays taken for a while.
                options = actor_options(f"lane:{self.name}:{time.monotonic_ns()}", self._concurrency())
                actor = ray.remote(LaneActor).options(**options).remote(self.config.transport, self._settings())
                self._greet(actor)
                self._actor = actor
            return self._actor

    def _concurrency(self) -> int:
        return 8

    def _settings(self) -> dict[str, Any]:
        """What the actor needs to reach its agent."""
        root = self._home.lane_root(self.name)
        return {"root": str(root), "home_hash": self._home.hash, "socket": self.socket}

    def _greet(self, actor: Any) -> None:
        """A new actor was made."""
        import ray

        self._inbox(("lane-up", self.name, ray.get(actor.call.remote("hello"), timeout=_CALL_TIMEOUT_S)))

    def _drop_actor(self, actor: Any) -> None:
        with self._lock:
            if self._actor is actor:
                self._actor = None

    def _call(self, method: str, args: tuple[Any, ...], named: dict[str, Any] | None = None) -> Any:
        """Call the agent; after the actor's death once more through a new one (every agent method may be repeated)."""
        import ray
        from ray.exceptions import RayActorError

        actor = self._get_actor()
        try:
            return ray.get(actor.call.remote(method, *args, **(named or {})), timeout=_CALL_TIMEOUT_S)
        except RayActorError:
            if self._stopping.is_set():
                raise
            self._drop_actor(actor)
            return ray.get(self._get_actor().call.remote(method, *args, **(named or {})), timeout=_CALL_TIMEOUT_S)

    def _listen(self) -> None:
        cursor: dict[str, Any] = {}
        while not self._stopping.is_set():
            try:
                frame = self._call("poll", (cursor, _POLL_S))
                cursor = frame["cursor"]
                self._inbox(("frame", self.name, frame))
            except Exception as error:
                if self._stopping.is_set():
                    return
                self._inbox(("lane-error", self.name, f"{type(error).__name__}: {error}"))
                self._stopping.wait(0.5)

    def _tell(self) -> None:
        while not self._stopping.is_set():
            item = self._outbox.get()
            if item is None:
                return
            method, args, named = item
            try:
                self._inbox(("told", self.name, (method, args, named, self._call(method, args, named))))
            except Exception as error:
                if self._stopping.is_set():
                    return
                self._inbox(("tell-failed", self.name, (method, args, named, f"{type(error).__name__}: {error}")))
                with contextlib.suppress(Exception):
                    self._stopping.wait(0.5)
