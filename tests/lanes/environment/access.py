"""A lane without a link: the parts of the far end called directly, behind the face of `lanes.asks.LaneAccess`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.cluster import LaneConfig
from core.home import Home
from lanes.agent.envs import Environments
from lanes.agent.store import Store
from lanes.carrier import Carrier
from lanes.transport import LocalTransport


class _Direct(LocalTransport):
    def __init__(self, access: HereAccess) -> None:
        self._access = access

    def call(self, method: str, *args: Any, timeout_s: float | None = None, bulk: bool = False, **named: Any) -> Any:
        return self._access.call(method, *args, **named)


class HereAccess:
    """`Access` of lanes.environment.making; everything that it was asked and told is kept."""

    def __init__(self, home: Home, base: Path, config: LaneConfig) -> None:
        self.name = config.name
        self.home = home
        self.config = config
        self.parts = (Environments(base), Store(base))
        self.calls: list[str] = []
        self._carrier = Carrier(home, config, _Direct(self))
        self.said: list[tuple[str, Any]] = []

    def call(self, method: str, *args: Any, timeout_s: float = 60.0, **named: Any) -> Any:
        self.calls.append(method)
        for part in self.parts:
            if hasattr(part, method):
                return getattr(part, method)(*args, **named)
        raise AttributeError(method)

    def carrier(self, method: str, *args: Any, **named: Any) -> Any:
        self.calls.append(method)
        return getattr(self._carrier, method)(*args, **named)

    def say(self, what: str, body: Any) -> None:
        self.said.append((what, body))

    def told(self, what: str) -> list[Any]:
        return [body for w, body in self.said if w == what]
