"""How many cells the next batch should hold. Pure: what was measured in, a number out."""

from __future__ import annotations

import math

TARGET_S = 0.03  # long enough to carry its own costs, short enough that results, errors and a cancel are seen at once
FIRST = 32
MOST = 2048
GROWTH = 8  # one quick batch must not lead to a huge slow one
_NEWEST = 0.5  # weight of the newest batch in the running mean


class Sizer:
    """The running estimate for one crew on one lane.

    Args:
        target_s: how long a batch should take.
    """

    def __init__(self, target_s: float = TARGET_S) -> None:
        self._target_s = target_s
        self._per_cell: float | None = None
        self._last = 0

    def next(self) -> int:
        """Cells for the next batch: between 1 and MOST."""
        if self._per_cell is None:
            return FIRST
        wanted = int(self._target_s / self._per_cell) if self._per_cell * MOST > self._target_s else MOST
        return max(1, min(wanted, max(self._last, 1) * GROWTH, MOST))

    def seconds(self, cells: int) -> float:
        """How long a batch of so many cells should take; infinity when nothing is known."""
        return math.inf if self._per_cell is None else self._per_cell * cells

    def measured(self, cells: int, seconds: float) -> None:
        """A batch ran `cells` cells in `seconds`. One that ran none teaches nothing."""
        if cells <= 0 or seconds < 0:
            return
        new = seconds / cells
        old = self._per_cell
        # Slower is believed at once: a batch that is too long hides errors, one that is too short only costs a little.
        self._per_cell = new if old is None or new > old else old + _NEWEST * (new - old)
        # A short batch (the last cells of a sweep) is no reason to begin small again.
        self._last = max(cells, min(self._last, MOST))
