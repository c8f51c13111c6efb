"""The waiting cells of a sweep by the work that they should be: which of them placement should look at. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

WINDOW = 4096  # so many are looked at; of a longer sweep some of everywhere
_AGAIN = 1.3  # the ends that estimates rest on have grown by so much: estimate all again


class Length(NamedTuple):
    """Of a cell, in seconds on an ordinary lane: what it should take, and what it may well take."""

    expected: float
    at_most: float


_UNKNOWN = Length(0.0, 0.0)


class Longest:
    """Cells that wait, longest first by what they may well take: so what is not known yet is tried early.

    Args:
        length: of a cell; None: nobody knows of any.
        cells: all that wait, ascending.
    """

    def __init__(self, length: Callable[[int], Length | None], cells: Iterable[int] = (), *, window: int = WINDOW):
        self._length = length
        self._window = window
        every = list(cells)
        stride = -(-len(every) // window) or 1
        self._later = [cell for start in reversed(range(stride)) for cell in reversed(every[start::stride])]
        self._unseen = set(every)
        self._waiting: dict[int, Length] = {}
        self._order: list[tuple[float, int]] = []  # longest last; what waits no more is left out as it is met
        self._whole = 0.0
        self._fresh = True
        self._ends = 0
        self.sorted = 0  # how often all were estimated: what was said of a cell before is out of date

    def __len__(self) -> int:
        return len(self._waiting) + len(self._unseen)

    def __contains__(self, cell: int) -> bool:
        return cell in self._waiting or cell in self._unseen

    def add(self, cell: int) -> None:
        if cell not in self:
            self._waiting[cell] = _UNKNOWN
            self._fresh = True

    def discard(self, cell: int) -> None:
        self._unseen.discard(cell)
        self._whole -= self._waiting.pop(cell, _UNKNOWN).expected

    def length(self, cell: int) -> Length:
        """Of a cell that waits; zeros: nobody knows."""
        return self._waiting.get(cell, _UNKNOWN)

    def whole(self, cells: Iterable[int]) -> Length:
        """Of several, one after the other."""
        lengths = [self.length(cell) for cell in cells]
        return Length(sum(x.expected for x in lengths), sum(x.at_most for x in lengths))

    def bundles(self, cells: Iterable[int], most_s: float) -> list[tuple[int, ...]]:
        """`cells` put together, in their order, as long as a bundle may well take no more than `most_s`."""
        out: list[tuple[int, ...]] = []
        part: list[int] = []
        filled = 0.0
        for cell in cells:
            long = self.length(cell).at_most or most_s
            if part and filled + long > most_s:
                out.append(tuple(part))
                part, filled = [], 0.0
            part.append(cell)
            filled += long
        return [*out, tuple(part)] if part else out

    def first(self, n: int, *, ends: int, spread: int = 64) -> tuple[list[int], float]:
        """The `n` longest that wait and some of every other length; and the seconds of work of all the rest.

        Args:
            ends: how many ends the estimates rest on; when they have grown enough, all is estimated again.
            spread: how many besides the longest.
        """
        self._take_up(max(n + spread, self._window // 2))
        if self._fresh or ends >= max(self._ends + min(self._ends, 3), self._ends * _AGAIN, 1):
            self._sort(ends)
        order, waiting = self._order, self._waiting
        while order and order[-1][1] not in waiting:
            order.pop()
        if len(order) > 2 * len(waiting) + 16:
            order[:] = [pair for pair in order if pair[1] in waiting]
        out: list[int] = []
        at = len(order)
        while at > 0 and len(out) < n:
            at -= 1
            if order[at][1] in waiting:
                out.append(order[at][1])
        if spread and at:
            out += [cell for _, cell in order[at - 1 :: -max(1, at // spread)] if cell in waiting]
        unseen = self._whole / max(1, len(waiting)) * len(self._unseen)
        return out, max(0.0, self._whole + unseen - sum(waiting[cell].expected for cell in out))

    def _take_up(self, least: int) -> None:
        """Look at more, when fewer than `least` are looked at."""
        if len(self._waiting) >= least or not self._later:
            return
        while self._later and len(self._waiting) < max(least, self._window):
            cell = self._later.pop()
            if cell in self._unseen:
                self._unseen.discard(cell)
                self._waiting[cell] = _UNKNOWN
        self._fresh = True

    def _sort(self, ends: int) -> None:
        self._ends, self._fresh, self.sorted = ends, False, self.sorted + 1
        found: list[tuple[float, int]] = []
        for cell in self._waiting:
            length = self._waiting[cell] = self._length(cell) or _UNKNOWN
            found.append((length.at_most, -cell))
        found.sort()
        self._order = [(rank, -cell) for rank, cell in found]
        self._whole = sum(length.expected for length in self._waiting.values())
