"""The kind `audit`: every number and hash of a drift package made again from its bytes, by other code.

    lab run audit --input data=FOLDER --input extractor=FOLDER --input train=FOLDER --input sample=FOLDER \\
                  --input eval=FOLDER --input nn=FOLDER

It believes no word of a document: it counts, hashes, computes features, distances, scores and neighbours itself, and
then holds what is stated against that. It fails when one of them differs; every check is in its log and artifact.
This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from core.kind import Context, Kind, Params, Question

if TYPE_CHECKING:
    import pyarrow as pa

SAID = "audit.json"  # its artifact


class AuditParams(Params):
    """See each field."""

    contract: str = Field("", pattern="^([0-9a-f]{64})?$", description="the hash that a claim cites; empty: any")
    least_n: int = Field(1, ge=1, description="samples that there must be, each another")
    tolerance: float = Field(1e-8, gt=0, le=1e-3, description="of numbers, relative to them or to 1, the greater")
    redraw: bool = Field(True, description="draw the samples again from the model's weights")
    pixel: float = Field(1e-3, gt=0, le=0.05, description="tolerance of a pixel drawn again; the model is in float32")
    require: list[Literal["train", "sample", "eval", "nn"]] = Field(
        ["train", "sample", "eval", "nn"], description="inputs whose absence is a failed check"
    )


class Audit(Kind):
    """See the module."""

    name: ClassVar[str] = "audit"
    summary: ClassVar[str] = "a drift package recomputed from bytes by other code than made its numbers"
    Params: ClassVar[type[Params]] = AuditParams
    code: ClassVar[tuple[str, ...]] = ("core", "jobs.audit", "jobs.audit_kind")
    packages: ClassVar[tuple[str, ...]] = ("numpy",)
    needs: ClassVar[Mapping[str, Any]] = {"cores": 1}

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.audit.schema import AUDIT

        return {"audit": AUDIT}

    def questions(self) -> Mapping[str, Question]:
        return {
            "checks": Question(
                "how many checks each audit made, by what they are about",
                'SELECT job, "of", count(*) AS checks, count(*) FILTER (NOT passed) AS failed FROM audit '
                "WHERE {jobs} GROUP BY ALL ORDER BY ALL",
            )
        }

    def describe(self, params: AuditParams) -> str:
        return f"contract {params.contract[:10]}" if params.contract else "what there is"

    def run(self, ctx: Context) -> None:
        from jobs.audit.run import run

        run(ctx)
