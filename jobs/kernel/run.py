"""One cell: seeded images, one backend, the oracle, the judge, and proof that the judge can say no."""

from __future__ import annotations

import functools
import hashlib
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import CheckCannotFail, JobFailed
from core.kind import Context
from jobs.kernel import Params
from jobs.parity.cases import TOLERANCE
from jobs.parity.inputs import reference
from jobs.parity.verdict import Judgement, Reference, judge
from jobs.parity.words import Verdict
from kernels.metrics import errors
from kernels.translation import Translate, build

_PRECISION = {"float32": "complex64", "float64": "complex128"}


def run(ctx: Context) -> None:
    """Compute, judge, and write one row.

    Raises:
        JobFailed: the backend's numbers are wrong.
        CheckCannotFail: the judge accepts numbers that are known to be wrong.
    """
    ctx.expect(rows={"kernel": 1})
    p: Params = ctx.params
    images, offsets = data(p)
    translate = backend(p.backend)
    seconds = float("inf")
    moved = images
    for _ in range(p.repeats):
        begun = time.perf_counter()
        moved = translate(images, offsets)
        seconds = min(seconds, time.perf_counter() - begun)

    right = oracle(images, offsets)
    tolerance = limit(p, offsets)
    said = decide(right, moved, tolerance)
    if decide(right, spoiled(right, moved, tolerance), tolerance).verdict is not Verdict.FAIL:
        raise CheckCannotFail("the judge accepts an image with one wrong pixel: its word proves nothing")
    if said.verdict is not Verdict.PASS:
        raise JobFailed(f"{p.backend} {p.name} at {p.dtype} is wrong: {said.reason}")
    measured = errors(right.values, moved, right.scale)
    ctx.results(
        "kernel",
        [
            {
                **{n: getattr(p, n) for n in ("name", "backend", "dtype", "batch", "height", "width")},
                **{n: getattr(p, n) for n in ("dx", "dy", "amplitude", "seed")},
                "verdict": str(said.verdict),
                "tolerance": tolerance,
                "max_rel": measured.max_rel,
                "max_abs": measured.max_abs,
                "checksum": checksum(moved),
                "seconds": seconds,
                "threads": ctx.cores,
            }
        ],
    )


@functools.cache
def backend(name: str) -> Translate:
    """The kernel's function, made once per process."""
    return build(name)


def data(p: Params) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Images (batch, H, W) and offsets (batch, 2), the same for the same parameters everywhere."""
    rng = np.random.default_rng([p.seed, p.batch, p.height, p.width])
    shape = (p.batch, p.height, p.width)
    images: npt.NDArray[Any] = rng.standard_normal(shape)
    if p.dtype.startswith("complex"):
        images = images + 1j * rng.standard_normal(shape)
    spread = rng.uniform(-1.0, 1.0, size=(p.batch, 2)) * p.amplitude
    # Rounded first: the oracle widens the very numbers that the backend gets.
    real = np.float32 if p.dtype in ("complex64", "float32") else np.float64
    return images.astype(p.dtype), (np.array([p.dx, p.dy]) + spread).astype(real)


def oracle(images: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> Reference:
    """The right answer, real for real images."""
    if np.iscomplexobj(images):
        return reference(images, offsets)
    return Reference(
        values=reference(images, offsets).values.real, scale=reference(np.abs(images), offsets).values.real
    )


def limit(p: Params, offsets: npt.NDArray[Any]) -> float:
    """Of the local relative error: rounding for sub-pixel shifts, nothing at all for whole ones."""
    whole = bool(np.all(offsets == np.round(offsets)))
    return 0.0 if whole else TOLERANCE[_PRECISION.get(p.dtype, p.dtype)]


def decide(right: Reference, moved: npt.NDArray[Any], tolerance: float) -> Judgement:
    return judge(right, moved, tolerance)


def spoiled(right: Reference, moved: npt.NDArray[Any], tolerance: float) -> npt.NDArray[Any]:
    """The backend's answer with one pixel made wrong by little: what the judge must not accept."""
    wide = np.complex128 if np.iscomplexobj(moved) else np.float64
    bad = np.array(moved, dtype=wide)
    at = int(np.argmax(right.scale))
    size = float(right.scale.flat[at]) or 1.0
    bad.flat[at] = right.values.flat[at] + size * max(4 * tolerance, 2.0**-40)
    return bad


def checksum(moved: npt.NDArray[Any]) -> str:
    wide = np.complex128 if np.iscomplexobj(moved) else np.float64
    return hashlib.sha256(np.ascontiguousarray(moved, dtype=wide).tobytes()).hexdigest()
