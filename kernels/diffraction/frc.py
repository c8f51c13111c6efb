"""Fourier ring correlation of two images, and the frequency up to which they agree.

    FRC(r) = Re Σ A·conj(B) / sqrt(Σ|A|²·Σ|B|²)        sums over the ring r of the two spectra

of the images under a Tukey window, mean removed (Saxton and Baumeister, J. Microsc. 127, 127, 1982). A ring is all
frequencies that are nearest to k/L, with L the shorter side, k = 1, 2, ... up to Nyquist. Frequencies are in cycles
per pixel, never ring numbers: a cutoff of 1.0 as the number of a ring was once read as "everything resolved", and it
is almost the worst there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.devices import KernelRefused
from kernels.diffraction.windows import ALPHA, Real, prepared

NYQUIST = 0.5  # cycles per pixel
HALF, SEVENTH = 0.5, 1.0 / 7.0


@dataclass(frozen=True)
class Curve:
    """One Fourier ring correlation.

    Attributes:
        frequency: (k,) of each ring, cycles per pixel, rising, from 1/L to at most 0.5.
        frc: (k,) in [-1, 1]; NaN where a ring of one image is empty.
        n: (k,) Fourier pixels in each ring.
    """

    frequency: Real
    frc: Real
    n: npt.NDArray[np.int64]


class Reached(StrEnum):
    """Where the curve is cut."""

    CROSSES = "crosses"
    NEVER = "never below the threshold: Nyquist is given"
    AT_ONCE = "below the threshold from the first ring on: 0 is given"
    NOTHING = "no ring has a correlation: 0 is given"


@dataclass(frozen=True)
class Cutoff:
    """`frequency` in cycles per pixel; `reached` says whether it is a crossing at all."""

    frequency: float
    reached: Reached

    @property
    def of_nyquist(self) -> float:
        """As a fraction of Nyquist."""
        return self.frequency / NYQUIST


def ring_correlation(first: npt.NDArray[Any], second: npt.NDArray[Any], *, alpha: float = ALPHA) -> Curve:
    """Correlate two images (H, W), real or complex, ring by ring.

    They must be registered: a shift alone takes the correlation away.

    Args:
        alpha: of the Tukey window.

    Raises:
        KernelRefused: the shapes differ, a side is under 4 pixels, or a pixel is not finite.
    """
    if first.shape != second.shape:
        raise KernelRefused(f"images of one size are correlated, not {first.shape} and {second.shape}")
    if first.ndim != 2 or min(first.shape) < 4:
        raise KernelRefused(f"a ring correlation needs images of at least 4×4 pixels, not {first.shape}")
    a, b = (np.fft.fft2(prepared(image, alpha)) for image in (first, second))
    rings = ring_numbers((first.shape[0], first.shape[1]))
    count = min(first.shape) // 2 + 1
    inside = rings < count
    where = rings[inside]

    def total(values: Real) -> Real:
        return np.asarray(np.bincount(where, weights=values[inside], minlength=count)[1:], dtype=np.float64)

    power = total(np.abs(a) ** 2) * total(np.abs(b) ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        frc = np.where(power > 0, total((a * b.conj()).real) / np.sqrt(power), np.nan)
    n = np.bincount(where, minlength=count)[1:].astype(np.int64)
    # Rounding alone can lift the correlation of equal rings over 1.
    return Curve(np.arange(1, count) / min(first.shape), np.clip(frc, -1.0, 1.0), n)


def ring_numbers(shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """The ring of each pixel of an unshifted spectrum: its radius in cycles per pixel, times the shorter side."""
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None, :])
    return np.asarray(np.floor(radius * min(shape) + 0.5), dtype=np.int64)


def half_bit(n: npt.NDArray[Any]) -> Real:
    """The half-bit threshold of rings with n pixels (van Heel and Schatz, J. Struct. Biol. 151, 250, 2005)."""
    root = np.sqrt(np.asarray(n, dtype=np.float64))
    return np.asarray((0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root))


def cutoff(curve: Curve, threshold: float | Real = HALF) -> Cutoff:
    """The frequency at which the curve first falls below the threshold, by linear interpolation between two rings.

    Args:
        threshold: one number, or one for each ring (`half_bit(curve.n)`).

    Raises:
        KernelRefused: another number of thresholds than of rings.
    """
    limit = np.asarray(threshold, dtype=np.float64)
    if limit.ndim and limit.shape != curve.frc.shape:
        raise KernelRefused(f"{limit.shape} thresholds for {curve.frc.shape} rings: give one number or one a ring")
    known = np.isfinite(curve.frc)
    above = (curve.frc - limit)[known]
    frequency = curve.frequency[known]
    if above.size == 0:
        return Cutoff(0.0, Reached.NOTHING)
    below = np.flatnonzero(above < 0)
    if below.size == 0:
        return Cutoff(NYQUIST, Reached.NEVER)
    k = int(below[0])
    if k == 0:
        return Cutoff(0.0, Reached.AT_ONCE)
    share = above[k - 1] / (above[k - 1] - above[k])
    found = float(frequency[k - 1] + share * (frequency[k] - frequency[k - 1]))
    return Cutoff(found, Reached.CROSSES)
