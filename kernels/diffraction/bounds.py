"""How small the error of a phase can be, for n photons per object pixel: lines to draw beside a measured curve.

They bound estimators that are unbiased. A regularised reconstruction may lie under them at low dose, so they are a
reference and no test.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.devices import KernelRefused


def quantum_limit(photons: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The standard quantum limit, 1/(2·√n) radians, elementwise.

    Raises:
        KernelRefused: a number of photons that is not above 0.
    """
    return 0.5 / np.sqrt(_positive(photons))


def ptychography_limit(photons: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """About what ptychography reaches, 1/√(2n) radians, elementwise: √2 above the quantum limit.

    Raises:
        KernelRefused: a number of photons that is not above 0.
    """
    return 1.0 / np.sqrt(2.0 * _positive(photons))


def _positive(photons: Any) -> npt.NDArray[np.float64]:
    n = np.asarray(photons, dtype=np.float64)
    if not (np.isfinite(n) & (n > 0)).all():
        raise KernelRefused("a phase has a bound only for a finite number of photons above 0")
    return n
