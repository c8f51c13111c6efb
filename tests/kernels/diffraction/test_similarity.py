"""Similarity: the libraries against written-out formulas, and the traps that once inflated a study's numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import correlate1d, gaussian_filter

from kernels.devices import KernelRefused
from kernels.diffraction import similarity as s
from tests.kernels.diffraction.pictures import noise, waves

Real = npt.NDArray[np.float64]


def pictures(shape: tuple[int, int], sigma: float = 0.04) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return waves(shape) + noise(shape, sigma), waves(shape)


def smooth(image: Real, size: int, sigma: float) -> Real:
    """The valid part of a separable Gaussian window."""
    places = np.arange(size) - size // 2
    window = np.exp(-(places**2) / (2 * sigma**2))
    window /= window.sum()
    half = size // 2
    return correlate1d(correlate1d(image, window, axis=0), window, axis=1)[half:-half, half:-half]


def ms_ssim_written_out(a: Real, b: Real, extent: float, *, sigma: float = 1.5, weights: Any = s.SCALES) -> float:
    """Wang, Simoncelli and Bovik's definition, term by term."""
    c1, c2, value = (0.01 * extent) ** 2, (0.03 * extent) ** 2, 1.0
    for scale, weight in enumerate(weights):
        ma, mb = smooth(a, 11, sigma), smooth(b, 11, sigma)
        va, vb = smooth(a * a, 11, sigma) - ma**2, smooth(b * b, 11, sigma) - mb**2
        cov = smooth(a * b, 11, sigma) - ma * mb
        contrast = (2 * cov + c2) / (va + vb + c2)
        last = scale == len(weights) - 1
        if last:
            contrast = contrast * (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
        value *= max(float(contrast.mean()), 0.0) ** weight
        if not last:
            a, b = (x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2).mean(axis=(1, 3)) for x in (a, b))
    return value


@pytest.fixture(scope="module")
def pair() -> tuple[Real, Real]:
    image, reference = pictures((176, 192))
    return np.abs(image), np.abs(reference)


def test_ms_ssim_is_the_published_one(pair: tuple[Real, Real]) -> None:
    extent = float(np.ptp(pair[1]))
    found = s.ms_ssim(*pair, extent)
    assert found == pytest.approx(ms_ssim_written_out(*pair, extent), abs=2e-6)
    assert s.ms_ssim(pair[1], pair[1], extent) == pytest.approx(1.0, abs=1e-12)
    # A home-made one differs as soon as one of its parameters does.
    assert abs(ms_ssim_written_out(*pair, extent, sigma=1.0) - found) > 1e-4
    assert abs(ms_ssim_written_out(*pair, extent, weights=s.SCALES[::-1]) - found) > 1e-3


def test_the_blur_is_on_the_amplitude_and_is_no_window(pair: tuple[Real, Real]) -> None:
    image, reference = pictures((176, 192))
    found = s.similarity(image, reference, sigma=1.0)
    extent = float(np.ptp(pair[1]))
    blurred = [gaussian_filter(x, 1.0) for x in pair]
    assert found.ms_ssim_amplitude == pytest.approx(ms_ssim_written_out(blurred[0], blurred[1], extent), abs=2e-6)
    assert found.ms_ssim_amplitude_unblurred == pytest.approx(ms_ssim_written_out(*pair, extent), abs=2e-6)
    assert found.ms_ssim_amplitude > found.ms_ssim_amplitude_unblurred + 1e-3  # type: ignore[operator]
    phases = s.phase_images(image, reference)
    assert found.ms_ssim_phase == pytest.approx(ms_ssim_written_out(*phases, found.range_phase), abs=2e-6)
    assert found.ms_ssim_phase_blurred != pytest.approx(found.ms_ssim_phase, abs=1e-4)
    assert found.scales == 5
    said = s.parameters(1.0)["ms_ssim"]
    assert (said["window_sigma"], said["blur_sigma"], said["scales"]) == (1.5, 1.0, 5)
    assert said["by"].startswith("pytorch-msssim 1.")


def test_five_scales_need_more_than_160_pixels() -> None:
    image, reference = pictures((160, 200))
    found = s.similarity(image, reference)
    assert found.ms_ssim_phase is None
    assert found.scales == 0
    assert "160 pixels" in found.why[0]
    assert found.ssim_phase is not None
    with pytest.raises(KernelRefused, match="160"):
        s.ms_ssim(np.abs(image), np.abs(reference), 1.0)
    assert s.ms_ssim(np.ones((161, 161)), np.ones((161, 161)), 1.0) == pytest.approx(1.0)


