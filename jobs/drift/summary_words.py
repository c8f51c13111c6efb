"""What a drift study came to, in sentences: each says a number, what it was held against, and by how much. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.drift.summary_find import FEW, LIVE, METRICS, MISSING, REAL, WEIGHTLESS, Cell, Verdict
from jobs.drift.summary_gather import HELD, Told

if TYPE_CHECKING:
    from jobs.drift_kinds.summary import DriftSummaryParams

DISTANCE = ("fid", "fid_matched")  # the metrics that the first answers go by: nothing that fails escapes them
_DIGITS = 3  # of a number
_MOST_PLACES = 4  # after the point, of a mean that is not tiny itself


@dataclass(frozen=True)
class Picture:
    """The first samples of a variant, or at an alpha."""

    name: str
    node: str
    seed: int | None
    path: Path


@dataclass(frozen=True)
class Report:
    """What the page tells.

    Attributes:
        floor: metric -> what held-out real images have. panels: metric -> its figure.
    """

    params: DriftSummaryParams
    told: tuple[Told, ...]
    cells: tuple[Cell, ...]
    floor: Mapping[str, float]
    verdicts: tuple[Verdict, ...]
    pictures: tuple[Picture, ...] = ()
    panels: Mapping[str, Path] = field(default_factory=dict)

    @property
    def bad(self) -> list[Told]:
        return [node for node in self.told if not node.good]

    def of(self, question: str) -> list[Verdict]:
        return [v for v in self.verdicts if v.question == question]

    def cell(self, name: str, metric: str) -> Cell | None:
        return next((c for c in self.cells if (c.name, c.metric) == (name, metric)), None)


def conclusions(report: Report) -> list[str]:
    """The answers, the most important first. What was not found is said too."""
    found = [_succeeded(report)]
    if report.params.template == "ablation":
        found += [*_controls(report), _near(report, "each variant")]
    else:
        found += [_alpha(report), _near(report, "the claimed alpha"), *_untrained(report)]
    found += _nearest(report)
    if any(node.profile == "proxy" for node in report.told):
        found.append("The extractor is random (profile proxy): its numbers support a smoke test and nothing more.")
    return found


def number(value: float | None, *, signed: bool = False) -> str:
    """Three digits and no exponent; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:{'+' if signed else ''}.{_places(value, _DIGITS)}f}"


def over_seeds(cell: Cell | None) -> str:
    """Mean ± standard deviation, which has two digits and says how many the mean has."""
    if cell is None or not cell.n:
        return "–"
    if not cell.sd:
        return number(cell.mean) + (" ± 0" if cell.sd is not None else "")
    places = min(_places(cell.sd, 2), max(_MOST_PLACES, _places(cell.mean, 2)))
    return f"{cell.mean:.{places}f} ± {cell.sd:.{places}f}"


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def _places(value: float, digits: int) -> int:
    """Decimal places with which a number has so many digits."""
    return max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0


def _succeeded(report: Report) -> str:
    seeds = sorted({n.words.seed for n in report.told if n.words.seed is not None})
    said = f"{len(report.told) - len(report.bad)} of {len(report.told)} nodes succeeded, over seeds "
    said += f"{', '.join(map(str, seeds)) or 'none'}."
    return said + (f" {len(report.bad)} did not: they are listed below with the reason." if report.bad else "")


def _controls(report: Report) -> Iterable[str]:
    """Do the variants fail that must? By the distance: the other metrics are blind to some of it, which is said."""
    if not report.params.controls:
        return
    asked = [v for v in report.of("worse") if v.metric == "fid"]
    distance = METRICS["fid"].name
    if not asked:
        yield f"Whether {listed(report.params.controls)} fail, as they must, was not answered: raw was not measured."
        return
    told = {v.subject: f"{v.subject} ({over_seeds(report.cell(v.subject, v.metric))})" for v in asked}
    fail = [v.subject for v in asked if v.answer == "worse"]
    base = f"{asked[0].other} ({over_seeds(report.cell(asked[0].other, 'fid'))})"
    if len(fail) == len(asked):
        yield (
            f"The variants that must fail do: by {distance} {listed(list(told.values()))} {_are(fail)} worse than "
            f"{base} by more than the seeds differ."
        )
    else:
        rest = [f"{told[v.subject]}: {v.answer}" for v in asked if v.answer != "worse"]
        good = f"{listed([told[name] for name in fail])} {_are(fail)}; but " if fail else ""
        yield f"Not every variant that must be worse than {base} by {distance} is: {good}{'; '.join(rest)}."
    for name in fail:
        blind = [
            f"{v.answer} by {METRICS[v.metric].name}"
            for v in report.of("worse")
            if v.subject == name and v.metric != "fid" and v.answer not in ("worse", FEW, MISSING)
        ]
        if blind:
            yield f"Not every metric sees that: {name} is {listed(blind)}."


