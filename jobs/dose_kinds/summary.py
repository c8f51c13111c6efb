"""The kind `dose-summary`: what all comparisons of a study say together, over its seeds; tables, figures, one page.

    lab run dose-summary --input compare_d1000_dense_gs2_s42=FOLDER --set 'conditions=[...]'

Inputs are folders of dose-compare jobs, called compare_CONDITION, and the model.json of dose-train jobs, called
model_ARM_CONDITION; what is absent is listed as failed.
This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from pydantic import Field, model_validator

from core.kind import Absent, Context, Kind, Params, Question

if TYPE_CHECKING:
    import pyarrow as pa


class ConditionWords(Params):
    """A condition that the study plans."""

    condition: str = Field(min_length=1)
    photons: float = Field(gt=0)
    view: str = Field(min_length=1)
    gridsize: int = Field(ge=1)
    seed: int


class SkipWords(ConditionWords):
    """A condition that its geometry does not allow."""

    reason: str = Field(min_length=1)
    numbers: dict[str, float] = Field(default_factory=dict)


class SummaryParams(Params):
    """See each field."""

    title: str = Field("Dose study", min_length=1, description="of the page")
    arms: list[str] = Field(min_length=1, description="that each condition should have, controls too")
    conditions: list[ConditionWords] = Field(min_length=1, description="that were planned")
    skips: list[SkipWords] = Field(default_factory=list, description="conditions that were infeasible, and why")
    notes: list[str] = Field(default_factory=list, description="what a reader has to know, sentences")

    @model_validator(mode="after")
    def _once(self) -> SummaryParams:
        names = [c.condition for c in (*self.conditions, *self.skips)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the condition {name} is named twice")
        return self


class DoseSummary(Kind):
    """See the module."""

    name: ClassVar[str] = "dose-summary"
    summary: ClassVar[str] = "what the comparisons of a dose study say together: tables, figures, one page"
    Params: ClassVar[type[Params]] = SummaryParams
    code: ClassVar[tuple[str, ...]] = (
        "core",
        "kernels.devices",
        *(f"kernels.diffraction.{name}" for name in ("bounds", "registration", "windows")),
        *(f"jobs.dose.{name}" for name in ("absent", "chart", "conditions", "gather", "manifest", "page", "report")),
        *(f"jobs.dose.{name}" for name in ("report_charts", "summary", "summary_figure", "summary_run")),
        *(f"jobs.dose.{name}" for name in ("report_tables", "summary_tables")),
        "jobs.dose_kinds.summary",
    )
    packages: ClassVar[tuple[str, ...]] = ("numpy", "matplotlib", "pillow")
    needs: ClassVar[Mapping[str, Any]] = {"cores": 1}

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.dose.summary_tables import SKIPS, SUMMARY, TRAININGS, VERDICTS

        tables = {"dose_summary": SUMMARY, "dose_verdicts": VERDICTS, "dose_skips": SKIPS}
        return {**tables, "dose_trainings": TRAININGS}

    def questions(self) -> Mapping[str, Question]:
        return {
            "verdicts": Question(
                "how often an arm is better by more than the spread over seeds",
                "SELECT question, arm, CASE question WHEN 'dose' THEN 'lower dose' ELSE other END AS against, metric, "
                "count(*) FILTER (answer = 'better') AS better, count(*) FILTER (answer = 'worse') AS worse, "
                "count(*) AS places FROM dose_verdicts WHERE {jobs} GROUP BY ALL ORDER BY ALL",
            ),
            "skips": Question(
                "what there is no number of, and why",
                "SELECT condition, arm, state, reason FROM dose_skips WHERE {jobs} ORDER BY condition, arm",
            ),
        }

    def figure(
        self, out: BinaryIO, form: str, tables: Mapping[str, pa.Table], absent: Sequence[Absent], title: str
    ) -> Sequence[str] | None:
        from jobs.dose.summary_figure import draw_quality

        rows = tables["dose_summary"].to_pylist() if "dose_summary" in tables else []
        if not rows:
            return None
        said = draw_quality(out, form, rows, title)
        return [*said, *(f"not in it: {a.name}: {a.why}" for a in absent)]

    def describe(self, params: SummaryParams) -> str:
        return f"{len(params.conditions)} conditions, {len(params.skips)} skipped"

    def run(self, ctx: Context) -> None:
        from jobs.dose.summary_run import run

        run(ctx)
