"""Every case, one lookup after another, in the oracle's order of operations: h, k and l are its own, bit for bit.

It is the path of everything but SQUARE crystals with the nearest cell, and the second opinion of `numba_fast` on
the few pixels it marks. Parallel and fused as that one: no array is larger than the image.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from kernels.fcell import lattice
from kernels.fcell.numba_fast import ALL_AGAIN
from kernels.jit import exact

Doubles = npt.NDArray[np.float64]

SQUARE, ROUND, GAUSS, TOPHAT = 0, 1, 2, 3

LISTED, UNLISTED, ZERO, LOOKUPS = 0, 1, 2, 3
"""Places in `outcomes`."""

_PI = math.pi
_ROUND_SCALE, _GAUSS_WIDTH, _TOPHAT_LIMIT = lattice.ROUND_SCALE, lattice.GAUSS_WIDTH, lattice.TOPHAT_LIMIT
_SINC3 = tuple(3.0 / (2**n * math.factorial(n) * math.prod(range(1, 2 * n + 4, 2))) * (-1) ** n for n in range(9))


@exact
def band(
    first_row: int,
    last_row: int,
    fast0: int,
    fast1: int,
    oversample: int,
    pixel: float,
    pixel_area: float,
    close_distance: float,
    origin: Doubles,
    fast_axis: Doubles,
    slow_axis: Doubles,
    sources: Doubles,
    wavelengths: Doubles,
    orientations: Doubles,
    polar_axes: Doubles,
    polarisation: float,
    scale: float,
    values: Doubles,
    listed: npt.NDArray[np.bool_],
    minima: npt.NDArray[np.int64],
    gridded: bool,
    default_f: float,
    interpolate: bool,
    shape: int,
    cells: npt.NDArray[np.int64],
    fudge: float,
    reciprocal: Doubles,
    bounds: Doubles,
    outcomes: npt.NDArray[np.int64],
    image: npt.NDArray[np.float32],
    redo: npt.NDArray[np.uint8],
    detail: Doubles,
) -> float:
    """Rows first_row..last_row, columns fast0..fast1; of a `redo` that is not empty only the pixels marked in it.

    Args:
        polar_axes: (3, 3): source 0, E and across it.
        values, listed: the grid (nh, nk, nl) from the cell `minima` on; of any shape where `gridded` is false.
        bounds: least and greatest h, k, l so far; outcomes: counts (listed, unlisted, zero, lookups). Both are added
            to, except by pixels marked otherwise than `ALL_AGAIN`.
        detail: empty, or for one pixel (intensity, polar, omega, omega of each sub-pixel).

    Returns:
        The sum of F of what was counted.
    """
    sub = pixel / oversample
    size_h, size_k, size_l = values.shape
    sum_f = 0.0
    for row in range(first_row, last_row):
        for column in range(fast0, fast1):
            counted = True
            if redo.size:
                mark = redo[row - first_row, column - fast0]
                if mark == 0:
                    continue
                counted = mark == ALL_AGAIN
            total, weight = 0.0, 0.0
            for i_s in range(oversample):
                along_slow = sub * (row * oversample + (i_s + 0.5))
                for i_f in range(oversample):
                    along_fast = sub * (column * oversample + (i_f + 0.5))
                    x = origin[0] + along_fast * fast_axis[0] + along_slow * slow_axis[0]
                    y = origin[1] + along_fast * fast_axis[1] + along_slow * slow_axis[1]
                    z = origin[2] + along_fast * fast_axis[2] + along_slow * slow_axis[2]
                    square = x * x + y * y + z * z
                    distance = math.sqrt(square)
                    d0, d1, d2 = x / distance, y / distance, z / distance
                    omega = pixel_area / square * close_distance / distance
                    if i_s == 0 and i_f == 0:
                        polar = _polar(d0, d1, d2, polar_axes, polarisation)
                        weight = polar * omega
                        if detail.size:
                            detail[1], detail[2] = polar, omega
                    if detail.size:
                        detail[3 + i_s * oversample + i_f] = omega
                    part = 0.0
                    for s in range(sources.shape[0]):
                        wavelength = wavelengths[s]
                        q0 = (d0 - sources[s, 0]) / wavelength
                        q1 = (d1 - sources[s, 1]) / wavelength
                        q2 = (d2 - sources[s, 2]) / wavelength
                        for n in range(orientations.shape[0]):
                            v = orientations[n]
                            h = v[0, 0] * q0 + v[0, 1] * q1 + v[0, 2] * q2
                            k = v[1, 0] * q0 + v[1, 1] * q1 + v[1, 2] * q2
                            l = v[2, 0] * q0 + v[2, 1] * q1 + v[2, 2] * q2  # noqa: E741
                            # Ties go down.
                            nh, nk, nl = math.ceil(h - 0.5), math.ceil(k - 0.5), math.ceil(l - 0.5)
                            ih, ik, il = nh - minima[0], nk - minima[1], nl - minima[2]
                            inside = gridded and (0 <= ih < size_h and 0 <= ik < size_k and 0 <= il < size_l)
                            f = values[ih, ik, il] if inside else default_f
                            if interpolate and inside and _deep(h, k, l, minima, size_h, size_k, size_l):
                                f = _tricubic(values, minima, h, k, l)
                            if counted:
                                sum_f += f
                                outcomes[LOOKUPS] += 1
                                if f == 0.0:
                                    outcomes[ZERO] += 1
                                if inside:
                                    outcomes[LISTED if listed[ih, ik, il] else UNLISTED] += 1
                                _extend(bounds, nh, nk, nl)
                            dh, dk, dl = h - nh, k - nk, l - nl
                            if shape == SQUARE:
                                value = _sincg(dh, cells[0]) * _sincg(dk, cells[1]) * _sincg(dl, cells[2])
                                part += f * f * (value * value)
                            else:
                                part += f * f * _other(shape, cells, fudge, reciprocal, dh, dk, dl)
                    total += part
            if detail.size:
                detail[0] = total
            image[row - first_row, column - fast0] = np.float32(total * scale * weight)
    return sum_f


@exact
def _polar(d0: float, d1: float, d2: float, axes: Doubles, polarisation: float) -> float:
    cosine = axes[0, 0] * d0 + axes[0, 1] * d1 + axes[0, 2] * d2
    electric = axes[1, 0] * d0 + axes[1, 1] * d1 + axes[1, 2] * d2
    magnetic = axes[2, 0] * d0 + axes[2, 1] * d1 + axes[2, 2] * d2
    return float(0.5 * (1.0 + cosine * cosine - polarisation * (electric * electric - magnetic * magnetic)))


@exact
def _extend(bounds: Doubles, h: float, k: float, l: float) -> None:  # noqa: E741
    bounds[0], bounds[1] = min(bounds[0], h), max(bounds[1], h)
    bounds[2], bounds[3] = min(bounds[2], k), max(bounds[3], k)
    bounds[4], bounds[5] = min(bounds[4], l), max(bounds[5], l)


@exact
def _sincg(delta: float, count: int) -> float:
    angle = _PI * delta
    under = math.sin(angle)
    return float(count) if under == 0.0 else math.sin(count * angle) / under


@exact
def _other(
    shape: int,
    cells: npt.NDArray[np.int64],
    fudge: float,
    reciprocal: Doubles,
    dh: float,
    dk: float,
    dl: float,
) -> float:
    """F_latt² of ROUND, GAUSS and TOPHAT, as in `lattice`."""
    domain = float(cells[0] * cells[1] * cells[2])
    if shape == ROUND:
        rh, rk, rl = dh * cells[0], dk * cells[1], dl * cells[2]
        value = domain * _ROUND_SCALE * _sinc3(_PI * math.sqrt(fudge * (rh * rh + rk * rk + rl * rl)))
        return value * value
    x = dh * reciprocal[0, 0] + dk * reciprocal[1, 0] + dl * reciprocal[2, 0]
    y = dh * reciprocal[0, 1] + dk * reciprocal[1, 1] + dl * reciprocal[2, 1]
    z = dh * reciprocal[0, 2] + dk * reciprocal[1, 2] + dl * reciprocal[2, 2]
    spread = (x * x + y * y + z * z) * (domain * domain)
    if shape == GAUSS:
        value = domain * math.exp(-spread / _GAUSS_WIDTH * fudge)
        return value * value
    return domain * domain if spread * fudge < _TOPHAT_LIMIT else 0.0


@exact
def _sinc3(x: float) -> float:
    if x >= 1.0:
        return 3.0 * (math.sin(x) / x - math.cos(x)) / (x * x)
    square, series = x * x, 0.0
    for n in range(8, -1, -1):
        series = series * square + _SINC3[n]
    return series


@exact
def _deep(
    h: float,
    k: float,
    l: float,  # noqa: E741
    minima: npt.NDArray[np.int64],
    size_h: int,
    size_k: int,
    size_l: int,
) -> bool:
    """Whether all 64 cells of a tricubic lookup are inside the grid, with the margin of the definition."""
    return bool(
        minima[0] + 2 <= h <= minima[0] + size_h - 3
        and minima[1] + 2 <= k <= minima[1] + size_k - 3
        and minima[2] + 2 <= l <= minima[2] + size_l - 3
    )


@exact
def _tricubic(
    values: Doubles,
    minima: npt.NDArray[np.int64],
    h: float,
    k: float,
    l: float,  # noqa: E741
) -> float:
    bh, bk, bl = math.floor(h), math.floor(k), math.floor(l)
    wh, wk, wl = _lagrange(h - bh), _lagrange(k - bk), _lagrange(l - bl)
    sh, sk, sl = int(bh) - 1 - minima[0], int(bk) - 1 - minima[1], int(bl) - 1 - minima[2]
    found = 0.0
    for i in range(4):
        for j in range(4):
            line = 0.0
            for n in range(4):
                line += values[sh + i, sk + j, sl + n] * wl[n]
            found += wh[i] * wk[j] * line
    return found


@exact
def _lagrange(t: float) -> tuple[float, float, float, float]:
    """Weights of the nodes -1, 0, 1, 2 at 0 ≤ t < 1."""
    before, after, beyond = t + 1.0, t - 1.0, t - 2.0
    return (
        t * after * beyond / -6.0,
        before * after * beyond / 2.0,
        before * t * beyond / -2.0,
        before * t * after / 6.0,
    )
