"""What a scan's geometry allows of the design's views, known before a pattern is drawn.

Light as the design is: numpy is imported where positions are computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.dose.conditions import SPLITS, Condition, View

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from jobs.dose.design import Design

    Floats = npt.NDArray[np.float64]
    Positions = tuple[Floats, Floats]

WHOLE = "whole scan"


@dataclass(frozen=True)
class SplitCheck:
    """What the geometry leaves of a view in one split.

    Attributes:
        split: train, test, or `whole scan`: before it is split.
        frames: positions there.
        groups: whose centres keep the view's spacing. candidates: groups before that.
        why: a sentence with the numbers.
    """

    split: str
    frames: int
    groups: int
    candidates: int
    ok: bool
    why: str


@dataclass(frozen=True)
class ViewCheck:
    """Is a view possible on this scan?

    Attributes:
        spacing: asked for, pixels; 0: none.
        most: no choice of points of the whole scan could keep the spacing with more than so many; None without one.
        splits: the training and the test half; where one has too few groups, the whole scan too.
    """

    view: View
    seed: int
    spacing: float
    most: int | None
    least: int
    splits: tuple[SplitCheck, ...]

    @property
    def feasible(self) -> bool:
        return all(split.ok for split in self.splits if split.split in SPLITS)

    @property
    def reason(self) -> str:
        """Why it is infeasible, with the numbers; empty: it is feasible."""
        if self.feasible:
            return ""
        said = [f"{s.split}: {s.why}" for s in self.splits if not s.ok]
        if self.most is not None and self.most < self.least:
            said.append(f"no choice of points could keep {self.spacing:.4g} px with more than {self.most} on this scan")
        return "; ".join(said)

    def sentence(self) -> str:
        """What a plan says of it."""
        apart = f"centres at least {self.spacing:.4g} px apart" if self.spacing else "every position"
        said = f"{self.view.name} gs{self.view.gridsize} ({apart}, seed {self.seed})"
        return f"{said}: " + ("feasible" if self.feasible else f"infeasible: {self.reason}")

    def numbers(self) -> dict[str, float]:
        """What the reason is made of, flat."""
        out: dict[str, float] = {"spacing_px": self.spacing, "least_groups": self.least}
        if self.most is not None:
            out["most_points"] = self.most
        for split in self.splits:
            word = split.split.replace(" ", "_")
            out |= {
                f"{word}_frames": split.frames,
                f"{word}_candidates": split.candidates,
                f"{word}_groups": split.groups,
            }
        return out


def most_points(width_x: float, width_y: float, spacing: float) -> int:
    """How many points a rectangle can hold at most whose distances are at least `spacing`, however they are chosen.

    Oler's inequality: 2A/(√3·S²) + P/(2S) + 1, for the area A and the circumference P.
    """
    area, around = width_x * width_y, 2 * (width_x + width_y)
    return math.floor(2 * area / (math.sqrt(3) * spacing**2) + around / (2 * spacing) + 1)


def positions(design: Design, seed: int) -> Positions:
    """(x, y) of the scan, as dose-data will have them."""
    from kernels.diffraction.scan import Geometry, scan_positions
    from kernels.diffraction.seeds import scan_chance

    scan = design.scan
    geometry = Geometry(scan.rows, scan.cols, scan.step, scan.jitter, design.patch, scan.margin)
    return scan_positions(geometry, scan_chance(seed))


def view_checks(design: Design, seed: int, x: Floats, y: Floats) -> list[ViewCheck]:
    """Each view of the design on these positions: by the functions that make the views, with the same seeds."""
    import numpy as np

    from kernels.diffraction.seeds import grouping_chance, subsampling_chance
    from kernels.diffraction.split import y_split
    from kernels.diffraction.views import feasible, select_view, spacing_of

    train, test, _ = y_split(x, y, design.patch, fraction=design.scan.train_fraction)
    out = []
    for view in design.views:
        condition, spacing = Condition(design.doses[0], view, seed), spacing_of(view.overlap, design.patch)
        splits: list[SplitCheck] = []
        for split, frames in (("train", train), ("test", test), (WHOLE, np.arange(len(x)))):
            if split == WHOLE and all(s.ok for s in splits):
                break  # it takes seconds, and nobody asks
            chosen = select_view(
                x[frames],
                y[frames],
                spacing=spacing,
                neighbours=design.neighbours,
                members=view.members,
                grouping=grouping_chance(condition.grouping_seed, split),
                subsampling=subsampling_chance(condition.subsampling_seed, split),
                per_point=design.per_point,
            )
            verdict = feasible(chosen, design.min_groups)
            candidates = chosen.spacing.accepted + chosen.spacing.rejected
            splits.append(SplitCheck(split, len(frames), verdict.groups, candidates, verdict.ok, verdict.why))
        most = most_points(float(np.ptp(x)), float(np.ptp(y)), spacing) if spacing else None
        out.append(ViewCheck(view, seed, spacing, most, design.min_groups, tuple(splits)))
    return out
