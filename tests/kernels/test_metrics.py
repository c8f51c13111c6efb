"""Metrics measure; they must not hide. Each test is a way in which a number once did."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kernels.metrics import Status, compare_statistics, errors, patch_statistics, worst_status

RNG = np.random.default_rng(3)


def pictures(n: int = 3) -> np.ndarray:
    return RNG.normal(size=(n, 8, 8)) + 1j * RNG.normal(size=(n, 8, 8))


def test_equal_arrays_have_no_error() -> None:
    a = pictures()
    found = errors(a, a.copy())
    assert (found.max_abs, found.max_rel, found.rmse) == (0, 0, 0)
    assert found.correlation == pytest.approx(1)
    assert found.sum_ratio == 1


def test_edge_and_centre_are_told_apart() -> None:
    a = pictures()
    b = a.copy()
    b[1, 7, 3] *= 1.5
    b[2, 4, 4] *= 1.25
    found = errors(a, b)
    assert found.edge_error == pytest.approx(0.5)
    assert found.centre_error == pytest.approx(0.25)
    assert found.worst == (1, 7, 3)


def test_correlation_hides_what_the_relative_error_shows() -> None:
    a = np.ones((2, 8, 8)) + 0.1 * RNG.normal(size=(2, 8, 8))
    a[0] *= 1e-5
    b = a.copy()
    b[0] *= 100
    found = errors(a, b)
    assert found.correlation > 0.99999
    assert found.max_rel == pytest.approx(99)


def test_something_where_only_zero_is_right_is_infinitely_wrong() -> None:
    a = pictures()
    a[0, 0, 0] = 0
    b = a.copy()
    b[0, 0, 0] = 1e-30
    assert errors(a, b).max_rel == math.inf


def test_a_nan_is_the_worst_pixel() -> None:
    a = pictures()
    b = a.copy()
    b[2, 3, 1] = np.nan
    found = errors(a, b)
    assert found.worst == (2, 3, 1)
    assert math.isnan(found.max_rel)


def test_nothing_is_broadcast() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        errors(pictures(3), pictures(1))
    with pytest.raises(ValueError, match="nothing to summarise"):
        patch_statistics(pictures(3)[:0])


def test_statistics_against_their_definitions() -> None:
    a = pictures(5)
    size = np.abs(a)
    found = patch_statistics(a)
    assert found.mean == pytest.approx(size.mean())
    assert found.std == pytest.approx(size.std())
    assert found.var_zero_mean == pytest.approx(np.mean([np.var(p) for p in size]))
    assert found.contrast == pytest.approx(found.var_zero_mean / np.mean(size**2))
    np.testing.assert_allclose(found.patch_max, [p.max() for p in size])


@pytest.mark.parametrize("scale", [1e-9, 1.0, 8.97e9])
def test_guards_do_not_depend_on_scale(scale: float) -> None:
    # The seed's own healthy batch had a variance of 6.44e-7, below its absolute limit of 1e-6.
    assert patch_statistics(pictures() * scale).unhealthy() == ""
    assert "variance" in patch_statistics(np.full((4, 8, 8), scale)).unhealthy()


def test_a_dead_model_is_unhealthy() -> None:
    assert patch_statistics(np.zeros((4, 8, 8))).unhealthy()
    assert patch_statistics(np.full((4, 8, 8), np.nan)).unhealthy() == "not finite"


def test_collapse_is_not_ok_though_its_ratio_can_be_computed() -> None:
    a = patch_statistics(pictures())
    zero = patch_statistics(np.zeros((3, 8, 8)))
    assert {c.status for c in compare_statistics(a, zero)} == {Status.COLLAPSED}
    assert all(c.ratio == 0 for c in compare_statistics(a, zero))
    assert worst_status(compare_statistics(a, a)) is Status.OK
    assert worst_status(compare_statistics(zero, zero)) is Status.BOTH_ZERO
    assert worst_status(compare_statistics(zero, a)) is Status.BASELINE_ZERO
    assert worst_status(compare_statistics(a, None)) is Status.MISSING
    assert worst_status([]) is Status.MISSING
