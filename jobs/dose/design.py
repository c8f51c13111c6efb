"""The design of the dose study: its constants, its conditions, and what of it the scan's geometry allows.

Everything here is known before a pattern is drawn. Counts follow from the design and are never typed.
This module stays light: numpy is imported where positions are computed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from core.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Positions = tuple[Floats, Floats]

Size = Literal["small", "seed", "tiny"]
T = TypeVar("T")

# The seed's three sources of chance. Repetition r of a study adds r to each.
SIMULATION, GROUPING, SUBSAMPLING = 42, 123, 456
SPLITS = ("train", "test")
WHOLE = "whole scan"
TRAINED = ("pinn", "supervised")  # arms with a training
CONTROLS = ("untrained", "mean")  # what a trained arm must beat
ARMS = (*TRAINED, "lsqml")


@dataclass(frozen=True)
class View:
    """Which scan positions a condition sees, and how they are grouped.

    Attributes:
        overlap: f; centres are at least (1-f)·N apart. None: every position.
        gridsize: a group has gridsize² members.
    """

    name: str
    overlap: float | None
    gridsize: int

    @property
    def members(self) -> int:
        """C, how many patterns a group has."""
        return self.gridsize**2


@dataclass(frozen=True)
class Scan:
    """A raster over the object, each position moved a little.

    Attributes:
        rows, cols: what the positions span along y and x, pixels.
        step: from position to position before they are moved; jitter: by how much at most, along each axis.
        train_fraction: of the rows that the guard band leaves, how much is to train on.
        margin: pixels of object around what the patterns see.
    """

    rows: float
    cols: float
    step: float
    jitter: float
    train_fraction: float = 0.5
    margin: int = 2


@dataclass(frozen=True)
class Condition:
    """One cell of the study: a dose, a view, a repetition.

    Attributes:
        photons: mean a pattern.
        seed: of the simulation; those of grouping and subsampling go with it.
    """

    photons: float
    view: View
    seed: int

    @property
    def name(self) -> str:
        return f"d{dose_word(self.photons)}_{self.view.name}_gs{self.view.gridsize}_s{self.seed}"

    @property
    def grouping_seed(self) -> int:
        return GROUPING + self.seed - SIMULATION

    @property
    def subsampling_seed(self) -> int:
        return SUBSAMPLING + self.seed - SIMULATION


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


@dataclass(frozen=True)
class Counts:
    """How many of what a study has, computed from its conditions."""

    doses: int
    views: int
    seeds: int
    conditions: int
    trainings: int
    reconstructions: int
    controls: int
    comparisons: int

    def sentence(self) -> str:
        return (
            f"{self.doses} doses x {self.views} views x {self.seeds} seeds: {self.conditions} conditions, "
            f"{self.trainings} trainings, {self.reconstructions} iterative reconstructions, {self.controls} controls, "
            f"{self.comparisons} comparisons"
        )


@dataclass(frozen=True)
class Design:
    """All constants of a study. Frozen: what differs is another design.

    Attributes:
        size: of which set these are.
        doses: photons a pattern, mean.
        patch: N, pixels. neighbours: K. per_point: groups that start at each point.
        disc: diameter of the probe, and of the disc by whose overlap views are reported, in patches.
        min_groups: with fewer in either split a view is infeasible.
        seeds: one repetition each.
        blur: sigma of the Gaussian that MS-SSIM's amplitude is blurred by, pixels.
        frc_threshold: at which FRC a resolution is read off.
        pinn_epochs, supervised_epochs: what a training of this set takes unless another number is asked for.
    """

    size: str
    doses: tuple[float, ...]
    views: tuple[View, ...]
    patch: int
    scan: Scan
    seeds: tuple[int, ...]
    neighbours: int = 7
    per_point: int = 1
    disc: float = 0.6
    min_groups: int = 16
    blur: float = 1.0
    frc_threshold: float = 0.5
    pinn_epochs: int = 40
    supervised_epochs: int = 40

    def __post_init__(self) -> None:
        for what, values in (("doses", self.doses), ("views", self.views), ("seeds", self.seeds)):
            if not values or len(set(values)) != len(values):
                raise BadInput(f"the design's {what} are {list(values)}", hint="name each once, and at least one")
        if len({(v.name, v.gridsize) for v in self.views}) != len(self.views):
            raise BadInput("two views of the design have the same name and gridsize", hint="rename one")
        if any(photons <= 0 for photons in self.doses) or any(seed < 0 for seed in self.seeds):
            raise BadInput(f"doses {self.doses} and seeds {self.seeds}: doses must be positive, seeds not negative")
        for view in self.views:
            if not 1 <= view.members <= self.neighbours:
                raise BadInput(
                    f"view {view.name} has groups of {view.members}, and K={self.neighbours} neighbours",
                    hint="C=gridsize² must not exceed K",
                )
            if view.overlap is not None and not 0 <= view.overlap < 1:
                raise BadInput(f"view {view.name} has the overlap f={view.overlap}", hint="give 0 <= f < 1")

    @classmethod
    def named(cls, size: str) -> Design:
        """One of the sets `small`, `seed` and `tiny`.

        Raises:
            BadInput: there is none of that name.
        """
        if size not in SETS:
            raise BadInput(f"there is no set {size!r} of the dose study", hint=f"there are: {', '.join(SETS)}")
        return SETS[size]

    def chosen(
        self,
        *,
        doses: Sequence[float] | None = None,
        views: Sequence[str] | None = None,
        gridsizes: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Design:
        """What is left when only these are wanted. `seeds` are repetitions, any numbers; the others filter.

        Raises:
            BadInput: a value matches nothing; it says what there is.
        """
        kept_views = list(self.views)
        if views is not None:
            names = filtered("views", views, [v.name for v in kept_views])
            kept_views = [v for v in kept_views if v.name in names]
        if gridsizes is not None:
            sizes = filtered("gridsizes", gridsizes, [v.gridsize for v in kept_views])
            kept_views = [v for v in kept_views if v.gridsize in sizes]
        kept_doses = self.doses if doses is None else filtered("doses", [float(d) for d in doses], self.doses)
        kept_seeds = self.seeds if seeds is None else tuple(seeds)
        return replace(self, doses=tuple(kept_doses), views=tuple(kept_views), seeds=kept_seeds)

    def conditions(self) -> tuple[Condition, ...]:
        """All of them, by seed, then dose, then view, feasible or not."""
        return tuple(Condition(d, v, s) for s in self.seeds for d in self.doses for v in self.views)

    def feasible(self) -> tuple[Condition, ...]:
        """The conditions whose views the geometry allows."""
        good = {(c.view, c.seed) for c in self.checks() if c.feasible}
        return tuple(c for c in self.conditions() if (c.view, c.seed) in good)

    def checks(self) -> tuple[ViewCheck, ...]:
        """Each view of each seed held against the scan. The dose plays no part in it."""
        return _checks(self)

    def counts(self, arms: Sequence[str] = ARMS, *, conditions: Sequence[Condition] | None = None) -> Counts:
        """How many jobs of each sort these conditions (all of the design's, by default) make."""
        found = self.conditions() if conditions is None else conditions
        return Counts(
            doses=len({c.photons for c in found}),
            views=len({c.view for c in found}),
            seeds=len({c.seed for c in found}),
            conditions=len(found),
            trainings=len(found) * sum(arm in TRAINED for arm in arms),
            reconstructions=len(found) * len(SPLITS) * ("lsqml" in arms),
            controls=len(found) * len(controls_of(arms)),
            comparisons=len(found),
        )


def controls_of(arms: Sequence[str]) -> tuple[str, ...]:
    """Controls that go with these arms: they are for the trained ones."""
    return CONTROLS if any(arm in TRAINED for arm in arms) else ()


def dose_word(photons: float) -> str:
    """A dose as names have it: 1000, never 1e+03."""
    return f"{photons:.0f}" if float(photons).is_integer() else repr(float(photons))


def filtered(what: str, wanted: Iterable[T], there: Sequence[T]) -> tuple[T, ...]:
    """Those of `there` that are wanted, in its order.

    Raises:
        BadInput: one of `wanted` matches nothing; it says what there is.
    """
    wanted = list(wanted)
    choice = list(dict.fromkeys(there))
    for value in wanted:
        if value not in choice:
            shown = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in choice)
            said = f"{value:g}" if isinstance(value, float) else str(value)
            raise BadInput(f"{what}: {said} matches nothing of the study", hint=f"there are: {shown or 'none left'}")
    if not wanted:
        raise BadInput(f"{what} is an empty list: it matches nothing", hint="name some, or leave it out")
    return tuple(v for v in choice if v in wanted)


