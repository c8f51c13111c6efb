"""The window under which images are registered and their spectra are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.devices import KernelRefused

Complex = npt.NDArray[np.complex128]
Real = npt.NDArray[np.float64]

ALPHA = 0.5  # of the Tukey window: the share of each side that is tapered, both ends together


def tukey(length: int, alpha: float = ALPHA) -> Real:
    """The tapered cosine window, symmetric, (length,); alpha 0: all ones, 1: Hann's.

    Raises:
        KernelRefused: fewer than 2 samples, or an alpha outside 0 to 1.
    """
    if length < 2 or not 0.0 <= alpha <= 1.0:
        raise KernelRefused(f"a Tukey window has at least 2 samples and alpha in [0, 1], not {length} and {alpha:g}")
    if alpha == 0.0:
        return np.ones(length)
    # How far each sample is from the nearer end, in units of the taper.
    place = np.minimum(np.arange(length), np.arange(length)[::-1]) / (alpha * (length - 1) / 2)
    return np.asarray(0.5 * (1.0 - np.cos(np.pi * np.minimum(place, 1.0))))


def window(shape: tuple[int, int], alpha: float = ALPHA) -> Real:
    """The product of a Tukey window along rows and one along columns."""
    return np.outer(tukey(shape[0], alpha), tukey(shape[1], alpha))


def prepared(image: npt.NDArray[Any], alpha: float = ALPHA) -> Complex:
    """The image (H, W) less its mean under the window, times the window: its sum is 0.

    Raises:
        KernelRefused: it is no image, or a pixel is not finite.
    """
    if image.ndim != 2:
        raise KernelRefused(f"an image is (rows, columns), not {image.shape}")
    plain = np.asarray(image, dtype=np.complex128)
    if not np.isfinite(plain).all():
        raise KernelRefused("an image with pixels that are not finite cannot be compared: mask or crop them first")
    weight = window((plain.shape[0], plain.shape[1]), alpha)
    return np.asarray(weight * (plain - (weight * plain).sum() / weight.sum()))
