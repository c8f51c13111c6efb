"""Requests about one lane: drain, resume."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from core import cluster
from core.journal import Journal, Role, query
from core.journal.query import Lane
from core.states import EventKind, LaneState
from lab.output import Page, Report
from lab.session import Session

# What was asked first is done first: a lane that is given up after it was resumed would be a surprise.
_LEAVING = "is about to be given up, as `lab lane down` asked; then `lab lane admit {}` is the way back"


@dataclass(frozen=True)
class LaneAskedReport(Report):
    """What was asked of a lane. `why_not` is empty where it was recorded."""

    lane: str
    verb: str
    reason: str
    why_not: str
    controller: bool

    schema = "lab.lane-asked/1"

    def json(self) -> dict[str, Any]:
        return {
            "lane": self.lane,
            "asked": self.verb,
            "reason": self.reason,
            "why_not": self.why_not or None,
            "controller": "running" if self.controller else "not running",
        }

    def text(self, page: Page) -> Iterable[str]:
        if self.why_not:
            yield f"{self.lane}  {self.why_not}"
            return
        yield f"{self.lane}  {self.verb} asked" + (f": {self.reason}" if self.reason else "")
        if self.verb == "drain":
            yield page.paint(
                "What runs there goes on; nothing more is placed on it. Undo: " + f"lab lane resume {self.lane}", "dim"
            )
        if not self.controller:
            yield page.paint(
                "Recorded. The controller is not running: it will be done once `lab up` has started it.", "warn"
            )

    def brief(self) -> Iterable[str]:
        return () if self.why_not else (self.lane,)


def ask(here: Session, kind: EventKind, verb: str, name: str, reason: str) -> None:
    """Record the request unless it is fulfilled already. Raises NotFound for a lane that does not exist."""
    from lanes.start import controller_alive, wake

    declared = cluster.load(here.home.cluster_file)
    with Journal.open(here.home, Role.CLIENT, create=True) as journal, journal.transaction() as tx:
        known = {lane.name: lane for lane in query.lanes(tx.conn)}
        if name not in known:
            declared.lane(name)
        leaving = any(a.lane == name and a.what == "down" for a in query.open_asks(tx.conn))
        why_not = _why_not(known.get(name), verb) if not leaving else _LEAVING.format(name)
        if not why_not:
            tx.append(kind, lane=name, data={"reason": reason})
    wake(here.home)
    here.out.show(LaneAskedReport(name, verb, reason, why_not, controller_alive(here.home)))


def _why_not(lane: Lane | None, verb: str) -> str:
    drained = lane is not None and (lane.wish == "drain" or (lane.state == "draining" and lane.wish != "resume"))
    if verb == "drain" and drained and lane is not None:
        return f"is drained already ({lane.reason or 'no reason was given'})"
    if verb == "resume" and lane is not None and lane.state in (LaneState.DOWN, LaneState.QUARANTINED):
        return f"is {lane.state}; `lab lane admit {lane.name}` brings it back"
    if verb == "resume" and not drained:
        return "is not drained"
    return ""
