"""Metrics of generated samples: Fréchet distance, inception score, accuracy. NumPy in float64, no model in here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.devices import KernelRefused

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Frechet:
    """The distance between two sets of features and its parts.

    Attributes:
        mean: ‖μ1 - μ2‖².
        traces: tr Σ1 + tr Σ2.
        cross: tr (Σ1 Σ2)^½.
    """

    mean: float
    traces: float
    cross: float

    @property
    def distance(self) -> float:
        """‖μ1 - μ2‖² + tr Σ1 + tr Σ2 - 2 tr (Σ1 Σ2)^½; of equal sets 0 up to rounding, which may be below it."""
        return self.mean + self.traces - 2 * self.cross


def frechet(a: npt.ArrayLike, b: npt.ArrayLike) -> Frechet:
    """The squared Fréchet distance between the Gaussians of two sets of features ("FID"), exact at any rank.

    With A = (a - μ1)/√(n-1) and B alike, Σ1 = AᵀA and Σ2 = BᵀB, the eigenvalues of Σ1Σ2 are the squared singular values
    of A Bᵀ, so tr (Σ1Σ2)^½ is their sum, the nuclear norm ‖A Bᵀ‖_*. No covariance is formed and no square root is
    taken of a rounded zero. The usual way clamps the eigenvalues of a product of covariances at some ε and adds √ε
    twice for each direction that the samples do not span: n of them span n - 1 at most.
    (Dowson & Landau 1982, "The Fréchet distance between multivariate normal distributions".)

    Args:
        a, b: (n, d) and (m, d), one sample a row; the covariances are the unbiased ones.

    Raises:
        KernelRefused: fewer than two samples, other widths, or a feature that is not finite.
    """
    one, two = _features(a, "a"), _features(b, "b")
    if one.shape[1] != two.shape[1]:
        raise KernelRefused(f"features of {one.shape[1]} and of {two.shape[1]} numbers cannot be compared")
    left, right = _scaled(one), _scaled(two)
    shift = one.mean(axis=0) - two.mean(axis=0)
    product = _reduced(left) @ _reduced(right).T
    return Frechet(
        mean=float(shift @ shift),
        traces=float((left * left).sum() + (right * right).sum()),
        cross=float(np.linalg.svd(product, compute_uv=False).sum()),
    )


@dataclass(frozen=True)
class Score:
    """An inception score. Attributes: mean over splits; std: their population standard deviation; splits: how many."""

    mean: float
    std: float
    splits: int


def inception_score(probabilities: npt.ArrayLike, splits: int) -> Score:
    """exp of the mean KL(p(y|x) ‖ p(y)), for each of so many runs of consecutive rows.

    Rows that are sorted by class make splits of one class each, which score 1: give them in an order that has nothing
    to do with the class. (Salimans et al. 2016, "Improved techniques for training GANs".)

    Args:
        probabilities: (n, classes), each row sums to 1.
        splits: from 1 to n.

    Raises:
        KernelRefused: rows are no probabilities, or there are fewer rows than splits.
    """
    rows = probability_rows(probabilities)
    if isinstance(splits, bool) or not 1 <= splits <= len(rows):
        raise KernelRefused(f"{len(rows)} rows cannot be split into {splits!r}")
    scores = np.array([_score(part) for part in np.array_split(rows, splits)])
    return Score(float(scores.mean()), float(scores.std()), int(splits))


def accuracy(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The share of rows (n, classes) of which the greatest (the first of equal ones) stands at the label (n).

    Raises:
        KernelRefused: rows are no probabilities, or there is not a label for each.
    """
    rows, wanted = probability_rows(probabilities), np.asarray(labels)
    if wanted.shape != (len(rows),) or not np.issubdtype(wanted.dtype, np.integer):
        raise KernelRefused(f"{len(rows)} rows need {len(rows)} whole numbers as labels, not {wanted.shape}")
    return float((rows.argmax(axis=1) == wanted).mean())


def probability_rows(probabilities: npt.ArrayLike) -> Floats:
    """The same as float64 (n, classes).

    Raises:
        KernelRefused: there is none, one is negative or not finite, or a row does not sum to 1 within 1e-6.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    if rows.ndim != 2 or rows.size == 0:
        raise KernelRefused(f"probabilities are rows of classes, not {rows.shape}")
    if not np.isfinite(rows).all() or (rows < 0).any() or (np.abs(rows.sum(axis=1) - 1) > 1e-6).any():
        raise KernelRefused("rows that are negative, not finite, or do not sum to 1 are no probabilities")
    return rows


def _score(rows: Floats) -> float:
    marginal = rows.mean(axis=0)
    # 0 log 0 is 0; where the marginal is 0 every row is.
    logs = np.log(rows, out=np.zeros_like(rows), where=rows > 0)
    mean = np.log(marginal, out=np.zeros_like(marginal), where=marginal > 0)
    return float(np.exp((rows * (logs - mean)).sum(axis=1).mean()))


def _features(given: npt.ArrayLike, name: str) -> Floats:
    rows = np.asarray(given, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] < 1:
        raise KernelRefused(f"{name} has the shape {rows.shape}: at least two rows of features are needed")
    if not np.isfinite(rows).all():
        raise KernelRefused(f"{name} has features that are not finite")
    return rows


def _scaled(rows: Floats) -> Floats:
    """Centred and divided by √(n-1): the unbiased covariance is the product with its own transpose."""
    return np.asarray((rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1))


def _reduced(factor: Floats) -> Floats:
    """A factor of the same covariance with no more rows than columns: rotating the rows changes no singular value."""
    return factor if len(factor) <= factor.shape[1] else np.asarray(np.linalg.qr(factor, mode="r"))
