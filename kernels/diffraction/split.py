"""Training and test half of a scan, along y, without a pixel in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.diffraction.forward import footprints

Index = npt.NDArray[np.int64]
Positions = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Leakage:
    """What two sets of patches share.

    Attributes:
        shared: pixels of the object that patches of both read.
        train, test: pixels that each reads.
    """

    shared: int
    train: int
    test: int


def y_split(
    x: Positions, y: Positions, size: int, *, fraction: float = 0.5, guard: float | None = None
) -> tuple[Index, Index, Index]:
    """The frames of the first rows train, those of the last test, those in the band between do neither.

    Args:
        x, y: (n,), positions.
        size: N, side of a frame.
        fraction: of the height that the band leaves, how much is to train on.
        guard: height of the band in pixels: none of the patches on one side of it shares a pixel with one on the
            other. A whole patch, and a pixel more that a bilinear shift reads, by default. A smaller one leaks.

    Returns:
        (training, test, guard) indices, rising. A side may be empty, where the scan is too small.

    Raises:
        ValueError: the positions do not fit together, or a fraction that is none.
    """
    footprints(x, y, size)
    if not len(y) or not 0 < fraction < 1:
        raise ValueError(f"{len(y)} positions cannot be split at {fraction!r}: give some, and a part from 0 to 1")
    band = size + 1 if guard is None else guard
    first, last = float(y.min()), float(y.max())
    cut = first + fraction * (last - first - band)
    upper, lower = y <= cut, y >= cut + band
    lower &= ~upper  # without a band the points on the cut are on one side
    return (
        np.flatnonzero(upper).astype(np.int64),
        np.flatnonzero(lower).astype(np.int64),
        np.flatnonzero(~upper & ~lower).astype(np.int64),
    )


def leakage(x: Positions, y: Positions, train: Index, test: Index, size: int) -> Leakage:
    """The pixels that patches of both sides read, counted."""
    rows, columns, below, right = footprints(x, y, size)
    top, left = (int(a.min()) for a in (rows, columns))
    shape = int(rows.max()) - top + size + 1, int(columns.max()) - left + size + 1
    seen = np.zeros((2, *shape), dtype=bool)
    for side, frames in enumerate((train, test)):
        for i in frames:
            row, column = rows[i] - top, columns[i] - left
            high, wide = size + int(below[i] > 0), size + int(right[i] > 0)
            seen[side, row : row + high, column : column + wide] = True
    return Leakage(int((seen[0] & seen[1]).sum()), int(seen[0].sum()), int(seen[1].sum()))
