"""Real inputs: complex patches cut from photographs, and the offsets that they move by.

The photographs lie in scikit-image's wheel, so nothing is downloaded (its own loaders would copy them to a
cache and may ask the network). Amplitude comes from one, phase from another; the astronaut's black
background gives dim and empty pixels. One seed gives the same batch everywhere.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import JobFailed
from jobs.parity.cases import Case, Cell
from jobs.parity.exchange import digest
from jobs.parity.verdict import Reference
from kernels.translation import oracle

# (amplitude, phase) pairs; all 512×512.
PHOTOGRAPHS = (("camera.png", "moon.png"), ("astronaut.png", "gravel.png"), ("brick.png", "camera.png"))
PHASE_SPAN = 0.9 * np.pi  # black is -0.9π, white +0.9π


@dataclass(frozen=True)
class Batch:
    """What a candidate is given (images (B, C, N, N), offsets (B, C, 2)) and what it should give back."""

    images: npt.NDArray[Any]
    offsets: npt.NDArray[Any]
    reference: Reference
    digest: str


@functools.lru_cache(maxsize=8)
def batch(cell: Cell, seed: int) -> Batch:
    """The batch of one cell with its float64 reference."""
    rng = np.random.default_rng([seed, list(Case).index(cell.case), cell.size, cell.channels])
    lead = (cell.batch, cell.channels)
    images = _patches(cell.size, cell.patch, rng).reshape(*lead, cell.patch, cell.patch).astype(cell.dtype)
    real = np.float32 if cell.dtype == "complex64" else np.float64
    # Rounded first: the oracle widens the very numbers that the candidate gets.
    offsets = _offsets(cell.case, cell.size, cell.patch, rng).reshape(*lead, 2).astype(real)
    for array in (images, offsets):
        array.setflags(write=False)
    return Batch(images, offsets, reference(images, offsets), digest(images, offsets))


def reference(images: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> Reference:
    """The oracle's answer, and per pixel the size that rounding errors there are relative to."""
    parts = np.abs(images.real) + 1j * np.abs(images.imag)
    return Reference(values=oracle.translate(images, offsets), scale=np.abs(oracle.translate(parts, offsets)))


@functools.cache
def photograph(name: str) -> npt.NDArray[Any]:
    """One photograph as grey values from 0 to 1."""
    import skimage
    from skimage.io import imread

    path = Path(skimage.__file__).parent / "data" / name
    if not path.is_file():
        raise JobFailed(f"this scikit-image has no photograph {path}", hint="install scikit-image from its wheel")
    grey: npt.NDArray[Any] = np.asarray(imread(path), dtype=np.float64) / 255.0
    if grey.ndim == 3:
        grey = grey[..., :3] @ np.array([0.2125, 0.7154, 0.0721])
    return grey


def _patches(count: int, patch: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    out = np.empty((count, patch, patch), dtype=np.complex128)
    for i in range(count):
        amplitude, phase = (photograph(name) for name in PHOTOGRAPHS[i % len(PHOTOGRAPHS)])
        out[i] = _cut(amplitude, patch, rng) * np.exp(1j * PHASE_SPAN * (2 * _cut(phase, patch, rng) - 1))
    return out


def _cut(picture: npt.NDArray[Any], patch: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    y, x = (int(rng.integers(0, length - patch + 1)) for length in picture.shape)
    return picture[y : y + patch, x : x + patch]


def _offsets(case: Case, count: int, patch: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    if case is Case.ZERO:
        return np.zeros((count, 2))
    if case is Case.INTEGER:
        whole = rng.integers(-patch // 2, patch // 2 + 1, size=(count, 2)).astype(np.float64)
        whole[0] = (1, -2)
        whole[-1] = (patch + 3, -1) if count > 4 else whole[-1]
        return whole
    ways = (_small, _large, _small_negative, _whole, _one_axis, _nothing, _beyond, _almost_out)
    return np.array([ways[i % len(ways)](patch, rng) for i in range(count)])


def _small(_patch: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    return np.asarray(rng.uniform(0.05, 0.95, size=2) * rng.choice((-1, 1), size=2))


def _large(_patch: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    return np.asarray(rng.uniform(1.05, 8.95, size=2) * rng.choice((-1, 1), size=2))


def _small_negative(_patch: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    return -(10.0 ** rng.uniform(-4, -0.5, size=2))


def _whole(_patch: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    return np.asarray(rng.integers(1, 10, size=2) * rng.choice((-1.0, 1.0), size=2))


def _one_axis(_patch: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    return np.array([rng.uniform(-3, 3), rng.integers(-3, 4)])


def _nothing(_patch: int, _rng: np.random.Generator) -> npt.NDArray[Any]:
    return np.zeros(2)


def _beyond(patch: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    return np.array([rng.uniform(patch, 2 * patch), rng.uniform(-3, 3)])


def _almost_out(patch: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    return np.array([rng.uniform(-3, 3), -(patch - rng.uniform(0.1, 0.9))])
