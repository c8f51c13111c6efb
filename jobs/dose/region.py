"""The part of the object that is compared: the largest upright rectangle that every arm and the reference cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.dose.reconstruction import Reconstruction


@dataclass(frozen=True)
class Rectangle:
    """Pixels of the data set's frame: rows top to top + height - 1, columns left to left + width - 1."""

    top: int
    left: int
    height: int
    width: int

    @property
    def side(self) -> int:
        """The shorter one."""
        return min(self.height, self.width)

    def trimmed(self, by: int) -> Rectangle:
        """Less so many pixels along each border."""
        return Rectangle(self.top + by, self.left + by, self.height - 2 * by, self.width - 2 * by)

    def words(self) -> str:
        return f"{self.height}×{self.width} pixels at row {self.top}, column {self.left}"


NOTHING = Rectangle(0, 0, 0, 0)


def common_rectangle(given: Sequence[Reconstruction]) -> Rectangle:
    """The largest rectangle (by area) that all of them cover; of equals the one that ends first. `NOTHING`: none.

    Raises:
        ValueError: nothing is given.
    """
    if not given:
        raise ValueError("no reconstruction is given")
    top, left = (max(r.origin[axis] for r in given) for axis in (0, 1))
    bottom, right = (min(r.origin[axis] + r.object.shape[axis] for r in given) for axis in (0, 1))
    if top >= bottom or left >= right:
        return NOTHING
    box = Rectangle(top, left, bottom - top, right - left)
    mask = np.logical_and.reduce([cut(r.covered, r.origin, box) for r in given])
    found = largest_rectangle(mask)
    return Rectangle(top + found.top, left + found.left, found.height, found.width) if found.side else NOTHING


# With so many times more pixels in the window with holes than in the largest rectangle without, that is compared.
MUCH_MORE = 1.5


def compared(given: Sequence[Reconstruction]) -> tuple[Rectangle, npt.NDArray[np.bool_]]:
    """(region, seen): the largest rectangle that all cover; the window with its holes where those leave little."""
    whole = common_rectangle(given)
    wide, seen = holed_window(given)
    if wide.side > whole.side and seen.sum() > MUCH_MORE * whole.height * whole.width:
        return wide, seen
    return whole, np.ones((whole.height, whole.width), dtype=np.bool_)


def holed_window(given: Sequence[Reconstruction]) -> tuple[Rectangle, npt.NDArray[np.bool_]]:
    """(window, seen): the common coverage with its holes, its ragged borders cut off; `seen` is bool of the window.

    A border row or column goes as long as less than half of it is covered.
    """
    top, left = (max(r.origin[axis] for r in given) for axis in (0, 1))
    bottom, right = (min(r.origin[axis] + r.object.shape[axis] for r in given) for axis in (0, 1))
    if top >= bottom or left >= right:
        return NOTHING, np.zeros((0, 0), dtype=np.bool_)
    box = Rectangle(top, left, bottom - top, right - left)
    mask = np.logical_and.reduce([cut(r.covered, r.origin, box) for r in given])
    while mask.size:
        least, axis, at = min((float(np.take(mask, i, a).mean()), a, i) for a in (0, 1) for i in (0, -1))
        if least >= 0.5:
            break
        mask = (
            mask[1:] if (axis, at) == (0, 0) else mask[:-1] if axis == 0 else mask[:, 1:] if at == 0 else mask[:, :-1]
        )
        top, left = top + ((axis, at) == (0, 0)), left + ((axis, at) == (1, 0))
    return (Rectangle(top, left, *mask.shape) if mask.size else NOTHING), mask


def cut(array: npt.NDArray[Any], origin: tuple[int, int], rectangle: Rectangle) -> npt.NDArray[Any]:
    """The rectangle's pixels of an array (H, W) whose pixel [0, 0] lies at `origin`."""
    row, column = rectangle.top - origin[0], rectangle.left - origin[1]
    return array[row : row + rectangle.height, column : column + rectangle.width]


def largest_rectangle(mask: npt.NDArray[np.bool_]) -> Rectangle:
    """The largest rectangle of true pixels of a mask (H, W); of equals the first that ends, row by row.

    Each row ends columns of some height, and the largest rectangle under such a skyline is found with a stack of the
    columns that still rise.
    """
    best, area = NOTHING, 0
    heights = np.zeros(mask.shape[1] + 1, dtype=np.int64)  # the last one stays 0 and ends every rise
    for row in range(mask.shape[0]):
        heights[:-1] = np.where(mask[row], heights[:-1] + 1, 0)
        rising: list[tuple[int, int]] = []  # (where it starts, height)
        for column, height in enumerate(heights.tolist()):
            start = column
            while rising and rising[-1][1] >= height:
                start, tall = rising.pop()
                if tall * (column - start) > area:
                    area = tall * (column - start)
                    best = Rectangle(row - tall + 1, start, tall, column - start)
            if height:
                rising.append((start, height))
    return best
