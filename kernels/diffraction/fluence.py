"""How many photons fell on each object pixel: by this, and not by the dose a pattern, two views may be compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.devices import KernelRefused
from kernels.diffraction.windows import Real


def photons_per_pixel(
    probe: npt.NDArray[Any],
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    photons: float,
    *,
    origin: tuple[int, int],
    shape: tuple[int, int],
) -> Real:
    """Photons (H, W) on each pixel of a part of the object, all frames together.

    A frame lays its photons out as |probe|² does; positions are taken to the nearest pixel.

    Args:
        probe: complex (N, N). x, y: (n,) centres of the frames: the patch's pixel [N/2, N/2] lies there.
        photons: mean a frame.
        origin: (row, column) of the part's pixel [0, 0] in the frame of the positions. shape: (H, W) of the part.

    Raises:
        KernelRefused: the probe is no square or is zero, or the positions do not go together.
    """
    if probe.ndim != 2 or probe.shape[0] != probe.shape[1]:
        raise KernelRefused(f"a probe is (N, N), not {probe.shape}")
    if x.ndim != 1 or x.shape != y.shape:
        raise KernelRefused(f"positions are (n,) and (n,), not {x.shape} and {y.shape}")
    power = np.abs(np.asarray(probe, dtype=np.complex128)) ** 2
    if not power.sum() > 0:
        raise KernelRefused("a probe that is zero lights nothing")
    share = photons * power / power.sum()
    side, (high, wide) = probe.shape[0], shape
    out = np.zeros(shape)
    tops = np.floor(y + 0.5).astype(np.int64) - side // 2 - origin[0]
    lefts = np.floor(x + 0.5).astype(np.int64) - side // 2 - origin[1]
    for top, left in zip(tops.tolist(), lefts.tolist(), strict=True):
        first, last = max(top, 0), min(top + side, high)
        start, end = max(left, 0), min(left + side, wide)
        if first < last and start < end:
            out[first:last, start:end] += share[first - top : last - top, start - left : end - left]
    return out
