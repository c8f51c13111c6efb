"""The page of a drift study and its Markdown twin: every number of it comes from the tables, none is typed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobs.dose import page as web
from jobs.drift.summary_find import METRICS, REAL
from jobs.drift.summary_gather import HELD
from jobs.drift.summary_words import Report, conclusions, number, over_seeds

SPREAD = "The spread is the larger of the two ranges over seeds; with fewer than two seeds nothing is answered."
FLOOR = (
    "The floor is what held-out real images reach in the place of samples, against the same reference. A model may lie "
    "closer (its samples are spread evenly over the classes, those images by chance): that does not make it better "
    "than real. A distance falls with the number of images: where there are more samples than held-out images, "
    "the one of matched n is compared with the floor."
)
NEAREST = (
    "Cosine of pixels, less the mean training image, to the nearest image of the train split. Samples that come closer "
    "than held-out real images would be remembered, not made."
)
_QUESTIONS = {
    "worse": "Are the controls worse than the raw model?",
    "alpha": "Does alpha do anything?",
    "untrained": "Is the model better than the untrained one?",
    "floor": f"How far from {REAL}?",
}
# What an answer is called where it is asked for.
_WORDS = {
    "worse": {"worse": "worse, as it must be", "better": "better, though it must not be"},
    "floor": {"worse": "short of it", "better": "beyond it"},
}
Rows = list[tuple[str, ...]]
Table = tuple[Sequence[str], Rows]

_HEAD = ("subject", "against", "metric", "margin", "spread", "seeds", "answer")


def html(report: Report) -> str:
    """The page, self-contained."""
    p = report.params
    what = "variant" if p.template == "ablation" else "alpha"
    caption = f"Mean ± standard deviation over the seeds, by {what}"
    sections = [
        ("samples", "Samples", _pictures(report)),
        (
            "numbers",
            f"Numbers by {what}",
            web.table(caption, *_numbers(report), right=range(1, 7)) + _panels(report, what),
        ),
        ("found", "What was asked", _found_html(report)),
        (
            "memory",
            "Nearest training images",
            web.paragraph(NEAREST) + web.table("By node", *_memory(report), right=range(1, 7)),
        ),
    ]
    if p.template == "package":
        sections.append(
            ("last", "The last checkpoints", web.table("Of the first seed", *_last(report), right=range(1, 4)))
        )
    sections.append(("audits", "Audits", web.table("Checks that were made again", *_audits(report), right=(2, 3))))
    failed = ("failed", "What did not succeed", web.table("Nodes without a result, and why", *_bad(report)))
    sections.insert(0 if report.bad else len(sections), failed)
    return web.page(p.title, sections, web.bullets([*conclusions(report), *_rule(report)]))


def markdown(report: Report) -> str:
    """The same as text."""
    p = report.params
    out = [f"# {p.title}", "", *(f"- {line}" for line in [*conclusions(report), *_rule(report)]), ""]
    out += [
        "## Numbers",
        "",
        *_markdown(*_numbers(report)),
        "",
        *(f"- {line}" for line in _told(report)),
        "",
        FLOOR,
        "",
    ]
    out += ["## What was asked", ""]
    for title, rows in _answers(report):
        out += [f"### {title}", "", *_markdown(_HEAD, rows), ""]
    out += [SPREAD, "", "## Nearest training images", "", NEAREST, "", *_markdown(*_memory(report)), ""]
    if p.template == "package":
        out += ["## The last checkpoints", "", *_markdown(*_last(report)), ""]
    out += ["## Audits", "", *_markdown(*_audits(report)), "", "## What did not succeed", ""]
    out += [*(_markdown(*_bad(report)) if report.bad else ["Everything succeeded."]), ""]
    return "\n".join(out)


def _rule(report: Report) -> list[str]:
    return [f"Rule: {report.params.rule}."] if report.params.rule else []


def _told(report: Report) -> list[str]:
    """What the metrics are."""
    return [f"{METRICS[m].name}: {METRICS[m].told}." for m in METRICS if any(c.metric == m for c in report.cells)]


def _answers(report: Report) -> Iterable[tuple[str, Rows]]:
    for question, title in _QUESTIONS.items():
        rows: Rows = [
            (
                _named(v.subject, report),
                _named(v.other, report),
                METRICS[v.metric].name,
                number(v.margin, signed=True),
                number(v.spread),
                str(v.seeds),
                _WORDS.get(question, {}).get(v.answer, v.answer),
            )
            for v in report.of(question)
        ]
        if rows:
            yield title, rows


def _named(name: str, report: Report) -> str:
    plain = report.params.template == "ablation" or name in (REAL, "untrained")
    return name if plain else f"alpha {name}"


def _found_html(report: Report) -> str:
    out = "".join(web.table(title, _HEAD, rows, right=(3, 4, 5)) for title, rows in _answers(report))
    return (out or web.paragraph("There is nothing to compare.")) + web.paragraph(SPREAD, "faint")


def _numbers(report: Report) -> Table:
    """A row a variant or an alpha, a column a metric: mean ± standard deviation over the seeds."""
    metrics = [m for m in METRICS if any(c.metric == m for c in report.cells)]
    rows: Rows = []
    for name in dict.fromkeys(c.name for c in report.cells):
        mine = [cell for m in metrics if (cell := report.cell(name, m)) is not None]
        lost = sorted({seed for cell in mine for seed in cell.lost})
        note = f"seed {', '.join(map(str, lost))} lost" if lost else ""
        seeds = str(max((c.n for c in mine), default=0))
        rows.append((_named(name, report), *(over_seeds(report.cell(name, m)) for m in metrics), seeds, note))
    if report.floor:
        rows.append((REAL, *(number(report.floor.get(m)) for m in metrics), "–", "the floor"))
    return ("of", *(METRICS[m].name for m in metrics), "seeds", "note"), rows


def _panels(report: Report, what: str) -> str:
    """A figure a metric, with what the metric is; and what the floor is."""
    drawn = [
        web.picture(
            path,
            f"{METRICS[m].name} by {what}; its numbers are in the table above",
            f"{METRICS[m].name}: {METRICS[m].told}.",
        )
        for m, path in report.panels.items()
    ]
    return _grid(drawn, "min(17rem,100%)") + web.paragraph(f"A point is a seed, a bar their mean. {FLOOR}", "faint")


def _pictures(report: Report) -> str:
    """The first samples of each variant or alpha."""
    drawn = [
        web.picture(p.path, f"samples of {p.name}, a column a class", f"{p.name}: {p.node}, seed {p.seed}")
        for p in report.pictures
    ]
    if not drawn:
        return web.paragraph("There are none.")
    return web.paragraph("A column a class, the first of each.", "faint") + _grid(drawn, "min(17rem,45%)")


def _grid(figures: Sequence[str], least: str) -> str:
    """Beside each other, as many as the width has room for. `least`: CSS width of each."""
    style = f"display:grid;gap:.2rem 1rem;grid-template-columns:repeat(auto-fill,minmax({least},1fr))"
    return f'<div style="{style}">{"".join(figures)}</div>'


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
