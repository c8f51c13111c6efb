"""Rungs of a lane's link that did not hold when it was last asked, and hold: the link is there.

Nobody climbs again because a cable was put back; without this, what was found then would be told for days.
"""

from __future__ import annotations

import sqlite3

from core.cluster import LaneConfig
from core.journal import Event, query
from core.states import EventKind, Rung

__all__ = ["LINK_RUNGS", "held_after_all"]

# A link that is there proves these. Of the Python over there it proves no more than that the agent runs.
LINK_RUNGS = (Rung.REACHABLE, Rung.TRUSTED, Rung.AUTHENTICATED)


def held_after_all(conn: sqlite3.Connection, config: LaneConfig) -> list[Event]:
    """What the journal should say now, of those rungs of the lane of which it says otherwise."""
    said = {
        Rung.REACHABLE: f"{config.host or config.name} answers",
        Rung.TRUSTED: "its host key is the one that we know",
        Rung.AUTHENTICATED: "it lets us in",
    }
    wrong = {row.rung for row in query.rungs(conn, config.name) if not row.ok and not row.role}
    return [
        Event(
            EventKind.RUNG,
            lane=config.name,
            data={"role": "", "rung": str(rung), "ok": True, "message": said[rung], "hint": "", "evidence": {}},
        )
        for rung in LINK_RUNGS
        if rung in wrong
    ]
