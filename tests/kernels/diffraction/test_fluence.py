"""Photons on each pixel, and the bounds that follow from them."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.devices import KernelRefused
from kernels.diffraction.bounds import ptychography_limit, quantum_limit
from kernels.diffraction.fluence import photons_per_pixel


def test_photons_lie_where_the_probe_is() -> None:
    probe = np.zeros((4, 4), dtype=np.complex64)
    probe[2, 2], probe[2, 3] = 2.0, 1j  # the pixel of the position, and the one beside it along x
    x, y = np.array([5.0, 6.2, 30.0]), np.array([3.0, 3.0, 3.0])
    lit = photons_per_pixel(probe, x, y, 100.0, origin=(0, 0), shape=(8, 10))
    assert lit[3, 5] == pytest.approx(80)
    assert lit[3, 6] == pytest.approx(20 + 80)
    assert lit[3, 7] == pytest.approx(20)
    assert lit.sum() == pytest.approx(200)  # the third frame lies outside
    part = photons_per_pixel(probe, x, y, 100.0, origin=(2, 4), shape=(3, 3))
    np.testing.assert_allclose(part, lit[2:5, 4:7])


def test_one_photon_in_is_one_photon_out() -> None:
    rng = np.random.Generator(np.random.Philox(5))
    probe = rng.normal(size=(6, 6)) + 1j * rng.normal(size=(6, 6))
    x, y = rng.uniform(6, 24, 40), rng.uniform(6, 24, 40)
    assert photons_per_pixel(probe, x, y, 1e4, origin=(0, 0), shape=(30, 30)).sum() == pytest.approx(4e5)


def test_a_probe_that_lights_nothing_is_refused() -> None:
    one = np.ones(1)
    with pytest.raises(KernelRefused, match="lights nothing"):
        photons_per_pixel(np.zeros((4, 4)), one, one, 1.0, origin=(0, 0), shape=(8, 8))
    with pytest.raises(KernelRefused, match=r"\(N, N\)"):
        photons_per_pixel(np.ones((4, 5)), one, one, 1.0, origin=(0, 0), shape=(8, 8))
    with pytest.raises(KernelRefused, match="positions"):
        photons_per_pixel(np.ones((4, 4)), one, np.ones(2), 1.0, origin=(0, 0), shape=(8, 8))


def test_bounds_by_hand() -> None:
    assert quantum_limit(100.0) == pytest.approx(0.05)
    assert ptychography_limit(50.0) == pytest.approx(0.1)
    np.testing.assert_allclose(ptychography_limit([1, 10]) / quantum_limit([1, 10]), np.sqrt(2))
    # Of the page: 0.053 at 1e3 photons a pattern, which is some 178 photons a pixel.
    assert ptychography_limit(178.0) == pytest.approx(0.053, abs=5e-4)
    for wrong in (0.0, -1.0, np.nan, [1.0, np.inf]):
        with pytest.raises(KernelRefused, match="above 0"):
            quantum_limit(wrong)
