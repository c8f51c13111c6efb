"""The `parity` job: every backend of a kernel held against the float64 oracle, and the check itself held to account.

Each side runs in a process of its own with an environment set before import; inputs are proven equal by
digest; verdicts come from arrays alone, by code that never sees whose arrays they are; known-bad mutants run
in every matrix, and a run in which one of them passes is itself failed.

This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from core.kind import Context, Kind
from core.kind import Params as BaseParams

if TYPE_CHECKING:
    import pyarrow as pa

BACKENDS = ("torch", "tensorflow-eager", "tensorflow-graph", "tensorflow-xla")
DTYPES = ("complex64", "complex128")
MAX_PATCH = 256  # the photographs are 512 pixels wide
MAX_SIZE = 4096


def _listed(value: Any) -> Any:
    """`--set sizes=1,4` and `--set sizes=16` mean lists too."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return (value,) if isinstance(value, int) else value


class Params(BaseParams):
    """What is compared with what. The defaults are the whole matrix."""

    kernel: Literal["translation"] = Field("translation", description="the kernel under test")
    backends: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        BACKENDS, description="candidates, each in its own process"
    )
    dtypes: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        ("complex64",), description="precision of the candidates; the oracle is always double"
    )
    sizes: Annotated[tuple[int, ...], BeforeValidator(_listed)] = Field(
        (1, 4, 16, 64, 128), description="B·C: images in a batch, all channels counted"
    )
    channels: Annotated[tuple[int, ...], BeforeValidator(_listed)] = Field(
        (1, 4), description="C: images in a group; sizes that it does not divide are left out"
    )
    train: int = Field(16, ge=1, le=MAX_SIZE, description="B·C of the first call of the predict cells")
    predict: int = Field(128, ge=1, le=MAX_SIZE, description="B·C of the call that is judged there")
    patch: int = Field(64, ge=4, le=MAX_PATCH, description="height and width of an image in pixels")
    seed: int = Field(0, ge=0, lt=2**32, description="where patches are cut and how far they move")
    tolerance: float | None = Field(
        None, description="limit of the local relative error; by default 8 unit roundoffs (16 in double)"
    )
    repeats: int = Field(3, ge=1, le=100, description="timed calls a cell, after the first")
    outside: bool = Field(True, description="also run what other packages register in lab.parity.candidates")
    side_time_s: float = Field(300.0, gt=0, description="a side that is silent for this long is blocked")

    @field_validator("backends")
    @classmethod
    def _known_backends(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _choices("backends", value, BACKENDS)

    @field_validator("dtypes")
    @classmethod
    def _known_dtypes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _choices("dtypes", value, DTYPES)

    @field_validator("sizes", "channels")
    @classmethod
    def _counts(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("needs at least one number")
        if len(set(value)) != len(value):
            raise ValueError(f"{value} names one number twice")
        if min(value) < 1 or max(value) > MAX_SIZE:
            raise ValueError(f"numbers must be between 1 and {MAX_SIZE}, not {value}")
        return value

    @field_validator("tolerance")
    @classmethod
    def _positive(cls, value: float | None) -> float | None:
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"must be a finite number above 0, not {value}")
        return value

    @model_validator(mode="after")
    def _divisible(self) -> Params:
        if not any(size % c == 0 for size in self.sizes for c in self.channels):
            raise ValueError(f"no size of {self.sizes} is a multiple of a channel count of {self.channels}")
        if not any(self.train % c == 0 and self.predict % c == 0 for c in self.channels):
            raise ValueError(
                f"no channel count of {self.channels} divides both train={self.train} and predict={self.predict}"
            )
        return self


class Parity(Kind):
    """See the module."""

    name: ClassVar[str] = "parity"
    summary: ClassVar[str] = "hold every backend of a kernel against the float64 oracle, mutants included"
    Params: ClassVar[type[BaseParams]] = Params
    packages: ClassVar[tuple[str, ...]] = ("numpy", "scikit-image", "torch", "tensorflow", "pyarrow")
    # Two sides at once where there are two cores; one core is enough.
    needs: ClassVar[Mapping[str, Any]] = {"cores": min(2, os.cpu_count() or 1)}

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.parity.schema import PARITY

        return {"parity": PARITY}

    def describe(self, params: Any) -> str:
        sizes = ",".join(str(s) for s in params.sizes)
        return f"{params.kernel}: {', '.join(params.backends)} at {', '.join(params.dtypes)}, B·C {sizes}"

    def inputs(self, params: Any) -> dict[str, Path]:
        """The source of every outside candidate and control: a new or changed one makes a new job."""
        from jobs.parity.outside import sources

        return sources(params.outside)

    def run(self, ctx: Context) -> None:
        from jobs.parity.run import run

        run(ctx)


def _choices(name: str, value: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [v for v in value if v not in known]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(known)}")
    if not value or len(set(value)) != len(value):
        raise ValueError(f"{name} must name at least one, and each once, of {', '.join(known)}")
    return value
