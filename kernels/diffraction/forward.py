"""The forward model in double precision: the oracle of the study.

    Ψ = P·O_patch;  F = FFT2(Ψ);  I = |F|²/N²  (Parseval: ΣI = Σ|Ψ|²);  A = sqrt(fftshift(I))

A patch at (x, y) has that point at its pixel [N/2, N/2]. Between pixels it is bilinear, by the definition of
`kernels.translation`: patch = crop_N(T(object, centre - (x, y))).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Frames that are in memory at a time, in bytes.
HELD_BYTES = 32 << 20


def patches(
    object_: Array, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], size: int
) -> npt.NDArray[np.complex128]:
    """What the probe sees at each position.

    Args:
        object_: (H, W), real or complex.
        x, y: (n,), pixels of the object.
        size: N, side of a patch, even.

    Returns:
        complex128 (n, N, N). With positions on a grid of 2^-6 pixels and an object of at most 24 bits every product
        is exact, and so the same on every machine.

    Raises:
        ValueError: a patch reaches over the object's edge, or the shapes do not fit.
    """
    rows, columns, below, right = footprints(x, y, size)
    height, width = object_.shape
    last_row, last_column = rows + size - 1 + (below > 0), columns + size - 1 + (right > 0)
    outside = (rows < 0) | (columns < 0) | (last_row >= height) | (last_column >= width)
    if outside.any():
        i = int(np.argmax(outside))
        raise ValueError(f"the patch of {size} at ({x[i]:g}, {y[i]:g}) reaches over an object of {width}×{height}")
    # One more row and column of zeros: a patch that ends at the edge has no fraction there and takes them by 0.
    wide = np.zeros((height + 1, width + 1), np.complex128)
    wide[:height, :width] = object_
    windows = np.lib.stride_tricks.sliding_window_view(wide, (size + 1, size + 1))
    out = np.empty((len(rows), size, size), np.complex128)
    for part in _parts(len(rows), size):
        seen = windows[rows[part], columns[part]]
        wy, wx = below[part][:, None, None], right[part][:, None, None]
        across = seen[:, :, :size] * (1.0 - wx) + seen[:, :, 1:] * wx
        out[part] = across[:, :size] * (1.0 - wy) + across[:, 1:] * wy
    return out


def footprints(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(first row, first column, weight of the row below, weight of the column to the right) of each patch.

    Rows `first` to `first + size - 1` are read, and one more where the weight is not 0.

    Raises:
        ValueError: N is odd, the two differ in length, or a position is not finite.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if size < 2 or size % 2:
        raise ValueError(f"a patch has an even side, not {size}")
    if x.shape != y.shape or x.ndim != 1 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"positions are two rows of finite numbers, not {x.shape} and {y.shape}")
    left, top = np.floor(x), np.floor(y)
    return top.astype(np.int64) - size // 2, left.astype(np.int64) - size // 2, y - top, x - left


def intensity(probe: Array, seen: Array) -> npt.NDArray[np.float64]:
    """I = |FFT2(P·O)|²/N², DC at [0, 0].

    Args:
        probe: (N, N).
        seen: (n, N, N), patches of the object.

    Returns:
        float64 (n, N, N).

    Raises:
        ValueError: the shapes do not fit.
    """
    if seen.ndim != 3 or seen.shape[1:] != probe.shape or probe.shape[0] != probe.shape[1]:
        raise ValueError(f"a probe {probe.shape} and patches {seen.shape} do not fit: (N, N) and (n, N, N)")
    size = probe.shape[0]
    wide = probe.astype(np.complex128)
    out = np.empty(seen.shape, np.float64)
    for part in _parts(len(seen), size):
        far = np.fft.fft2(wide * seen[part])
        out[part] = (far.real**2 + far.imag**2) / size**2
    return out


def amplitude(probe: Array, seen: Array) -> npt.NDArray[np.float64]:
    """A = sqrt(fftshift(I)), float64 (n, N, N), DC at [N/2, N/2]."""
    found: npt.NDArray[np.float64] = np.sqrt(np.fft.fftshift(intensity(probe, seen), axes=(-2, -1)))
    return found


def _parts(count: int, size: int) -> Iterator[slice]:
    step = max(1, HELD_BYTES // (16 * (size + 1) ** 2))
    return (slice(i, min(i + step, count)) for i in range(0, count, step))
