"""The summary's page and its Markdown twin: every number of it comes from the tables, none is typed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from jobs.dose import page as web
from jobs.dose.conditions import CONTROLS
from jobs.dose.gather import BY_NAME
from jobs.dose.report_charts import dose_charts, frc_charts, light_charts
from jobs.dose.report_tables import (
    TITLES,
    Report,
    answers,
    margins,
    metric_table,
    number,
    place_words,
    skip_table,
    title_of,
    train_half_table,
    trained,
    training_table,
)

PHYSICS_TITLE = "What training adds over the physics alone"
PHYSICS_TOLD = (
    "The physics layer alone is the network's fixed first layer without any trained weight: each frame's estimate from "
    "its own light and the probe, averaged over the frames of its group. It is no control that an arm must beat; what "
    "a trained arm has over it is what its training adds, and where it has nothing the training adds nothing."
)
TRAIN_TITLE = "LSQML on the training half"
TRAIN_TOLD = (
    "LSQML needs no training, so the half that the networks are trained on is a second object to it: another part of "
    "the same one, behind the guard band. It is held against the truth on its own region, and enters no verdict."
)
SPREAD = (
    "Each seed is one value. The spread of two things that are compared is the larger of their ranges (greatest less "
    "least over the seeds). Better (or worse) means: the means differ by more than that, and the ranges do not meet; "
    "with one seed nothing can be said. An arm whose shift against the reference is over the cap is not registered: "
    "its numbers count in no mean, and no verdict is given there. Controls count all the same."
)


def html(report: Report) -> str:
    """The page."""
    sections = [
        ("found", "What was found", _found(report)),
        ("physics", PHYSICS_TITLE, _physics(report)),
        ("dose", "Quality against dose", _quality(report)),
        ("light", "Quality against photons per pixel of the object", _light(report)),
        ("frc", "Fourier ring correlation", _frc(report)),
        *([("train-half", TRAIN_TITLE, _train_half(report))] if train_half_table(report)[1] else []),
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
    head, rows = answers(report, physics=True)
    if rows:
        lines += ["", f"## {PHYSICS_TITLE}", "", PHYSICS_TOLD, "", *_markdown_table(head, rows)]
        lines += ["", *_markdown_table(*margins(report))]
    for metric in report.shown():
        lines += ["", f"## {title_of(metric)}", "", *_markdown_table(*metric_table(report, metric))]
    head, rows = train_half_table(report)
    lines += ["", f"## {TRAIN_TITLE}", "", TRAIN_TOLD, "", *_markdown_table(head, rows)] if rows else []
    lines += ["", "## Trainings", "", trained(report)]
    head, rows = training_table(row for row in report.trainings if row["error"])
    lines += ["", *_markdown_table(head, rows)] if rows else []
    lines += ["", "## What is missing, and why", ""]
    head, rows = skip_table(report.found.skips)
    lines += _markdown_table(head, rows) if rows else ["Nothing."]
    lines += ["", "## How it was made", "", *(f"- {text}" for text in (*report.notes, SPREAD))]
    return "\n".join(lines) + "\n"


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


def _found(report: Report) -> str:
    head, rows = answers(report)
    told = states(report)
    if not rows:
        return web.paragraph("There is nothing to compare.") + (web.paragraph(told) if told else "")
    note = "Each cell counts the views. Better and worse mean: by more than the spread over the seeds. " + SPREAD
    caption = "Who was better, at which dose"
    return web.table(caption, head, rows) + web.paragraph(note, "faint") + (web.paragraph(told) if told else "")


def _physics(report: Report) -> str:
    head, rows = answers(report, physics=True)
    if not rows:
        return web.paragraph("No trained arm was held against it.")
    head_of, by_how_much = margins(report)
    return (
        web.paragraph(PHYSICS_TOLD)
        + web.table("Was a trained arm better than the physics layer alone, at which dose", head, rows)
        + web.folded("By how much, at each condition", web.table("By how much", head_of, by_how_much), opened=True)
    )


def _quality(report: Report) -> str:
    out = []
    for metric in report.shown():
        out.append(f"<h3>{escape(title_of(metric))}</h3>")
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
            out.append(f"<h3>{escape(title_of(metric))}</h3>" + web.charts(f"light-{metric}", found))
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


def _train_half(report: Report) -> str:
    return web.paragraph(TRAIN_TOLD) + web.table(TRAIN_TITLE, *train_half_table(report))


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
        "over-physics": "Is a trained arm better than the physics layer alone?",
        "against-lsqml": "Does a trained arm win against LSQML?",
    }
    out = []
    for question, title in questions.items():
        rows = [
            (
                place_words(v.place),
                title_of(v.metric),
                TITLES.get(v.arm, v.arm),
                f"{v.other} photons" if question == "dose" else TITLES.get(v.other, v.other),
                number(v.margin, signed=True),
                number(v.spread),
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
            head, rows = metric_table(report, metric)
            out.append(web.folded(title_of(metric), web.table(title_of(metric), head, rows)))
    return "".join(out) or web.paragraph("There are none.")


def _trainings(report: Report) -> str:
    head, rows = training_table(report.trainings)
    caption = "Every training and control that was planned"
    told = web.paragraph(trained(report))
    bad = training_table(row for row in report.trainings if row["error"])[1]
    if bad:
        told += web.table("Those that came to nothing, and why", head, bad)
    return told + (web.folded(caption, web.table(caption, head, rows)) if rows else "")


def _skips(report: Report) -> str:
    head, rows = skip_table(report.found.skips)
    return web.table("Conditions and arms without a number, or with a doubtful one", head, rows)


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    return [line(head), line(["---"] * len(head)), *(line(row) for row in rows)]
