"""The kernels as a `kernel` job sees them: what goes in, how it is computed, and what would be right.

A new kernel is one class here that makes a `Case`, and its parameters in `jobs.kernel.OWN`.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from jobs.kernel import DETECTOR_MM, Params
from jobs.kernel.files import read_arrays
from jobs.parity.verdict import Reference
from kernels.devices import KernelRefused

Array = npt.NDArray[Any]
Files = Mapping[str, Path]

SUM_LIMIT = 1e-8
FCELL_TOLERANCE = 1e-6
_TINY = float(np.finfo(np.float32).tiny)  # below it single precision has no digits to hold a result to


@dataclass(frozen=True)
class Result:
    """What a backend gave back: the image, and numbers that have to equal the oracle's exactly."""

    values: Array
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Expected:
    """What is right, and how exactly it must be met; a tolerance of 0 is bit for bit."""

    reference: Reference
    tolerance: float
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Case:
    """One job, filled.

    Attributes:
        arrays: what goes in, by name.
        digest: of all that the result depends on.
        compute: runs the backend; called again for each timed repeat.
        expect: runs the oracle.
    """

    arrays: Mapping[str, Array]
    digest: str
    compute: Callable[[], Result]
    expect: Callable[[], Expected]
    work: int
    unit: str
    frame: tuple[int, int, int]  # batch, height, width


def digest_arrays(*arrays: Array) -> str:
    """SHA-256 over dtype, shape and C-ordered little-endian bytes of each array."""
    whole = hashlib.sha256()
    for array in arrays:
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        whole.update(f"{little.dtype.str} {little.shape}\n".encode())
        whole.update(little.tobytes())
    return whole.hexdigest()


def case_of(p: Params, files: Files, threads: int) -> Case:
    """The case of these parameters.

    Raises:
        KernelRefused, BadInput: it cannot be computed, and why.
    """
    return {"translation": _translation, "fcell": _fcell, "postfilter": _postfilter}[p.name](p, files, threads)


# Translation.

# 8 unit roundoffs of single precision, 16 of double, where the oracle rounds as well (see the parity job).
_ROUNDING = {np.dtype(np.float32): 8 * 2.0**-24, np.dtype(np.float64): 16 * 2.0**-53}


def _translation(p: Params, files: Files, threads: int) -> Case:
    if "input" in files:
        given = read_arrays(p.name, files["input"])
        images, offsets = given["images"], given["offsets"]
    else:
        images, offsets = made_images(p)
    translate = _translator(p.backend, threads)

    def expect() -> Expected:
        whole = bool(np.all(offsets == np.round(offsets)))
        tolerance = 0.0 if whole else _ROUNDING[np.dtype(images.real.dtype)]
        return Expected(_moved(images, offsets), tolerance, {})

    frame = int(np.prod(images.shape[:-2])), *images.shape[-2:]
    return Case(
        {"images": images, "offsets": offsets},
        digest_arrays(images, offsets),
        lambda: Result(translate(images, offsets), {}),
        expect,
        images.size,
        "pixels",
        frame,
    )


@functools.cache
def _translator(backend: str, threads: int) -> Any:
    """The kernel's function, made once per process."""
    from kernels.translation import build

    return build(backend, threads=threads)


def made_images(p: Params) -> tuple[Array, Array]:
    """Images (batch, H, W) and offsets (batch, 2), the same for the same parameters everywhere."""
    rng = np.random.default_rng([p.seed, p.batch, p.height, p.width])
    shape = (p.batch, p.height, p.width)
    images: Array = rng.standard_normal(shape)
    if p.dtype.startswith("complex"):
        images = images + 1j * rng.standard_normal(shape)
    spread = rng.uniform(-1.0, 1.0, size=(p.batch, 2)) * p.amplitude
    # Rounded first: the oracle widens the very numbers that the backend gets.
    real = np.float32 if p.dtype in ("complex64", "float32") else np.float64
    return images.astype(p.dtype), (np.array([p.dx, p.dy]) + spread).astype(real)


def _moved(images: Array, offsets: Array) -> Reference:
    from kernels.translation.oracle import translate

    if np.iscomplexobj(images):
        parts = np.abs(images.real) + 1j * np.abs(images.imag)
        scale = np.abs(translate(parts, offsets))
    else:
        scale = translate(np.abs(images), offsets)
    # Numbers below the least normal one have fewer digits. Where nothing may be, 0 alone stays right.
    least = float(np.finfo(images.dtype).tiny)
    return Reference(translate(images, offsets), np.where(scale > 0, np.maximum(scale, least), 0.0))


# F_cell.


def refuse_physics(p: Params) -> None:
    """At submit already: numbers that are no experiment.

    Raises:
        BadInput: naming the number.
    """
    try:
        _experiment(p)
    except KernelRefused as error:
        raise BadInput(str(error)) from None


