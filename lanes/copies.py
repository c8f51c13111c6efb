"""Second copies: near the end of a sweep, when nothing waits any more, a cell that still runs on a slow lane may be
started once more on a free lane that would end it much sooner. The first end counts, the other is revoked. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from core.spec import Needs
from lanes.views import LaneView, Pace, Placed, able, fits, subtract

GAIN = 0.6  # a copy must be done in this part of the time that the first one should still take


class Alone(NamedTuple):
    """A cell that runs once.

    Attributes:
        left_s: seconds that it should still take where it runs.
        long_s: seconds of work of the whole cell.
    """

    job: int
    needs: Needs
    family: str
    lane: str
    left_s: float
    long_s: float


def second_copies(
    running: Sequence[Alone], lanes: Sequence[LaneView], paces: Mapping[str, Pace], *, gain: float = GAIN
) -> list[Placed]:
    """Which of `running` should be started once more, and where: those that hold up the end longest first."""
    free = {v.name: v.free for v in lanes if v.open and v.free.cores > 0}
    views = {v.name: v for v in lanes}
    out: list[Placed] = []
    for cell in sorted(running, key=lambda c: (-c.left_s, c.job)):
        pace = paces.get(cell.family)
        best, soonest = "", gain * cell.left_s
        for name, left in free.items():
            view = views[name]
            if name == cell.lane or pace is None or not fits(cell.needs, left) or not able(cell.needs, view, False):
                continue
            finish = view.start_s + cell.long_s * pace.slow.get(name, 1.0)
            if finish < soonest:
                best, soonest = name, finish
        if best:
            gpus = free[best].gpus[: cell.needs.gpus]
            out.append(Placed(cell.job, best, gpus))
            free[best] = subtract(free[best], cell.needs, gpus)
    return out
