"""One running connection to a far end: calls go out, answers come back, silence ends it.

Three threads: one sends (commands before bulk), one listens, and whoever calls waits for his own answer.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

from lanes.agent import frames
from lanes.transport import CallTimeout, LinkDown, LinkRefused, RemoteError, Unreachable

_READ = 256 << 10


class _Call:
    """One call that waits for its answer."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.done = threading.Event()
        self.answer: dict[str, Any] | None = None
        self.withdraw: Callable[[], None] | None = None


class Line:
    """The channel to one far end, until it is lost or closed; never repaired, a new one is made instead.

    Args:
        channel: of paramiko, with the far end running at the other side.
        parser: holds what was read beyond the far end's first message.
        address: for messages.
        close: closes the connection below.
        lost: called once, from a thread of this object, when the line has ended by itself.
    """

    def __init__(
        self,
        channel: Any,
        parser: frames.Parser,
        *,
        address: str,
        keepalive_s: float,
        silence_s: float,
        close: Callable[[], None],
        lost: Callable[[Line, LinkDown | LinkRefused], None],
    ) -> None:
        self._channel = channel
        self._parser = parser
        self._address = address
        self._keepalive_s = keepalive_s
        self._silence_s = silence_s
        self._close = close
        self._lost = lost
        self._outbox = frames.Outbox()
        self._ids = itertools.count(1)
        self._guard = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._end: LinkDown | LinkRefused | None = None
        self.heard = time.monotonic()
        self.sent_bytes = 0

    def start(self) -> None:
        # Short: whoever closes the connection under us is noticed after this at the latest.
        self._channel.settimeout(min(0.5, self._silence_s / 4))
        for work in (self._listen, self._send):
            threading.Thread(target=work, name=f"ssh{work.__name__}", daemon=True).start()

    def call(
        self, method: str, args: tuple[Any, ...], named: dict[str, Any], *, timeout_s: float | None, bulk: bool
    ) -> Any:
        """As Transport.call."""
        call, number = _Call(method), next(self._ids)
        message: dict[str, Any] = {"id": number, "call": method, "args": list(args), "named": named}
        if bulk:
            message["bulk"] = True
        with self._guard:
            if self._end is not None:
                raise again(self._end)
            self._calls[number] = call
        try:
            call.withdraw = self._outbox.put(message, bulk=bulk)
            if not call.done.wait(timeout_s):
                raise CallTimeout(f"{self._address} did not answer {method} within {timeout_s:g} s")
        finally:
            with self._guard:
                self._calls.pop(number, None)
            if call.answer is None and call.withdraw is not None:
                call.withdraw()
        answer = call.answer
        if answer is None:
            raise self._under_way(method)
        if "error" in answer:
            error = answer["error"]
            raise RemoteError(str(error.get("type")), str(error.get("message")))
        return answer.get("ok")

    def close(self, why: LinkDown | LinkRefused) -> None:
        """End it now. Calls under way raise; nobody is told `lost`."""
        self._finish(why, tell=False)

    def _under_way(self, method: str) -> LinkDown | LinkRefused:
        if isinstance(self._end, LinkRefused):
            return again(self._end)
        return LinkDown(f"{self._end or 'the link was lost'}; {method} was under way")

    def _finish(self, why: LinkDown | LinkRefused, *, tell: bool = True) -> None:
        with self._guard:
            if self._end is not None:
                return
            self._end = why
            calls = list(self._calls.values())
        self._outbox.close()
        if tell:
            # Before any caller hears of it: what the transport says of its link must not be older than that.
            self._lost(self, why)
        for call in calls:
            call.done.set()
        self._close()

    def _send(self) -> None:
        try:
            while self._end is None:
                data = self._outbox.get(self._keepalive_s)
                if data is None:
                    self._outbox.beat()
                    continue
                view = memoryview(data)
                while view and self._end is None:
                    try:
                        sent = self._channel.send(view)
                    except TimeoutError:
                        continue  # the window is closed: whether that is for good, the listener finds out
                    if not sent:
                        raise EOFError
                    self.sent_bytes += sent
                    view = view[sent:]
        except Exception as error:
            self._finish(LinkDown(f"the link to {self._address} was lost while sending ({_why(error)})"))

    def _listen(self) -> None:
        try:
            while self._end is None:
                try:
                    data = self._channel.recv(_READ)
                except TimeoutError:
                    if time.monotonic() - self.heard > self._silence_s:
                        raise LinkDown(f"nothing was heard of {self._address} for {self._silence_s:g} s") from None
                    continue
                while self._channel.recv_stderr_ready() and self._channel.recv_stderr(_READ):
                    pass  # nobody of ours writes there; left unread it would close the window
                if not data:
                    raise LinkDown(f"{self._address} closed the connection")
                self.heard = time.monotonic()
                for message in self._parser.feed(data):
                    self._take(message)
        except (LinkDown, LinkRefused) as error:
            self._finish(error)
        except frames.Broken as error:
            self._finish(LinkDown(f"what came from {self._address} was damaged ({error})"))
        except Exception as error:
            self._finish(LinkDown(f"the link to {self._address} was lost ({_why(error)})"))

    def _take(self, message: dict[str, Any]) -> None:
        if "gone" in message:
            said = str(message.get("message"))
            if message["gone"] == "evicted":
                hint = "if two heads share this lane by mistake, give one of them another `root`"
                raise LinkRefused("owned", "evicted", f"{self._address} serves somebody else: {said}", hint)
            raise LinkDown(f"the far end on {self._address} left: {said}")
        if "id" in message:
            with self._guard:
                call = self._calls.get(message["id"])
            if call is not None:  # else it came too late, and nobody waits
                call.answer = message
                call.done.set()


def again(error: LinkDown | LinkRefused) -> LinkDown | LinkRefused:
    """The same for one more caller: an exception that is raised in two threads mixes their traces."""
    if isinstance(error, LinkRefused):
        return LinkRefused(error.rung, error.cause, error.message, error.hint)
    return Unreachable(error.message) if isinstance(error, Unreachable) else LinkDown(error.message)


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