def most_points(width_x: float, width_y: float, spacing: float) -> int:
    """How many points a rectangle can hold at most whose distances are at least `spacing`, however they are chosen.

    Oler's inequality: 2A/(√3·S²) + P/(2S) + 1, for the area A and the circumference P.
    """
    area, around = width_x * width_y, 2 * (width_x + width_y)
    return math.floor(2 * area / (math.sqrt(3) * spacing**2) + around / (2 * spacing) + 1)


@functools.cache
def _checks(design: Design) -> tuple[ViewCheck, ...]:
    """By the very functions that make the data and the views, with the same seeds."""
    out = []
    for seed in design.seeds:
        x, y = positions(design, seed)
        out += view_checks(design, seed, x, y)
    return tuple(out)


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


_VIEWS = (View("baseline", None, 1), View("dense", 0.7, 2), View("sparse", 0.2, 2))
_DOSES = (1e3, 1e4, 1e5)

SETS: dict[str, Design] = {
    # Two cores, well under an hour: the object is a 512 pixel photograph.
    "small": Design(
        "small",
        _DOSES,
        _VIEWS,
        64,
        Scan(440, 360, 16, 3),
        (SIMULATION, SIMULATION + 1),
        pinn_epochs=30,  # with groups a minute of one core, and the loss has long settled
        supervised_epochs=30,
    ),
    # The seed's own constants. Its scan holds 3 points at the sparse view's spacing.
    "seed": Design("seed", _DOSES, _VIEWS, 128, Scan(166, 165, 8, 1), (SIMULATION,)),
    # For tests: the same tree within a minute or two.
    "tiny": Design(
        "tiny",
        (1e3, 1e5),
        _VIEWS,
        32,
        Scan(150, 96, 8, 1),
        (SIMULATION,),
        min_groups=8,
        pinn_epochs=2,
        supervised_epochs=2,
    ),
}
