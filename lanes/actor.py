"""The lane as a Ray actor. All lanes are this one; what differs is the transport that it is given."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanes.transport import LocalTransport, Transport

if TYPE_CHECKING:
    from lanes.carrier import Carrier


class LaneActor:
    """Holds the lane's transport, and for a remote lane what carries files. Holds no state of its own: killed and made
    again, it finds all that runs.

    Several of its methods run at once (a long poll must not hold up a cancel); all below is thread-safe.

    Args:
        transport: "local", "ssh" or "joined".
        settings: of a local lane root, home_hash, socket; of a remote one what `lanes.remote.settings` gives.
    """

    def __init__(self, transport: str, settings: dict[str, Any]) -> None:
        self._carrier: Carrier | None = None
        self._cancelled: dict[tuple[int, int], threading.Event] = {}
        self._lock = threading.Lock()
        if transport == "local":
            self._transport: Transport = LocalTransport(
                Path(settings["root"]), home_hash=settings["home_hash"], socket_path=Path(settings["socket"])
            )
            return
        from lanes.carrier import Carrier
        from lanes.ssh.transport import SshTransport

        self._transport = SshTransport(settings["ssh"])
        self._carrier = Carrier(settings["home"], settings["config"], self._transport)

    def pid(self) -> int:
        return os.getpid()

    def call(self, method: str, *args: Any, **named: Any) -> Any:
        return self._transport.call(method, *args, **named)

    # Of remote lanes.

    def listen(self, cursor: dict[str, Any], wait_s: float, limit_s: float) -> dict[str, Any]:
        """The agent's poll; what it says is carried to the head as well."""
        frame: dict[str, Any] = self._transport.call("poll", cursor, wait_s, timeout_s=wait_s + limit_s)
        self._carry.saw(frame)
        frame["sending"] = self._carry.sending()
        frame["link"] = self._transport.link()
        return frame

    def begin(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send what an attempt needs, then start it. Long; `cancel_begin` ends it between two chunks."""
        at = (int(order["frozen"]["job"]), int(order["frozen"]["attempt"]))
        with self._lock:
            cancelled = self._cancelled.setdefault(at, threading.Event())
        try:
            answer: dict[str, Any] = self._carry.begin(order, cancelled=cancelled)
            return answer
        finally:
            with self._lock:
                self._cancelled.pop(at, None)

    def cancel_begin(self, job: int, attempt: int) -> None:
        with self._lock:
            event = self._cancelled.get((job, attempt))
        if event is not None:
            event.set()

    def fetch(self, job: int, attempt: int, expect: dict[str, Any]) -> None:
        """Return when everything sealed of this attempt (of this nonce and key) is on the head and verified."""
        self._carry.fetch(job, attempt, expect)

    def carry(self, method: str, *args: Any, **named: Any) -> Any:
        """A method of the carrier."""
        if method.startswith("_"):
            raise AttributeError(method)
        return getattr(self._carry, method)(*args, **named)

    def link(self) -> dict[str, Any]:
        return self._transport.link()

    def knock(self) -> None:
        self._transport.knock()

    def drop(self, for_s: float) -> None:
        self._transport.drop(for_s)

    def close(self) -> None:
        if self._carrier is not None:
            self._carrier.close()
        self._transport.close()

    @property
    def _carry(self) -> Carrier:
        if self._carrier is None:
            raise RuntimeError("a local lane carries nothing")
        return self._carrier
