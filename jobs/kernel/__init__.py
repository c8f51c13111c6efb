"""The `kernel` job: one backend of one kernel on one input, held against the float64 oracle.

A remote task: what it computed comes back as Arrow, beside a row that says how exact and how fast it was. A job whose
numbers are wrong is a failed job, and each proves that its own check can fail. Short ones run in warm workers, so a
sweep of thousands is one line; long ones, and those whose arrays are large, run by themselves and keep their arrays as
files. The whole matrix with mutants, taps and processes of their own is the `parity` job.

This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from core.errors import BadInput
from core.kind import Context, Kind
from core.kind import Params as BaseParams

if TYPE_CHECKING:
    import pyarrow as pa

BACKENDS = ("numpy", "numba", "torch", "torch-cuda")
MAX_PIXELS = 1 << 25  # two of the largest detectors
MAX_WORK = 1 << 32  # lookups or pixels
POOLED_WORK = 1 << 21  # beyond it a job is long enough to run by itself
POOLED_BYTES = 1 << 20  # of arrays that are kept: they go through the journal
DETECTOR_MM = 204.8  # the side of the detector where the size of a pixel is not said

# What only some kernels know. A parameter of another one is refused, not ignored.
OWN: dict[str, frozenset[str]] = {
    "translation": frozenset({"dtype", "dx", "dy", "amplitude"}),
    "fcell": frozenset(
        {
            *("hkl", "made_grid", "default_f", "cell", "cells", "shape", "wavelength", "pixel_mm", "distance_mm"),
            *("oversample", "phisteps", "osc", "mosaic_domains", "mosaic_spread", "interpolate"),
        }
    ),
    "postfilter": frozenset({"h", "weights", "tile"}),
}
TAKES_FILE = {"translation": "images and offsets", "postfilter": "frames"}
# What a file says itself, by the parameter that names it.
IN_FILE = {
    "input": ("batch", "height", "width", "dtype", "dx", "dy", "amplitude"),
    "hkl": ("made_grid",),
    "weights": ("h",),
}

Finite = Annotated[float, AfterValidator(lambda v: _finite(v))]


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"must be a finite number, not {value}")
    return value


def _numbers(value: Any) -> Any:
    """`--set cells=5,7,9` means a list too."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


