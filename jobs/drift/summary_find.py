"""What a drift study found, over its seeds: means with their spread, and answers that had to exceed it. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from jobs.drift.summary_gather import HELD, Told

FEW, WITHIN, MISSING = "not enough seeds", "within the spread", "missing"
# metric -> (title, the greatest is the best)
METRICS = {
    "fid": ("Fréchet distance", False),
    "is_mean": ("inception score", True),
    "accuracy": ("accuracy of the judge on the samples' labels", True),
    "nn_p95": ("cosine to the nearest training image, 95th percentile", False),
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
        question: `worse` (is a control worse than the raw model), `floor` (is a variant above what real images have),
            `untrained` (is the model better than the untrained one), `alpha` (does alpha do anything).
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


def floors(told: Iterable[Told]) -> dict[str, float]:
    """What held-out real images have in the place of samples: metric -> value, the mean where evaluations differ."""
    found: dict[str, list[float]] = {}
    back = {floor: metric for metric, floor in FLOORS.items()} | {"nn_p95": "nn_p95"}
    for node in told:
        for value in node.values:
            if value.control == HELD and value.metric in back and math.isfinite(value.value):
                found.setdefault(back[value.metric], []).append(value.value)
    return {metric: statistics.fmean(values) for metric, values in found.items()}


def of_variants(
    found: Sequence[Cell], floor: dict[str, float], controls: Sequence[str], base: str = "raw"
) -> list[Verdict]:
    """Are the controls worse than the model, and how far is each variant from real images?"""
    at = {(c.name, c.metric): c for c in found}
    metrics = list(dict.fromkeys(c.metric for c in found if c.metric in FLOORS))
    names = list(dict.fromkeys(c.name for c in found))
    out = []
    for metric in metrics:
        for name in (n for n in controls if n in names and base in names and n != base):
            out.append(_held(at[base, metric], at[name, metric]))
        for name in (n for n in names if metric in floor):
            cell = at[name, metric]
            margin = _sign(metric) * (floor[metric] - cell.mean)
            out.append(_verdict("floor", name, "held-out real images", metric, margin, cell.range, cell.n, "worse"))
    return out


def of_package(found: Sequence[Cell], told: Sequence[Told], alpha: float) -> list[Verdict]:
    """Does alpha do anything, and is the model better than the untrained one?"""
    at = {(c.name, c.metric): c for c in found}
    names = sorted({c.name for c in found}, key=float)
    metrics = list(dict.fromkeys(c.metric for c in found if c.metric in FLOORS))
    dead = _without_guidance(told)
    out = []
    for metric in metrics if len(names) > 1 else ():
        low, high = at[names[0], metric], at[names[-1], metric]
        n, margin, spread = min(low.n, high.n), high.mean - low.mean, max(low.range, high.range)
        if dead:
            answer = "inert: the unconditional negatives weigh nothing"
        elif not n:
            answer = MISSING
        elif n < 2:
            answer = FEW
        else:
            answer = "live" if abs(margin) > spread and _apart(low, high) else "inert: within the spread over seeds"
        out.append(Verdict("alpha", names[-1], names[0], metric, margin, spread if n > 1 else math.nan, n, answer))
    for node in told:
        if node.words.role == "eval" and node.words.control == "untrained":
            for value in (v for v in node.values if v.metric in FLOORS and v.control != HELD):
                own = at.get((f"{alpha:g}", value.metric))
                if own is not None:
                    margin = _sign(value.metric) * (own.mean - value.value)
                    out.append(
                        _verdict(
                            "untrained", f"{alpha:g}", "untrained", value.metric, margin, own.range, own.n, "better"
                        )
                    )
    return out


def _held(base: Cell, control: Cell) -> Verdict:
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
    return 1 if METRICS[metric][1] else -1


def _without_guidance(told: Sequence[Told]) -> bool:
    """Have the trained models no unconditional negatives at all?"""
    free = [
        n.unconditional for n in told if n.words.role == "train" and not n.words.control and n.unconditional is not None
    ]
    return bool(free) and not any(free)
