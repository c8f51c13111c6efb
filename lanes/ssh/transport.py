"""A lane over ssh: a connection that is made when somebody calls, kept, and made anew when it goes."""

from __future__ import annotations

import random
import threading
import time
from typing import Any, Literal

from lanes.ssh import bootstrap
from lanes.ssh.channel import Line, again
from lanes.ssh.connect import Connection, connect
from lanes.ssh.settings import SshSettings
from lanes.transport import LinkDown, LinkRefused

# idle: nobody wants it. making: a try is under way or about to be, and none has failed since it was last up.
# failing: tries go on at their pace. up. closed: for good.
_State = Literal["idle", "making", "failing", "up", "closed"]


class SshTransport:
    """See lanes.transport.Transport. One thread makes connections; calls wait only for one that is being made."""

    def __init__(self, settings: SshSettings) -> None:
        self._settings = settings
        self._changed = threading.Condition()
        self._state: _State = "idle"
        self._line: Line | None = None
        self._made: Connection | None = None  # also while it is being made
        self._error: LinkDown | LinkRefused = LinkDown("not connected yet")
        self._heard: float | None = None
        self._tries = 0
        self._since = 0.0
        self._next = 0.0
        self._held_until = 0.0
        self._peer: dict[str, Any] = {}
        self._address = settings.host
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"SshTransport({self._settings.lane!r}, {self._address}, {self._state})"

    @property
    def peer(self) -> dict[str, Any]:
        """What the far end said of itself when it was last connected: {"epoch", "pid", "root", "python",
        "executable", "boot_id", "noise": bytes that the login printed, "sent": bytes of code that were sent,
        "fingerprint": of its host key}."""
        return dict(self._peer)

    def call(self, method: str, *args: Any, timeout_s: float | None = None, bulk: bool = False, **named: Any) -> Any:
        begun = time.monotonic()
        line = self._wait_line(timeout_s)
        left = None if timeout_s is None else max(0.0, timeout_s - (time.monotonic() - begun))
        return line.call(method, args, named, timeout_s=left, bulk=bulk)

    def link(self) -> dict[str, Any]:
        with self._changed:
            up = self._state == "up"
            heard = self._line.heard if self._line is not None else self._heard
            refused = self._error if isinstance(self._error, LinkRefused) and not up else None
            return {
                "up": up,
                "age_s": None if heard is None else max(0.0, time.monotonic() - heard),
                "error": "" if up else str(self._error),
                "refused": None if refused is None else refused.as_dict(),
                "address": self._address,
                "tries": 0 if up else self._tries,
                "fingerprint": self._peer.get("fingerprint"),
            }

    def knock(self) -> None:
        with self._changed:
            if self._state in ("idle", "failing"):
                self._held_until = 0.0
                self._want("making")

    def drop(self, for_s: float = 0.0) -> None:
        with self._changed:
            if self._state != "closed":
                self._held_until = time.monotonic() + for_s
                self._error = LinkDown(f"the connection to {self._address} was closed on purpose")
                self._end("idle")

    def close(self) -> None:
        with self._changed:
            self._error = LinkDown(f"the transport to {self._address} is closed")
            self._end("closed")

    # The caller's side.

    def _wait_line(self, timeout_s: float | None) -> Line:
        """The line; waits for one that is being made, and not for one whose making fails."""
        patience = self._settings.patience_s if timeout_s is None else min(timeout_s, self._settings.patience_s)
        until = time.monotonic() + patience
        with self._changed:
            while True:
                if self._state == "up" and self._line is not None:
                    return self._line
                if self._state == "idle":
                    if time.monotonic() < self._held_until:
                        raise again(self._error)
                    self._want("making")
                if self._state in ("failing", "closed"):
                    raise again(self._error)
                left = until - time.monotonic()
                if left <= 0:
                    raise LinkDown(f"{self._address} is still being connected to after {patience:g} s")
                self._changed.wait(left)

    def _want(self, state: _State) -> None:
        """(Lock held.) Have the thread make a connection."""
        self._state, self._next = state, 0.0
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"ssh-{self._settings.lane}", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _end(self, state: _State) -> None:
        """(Lock held.) Close what there is. The line's threads are told on their own time."""
        line, made, self._line, self._made = self._line, self._made, None, None
        if line is not None:
            self._heard = line.heard
        self._state = state
        why = self._error
        self._changed.notify_all()

        def close() -> None:
            if line is not None:
                line.close(why)
            elif made is not None:
                made.close()

        if line is not None or made is not None:
            # Not under the lock: closing tells callers, who come back to us.
            closing = threading.Thread(target=close, name="ssh-close", daemon=True)
            closing.start()

    # The thread that makes connections.

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._state in ("idle", "up") or (self._state == "failing" and self._next > time.monotonic()):
                    pause = self._next - time.monotonic() if self._state == "failing" else None
                    self._changed.wait(pause)
                if self._state == "closed":
                    return
                wait = self._next - time.monotonic() if self._state == "making" else 0.0
                if wait > 0:
                    self._changed.wait(wait)
                    continue
            self._try()

    def _try(self) -> None:
        own: list[Connection] = []

        def began(made: Connection) -> None:
            own.append(made)
            with self._changed:
                self._made = made
                self._address = made.hops[-1].address

        deadline = time.monotonic() + self._settings.connect_s
        try:
            with self._changed:
                self._tries += 1
            line, peer = self._connect(deadline, began)
        except (LinkDown, LinkRefused) as error:
            self._failed(error, own)
        except Exception as error:
            # A fault of ours, or of a library: said, and tried again, but it must not end this thread.
            self._failed(LinkDown(f"connecting failed ({type(error).__name__}: {error})"), own)
        else:
            with self._changed:
                if self._state in ("making", "failing") and self._made is own[0]:
                    self._state, self._line, self._peer = "up", line, peer
                    self._since = self._heard = time.monotonic()
                    line.start()
                    self._changed.notify_all()
                    return
            own[0].close()  # dropped or closed meanwhile

    def _connect(self, deadline: float, began: Any) -> tuple[Line, dict[str, Any]]:
        settings = self._settings
        made = connect(settings, deadline, began)
        try:
            left = deadline - time.monotonic()
            watch = threading.Timer(max(0.1, left + 1.0), made.close)
            watch.daemon = True
            watch.start()
            try:
                channel = made.transport.open_session(timeout=max(0.5, left))
                parser, peer = bootstrap.start(channel, settings, deadline)
            finally:
                watch.cancel()
            peer["fingerprint"] = made.transport.get_remote_server_key().fingerprint
        except (LinkDown, LinkRefused):
            made.close()
            raise
        except Exception as error:
            made.close()
            raise LinkDown(f"{self._address} let us in and then gave no session ({_why(error)})") from error
        return (
            Line(
                channel,
                parser,
                address=self._address,
                keepalive_s=settings.keepalive_s,
                silence_s=settings.silence_s,
                close=made.close,
                lost=self._lost,
            ),
            peer,
        )

    def _failed(self, error: LinkDown | LinkRefused, own: list[Connection]) -> None:
        pace = self._settings.pace
        with self._changed:
            if own and self._made is not own[0]:
                return  # it was dropped or closed, and failed for that
            self._made = None
            if self._state in ("idle", "closed"):
                return
            self._state, self._error = "failing", error
            if isinstance(error, LinkRefused):
                pause = pace.refused_s
            else:
                pause = min(pace.most_s, pace.base_s * 2 ** min(self._tries - 1, 30))
            self._next = time.monotonic() + pause * random.uniform(0.5, 1.0)
            self._changed.notify_all()

    def _lost(self, line: Line, error: LinkDown | LinkRefused) -> None:
        """The line ended by itself."""
        pace = self._settings.pace
        with self._changed:
            if self._line is not line:
                return
            now = time.monotonic()
            self._line, self._made, self._heard, self._error = None, None, line.heard, error
            settled = now - self._since >= pace.settled_s
            if settled:
                self._tries = 0
            if isinstance(error, LinkRefused):
                self._state, self._next = "failing", now + pace.refused_s * random.uniform(0.5, 1.0)
            else:
                # A connection that goes as soon as it has come is one more try that failed.
                quick = settled or self._tries < 2
                pause = pace.first_s if quick else min(pace.most_s, pace.base_s * 2 ** min(self._tries - 2, 30))
                self._state = "making" if quick else "failing"
                self._next = now + pause * random.uniform(0.5, 1.0)
            self._changed.notify_all()


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
