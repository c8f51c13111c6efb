"""Fréchet distance against closed forms and scipy's square root, at full rank and far below it; score and accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import linalg

from kernels.devices import KernelRefused
from kernels.drifting.metrics import accuracy, frechet, inception_score

Array = npt.NDArray[Any]


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def gaussian(n: int, mean: Array, spread: Array, seed: int) -> Array:
    """n rows whose mean and unbiased covariance V diag(spread²) Vᵀ are exact; V is the first unit vectors.

    With orthonormal columns U that are all orthogonal to 1, mean + √(n-1) U diag(spread) Vᵀ has both exactly.
    """
    raw = rng(seed).standard_normal((n, len(spread)))
    basis, _ = np.linalg.qr(raw - raw.mean(axis=0))
    out = np.zeros((n, len(mean)))
    out[:, : len(spread)] = np.sqrt(n - 1) * basis * spread
    return out + mean


def clamped(a: Array, b: Array, least: float = 1e-6) -> float:
    """The usual way: eigenvalues of the product of the covariances, none below `least`."""
    one, two = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shift = a.mean(axis=0) - b.mean(axis=0)
    product = np.linalg.eigvals(one @ two).real
    return float(shift @ shift + np.trace(one) + np.trace(two) - 2 * np.sqrt(np.maximum(product, least)).sum())


@pytest.mark.parametrize(("n", "m", "d"), [(24, 24, 96), (24, 40, 96), (200, 24, 96), (400, 500, 12)])
def test_the_closed_form_of_gaussians_at_any_rank(n: int, m: int, d: int) -> None:
    """Covariances that commute: ‖μ1 - μ2‖² + Σ (σ1 - σ2)²."""
    rank = min(n, m, d + 1) - 1
    one, two = rng(1).uniform(0.1, 3.0, rank), rng(2).uniform(0.1, 3.0, rank)
    a = gaussian(n, np.zeros(d), one, 3)
    b = gaussian(m, np.full(d, 0.25), two, 4)
    wanted = d * 0.25**2 + float(((one - two) ** 2).sum())
    assert frechet(a, b).distance == pytest.approx(wanted, rel=1e-12)
    assert frechet(b, a).distance == pytest.approx(wanted, rel=1e-12)


def test_the_clamp_of_eigenvalues_is_caught_below_full_rank() -> None:
    """The mutant is off by 2e-3 for each missing rank, and the construction above shows it."""
    n, d = 24, 96
    one, two = rng(1).uniform(0.5, 3.0, n - 1), rng(2).uniform(0.5, 3.0, n - 1)
    a, b = gaussian(n, np.zeros(d), one, 3), gaussian(n, np.zeros(d), two, 4)
    wanted = float(((one - two) ** 2).sum())
    missing = d - (n - 1)
    assert clamped(a, b) - wanted == pytest.approx(-2e-3 * missing, rel=1e-3)
    assert abs(frechet(a, b).distance - wanted) < 1e-10


def test_the_same_as_a_matrix_square_root_at_full_rank() -> None:
    a = rng(5).standard_normal((300, 20)) @ rng(6).standard_normal((20, 20))
    b = rng(7).standard_normal((250, 20)) @ rng(8).standard_normal((20, 20)) + 0.3
    one, two = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(one @ two).real
    shift = a.mean(axis=0) - b.mean(axis=0)
    wanted = float(shift @ shift + np.trace(one + two - 2 * root))
    assert frechet(a, b).distance == pytest.approx(wanted, rel=1e-9)


def test_the_same_as_the_square_root_below_full_rank_of_covariances_that_do_not_commute() -> None:
    """tr (Σ1Σ2)^½ by Σ1^½ Σ2 Σ1^½ from the factors, whose eigenvalues that should be 0 are dropped by count."""
    n, d = 15, 40
    a, b = rng(9).standard_normal((n, d)), rng(10).standard_normal((n, d)) * rng(11).uniform(0.5, 2, d)
    one, two = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(one)
    half = (vectors[:, -(n - 1) :] * np.sqrt(values[-(n - 1) :])) @ vectors[:, -(n - 1) :].T
    kept = np.linalg.eigvalsh(half @ two @ half)[-(n - 1) :]
    shift = a.mean(axis=0) - b.mean(axis=0)
    wanted = float(shift @ shift + np.trace(one) + np.trace(two) - 2 * np.sqrt(kept).sum())
    assert frechet(a, b).distance == pytest.approx(wanted, rel=1e-9)


def test_a_set_and_itself_are_at_no_distance() -> None:
    a = rng(12).standard_normal((20, 64))
    assert abs(frechet(a, a).distance) < 1e-12 * frechet(a, a).traces
    assert abs(frechet(a, a[::-1]).distance) < 1e-12 * frechet(a, a).traces


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros((1, 4)), np.zeros((5, 4))),
        (np.zeros((5, 4)), np.zeros((5, 3))),
        (np.zeros(5), np.zeros((5, 3))),
        (np.full((5, 4), np.nan), np.zeros((5, 4))),
    ],
)
def test_what_has_no_distance_is_refused(a: Array, b: Array) -> None:
    with pytest.raises(KernelRefused):
        frechet(a, b)


def test_the_score_of_sure_and_even_classes_is_their_number() -> None:
    sure = np.eye(5)[np.arange(50) % 5]
    assert inception_score(sure, 1).mean == pytest.approx(5)
    assert inception_score(np.full((50, 5), 0.2), 5).mean == pytest.approx(1)
    assert inception_score(np.eye(5)[np.zeros(50, dtype=int)], 5).mean == pytest.approx(1)


def test_the_score_against_the_formula_and_its_spread_is_the_population_one() -> None:
    rows = rng(13).dirichlet(np.full(4, 0.5), size=33)
    parts = np.array_split(rows, 4)
    scores = [float(np.exp(np.mean([np.sum(p * np.log(p / part.mean(0))) for p in part]))) for part in parts]
    found = inception_score(rows, 4)
    assert found.mean == pytest.approx(np.mean(scores), rel=1e-12)
    assert found.std == pytest.approx(np.std(scores, ddof=0), rel=1e-12)
    assert found.std != pytest.approx(np.std(scores, ddof=1), rel=1e-3)


def test_rows_in_the_order_of_their_classes_score_nothing() -> None:
    """Why the order of the rows is part of a contract."""
    assert inception_score(np.eye(5)[np.repeat(np.arange(5), 10)], 5).mean == pytest.approx(1)


def test_accuracy_is_counted() -> None:
    rows = np.array([[0.6, 0.4], [0.3, 0.7], [0.5, 0.5], [0.1, 0.9]])
    assert accuracy(rows, [0, 1, 1, 0]) == 0.5
    assert accuracy(rows, np.array([0, 1, 0, 1])) == 1.0


@pytest.mark.parametrize("rows", [[[0.5, 0.6]], [[1.5, -0.5]], [[np.nan, 1.0]], [], [0.5, 0.5]])
def test_what_are_no_probabilities_is_refused(rows: Any) -> None:
    with pytest.raises(KernelRefused):
        inception_score(rows, 1)
    with pytest.raises(KernelRefused):
        accuracy(rows, [0])


def test_more_splits_than_rows_and_labels_that_do_not_go_with_them_are_refused() -> None:
    with pytest.raises(KernelRefused):
        inception_score(np.full((3, 2), 0.5), 4)
    with pytest.raises(KernelRefused):
        accuracy(np.full((3, 2), 0.5), [0, 1])
    with pytest.raises(KernelRefused):
        accuracy(np.full((3, 2), 0.5), [0.0, 1.0, 1.0])
