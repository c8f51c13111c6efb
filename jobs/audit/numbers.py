"""The numbers of an evaluation, by other algorithms than the kinds use. Plain NumPy in float64."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def distance(a: Floats, b: Floats) -> float:
    """‖μ1 - μ2‖² + tr Σ1 + tr Σ2 - 2 tr (Σ1Σ2)^½ of two sets of features (n, d), (m, d).

    Σ1 = V S² Vᵀ and Σ2 = W T² Wᵀ by singular values of the centred rows, so that the last trace is the nuclear norm of
    N = S Vᵀ W T. The eigenvalues of the symmetric [[0, N], [Nᵀ, 0]] are its singular values and their negatives
    (Jordan and Wielandt), so half the sum of their magnitudes is that norm; nothing is squared on the way.
    """
    (mean_a, s, v), (mean_b, t, w) = _axes(a), _axes(b)
    inner = (s[:, None] * (v @ w.T)) * t[None, :]
    rows, columns = inner.shape
    block = np.zeros((rows + columns, rows + columns))
    block[:rows, rows:] = inner
    block[rows:, :rows] = inner.T
    norm = math.fsum(abs(e) for e in np.linalg.eigvalsh(block).tolist()) / 2
    apart = math.fsum(((mean_a - mean_b) ** 2).tolist())
    return apart + math.fsum((s * s).tolist()) + math.fsum((t * t).tolist()) - 2 * norm


def _axes(rows: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, singular values of the rows about it over √(n-1), and their directions, a row each."""
    mean = np.array([math.fsum(column) / len(rows) for column in rows.T.tolist()])
    _, values, directions = np.linalg.svd(rows - mean, full_matrices=False)
    return mean, values / math.sqrt(len(rows) - 1), directions


def score(probabilities: Floats, splits: int) -> tuple[float, float]:
    """Inception score by entropies: exp(H(mean of rows) - mean H(row)) of each run of rows; its mean and spread."""
    n = len(probabilities)
    # The first n % splits runs have one row more.
    sizes = [n // splits + (i < n % splits) for i in range(splits)]
    found, start = [], 0
    for size in sizes:
        part = probabilities[start : start + size]
        start += size
        inner = math.fsum(entropy(row) for row in part.tolist()) / size
        found.append(math.exp(entropy([math.fsum(c) / size for c in part.T.tolist()]) - inner))
    mean = math.fsum(found) / splits
    return mean, math.sqrt(math.fsum((f - mean) ** 2 for f in found) / splits)


def entropy(row: Sequence[float]) -> float:
    """In nats."""
    return -math.fsum(p * math.log(p) for p in row if p > 0)


def share_right(probabilities: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Of rows whose greatest, the first of equal ones, stands at the label."""
    right: int = sum(
        row.index(max(row)) == label for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True)
    )
    return float(right) / len(labels)


def cosines(query: Floats, others: Floats) -> Floats:
    """Of one row to each of the others; 0 where a row is all zeros."""
    products = others @ query
    lengths = np.sqrt((others * others).sum(axis=1) * (query * query).sum())
    return np.asarray(np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1.0), 0.0))


def percentile(values: Sequence[float], share: float) -> float:
    """Linear between the two ranks around share·(n - 1)."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def lots(names: Sequence[str], word: str, seed: int) -> list[int]:
    """Positions by the SHA-256 of `SEED/WORD/NAME`, the lowest first."""
    keyed = [(hashlib.sha256(f"{seed}/{word}/{name}".encode()).digest(), at) for at, name in enumerate(names)]
    return [at for _, at in sorted(keyed)]


def shares(available: dict[int, int], n: int) -> dict[int, int]:
    """`n` among classes in proportion to what there is: floors, then the largest remainders, the lower class first."""
    total = sum(available.values())
    out = {label: (n * available[label]) // total for label in available}
    left = n - sum(out.values())
    for label in sorted(available, key=lambda c: (-((n * available[c]) % total), c))[:left]:
        out[label] += 1
    return out


def chosen(names: Sequence[str], labels: Sequence[int], wanted: dict[int, int], word: str, seed: int) -> list[int]:
    """Positions, rising, of the first by lot of each class."""
    order = lots(names, word, seed)
    taken = [[at for at in order if labels[at] == label][:n] for label, n in wanted.items()]
    return sorted(at for part in taken for at in part)


def tally(labels: Sequence[int]) -> dict[int, int]:
    """How many of each class, by class."""
    return {label: list(labels).count(label) for label in sorted(set(labels))}
