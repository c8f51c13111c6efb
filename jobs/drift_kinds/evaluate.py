"""The kind `drift-eval`: samples of a drifting model against the reference split, under a contract.

    lab run drift-eval --input sample=FOLDER --input extractor=FOLDER --input data=FOLDER --input train=FOLDER

Inputs are the folders of the jobs drift-sample, drift-extractor and drift-data; with that of drift-train the lineage
and the training encoder are checked too. This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from core.kind import Context, Kind, Params, Question

if TYPE_CHECKING:
    import pyarrow as pa


class EvalParams(Params):
    """See each field."""

    control: Literal["", "untrained"] = Field("", description="what the samples are the control for; empty: none")
    allow_shared_encoder: bool = Field(
        False, description="a waiver: go on though the extractor has weights of the training encoder; caps every claim"
    )
    waiver_reason: str = Field("", max_length=500, description="why; with allow_shared_encoder")

    @model_validator(mode="after")
    def _goes_together(self) -> EvalParams:
        if self.waiver_reason and not self.allow_shared_encoder:
            raise ValueError("waiver_reason means nothing without allow_shared_encoder: leave it out")
        return self


class DriftEval(Kind):
    """See the module."""

    name: ClassVar[str] = "drift-eval"
    summary: ClassVar[str] = "exact Fréchet distance, inception score and accuracy of samples, beside a held-out floor"
    Params: ClassVar[type[Params]] = EvalParams
    code: ClassVar[tuple[str, ...]] = (
        "core",
        "kernels.devices",
        "kernels.drifting.metrics",
        *(f"jobs.drift.{name}" for name in ("contract", "contract_checks", "digests", "eval_tables", "evaluate")),
        *(f"jobs.drift.{name}" for name in ("extractor_net", "given", "leakage", "subsets")),
        *(f"jobs.drift_kinds.{name}" for name in ("evaluate", "names")),
        "jobs.dose.npz",
    )
    packages: ClassVar[tuple[str, ...]] = ("numpy", "torch")
    needs: ClassVar[Mapping[str, Any]] = {"cores": 1}
    described: ClassVar[tuple[str, ...]] = ("control",)

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.drift.eval_tables import EVAL_TABLE, WAIVER_TABLE

        return {"drift_eval": EVAL_TABLE, "drift_waiver": WAIVER_TABLE}

    def questions(self) -> Mapping[str, Question]:
        return {
            "floor": Question(
                "each number beside that of as many held-out real images",
                "SELECT s.job, s.metric, s.value, s.std, f.value AS floor, s.n, f.n AS floor_n, s.alpha, s.seed, "
                "s.control, s.waiver FROM (SELECT * FROM drift_eval WHERE {jobs} AND control <> 'held') s LEFT JOIN "
                "(SELECT * FROM drift_eval WHERE {jobs} AND control = 'held') f ON f.job = s.job AND f.metric = "
                "CASE s.metric WHEN 'is_mean' THEN 'is_floor' ELSE s.metric || '_floor' END ORDER BY ALL",
            ),
            "waivers": Question(
                "evaluations that relaxed a check, and why",
                "SELECT job, waiver, gate, found, reason FROM drift_waiver WHERE {jobs} ORDER BY ALL",
            ),
        }

    def describe(self, params: EvalParams) -> str:
        said = [params.control and f"control {params.control}", params.allow_shared_encoder and "WAIVED shared encoder"]
        return ", ".join(str(s) for s in said if s)

    def run(self, ctx: Context) -> None:
        from jobs.drift.evaluate import run

        run(ctx)
