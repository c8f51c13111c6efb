"""Runs `dose-summary`: reads the comparisons, writes tables, figures, page and Markdown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jobs.dose.conditions import TRAIN_HALF
from jobs.dose.gather import BY_NAME, METRICS, Found, Skip, gather
from jobs.dose.manifest import trainings
from jobs.dose.report import html, markdown
from jobs.dose.report_tables import MAIN, Report
from jobs.dose.summary import Cell, Place, Verdict, cells, verdicts
from jobs.dose.summary_figure import draw_quality

if TYPE_CHECKING:
    from core.kind import Context
    from jobs.dose_kinds.summary import SummaryParams

PAGE, TEXT, FIGURE, MANIFEST = "index.html", "summary.md", "quality.png", "trainings.json"


def run(ctx: Context) -> None:
    """See the module.

    Raises:
        BadInput: an input is no comparison, or one of another condition.
    """
    params: SummaryParams = ctx.params
    found = gather(ctx, params)
    means = cells(found.values)
    there = {cell.metric for cell in means if cell.n}
    planned = [Place(*_at(words)) for words in params.conditions]
    answers = verdicts(means, [BY_NAME[name] for name in MAIN if name in there], params.arms, planned)
    manifest = trainings(ctx, params)
    rows = {
        "dose_summary": [summary_row(cell, params, found) for cell in means],
        "dose_verdicts": [verdict_row(answer) for answer in answers],
        "dose_skips": [skip_row(skip) for skip in found.skips],
        "dose_trainings": manifest,
    }
    ctx.expect(rows={name: len(made) for name, made in rows.items()}, artifacts=(PAGE, TEXT, FIGURE, MANIFEST))
    for name, made in rows.items():
        if made:
            ctx.results(name, made)
    for skip in found.skips:
        ctx.log(f"{skip.words.condition} {skip.arm or 'all arms'}: {skip.state}: {skip.reason}")
    text = json.dumps({"schema": "lab.dose-trainings/1", "trainings": manifest}, indent=1, sort_keys=True)
    ctx.artifact(MANIFEST).write_text(text + "\n", "utf-8")
    report = Report(
        params.title,
        # `halves` of a measured set, too. The training half is another part of the object, and has a table of its own.
        tuple(a for a in dict.fromkeys((*params.arms, *(cell.arm for cell in means))) if a != TRAIN_HALF),
        tuple(params.notes),
        len(params.conditions),
        found,
        means,
        answers,
        tuple(manifest),
    )
    ctx.artifact(PAGE).write_text(html(report), "utf-8")
    ctx.artifact(TEXT).write_text(markdown(report), "utf-8")
    with ctx.artifact(FIGURE).open("wb") as out:
        draw_quality(out, "png", rows["dose_summary"], params.title)


def summary_row(cell: Cell, params: SummaryParams, found: Found) -> dict[str, Any]:
    """A row of the table dose_summary."""
    metric = next(m for m in METRICS if m.name == cell.metric)
    place = cell.place
    planned = {c.seed for c in params.conditions if _at(c) == (place.photons, place.view, place.gridsize)}
    light = [
        value
        for (photons, view, gridsize, seed), value in found.per_pixel.items()
        if (photons, view, gridsize) == (place.photons, place.view, place.gridsize) and seed in cell.seeds
    ]
    return {
        **_place(cell),
        "arm": cell.arm,
        "metric": cell.metric,
        "unit": metric.unit,
        "greater_is_better": metric.greater,
        "seeds": cell.n,
        "lost": len(cell.lost),
        "planned": len(planned),
        "mean": cell.mean if cell.n else None,
        "sd": cell.sd,
        "least": cell.least if cell.n else None,
        "most": cell.most if cell.n else None,
        "photons_per_pixel": sum(light) / len(light) if light and cell.arm != TRAIN_HALF else None,
    }


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """A row of the table dose_verdicts; what is no number is null."""
    return {
        "question": verdict.question,
        **_place(verdict),
        "metric": verdict.metric,
        "arm": verdict.arm,
        "other": verdict.other,
        "margin": _finite(verdict.margin),
        "spread": _finite(verdict.spread),
        "seeds": verdict.n,
        "answer": verdict.answer,
    }


def skip_row(skip: Skip) -> dict[str, Any]:
    """A row of the table dose_skips."""
    words = skip.words
    return {
        "condition": words.condition,
        "photons": words.photons,
        "view": words.view,
        "gridsize": words.gridsize,
        "seed": words.seed,
        "arm": skip.arm,
        "state": skip.state,
        "reason": skip.reason,
        "numbers": json.dumps(dict(skip.numbers), sort_keys=True),
    }


def _place(of: Cell | Verdict) -> dict[str, Any]:
    return {"photons": of.place.photons, "view": of.place.view, "gridsize": of.place.gridsize}


def _at(words: Any) -> tuple[float, str, int]:
    return words.photons, words.view, words.gridsize


def _finite(value: float) -> float | None:
    return value if value == value else None
