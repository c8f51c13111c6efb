"""The page of a drift study and its Markdown twin: every number of it comes from the tables, none is typed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.dose import page as web
from jobs.drift.summary_find import METRICS, Cell, Verdict
from jobs.drift.summary_gather import HELD, Told

if TYPE_CHECKING:
    from jobs.drift_kinds.summary import DriftSummaryParams

SPREAD = "The spread is the larger of the two ranges over seeds; with fewer than two seeds nothing is answered."
FLOOR = (
    "The floor is what held-out real images reach in the place of samples, against the same reference: no model can be "
    "asked to lie closer. It depends on how many images there are, so samples and floor have the same number; where "
    "there are more samples than held-out images, fid_matched is the distance of as many."
)
NEAREST = (
    "Cosine of pixels, less the mean training image, to the nearest image of the train split. Samples that come closer "
    "than held-out real images would be remembered, not made."
)
_QUESTIONS = {
    "worse": "Are the controls worse than the raw model?",
    "floor": "How far is each variant from held-out real images?",
    "untrained": "Is the model better than the untrained one?",
    "alpha": "Does alpha do anything?",
}
Rows = list[tuple[str, ...]]
Table = tuple[Sequence[str], Rows]

_HEAD = ("subject", "against", "metric", "margin", "spread", "seeds", "answer")


@dataclass(frozen=True)
class Report:
    """What the page tells.

    Attributes:
        floor: metric -> what held-out real images have.
    """

    params: DriftSummaryParams
    told: tuple[Told, ...]
    cells: tuple[Cell, ...]
    floor: Mapping[str, float]
    verdicts: tuple[Verdict, ...]

    @property
    def bad(self) -> list[Told]:
        return [node for node in self.told if not node.good]


def number(value: float | None, *, signed: bool = False) -> str:
    """Four digits; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:+.4g}" if signed else f"{value:.4g}"


def html(report: Report, figure: Path) -> str:
    """The page, self-contained."""
    p = report.params
    what = "variant" if p.template == "ablation" else "alpha"
    sections = [
        ("found", "What was found", _found_html(report)),
        (
            "numbers",
            f"Numbers by {what}",
            web.table(
                f"Mean over the seeds, and the standard deviation, by {what}", *_numbers(report), right=(2, 3, 4, 5)
            )
            + web.picture(figure, f"each metric by {what}; its numbers are in the table above", "A point is a seed.")
            + web.paragraph(FLOOR, "faint"),
        ),
        ("samples", "Samples", _pictures(report)),
        ("memory", "Nearest training images", web.paragraph(NEAREST) + web.table("By node", *_memory(report))),
    ]
    if p.template == "package":
        sections.append(("last", "The last checkpoints", web.table("Of the first seed", *_last(report))))
    sections += [
        ("audits", "Audits", web.table("Checks that were made again", *_audits(report))),
        ("failed", "What did not succeed", web.table("Nodes without a result, and why", *_bad(report))),
    ]
    return web.page(
        p.title, sections, web.paragraph(_lead(report)) + (web.paragraph(f"Rule: {p.rule}.") if p.rule else "")
    )


def markdown(report: Report) -> str:
    """The same as text."""
    p = report.params
    out = [f"# {p.title}", "", _lead(report), ""]
    if p.rule:
        out += [f"Rule: {p.rule}.", ""]
    out += ["## What was found", ""]
    for title, rows in _answers(report):
        out += [f"### {title}", "", *_markdown(_HEAD, rows), ""]
    out += [SPREAD, "", "## Numbers", "", *_markdown(*_numbers(report)), "", FLOOR, ""]
    out += ["## Nearest training images", "", NEAREST, "", *_markdown(*_memory(report)), ""]
    if p.template == "package":
        out += ["## The last checkpoints", "", *_markdown(*_last(report)), ""]
    out += ["## Audits", "", *_markdown(*_audits(report)), "", "## What did not succeed", ""]
    out += [*(_markdown(*_bad(report)) if report.bad else ["Everything succeeded."]), ""]
    return "\n".join(out)


def _lead(report: Report) -> str:
    seeds = sorted({n.words.seed for n in report.told if n.words.seed is not None})
    said = f"{len(report.told) - len(report.bad)} of {len(report.told)} nodes succeeded, over seeds "
    said += f"{', '.join(map(str, seeds)) or 'none'}."
    return said + (f" {len(report.bad)} did not: they are listed below with the reason." if report.bad else "")


def _answers(report: Report) -> Iterable[tuple[str, Rows]]:
    for question, title in _QUESTIONS.items():
        rows: Rows = [
            (
                _named(v.subject, question),
                _named(v.other, question),
                METRICS[v.metric][0],
                number(v.margin, signed=True),
                number(v.spread),
                str(v.seeds),
                v.answer,
            )
            for v in report.verdicts
            if v.question == question
        ]
        if rows:
            yield title, rows


