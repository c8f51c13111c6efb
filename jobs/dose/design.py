"""The design of the dose study: its constants, its conditions, and how many jobs they make.

Everything here is known before a pattern is drawn. Counts follow from the design and are never typed.
This module stays light: numpy is imported where positions are computed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from core.errors import BadInput
from jobs.dose.conditions import ARMS, SIMULATION, SPLITS, TRAINED, Condition, Scan, View, controls_of
from jobs.dose.feasibility import ViewCheck, positions, view_checks

T = TypeVar("T")


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


@functools.cache
def _checks(design: Design) -> tuple[ViewCheck, ...]:
    """By the very functions that make the data and the views, with the same seeds."""
    return tuple(c for seed in design.seeds for c in view_checks(design, seed, *positions(design, seed)))


_VIEWS = (View("baseline", None, 1), View("dense", 0.7, 2), View("sparse", 0.2, 2))
_DOSES = (1e3, 1e4, 1e5)

# Read-only: what differs is another design.
SETS: Mapping[str, Design] = MappingProxyType(
    {
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
)
