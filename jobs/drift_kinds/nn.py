"""The kind `drift-nn`: does a model repeat what it was trained on? Cosine to the nearest image of the train split.

    lab run drift-nn --input sample=FOLDER --input data=FOLDER

Inputs are the folders of the jobs drift-sample and drift-data. The baseline is as many held-out real images, of the
same classes in the same numbers. This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from core.kind import Context, Kind, Params, Question

if TYPE_CHECKING:
    import pyarrow as pa


class NnParams(Params):
    """See each field."""

    n: int | None = Field(None, ge=1, description="samples, and held-out images [as many as both have of each class]")
    seed: int = Field(0, ge=0, description="of the choice of subsets")


class DriftNn(Kind):
    """See the module."""

    name: ClassVar[str] = "drift-nn"
    summary: ClassVar[str] = "cosine of samples, and of held-out images, to the nearest image of the train split"
    Params: ClassVar[type[Params]] = NnParams
    code: ClassVar[tuple[str, ...]] = (
        "core",
        "kernels.devices",
        "kernels.drifting.metrics_nearest",
        *(f"jobs.drift.{name}" for name in ("digests", "eval_tables", "given", "neighbours", "subsets")),
        *(f"jobs.drift_kinds.{name}" for name in ("names", "nn")),
        "jobs.dose.npz",
    )
    packages: ClassVar[tuple[str, ...]] = ("numpy",)
    needs: ClassVar[Mapping[str, Any]] = {"cores": 1}
    described: ClassVar[tuple[str, ...]] = ("n", "seed")

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.drift.eval_tables import NN_TABLE

        return {"drift_nn": NN_TABLE}

    def questions(self) -> Mapping[str, Question]:
        return {
            "memory": Question(
                "how much closer samples come to the train split than held-out images do",
                "SELECT s.job, s.n, s.p95, h.p95 AS held_p95, s.p95 - h.p95 AS excess, s.median, h.median AS "
                "held_median, s.label_match, h.label_match AS held_label_match FROM (SELECT * FROM drift_nn WHERE "
                "{jobs} AND which = 'samples') s JOIN (SELECT * FROM drift_nn WHERE {jobs} AND which = 'held') h "
                "USING (job) ORDER BY s.job",
            )
        }

    def describe(self, params: NnParams) -> str:
        return f"{'all' if params.n is None else params.n}, seed {params.seed}"

    def run(self, ctx: Context) -> None:
        from jobs.drift.neighbours import run

        run(ctx)