def _fcell(p: Params, files: Files, threads: int) -> Case:
    from kernels.fcell import build
    from kernels.fcell.digest import effective_input
    from kernels.fcell.hkl import read_hkl
    from kernels.fcell.plan import build_plan

    experiment = _experiment(p)
    grid = read_hkl(files["hkl"], p.default_f) if "hkl" in files else (_made_grid(p) if p.made_grid else None)
    plan = build_plan(experiment, grid)
    simulate = build(p.backend, threads=threads)

    def compute() -> Result:
        made = simulate(plan)
        return Result(made.image, _counts(made))

    def expect() -> Expected:
        right = build("numpy")(plan)
        values = right.image64
        assert values is not None
        return Expected(
            Reference(values, np.maximum(np.abs(values), _TINY), sum_limit(values)), FCELL_TOLERANCE, _counts(right)
        )

    digest = effective_input(experiment, grid).sha256
    return Case({}, digest, compute, expect, p.work, "lookups", (1, p.height, p.width))


def sum_limit(values: Array) -> float:
    """1e-8 of the sum, or what rounding the pixels to single precision may do to it where few bright ones make it up.

    Roundings are independent, each uniform within half a unit: 4 standard deviations of their sum.
    """
    rounding = 4 * 2.0**-24 / math.sqrt(3) * float(np.linalg.norm(values))
    return max(SUM_LIMIT, rounding / max(float(np.sum(values)), np.finfo(np.float64).tiny))


def _experiment(p: Params) -> Any:
    from kernels.fcell.types import Beam, Crystal, Detector, Experiment, Goniometer, Shape

    pixel = p.pixel_mm if p.pixel_mm is not None else DETECTOR_MM / p.width
    return Experiment(
        Crystal(
            p.cell,  # type: ignore[arg-type]
            p.cells,  # type: ignore[arg-type]
            Shape(p.shape),
            default_f=p.default_f,
            mosaic_spread_deg=p.mosaic_spread,
            mosaic_domains=p.mosaic_domains,
        ),
        Beam(p.wavelength),
        Detector(p.height, p.width, pixel, p.distance_mm, p.oversample),
        Goniometer(osc_deg=p.osc, phisteps=p.phisteps),
        p.interpolate,
    )


def _made_grid(p: Params) -> Any:
    """Half of the cells up to (12, 16, 16) from the origin, so that all outcomes of a lookup occur."""
    from kernels.fcell.types import Grid

    rng = np.random.default_rng([p.seed, 12, 16])
    shape = (25, 33, 33)
    listed = rng.random(shape) < 0.5
    listed[0, 0, 0] = listed[-1, -1, -1] = True
    values = np.where(listed, np.round(rng.lognormal(4.0, 1.0, shape), 2), p.default_f)
    return Grid(values, listed, -12, -16, -16, p.default_f)


def _counts(made: Any) -> dict[str, int]:
    told = asdict(made.counts)
    names = ("lookups", "listed", "unlisted", "out_of_grid", "no_grid", "zero_f")
    return {name: int(told[name]) for name in names}


# The postfilter.


def _postfilter(p: Params, files: Files, threads: int) -> Case:
    from kernels.postfilter import build, oracle

    weights = _weights(p, files)
    frames = read_arrays(p.name, files["input"])["frames"] if "input" in files else made_frames(p)
    filtered = build(p.backend, weights, tile=p.tile, threads=threads)

    def expect() -> Expected:
        values = oracle.apply(frames, weights)
        # Sums of products round in proportion to the sums of their sizes, which is what an error is held against.
        return Expected(Reference(values, oracle.error_bound(frames, weights)), 1.0, {})

    n, _, height, width = frames.shape
    pixels = n * height * width
    return Case(
        {"frames": frames},
        digest_arrays(frames, *weights.tensors().values()),
        lambda: Result(filtered(frames), {}),
        expect,
        pixels,
        "pixels",
        (n, height, width),
    )


def _weights(p: Params, files: Files) -> Any:
    from kernels.postfilter.quantised import read
    from kernels.postfilter.weights import Weights

    if "weights" in files:
        return read(files["weights"]).weights()
    start = Weights.initial(p.h, p.seed)
    rng = np.random.default_rng([p.seed, p.h, 3])
    # As after some training: with the last layer zero nothing of the two before it would be seen.
    last = {name: rng.uniform(-0.3, 0.3, start.tensors()[name].shape).astype(np.float32) for name in ("w3", "b3")}
    return Weights.of({**start.tensors(), **last})


def made_frames(p: Params) -> Array:
    """Frames (batch, 3, H, W): smooth waves with grain, from 0 to 255."""
    rng = np.random.default_rng([p.seed, p.batch, p.height, p.width, 3])
    y, x = np.mgrid[0 : p.height, 0 : p.width]
    phase = rng.uniform(0, 2 * np.pi, size=(p.batch, 3, 1, 1))
    speed = rng.uniform(0.01, 0.2, size=(2, p.batch, 3, 1, 1))
    waves = 127.5 + 100 * np.sin(speed[0] * x + speed[1] * y + phase)
    frames: Array = np.round(waves + rng.normal(0, 12, size=waves.shape))
    return frames.clip(0, 255).astype(np.float32)
