"""Comparisons with holes: what was not seen decides nothing but the structural similarity, which says so."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.devices import KernelRefused
from kernels.diffraction.holes import align_seen, correlation_seen, similarity_seen
from kernels.diffraction.registration import move
from kernels.diffraction.similarity import similarity

RNG = np.random.Generator(np.random.Philox(5))
SIDE = 96


def smooth(sigma=0.06):
    f = np.fft.fftfreq(SIDE)
    low = np.exp(-(f[:, None] ** 2 + f[None, :] ** 2) / (2 * sigma**2))
    found = np.fft.ifft2(np.fft.fft2(RNG.normal(size=(SIDE, SIDE))) * low).real
    return found / np.abs(found).max()


TRUTH = (0.8 + 0.2 * smooth()) * np.exp(1j * smooth())
ROWS, COLS = np.mgrid[:SIDE, :SIDE]
SEEN = (((ROWS // 16) + (COLS // 16)) % 5) != 0  # 80 %


def test_shift_ramp_and_scale_are_found_by_what_was_seen():
    made = 1.7j * move(TRUTH, 1.4, -0.6) * np.exp(1j * (0.02 * COLS - 0.05 * ROWS))
    made[~SEEN] = 3 * RNG.normal(size=(~SEEN).sum())  # what stands in the holes is nobody's opinion
    found = align_seen(made, TRUTH, SEEN)
    assert (found.shift.x, found.shift.y) == pytest.approx((1.4, -0.6), abs=0.1)
    assert (found.ramp_x, found.ramp_y) == pytest.approx((0.02, -0.05), abs=1e-3)
    assert abs(found.scale) == pytest.approx(1 / 1.7, rel=0.02)
    inner = SEEN & (ROWS > 8) & (ROWS < 88) & (COLS > 8) & (COLS < 88)
    assert np.abs(found.object - TRUTH)[inner].mean() < 0.02
    assert np.array_equal(found.object[~SEEN], TRUTH[~SEEN])


def test_without_holes_it_is_the_plain_comparison():
    noisy = TRUTH + 0.1 * RNG.normal(size=TRUTH.shape)
    whole = np.ones(TRUTH.shape, dtype=bool)
    assert similarity_seen(noisy, TRUTH, whole) == similarity(noisy, TRUTH)


def test_errors_are_means_over_what_was_seen():
    noisy = TRUTH * np.exp(0.1j) * 1.05
    plain, holed = similarity(noisy, TRUTH), similarity_seen(noisy, TRUTH, SEEN)
    for name in ("mae_phase", "mse_phase", "relative_error", "psnr_phase"):
        assert getattr(holed, name) == pytest.approx(getattr(plain, name), rel=1e-9), name
    # The negative twin: averaged over the holes too, the same error looks smaller.
    filled = similarity(np.where(SEEN, noisy, TRUTH), TRUTH)
    assert filled.mae_phase == pytest.approx(SEEN.mean() * plain.mae_phase, rel=1e-9)
    assert filled.mae_phase < 0.9 * plain.mae_phase


def test_holes_do_not_lift_the_ring_correlation_of_noise():
    first, second = (RNG.normal(size=(SIDE, SIDE)) + 1j * RNG.normal(size=(SIDE, SIDE)) for _ in range(2))
    found = correlation_seen(first, second, SEEN)
    assert abs(np.nanmean(found.frc)) < 0.1
    lifted = correlation_seen(np.where(SEEN, first, second), second, np.ones_like(SEEN))
    assert np.nanmean(lifted.frc) > 0.15, "with the reference in the holes noise would correlate"


def test_the_edges_of_holes_do_not_correlate_what_agrees_at_low_frequencies_only():
    """What a reconstruction has in common with the truth is coarse; cut out sharply, it would agree in every detail."""
    rows, cols = np.mgrid[:256, :256]
    seen = (rows % 64 >= 24) | (cols % 64 >= 24)  # 86 %
    coarse = np.exp(1j * (np.sin(rows / 25) + np.cos(cols / 31)))
    first, second = (coarse + 0.1 * RNG.normal(size=seen.shape) for _ in range(2))

    def fine(curve):
        return float(np.mean(curve.frc[(curve.frequency > 0.2) & (curve.frequency < 0.45)]))

    assert abs(fine(correlation_seen(first, second, seen))) < 0.06
    sharp = [np.where(seen, image - image[seen].mean(), 0) for image in (first, second)]
    assert fine(correlation_seen(*sharp, np.ones_like(seen))) > 0.2


def test_an_object_of_which_nothing_was_seen_is_refused():
    with pytest.raises(KernelRefused, match="no pixel"):
        align_seen(TRUTH, TRUTH, np.zeros(TRUTH.shape, dtype=bool))
