"""The kind `drift-summary`: what all nodes of an ablation or a package came to: tables, verdicts, figures, one page.

Inputs are files of the study's jobs, each called as its node; what is absent is listed with how its job ended. It runs
when all have ended, whatever came of them. This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from core.kind import Context, Kind, Params, Question

if TYPE_CHECKING:
    import pyarrow as pa

PAGE, TEXT, DOCUMENT, FIGURE = "index.html", "summary.md", "summary.json", "quality.png"  # artifacts
SUMMARY_TABLE, VERDICTS_TABLE = "drift_summary", "drift_verdicts"

Role = Literal["data", "extractor", "train", "sample", "eval", "nn", "contract", "audit"]


class NodeWords(Params):
    """A node of the study, and what it is about; an input of its name is the file that it should have made."""

    node: str = Field(min_length=1)
    role: Role
    variant: str = ""
    encoder: str = ""
    seed: int | None = None
    alpha: float | None = None
    checkpoint: int | None = None
    control: str = ""


class DriftSummaryParams(Params):
    """See each field."""

    title: str = Field("Drift study", min_length=1, description="of the page")
    template: Literal["ablation", "package"] = Field(description="what is asked: of variants, or of alpha")
    nodes: list[NodeWords] = Field(min_length=1, description="that were planned")
    controls: list[str] = Field(default_factory=list, description="variants that must be worse")
    alpha: float = Field(1.5, ge=1, description="that is claimed")
    rule: str = Field("", description="how the claimed evaluation was chosen, stated beforehand")

    @model_validator(mode="after")
    def _once(self) -> DriftSummaryParams:
        names = [n.node for n in self.nodes]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise ValueError(f"the node {twice} is named twice")
        return self


class DriftSummary(Kind):
    """See the module."""

    name: ClassVar[str] = "drift-summary"
    summary: ClassVar[str] = "what all nodes of a drift study came to: tables, verdicts, one page"
    Params: ClassVar[type[Params]] = DriftSummaryParams
    code: ClassVar[tuple[str, ...]] = (
        "core",
        *(
            f"jobs.drift.summary_{name}"
            for name in ("figure", "find", "gather", "page", "pictures", "run", "tables", "words")
        ),
        "jobs.drift_kinds.summary",
        *(f"jobs.dose.{name}" for name in ("chart", "page")),
    )
    packages: ClassVar[tuple[str, ...]] = ("matplotlib", "pillow", "pyarrow")
    needs: ClassVar[Mapping[str, Any]] = {"cores": 1}
    described: ClassVar[tuple[str, ...]] = ("template",)

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.drift.summary_tables import SUMMARY, VERDICTS

        return {SUMMARY_TABLE: SUMMARY, VERDICTS_TABLE: VERDICTS}

    def questions(self) -> Mapping[str, Question]:
        return {
            "verdicts": Question(
                "what was asked of the study, and the answer beside the spread over seeds",
                "SELECT question, subject, other, metric, margin, spread, seeds, answer FROM drift_verdicts "
                "WHERE {jobs} ORDER BY ALL",
            ),
            "failed": Question(
                "nodes that did not succeed, and why",
                "SELECT node, state, reason FROM drift_summary WHERE {jobs} AND state <> 'succeeded' ORDER BY node",
            ),
        }

    def describe(self, params: DriftSummaryParams) -> str:
        return f"{params.template}, {len(params.nodes)} nodes"

    def run(self, ctx: Context) -> None:
        from jobs.drift.summary_run import run

        run(ctx)
