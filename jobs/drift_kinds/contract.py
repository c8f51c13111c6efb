"""The kind `drift-contract`: does everything that a package cites stand under one evaluation contract?

    lab run drift-contract --input extractor=FOLDER --input data=FOLDER --input sample=FOLDER --input eval=FOLDER ...

Inputs are folders of the package's jobs: `extractor` and `data` must be there, `train`, `sample`, `eval` and `nn` may.
It fails when a check fails; the checks are listed in the log and in its artifact all the same.
This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from core.kind import Context, Kind, Params

if TYPE_CHECKING:
    import pyarrow as pa


class ContractParams(Params):
    """See each field."""

    contract: str = Field("", pattern="^([0-9a-f]{64})?$", description="the hash that a claim cites; empty: any")
    require: list[Literal["train", "sample", "eval", "nn"]] = Field(
        ["train", "sample", "eval", "nn"], description="inputs whose absence is a failed check"
    )
    least_n: int = Field(1, ge=1, description="samples that there must be, each another")


class DriftContract(Kind):
    """See the module."""

    name: ClassVar[str] = "drift-contract"
    summary: ClassVar[str] = "every hash and count of a drift package recomputed against its evaluation contract"
    Params: ClassVar[type[Params]] = ContractParams
    code: ClassVar[tuple[str, ...]] = (
        "core",
        "kernels.devices",
        *(f"jobs.drift.{name}" for name in ("contract", "contract_audit", "contract_checks", "digests")),
        *(f"jobs.drift.{name}" for name in ("eval_tables", "extractor_net", "given", "leakage")),
        *(f"jobs.drift_kinds.{name}" for name in ("contract", "names")),
        "jobs.dose.npz",
    )
    packages: ClassVar[tuple[str, ...]] = ("numpy",)
    needs: ClassVar[Mapping[str, Any]] = {"cores": 1}

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.drift.eval_tables import CONTRACT_TABLE

        return {"drift_contract": CONTRACT_TABLE}

    def describe(self, params: ContractParams) -> str:
        return f"contract {params.contract[:10]}" if params.contract else "what there is"

    def run(self, ctx: Context) -> None:
        from jobs.drift.contract_audit import run

        run(ctx)
