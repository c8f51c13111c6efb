"""The `kernel` job: one backend of one kernel on one seeded batch, held against the float64 oracle.

Short and pure, so a sweep over shapes, shifts and precisions runs in warm workers. A cell whose numbers are wrong is
a failed cell; and each cell proves that its own check can fail. The whole matrix with real photographs, mutants and
processes of their own is the `parity` job.

This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from core.kind import Context, Kind
from core.kind import Params as BaseParams

if TYPE_CHECKING:
    import pyarrow as pa

BACKENDS = ("numpy", "torch")
MAX_PIXELS = 1 << 24


class Params(BaseParams):
    """What is run, and on what."""

    name: Literal["translation"] = Field("translation", description="the kernel")
    backend: str = Field("torch", description="numpy or torch")
    batch: int = Field(4, ge=1, le=4096, description="images")
    height: int = Field(64, ge=4, le=4096, description="pixels")
    width: int = Field(64, ge=4, le=4096, description="pixels")
    dtype: Literal["complex64", "complex128", "float32", "float64"] = Field(
        "complex64", description="precision of the backend; the oracle is always double"
    )
    dx: float = Field(0.5, description="how far every image moves to the right, in pixels")
    dy: float = Field(-0.25, description="how far every image moves down, in pixels")
    amplitude: float = Field(0.0, ge=0, description="each image moves by up to this much more, either way, at random")
    seed: int = Field(0, ge=0, lt=2**32, description="of the images and of what is random in the shifts")
    repeats: int = Field(1, ge=1, le=1000, description="timed calls; the quickest counts")

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, value: str) -> str:
        if value.startswith("tensorflow"):
            raise ValueError("TensorFlow must not share a process with torch; `lab run parity` gives it one of its own")
        if value not in BACKENDS:
            raise ValueError(f"{value!r} is none of {', '.join(BACKENDS)}")
        return value

    @field_validator("dx", "dy", "amplitude")
    @classmethod
    def _finite(cls, value: float) -> float:
        if not math.isfinite(value):
            raise ValueError(f"must be a finite number, not {value}")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Params:
        pixels = self.batch * self.height * self.width
        if pixels > MAX_PIXELS:
            raise ValueError(f"{self.batch}×{self.height}×{self.width} are {pixels} pixels, more than {MAX_PIXELS}")
        for name, shift, size in (("dx", self.dx, self.width), ("dy", self.dy, self.height)):
            if abs(shift) + self.amplitude >= size:
                raise ValueError(
                    f"{name}={shift:g} ± {self.amplitude:g} may move an image of {size} pixels out of sight"
                )
        return self


class Kernel(Kind):
    """See the module."""

    name: ClassVar[str] = "kernel"
    summary: ClassVar[str] = "one backend of a kernel on one batch, against the float64 oracle (for sweeps)"
    Params: ClassVar[type[BaseParams]] = Params
    packages: ClassVar[tuple[str, ...]] = ("numpy", "torch")
    pooled: ClassVar[bool] = True

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.kernel.schema import KERNEL

        return {"kernel": KERNEL}

    def describe(self, params: Any) -> str:
        p = params
        shift = f"by ({p.dx:g}, {p.dy:g})" + (f" ± {p.amplitude:g}" if p.amplitude else "")
        return f"{p.name}: {p.backend} at {p.dtype}, {p.batch}×{p.height}×{p.width} {shift}"

    def run(self, ctx: Context) -> None:
        from jobs.kernel.run import run

        run(ctx)
