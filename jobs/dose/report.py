"""The summary's page and its Markdown twin: every number of it comes from the tables, none is typed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from jobs.dose import page as web
from jobs.dose.design import CONTROLS, TRAINED, dose_word
from jobs.dose.gather import BY_NAME, Found, Skip
from jobs.dose.report_charts import dose_charts, frc_charts, light_charts, view_order
from jobs.dose.summary import FEW, Cell, Place, Verdict

# What verdicts are given on and charts drawn of; the table has all metrics.
MAIN = ("ms_ssim_phase", "ssim_phase", "frc50", "mae_phase", "relative_error")
TITLES = {
    "pinn": "PINN",
    "supervised": "supervised",
    "lsqml": "LSQML",
    "ptychi": "ptychi",
    "untrained": "untrained network",
    "mean": "mean object",
}
SPREAD = (
    "Each seed is one value. The spread of two things that are compared is the larger of their ranges (greatest less "
    "least over the seeds). Better (or worse) means: the means differ by more than that, and the ranges do not meet; "
    "with one seed nothing can be said."
)


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


def html(report: Report) -> str:
    """The page."""
    sections = [
        ("found", "What was found", _found(report)),
        ("dose", "Quality against dose", _quality(report)),
        ("light", "Quality against photons per pixel of the object", _light(report)),
        ("frc", "Fourier ring correlation", _frc(report)),
        ("pictures", "Object and reconstructions", _pictures(report)),
        ("verdicts", "Every verdict", _verdicts(report)),
        ("numbers", "Every number", _numbers(report)),
        ("trainings", "Trainings", _trainings(report)),
        ("skips", "What is missing, and why", _skips(report)),
        ("how", "How it was made", web.bullets([*report.notes, SPREAD])),
    ]
    lead = web.paragraph(_lead(report), "lead")
    return web.page(report.title, sections, lead)


def markdown(report: Report) -> str:
    """The same without pictures."""
    lines = [f"# {report.title}", "", _lead(report), "", "## What was found", ""]
    head, rows = answers(report)
    lines += _markdown_table(head, rows) if rows else ["There is nothing to compare."]
    if told := states(report):
        lines += ["", told]
    for metric in report.shown():
        lines += ["", f"## {_title(metric)}", "", *_markdown_table(*_metric_table(report, metric))]
    lines += ["", "## What is missing, and why", ""]
    head, rows = _skip_table(report.found.skips)
    lines += _markdown_table(head, rows) if rows else ["Nothing."]
    lines += ["", "## How it was made", "", *(f"- {text}" for text in (*report.notes, SPREAD))]
    return "\n".join(lines) + "\n"


def answers(report: Report) -> tuple[list[str], list[list[str]]]:
    """(heads, rows): who was better than whom at which dose, counted over the views; a column a metric."""
    shown = report.shown()
    lines: dict[tuple[str, str, str], dict[str, dict[str, int]]] = {}
    for v in sorted(report.verdicts, key=_in_order):
        if v.metric in shown:
            if v.question == "dose":
                what = f"LSQML at {dose_word(v.place.photons)} against {v.other} photons"
            else:
                what = f"{TITLES.get(v.arm, v.arm)} against {TITLES.get(v.other, v.other)}"
            at = "" if v.question == "dose" else dose_word(v.place.photons)
            counts = lines.setdefault((v.question, what, at), {}).setdefault(v.metric, {})
            counts[v.answer] = counts.get(v.answer, 0) + 1
    head = ["comparison", "photons", *(_title(m) for m in shown)]
    rows = [[what, at, *(_counts(counts.get(m, {})) for m in shown)] for (_, what, at), counts in lines.items()]
    return head, rows


def states(report: Report) -> str:
    """How much is listed as missing or doubtful; empty: nothing."""
    by_state: dict[str, int] = {}
    for skip in report.found.skips:
        by_state[skip.state] = by_state.get(skip.state, 0) + 1
    told = ", ".join(f"{n} {state}" for state, n in sorted(by_state.items()))
    return (
        f"Conditions and arms that are missing, skipped or doubtful: {told}; listed below with the reason."
        if told
        else ""
    )


def _lead(report: Report) -> str:
    compared = len(report.found.pictures)
    seeds = sorted({s for c in report.cells for s in c.seeds})
    return (
        f"{compared} of {report.planned} planned conditions were compared, over {len(seeds)} seed"
        f"{'' if len(seeds) == 1 else 's'} ({', '.join(map(str, seeds)) or 'none'})"
        + (f"; against: {', '.join(report.found.against)}." if report.found.against else ".")
    )


def _counts(counts: Mapping[str, int]) -> str:
    """ "better in all 3", or "better in 2, missing in 1"."""
    order = ("better", "within the spread", "worse", FEW, "missing")
    said = [(answer, counts[answer]) for answer in order if counts.get(answer)]
    if len(said) == 1:
        answer, n = said[0]
        return answer if n == 1 else f"{answer} in all {n}"
    return ", ".join(f"{answer} in {n}" for answer, n in said) or "–"


def _in_order(verdict: Verdict) -> tuple[int, int, int, float]:
    arms = (*TRAINED, "lsqml")
    against = (*CONTROLS, "lsqml")
    return (
        ("dose", "beats", "against-lsqml").index(verdict.question),
        arms.index(verdict.arm) if verdict.arm in arms else len(arms),
        against.index(verdict.other) if verdict.other in against else len(against),
        verdict.place.photons,
    )


def _found(report: Report) -> str:
    head, rows = answers(report)
    told = states(report)
    if not rows:
        return web.paragraph("There is nothing to compare.") + (web.paragraph(told) if told else "")
    note = "Each cell counts the views. Better and worse mean: by more than the spread over the seeds. " + SPREAD
    caption = "Who was better, at which dose"
    return web.table(caption, head, rows) + web.paragraph(note, "faint") + (web.paragraph(told) if told else "")


def _quality(report: Report) -> str:
    out = []
    for metric in report.shown():
        out.append(f"<h3>{escape(_title(metric))}</h3>")
        out.append(web.charts(f"dose-{metric}", dose_charts(report.cells, BY_NAME[metric], report.arms)))
    note = "Points are means over the seeds, bars reach from the least to the greatest."
    return "".join(out) + web.paragraph(note, "faint") if out else web.paragraph("There are no values.")


def _light(report: Report) -> str:
    arms = [a for a in report.arms if a not in CONTROLS]
    quality = next((m for m in ("ms_ssim_phase", "ssim_phase") if m in report.shown()), "relative_error")
    out = []
    for metric in ("rmse_phase", quality):
        found = light_charts(report.cells, report.found.per_pixel, arms, BY_NAME[metric], bounds=metric == "rmse_phase")
        if found:
            out.append(f"<h3>{escape(_title(metric))}</h3>" + web.charts(f"light-{metric}", found))
    if not out:
        return web.paragraph("The comparisons do not say how many photons fell on a pixel.")
    note = (
        "Dense and sparse views differ in the light that falls on the object, so they are compared here at equal total "
        "photons per pixel. The dashed lines are 1/(2·√n), the quantum limit, and 1/√(2n), about what ptychography "
        "reaches: references, not tests. They bound unbiased estimators, and a regularised reconstruction may lie "
        "under them at low dose. A simulated pattern moves its object by bilinear interpolation, LSQML by a Fourier "
        "shift: what they differ by does not fall with the dose, and holds LSQML above the lines where light is plenty."
    )
    return "".join(out) + web.paragraph(note, "faint")


def _frc(report: Report) -> str:
    found = frc_charts(report.found.curves, report.arms)
    if not found:
        return web.paragraph("There are no curves.")
    note = "One line a seed. Dashed: 0.5 and 1/7. Nyquist is 0.5 cycles/pixel."
    return web.charts("frc", found) + web.paragraph(note, "faint")


def _pictures(report: Report) -> str:
    first: dict[str, str] = {}
    for condition in report.found.pictures:
        first.setdefault(_without_seed(condition), condition)
    out = []
    for i, condition in enumerate(first.values()):
        files = report.found.pictures[condition]
        if files:
            body = "".join(_picture(name, path, condition) for name, path in files.items())
            out.append(web.folded(condition, body, opened=i == 0))
    note = "The first seed of each condition; those of the others lie in the artifacts of their comparisons."
    return web.paragraph(note, "faint") + "".join(out) if out else web.paragraph("There are no pictures.")


def _picture(name: str, path: Path, condition: str) -> str:
    what = {"objects.png": "object and reconstructions", "frc.png": "Fourier ring correlations"}.get(name, name)
    return web.picture(
        path, f"{what} of {condition}; its numbers are in the tables of this page", f"{condition}: {what}"
    )


def _without_seed(condition: str) -> str:
    return condition.rpartition("_s")[0]


def _verdicts(report: Report) -> str:
    questions = {
        "dose": "Is LSQML better at the higher dose?",
        "beats": "Does a trained arm beat its controls?",
        "against-lsqml": "Does a trained arm win against LSQML?",
    }
    out = []
    for question, title in questions.items():
        rows = [
            (
                _place(v.place),
                _title(v.metric),
                TITLES.get(v.arm, v.arm),
                f"{v.other} photons" if question == "dose" else TITLES.get(v.other, v.other),
                _number(v.margin, signed=True),
                _number(v.spread),
                str(v.n),
                v.answer,
            )
            for v in report.verdicts
            if v.question == question and v.metric in report.shown()
        ]
        if rows:
            head = ("condition", "metric", "arm", "against", "better by", "spread", "seeds", "answer")
            out.append(web.folded(title, web.table(title, head, rows, right=(4, 5, 6))))
    return "".join(out) or web.paragraph("There are none.")


def _numbers(report: Report) -> str:
    out = []
    for metric in BY_NAME:
        if any(c.metric == metric and c.n for c in report.cells):
            head, rows = _metric_table(report, metric)
            out.append(web.folded(_title(metric), web.table(_title(metric), head, rows)))
    return "".join(out) or web.paragraph("There are none.")


def _trainings(report: Report) -> str:
    rows = [
        (
            str(row["condition"]),
            TITLES.get(row["arm"], row["arm"]),
            str(row["status"]),
            "–" if row["epochs_done"] is None else f"{row['epochs_done']} of {row['epochs_planned']}",
            "–" if row["final_loss"] is None else _number(row["final_loss"], digits=5),
            (row["bundle_sha256"] or "–")[:12],
            row["error"] or "",
        )
        for row in report.trainings
    ]
    caption = "Every training and control that was planned"
    head = ("condition", "arm", "status", "epochs", "final loss", "SHA-256 of the weights", "why not")
    return web.folded(caption, web.table(caption, head, rows)) if rows else web.paragraph("None was planned.")


def _skips(report: Report) -> str:
    head, rows = _skip_table(report.found.skips)
    return web.table("Conditions and arms without a number, or with a doubtful one", head, rows)


def _metric_table(report: Report, metric: str) -> tuple[list[str], list[list[str]]]:
    at = {(c.place, c.arm): c for c in report.cells if c.metric == metric}
    arms = [a for a in report.arms if any(arm == a for _, arm in at)]
    places = sorted({place for place, _ in at}, key=lambda p: (view_order(p.view), p.gridsize, p.photons))
    rows = [[_place(place), *(_spread(at.get((place, arm))) for arm in arms)] for place in places]
    return ["condition", *(TITLES.get(a, a) for a in arms)], rows


def _skip_table(skips: Sequence[Skip]) -> tuple[list[str], list[list[str]]]:
    rows = [[s.words.condition, TITLES.get(s.arm, s.arm) or "all", s.state, s.reason] for s in skips]
    return ["condition", "arm", "state", "reason"], rows


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    return [line(head), line(["---"] * len(head)), *(line(row) for row in rows)]


def _title(metric: str) -> str:
    found = BY_NAME[metric]
    return f"{found.title}, {found.unit}" if found.unit else found.title


def _place(place: Place) -> str:
    return f"{dose_word(place.photons)} photons, {place.view} gs{place.gridsize}"


def _spread(cell: Cell | None) -> str:
    """mean ± sd [least, greatest], as many digits as are of use."""
    if cell is None or not cell.n:
        return "–"
    if cell.sd is None:
        return f"{_number(cell.mean)} (1 seed)"
    lost = f", {len(cell.lost)} lost" if cell.lost else ""
    return f"{_number(cell.mean)} ± {_number(cell.sd)} [{_number(cell.least)}, {_number(cell.most)}]{lost}"


def _number(value: float, *, signed: bool = False, digits: int = 3) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:{'+' if signed else ''}.{digits}g}"
