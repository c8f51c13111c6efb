"""The kernel of a drifting model in NumPy and float64: the oracle of the batch form.

Source: Deng et al., Generative Modeling via Drifting (2026), equations 8 to 14 and algorithm 2. The kernel is
k(x, y) = exp(-‖x-y‖/T); in a batch it is normalised by a softmax over the y of each x and over the x of each y, and the
geometric mean of both is taken.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels.devices import KernelRefused

Array = npt.NDArray[np.float64]


def distances(x: npt.ArrayLike, y: npt.ArrayLike) -> Array:
    """Euclidean distances (n, m) between rows of (n, C) and (m, C)."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    apart: Array = np.sqrt(((a[:, None, :] - b[None, :, :]) ** 2).sum(-1))
    return apart


def without_own(apart: Array) -> Array:
    """The same with sample i infinitely far from negative i: the first n negatives are the samples themselves.

    Raises:
        KernelRefused: there are fewer negatives than samples.
    """
    count = apart.shape[0]
    if apart.shape[1] < count:
        raise KernelRefused(f"{count} samples are not among {apart.shape[1]} negatives")
    masked = apart.copy()
    masked[np.arange(count), np.arange(count)] = np.inf
    return masked


def affinities(
    to_positive: Array, to_negative: Array, temperature: float, log_weight: npt.ArrayLike | None = None
) -> tuple[Array, Array]:
    """(A⁺ (n, p), A⁻ (n, m)): √(softmax over y · softmax over x) of -distance/T.

    Args:
        to_positive: (n, p). to_negative: (n, m), ∞ where a pair does not count.
        log_weight: (m,), of each negative, added to its logits; -∞: it is not there. The softmax over x has it in
            every term of a column, so it cancels there.

    Raises:
        KernelRefused: a sample has neither a positive nor a negative, or T is not positive.
    """
    if not temperature > 0:
        raise KernelRefused(f"a temperature of {temperature} is none: give a positive one")
    with np.errstate(divide="ignore"):
        logits = -np.concatenate([to_positive, to_negative], axis=1) / temperature
    weighted = logits.copy()
    if log_weight is not None:
        weighted[:, to_positive.shape[1] :] += np.asarray(log_weight, np.float64)
    both: Array = np.sqrt(_softmax(weighted, 1) * _softmax(logits, 0))
    return both[:, : to_positive.shape[1]], both[:, to_positive.shape[1] :]


def _softmax(logits: Array, axis: int) -> Array:
    """A column of -∞ alone (a negative that no sample sees) is 0; a row of that kind is refused."""
    greatest = logits.max(axis=axis, keepdims=True)
    if axis == 1 and not np.isfinite(greatest).all():
        raise KernelRefused("a sample has neither a positive nor a negative to compare with")
    shifted = np.exp(logits - np.where(np.isfinite(greatest), greatest, 0.0))
    total = shifted.sum(axis=axis, keepdims=True)
    whole: Array = shifted / np.where(total > 0, total, 1.0)
    return whole
