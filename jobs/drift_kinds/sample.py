"""The kind `drift-sample`: images out of a trained generator, the classes in turn, at one strength of guidance.

    lab run drift-sample --set alpha=1.5 --set n=500 --input train=FOLDER     # the artifacts of a drift-train job

This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from core.kind import Context, Kind, Params

if TYPE_CHECKING:
    import pyarrow as pa

TRAIN = "train"  # name of its input: a folder
TABLE = "drift_samples"
SAMPLES, DOCUMENT, PREVIEW = "samples.npz", "samples.json", "preview.png"


class DriftSampleParams(Params):
    """See each field."""

    n: int = Field(1000, ge=1, le=1_000_000, description="images, the classes in turn")
    alpha: float = Field(1.5, ge=1, description="strength of guidance; at most what was trained")
    seed: int = Field(0, ge=0, lt=2**31, description="of the noise")
    checkpoint: int | None = Field(None, ge=0, description="step of one of the models/ that were left [the last]")


class DriftSample(Kind):
    """See the module."""

    name: ClassVar[str] = "drift-sample"
    summary: ClassVar[str] = "images out of a drift-trained generator, at one strength of guidance"
    Params: ClassVar[type[Params]] = DriftSampleParams
    code: ClassVar[tuple[str, ...]] = (
        "core",
        "jobs.dose.npz",
        *(f"jobs.drift.{name}" for name in ("digests", "generator", "sample", "train_files")),
        "jobs.drift_kinds.sample",
    )
    packages: ClassVar[tuple[str, ...]] = ("torch", "numpy", "pillow")
    needs: ClassVar[Mapping[str, Any]] = {"cores": 1}
    described: ClassVar[tuple[str, ...]] = ("alpha", "seed", "checkpoint")

    def tables(self) -> dict[str, pa.Schema]:
        import pyarrow as pa

        columns = {
            "sample_id": pa.string(),
            "label": pa.int64(),
            "alpha": pa.float64(),
            "seed": pa.int64(),
            "step": pa.int64(),  # of the training
            "digest": pa.string(),  # SHA-256 of the image's float32 bytes
        }
        schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])
        return {TABLE: schema.with_metadata({"lab.headline": "sample_id,label,alpha,digest"})}

    def describe(self, params: DriftSampleParams) -> str:
        of = "" if params.checkpoint is None else f" of step {params.checkpoint}"
        return f"{params.n} samples{of}, alpha {params.alpha:g}, seed {params.seed}"

    def run(self, ctx: Context) -> None:
        from jobs.drift.sample import run

        run(ctx)
