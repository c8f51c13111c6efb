"""What a reconstruction may start from: nothing that knows the answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from jobs.dose.reconstruction import Reconstruction

# Two pictures that know nothing of each other have |r| near 1/√pixels; smooth ones more. A start with this much is
# made of the answer, or of another reconstruction of the same data.
MOST = 0.3
FLAT = 1e-6  # of the object itself: what single precision leaves of a constant without its mean


def correlation(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """|r| of two complex arrays with their means removed; 0 where one of them is flat.

    A constant factor does not change it: a global phase or scale hides nothing.
    """
    a, b = (np.asarray(v, np.complex128).ravel() for v in (first, second))
    wholes = [float(np.linalg.norm(v)) for v in (a, b)]
    a, b = a - a.mean(), b - b.mean()
    parts = [float(np.linalg.norm(v)) for v in (a, b)]
    # What is left of a flat object is rounding, of its own size: a faint object is not flat.
    if any(part <= FLAT * whole for part, whole in zip(parts, wholes, strict=True)):
        return 0.0
    # Each by its own norm: the product of two small ones may be no number any more.
    return float(abs(np.vdot(a / parts[0], b / parts[1])))


def check_start(start: npt.NDArray[Any], origin: tuple[int, int], truth: Reconstruction) -> float:
    """|r| of a start with the true object, where both are.

    Args:
        start: complex (H, W); origin: (row, column) of its first pixel.

    Raises:
        BadInput: it correlates with the truth, by its values or by its phases or amplitudes alone; or it is not finite.
    """
    top, left = (max(a, b) for a, b in zip(origin, truth.origin, strict=True))
    ends = [
        (o[0] + s.shape[0], o[1] + s.shape[1]) for o, s in ((origin, np.asarray(start)), (truth.origin, truth.object))
    ]
    bottom, right = (min(pair) for pair in zip(*ends, strict=True))
    if bottom <= top or right <= left:
        return 0.0

    def part(array: npt.NDArray[Any], of: tuple[int, int]) -> npt.NDArray[Any]:
        return array[top - of[0] : bottom - of[0], left - of[1] : right - of[1]]

    one, other = part(np.asarray(start), origin), part(truth.object, truth.origin)
    if not np.isfinite(one).all():
        raise BadInput("the start has pixels that are not finite", hint="start from a flat object: start=flat")
    found = max(correlation(f(one), f(other)) for f in (np.asarray, np.abs, np.angle))
    if found > MOST:
        raise BadInput(
            f"the start correlates with the true object (|r| = {found:.2f}, at most {MOST} is allowed): "
            "a reconstruction from it would prove nothing",
            hint="start from a flat object: start=flat",
        )
    return found
