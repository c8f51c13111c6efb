"""The kind `dose-data`: the patterns of one dose, simulated in two halves of a scan, or thinned from measured counts.

    lab run dose-data --set photons=1e4                                  # two photographs, a simulated probe
    lab run dose-data --set source=mine.npz                              # the object, probe and scan of a user's file
    lab run dose-data --set mode=measured --set source=star.npz.bz2 --set photons=1e4

This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from core.errors import BadInput
from core.kind import Context, Kind, Params

if TYPE_CHECKING:
    import pyarrow as pa

SOURCE = "source"  # name of its input

_SCAN = ("patch", "rows", "cols", "step", "jitter", "margin", "disc", "curvature", "amplitude", "phase")
_OBJECT = ("low", "high", "span")
_HALVES = ("train_fraction",)
_MEASURED = ("half", "scan_order", "dc")


class DoseDataParams(Params):
    """See each field."""

    photons: float | None = Field(1e4, gt=0, description="mean a pattern; null: all that were measured")
    seed: int = Field(42, ge=0, description="of the jitter and of the photons")
    mode: Literal["synthetic", "measured"] = Field("synthetic", description="what the source is")
    source: str | None = Field(None, description="an NPZ: object, probe and scan, or measured counts [photographs]")

    patch: int = Field(64, ge=8, le=1024, multiple_of=2, description="N, the side of a pattern, px")
    rows: float = Field(513.0, ge=0, le=16384, description="that the scan spans along y, px")
    cols: float = Field(224.0, ge=0, le=16384, description="that the scan spans along x, px")
    step: float = Field(16.0, gt=0, description="of the raster, px")
    jitter: float = Field(3.0, ge=0, description="by which a point is moved at most, px")
    margin: int = Field(2, ge=1, description="of object around what the patterns see, px")
    train_fraction: float = Field(0.5, gt=0, lt=1, description="of the rows that the guard band leaves")
    disc: float = Field(0.6, gt=0, le=0.85, description="diameter of the simulated probe, patterns' sides")
    curvature: float = Field(1.5, ge=0, description="of its phase, radians from the middle to the edge")
    amplitude: str = Field("camera", description="the photograph that is the object's amplitude")
    phase: str = Field("moon", description="the photograph that is its phase")
    low: float = Field(0.5, description="amplitude of the darkest hundredth")
    high: float = Field(1.0, description="amplitude of the brightest hundredth")
    span: float = Field(2 * math.pi / 3, description="phase from the darkest to the brightest, rad, centred on 0")

    half: Literal[0, 1, 2] = Field(0, description="of the photons, that `train` is to hold; 0: both; mode=measured")
    scan_order: Literal["yx", "xy"] = Field("yx", description="columns of a measured scan")
    dc: Literal["corner", "centre"] = Field("corner", description="where measured counts have the zero frequency")

    @field_validator("source")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        return None if value is None else str(Path(value).expanduser().absolute())

    @model_validator(mode="after")
    def _goes_together(self) -> DoseDataParams:
        measured = self.mode == "measured"
        if measured and self.source is None:
            raise ValueError("mode=measured needs source=FILE, the measured set")
        if not measured and self.photons is None:
            raise ValueError("a simulation needs photons, the mean a pattern")
        idle: tuple[str, ...] = () if measured else _MEASURED
        if self.source is not None:
            idle += (*_SCAN, *_OBJECT)
        if measured:
            idle += _HALVES
        fields = type(self).model_fields
        for name in idle:
            if getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} means nothing with the other parameters that are given: leave it out")
        if self.amplitude == self.phase:
            raise ValueError(f"amplitude and phase are both {self.phase}: name two photographs")
        if not 0 < self.low < self.high:
            raise ValueError(f"an amplitude from low={self.low} to high={self.high} is none")
        return self


class DoseData(Kind):
    """See the module."""

    name: ClassVar[str] = "dose-data"
    summary: ClassVar[str] = "ptychographic patterns of one dose, simulated or thinned, training and test apart"
    Params: ClassVar[type[Params]] = DoseDataParams
    code: ClassVar[tuple[str, ...]] = (
        "core",
        *(f"kernels.diffraction.{name}" for name in ("dose", "forward", "probe", "scan", "seeds", "split")),
        *(f"jobs.dose.{name}" for name in ("data_run", "data_schema", "dataset", "npz", "objects", "reconstruction")),
        "jobs.dose.simulate",
        "jobs.dose.sources",
        "jobs.dose_kinds.data",
        "jobs.train.data",
    )
    packages: ClassVar[tuple[str, ...]] = ("numpy", "scikit-image", "pillow")
    described: ClassVar[tuple[str, ...]] = ("photons", "seed")

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.dose.data_schema import DOSE_DATA

        return {"dose_data": DOSE_DATA}

    def describe(self, params: DoseDataParams) -> str:
        dose = "all photons" if params.photons is None else f"{params.photons:g} photons"
        of = Path(params.source).name if params.source is not None else f"{params.amplitude} and {params.phase}"
        half = f", half {params.half}" if params.half else ""
        return f"{dose} of {of}, seed {params.seed}{half}"

    def inputs(self, params: DoseDataParams) -> dict[str, Path]:
        if params.source is None:
            return {}
        path = Path(params.source)
        if not path.is_file():
            raise BadInput(f"source={path} is no file", hint="correct the path")
        return {SOURCE: path}

    def run(self, ctx: Context) -> None:
        from jobs.dose.data_run import make

        make(ctx)


def files(params: Any) -> tuple[str, ...]:
    """The datasets that a job with these parameters makes."""
    return ("train", "half_a", "half_b") if params.mode == "measured" else ("train", "test")
