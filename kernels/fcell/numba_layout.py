"""From a plan to the arrays of the loops: which loop may run, the padded table of F, the lines of a·P along a row.

Plain NumPy, once a call; nothing is kept between calls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.fcell import geometry
from kernels.fcell.numba_fast import NOTHING, SAMPLES, series_holds
from kernels.fcell.numba_lookup import LISTED, UNLISTED, small_counts
from kernels.fcell.plan import Plan
from kernels.fcell.types import FloatArray, Shape

MAX_TABLE = 1 << 22
"""Cells of the padded table, 32 MiB: a frame that sees more of reciprocal space is computed without one."""

_NODES = 33


@dataclass(frozen=True, eq=False)
class Layout:
    """Arguments of `numba_fast.band`, under its names.

    Attributes:
        zeros: a table that finds listed structure factors of 0, and counts nothing else; None if there are none.
    """

    series: bool
    small: bool
    lines: FloatArray
    polar_lines: FloatArray
    table: FloatArray
    zeros: FloatArray | None
    strides: FloatArray
    shape: FloatArray
    tie: float
    dim: float
    margins: FloatArray


def layout(plan: Plan) -> Layout | None:
    """How the fast loop computes this plan; None where it cannot, and `numba_exact` has to."""
    if plan.shape is not Shape.SQUARE or plan.interpolate or plan.close_distance <= 0 or plan.oversample > SAMPLES:
        return None
    low, high = _reach(plan)
    size = [int(n) for n in high - low + 1]
    if not np.isfinite(low).all() or not np.isfinite(high).all() or math.prod(size) > MAX_TABLE:
        return None
    table, zeros = _tables(plan, [int(n) for n in low], size)
    furthest = float(max(np.abs(low).max(), np.abs(high).max())) + _strength(plan).max()
    small = small_counts(plan.cells)
    return Layout(
        series=series_holds(plan.pixel_m, plan.close_distance),
        small=small,
        lines=_lines(plan),
        polar_lines=_polar_lines(plan),
        table=table,
        zeros=zeros,
        strides=np.array(
            [size[1] * size[2], size[2], -((low[0] * size[1] + low[1]) * size[2] + low[2])], dtype=np.float64
        ),
        shape=np.concatenate([_POLYNOMIALS[n] for n in plan.cells]) if small else np.array(plan.cells, np.float64),
        # Both this loop and the oracle round h some ten times, at numbers as large as these.
        tie=0.25 - 32 * np.finfo(np.float64).eps * furthest,
        dim=_dimmest(plan.cells, plan.steps, furthest) ** 2,
        margins=_bend(plan, SAMPLES / plan.oversample * plan.pixel_m, 1),
    )


# F_latt of N = 1, 3 and 5 in y = cos²(πδ): U_0, U_2 and U_4.
_POLYNOMIALS = {
    1: np.array([1.0, 0.0, 0.0]),
    3: np.array([-1.0, 4.0, 0.0]),
    5: np.array([1.0, -12.0, 16.0]),
}


def _dimmest(cells: tuple[int, int, int], lookups: int, furthest: float) -> float:
    """Below this F_latt is so near a zero that the rounding of h reaches the seventh digit of its square.

    Beside a zero of one axis the slope is about N, and the other two factors are seldom above 5 each. h rounds at
    numbers as large as `furthest`. Of several lookups of a pixel one is usually away from the zero, so there it is
    enough to be right; where one lookup is all, it is kept further off.
    """
    most = max(cells)
    slope = most * min(most * most, 25)
    rounding = 6 * np.finfo(np.float64).eps * furthest
    needed = 2 * slope * rounding / 4e-7
    return max(needed, 6e-6 * slope) if lookups < 4 else needed


def _strength(plan: Plan) -> FloatArray:
    """(3,): the largest |a|/λ, |b|/λ, |c|/λ: how fast h, k and l change with the direction."""
    lengths = np.sqrt((plan.orientations**2).sum(axis=2)).max(axis=0)
    return np.asarray(lengths / plan.wavelengths_m.min())


def _bend(plan: Plan, length: float, directions: int) -> FloatArray:
    """(3,): how far h, k, l may be from what their ends say, anywhere between points `length` apart.

    The second derivative of a unit vector to a point on a straight line is at most 2/R²; a straight line between
    the ends is off by an eighth of that times the square of the length.
    """
    return np.asarray(_strength(plan) * (directions * 2 / 8) * (length / plan.close_distance) ** 2 + 1e-6)


def _reach(plan: Plan) -> tuple[FloatArray, FloatArray]:
    """(3,), (3,): whole h, k, l that no lookup of this plan is below or above."""
    slow0, slow1, fast0, fast1 = plan.roi
    s = np.linspace(slow0, slow1, _NODES) * plan.pixel_m
    f = np.linspace(fast0, fast1, _NODES) * plan.pixel_m
    points = plan.origin + s[:, None, None] * plan.slow_axis + f[None, :, None] * plan.fast_axis
    directions = (points / np.sqrt((points**2).sum(axis=2, keepdims=True))).reshape(-1, 3)
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for source, wavelength in zip(plan.sources, plan.wavelengths_m, strict=True):
        q = (directions - source) / wavelength
        for vectors in plan.orientations:
            hkl = q @ vectors.T
            low, high = np.minimum(low, hkl.min(axis=0)), np.maximum(high, hkl.max(axis=0))
    spacing = max(slow1 - slow0, fast1 - fast0) / (_NODES - 1) * plan.pixel_m
    margin = _bend(plan, spacing, 2)
    return np.floor(low - margin), np.ceil(high + margin)


def _lines(plan: Plan) -> FloatArray:
    rows = []
    for source, wavelength in zip(plan.sources, plan.wavelengths_m, strict=True):
        ends = np.stack([plan.origin, plan.fast_axis, plan.slow_axis, source], axis=1) / wavelength
        rows.append((plan.orientations @ ends).reshape(-1, 12))
    return np.ascontiguousarray(np.concatenate(rows))


def polar_axes(plan: Plan) -> FloatArray:
    """(3, 3): source 0, E and across it."""
    return np.stack([plan.sources[0], *geometry.polar_basis(plan.sources[0], plan.polar_axis)])


def _polar_lines(plan: Plan) -> FloatArray:
    return np.ascontiguousarray(polar_axes(plan) @ np.stack([plan.origin, plan.fast_axis, plan.slow_axis], axis=1))


def _tables(plan: Plan, low: list[int], size: list[int]) -> tuple[FloatArray, FloatArray | None]:
    table = np.full(size, _encoded(np.array([plan.default_f]), np.array([0]))[0])
    grid = plan.grid
    if grid is None:
        return table.reshape(-1), None
    inner, outer = [], []
    for start, length, (first, last) in zip(low, size, grid.bounds, strict=True):
        begin, end = max(start, first), min(start + length - 1, last) + 1
        if begin >= end:
            return table.reshape(-1), None
        inner.append(slice(begin - first, end - first))
        outer.append(slice(begin - start, end - start))
    values, listed = grid.values[tuple(inner)], grid.listed[tuple(inner)]
    table[tuple(outer)] = _encoded(values, np.where(listed, LISTED, UNLISTED))
    empty = listed & (values == 0)
    if not empty.any():
        return table.reshape(-1), None
    zeros = np.full(size, _encoded(np.ones(1), np.array([0]))[0])
    zeros[tuple(outer)] = _encoded(np.ones(values.shape), np.where(empty, LISTED, 0))
    return table.reshape(-1), zeros.reshape(-1)


def _encoded(values: FloatArray, outcomes: npt.NDArray[np.int64]) -> FloatArray:
    """F with the outcome of the lookup in two bits of it: F changes by 2.3e-13 of itself at most."""
    raw = np.where(values == 0, NOTHING, values).view(np.int64)
    return np.asarray(((raw & ~(LISTED | UNLISTED)) | outcomes).view(np.float64))
