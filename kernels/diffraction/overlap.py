"""How much the illuminated discs of neighbouring positions overlap.

f(d) = [2R²·acos(d/2R) - (d/2)·sqrt(4R² - d²)] / (πR²),  0 from d = 2R on
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.diffraction.grouping import Groups, Positions, nearest

DIAMETER = 0.6  # of the disc, in parts of a frame's side


@dataclass(frozen=True)
class Overlaps:
    """Means of f; nan where there is no pair.

    Attributes:
        in_group: over all pairs within a group, and all groups.
        neighbours: over the K nearest of each frame that is in a group, each frame once.
        centres: over each group's centre and its nearest other.
        diameter: of the disc, pixels.
    """

    in_group: float
    neighbours: float
    centres: float
    diameter: float


def disc_overlap(distance: Any, radius: float) -> npt.NDArray[np.float64]:
    """f(d) of two discs of one radius, element by element: 1 at d = 0, 0 from 2R on.

    Raises:
        ValueError: a radius or a distance that is none.
    """
    d = np.asarray(distance, dtype=np.float64)
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"a disc has a positive radius, not {radius!r}")
    if not np.isfinite(d).all() or (d < 0).any():
        raise ValueError("distances are finite and not negative")
    part = np.minimum(d / (2 * radius), 1.0)
    shared: npt.NDArray[np.float64] = (2 * np.arccos(part) - 2 * part * np.sqrt(1 - part**2)) / np.pi
    return shared


def overlaps(
    x: Positions, y: Positions, members: Groups, centres: Positions, neighbours: int, diameter: float
) -> Overlaps:
    """The three means of a view.

    Args:
        x, y: (n,), of the frames.
        members: (g, C), centres: (g, 2).
        neighbours: K; fewer, where there are not so many frames.
        diameter: 2R, pixels; `DIAMETER`·N by default of the study.
    """
    radius = diameter / 2
    first, second = np.triu_indices(members.shape[1], 1)
    a, b = members[:, first], members[:, second]
    in_group = np.hypot(x[a] - x[b], y[a] - y[b])
    frames = np.unique(members)
    ux, uy = x[frames], y[frames]
    count = min(neighbours, len(frames) - 1)
    near = nearest(ux, uy, count) if count > 0 else np.zeros((len(frames), 0), np.int64)
    around = np.hypot(ux[near] - ux[:, None], uy[near] - uy[:, None])
    between = np.zeros(0)
    if len(centres) > 1:
        next_to = nearest(centres[:, 0], centres[:, 1], 1)[:, 0]
        between = np.hypot(*(centres - centres[next_to]).T)
    means = [_mean(disc_overlap(d, radius)) for d in (in_group, around, between)]
    return Overlaps(means[0], means[1], means[2], diameter)


def _mean(values: npt.NDArray[np.float64]) -> float:
    # Rounded: cos and hypot differ in their last bits from one machine to another, and tables must not.
    return round(math.fsum(values.ravel()) / values.size, 9) if values.size else math.nan