def test_ssim_is_the_published_one() -> None:
    image, reference = pictures((48, 40))
    a, b = np.abs(image), np.abs(reference)
    extent = float(np.ptp(b))
    c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2

    def mean(x: Real) -> Real:
        return gaussian_filter(x, 1.5, truncate=3.5)

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    index = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    assert s.ssim(a, b, extent) == pytest.approx(index[5:-5, 5:-5].mean(), abs=1e-12)


def test_errors_by_hand() -> None:
    reference = np.array([[1.0, 2.0], [3.0, 4.0]])
    image = np.array([[1.0, 2.5], [3.0, 3.0]])
    assert s.mae(image, reference) == pytest.approx(1.5 / 4)
    assert s.mse(image, reference) == pytest.approx(1.25 / 4)
    assert s.psnr(image, reference, 4.0) == pytest.approx(10 * math.log10(16 / 0.3125))
    assert s.psnr(reference, reference, 4.0) == math.inf
    assert s.relative_error(image + 0j, reference + 0j) == pytest.approx(math.sqrt(1.25 / 30))


def test_the_peak_is_that_of_the_data() -> None:
    """The trap: a peak of 255 on data around 1 adds 48.13 dB and says nothing."""
    image, reference = pictures((32, 32))
    found = s.similarity(image, reference)
    assert found.peak_amplitude == pytest.approx(np.abs(reference).max())
    right = s.psnr(np.abs(image), np.abs(reference), found.peak_amplitude)
    assert found.psnr_amplitude == pytest.approx(right)
    unit = np.abs(reference) / found.peak_amplitude, np.abs(image) / found.peak_amplitude
    assert s.psnr(*unit, 255.0) - s.psnr(*unit, 1.0) == pytest.approx(48.13, abs=0.005)
    for peak in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(KernelRefused, match="peak"):
            s.psnr(*unit, peak)


def test_phase_has_its_own_range() -> None:
    """The trap: divided by 2π with a range of 1, the same phases look far better."""
    reference = np.exp(1j * 0.6 * np.abs(waves((64, 64))))
    image = reference * np.exp(1j * noise((64, 64), 0.12).real)
    found = s.similarity(image, reference)
    mine, target = s.phase_images(image, reference)
    assert found.range_phase == pytest.approx(np.ptp(np.angle(reference)))
    assert found.peak_phase == found.range_phase
    assert found.ssim_phase == pytest.approx(s.ssim(mine, target, float(np.ptp(target))))
    inflated = s.ssim(mine / (2 * np.pi), target / (2 * np.pi), 1.0)
    assert inflated > found.ssim_phase + 0.1  # type: ignore[operator]
    gained = s.psnr(mine / (2 * np.pi), target / (2 * np.pi), 1.0) - found.psnr_phase  # type: ignore[operator]
    assert gained == pytest.approx(20 * math.log10(2 * np.pi / found.range_phase))
    assert gained > 10


def test_a_pixel_across_the_cut_is_no_error() -> None:
    reference = np.exp(1j * np.array([[3.0, 3.1], [-3.1, -3.0]]))
    image = reference * np.exp(0.2j)
    mine, target = s.phase_images(image, reference)
    np.testing.assert_allclose(mine - target, 0.2)
    assert target.min() == 0.0
    assert np.ptp(target) == pytest.approx(2 * (np.pi - 3.0))
    assert np.ptp(np.angle(reference)) > 6  # what the bare angles would have said


def test_a_pixel_without_amplitude_has_not_its_references_phase() -> None:
    reference = np.exp(1j * np.linspace(0.5, 1.5, 64).reshape(8, 8))
    holed = reference.copy()
    holed[2, 3] = 0
    mine, target = s.phase_images(holed, reference)
    assert abs(mine - target)[2, 3] > 0.1
    assert np.delete(abs(mine - target).ravel(), 2 * 8 + 3).max() < 1e-12


def test_what_cannot_be_compared_is_refused_or_told() -> None:
    image, reference = pictures((32, 32))
    with pytest.raises(KernelRefused, match="one size"):
        s.similarity(image, reference[:-1])
    with pytest.raises(KernelRefused, match="not finite"):
        s.similarity(np.full((32, 32), np.nan), reference)
    with pytest.raises(KernelRefused, match="zero"):
        s.similarity(image, np.zeros((32, 32)))
    with pytest.raises(KernelRefused, match="sigma"):
        s.blur(np.ones((4, 4)), -1.0)
    pure = s.similarity(np.abs(image), np.abs(reference))  # its phase is 0 everywhere
    assert pure.ssim_phase is None
    assert pure.psnr_phase is None
    assert any("no range" in why for why in pure.why)
    tiny = s.similarity(image[:10, :10], reference[:10, :10])
    assert tiny.ssim_phase is None
    assert any("window" in why for why in tiny.why)
    assert tiny.mae_phase > 0
