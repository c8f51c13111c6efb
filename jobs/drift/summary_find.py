"""What a drift study found, over its seeds: means with their spread, and answers that had to exceed it. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.drift.summary_gather import HELD, Told

FEW, WITHIN, MISSING = "not enough seeds", "within the spread", "missing"
LIVE, DROWNED = "live", "inert: within the spread over seeds"
WEIGHTLESS = "inert: the unconditional negatives weigh nothing"
REAL = "held-out real images"


@dataclass(frozen=True)
class Metric:
    """What is measured.

    Attributes:
        name: in tables. told: what it is. greatest: the greatest is the best.
    """

    name: str
    told: str
    greatest: bool


METRICS = {
    "fid": Metric("Fréchet distance", "of the samples' features to those of the reference images", False),
    "fid_matched": Metric(
        "Fréchet distance, matched n", "the same, of as many samples as there are held-out images", False
    ),
    "is_mean": Metric("inception score", "how sure the judge is of each sample, and how many classes there are", True),
    "accuracy": Metric("accuracy", "how often the judge names the class that a sample was made for", True),
    "nn_p95": Metric("nearest, p95", "cosine to the nearest training image, its 95th percentile", False),
}
FLOORS = {"fid": "fid_floor", "is_mean": "is_floor", "accuracy": "accuracy_floor"}


@dataclass(frozen=True)
class Cell:
    """A number over the seeds.

    Attributes:
        name: a variant, or an alpha in words. by_seed: seed -> finite value. lost: seeds that have none.
    """

    name: str
    metric: str
    by_seed: tuple[tuple[int, float], ...]
    lost: tuple[int, ...]

    @property
    def values(self) -> list[float]:
        return [v for _, v in self.by_seed]

    @property
    def n(self) -> int:
        return len(self.by_seed)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def sd(self) -> float | None:
        """Of the sample (n-1)."""
        return statistics.stdev(self.values) if self.n > 1 else None

    @property
    def range(self) -> float:
        return max(self.values) - min(self.values) if self.values else math.nan


@dataclass(frozen=True)
class Verdict:
    """An answer.

    Attributes:
        question: `worse` (is a control worse than the raw model), `floor` (is it worse than real images in the place
            of samples), `untrained` (is the model better than the untrained one), `alpha` (does alpha do anything).
        margin: in the metric's unit; positive: what was asked is so. spread: the larger of both ranges over seeds.
    """

    question: str
    subject: str
    other: str
    metric: str
    margin: float
    spread: float
    seeds: int
    answer: str


def cells(told: Iterable[Told], by: str) -> tuple[Cell, ...]:
    """Numbers of samples, over the seeds.

    Args:
        by: variant; or alpha, of the last checkpoint of trained models.

    A planned seed whose node left no number is lost, and never vanishes.
    """
    found: dict[tuple[str, str], dict[int, float]] = {}
    planned: dict[str, set[int]] = {}
    for node in told:
        words = node.words
        if words.role not in ("eval", "nn") or words.checkpoint is not None or words.seed is None:
            continue
        if by == "alpha" and (words.control or words.role == "nn"):
            continue
        name = words.variant if by == "variant" else f"{words.alpha:g}"
        planned.setdefault(name, set()).add(words.seed)
        for value in node.values:
            if value.metric in METRICS and value.control != HELD:
                found.setdefault((name, value.metric), {})[words.seed] = value.value
    metrics = [m for m in METRICS if any(m == metric for _, metric in found)]
    out = []
    for name, seeds in planned.items():
        for metric in metrics:
            values = found.get((name, metric), {})
            good = tuple((s, v) for s, v in sorted(values.items()) if math.isfinite(v))
            out.append(Cell(name, metric, good, tuple(sorted(seeds - {s for s, _ in good}))))
    return tuple(out)


def floors(told: Sequence[Told]) -> dict[str, float]:
    """What held-out real images have in the place of samples: metric -> value, the mean where evaluations differ.

    A distance depends on how many images it is of. So where there are more samples than held-out images the floor is
    that of `fid_matched`, and `fid` has none.
    """
    found: dict[str, list[float]] = {}
    back = {floor: metric for metric, floor in FLOORS.items()} | {"nn_p95": "nn_p95"}
    if any(value.metric == "fid_matched" for node in told for value in node.values):
        back[FLOORS["fid"]] = "fid_matched"
    for node in told:
        for value in node.values:
            if value.control == HELD and value.metric in back and math.isfinite(value.value):
                found.setdefault(back[value.metric], []).append(value.value)
    return {metric: statistics.fmean(values) for metric, values in found.items()}


def of_variants(
    found: Sequence[Cell], floor: Mapping[str, float], controls: Sequence[str], base: str = "raw"
) -> list[Verdict]:
    """Are the controls worse than the model, and how far is each variant from real images?"""
    at = {(c.name, c.metric): c for c in found}
    names = list(dict.fromkeys(c.name for c in found))
    out = []
    for metric in _asked(found):
        for name in (n for n in controls if n in names and base in names and n != base):
            out.append(_worse(at[base, metric], at[name, metric]))
        out += [_from_floor(at, name, metric, floor) for name in names if _floored(metric, floor)]
    return out


def of_package(found: Sequence[Cell], told: Sequence[Told], floor: Mapping[str, float], alpha: float) -> list[Verdict]:
    """Does alpha do anything, is the model better than the untrained one, and how far is it from real images?"""
    at = {(c.name, c.metric): c for c in found}
    names = sorted({c.name for c in found}, key=float)
    claimed = f"{alpha:g}"
    out = []
    for metric in _asked(found):
        if len(names) > 1:
            out.append(_alpha(at[names[0], metric], at[names[-1], metric], without_guidance(told)))
        if (claimed, metric) in at:
            out += [_better(at[claimed, metric], node) for node in told if _is_untrained(node)]
            out += [_from_floor(at, claimed, metric, floor)] if _floored(metric, floor) else []
    return out


def without_guidance(told: Sequence[Told]) -> bool:
    """Have the trained models no unconditional negatives at all?"""
    free = [
        n.unconditional for n in told if n.words.role == "train" and not n.words.control and n.unconditional is not None
    ]
    return bool(free) and not any(free)


def _asked(found: Iterable[Cell]) -> list[str]:
    """The metrics that are there and that the questions are put to."""
    return [m for m in dict.fromkeys(c.metric for c in found) if m in FLOORS]


def _is_untrained(node: Told) -> bool:
    return node.words.role == "eval" and node.words.control == "untrained"


def _floored(metric: str, floor: Mapping[str, float]) -> str:
    """The metric whose floor is to be compared with; empty: there is none."""
    one = "fid_matched" if metric == "fid" and "fid_matched" in floor else metric
    return one if one in floor else ""


def _from_floor(at: Mapping[tuple[str, str], Cell], name: str, metric: str, floor: Mapping[str, float]) -> Verdict:
    metric = _floored(metric, floor)
    cell = at[name, metric]
    margin = _sign(metric) * (floor[metric] - cell.mean)
    return _verdict("floor", name, REAL, metric, margin, cell.range, cell.n, "worse")


def _better(own: Cell, untrained: Told) -> Verdict:
    """Is the model better than this untrained one? Where that one left no number, the answer is missing."""
    value = next((v.value for v in untrained.values if v.metric == own.metric and v.control != HELD), math.nan)
    margin = _sign(own.metric) * (own.mean - value)
    return _verdict("untrained", own.name, "untrained", own.metric, margin, own.range, own.n, "better")


def _alpha(low: Cell, high: Cell, dead: bool) -> Verdict:
    n, margin, spread = min(low.n, high.n), high.mean - low.mean, max(low.range, high.range)
    if dead:
        answer = WEIGHTLESS
    elif not n:
        answer = MISSING
    elif n < 2:
        answer = FEW
    else:
        answer = LIVE if abs(margin) > spread and _apart(low, high) else DROWNED
    return Verdict("alpha", high.name, low.name, low.metric, margin, spread if n > 1 else math.nan, n, answer)


def _worse(base: Cell, control: Cell) -> Verdict:
    """Is `control` worse than `base` by more than the spread?"""
    margin = _sign(base.metric) * (base.mean - control.mean)
    n, spread = min(base.n, control.n), max(base.range, control.range)
    found = _verdict("worse", control.name, base.name, base.metric, margin, spread, n, "worse")
    return found if found.answer in (FEW, MISSING) or _apart(base, control) else replace(found, answer=WITHIN)


def _verdict(
    question: str, subject: str, other: str, metric: str, margin: float, spread: float, n: int, yes: str
) -> Verdict:
    no = {"worse": "better", "better": "worse"}[yes]
    if not n or not math.isfinite(margin):
        return Verdict(question, subject, other, metric, math.nan, math.nan, n, MISSING)
    if n < 2:
        return Verdict(question, subject, other, metric, margin, math.nan, n, FEW)
    answer = WITHIN if abs(margin) <= spread else yes if margin > 0 else no
    return Verdict(question, subject, other, metric, margin, spread, n, answer)


def _apart(one: Cell, other: Cell) -> bool:
    return min(one.values) > max(other.values) or min(other.values) > max(one.values)


def _sign(metric: str) -> int:
    """+1: the greatest is the best."""
    return 1 if METRICS[metric].greatest else -1
