"""The forward model against a DFT written as a matrix, Parseval, the shift theorem, a Gaussian, and the translation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels.diffraction.forward import amplitude, intensity, patches
from kernels.diffraction.probe import GRID, simulated_probe
from kernels.translation import translate
from kernels.translation.groups import extract, reassemble

N = 16
RNG = np.random.default_rng(7)


def noise(*shape: int) -> Any:
    return RNG.normal(size=shape) + 1j * RNG.normal(size=shape)


def smooth(side: int) -> Any:
    """A picture in which nothing is finer than some 25 pixels, as a bilinear round trip needs it."""
    y, x = np.mgrid[:side, :side] / 25.0
    return (1.5 + np.sin(x) * np.cos(0.7 * y)) * np.exp(1j * 0.8 * np.sin(0.9 * y + 0.4 * x))


def by_matrix(probe: Any, seen: Any, sign: int = -1) -> Any:
    """|W Ψ Wᵀ|²/N², with every term of the DFT written down; nothing of numpy.fft."""
    k = np.arange(len(probe))
    w = np.exp(sign * 2j * np.pi * np.outer(k, k) / len(probe))
    far = np.einsum("ka,nab,lb->nkl", w, probe * seen, w)
    return np.abs(far) ** 2 / len(probe) ** 2


def test_intensity_is_the_dft_by_matrix_and_not_its_mirror_image() -> None:
    probe, seen = noise(N, N), noise(3, N, N)
    got = intensity(probe, seen)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, by_matrix(probe, seen), rtol=1e-11, atol=1e-11)
    assert np.abs(got - by_matrix(probe, seen, sign=1)).max() > 0.1


def test_parseval_holds_and_fails_without_the_square_of_n() -> None:
    probe, seen = noise(N, N), noise(5, N, N)
    light = (np.abs(probe * seen) ** 2).sum(axis=(1, 2))
    np.testing.assert_allclose(intensity(probe, seen).sum(axis=(1, 2)), light, rtol=1e-13)
    assert np.abs(intensity(probe, seen).sum(axis=(1, 2)) / N - light).min() > 1


def test_shift_theorem() -> None:
    wave = noise(1, N, N)
    ones = np.ones((N, N), complex)
    still = intensity(ones, wave)
    np.testing.assert_allclose(intensity(ones, np.roll(wave, (3, -5), (1, 2))), still, atol=1e-12)
    ramp = np.exp(2j * np.pi * 3 * np.arange(N) / N)[None, :]  # along x: 3 columns up in frequency
    moved = intensity(ones, wave * ramp)
    np.testing.assert_allclose(moved, np.roll(still, 3, axis=2), atol=1e-12)
    assert np.abs(moved - np.roll(still, 3, axis=1)).max() > 0.1  # rows and columns taken for each other


def test_known_gaussian_and_dc_in_the_middle() -> None:
    size, sigma = 64, 4.0
    axis = np.arange(size) - size // 2
    r2 = axis[:, None] ** 2 + axis[None, :] ** 2
    got = amplitude(np.exp(-r2 / (2 * sigma**2)), np.ones((1, size, size)))[0]
    want = 2 * np.pi * sigma**2 * np.exp(-2 * np.pi**2 * sigma**2 * r2 / size**2) / size
    np.testing.assert_allclose(got, want, atol=1e-11)
    assert np.unravel_index(got.argmax(), got.shape) == (32, 32)
    assert np.abs(got - np.fft.fftshift(want)).max() > 1


def test_patches_at_whole_pixels_are_copies_with_the_point_in_their_middle() -> None:
    canvas = noise(40, 50)
    seen = patches(canvas, np.array([8.0, 20.0, 42.0]), np.array([8.0, 13.0, 32.0]), N)
    for i, (x, y) in enumerate([(8, 8), (20, 13), (42, 32)]):
        np.testing.assert_array_equal(seen[i], canvas[y - 8 : y + 8, x - 8 : x + 8])
    assert (seen[1] != canvas[20 - 8 : 20 + 8, 13 - 8 : 13 + 8]).any()  # x for y


def test_patches_between_pixels_are_those_of_the_translation() -> None:
    canvas = noise(48, 48)
    x, y = RNG.uniform(10, 38, 6), RNG.uniform(10, 38, 6)
    moved = translate(np.repeat(canvas[None], 6, 0), np.stack([24 - x, 24 - y], axis=1))
    np.testing.assert_allclose(patches(canvas, x, y, N), moved[:, 16:32, 16:32], atol=1e-13)


@pytest.mark.parametrize(("x", "y"), [(7.9, 20.0), (20.0, 32.5), (40.0, 41.0)])
def test_a_patch_over_the_edge_is_refused(x: float, y: float) -> None:
    patches(noise(40, 40), np.array([8.0, 32.0]), np.array([32.0, 8.0]), N)  # just fits
    with pytest.raises(ValueError, match="reaches over an object of 40×40"):
        patches(noise(40, 40), np.array([x]), np.array([y]), N)


@pytest.mark.parametrize(("sign", "good"), [(1, True), (-1, False)])
def test_merged_and_extracted_again(sign: int, good: bool) -> None:
    size = 32
    x, y = 60 + RNG.uniform(-3, 3, (2, 4)), 55 + RNG.uniform(-3, 3, (2, 4))
    seen = patches(smooth(120), x.ravel(), y.ravel(), size).reshape(2, 4, size, size)
    places = sign * np.stack([x, y], axis=-1)
    again = extract(reassemble(seen, places), places, (size, size))
    inner = slice(8, -8)  # where all patches of a group lie over each other
    error = np.abs(again - seen)[..., inner, inner].max() / np.abs(seen).max()
    assert error < 1e-3 if good else error > 1e-2


def test_probe_has_finite_support_a_curved_phase_and_parts_on_the_grid() -> None:
    probe = simulated_probe(64, curvature=5.0)
    axis = np.arange(64) - 32
    r = np.hypot(axis[:, None], axis[None, :])
    assert probe.dtype == np.complex64
    assert probe[32, 32] == 1
    assert not probe[r > 0.3 * 64 * 1.15].any()
    assert np.abs(probe[r < 0.3 * 64 * 0.85]).min() > 0.999
    half = np.abs(probe[32, 32:])
    assert abs(np.interp(-0.5, -half, np.arange(32)) - 0.3 * 64) < 0.1  # half of the modulus at R
    np.testing.assert_allclose(np.angle(probe[32, 40]), 5.0 * (8 / 19.2) ** 2, atol=1e-5)
    for part in (probe.real, probe.imag):
        np.testing.assert_array_equal(np.rint(part.astype(float) / GRID) * GRID, part)
    assert not np.iscomplex(simulated_probe(64, curvature=0.0)).any()
    with pytest.raises(ValueError, match="even side"):
        simulated_probe(63)
    with pytest.raises(ValueError, match="does not fit"):
        simulated_probe(64, diameter=60)
