"""Errors between two image batches, and statistics of one, from the arrays and nothing else.

No function here gives a verdict. Correlation is among the numbers because people ask for it; 0.99999 hides
a hundredfold error in dim pixels, so the local relative error is the one to judge by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Errors:
    """How a candidate differs from a reference.

    Attributes:
        max_abs: largest |candidate - reference|.
        max_rel: largest |candidate - reference| / scale of that pixel; infinite where the scale is 0 and the
            candidate is not.
        rmse: root of the mean squared difference.
        correlation: Pearson's, over real and imaginary parts together; NaN if one side is constant.
        sum_ratio: Σ|candidate| / Σ|reference|; NaN if both are 0.
        edge_error, centre_error: `max_rel` on the outermost pixels of each image, and within them.
        worst: (image, y, x) of `max_rel`.
    """

    max_abs: float
    max_rel: float
    rmse: float
    correlation: float
    sum_ratio: float
    edge_error: float
    centre_error: float
    worst: tuple[int, int, int]


def errors(reference: Array, candidate: Array, scale: Array | None = None, *, margin: int = 1) -> Errors:
    """Compare two batches (..., H, W) of one shape.

    Args:
        scale: per pixel, what an error there is relative to; |reference| if not given.
        margin: how many outermost pixels count as edge.

    Raises:
        ValueError: the shapes differ; nothing is broadcast.
    """
    if reference.shape != candidate.shape or (scale is not None and scale.shape != reference.shape):
        raise ValueError(f"shapes differ: reference {reference.shape}, candidate {candidate.shape}")
    if reference.ndim < 2 or reference.size == 0:
        raise ValueError(f"nothing to compare: the reference is {reference.shape}")
    frame = reference.shape[-2:]
    ref, cand = _double(reference).reshape(-1, *frame), _double(candidate).reshape(-1, *frame)
    unit = np.abs(ref) if scale is None else np.asarray(scale, dtype=np.float64).reshape(-1, *frame)
    with np.errstate(all="ignore"):
        difference = np.abs(cand - ref)
        relative = np.where(difference == 0, 0.0, difference / unit)
        # A pixel that is not a number is the worst there is, wherever argmax would put it.
        ranked = np.where(np.isnan(relative), np.inf, relative)
        worst = np.unravel_index(int(ranked.argmax()), ranked.shape)
        return Errors(
            max_abs=float(difference.max()),
            max_rel=float(relative.max()),
            rmse=float(np.sqrt(np.mean(difference**2))),
            correlation=_correlation(ref, cand),
            sum_ratio=_ratio(float(np.abs(cand).sum()), float(np.abs(ref).sum())),
            edge_error=_masked_max(relative, _edge(frame, margin)),
            centre_error=_masked_max(relative, ~_edge(frame, margin)),
            worst=(int(worst[0]), int(worst[1]), int(worst[2])),
        )


@dataclass(frozen=True)
class PatchStatistics:
    """Statistics of the amplitudes of one batch, of *predictions*, never of labels.

    Attributes:
        var_zero_mean: mean((a - mean_HW a)²), the contrast within patches.
        contrast: var_zero_mean / mean(a²), which has no scale.
        level: |mean| / rms, which has no scale.
        patch_mean, patch_std, patch_min, patch_max: one number a patch.
    """

    count: int
    mean: float
    std: float
    rms: float
    maximum: float
    var_zero_mean: float
    contrast: float
    level: float
    patch_mean: Array
    patch_std: Array
    patch_min: Array
    patch_max: Array

    def unhealthy(self, *, floor: float = 1e-6) -> str:
        """Why this batch cannot be a picture of anything, or "". The limits do not depend on scale."""
        if not all(math.isfinite(v) for v in (self.mean, self.std, self.var_zero_mean)):
            return "not finite"
        if not self.level > floor:
            return f"|mean| / rms is {self.level:.3g}, not above {floor:g}"
        if not self.contrast > floor:
            return f"the variance within patches is {self.contrast:.3g} of the mean square, not above {floor:g}"
        return ""


def patch_statistics(batch: Array) -> PatchStatistics:
    """Statistics of the amplitudes of (..., H, W).

    Raises:
        ValueError: there is no pixel.
    """
    if batch.size == 0 or batch.ndim < 2:
        raise ValueError(f"nothing to summarise: the batch is {batch.shape}")
    amplitude = np.abs(_double(batch)) if np.iscomplexobj(batch) else _double(batch)
    amplitude = amplitude.reshape(-1, *batch.shape[-2:])
    with np.errstate(all="ignore"):
        patch_mean = amplitude.mean(axis=(1, 2))
        square = float(np.mean(amplitude**2))
        var_zero_mean = float(np.mean((amplitude - patch_mean[:, None, None]) ** 2))
        mean = float(amplitude.mean())
        return PatchStatistics(
            count=len(amplitude),
            mean=mean,
            std=float(amplitude.std()),
            rms=math.sqrt(square) if square >= 0 else math.nan,
            maximum=float(amplitude.max()),
            var_zero_mean=var_zero_mean,
            contrast=_ratio(var_zero_mean, square),
            level=_ratio(abs(mean), math.sqrt(square) if square >= 0 else math.nan),
            patch_mean=patch_mean,
            patch_std=amplitude.std(axis=(1, 2)),
            patch_min=amplitude.min(axis=(1, 2)),
            patch_max=amplitude.max(axis=(1, 2)),
        )


class Status(StrEnum):
    """How one statistic compares with its baseline. Anything but OK is a failure."""

    OK = "ok"
    BOTH_ZERO = "both_zero"
    BASELINE_ZERO = "baseline_zero"
    COLLAPSED = "collapsed"
    MISSING = "missing"


@dataclass(frozen=True)
class Comparison:
    name: str
    delta: float
    ratio: float
    status: Status


COMPARED = ("mean", "std", "maximum", "var_zero_mean")


def compare_statistics(
    baseline: PatchStatistics | None, other: PatchStatistics | None, *, collapse: float = 1e-3
) -> list[Comparison]:
    """Statistic by statistic: delta, ratio, status.

    A ratio of 0.0 can be computed, and once that alone was called "ok"; below `collapse` it is `collapsed`.
    A side that is absent or not finite is `missing`.
    """
    names = [f.name for f in fields(PatchStatistics) if f.name in COMPARED]
    return [_compare(n, getattr(baseline, n, math.nan), getattr(other, n, math.nan), collapse) for n in names]


def worst_status(comparisons: list[Comparison]) -> Status:
    """The first status that is not OK; MISSING when nothing was compared."""
    if not comparisons:
        return Status.MISSING
    return next((c.status for c in comparisons if c.status is not Status.OK), Status.OK)


def _compare(name: str, baseline: float, other: float, collapse: float) -> Comparison:
    delta, ratio = other - baseline, _ratio(other, baseline)
    if not (math.isfinite(baseline) and math.isfinite(other)):
        status = Status.MISSING
    elif baseline == 0:
        status = Status.BOTH_ZERO if other == 0 else Status.BASELINE_ZERO
    else:
        status = Status.COLLAPSED if abs(ratio) < collapse else Status.OK
    return Comparison(name, delta, ratio, status)


def _double(batch: Array) -> Array:
    return np.asarray(batch, dtype=np.complex128 if np.iscomplexobj(batch) else np.float64)


def _correlation(first: Array, second: Array) -> float:
    parts = (np.concatenate([x.real.ravel(), x.imag.ravel()]) for x in (first, second))
    a, b = (part - part.mean() for part in parts)
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else math.nan


def _ratio(over: float, under: float) -> float:
    if under == 0:
        return math.nan if over == 0 or math.isnan(over) else math.copysign(math.inf, over)
    return over / under


def _edge(frame: tuple[int, ...], margin: int) -> npt.NDArray[np.bool_]:
    mask = np.ones(frame, dtype=bool)
    if min(frame) > 2 * margin:
        mask[margin:-margin, margin:-margin] = False
    return mask


def _masked_max(values: Array, mask: npt.NDArray[np.bool_]) -> float:
    return float(values[:, mask].max()) if mask.any() else 0.0
