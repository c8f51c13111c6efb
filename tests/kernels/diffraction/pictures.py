"""Small complex objects that are known everywhere: a sum of smooth waves, so that any sub-pixel shift is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def waves(
    shape: tuple[int, int], *, x: float = 0.0, y: float = 0.0, seed: int = 1, count: int = 24, most: float = 0.12
) -> npt.NDArray[np.complex128]:
    """A complex object (H, W) whose content is moved by (x, y): 1 and waves of up to `most` cycles per pixel."""
    rng = np.random.Generator(np.random.Philox(seed))
    rows, columns = np.arange(shape[0])[:, None] - y, np.arange(shape[1])[None, :] - x
    out = np.full(shape, 1.0 + 0.0j)
    for _ in range(count):
        fy, fx = rng.uniform(-most, most, 2)
        weight = 0.06 * (rng.normal() + 1j * rng.normal())
        out += weight * np.exp(2j * np.pi * (fy * rows + fx * columns))
    return out


def ramp(shape: tuple[int, int], x: float, y: float) -> npt.NDArray[np.complex128]:
    """exp(i(x·column + y·row))."""
    return np.exp(1j * (np.arange(shape[1])[None, :] * x + np.arange(shape[0])[:, None] * y))


def noise(shape: tuple[int, int], sigma: float, *, seed: int = 7) -> npt.NDArray[Any]:
    """White complex noise; sigma of the real and of the imaginary part."""
    rng = np.random.Generator(np.random.Philox(seed))
    return sigma * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