class Params(BaseParams):
    """What is run, and on what."""

    name: Literal["translation", "fcell", "postfilter"] = Field("translation", description="the kernel")
    backend: str = Field("torch", description="numpy, numba, torch or torch-cuda")
    batch: int = Field(4, ge=1, le=8192, description="images or frames; an fcell image is always one")
    height: int = Field(64, ge=4, le=8192, description="pixels; of fcell along the slow axis")
    width: int = Field(64, ge=4, le=8192, description="pixels; of fcell along the fast axis")
    seed: int = Field(0, ge=0, lt=2**32, description="of all that is random: images, shifts, the made grid, weights")
    repeats: int = Field(1, ge=1, le=1000, description="timed calls after the first; the quickest counts")
    check: bool = Field(True, description="hold the result against the oracle (slow for large images)")
    keep: bool = Field(False, description="bring the arrays back as well, as Arrow")
    input: str | None = Field(None, description="an .npz file with the arrays, in place of made ones")

    dtype: Literal["complex64", "complex128", "float32", "float64"] = Field(
        "complex64", description="translation: precision of the backend; the oracle is always double"
    )
    dx: Finite = Field(0.5, description="translation: how far every image moves to the right, in pixels")
    dy: Finite = Field(-0.25, description="translation: how far every image moves down, in pixels")
    amplitude: Finite = Field(
        0.0, ge=0, description="translation: each image moves by up to this much more, either way, at random"
    )

    hkl: str | None = Field(None, description="fcell: a file of `h k l F` lines")
    made_grid: bool = Field(True, description="fcell: without a file, a grid made from the seed; false: no grid")
    default_f: Finite = Field(100.0, ge=0, description="fcell: structure factor of what is not listed")
    cell: Annotated[tuple[Finite, ...], BeforeValidator(_numbers)] = Field(
        (100.0, 100.0, 100.0, 90.0, 90.0, 90.0), description="fcell: a,b,c in angstrom, alpha,beta,gamma in degrees"
    )
    cells: Annotated[tuple[int, ...], BeforeValidator(_numbers)] = Field((5, 5, 5), description="fcell: Na,Nb,Nc")
    shape: Literal["square", "round", "gauss", "tophat"] = Field("square", description="fcell: of the crystal")
    wavelength: Finite = Field(0.5, gt=0, description="fcell: angstrom")
    pixel_mm: Finite | None = Field(None, gt=0, description="fcell: by default 204.8 mm / width")
    distance_mm: Finite = Field(500.0, gt=0, description="fcell: to the detector")
    oversample: int = Field(1, ge=1, le=64, description="fcell: sub-pixels along each axis")
    phisteps: int = Field(1, ge=1, le=4096, description="fcell: steps of the spindle")
    osc: Finite = Field(0.0, description="fcell: degrees over all steps")
    mosaic_domains: int = Field(1, ge=1, le=4096, description="fcell: mosaic domains")
    mosaic_spread: Finite = Field(0.0, ge=0, description="fcell: degrees")
    interpolate: bool = Field(False, description="fcell: tricubic instead of nearest")

    h: int = Field(16, ge=1, le=256, description="postfilter: hidden channels, where no weights are given")
    weights: str | None = Field(None, description="postfilter: an int8 file of weights, in place of made ones")
    tile: int | None = Field(None, ge=1, description="postfilter: pixels of a tile (numba only); the same bits")

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, value: str) -> str:
        if value.startswith("tensorflow"):
            raise ValueError("TensorFlow must not share a process with torch; `lab run parity` gives it one of its own")
        if value not in BACKENDS:
            raise ValueError(f"{value!r} is none of {', '.join(BACKENDS)}")
        return value

    @field_validator("cell", "cells")
    @classmethod
    def _counted(cls, value: tuple[Any, ...], info: Any) -> tuple[Any, ...]:
        wanted = 6 if info.field_name == "cell" else 3
        if len(value) != wanted or min(value) <= 0:
            raise ValueError(f"must be {wanted} numbers above 0, not {value}")
        return value

    @model_validator(mode="after")
    def _of_this_kernel(self) -> Params:
        fields = type(self).model_fields
        for kernel, names in OWN.items():
            for name in sorted(names) if kernel != self.name else ():
                if getattr(self, name) != fields[name].default:
                    raise ValueError(f"{name} is a parameter of {kernel}, and this is {self.name}: leave it out")
        if self.name == "fcell" and self.batch not in (1, fields["batch"].default):
            raise ValueError(f"fcell computes one image: batch={self.batch} means nothing to it")
        if self.input is not None and self.name not in TAKES_FILE:
            raise ValueError(f"{self.name} takes no arrays, so no input: leave it out")
        for file, told in IN_FILE.items():
            for name in told if getattr(self, file) is not None else ():
                if getattr(self, name) != fields[name].default:
                    raise ValueError(f"{name} is what the file of {file} says itself: leave one of the two out")
        if self.tile is not None and self.backend != "numba":
            raise ValueError(f"only numba filters by tiles with the same bits, not {self.backend}: leave tile out")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Params:
        if self.pixels > MAX_PIXELS:
            raise ValueError(
                f"{self.images}×{self.height}×{self.width} are {self.pixels} pixels, more than {MAX_PIXELS}"
            )
        if self.work > MAX_WORK:
            raise ValueError(f"that are {self.work:,} lookups, more than {MAX_WORK:,}")
        if self.name == "translation":
            for name, shift, size in (("dx", self.dx, self.width), ("dy", self.dy, self.height)):
                if abs(shift) + self.amplitude >= size:
                    raise ValueError(
                        f"{name}={shift:g} ± {self.amplitude:g} may move an image of {size} pixels out of sight"
                    )
        return self

    @property
    def images(self) -> int:
        return 1 if self.name == "fcell" else self.batch

    @property
    def pixels(self) -> int:
        return self.images * self.height * self.width

    @property
    def work(self) -> int:
        """Lookups of fcell; else pixels, those of a postfilter by how much is done for each."""
        if self.name == "fcell":
            return self.pixels * self.oversample**2 * self.phisteps * self.mosaic_domains
        return self.pixels * (self.h if self.name == "postfilter" else 1)

    @property
    def large(self) -> bool:
        """Are the arrays that come back too much for the journal?"""
        each = {"translation": 32, "fcell": 4, "postfilter": 24}[self.name]
        return self.keep and (self.input is not None or self.pixels * each > POOLED_BYTES)


class Kernel(Kind):
    """See the module."""

    name: ClassVar[str] = "kernel"
    summary: ClassVar[str] = "one backend of a kernel on one input, against the float64 oracle (for sweeps)"
    Params: ClassVar[type[BaseParams]] = Params
    packages: ClassVar[tuple[str, ...]] = ("numpy", "numba", "torch")
    pooled: ClassVar[bool] = True

    def pools(self, params: Any) -> bool:
        """What is large has a process of its own: its memory ends with it, and its arrays stay out of the journal."""
        return bool(params.input is None and params.work <= POOLED_WORK and not params.large)

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.kernel.schema import ARRAYS, KERNEL

        return {"kernel": KERNEL, "arrays": ARRAYS}

    def describe(self, params: Any) -> str:
        p = params
        size = f"{p.height}×{p.width}" if p.name == "fcell" else f"{p.batch}×{p.height}×{p.width}"
        if p.name == "translation":
            shift = f"by ({p.dx:g}, {p.dy:g})" + (f" ± {p.amplitude:g}" if p.amplitude else "")
            return f"{p.name}: {p.backend} at {p.dtype}, {p.input or size} {'' if p.input else shift}".rstrip()
        if p.name == "fcell":
            grid = p.hkl or ("a made grid" if p.made_grid else "no grid")
            return f"{p.name}: {p.backend}, {size} oversample {p.oversample}, {grid}"
        return f"{p.name}: {p.backend}, {p.weights or f'h{p.h}'}, {p.input or size}"

    def inputs(self, params: Any) -> dict[str, Path]:
        """Files named by parameters. They are looked into now: a bad line is known before anything starts."""
        found = {n: Path(getattr(params, n)) for n in ("input", "hkl", "weights") if getattr(params, n) is not None}
        if params.name == "fcell":
            from jobs.kernel.subjects import refuse_physics

            refuse_physics(params)
        if found:
            from jobs.kernel.files import refuse_bad

            for name, path in found.items():
                if not path.is_file():
                    raise BadInput(f"{name}={path} is no file", hint="name one that is there")
                refuse_bad(params.name, name, path)
        return found

    def run(self, ctx: Context) -> None:
        from jobs.kernel.run import run

        run(ctx)
