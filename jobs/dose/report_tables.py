"""The tables of the summary's page and of its Markdown twin, as rows of text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.dose.conditions import CONTROLS, TRAIN_HALF, TRAINED, dose_word
from jobs.dose.gather import BY_NAME, Found, Skip
from jobs.dose.report_charts import view_order
from jobs.dose.summary import FEW, UNPLACED, Cell, Place, Verdict

Table = tuple[list[str], list[list[str]]]  # heads, rows

# What verdicts are given on and charts drawn of; the table has all metrics.
MAIN = ("ms_ssim_phase", "ssim_phase", "frc50", "mae_phase", "relative_error")
_OF_HALVES = ("frc50", "relative_error", "ms_ssim_phase", "rmse_phase")
TITLES = {
    "pinn": "PINN",
    "supervised": "supervised",
    "lsqml": "LSQML",
    "ptychi": "ptychi",
    "untrained": "untrained network",
    "mean": "mean object",
    "physics": "physics layer alone",
    "halves": "half against half",
    TRAIN_HALF: "LSQML, training half",
}


@dataclass(frozen=True)
class Report:
    """What is told.

    Attributes:
        planned: conditions that should have a comparison.
    """

    title: str
    arms: tuple[str, ...]
    notes: tuple[str, ...]
    planned: int
    found: Found
    cells: tuple[Cell, ...]
    verdicts: tuple[Verdict, ...]
    trainings: tuple[Mapping[str, Any], ...] = ()

    def shown(self) -> tuple[str, ...]:
        """Main metrics of which there is a value."""
        there = {c.metric for c in self.cells if c.n}
        return tuple(m for m in MAIN if m in there)


def answers(report: Report, *, physics: bool = False) -> tuple[list[str], list[list[str]]]:
    """(heads, rows): who was better than whom at which dose, counted over the views; a column a metric.

    Args:
        physics: against the physics layer alone; otherwise all other questions.
    """
    shown = report.shown()
    lines: dict[tuple[str, str, str], dict[str, dict[str, int]]] = {}
    for v in sorted(report.verdicts, key=_in_order):
        if v.metric in shown and (v.question == "over-physics") is physics:
            if v.question == "dose":
                what = f"LSQML at {dose_word(v.place.photons)} against {v.other} photons"
            else:
                what = f"{TITLES.get(v.arm, v.arm)} against {TITLES.get(v.other, v.other)}"
            at = "" if v.question == "dose" else dose_word(v.place.photons)
            counts = lines.setdefault((v.question, what, at), {}).setdefault(v.metric, {})
            counts[v.answer] = counts.get(v.answer, 0) + 1
    head = ["comparison", "photons", *(title_of(m) for m in shown)]
    rows = [[what, at, *(_counts(counts.get(m, {})) for m in shown)] for (_, what, at), counts in lines.items()]
    return head, rows


def margins(report: Report) -> tuple[list[str], list[list[str]]]:
    """(heads, rows): by how much each trained arm is better than the physics layer alone; a column a metric."""
    shown = report.shown()
    found = {(v.place, v.arm, v.metric): v for v in report.verdicts if v.question == "over-physics"}
    at = list(dict.fromkeys((place, arm) for place, arm, _ in found))
    at.sort(key=lambda a: (a[1], view_order(a[0].view), a[0].gridsize, a[0].photons))
    rows = [
        [place_words(place), TITLES.get(arm, arm), *(_margin(found.get((place, arm, m))) for m in shown)]
        for place, arm in at
    ]
    return ["condition", "arm", *(title_of(m) for m in shown)], rows


def _margin(verdict: Verdict | None) -> str:
    if verdict is None:
        return "–"
    if math.isnan(verdict.margin):
        return verdict.answer
    spread = "" if math.isnan(verdict.spread) else f", spread {number(verdict.spread)}"
    return f"{number(verdict.margin, signed=True)}{spread}: {verdict.answer}"


def trained(report: Report) -> str:
    """How many trainings and controls came to what."""
    by_status: dict[str, int] = {}
    for row in report.trainings:
        by_status[row["status"]] = by_status.get(row["status"], 0) + 1
    told = ", ".join(f"{n} {status}" for status, n in sorted(by_status.items()))
    return f"{len(report.trainings)} trainings and controls were planned: {told}." if told else "None was planned."


def training_table(found: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    head = ["condition", "arm", "status", "epochs", "final loss", "SHA-256 of the weights", "files", "why not"]
    rows = [
        [
            str(row["condition"]),
            TITLES.get(row["arm"], row["arm"]),
            str(row["status"]),
            "–" if row["epochs_done"] is None else f"{row['epochs_done']} of {row['epochs_planned']}",
            "–" if row["final_loss"] is None else number(row["final_loss"], digits=5),
            (row["bundle_sha256"] or "–")[:12],
            row["paths"] or "–",
            row["error"] or "",
        ]
        for row in found
    ]
    return head, rows


def metric_table(report: Report, metric: str) -> tuple[list[str], list[list[str]]]:
    at = {(c.place, c.arm): c for c in report.cells if c.metric == metric}
    arms = [a for a in report.arms if any(arm == a for _, arm in at)]
    places = sorted({place for place, _ in at}, key=lambda p: (view_order(p.view), p.gridsize, p.photons))
    rows = [[place_words(place), *(spread_words(at.get((place, arm))) for arm in arms)] for place in places]
    return ["condition", *(TITLES.get(a, a) for a in arms)], rows


def train_half_table(report: Report) -> Table:
    """(heads, rows): LSQML on the training half beside the test half, each on its own part of the object."""
    at = {(c.metric, c.place, c.arm): c for c in report.cells if c.n or c.lost}
    places = sorted(
        {p for _, p, arm in at if arm == TRAIN_HALF}, key=lambda p: (view_order(p.view), p.gridsize, p.photons)
    )
    shown = [m for m in _OF_HALVES if any((m, p, TRAIN_HALF) in at for p in places)]
    halves = ((TRAIN_HALF, "training half"), ("lsqml", "test half"))
    head = ["condition", *(f"{title_of(m)}: {half}" for m in shown for _, half in halves)]
    rows = [[place_words(p), *(spread_words(at.get((m, p, arm))) for m in shown for arm, _ in halves)] for p in places]
    return head, rows


def skip_table(skips: Sequence[Skip]) -> tuple[list[str], list[list[str]]]:
    rows = [[s.words.condition, TITLES.get(s.arm, s.arm) or "all", s.state, s.reason] for s in skips]
    return ["condition", "arm", "state", "reason"], rows


def title_of(metric: str) -> str:
    found = BY_NAME[metric]
    return f"{found.title}, {found.unit}" if found.unit else found.title


def place_words(place: Place) -> str:
    return f"{dose_word(place.photons)} photons, {place.view} gs{place.gridsize}"


def spread_words(cell: Cell | None) -> str:
    """mean ± sd [least, greatest], as many digits as are of use."""
    if cell is None:
        return "–"
    lost = f", {len(cell.lost)} lost" if cell.lost else ""
    if not cell.n:
        return f"–{lost}"
    if cell.sd is None:
        return f"{number(cell.mean)} (1 seed){lost}"
    return f"{number(cell.mean)} ± {number(cell.sd)} [{number(cell.least)}, {number(cell.most)}]{lost}"


def number(value: float, *, signed: bool = False, digits: int = 3) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:{'+' if signed else ''}.{digits}g}"


def _counts(counts: Mapping[str, int]) -> str:
    """ "better in all 3", or "better in 2, missing in 1"."""
    order = ("better", "within the spread", "worse", UNPLACED, FEW, "missing")
    said = [(answer, counts[answer]) for answer in order if counts.get(answer)]
    if len(said) == 1:
        answer, n = said[0]
        return answer if n == 1 else f"{answer} in all {n}"
    return ", ".join(f"{answer} in {n}" for answer, n in said) or "–"


def _in_order(verdict: Verdict) -> tuple[int, int, int, float]:
    arms = (*TRAINED, "lsqml")
    against = (*CONTROLS, "lsqml")
    return (
        ("dose", "beats", "over-physics", "against-lsqml").index(verdict.question),
        arms.index(verdict.arm) if verdict.arm in arms else len(arms),
        against.index(verdict.other) if verdict.other in against else len(against),
        verdict.place.photons,
    )
