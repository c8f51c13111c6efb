"""What the study found, over its seeds: means and spreads per condition, and verdicts that say what was asked.

Pure: rows of the comparisons in, rows of the summary out. One number counts per seed; nothing is averaged twice.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jobs.dose.conditions import MUST_BEAT, PHYSICS, TRAINED

FEW, UNPLACED = "not enough seeds", "not registered"


@dataclass(frozen=True)
class Metric:
    """A number of the comparison.

    Attributes:
        unit: as a table has it; empty: none.
        greater: the greatest is the best.
    """

    name: str
    title: str
    unit: str
    greater: bool


@dataclass(frozen=True)
class Value:
    """One arm of one condition of one seed: one number.

    Attributes:
        placed: was the arm brought into register with its reference? Where not, the number says nothing about it.
    """

    photons: float
    view: str
    gridsize: int
    seed: int
    arm: str
    metric: str
    value: float
    placed: bool = True


@dataclass(frozen=True, order=True)
class Place:
    """A condition without its seed."""

    photons: float
    view: str
    gridsize: int


@dataclass(frozen=True)
class Cell:
    """An arm at a place, over its seeds.

    Attributes:
        seeds: that count: placed, and finite. lost: the others. unplaced: those of the lost that were not registered.
        sd: of the sample (n-1); None with fewer than two seeds.
    """

    place: Place
    arm: str
    metric: str
    seeds: tuple[int, ...]
    lost: tuple[int, ...]
    mean: float
    sd: float | None
    least: float
    most: float
    unplaced: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        return len(self.seeds)

    @property
    def range(self) -> float:
        return self.most - self.least


@dataclass(frozen=True)
class Verdict:
    """An answer to one question at one place.

    Attributes:
        question: `beats` (a trained arm against a control that it must beat), `over-physics` (a trained arm against the
            physics layer alone), `dose` (LSQML against itself at the dose before), `against-lsqml` (a trained arm
            against LSQML).
        place, arm: whose. other: against what: an arm, or the lower dose in words.
        margin: by how much the arm's mean is better, in the metric's unit; negative: worse.
        spread: the larger of the two ranges over seeds.
        n: seeds of the side that has fewer.
        answer: see `held_against`.
    """

    question: str
    place: Place
    metric: str
    arm: str
    other: str
    margin: float
    spread: float
    n: int
    answer: str


def cells(values: Iterable[Value]) -> tuple[Cell, ...]:
    """Mean and spread over the seeds of each place, arm and metric.

    A value that is not finite is no number, and one of an arm that was not registered says nothing: their seeds are
    listed as lost and do not vanish.

    Raises:
        ValueError: a seed has two values for the same thing.
    """
    found: dict[tuple[Place, str, str], dict[int, Value]] = {}
    for v in values:
        at = found.setdefault((Place(v.photons, v.view, v.gridsize), v.arm, v.metric), {})
        if v.seed in at:
            raise ValueError(f"{v.arm} has two values of {v.metric} at {v.photons:g} {v.view} seed {v.seed}")
        at[v.seed] = v
    out = []
    for (place, arm, metric), by_seed in found.items():
        good = {s: v.value for s, v in sorted(by_seed.items()) if v.placed and math.isfinite(v.value)}
        lost = tuple(sorted(set(by_seed) - set(good)))
        numbers = list(good.values())
        out.append(
            Cell(
                place,
                arm,
                metric,
                tuple(good),
                lost,
                statistics.fmean(numbers) if numbers else math.nan,
                statistics.stdev(numbers) if len(numbers) > 1 else None,
                min(numbers, default=math.nan),
                max(numbers, default=math.nan),
                tuple(sorted(s for s, v in by_seed.items() if not v.placed)),
            )
        )
    return tuple(sorted(out, key=lambda c: (c.place, c.metric, c.arm)))


def held_against(one: Cell | None, other: Cell | None, greater: bool) -> tuple[float, float, int, str]:
    """(margin, spread, seeds, answer) of one cell against another.

    `better` and `worse` need at least two seeds a side, a difference of the means above the larger of the two ranges,
    and ranges that do not meet. Otherwise `within the spread`, `not enough seeds`, `not registered` or `missing`. Where
    a seed of either side was not registered, the seeds that are left are a choice of the better ones: nothing is said.
    """
    if (one is not None and one.unplaced) or (other is not None and other.unplaced):
        n = min(0 if side is None else side.n for side in (one, other))
        return math.nan, math.nan, n, UNPLACED
    if one is None or other is None or not one.n or not other.n:
        return math.nan, math.nan, 0, "missing"
    margin = one.mean - other.mean if greater else other.mean - one.mean
    n = min(one.n, other.n)
    if n < 2:
        return margin, math.nan, n, FEW
    spread = max(one.range, other.range)
    apart = one.least > other.most or other.least > one.most
    if abs(margin) > spread and apart:
        return margin, spread, n, "better" if margin > 0 else "worse"
    return margin, spread, n, "within the spread"


def verdicts(
    found: Sequence[Cell], metrics: Sequence[Metric], arms: Sequence[str], planned: Iterable[Place] = ()
) -> tuple[Verdict, ...]:
    """All questions of the study at all places. What an arm did not deliver is answered `missing`, never left out.

    Args:
        arms: that the study has, controls too.
        planned: places that are asked about even where nothing was found.
    """
    at = {(c.place, c.arm, c.metric): c for c in found}
    places = sorted({c.place for c in found} | set(planned))
    out = []

    def ask(question: str, place: Place, metric: Metric, arm: str, other: str, against: Cell | None) -> None:
        answer = held_against(at.get((place, arm, metric.name)), against, metric.greater)
        out.append(Verdict(question, place, metric.name, arm, other, *answer))

    for metric in metrics:
        for place in places:
            for arm in (a for a in TRAINED if a in arms):
                for control in (c for c in MUST_BEAT if c in arms):
                    ask("beats", place, metric, arm, control, at.get((place, control, metric.name)))
                if PHYSICS in arms:
                    ask("over-physics", place, metric, arm, PHYSICS, at.get((place, PHYSICS, metric.name)))
                if "lsqml" in arms:
                    ask("against-lsqml", place, metric, arm, "lsqml", at.get((place, "lsqml", metric.name)))
        if "lsqml" in arms:
            for lower, place in _steps(places):
                ask("dose", place, metric, "lsqml", f"{lower.photons:g}", at.get((lower, "lsqml", metric.name)))
    return tuple(out)


def _steps(places: Sequence[Place]) -> list[tuple[Place, Place]]:
    """(lower, higher) neighbours in dose of each view."""
    views: dict[tuple[str, int], list[Place]] = {}
    for place in sorted(places):
        views.setdefault((place.view, place.gridsize), []).append(place)
    return [pair for line in views.values() for pair in itertools.pairwise(line)]