def _named(name: str, question: str) -> str:
    return f"alpha {name}" if question in ("alpha", "untrained") and name != "untrained" else name


def _found_html(report: Report) -> str:
    out = "".join(
        f"<h3>{escape(title)}</h3>" + web.table(title, _HEAD, rows, right=(3, 4, 5)) for title, rows in _answers(report)
    )
    return (out or web.paragraph("There is nothing to compare.")) + web.paragraph(SPREAD, "faint")


def _numbers(report: Report) -> Table:
    """A row a variant or an alpha, a column a metric: mean ± standard deviation over the seeds."""
    metrics = [m for m in METRICS if any(c.metric == m for c in report.cells)]
    at = {(c.name, c.metric): c for c in report.cells}
    names = list(dict.fromkeys(c.name for c in report.cells))
    rows: Rows = []
    for name in names:
        mine = [at[name, m] for m in metrics if (name, m) in at]
        lost = sorted({seed for cell in mine for seed in cell.lost})
        note = f"seed {', '.join(map(str, lost))} lost" if lost else ""
        seeds = str(max((c.n for c in mine), default=0))
        rows.append((name, *(_over_seeds(at.get((name, m))) for m in metrics), seeds, note))
    if report.floor:
        rows.append(("held-out real images", *(number(report.floor.get(m)) for m in metrics), "–", "the floor"))
    return ("of", *(METRICS[m][0] for m in metrics), "seeds", "note"), rows


def _over_seeds(cell: Cell | None) -> str:
    if cell is None or not cell.n:
        return "–"
    return number(cell.mean) + (f" ± {number(cell.sd)}" if cell.sd is not None else "")


def _pictures(report: Report) -> str:
    """One of each variant or alpha: those of the first seed that has any."""
    first: dict[str, Told] = {}
    for node in report.told:
        if node.picture is not None and node.words.checkpoint is None:
            first.setdefault(_title(report, node), node)
    out = [
        f"<h3>{escape(name)}</h3>"
        + web.picture(
            node.picture,
            f"samples of {name}, the classes side by side",
            f"{node.words.node}: seed {node.words.seed}, a column a class",
        )
        for name, node in first.items()
        if node.picture is not None
    ]
    return "".join(out) or web.paragraph("There are none.")


def _title(report: Report, node: Told) -> str:
    words = node.words
    if report.params.template == "ablation" or words.control:
        return words.variant
    return f"alpha {words.alpha:g}"


def _memory(report: Report) -> Table:
    rows: Rows = []
    for node in (n for n in report.told if n.words.role == "nn" and n.values):
        own = {v.metric: v for v in node.values if v.control != HELD}
        held = {v.metric: v for v in node.values if v.control == HELD}
        rows.append(
            (
                node.words.node,
                str(own["nn_p95"].n),
                number(own["nn_p95"].value),
                number(held["nn_p95"].value),
                number(own["nn_p95"].value - held["nn_p95"].value, signed=True),
                number(own["nn_label_match"].value),
                number(own["nn_copies"].value),
            )
        )
    return ("node", "n", "p95", "p95 of held-out images", "excess", "label match", "copies"), rows


def _last(report: Report) -> Table:
    rows: Rows = []
    seeds = {n.words.seed for n in report.told if n.words.checkpoint is not None}
    for node in report.told:
        words = node.words
        if words.role != "eval" or words.control or words.seed not in seeds or words.alpha != report.params.alpha:
            continue
        values = {v.metric: v for v in node.values if v.control != HELD}
        rows.append(
            (
                "the last" if words.checkpoint is None else f"step {words.checkpoint}",
                *(number(values[m].value) if m in values else "–" for m in ("fid", "is_mean", "accuracy")),
                "claimed" if words.checkpoint is None else "reported, not chosen",
            )
        )
    rows.sort(key=lambda row: row[0] == "the last")
    return ("checkpoint", "Fréchet distance", "inception score", "accuracy", ""), rows


def _audits(report: Report) -> Table:
    rows: Rows = []
    for node in (n for n in report.told if n.words.role in ("contract", "audit")):
        values = {v.metric: v.value for v in node.values}
        made, wrong = values.get("checks"), values.get("checks_failed")
        rows.append((node.words.node, node.words.role, number(made), number(wrong), node.state))
    return ("node", "kind", "checks", "failed", "state"), rows


def _bad(report: Report) -> Table:
    rows: Rows = [(n.words.node, n.state, n.reason) for n in report.bad]
    return ("node", "state", "reason"), rows


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    return [line(head), line(["---"] * len(head)), *(line(row) for row in rows)]
