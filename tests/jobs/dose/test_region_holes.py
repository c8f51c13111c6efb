"""A sparse view's coverage has holes: the region is the window around it, and the same holes are in every arm."""

from __future__ import annotations

import numpy as np

from jobs.dose.compare import measure
from jobs.dose.reconstruction import Reconstruction
from jobs.dose.region import common_rectangle, compared

RNG = np.random.Generator(np.random.Philox(11))
SIDE = 120
ROWS, COLS = np.mgrid[:SIDE, :SIDE]
HOLES = ((ROWS % 24) < 7) & ((COLS % 24) < 7)  # 8.5 %
INSIDE = (ROWS >= 4) & (ROWS < 116) & (COLS >= 4) & (COLS < 116)
TRUTH = (0.8 + 0.2 * np.sin(ROWS / 7) * np.cos(COLS / 5)) * np.exp(1j * np.cos(ROWS / 6 + COLS / 9))


def made(image, covered):
    return Reconstruction(np.where(covered, image, 0).astype(np.complex64), (0, 0), covered)


def test_the_window_is_taken_where_holes_leave_no_rectangle():
    holed, whole = made(TRUTH, INSIDE & ~HOLES), made(TRUTH, INSIDE)
    box, seen = compared([holed])
    assert (box.height, box.width) == (112, 112)
    assert common_rectangle([holed]).side < 32
    assert np.array_equal(seen, ~HOLES[4:116, 4:116])
    box, seen = compared([whole])
    assert (box.height, box.width) == (112, 112)
    assert seen.all(), "without holes nothing changes"


def test_what_stands_in_a_hole_of_one_arm_decides_nothing():
    noisy = TRUTH + 0.1 * (RNG.normal(size=TRUTH.shape) + 1j * RNG.normal(size=TRUTH.shape))
    truth = made(TRUTH, np.ones_like(HOLES))
    one, other = made(noisy, INSIDE & ~HOLES), made(noisy, INSIDE)
    found = measure({"pinn": one, "lsqml": other}, truth)
    assert found.seen is not None
    assert 0.8 < found.part_seen < 1
    pinn, lsqml = found.arms["pinn"], found.arms["lsqml"]
    assert pinn.similarity == lsqml.similarity, "the holes of one are the holes of all"
    assert np.array_equal(pinn.curve.frc, lsqml.curve.frc)
    alone = measure({"lsqml": other}, truth)
    assert alone.seen is None
    assert alone.arms["lsqml"].similarity != lsqml.similarity
    assert abs(alone.arms["lsqml"].similarity.mae_phase / lsqml.similarity.mae_phase - 1) < 0.05
