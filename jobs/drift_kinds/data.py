"""The kind `drift-data`: small images in three splits: train, reference and held out.

    lab run drift-data                              # the 1797 digits that lie in scikit-learn's wheel
    lab run drift-data --set source=PICTURES --set side=16 --set reference=200 --set held=200

Of a folder of pictures each subfolder is a class. This module stays light: the command line imports it to check
parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from core.kind import Context, Kind, Params

if TYPE_CHECKING:
    import pyarrow as pa

SOURCE = "source"  # name of its input: the user's folder
TABLE = "drift_data"
DIGITS, NOISE = "digits", "noise"


class DriftDataParams(Params):
    """See each field."""

    source: str = Field(DIGITS, description="digits, noise (a control: nothing can be learned), or a folder of images")
    reference: int = Field(500, ge=2, description="images that samples are compared with")
    held: int = Field(500, ge=2, description="images that stand in for samples: the floor of every distance")
    seed: int = Field(0, ge=0, lt=2**31, description="of the splits")
    side: int | None = Field(None, ge=4, le=128, description="px, to which a folder's images are brought [as they are]")
    colour: bool = Field(False, description="of a folder: three channels")
    count: int = Field(1797, ge=8, le=1_000_000, description="of noise: how many images")

    @field_validator("source")
    @classmethod
    def _absolute(cls, value: str) -> str:
        return value if value in (DIGITS, NOISE) else str(Path(value).expanduser().absolute())

    @model_validator(mode="after")
    def _goes_together(self) -> DriftDataParams:
        idle = {"side": not self.is_folder, "colour": not self.is_folder, "count": self.source != NOISE}
        for name in (n for n, is_idle in idle.items() if is_idle):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} means nothing with source={self.source}: leave it out")
        return self

    @property
    def is_folder(self) -> bool:
        return self.source not in (DIGITS, NOISE)


class DriftData(Kind):
    """See the module."""

    name: ClassVar[str] = "drift-data"
    summary: ClassVar[str] = "small images in three splits that share no content: train, reference, held out"
    Params: ClassVar[type[Params]] = DriftDataParams
    code: ClassVar[tuple[str, ...]] = (
        "core",
        "jobs.dose.npz",
        *(f"jobs.drift.{name}" for name in ("data", "dataset", "digests", "sources")),
        "jobs.drift_kinds.data",
    )
    packages: ClassVar[tuple[str, ...]] = ("numpy", "scikit-learn", "pillow")
    needs: ClassVar[Mapping[str, Any]] = {"cores": 1}
    described: ClassVar[tuple[str, ...]] = ("source", "seed")

    def tables(self) -> dict[str, pa.Schema]:
        import pyarrow as pa

        columns = {
            "split": pa.string(),  # train, reference, held
            "n": pa.int64(),
            "classes": pa.int64(),  # that are in it
            "height": pa.int64(),  # px
            "width": pa.int64(),
            "channels": pa.int64(),
            "source": pa.string(),  # digits, noise, folder
            "seed": pa.int64(),
            "sha256": pa.string(),  # of the content, whatever the order
        }
        schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])
        return {TABLE: schema.with_metadata({"lab.headline": "split,n,classes,source,sha256"})}

    def describe(self, params: DriftDataParams) -> str:
        name = Path(params.source).name if params.is_folder else params.source
        return f"{name}, {params.reference} reference, {params.held} held, seed {params.seed}"

    def inputs(self, params: DriftDataParams) -> dict[str, Path]:
        if not params.is_folder:
            return {}
        from jobs.drift.sources import listed

        listed(Path(params.source))
        return {SOURCE: Path(params.source)}

    def run(self, ctx: Context) -> None:
        from jobs.drift.data import run

        run(ctx)
