"""Known-bad translations, each a bug that somebody's tests let through. They run in every parity matrix.

NumPy only; each is a candidate like any other, with the same signature, in a process of its own. Which cells
must catch it stands beside it: a mutant that is right there would be no mutant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.parity.cases import Case, Cell
from kernels.translation import Translate, oracle

Array = npt.NDArray[Any]
GROUP = 4  # images that are left once the batch dimension is lost
LARGE = 64  # B·C from which it is lost


@dataclass(frozen=True)
class Mutant:
    """One bug.

    Attributes:
        trap: the row of the trap table that it keeps alive.
        shapes: (case, B, C) of the cells in which it must be caught.
    """

    name: str
    trap: int
    translate: Translate
    shapes: tuple[tuple[Case, int, int], ...]

    def cells(self, patch: int) -> list[Cell]:
        return [Cell(case, "complex64", b, c, patch) for case, b, c in self.shapes]


def loses_the_batch(images: Array, offsets: Array) -> Array:
    """Reassembly gives (1, C, …) instead of (B, C, …) from B·C = 64 on."""
    moved = _right(images, offsets)
    return moved[:1] if moved.shape[0] * moved.shape[1] >= LARGE else moved


def tiles_the_batch(images: Array, offsets: Array) -> Array:
    """4 images meet 128 offsets, and the images are tiled until the lengths agree."""
    flat, shifts = images.reshape(-1, *images.shape[2:]), offsets.reshape(-1, 2)
    if len(flat) >= LARGE:
        flat = np.tile(flat[:GROUP], (len(shifts) // GROUP, 1, 1))
    return _right(flat, shifts).reshape(images.shape)


def repeats_the_offsets(images: Array, offsets: Array) -> Array:
    """The same from the other side: the offsets of the first group serve every group."""
    shifts = offsets.reshape(-1, 2)
    if len(shifts) >= LARGE:
        shifts = np.tile(shifts[:GROUP], (len(shifts) // GROUP, 1))
    return _right(images, shifts.reshape(offsets.shape))


def repeats_by_zero(images: Array, offsets: Array) -> Array:
    """The repeat factor is 4 // 128 = 0: nothing is left, and nothing complains."""
    factor = max(GROUP, 1) // offsets.reshape(-1, 2).shape[0]
    return np.repeat(_right(images, offsets), factor, axis=0)


def moves_backwards(images: Array, offsets: Array) -> Array:
    """Content moves by -t."""
    return _right(images, -offsets)


def drops_the_last_line(images: Array, offsets: Array) -> Array:
    """The right shift, but the last row and column are 0, even at t = 0."""
    moved = _right(images, offsets).copy()
    moved[..., -1, :] = 0
    moved[..., :, -1] = 0
    return moved


def falls_back(images: Array, offsets: Array) -> Array:
    """The whole non-XLA fallback: backwards, and the last row and column gone."""
    return drops_the_last_line(images, -offsets)


def collapses(images: Array, offsets: Array) -> Array:
    """All zeros, of the right shape and dtype. Once filed as "expected at gridsize 1"."""
    return np.zeros_like(images)


MUTANTS: dict[str, Mutant] = {
    m.name: m
    for m in (
        Mutant("loses-the-batch", 2, loses_the_batch, ((Case.MIXED, 16, 4), (Case.MIXED, 32, 4))),
        Mutant("tiles-the-batch", 2, tiles_the_batch, ((Case.MIXED, 16, 4), (Case.MIXED, 128, 1))),
        Mutant("repeats-the-offsets", 2, repeats_the_offsets, ((Case.MIXED, 32, 4),)),
        Mutant("repeats-by-zero", 4, repeats_by_zero, ((Case.MIXED, 128, 1), (Case.MIXED, 32, 4))),
        Mutant("moves-backwards", 5, moves_backwards, ((Case.MIXED, 4, 1), (Case.INTEGER, 4, 4))),
        Mutant("drops-the-last-line", 5, drops_the_last_line, ((Case.MIXED, 4, 1), (Case.ZERO, 4, 1))),
        Mutant("falls-back", 5, falls_back, ((Case.MIXED, 4, 4), (Case.ZERO, 4, 4))),
        Mutant("collapses", 8, collapses, ((Case.MIXED, 4, 1), (Case.MIXED, 32, 4), (Case.ZERO, 4, 4))),
    )
}


def _right(images: Array, offsets: Array) -> Array:
    """The right answer in the input's own precision, for the mutants to spoil."""
    return oracle.translate(images, offsets).astype(images.dtype)
