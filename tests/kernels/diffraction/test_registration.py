"""Shift, ramp and scale are found and taken off, and what must not be believed is not applied."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.registration import phase_cross_correlation

from kernels.devices import KernelRefused
from kernels.diffraction.frc import ring_correlation
from kernels.diffraction.registration import Shifted, align, find_ramp, find_scale, find_shift, move, without_ramp
from kernels.translation import translate
from tests.kernels.diffraction.pictures import noise, ramp, waves

SHAPE = (72, 80)
TRUTH = waves(SHAPE)
INNER = (slice(6, -6), slice(6, -6))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm((a - b)[INNER]) / np.linalg.norm(b[INNER]))


@pytest.mark.parametrize(
    ("x", "y", "ramp_x", "ramp_y"),
    [(0.0, 0.0, 0.0, 0.0), (1.3, -0.7, 0.0, 0.0), (0.0, 0.0, 0.11, -0.07), (-2.46, 3.1, 0.3, 0.2)],
)
def test_what_ptychography_leaves_open_is_found_and_taken_off(x: float, y: float, ramp_x: float, ramp_y: float) -> None:
    found = align((0.5 - 1.2j) * waves(SHAPE, x=x, y=y) * ramp(SHAPE, ramp_x, ramp_y), TRUTH)
    assert found.shift.state is Shifted.APPLIED
    assert (found.shift.x, found.shift.y) == pytest.approx((x, y), abs=0.021)
    assert (found.ramp_x, found.ramp_y) == pytest.approx((ramp_x, ramp_y), abs=2e-4)
    assert abs(found.scale) == pytest.approx(1 / abs(0.5 - 1.2j), rel=0.02)
    assert distance(found.object, TRUTH) < 0.01


def test_each_step_is_needed() -> None:
    """The negative twin: with any of the three left out, the same object is far from itself."""
    moved = (0.5 - 1.2j) * waves(SHAPE, x=1.3, y=-0.7) * ramp(SHAPE, 0.11, -0.07)
    back = move(without_ramp(moved, 0.11, -0.07), -1.3, 0.7)
    whole = back * find_scale(back, TRUTH)
    assert distance(whole, TRUTH) < 0.01
    unshifted = without_ramp(moved, 0.11, -0.07)
    ramped = move(moved, -1.3, 0.7)
    for name, left in {"shift": unshifted, "ramp": ramped}.items():
        assert distance(left * find_scale(left, TRUTH), TRUTH) > 0.1, name
    assert distance(back, TRUTH) > 0.1
    wrong = move(without_ramp(moved, 0.11, -0.07), 1.3, -0.7)
    assert distance(wrong * find_scale(wrong, TRUTH), TRUTH) > distance(unshifted * find_scale(unshifted, TRUTH), TRUTH)


def test_noise_does_not_move_the_object() -> None:
    found = align(waves(SHAPE, x=0.6, y=1.4) + noise(SHAPE, 0.4), TRUTH)
    assert (found.shift.x, found.shift.y) == pytest.approx((0.6, 1.4), abs=0.15)
    assert (found.ramp_x, found.ramp_y) == pytest.approx((0, 0), abs=2e-3)


def test_the_librarys_defaults_would_be_misled() -> None:
    """Why neither its normalisation nor raw images are used."""
    still = waves(SHAPE, most=0.05)
    poor = waves(SHAPE, x=1.0, most=0.05) + noise(SHAPE, 0.35)
    ours = find_shift(poor, still)
    assert np.hypot(ours.x - 1.0, ours.y) < 0.5
    back, _, _ = phase_cross_correlation(still, poor, upsample_factor=50)
    assert np.hypot(-back[1] - 1.0, -back[0]) > 0.8  # noise has no place, and it is given the same weight


def test_a_shift_over_the_cap_is_told_and_not_applied() -> None:
    far = waves(SHAPE, x=5.0)
    found = align(far, TRUTH, cap=3.0)
    assert found.shift.state is Shifted.OVER_CAP
    assert np.hypot(found.shift.x, found.shift.y) > 3
    level = without_ramp(far, found.ramp_x, found.ramp_y)
    np.testing.assert_allclose(found.object, level * find_scale(level, TRUTH), atol=1e-10)  # only the rest was done
    assert align(far, TRUTH, cap=8.0).shift.state is Shifted.APPLIED


def test_a_flat_object_has_no_place() -> None:
    for value in (1.0, 0.3 - 2j):
        found = align(np.full(SHAPE, value), TRUTH * ramp(SHAPE, 0.05, 0.0))
        assert (found.shift.x, found.shift.y, found.shift.state) == (0.0, 0.0, Shifted.FLAT)
    single = np.full(SHAPE, 0.7 - 0.1j, dtype=np.complex64)
    assert align(single, TRUTH).shift.state is Shifted.FLAT
    np.testing.assert_allclose(align(np.full(SHAPE, 0.3 - 2j), TRUTH).object, align(np.ones(SHAPE), TRUTH).object)


def test_moving_is_exact_and_blurs_nothing() -> None:
    white = noise(SHAPE, 1.0)
    np.testing.assert_array_equal(move(white, 2, -3)[10:-10, 10:-10], white[13:-7, 8:-12])
    back = move(move(white, 0.5, 0.5), -0.5, -0.5)
    assert np.mean(np.abs(back[INNER]) ** 2) == pytest.approx(np.mean(np.abs(white[INNER]) ** 2), rel=0.06)
    np.testing.assert_allclose(move(TRUTH, 0.37, -0.81)[INNER], waves(SHAPE, x=0.37, y=-0.81)[INNER], atol=0.03)
    # Interpolation would take half of the noise away, and so flatter an arm for being shifted.
    half = move(white, 0.5, 0.5)[INNER]
    bilinear = translate(white[None], np.array([[0.5, 0.5]]))[0][INNER]
    assert np.mean(np.abs(half) ** 2) == pytest.approx(np.mean(np.abs(white[INNER]) ** 2), rel=0.06)
    assert np.mean(np.abs(bilinear) ** 2) < 0.4 * np.mean(np.abs(half) ** 2)


def test_the_scale_is_least_squares() -> None:
    image = waves(SHAPE, seed=3)
    scale = find_scale(image, TRUTH)
    expected = np.linalg.lstsq(image.reshape(-1, 1), TRUTH.ravel(), rcond=None)[0][0]
    assert scale == pytest.approx(complex(expected), rel=1e-12)


def test_the_plane_is_least_squares() -> None:
    """Against a dense solver, where nothing is wrapped; the peak alone would be off by up to half a step."""
    phase = 0.011 * np.arange(SHAPE[1])[None, :] - 0.006 * np.arange(SHAPE[0])[:, None] + noise(SHAPE, 0.05).real
    x, y = find_ramp(np.exp(1j * phase), np.ones(SHAPE))
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    basis = np.stack([np.ones(rows.size), rows.ravel(), columns.ravel()], axis=1)
    _, by_row, by_column = np.linalg.lstsq(basis, phase.ravel(), rcond=None)[0]
    assert (x, y) == pytest.approx((by_column, by_row), abs=1e-9)
    assert abs(x) > 1e-3 * 2 * np.pi / SHAPE[1]


def test_registering_raises_the_correlation() -> None:
    poor = waves(SHAPE, x=0.8, y=-1.1) + noise(SHAPE, 0.2)
    found = align(poor, TRUTH)
    before, after = (ring_correlation(image[INNER], TRUTH[INNER]).frc[2:8].mean() for image in (poor, found.object))
    assert after > before + 0.1


def test_what_cannot_be_registered_is_refused() -> None:
    with pytest.raises(KernelRefused, match="one size"):
        align(np.ones((8, 8)), np.ones((8, 9)))
    with pytest.raises(KernelRefused, match="no phase"):
        align(np.zeros(SHAPE), TRUTH)
    with pytest.raises(KernelRefused, match="reference is flat"):
        align(TRUTH, np.ones(SHAPE))
    dot = np.zeros(SHAPE)
    dot[3, 3] = 1
    with pytest.raises(KernelRefused, match="on one line"):
        align(dot, TRUTH)
    with pytest.raises(KernelRefused, match="no scale"):
        find_scale(np.zeros(SHAPE), TRUTH)
    with pytest.raises(KernelRefused, match="cap"):
        find_shift(TRUTH, TRUTH, cap=-1)
