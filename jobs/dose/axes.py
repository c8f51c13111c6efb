"""Are x and y of a scan swapped? The frames themselves know: where patches overlap they have to agree.

A few neighbouring frames are reconstructed twice, for a short while, with the positions as given and swapped, and the
amplitude errors are compared frame by frame. Where they differ by more than chance and by more than a little, the
smaller one is right. At low dose noise is nearly all of the error, and the answer is `undecided`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.diffraction.lsqml import Lsqml, Settings

Array = npt.NDArray[Any]

FRAMES = 36  # that are looked at, at most
LEAST = 6
EPOCHS = 15
SHARE = 0.02  # of the error, by which the two have to differ at least
SIGMAS = 5.0  # of the mean difference of a frame


class Axes(StrEnum):
    """What the data say of (x, y) as they were given."""

    RIGHT = "right"
    SWAPPED = "swapped"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class AxesFound:
    """The answer with its numbers.

    Attributes:
        given, swapped: relative amplitude error after the short reconstructions.
        sigmas: of the mean difference between them; positive: as given fits better.
        frames: that were looked at.
    """

    answer: Axes
    given: float
    swapped: float
    sigmas: float
    frames: int

    def sentence(self) -> str:
        return (
            f"scan axes {self.answer}: {self.frames} frames fit to {self.given:.4f} as given and to {self.swapped:.4f} "
            f"with x and y swapped ({self.sigmas:+.1f} sigma)"
        )


def find_axes(amplitude: Array, x: Array, y: Array, probe: Array, *, seed: int = 0) -> AxesFound:
    """Decide from the data.

    Args:
        amplitude: (n, N, N) fftshifted; x, y: (n,); probe: (N, N) to start from. As for `Lsqml`.

    Raises:
        LsqmlRefused: these are no such arrays.
    """
    chosen = neighbours(x, y, FRAMES)
    few = len(chosen) < LEAST or np.ptp(x[chosen]) + np.ptp(y[chosen]) == 0
    if few:
        return AxesFound(Axes.UNDECIDED, float("nan"), float("nan"), 0.0, len(chosen))
    some = amplitude[chosen]
    powers = np.sum(some.astype(np.float64) ** 2, axis=(1, 2))
    left: list[Array] = []
    for across, down in ((x, y), (y, x)):
        run = Lsqml(some, across[chosen], down[chosen], probe, Settings(batch=4, seed=seed))
        for _ in range(EPOCHS):
            run.epoch()
        left.append(run.residuals())
        run.close()
    given, swapped = left
    # Each frame with its own power: a dark one is as good a witness as a bright one.
    apart = (swapped - given) / powers
    spread = float(np.std(apart, ddof=1)) / np.sqrt(len(apart))
    sigmas = float(apart.mean() / spread) if spread > 0 else 0.0
    errors = [float(np.sqrt(r.sum() / powers.sum())) for r in left]
    clear = abs(errors[0] - errors[1]) > SHARE * min(errors) and abs(sigmas) > SIGMAS
    # Both have to say the same.
    better = Axes.RIGHT if errors[0] < errors[1] else Axes.SWAPPED
    agreed = clear and (sigmas > 0) == (better is Axes.RIGHT)
    return AxesFound(better if agreed else Axes.UNDECIDED, errors[0], errors[1], sigmas, len(chosen))


def neighbours(x: Array, y: Array, count: int) -> Array:
    """The frames nearest to the one in the middle, in their order: int64 (at most count,)."""
    middle = np.argmin((x - np.median(x)) ** 2 + (y - np.median(y)) ** 2)
    distance = (x - x[middle]) ** 2 + (y - y[middle]) ** 2
    return np.sort(np.argsort(distance, kind="stable")[:count])
