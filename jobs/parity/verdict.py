"""The judge. It is given arrays and a tolerance; there is no way to tell it whose arrays they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.parity.words import Verdict
from kernels.metrics import (
    Errors,
    PatchStatistics,
    Status,
    compare_statistics,
    errors,
    patch_statistics,
    worst_status,
)


@dataclass(frozen=True)
class Reference:
    """What is right, in double precision.

    Attributes:
        values: (..., H, W), complex128 or float64.
        scale: per pixel, what an error there is relative to. For a translation |T(|re| + i|im|)|: rounding errors of
            the sum go with it, so the gate is as tight in a dim pixel as in a bright one. Where it is 0 nothing but
            0 is right.
        sum_limit: of |Σ candidate / Σ values - 1|, for images whose sum is a quantity of its own; None: no limit.
    """

    values: npt.NDArray[Any]
    scale: npt.NDArray[np.float64]
    sum_limit: float | None = None


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    reason: str
    errors: Errors | None = None
    statistics: Status | None = None
    patches: PatchStatistics | None = None


def judge(reference: Reference, candidate: npt.NDArray[Any], tolerance: float) -> Judgement:
    """Pass or fail, from the arrays alone. Correlation is measured and decides nothing.

    Args:
        tolerance: limit of |candidate - reference| / scale in every single pixel; 0 means bit for bit.
    """
    want = reference.values
    if candidate.shape != want.shape:
        return Judgement(Verdict.FAIL, f"the shape is {candidate.shape}, not {want.shape}")
    if np.iscomplexobj(want) and not np.issubdtype(candidate.dtype, np.complexfloating):
        return Judgement(Verdict.FAIL, f"the numbers are {candidate.dtype}, not complex")

    measured = errors(want, candidate, reference.scale)
    patches = patch_statistics(candidate)
    compared = compare_statistics(patch_statistics(want), patches)
    status = worst_status(compared)

    def because(reason: str) -> Judgement:
        return Judgement(Verdict.FAIL, reason, measured, status, patches)

    if not np.isfinite(candidate).all():
        return because(f"{np.count_nonzero(~np.isfinite(candidate))} of {candidate.size} numbers are not finite")
    if status is not Status.OK:
        bad = next(c for c in compared if c.status is not Status.OK)
        return because(f"{bad.status}: the {bad.name} is {bad.ratio:.3g} of the reference's")
    image, y, x = measured.worst
    # Written as `not (a <= b)` so that a NaN can never pass.
    if not (measured.max_rel <= tolerance):
        where = f"worst at image {image}, y {y}, x {x}"
        if np.isinf(measured.max_rel):
            return because(f"something where only 0 is right, {where}")
        return because(f"relative error {measured.max_rel:.3g} above {tolerance:.3g}, {where}")
    if reference.sum_limit is not None and not (abs(measured.sum_ratio - 1) <= reference.sum_limit):
        return because(f"the sum is off by {measured.sum_ratio - 1:.3g}, more than {reference.sum_limit:.3g}")
    if tolerance == 0 and not _same_bits(want, candidate):
        return because("equal in value, but not bit for bit (the sign of a zero)")
    return Judgement(
        Verdict.PASS,
        "bit for bit" if tolerance == 0 else f"relative error {measured.max_rel:.3g} within {tolerance:.3g}",
        measured,
        status,
        patches,
    )


def same_counts(want: Mapping[str, int], told: Mapping[str, Any]) -> str:
    """Why counts that must be equal are not, or "". A count that is missing is none."""
    for name, count in want.items():
        if told.get(name) != count:
            return f"the count {name} is {told.get(name, 'missing')}, not {count}"
    return ""


def _same_bits(want: npt.NDArray[Any], candidate: npt.NDArray[Any]) -> bool:
    return bool(np.ascontiguousarray(candidate, dtype=want.dtype).tobytes() == np.ascontiguousarray(want).tobytes())
