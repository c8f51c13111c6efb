"""Placement: which queued job goes to which lane now. A pure function: no clock, no journal, no Ray.

Lanes are unequal. A job goes where it is expected to finish first:

    start = when enough is free there (what runs, and what was promised to jobs before it, has ended) + start-up
    finish = start + its work * the lane's slowness for that kind of work

If that lane is busy and the finish there is still the earlier one, the job waits for it, and a slow lane stays idle.
Cells of one sweep may go in any order, and the sweep is as slow as its last cell: the longest first, each to its
earliest finish; and a slow lane takes a cell that it ends before all lanes together could have done the rest.

Nobody waits for a guess: a job of whose kind nothing has ended anywhere goes to the fastest lane that is free. Where
nothing is known of the lanes, or only one is open, the order alone decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from core.spec import Needs
from lanes.timed import Round, emptier
from lanes.views import (
    Capacity,
    LaneView,
    Pace,
    Placed,
    Running,
    Wanted,
    able,
    can_ever,
    fits,
    shortage,
    subtract,
    times,
)

__all__ = [
    "Capacity",
    "LaneView",
    "Pace",
    "Placed",
    "Running",
    "Wanted",
    "can_ever",
    "fits",
    "place",
    "portion",
    "room",
    "shortage",
    "subtract",
]


def place(
    wanted: Sequence[Wanted],
    lanes: Iterable[LaneView],
    paces: Mapping[str, Pace] | None = None,
    *,
    now: float = 0.0,
) -> list[Placed]:
    """Place as many of `wanted` (in order: priority, then age) as fit and should not wait for a better lane.

    A job that could run on a lane but does not fit now reserves its share there, so that smaller jobs behind it
    cannot keep it waiting for ever; they may use what would be left beside it.

    Args:
        paces: by kind of work, how the lanes do it. None or empty: they are alike.
        now: on the clock of what runs there.
    """
    views = {lane.name: lane for lane in lanes}
    if paces and len(views) > 1 and sum(v.open for v in views.values()) > 1:
        return Round(views, paces, now).place(wanted)
    out: list[Placed] = []
    for want in wanted:
        could = [v for v in views.values() if able(want.needs, v, want.pooled, want.bars)]
        fitting = [v for v in could if fits(want.needs, v.free)]
        if fitting:
            best = max(fitting, key=emptier)
            gpus = best.free.gpus[: want.needs.gpus]
            out.append(Placed(want.job, best.name, gpus))
            views[best.name] = replace(best, free=subtract(best.free, want.needs, gpus))
        elif could:
            # Waiting only for an exclusive name holds up nobody else.
            short = [v for v in could if set(want.needs.resources) <= v.free.resources]
            if short:
                best = max(short, key=lambda v: (v.free.cores, len(v.free.gpus), v.name))
                views[best.name] = replace(
                    best, free=subtract(best.free, want.needs, best.free.gpus[: want.needs.gpus])
                )
    return out


def room(needs: Needs, lanes: Iterable[LaneView], *, pooled: bool = False, bars: frozenset[str] = frozenset()) -> int:
    """How many with these needs would fit now, if nothing else were placed."""
    return sum(times(needs, v.free) for v in lanes if able(needs, v, pooled, bars))


def portion(waiting: int, slow: float, slots: Iterable[float]) -> int:
    """How many of the cells that wait one slot should get, so that all slots end their share together.

    Args:
        slow: slowness of this slot; `slots`: of all of them, this one included.
    """
    power = sum(1 / s for s in slots if s > 0)
    if power <= 0 or slow <= 0:
        return waiting
    return min(waiting, max(1, -int(-waiting / slow // power)))
