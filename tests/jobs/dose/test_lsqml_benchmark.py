"""The arithmetic of `benchmarks.lsqml`: when a curve of resolution against time reaches a level."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.lsqml import made, phase_error, reached, resolved


def test_a_level_is_reached_between_two_epochs_in_proportion() -> None:
    seconds, curve = [2.0, 4.0, 6.0, 8.0], [0.1, 0.3, 0.2, 0.4]
    assert reached(seconds, curve, 0.1) == 2.0, "in the first epoch: all of it"
    assert reached(seconds, curve, 0.2) == pytest.approx(3.0)
    assert reached(seconds, curve, 0.3) == 4.0
    assert reached(seconds, curve, 0.35) == pytest.approx(7.5), "the first crossing, after a fall"
    # The same curve in half of the time is twice as fast to every level.
    assert all(reached([s / 2 for s in seconds], curve, at) * 2 == reached(seconds, curve, at) for at in curve)
    with pytest.raises(ValueError, match=r"no epoch reaches 0\.5"):
        reached(seconds, curve, 0.5)


def test_the_truth_has_no_error_and_a_flat_object_resolves_nothing() -> None:
    scene = made(32, 1e5)
    assert resolved(scene, scene.truth, (0, 0)) == 0.5
    assert phase_error(scene, scene.truth, (0, 0)) < 1e-6
    rng = np.random.default_rng(0)
    noise = np.exp(1j * rng.uniform(-1, 1, scene.truth.shape))
    assert resolved(scene, noise, (0, 0)) < 0.05
    assert phase_error(scene, noise, (0, 0)) > 0.3
    # And another origin is another place: the shift is undone, up to its cap.
    assert resolved(scene, scene.truth, (1, 0)) > 0.4
    assert resolved(scene, scene.truth, (9, 0)) < 0.1
