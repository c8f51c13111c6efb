"""The `parity` job: every backend of a kernel held against the float64 oracle, and the check itself held to account.

Each side runs in a process of its own with an environment set before import, in folders of its own, and every file
that it opens is seen; what both sides worked on is compared first, by digest, and a difference ends the comparison.
Verdicts come from arrays alone, by code that never sees whose arrays they are; intermediate numbers (taps) are
compared field by field, and each tap has to move under a perturbation of its own; known-bad mutants run in every
matrix, and a run in which one of them passes, or fails for another reason than its own, is itself failed.

This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from core.kind import Context, Kind, Question
from core.kind import Params as BaseParams
from jobs.parity.kernels import OFFERS, Offer

if TYPE_CHECKING:
    import pyarrow as pa

DEVICES = ("cpu", "cuda")
SHAPES = ("square", "round", "gauss", "tophat")
MAX_PATCH = 256  # the photographs are 512 pixels wide
MAX_SIZE = 4096
MAX_FRAME = 4096
MAX_WIDTH = 128
_FRAME = re.compile(r"^(\d+)x(\d+)$")


def _listed(value: Any) -> Any:
    """`--set sizes=1,4` and `--set sizes=16` mean lists too."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return (value,) if isinstance(value, int) else value


class Params(BaseParams):
    """What is compared with what. The defaults are the whole matrix of the kernel."""

    kernel: Literal["translation", "fcell", "postfilter", "pinn"] = Field(
        "translation", description="the kernel under test"
    )
    backends: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="candidates, each in its own process; by default all that the kernel has for the CPU"
    )
    devices: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        ("cpu",), description="cpu, cuda: where the backends run; a cell on a device that is not there is blocked"
    )
    dtypes: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="precision of the candidates; the oracle is always double"
    )
    # Translation.
    sizes: Annotated[tuple[int, ...], BeforeValidator(_listed)] = Field(
        (1, 4, 16, 64, 128), description="translation: B·C, images in a batch, all channels counted"
    )
    channels: Annotated[tuple[int, ...], BeforeValidator(_listed)] = Field(
        (1, 4), description="translation: C, images in a group; sizes that it does not divide are left out"
    )
    train: int = Field(16, ge=1, le=MAX_SIZE, description="translation: B·C of the first call of the predict cells")
    predict: int = Field(128, ge=1, le=MAX_SIZE, description="translation: B·C of the call that is judged there")
    patch: int = Field(64, ge=4, le=MAX_PATCH, description="translation: height and width of an image in pixels")
    # F_cell and postfilter.
    frames: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="fcell, postfilter, pinn: frames as HEIGHTxWIDTH (slow x fast) in pixels"
    )
    oversamples: Annotated[tuple[int, ...], BeforeValidator(_listed)] = Field(
        (1, 2), description="fcell: sub-pixels along each edge of a pixel"
    )
    shapes: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        SHAPES, description="fcell: shapes of the crystal"
    )
    hkl: str | None = Field(None, description="fcell: a file of `h k l F` lines; by default one made from the seed")
    pixels: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="fcell: more pixels to tap, as SLOWxFAST, besides edge, centre and one on a listed cell"
    )
    widths: Annotated[tuple[int, ...], BeforeValidator(_listed)] = Field(
        (16,), description="postfilter: h, channels of the hidden layers"
    )
    tiles: Annotated[tuple[int, ...], BeforeValidator(_listed)] = Field(
        (24, 40), description="postfilter: edges of tiles whose result must equal the untiled one bit for bit"
    )
    # All.
    seed: int = Field(0, ge=0, lt=2**32, description="where inputs are cut, and all that is random in them")
    tolerance: float | None = Field(
        None, description="limit of the local relative error; by default the kernel's own, by precision"
    )
    repeats: int = Field(3, ge=1, le=100, description="timed calls a cell, after the first")
    batches: int = Field(4, ge=0, le=1000, description="batches of a candidate and phase whose statistics are kept")
    outside: bool = Field(True, description="also run what other packages register in lab.parity.candidates")
    program: str | None = Field(
        None, description="a command as a further candidate; {output} and {digest} are the files that it must write"
    )
    program_format: Literal["npy", "npz", "float32", "float64"] = Field(
        "npy", description="what the program writes to {output}; raw floats are little-endian, in C order"
    )
    program_time_s: float = Field(600.0, gt=0, description="a program that takes longer is blocked")
    watch: Literal["auto", "kernel", "hook", "none"] = Field(
        "auto", description="how the files that a side opens are seen"
    )
    side_time_s: float = Field(300.0, gt=0, description="a side that is silent for this long is blocked")
    dump: bool = Field(False, description="also keep arrays, metadata and canvases for a closer look")

    @property
    def offer(self) -> Offer:
        return OFFERS[self.kernel]

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_kernel(cls, data: Any) -> Any:
        offer = OFFERS.get(data.get("kernel", "translation")) if isinstance(data, Mapping) else None
        if offer is None:
            return data
        own = {"backends": offer.backends, "dtypes": offer.default_dtypes, "frames": offer.default_frames}
        return {**own, **data}

    @field_validator("dtypes", "devices", "backends", "shapes", "frames", "pixels")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = next((v for i, v in enumerate(value) if v in value[:i]), None)
        if twice is not None:
            raise ValueError(f"must name each once, not {twice} twice")
        return value

    @field_validator("sizes", "channels", "oversamples", "widths", "tiles")
    @classmethod
    def _counts(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("needs at least one number")
        if len(set(value)) != len(value):
            raise ValueError(f"{value} names one number twice")
        if min(value) < 1 or max(value) > MAX_SIZE:
            raise ValueError(f"numbers must be between 1 and {MAX_SIZE}, not {value}")
        return value

    @field_validator("frames", "pixels")
    @classmethod
    def _pairs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for word in value:
            found = _FRAME.match(word)
            if found is None or max(int(n) for n in found.groups()) > MAX_FRAME:
                raise ValueError(f"{word!r} is no pair of numbers up to {MAX_FRAME}, such as 64x48")
        return value

    @field_validator("frames")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for word in value:
            if min(int(n) for n in word.split("x")) < 1:
                raise ValueError(f"a frame of {word} has no pixel")
        return value

    @field_validator("shapes")
    @classmethod
    def _known_shapes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _among("shapes", value, SHAPES)

    @field_validator("devices")
    @classmethod
    def _known_devices(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _among("devices", value, DEVICES)

    @field_validator("tolerance")
    @classmethod
    def _positive(cls, value: float | None) -> float | None:
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"must be a finite number above 0, not {value}")
        return value

    @model_validator(mode="after")
    def _of_the_kernel(self) -> Params:
        offer = self.offer
        _among("backends", self.backends, offer.names)
        _among("dtypes", self.dtypes, offer.dtypes)
        for name in dict.fromkeys(n for o in OFFERS.values() for n in o.own if n not in offer.own):
            if getattr(self, name) not in (type(self).model_fields[name].default, ()):
                owners = " and ".join(o.kernel for o in OFFERS.values() if name in o.own)
                raise ValueError(f"{name} means nothing for {self.kernel}: it belongs to {owners}")
        if not self.candidates:
            raise ValueError(f"none of {', '.join(self.backends)} runs on {', '.join(self.devices)}")
        return self

    @field_validator("program")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        """Relative files are those of the folder in which this is asked; the program starts in an empty one."""
        if value is None:
            return None
        words = shlex.split(value)
        if not words:
            raise ValueError("is empty: give a program and its arguments")
        return shlex.join(os.path.abspath(w) if "{" not in w and os.path.isfile(w) else w for w in words)

    @model_validator(mode="after")
    def _divisible(self) -> Params:
        if self.kernel != "translation":
            return self
        if not any(size % c == 0 for size in self.sizes for c in self.channels):
            raise ValueError(f"no size of {self.sizes} is a multiple of a channel count of {self.channels}")
        if not any(self.train % c == 0 and self.predict % c == 0 for c in self.channels):
            raise ValueError(
                f"no channel count of {self.channels} divides both train={self.train} and predict={self.predict}"
            )
        return self

    @model_validator(mode="after")
    def _framed(self) -> Params:
        if self.offer.default_frames and not self.frames:
            raise ValueError("frames needs at least one frame, such as 64x48")
        if self.kernel == "fcell":
            for pixel in self.pixels:
                if not all(_inside(pixel, frame) for frame in self.frames):
                    raise ValueError(f"the pixel {pixel} lies outside a frame of {', '.join(self.frames)}")
            if max(self.oversamples) > 8:
                raise ValueError(f"oversamples go up to 8 here, not {max(self.oversamples)}")
        if self.kernel == "pinn":
            for height, width in (frame.split("x") for frame in self.frames):
                if height != width or int(height) % 8 or int(height) < 16:
                    raise ValueError(
                        f"a frame of the network is square, its side a multiple of 8 from 16, not {height}x{width}"
                    )
        if self.kernel == "postfilter" and max(self.widths) > MAX_WIDTH:
            raise ValueError(f"widths go up to {MAX_WIDTH} here, not {max(self.widths)}")
        return self

    @property
    def candidates(self) -> tuple[str, ...]:
        """Backends as the kernel names them, one for each device that it has a form for."""
        out: dict[str, None] = {}
        for backend in self.backends:
            if backend in self.offer.cuda.values():
                out[backend] = None  # asked for by its full name
                continue
            if "cpu" in self.devices:
                out[backend] = None
            if "cuda" in self.devices and backend in self.offer.cuda:
                out[self.offer.cuda[backend]] = None
        return tuple(out)

    @property
    def program_taps(self) -> bool:
        """Does the program write taps as well?"""
        return any("{taps}" in word for word in self.command)

    @property
    def command(self) -> tuple[str, ...]:
        """The program as words."""
        return tuple(shlex.split(self.program)) if self.program else ()


class Parity(Kind):
    """See the module."""

    name: ClassVar[str] = "parity"
    summary: ClassVar[str] = "hold every backend of a kernel against the float64 oracle, mutants included"
    Params: ClassVar[type[BaseParams]] = Params
    packages: ClassVar[tuple[str, ...]] = (
        "numpy",
        "scikit-image",
        "torch",
        "tensorflow",
        "keras",
        "numba",
        "pyarrow",
    )
    # Two sides at once where there are two cores; one core is enough.
    needs: ClassVar[Mapping[str, Any]] = {"cores": min(2, os.cpu_count() or 1)}

    def questions(self) -> Mapping[str, Question]:
        from jobs.parity.questions import QUESTIONS

        return QUESTIONS

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.parity.schema import PARITY, PATCHES, TAPS

        return {"parity": PARITY, "taps": TAPS, "patches": PATCHES}

    def describe(self, params: Any) -> str:
        if params.kernel == "translation":
            what = f"B·C {','.join(str(s) for s in params.sizes)}"
        else:
            what = ", ".join(params.frames)
        who = ", ".join((*params.candidates, *(("a program",) if params.program else ())))
        return f"{params.kernel}: {who} at {', '.join(params.dtypes)}, {what}"

    def inputs(self, params: Any) -> dict[str, Path]:
        """The source of every outside candidate and control, the program's files, the HKL list: what changes a run.

        Raises:
            BadInput: a command or a list that cannot work.
        """
        from jobs.parity.outside import sources

        found = sources(params.kernel) if params.outside else {}
        if params.program:
            from jobs.parity.external import refuse

            found |= refuse(params)
        if params.hkl is not None:
            found["hkl"] = Path(params.hkl)
            _readable(found["hkl"])
        return found

    def run(self, ctx: Context) -> None:
        from jobs.parity.run import run

        run(ctx)


def _readable(hkl: Path) -> None:
    """Raises BadInput for a list that no kernel could use: before anything starts, and by the name that was given."""
    from core.errors import BadInput
    from kernels.fcell.hkl import HklRefused, read_hkl

    if not hkl.is_file():
        why = "is no file" if hkl.exists() else "does not exist"
        raise BadInput(f"hkl: {str(hkl)!r} {why} ({hkl.absolute()})", hint="name a file of h k l F lines")
    try:
        read_hkl(hkl)
    except HklRefused as error:
        raise BadInput(str(error)) from error


def _among(name: str, value: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [v for v in value if v not in known]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(known)}")
    if not value:
        raise ValueError(f"{name} must name at least one of {', '.join(known)}")
    return value


def _inside(pixel: str, frame: str) -> bool:
    return all(int(a) < int(b) for a, b in zip(pixel.split("x"), frame.split("x"), strict=True))
