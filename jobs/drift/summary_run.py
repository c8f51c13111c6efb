"""Runs `drift-summary`: reads what the nodes left, writes tables, verdicts, document, figure, page and Markdown."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from core.fsio import write_atomic
from jobs.drift.summary_figure import Drawing
from jobs.drift.summary_find import Verdict, cells, floors, of_package, of_variants
from jobs.drift.summary_gather import HELD, Told, Value, gather
from jobs.drift.summary_page import html, markdown
from jobs.drift.summary_pictures import pictures
from jobs.drift.summary_words import Report
from jobs.drift_kinds.summary import DOCUMENT, FIGURE, PAGE, SUMMARY_TABLE, TEXT, VERDICTS_TABLE

if TYPE_CHECKING:
    from core.kind import Context
    from jobs.drift_kinds.summary import DriftSummaryParams

SCHEMA = "lab.drift-summary/1"


def run(ctx: Context) -> None:
    """See the module.

    Raises:
        BadInput: an input is not what its node makes.
    """
    params: DriftSummaryParams = ctx.params
    told = gather(ctx, params)
    ablation = params.template == "ablation"
    found = cells(told, "variant" if ablation else "alpha")
    if not ablation:
        found = tuple(sorted(found, key=lambda c: float(c.name)))
    floor = floors(told)
    answers = of_variants(found, floor, params.controls) if ablation else of_package(found, told, floor, params.alpha)
    rows = [row for node in told for row in summary_rows(node, params)]
    verdicts = [verdict_row(v) for v in answers]
    ctx.expect(rows={SUMMARY_TABLE: len(rows), VERDICTS_TABLE: len(verdicts)}, artifacts=(PAGE, TEXT, DOCUMENT, FIGURE))
    ctx.results(SUMMARY_TABLE, rows)
    if verdicts:
        ctx.results(VERDICTS_TABLE, verdicts)
    for node in told:
        if not node.good:
            ctx.log(f"{node.words.node} {node.state}: {node.reason}")
    document = {"schema": SCHEMA, "title": params.title, "rule": params.rule, "rows": rows, "verdicts": verdicts}
    write_atomic(ctx.artifact(DOCUMENT), json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n")
    drawing = Drawing(found, floor, params.title, x_label="variant" if ablation else "alpha")
    drawing.save(ctx.artifact(FIGURE))
    shown = pictures(told, params.template, ctx.work)
    report = Report(params, told, found, floor, tuple(answers), shown, drawing.panels(ctx.work))
    write_atomic(ctx.artifact(PAGE), html(report))
    write_atomic(ctx.artifact(TEXT), markdown(report))


def summary_rows(node: Told, params: DriftSummaryParams) -> list[dict[str, Any]]:
    """Rows of the table drift_summary: one a number, or one that says how the node ended."""
    return [_row(node, value, params) for value in node.values or (None,)]


def _row(node: Told, value: Value | None, params: DriftSummaryParams) -> dict[str, Any]:
    words = node.words
    held = value is not None and value.control == HELD
    finite = value is not None and math.isfinite(value.value)
    return {
        "node": words.node,
        "role": words.role,
        "variant": words.variant or None,
        "encoder": words.encoder or None,
        "seed": words.seed,
        # Real images in the place of samples have no strength of guidance.
        "alpha": None if held else words.alpha,
        "checkpoint": words.checkpoint,
        "control": value.control if value is not None else words.control,
        "state": node.state,
        "reason": node.reason or ("it is no number" if value is not None and not finite else None),
        "metric": value.metric if value is not None else None,
        "value": value.value if value is not None and finite else None,
        "std": value.std if value is not None and value.std is not None and math.isfinite(value.std) else None,
        "n": value.n if value is not None else None,
        "contract": (value.contract or None) if value is not None else None,
        "samples": (value.samples or None) if value is not None else None,
        "claimed": _claimed(node, params) and not held,
    }


def _claimed(node: Told, params: DriftSummaryParams) -> bool:
    words = node.words
    return (
        params.template == "package"
        and words.role in ("sample", "eval", "nn", "contract", "audit")
        and not words.control
        and words.checkpoint is None
        and words.alpha == params.alpha
    )


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """A row of the table drift_verdicts; what is no number is null."""
    return {
        "question": verdict.question,
        "subject": verdict.subject,
        "other": verdict.other,
        "metric": verdict.metric,
        "margin": _finite(verdict.margin),
        "spread": _finite(verdict.spread),
        "seeds": verdict.seeds,
        "answer": verdict.answer,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
