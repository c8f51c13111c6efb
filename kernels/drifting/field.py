"""The drift of a batch of samples toward data and away from themselves, in NumPy and float64: the oracle.

    V = g⁺·V⁺ - g⁻·V⁻,   V⁺ = Wp @ (y⁺ - x),   V⁻ = Wn @ (y⁻ - x),   Wp = A⁺·ΣA⁻,   Wn = A⁻·ΣA⁺

With g⁺ = g⁻ = 1 the x cancels, since the rows of Wp and Wn have equal sums: V = Wp @ y⁺ - Wn @ y⁻. Other gains break
the antisymmetry on which p = q rests, and are there to show that it does. Source: see `kernels.drifting.kernel`;
scales: its equations 18 to 26.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.drifting.kernel import Array, affinities, distances, without_own

TEMPERATURES = (0.02, 0.05, 0.2)  # τ, in parts of the mean distance


@dataclass(frozen=True)
class Gains:
    """How strongly a sample is drawn to data, and driven from samples. (1, 1) is the drifting model."""

    attraction: float = 1.0
    repulsion: float = 1.0


@dataclass(frozen=True)
class Parts:
    """Attraction V⁺ and repulsion V⁻, (n, C) each."""

    attraction: Array
    repulsion: Array

    def field(self, gains: Gains | None = None) -> Array:
        """V, (n, C)."""
        gains = gains or Gains()
        whole: Array = gains.attraction * self.attraction - gains.repulsion * self.repulsion
        return whole


def drift(
    x: npt.ArrayLike,
    positive: npt.ArrayLike,
    negative: npt.ArrayLike,
    temperature: float,
    *,
    own: bool = True,
    log_weight: npt.ArrayLike | None = None,
) -> Parts:
    """The two parts of the drift of samples x.

    Args:
        x: (n, C). positive: (p, C), real. negative: (m, C).
        temperature: T, in the units of x.
        own: the first n negatives are x itself, and no sample is driven from itself.
        log_weight: (m,), see `affinities`.
    """
    samples = np.asarray(x, np.float64)
    reals, others = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    apart = distances(samples, others)
    a_pos, a_neg = affinities(distances(samples, reals), without_own(apart) if own else apart, temperature, log_weight)
    w_pos = a_pos * a_neg.sum(1, keepdims=True)
    w_neg = a_neg * a_pos.sum(1, keepdims=True)
    return Parts(
        w_pos @ reals - w_pos.sum(1, keepdims=True) * samples,
        w_neg @ others - w_neg.sum(1, keepdims=True) * samples,
    )


def scale(
    groups: Sequence[tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]],
    *,
    own: bool = True,
    weights: Sequence[npt.ArrayLike] | None = None,
) -> float:
    """S: the mean distance of samples from what they are compared with, over √C.

    Args:
        groups: (x, positive, negative) each; a pair of a sample with itself does not count.
        weights: (m,) for each group, of its negatives. None: 1.
    """
    total = count = 0.0
    width = 1
    for number, (x, positive, negative) in enumerate(groups):
        near, far = distances(x, positive), distances(x, negative)
        width = np.asarray(x).shape[1]
        weight = np.ones(far.shape) if weights is None else np.ones(far.shape) * np.asarray(weights[number], np.float64)
        if own:
            weight[np.arange(len(far)), np.arange(len(far))] = 0.0
        total += near.sum() + (weight * far).sum()
        count += near.size + weight.sum()
    return float(total / count / math.sqrt(width))


def normalised(
    groups: Sequence[tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]],
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    gains: Gains | None = None,
    own: bool = True,
    log_weights: Sequence[npt.ArrayLike] | None = None,
) -> tuple[list[Array], float, list[float]]:
    """(Ṽ of each group in units of S, S, λ of each temperature) over all groups together.

    For each τ: T = τ·√C in units of S, λ = √(mean‖V‖²/C), and Ṽ = Σ_τ V_τ/λ_τ; a λ of 0 leaves V = 0.
    """
    weights = None if log_weights is None else [np.exp(np.asarray(w, np.float64)) for w in log_weights]
    unit = scale(groups, own=own, weights=weights)
    scaled = [tuple(np.asarray(part, np.float64) / unit for part in group) for group in groups]
    width = scaled[0][0].shape[1]
    total = [np.zeros_like(x) for x, _, _ in scaled]
    sizes = []
    for tau in temperatures:
        found = [
            drift(
                x, pos, neg, tau * math.sqrt(width), own=own, log_weight=None if log_weights is None else log_weights[i]
            ).field(gains)
            for i, (x, pos, neg) in enumerate(scaled)
        ]
        size = math.sqrt(float(np.mean([np.mean((v**2).sum(1)) for v in found])) / width)
        sizes.append(size)
        total = [t + (v / size if size > 0 else v) for t, v in zip(total, found, strict=True)]
    return total, unit, sizes
