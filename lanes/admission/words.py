"""What the ladder of admission is made of: results of rungs, which role needs which, and what a handler may touch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from core import rungs
from core.cluster import ROLES, LaneConfig
from core.home import Home
from core.states import Rung

__all__ = ["GROUND", "Access", "Place", "RungResult", "Tools", "attainable", "needed", "refusal", "title"]

# A rung of one role only (`train`: the first epoch), or of all of them ("").
Place = tuple[Rung, str]

# What can be climbed without running a job.
LINK = (Rung.REACHABLE, Rung.TRUSTED, Rung.AUTHENTICATED, Rung.PYTHON)
GROUND = (*LINK, Rung.ENVIRONMENT, Rung.DEVICE, Rung.DISK)

_SHARED: tuple[Place, ...] = tuple((rung, "") for rung in Rung)
_OWN: dict[str, tuple[Place, ...]] = {
    "eval": (),
    "train": ((Rung.SMOKE, "train"),),
    "sweep": ((Rung.SMOKE, "sweep"),),
    "promote": ((Rung.SMOKE, "train"), (Rung.SMOKE, "sweep")),
}


@dataclass(frozen=True)
class RungResult:
    """What came of one rung.

    Attributes:
        message: one sentence: what was found.
        hint: what to do about it, where it did not hold.
        evidence: what the sentence rests on, JSON-like.
    """

    ok: bool
    message: str
    hint: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


class Access(Protocol):
    """A lane, as a handler of the controller reaches it. See `lanes.asks`."""

    @property
    def name(self) -> str: ...
    @property
    def config(self) -> LaneConfig: ...
    @property
    def home(self) -> Home: ...
    @property
    def interpreter(self) -> str | None:
        """The Python in which kinds run there (of a provisioned environment); None: that of the agent."""
        ...

    def call(self, method: str, *args: Any, timeout_s: float = 60, **named: Any) -> Any:
        """A method of the far end. Raises LinkDown, LinkRefused, RemoteError."""
        ...

    def link(self) -> dict[str, Any]: ...
    def knock(self) -> None: ...
    def close_for(self, seconds: float) -> None:
        """Close every connection now and open none for so long; returns after it."""
        ...

    def carrier(self, method: str, *args: Any, **named: Any) -> Any:
        """A method of what carries files to this lane."""
        ...

    def say(self, what: str, body: Any) -> None:
        """Put a message about this lane into the controller's inbox."""
        ...


@dataclass(frozen=True)
class Tools:
    """The clock, so that tests need not wait.

    Attributes:
        poll_s: between two looks at something that takes its time.
        reach_s: for so long a connection may be in the making.
        job_s: for so long a job of the ladder may wait for its turn and run.
        back_s: for so long the lane may take to answer again after its connections were closed.
    """

    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    poll_s: float = 0.2
    reach_s: float = 45.0
    look_s: float = 240.0
    job_s: float = 4 * 3600.0
    back_s: float = 120.0


def needed(roles: Sequence[str]) -> tuple[Place, ...]:
    """The rungs that these roles need, lowest first.

    Raises:
        ValueError: there is no such role.
    """
    unknown = [r for r in roles if r not in ROLES]
    if unknown:
        raise ValueError(f"there is no role {unknown[0]!r}, only {', '.join(ROLES)}")
    places = {place for role in roles for place in (*_SHARED, *_OWN[role])}
    order = list(Rung)
    return tuple(sorted(places, key=lambda p: (order.index(p[0]), p[1] != "", p[1] == "sweep")))


def attainable(roles: Sequence[str], failed: Sequence[Place]) -> list[str]:
    """Those of `roles` for which no rung has failed yet."""
    return [role for role in roles if not set(needed([role])) & set(failed)]


def refusal(role: str, results: Mapping[Place, RungResult]) -> str:
    """Why a lane is not admitted for `role`; empty: every rung that it needs held."""
    for place in needed([role]):
        result = results.get(place)
        if result is None:
            return f"{title(place)} was not climbed"
        if not result.ok:
            return f"{title(place)}: {result.message}"
    return ""


def title(place: Place) -> str:
    """How people call a rung."""
    return rungs.title(*place)
