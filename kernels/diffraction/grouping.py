"""Groups of frames that lie close together: K nearest, then C of them, and which of the groups a view keeps.

A group holds its seed point first, then C - 1 of the seed's K nearest other points, drawn without replacement. Its
centre is the mean of its members' positions.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int32]

# Edges of the histogram of spacings, in parts of the view's threshold (or of the largest spacing, where there is none).
BINS = 16


@dataclass(frozen=True)
class Spacing:
    """How far the centres of the groups that were kept lie apart: each one's distance to its nearest other, pixels.

    Attributes:
        least, mean, median, most: of those distances; nan where there are fewer than two centres.
        threshold: the spacing asked for.
        accepted, rejected: groups kept, and groups too close to one that was.
        edges, histogram: BINS + 1 edges, and how many distances lie from each to the next.
    """

    least: float
    mean: float
    median: float
    most: float
    threshold: float
    accepted: int
    rejected: int
    edges: tuple[float, ...]
    histogram: tuple[int, ...]

    @property
    def rate(self) -> float:
        """Accepted of all candidates."""
        total = self.accepted + self.rejected
        return self.accepted / total if total else 0.0


def nearest(x: Positions, y: Positions, count: int) -> npt.NDArray[np.int64]:
    """The `count` nearest other points of each, (n, count), nearest first; of equal distances the smaller index first.

    Raises:
        ValueError: there are not that many other points.
    """
    if count > len(x) - 1:
        raise ValueError(f"{len(x)} points have {len(x) - 1} neighbours each, not {count}")
    out = np.empty((len(x), count), np.int64)
    for i in range(len(x)):
        far = (x - x[i]) ** 2 + (y - y[i]) ** 2
        far[i] = -1.0
        out[i] = np.argsort(far, kind="stable")[1 : count + 1]
    return out


def most_groups(neighbours: int, members: int) -> int:
    """How many different groups one seed point may have: K-choose-C at most, and no more than there are with it in."""
    return min(math.comb(neighbours, members), math.comb(neighbours, members - 1))


def groups(
    x: Positions, y: Positions, neighbours: int, members: int, rng: np.random.Generator, *, per_point: int = 1
) -> Groups:
    """Groups of every point; those of one point follow each other and differ.

    Args:
        x, y: (n,).
        neighbours: K.
        members: C, gridsize².
        rng: decides which of the K.
        per_point: groups of each point; more than one is oversampling and needs K > C.

    Returns:
        int32 (n·per_point, C).

    Raises:
        ValueError: C > K (unless C is 1), too few points, or more groups asked for than there are different ones.
    """
    if members < 1 or (members > 1 and members > neighbours):
        raise ValueError(f"a group of {members} cannot be chosen from {neighbours} neighbours: C is at most K")
    if per_point < 1 or (per_point > 1 and (members == 1 or neighbours <= members)):
        raise ValueError(f"{per_point} groups a point need K > C > 1, and K is {neighbours}, C {members}")
    if per_point > 1 and per_point > most_groups(neighbours, members):
        most = most_groups(neighbours, members)
        raise ValueError(f"{per_point} groups a point were asked for, K={neighbours} and C={members} have {most}")
    if members == 1:
        return np.arange(len(x), dtype=np.int32)[:, None]
    near = nearest(x, y, neighbours)
    choices = np.array(list(itertools.combinations(range(neighbours), members - 1)), dtype=np.int64)
    out = np.empty((len(x) * per_point, members), np.int32)
    for i in range(len(x)):
        drawn = rng.permutation(len(choices))[:per_point]
        part = slice(i * per_point, (i + 1) * per_point)
        out[part, 0] = i
        out[part, 1:] = near[i][choices[drawn]]
    return out


def centres_of(x: Positions, y: Positions, members: Groups) -> Positions:
    """(g, 2), the mean (x, y) of each group, to 1/1024 pixel, so that ties are ties on every machine."""
    means = np.stack([x[members].mean(axis=1), y[members].mean(axis=1)], axis=1)
    rounded: Positions = np.rint(means * 1024) / 1024
    return rounded


def apart(centres: Positions, threshold: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Indices, rising, of as many centres as a greedy choice finds that lie at least `threshold` apart.

    The one with the fewest others too close to it is taken next; chance decides between equal ones. This fills a scan
    from its border inwards and keeps more of them than taking them as they come does.
    """
    count = len(centres)
    order = np.argsort(rng.permutation(count))
    if threshold <= 0:
        return np.arange(count, dtype=np.int64)
    close = np.empty((count, count), dtype=bool)
    for row, (x, y) in zip(close, centres, strict=True):
        row[:] = (centres[:, 0] - x) ** 2 + (centres[:, 1] - y) ** 2 < threshold**2
    alive = np.ones(count, dtype=bool)
    crowd = close.sum(axis=1)
    kept = []
    while alive.any():
        best = int(np.argmin(np.where(alive, crowd * count + order, np.iinfo(np.int64).max)))
        kept.append(best)
        gone = alive & close[best]
        crowd -= close[:, gone].sum(axis=1)
        alive &= ~gone
    return np.array(sorted(kept), dtype=np.int64)


def spacing(centres: Positions, threshold: float, rejected: int) -> Spacing:
    """The statistics of the centres that were kept."""
    count = len(centres)
    distances = np.zeros(0)
    if count > 1:
        far = (centres[:, None, 0] - centres[None, :, 0]) ** 2 + (centres[:, None, 1] - centres[None, :, 1]) ** 2
        np.fill_diagonal(far, np.inf)
        distances = np.sqrt(far.min(axis=1))
    unit = threshold / (BINS // 2) if threshold > 0 else (float(distances.max()) if count > 1 else 1.0) / BINS
    edges = tuple(unit * i for i in range(BINS + 1))
    # What lies beyond the last edge is counted in the last bin.
    within = np.minimum((distances / unit).astype(np.int64), BINS - 1) if unit > 0 else np.zeros(count, np.int64)
    histogram = tuple(int(n) for n in np.bincount(within, minlength=BINS))
    told = (distances.min(), math.fsum(distances) / count, np.median(distances), distances.max()) if count > 1 else None
    least, mean, median, most = (float(v) for v in told) if told else (math.nan,) * 4
    return Spacing(least, mean, median, most, threshold, count, rejected, edges, histogram)
