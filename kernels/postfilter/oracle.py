"""The oracle: NumPy, float64, the definition written down; and how far a float32 backend may be from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.postfilter.weights import Weights

Array = npt.NDArray[np.float64]
# Half the distance of two float32 numbers next to 1: the largest relative error of one operation.
UNIT = 2.0**-24
SIGMAS = 6


def apply(frames: npt.NDArray[Any], weights: Weights) -> Array:
    """Filter (n, 3, H, W) in double precision, whatever the precision of the frames."""
    frames = np.asarray(frames, dtype=np.float64)
    first = np.maximum(_convolve(frames, weights.w1, weights.b1), 0)
    second = np.maximum(_convolve(first, weights.w2, weights.b2), 0)
    return np.clip(frames + _convolve(second, weights.w3, weights.b3), 0, 255)


def error_bound(frames: npt.NDArray[Any], weights: Weights) -> Array:
    """How far a float32 result may be from the oracle at every pixel, for any order of the sums, fused or not.

    Roundings are taken as independent with mean 0 (Higham and Mary, SIAM J. Sci. Comput. 41, A2815, 2019): a sum
    of n terms has a standard deviation of at most u·√n·Σ|terms|, and layers add in squares through w². `SIGMAS`
    of that are allowed; the bound that always holds, with n for √n, is so wide that it lets wrong weights pass.
    ReLU and clamp make no error larger. Algorithms that do not sum the products themselves (Winograd, FFT) may
    exceed it.
    """
    exact = np.asarray(frames, dtype=np.float64)
    variance, values = np.zeros_like(exact), exact
    for k, (w, b) in enumerate(((weights.w1, weights.b1), (weights.w2, weights.b2), (weights.w3, weights.b3))):
        terms = _convolve(np.abs(values), np.abs(w), np.abs(b))
        carried = _convolve(variance, np.square(w, dtype=np.float64), np.zeros_like(b))
        variance = carried + (w[0].size + 1) * np.square(UNIT * terms)
        values = _convolve(values, w, b)
        values = values if k == 2 else np.maximum(values, 0)
    return SIGMAS * np.sqrt(variance) + UNIT * np.abs(exact + values)


def make(weights: Weights, *, threads: int) -> Any:
    """The oracle as a backend. Its threads are those of NumPy's own matrix product."""
    return lambda frames: apply(frames, weights)


def _convolve(frames: Array, w: npt.NDArray[Any], b: npt.NDArray[Any]) -> Array:
    """out[o, y, x] = b[o] + Σ w[o, i, ky, kx] · in[i, y+ky-1, x+kx-1], 0 outside; row by row, to spare memory."""
    count, _, height, width = frames.shape
    padded = np.pad(frames, ((0, 0), (0, 0), (1, 1), (1, 1)))
    w, b = np.asarray(w, dtype=np.float64), np.asarray(b, dtype=np.float64)
    out = np.empty((count, len(b), height, width))
    for frame, filtered in zip(padded, out, strict=True):
        for y in range(height):
            total = np.broadcast_to(b[:, None], (len(b), width))
            for ky in range(3):
                for kx in range(3):
                    total = total + w[:, :, ky, kx] @ frame[:, y + ky, kx : kx + width]
            filtered[:, y] = total
    return out
