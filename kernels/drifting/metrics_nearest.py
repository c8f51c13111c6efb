"""The nearest training sample of each sample, by cosine: how close a model comes to what it has seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.devices import KernelRefused

Floats = npt.NDArray[np.float64]
_BLOCK = 1024  # rows at a time, so that the table of cosines stays small


@dataclass(frozen=True)
class Nearest:
    """Of each query, the nearest of the others. Attributes: index: int64 (n,); cosine: float64 (n,)."""

    index: npt.NDArray[np.int64]
    cosine: Floats


@dataclass(frozen=True)
class Closeness:
    """What the cosines to the nearest amount to.

    Attributes:
        p95: the 95th percentile, linear between ranks: the closest twentieth begins there.
        label_match: the share whose nearest has the same label.
    """

    n: int
    mean: float
    median: float
    p95: float
    label_match: float


def nearest(queries: npt.ArrayLike, others: npt.ArrayLike) -> Nearest:
    """For each row of `queries` (n, d) the row of `others` (m, d) with the greatest cosine, the first of equal ones.

    A row of zeros has the cosine 0 to everything.

    Raises:
        KernelRefused: there is no row, other widths, or a number that is not finite.
    """
    rows, against = _unit(queries, "queries"), _unit(others, "others")
    if rows.shape[1] != against.shape[1]:
        raise KernelRefused(f"rows of {rows.shape[1]} and of {against.shape[1]} numbers cannot be compared")
    index = np.empty(len(rows), dtype=np.int64)
    cosine = np.empty(len(rows), dtype=np.float64)
    for start in range(0, len(rows), _BLOCK):
        table = rows[start : start + _BLOCK] @ against.T
        best = table.argmax(axis=1)
        index[start : start + _BLOCK] = best
        cosine[start : start + _BLOCK] = table[np.arange(len(best)), best]
    return Nearest(index, np.clip(cosine, -1.0, 1.0))


def closeness(found: Nearest, labels: npt.ArrayLike, others: npt.ArrayLike) -> Closeness:
    """Summarise.

    Args:
        labels: of the queries, (n,). others: of all those they were compared with, (m,).

    Raises:
        KernelRefused: there is not a label for each.
    """
    own, theirs = np.asarray(labels), np.asarray(others)
    if own.shape != found.index.shape or theirs.ndim != 1 or len(theirs) <= int(found.index.max()):
        raise KernelRefused(f"labels {own.shape} and {theirs.shape} do not go with {found.index.shape} samples")
    return Closeness(
        n=len(own),
        mean=float(found.cosine.mean()),
        median=float(np.median(found.cosine)),
        p95=float(np.percentile(found.cosine, 95)),
        label_match=float((theirs[found.index] == own).mean()),
    )


def _unit(given: npt.ArrayLike, name: str) -> Floats:
    rows = np.asarray(given, dtype=np.float64)
    if rows.ndim != 2 or rows.size == 0:
        raise KernelRefused(f"{name} has the shape {rows.shape}: rows of numbers are needed")
    if not np.isfinite(rows).all():
        raise KernelRefused(f"{name} has numbers that are not finite")
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, length, out=np.zeros_like(rows), where=length > 0))
