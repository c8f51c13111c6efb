"""Fourier ring correlation: against a slow loop, known signals, and cutoffs that are frequencies."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.signal.windows import tukey as scipy_tukey

from kernels.devices import KernelRefused
from kernels.diffraction import windows
from kernels.diffraction.frc import Curve, Reached, cutoff, half_bit, ring_correlation
from tests.kernels.diffraction.pictures import noise, waves


def by_loop(a: npt.NDArray[Any], b: npt.NDArray[Any], alpha: float) -> tuple[list[float], list[int]]:
    """The definition, pixel by pixel, with a DFT written out."""
    rows, columns = a.shape
    weight = np.outer(scipy_tukey(rows, alpha), scipy_tukey(columns, alpha))
    spectra = []
    for image in (a, b):
        mean = (weight * image).sum() / weight.sum()
        ready = weight * (image - mean)
        down = np.exp(-2j * np.pi * np.outer(np.arange(rows), np.arange(rows)) / rows)
        across = np.exp(-2j * np.pi * np.outer(np.arange(columns), np.arange(columns)) / columns)
        spectra.append(down @ ready @ across)
    short = min(rows, columns)
    sums: dict[int, list[complex]] = {k: [0, 0, 0] for k in range(1, short // 2 + 1)}
    counts = dict.fromkeys(sums, 0)
    for i in range(rows):
        for j in range(columns):
            fy = (i if i < rows / 2 else i - rows) / rows
            fx = (j if j < columns / 2 else j - columns) / columns
            ring = math.floor(math.hypot(fy, fx) * short + 0.5)
            if ring in sums:
                p, q = spectra[0][i, j], spectra[1][i, j]
                for at, value in enumerate((p * q.conjugate(), abs(p) ** 2, abs(q) ** 2)):
                    sums[ring][at] += value
                counts[ring] += 1
    return [(s[0] / np.sqrt(s[1] * s[2])).real for s in sums.values()], list(counts.values())


@pytest.mark.parametrize(("shape", "alpha"), [((12, 12), 0.5), ((10, 16), 0.25), ((9, 13), 1.0), ((16, 11), 0.0)])
def test_it_is_the_definition(shape: tuple[int, int], alpha: float) -> None:
    a, b = waves(shape) + noise(shape, 0.1), waves(shape, x=0.4) + noise(shape, 0.1, seed=8)
    curve = ring_correlation(a, b, alpha=alpha)
    frc, n = by_loop(a, b, alpha)
    np.testing.assert_allclose(curve.frc, frc, atol=1e-12)
    assert curve.n.tolist() == n
    np.testing.assert_allclose(curve.frequency, np.arange(1, min(shape) // 2 + 1) / min(shape))


@pytest.mark.parametrize(("length", "alpha"), [(2, 0.5), (7, 0.5), (8, 0.3), (9, 1.0), (5, 0.0)])
def test_the_window_is_tukeys(length: int, alpha: float) -> None:
    np.testing.assert_allclose(windows.tukey(length, alpha), scipy_tukey(length, alpha), atol=1e-14)


def test_without_a_window_the_border_correlates_what_does_not_belong_together() -> None:
    """The negative twin of the window: a common edge jump makes two unlike images alike."""
    tilt = 20.0 * np.linspace(0, 1, 64)[:, None] * np.ones(64)
    a, b = tilt + noise((64, 64), 1.0).real, tilt + noise((64, 64), 1.0, seed=9).real
    bare, under = (ring_correlation(a, b, alpha=alpha).frc[5:].mean() for alpha in (0.0, 1.0))
    assert bare > 0.4
    assert abs(under) < 0.1


def test_equal_opposite_and_unlike_images() -> None:
    a, b = noise((64, 64), 1.0), noise((64, 64), 1.0, seed=9)
    np.testing.assert_allclose(ring_correlation(a, 3 * a + 5).frc, 1.0)
    np.testing.assert_allclose(ring_correlation(a, -a).frc, -1.0)
    np.testing.assert_allclose(ring_correlation(a, 1j * a).frc, 0.0, atol=1e-12)  # the real part is what counts
    curve = ring_correlation(a, b)
    assert abs(curve.frc[8:].mean()) < 0.05


def test_the_signal_to_noise_is_the_correlation() -> None:
    """White signal S and noise N: FRC = S²/(S² + N²), everywhere."""
    signal = noise((128, 128), 1.0)
    for ratio in (1.0, 2.0):
        a, b = (signal + noise((128, 128), 1 / math.sqrt(ratio), seed=s) for s in (21, 22))
        assert ring_correlation(a, b).frc[10:].mean() == pytest.approx(ratio / (ratio + 1), abs=0.02)


def test_a_shift_takes_the_correlation_away() -> None:
    a = waves((64, 64)) + noise((64, 64), 0.3)
    assert ring_correlation(a, np.roll(a, 2, axis=1)).frc[10:].mean() < 0.3


def test_a_cutoff_is_where_the_line_crosses() -> None:
    curve = Curve(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.9, 0.6, 0.4, 0.8]), np.array([1, 4, 9, 16]))
    found = cutoff(curve, 0.5)
    assert found.reached is Reached.CROSSES
    assert found.frequency == pytest.approx(0.25)
    assert found.of_nyquist == pytest.approx(0.5)
    assert cutoff(curve, 0.8).frequency == pytest.approx(0.1 + 0.1 / 3)
    each = np.array([0.1, 0.65, 0.1, 0.1])
    assert cutoff(curve, each).frequency == pytest.approx(0.1 + 0.1 * 0.8 / 0.85)


def test_a_curve_that_never_crosses_says_so() -> None:
    steps, n = np.array([0.1, 0.2]), np.array([4, 8])
    never = cutoff(Curve(steps, np.array([0.9, 0.7]), n), 0.5)
    assert (never.frequency, never.reached) == (0.5, Reached.NEVER)
    at_once = cutoff(Curve(steps, np.array([0.3, 0.9]), n), 0.5)
    assert (at_once.frequency, at_once.reached) == (0.0, Reached.AT_ONCE)
    nothing = cutoff(Curve(steps, np.array([np.nan, np.nan]), n), 0.5)
    assert (nothing.frequency, nothing.reached) == (0.0, Reached.NOTHING)
    assert cutoff(ring_correlation(np.ones((16, 16)), waves((16, 16)))).reached is Reached.NOTHING


def test_half_a_bit() -> None:
    assert half_bit(np.array([1]))[0] == pytest.approx(1.0, abs=1e-4)  # 2.1173 / 2.1173
    assert half_bit(np.array([100]))[0] == pytest.approx((0.2071 + 0.19102) / (1.2071 + 0.09102))
    assert half_bit(np.array([10**12]))[0] == pytest.approx(0.2071 / 1.2071, abs=1e-5)


def test_a_cutoff_is_a_frequency_and_no_ring_number() -> None:
    """The trap: the same blur in a picture twice as large has twice the ring number, and the same cutoff."""
    curves = []
    for side in (64, 128):
        signal, other = noise((side, side), 1.0, seed=31), noise((side, side), 1.0, seed=32)
        radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
        blurred = np.fft.ifft2(np.fft.fft2(signal) * (radius < 0.2)) + np.fft.ifft2(
            np.fft.fft2(other) * (radius >= 0.2)
        )
        curves.append(ring_correlation(blurred, signal))

    def is_a_frequency(of: Callable[[Curve], float]) -> bool:
        """Within cycles per pixel, and the blur's, however large the picture is."""
        return all(0 <= of(curve) <= 0.5 and abs(of(curve) - 0.2) < 0.02 for curve in curves)

    def shell(curve: Curve) -> float:
        """The seed's: the number of the first ring below the threshold, 1.0 being almost the worst there is."""
        return float(np.flatnonzero(curve.frc < 0.5)[0]) + 1

    assert is_a_frequency(lambda curve: cutoff(curve).frequency)
    assert not is_a_frequency(shell)
    assert shell(curves[1]) > 1.8 * shell(curves[0])
    # As a part of the rings it lies within the range, and is twice the frequency: of Nyquist, not of a pixel.
    assert not is_a_frequency(lambda curve: shell(curve) / len(curve.frc))


def test_what_cannot_be_correlated_is_refused() -> None:
    with pytest.raises(KernelRefused, match="one size"):
        ring_correlation(np.ones((8, 8)), np.ones((8, 9)))
    with pytest.raises(KernelRefused, match="4×4"):
        ring_correlation(np.ones((3, 8)), np.ones((3, 8)))
    with pytest.raises(KernelRefused, match="not finite"):
        ring_correlation(np.full((8, 8), np.nan), np.ones((8, 8)))
    with pytest.raises(KernelRefused, match="one number or one a ring"):
        cutoff(ring_correlation(waves((8, 8)), waves((8, 8))), np.array([0.5, 0.5]))