def _near(report: Report, of: str) -> str:
    """How near is it to the floor?"""
    asked = [v for v in report.of("floor") if v.metric in DISTANCE and v.subject not in report.params.controls]
    if not asked:
        return f"How near {of} comes to {REAL} was not answered: there is no distance of them."
    metric = asked[0].metric
    floor = report.floor[metric]
    said = []
    for v in asked:
        cell = report.cell(v.subject, metric)
        if cell is None or not cell.n:
            said.append(f"{_subject(report, v)} {v.answer}")
            continue
        answer = {"worse": "farther", "better": "closer"}.get(v.answer, v.answer)
        said.append(f"{_subject(report, v)} {over_seeds(cell)} ({cell.mean / floor:.2f} of the floor, {answer})")
    return f"The floor, the {METRICS[metric].name} of {REAL}, is {number(floor)}: {'; '.join(said)}."


def _alpha(report: Report) -> str:
    """Is it live or inert?"""
    asked = report.of("alpha")
    if not asked:
        return "Whether alpha does anything was not answered: the sweep has one alpha, or nothing was measured."
    way = f"from {asked[0].other} to {asked[0].subject}"
    live = [v for v in asked if v.answer == LIVE]
    if any(v.answer == WEIGHTLESS for v in asked):
        return f"Alpha is inert: the unconditional negatives weigh nothing, whatever the numbers {way} say."
    if live:
        moved = [
            f"{METRICS[v.metric].name} changes by {number(v.margin, signed=True)} (spread over seeds "
            f"{number(v.spread)})"
            for v in live
        ]
        rest = [METRICS[v.metric].name for v in asked if v.answer != LIVE]
        more = f"; {listed(rest)} by no more than the seeds differ" if rest else ""
        return f"Alpha is live: {way}, {listed(moved)}{more}."
    if all(v.answer in (FEW, MISSING) for v in asked):
        return f"Whether alpha is live cannot be said: {asked[0].answer}."
    return f"Alpha is inert: {way} no metric changes by more than the seeds differ."


def _untrained(report: Report) -> Iterable[str]:
    asked = report.of("untrained")
    better = [METRICS[v.metric].name for v in asked if v.answer == "better"]
    rest = [f"{METRICS[v.metric].name}: {v.answer}" for v in asked if v.answer != "better"]
    if better:
        yield f"The model is better than the untrained one by {listed(better)}{'; ' if rest else ''}{'; '.join(rest)}."
    elif rest:
        yield f"The model is not found better than the untrained one: {'; '.join(rest)}."


def _nearest(report: Report) -> Iterable[str]:
    """Which samples lie closer to images of the train split than held-out real ones do?"""
    found: dict[str, list[tuple[float, float]]] = {}
    for node in report.told:
        own = [v.value for v in node.values if v.metric == "nn_p95" and v.control != HELD]
        real = [v.value for v in node.values if v.metric == "nn_p95" and v.control == HELD]
        if own and real:
            found.setdefault(node.words.variant, []).append((own[0], real[0]))
    close = [
        f"{name} (in {sum(own > real for own, real in pairs)} of {len(pairs)}, by up to "
        f"{number(max(own - real for own, real in pairs))})"
        for name, pairs in found.items()
        if any(own > real for own, real in pairs)
    ]
    if close:
        yield f"Closer to training images than {REAL} are, by the cosine's 95th percentile: {listed(close)}."
    elif found:
        yield f"No samples come closer to training images than {REAL} do, by the cosine's 95th percentile."


def _subject(report: Report, verdict: Verdict) -> str:
    return verdict.subject if report.params.template == "ablation" else f"alpha {verdict.subject}"


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) < 2 else "are"
