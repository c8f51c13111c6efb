"""An object from two photographs: one is its amplitude, the other its phase.

The photographs lie in scikit-image's wheel; nothing is downloaded. Everything up to the last step is done in whole
numbers, and the parts of the object are multiples of 2^-20: it is the same on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from kernels.diffraction.probe import on_grid

Array = npt.NDArray[Any]

LEVELS = 4096  # steps from the darkest to the brightest pixel


@dataclass(frozen=True)
class Photographs:
    """What an object is made of.

    Attributes:
        amplitude, phase: names of two different photographs.
        low, high: amplitude of the darkest and the brightest hundredth of the pixels.
        span: phase of the brightest less that of the darkest, radians; it is centred on 0.
    """

    amplitude: str = "camera"
    phase: str = "moon"
    low: float = 0.5
    high: float = 1.0
    span: float = 2 * math.pi / 3

    def __post_init__(self) -> None:
        if self.amplitude == self.phase:
            raise BadInput(
                f"{self.amplitude} is both amplitude and phase: one could be read off the other",
                hint="name two photographs",
            )
        if not 0 < self.low < self.high <= 8:
            raise BadInput(f"an amplitude from {self.low} to {self.high} is none", hint="give 0 < low < high <= 8")
        if not 0 < self.span < 2 * math.pi:
            raise BadInput(f"a phase over {self.span} radians wraps around", hint="give less than 2π")

    def words(self) -> str:
        return (
            f"amplitude {self.low:g} to {self.high:g} of {self.amplitude}, "
            f"phase {-self.span / 2:.4g} to {self.span / 2:.4g} rad of {self.phase}"
        )


def object_of(size: int, photographs: Photographs) -> npt.NDArray[np.complex64]:
    """amplitude·exp(i·phase), complex64 (size, size).

    Raises:
        BadInput: there is no such photograph.
        JobFailed: this scikit-image has none.
    """
    bright, late = (levels(_grey(name), size) for name in (photographs.amplitude, photographs.phase))
    modulus = photographs.low + (photographs.high - photographs.low) * (np.arange(LEVELS + 1) / LEVELS)
    turned = photographs.span * (np.arange(LEVELS + 1) / LEVELS - 0.5)
    cos, sin = (np.array([f(float(t)) for t in turned]) for f in (math.cos, math.sin))
    return on_grid(modulus[bright] * cos[late], modulus[bright] * sin[late])


def levels(grey: Array, size: int) -> npt.NDArray[np.int64]:
    """A square of `size`, stretched from 0 to LEVELS; the darkest and the brightest hundredth are flat.

    The largest square in the middle of the picture, made smaller by exact averages over areas; one that is too small
    is continued by its mirror image and not enlarged, which would bring no detail.

    Args:
        grey: (H, W), whole numbers.
    """
    side = min(grey.shape)
    top, left = ((n - side) // 2 for n in grey.shape)
    square = grey[top : top + side, left : left + side].astype(np.int64)
    if size <= side:
        square = _averaged(_averaged(square, size).T, size).T  # sums of areas: side² times the mean
    else:
        index = np.arange(size) % (2 * side)
        index = np.minimum(index, 2 * side - 1 - index)
        square = square[index[:, None], index]
    ranked = np.sort(square, axis=None)
    least, most = int(ranked[len(ranked) // 100]), int(ranked[-1 - len(ranked) // 100])
    if least == most:
        raise BadInput("a photograph of one grey is no object", hint="name another")
    stretched: npt.NDArray[np.int64] = (square.clip(least, most) - least) * LEVELS // (most - least)
    return stretched


def _averaged(values: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Rows made fewer: row i sums what lies in [i·H, (i+1)·H), where each of the H rows is `size` long."""
    height = len(values)
    zero = np.zeros((1, values.shape[1]), np.int64)
    until = np.concatenate([zero, np.cumsum(values, axis=0) * size])
    whole, part = np.divmod(np.arange(size + 1, dtype=np.int64) * height, size)
    beyond = np.concatenate([values, zero])[whole] * part[:, None]
    sums: npt.NDArray[np.int64] = np.diff(until[whole] + beyond, axis=0)
    return sums


def _grey(name: str) -> npt.NDArray[np.int64]:
    """ITU-R 601 luma in thousandths; a grey photograph's channels are equal."""
    from jobs.train.data.photos import find

    red, green, blue = np.moveaxis(find(name).pixels().astype(np.int64), -1, 0)
    grey: npt.NDArray[np.int64] = 299 * red + 587 * green + 114 * blue
    return grey
