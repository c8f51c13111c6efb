"""The lane as a Ray actor. All lanes are this one; what differs is the transport that it is given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lanes.transport import LocalTransport, Transport


class LaneActor:
    """Holds the lane's transport. Holds no state of its own: killed and made again, it finds all that runs.

    Several of its methods run at once (a long poll must not hold up a cancel); the agent below is thread-safe.
    """

    def __init__(self, transport: str, settings: dict[str, Any]) -> None:
        if transport != "local":
            raise ValueError(f"transport {transport!r} has no actor side")
        self._transport: Transport = LocalTransport(
            Path(settings["root"]), home_hash=settings["home_hash"], socket_path=Path(settings["socket"])
        )

    def pid(self) -> int:
        return os.getpid()

    def call(self, method: str, *args: Any, **named: Any) -> Any:
        return self._transport.call(method, *args, **named)
