"""Lanes that are let go of: what they still say is not heard, and their connection is closed away from the controller.

Closing may take seconds, for the lane may not answer. Whoever holds the lane next makes no connection of its own
before that is done: the older one would come in its way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lanes.handle import LaneHandle
from lanes.later import Message
from lanes.mirror import say
from lanes.remote import RemoteHandle

# Also of a lane that was left: a fetch that did not come to its end is to be asked for again.
_LAST_WORDS = frozenset({"not-fetched"})
_FINISH_S = 8.0  # longer than a lane takes that does not answer


class Line:
    """The way of one handle into the controller's inbox, until it is cut."""

    def __init__(self, inbox: Callable[[Message], None]) -> None:
        self._inbox = inbox
        self._lock = threading.Lock()
        self._is_cut = False

    def __call__(self, message: Message) -> None:
        with self._lock:
            if not self._is_cut or message[0] in _LAST_WORDS:
                self._inbox(message)

    def cut(self) -> None:
        """Nothing comes in any more once this has returned."""
        with self._lock:
            self._is_cut = True


class Leaving:
    """Lines of the lanes that are held, and lanes that are being left. Owned by the controller's one thread."""

    def __init__(self, inbox: Callable[[Message], None]) -> None:
        self._inbox = inbox
        self._lines: dict[str, Line] = {}
        self._closing: dict[str, threading.Thread] = {}

    def line(self, lane: str) -> Line:
        """The inbox of a new handle."""
        line = self._lines[lane] = Line(self._inbox)
        return line

    def follow(self, handle: LaneHandle) -> None:
        """Have a new handle wait for what is being closed of its lane."""
        before = self._closing.get(handle.name)
        if before is not None and before.is_alive():
            handle.after = before

    def leave(self, handle: LaneHandle) -> None:
        """Say nothing more to the lane, and hear nothing more of it. Never waits."""
        line = self._lines.pop(handle.name, None)
        if line is not None:
            line.cut()
        if not isinstance(handle, RemoteHandle):
            handle.stop()
            return
        handle.leave()
        before = self._closing.get(handle.name)

        def close() -> None:
            if before is not None:
                before.join()
            try:
                handle.close()
            except Exception as error:
                say(f"lane {handle.name} could not be closed: {type(error).__name__}: {error}")

        closing = threading.Thread(target=close, name=f"close-{handle.name}", daemon=True)
        self._closing[handle.name] = closing
        closing.start()

    def finish(self) -> None:
        """Give what is being closed a moment: the controller goes down."""
        deadline = time.monotonic() + _FINISH_S
        for closing in self._closing.values():
            closing.join(timeout=max(0.0, deadline - time.monotonic()))
