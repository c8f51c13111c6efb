"""Photons: the dose that is asked for is drawn, seeds decide, thinning keeps photons, squares do not wrap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kernels.diffraction import dose, seeds
from kernels.diffraction.forward import amplitude, patches
from kernels.diffraction.probe import simulated_probe

N = 16
RNG = np.random.default_rng(3)


def light(frames: int = 60) -> Any:
    canvas = np.exp(1j * RNG.normal(size=(60, 60))) * RNG.uniform(0.4, 1, (60, 60))
    x, y = RNG.uniform(10, 50, (2, frames))
    return amplitude(simulated_probe(N), patches(canvas, x, y, N))


LIGHT = light()


@pytest.mark.parametrize("photons", [1e3, 1e4, 1e5])
def test_drawn_mean_is_the_one_asked_for_within_poisson_error(photons: float) -> None:
    x, drawn = dose.expose(LIGHT, photons, seeds.noise_chance(42, photons))
    assert x.dtype == np.float32
    assert drawn.frames == len(LIGHT)
    assert drawn.error == pytest.approx((photons / len(LIGHT)) ** 0.5)
    assert abs(drawn.photons_mean - photons) < 4 * drawn.error
    assert drawn.photons_mean != photons  # it is what was drawn, not what was asked for
    assert drawn.photons_least < photons < drawn.photons_most
    counts = (x.astype(float) * drawn.s) ** 2
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-2)
    assert np.rint(counts).sum() / len(LIGHT) == drawn.photons_mean
    # Twin: were the photons meant for all patterns together, or the dose applied to amplitudes, it would be seen.
    for wrong in (photons / len(LIGHT), photons**0.5):
        _, other = dose.expose(LIGHT, wrong, seeds.noise_chance(42, photons))
        assert abs(other.photons_mean - photons) > 4 * drawn.error


def test_the_noise_is_poissonian_pixel_by_pixel() -> None:
    flat = np.full((4000, 2, 2), 1.0)
    counts, _ = dose.draw(flat, 20.0, seeds.generator("poisson"))
    for pixel in counts.reshape(4000, 4).T:
        assert abs(pixel.mean() - 5) < 0.2
        assert abs(pixel.var() - 5) < 0.6
    thinned, _ = dose.thin(counts, 0.5, seeds.generator("half"))
    assert abs(thinned.var() - 2.5) < 0.2
    assert abs((counts / 2).var() - 2.5) > 1  # twin: counts divided by two are no Poisson draw


def seeded(make: Callable[[int], Any]) -> None:
    """The rule of the trap: same seed, same bytes; another seed, other bytes."""
    assert make(42).tobytes() == make(42).tobytes(), "unseeded"
    assert make(42).tobytes() != make(43).tobytes(), "the seed is not used"


def test_seed_decides_the_noise() -> None:
    seeded(lambda seed: dose.expose(LIGHT, 1e3, seeds.noise_chance(seed, 1e3))[0])
    with pytest.raises(AssertionError, match="the seed is not used"):  # the seed argument overwritten by 42
        seeded(lambda seed: dose.expose(LIGHT, 1e3, seeds.noise_chance(42, 1e3))[0])
    with pytest.raises(AssertionError, match="unseeded"):
        seeded(lambda seed: dose.expose(LIGHT, 1e3, np.random.default_rng())[0])
    np.random.seed(1)  # noqa: NPY002 - nothing global is read
    first = dose.expose(LIGHT, 1e3, seeds.noise_chance(42, 1e3))[0]
    np.random.seed(2)  # noqa: NPY002
    assert first.tobytes() == dose.expose(LIGHT, 1e3, seeds.noise_chance(42, 1e3))[0].tobytes()


def test_generators_are_the_same_everywhere_and_differ_by_what_they_are_for() -> None:
    assert seeds.generator("a", 1).integers(0, 2**32, 3).tolist() == [4111131711, 65033515, 3992858925]
    made = [
        seeds.scan_chance(42),
        seeds.noise_chance(42, 1e3),
        seeds.noise_chance(42, 1e4),
        seeds.grouping_chance(42, "train"),
        seeds.subsampling_chance(42, "train"),
        seeds.grouping_chance(42, "test"),
    ]
    assert len({int(g.integers(0, 2**62)) for g in made}) == len(made)


def test_last_bits_of_an_fft_do_not_reach_the_bytes() -> None:
    def bytes_of(error: float) -> bytes:
        off = 1 + error * np.random.default_rng(1).choice([-1, 1], LIGHT.shape)
        return dose.expose(LIGHT * off, 1e4, seeds.noise_chance(42, 1e4))[0].tobytes()

    assert bytes_of(0) == bytes_of(2e-16) == bytes_of(2e-15)
    assert bytes_of(0) != bytes_of(1e-2)


def test_thinning_keeps_photons_and_halves_share_none() -> None:
    counts = RNG.poisson(50, (20, 8, 8))
    kept, left = dose.thin(counts, 0.1, seeds.thinning_chance(42, 1e3, "dose"))
    np.testing.assert_array_equal(kept + left, counts)
    assert kept.min() >= 0
    assert left.min() >= 0
    assert abs(kept.sum() - 0.1 * counts.sum()) < 5 * (0.09 * counts.sum()) ** 0.5
    first, second = dose.thin(counts, 0.5, seeds.thinning_chance(42, None, "halves"))
    residue = [h - h.mean() for h in (first, second)]
    together = (residue[0] * residue[1]).mean() / (residue[0].std() * residue[1].std())
    assert abs(together) < 0.1  # halves of Poisson counts are independent
    again, _ = dose.thin(counts, 0.5, seeds.generator("another"))
    shared = ((first - first.mean()) * (again - again.mean())).mean() / (first.std() * again.std())
    assert shared > 0.3  # twin: two halves drawn apart share photons
    for fraction, same in ((0.0, np.zeros_like(counts)), (1.0, counts)):
        np.testing.assert_array_equal(dose.thin(counts, fraction, seeds.generator("x"))[0], same)


@pytest.mark.parametrize("bad", [np.array([[1.5]]), np.array([[-1.0]]), np.array([[np.nan]])])
def test_amplitudes_cannot_be_thinned(bad: Any) -> None:
    with pytest.raises(ValueError, match="counts are whole numbers"):
        dose.thin(bad, 0.5, seeds.generator("x"))
    with pytest.raises(ValueError, match="0 to 1"):
        dose.thin(np.array([[1]]), 1.5, seeds.generator("x"))


@pytest.mark.parametrize("dtype", ["uint16", "uint8", "float32", "int64"])
def test_squares_are_in_double_precision(dtype: str) -> None:
    frames = np.full((3, 4, 4), 250, dtype)
    frames[0] += 4
    want = (16 * 254.0**2 + 2 * 16 * 250.0**2) / 3
    assert dose.mean_power(frames) == want
    assert dose.normalisation(frames) == pytest.approx(2 / want**0.5, rel=1e-15)
    small = frames * np.array(4, dtype) if dtype == "uint16" else frames  # 1000² = 16960 mod 65536
    if dtype == "uint16":
        assert dose.mean_power(small) == 16 * want
        wrong = np.mean((small**2).sum(axis=(1, 2), dtype=np.float64))  # the trap
        assert abs(wrong - 16 * want) > 0.5 * want


def test_normalised_frames_have_the_power_of_the_contract() -> None:
    x, _ = dose.expose(LIGHT, 1e4, seeds.noise_chance(42, 1e4))
    assert dose.mean_power(x * dose.normalisation(x)) == pytest.approx((N / 2) ** 2, rel=1e-6)
    with pytest.raises(ValueError, match="cannot be normalised"):
        dose.normalisation(np.zeros((2, 4, 4)))


@pytest.mark.parametrize("photons", [0, -1.0, float("nan"), float("inf")])
def test_no_dose_is_refused(photons: float) -> None:
    with pytest.raises(ValueError, match="a dose is a positive number"):
        dose.expose(LIGHT, photons, seeds.generator("x"))
    with pytest.raises(ValueError, match="cannot be exposed"):
        dose.expose(LIGHT * 0, 1e3, seeds.generator("x"))
