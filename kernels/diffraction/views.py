"""A view: which groups of a scan an arm is given, and whether there are enough of them.

All of it follows from positions alone, so it is known before a single pattern is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kernels.diffraction.grouping import Groups, Positions, Spacing, apart, centres_of, groups, spacing

LEAST = 16  # groups that a view needs


@dataclass(frozen=True)
class View:
    """Groups of one split.

    Attributes:
        members: int32 (g, C), indices into the split's frames.
        centres: float64 (g, 2), (x, y).
        spacing: of the centres.
        extent: (x, y), what the split's positions span, pixels.
        frames: how many frames the split has.
    """

    members: Groups
    centres: Positions
    spacing: Spacing
    extent: tuple[float, float]
    frames: int


@dataclass(frozen=True)
class Feasibility:
    """May a view be used? `why` is a sentence with the numbers, either way."""

    ok: bool
    groups: int
    least: int
    why: str


def spacing_of(overlap: float | None, size: int) -> float:
    """S = (1 - f)·N, the spacing of a view; none (0) where there is no overlap named.

    Raises:
        ValueError: an overlap that is not from 0 to below 1.
    """
    if overlap is None:
        return 0.0
    if not 0 <= overlap < 1:
        raise ValueError(f"an overlap is 0 to below 1 of a frame, not {overlap!r}")
    return round((1 - overlap) * size, 9)


def select_view(
    x: Positions,
    y: Positions,
    *,
    spacing: float,
    neighbours: int,
    members: int,
    grouping: np.random.Generator,
    subsampling: np.random.Generator,
    per_point: int = 1,
) -> View:
    """The groups whose centres lie at least `spacing` apart.

    Args:
        x, y: (n,), positions of one split.
        spacing: see `spacing_of`; 0 keeps every group.
        neighbours, members: K and C.
        grouping: decides on the members of the groups. subsampling: between groups that are equally good to keep.
        per_point: groups of each point, see `grouping.groups`.

    Returns:
        The view; with no groups at all, where the split has too few frames to make one.
    """
    extent = (float(np.ptp(x)), float(np.ptp(y))) if len(x) else (0.0, 0.0)
    if len(x) == 0 or (members > 1 and len(x) <= neighbours):
        none = np.zeros((0, members), np.int32)
        return View(none, np.zeros((0, 2)), _spacing(np.zeros((0, 2)), spacing, 0), extent, len(x))
    found = groups(x, y, neighbours, members, grouping, per_point=per_point)
    centres = centres_of(x, y, found)
    kept = apart(centres, spacing, subsampling)
    told = _spacing(centres[kept], spacing, len(found) - len(kept))
    return View(found[kept], centres[kept], told, extent, len(x))


def feasible(view: View, least: int = LEAST) -> Feasibility:
    """Has it at least so many groups?"""
    count, threshold = len(view.members), view.spacing.threshold
    size = f"{view.extent[0]:.4g}×{view.extent[1]:.4g} px with {view.frames} frames"
    at = (
        f" at a spacing of {threshold:.4g} px, {count} of {count + view.spacing.rejected} candidates"
        if threshold
        else ""
    )
    holds = f"{size} holds {count} group{'' if count == 1 else 's'}{at}"
    if count >= least:
        return Feasibility(True, count, least, f"{holds}; {least} are needed")
    side = math.sqrt(least) - 1
    needs = f", which on a square grid span {side * threshold:.4g}×{side * threshold:.4g} px" if threshold else ""
    return Feasibility(False, count, least, f"{holds}; {least} are needed{needs}")


_spacing = spacing
