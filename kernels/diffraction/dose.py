"""Photons: exposing noise-free amplitudes to a dose, and thinning counts to a smaller one.

    s = sqrt(photons / mean Σ|Ψ|²);  measured = sqrt(Poisson((sA)²));  X = measured/s

`photons` is the mean per pattern; what was drawn is recorded too.

Same bytes on any machine: `s` is rounded to float32, and everything that is stored follows from it and from whole
numbers by operations that IEEE 754 rounds correctly. The rates themselves come out of an FFT and may differ in their
last bits (1e-16). Rounding them to a grid would gain nothing: fewer would differ, each by more. That such a
difference turns one draw of a data set has a chance of about 1e-16·√rate for each pixel, 1e-9 for one of 10^6 pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Drawn:
    """What an exposure gave.

    Attributes:
        s: root of photons for one unit of amplitude.
        photons: asked for, the mean per pattern.
        photons_mean, photons_least, photons_most: drawn, per pattern.
        frames: how many patterns.
    """

    s: float
    photons: float
    photons_mean: float
    photons_least: int
    photons_most: int
    frames: int

    @property
    def error(self) -> float:
        """One standard deviation of `photons_mean`: sqrt(photons / frames)."""
        return math.sqrt(self.photons / self.frames)


def expose(amplitude: Array, photons: float, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], Drawn]:
    """X = measured/s and what was drawn; see the module.

    Args:
        amplitude: (n, N, N), noise-free.
        photons: mean per pattern.

    Raises:
        ValueError: no photons, or no light.
    """
    counts, drawn = draw(amplitude, photons, rng)
    return amplitudes(counts, 1.0 / drawn.s), drawn


def draw(amplitude: Array, photons: float, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], Drawn]:
    """The counts themselves: Poisson((sA)²), int64 (n, N, N); else as `expose`."""
    wide = np.asarray(amplitude, np.float64)
    if wide.ndim != 3 or not len(wide):
        raise ValueError(f"amplitudes are (n, N, N), not {wide.shape}")
    light = mean_power(wide)
    if not (math.isfinite(photons) and photons > 0):
        raise ValueError(f"a dose is a positive number of photons per pattern, not {photons!r}")
    if not (math.isfinite(light) and light > 0):
        raise ValueError(f"patterns with a mean power of {light} cannot be exposed")
    s = float(np.float32(math.sqrt(photons / light)))
    counts = np.empty(wide.shape, np.int64)
    for i, frame in enumerate(wide):
        counts[i] = rng.poisson((s * frame) ** 2)
    return counts, drawn_of(counts, s, photons)


def drawn_of(counts: Array, s: float, photons: float) -> Drawn:
    """What these counts amount to."""
    each = counts.sum(axis=(-2, -1), dtype=np.int64)
    return Drawn(s, photons, int(each.sum()) / len(each), int(each.min()), int(each.max()), len(each))


def amplitudes(counts: Array, factor: float) -> npt.NDArray[np.float32]:
    """sqrt(counts)·factor, float32; the product in float64."""
    out = np.empty(counts.shape, np.float32)
    for i, frame in enumerate(counts):
        out[i] = np.sqrt(np.asarray(frame, np.float64)) * factor
    return out


def thin(
    counts: Array, fraction: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Keep each photon with a chance of `fraction`: exact Poisson statistics at the smaller dose.

    Args:
        counts: whole numbers, of any real dtype.
        fraction: 0 to 1.

    Returns:
        (kept, left over): they share no photon, and their sum is `counts`. A fraction of 0.5 gives two halves.

    Raises:
        ValueError: counts that are none, or a fraction that is none.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"a part of the photons is 0 to 1 of them, not {fraction!r}")
    whole = whole_counts(counts)
    kept = rng.binomial(whole, fraction).astype(np.int64)
    return kept, whole - kept


def whole_counts(counts: Array) -> npt.NDArray[np.int64]:
    """Counts as int64.

    Raises:
        ValueError: a number that is negative, not finite or not whole: amplitudes are no counts.
    """
    counts = np.asarray(counts)
    if np.iscomplexobj(counts) or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("counts are whole numbers of photons, not negative and finite")
    whole = np.rint(counts).astype(np.int64)
    if (whole != counts).any():
        bad = counts[whole != counts].flat[0]
        raise ValueError(f"counts are whole numbers of photons, and {bad} is none: amplitudes cannot be thinned")
    return whole


def normalisation(frames: Array) -> float:
    """sqrt((N/2)² / mean ΣX²): by this the amplitudes of these frames are multiplied.

    Raises:
        ValueError: there is no light in them.
    """
    power = mean_power(frames)
    if not (math.isfinite(power) and power > 0):
        raise ValueError(f"frames with a mean power of {power} cannot be normalised")
    return float(frames.shape[-1] / 2 / math.sqrt(power))


def mean_power(frames: Array) -> float:
    """The mean over frames of ΣX². Squares in float64: those of uint16 would wrap around from 256 on."""
    each = [float(np.sum(np.square(frame, dtype=np.float64))) for frame in frames]
    return math.fsum(each) / len(each)
