"""What could not be done now: kept by what it is about, newest only, so that a full disk cannot make it grow."""

from __future__ import annotations

import time
from typing import Any

Message = tuple[str, str, Any]

RETRY_S = 5.0  # what could not be done for want of disk, lock or lane is tried again after this


class Later:
    """Messages to come back to."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, object], tuple[float, Message]] = {}

    def __bool__(self) -> bool:
        return bool(self._kept)

    def put(self, message: Message, delay: float = RETRY_S) -> None:
        """Come back to `message` after `delay` seconds. Frames are not kept: the next one says the same and more."""
        what, lane, body = message
        if what != "frame":
            self._kept[(what, lane, _about(what, body))] = (time.monotonic() + delay, message)

    def due(self) -> list[Message]:
        """Take what should be tried again now."""
        now = time.monotonic()
        return [self._kept.pop(key)[1] for key in [k for k, (when, _) in self._kept.items() if when <= now]]


def _about(what: str, body: Any) -> object:
    """What a message is about: of two about the same the newer one counts."""
    if what == "harvested":
        return body[0]
    if what in ("tell", "told"):
        method, args = body[0], body[1]
        return method, (args[0]["job"], args[0]["attempt"]) if method == "start" else args[:2]
    if isinstance(body, dict):
        return body.get("role"), body.get("rung"), body.get("ask")
    try:
        hash(body)
    except TypeError:
        return repr(body)
    return body
