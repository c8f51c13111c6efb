"""How a lane stands, from what its book says, and what the journal is told of that. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.cluster import LaneConfig
from core.journal import Event
from core.states import EventKind, LaneState
from lanes import switched
from lanes.ledger import LaneBook

_PASSING = ("disk_free", "pid", "work_s")  # of an agent's hello: no news by themselves
NOT_ADMITTED = "not admitted yet"


def at_rest(book: LaneBook) -> tuple[LaneState, str]:
    """The state of a lane that has not answered yet."""
    if not book.config.remote:
        return LaneState.DECLARED, ""
    if book.roles:
        return LaneState.UNREACHABLE, switched.NOT_YET
    return LaneState.DECLARED, NOT_ADMITTED


def place(config: LaneConfig) -> str:
    """Which machine, and which part of it, the name of a remote lane stands for."""
    user, port = f"{config.user}@" if config.user else "", f":{config.port}" if config.port else ""
    return " ".join([*config.prefix, f"{user}{config.host}{port}", config.root])


def reached(book: LaneBook) -> tuple[LaneState, str]:
    """The state of a lane that answers."""
    if book.config.remote and not book.roles:
        return LaneState.DECLARED, NOT_ADMITTED
    return LaneState.UP, ""


def lane_event(name: str, state: LaneState, reason: str, **more: Any) -> Event:
    return Event(EventKind.LANE, lane=name, data={"state": str(state), "reason": reason, **more})


def wish_event(name: str, wish: str, reason: str) -> Event:
    kind = EventKind.DRAIN_ASKED if wish == "drain" else EventKind.RESUME_ASKED
    return Event(kind, lane=name, data={"reason": reason})


def lasting(hello: Mapping[str, Any]) -> dict[str, Any]:
    """What an agent says of its machine that does not change by the minute."""
    return {name: value for name, value in hello.items() if name not in _PASSING}
