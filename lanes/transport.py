"""What a lane reaches its agent through. All transports speak the agent's own methods: call(name, *arguments)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol


class Transport(Protocol):
    def call(self, method: str, *args: Any, **named: Any) -> Any:
        """Call `method` of the lane's agent and return its (JSON-like) answer."""
        ...


class LocalTransport:
    """This machine: the agent lives inside the lane actor."""

    def __init__(self, root: Path, *, home_hash: str, socket_path: Path) -> None:
        from lanes.agent.agent import Agent

        self._agent = Agent(root, home_hash=home_hash, socket_path=socket_path)

    def call(self, method: str, *args: Any, **named: Any) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)
        return getattr(self._agent, method)(*args, **named)
