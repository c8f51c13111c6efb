"""The kind `drift-extractor`: a frozen feature extractor, its contract, and the features of the reference split.

    lab run drift-extractor --input data=FOLDER                      # cached: a classifier trained on the train split
    lab run drift-extractor --input data=FOLDER --set profile=proxy  # random frozen weights; supports a smoke test only

The input is the folder of a drift-data job. This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from core.kind import Context, Kind, Params

if TYPE_CHECKING:
    import pyarrow as pa

_CACHED = ("epochs", "rate", "batch")


class ExtractorParams(Params):
    """See each field."""

    profile: Literal["proxy", "cached"] = Field("cached", description="proxy: random weights; cached: trained ones")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="of the weights and of the order of training")
    feature_dim: int = Field(64, ge=2, le=2048, description="numbers that stand for an image")
    epochs: int = Field(40, ge=1, le=10000, description="of training; profile=cached")
    rate: float = Field(2e-3, gt=0, le=1, description="of Adam; profile=cached")
    batch: int = Field(64, ge=1, description="images a step; profile=cached")
    is_splits: int = Field(5, ge=1, le=100, description="of the inception score")

    @model_validator(mode="after")
    def _goes_together(self) -> ExtractorParams:
        fields = type(self).model_fields
        for name in _CACHED if self.profile == "proxy" else ():
            if getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} means nothing with profile=proxy, which trains nothing: leave it out")
        return self


class DriftExtractor(Kind):
    """See the module."""

    name: ClassVar[str] = "drift-extractor"
    summary: ClassVar[str] = "a frozen feature extractor with its evaluation contract and reference statistics"
    Params: ClassVar[type[Params]] = ExtractorParams
    code: ClassVar[tuple[str, ...]] = (
        "core",
        "kernels.devices",
        "kernels.drifting.metrics",
        *(f"jobs.drift.{name}" for name in ("contract", "digests", "eval_tables", "extractor", "extractor_net")),
        *(f"jobs.drift.{name}" for name in ("extractor_train", "given")),
        *(f"jobs.drift_kinds.{name}" for name in ("extractor", "names")),
        "jobs.dose.npz",
    )
    packages: ClassVar[tuple[str, ...]] = ("numpy", "torch")
    needs: ClassVar[Mapping[str, Any]] = {"cores": 1}
    described: ClassVar[tuple[str, ...]] = ("profile", "seed")

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.drift.eval_tables import EXTRACTOR_TABLE

        return {"drift_extractor": EXTRACTOR_TABLE}

    def describe(self, params: ExtractorParams) -> str:
        return f"{params.profile}, {params.feature_dim} features, seed {params.seed}"

    def run(self, ctx: Context) -> None:
        from jobs.drift.extractor import run

        run(ctx)
