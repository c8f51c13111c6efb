"""The torch backend's arithmetic: one sample of a chunk of pixels, written so that it can be compiled whole.

A sample is one sub-pixel, source and orientation. `sample` is static: tensors in, tensors out, no branch on a
value, nothing read back. So it runs eagerly as it stands, and `fused` is the same function compiled.

The table of structure factors has a border of one cell that holds default_F; indices are clamped into it, so
a lookup outside the grid is an ordinary gather.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.fcell import lattice
from kernels.fcell.plan import Plan
from kernels.fcell.types import Roi, Shape

# Shape of the crystal, is there a grid, is it interpolated: what the code of a sample depends on.
Static = tuple[Shape, bool, bool]

# Stands for a distance of 0: sin(N·π·x)/sin(π·x) is then N to the last digit, without a case of its own.
_TINY = 1e-30


class Tables(NamedTuple):
    """The plan's numbers on the device. Numbers are 0-dimensional tensors: as plain floats they would be part
    of the compiled code, which would be compiled anew for each of their values."""

    sources: Tensor
    wavelengths: Tensor
    orientations: Tensor
    reciprocal: Tensor
    cells: Tensor
    fudge: Tensor
    default_f: Tensor
    low: Tensor
    high: Tensor
    strides: Tensor
    values: Tensor
    listed: Tensor


class Place(NamedTuple):
    """One sub-pixel of each pixel of a chunk: unit vector towards it, solid angle."""

    x: Tensor
    y: Tensor
    z: Tensor
    omega: Tensor


class Met(NamedTuple):
    """What one sample of a chunk met, as 0-dimensional tensors; lows and highs are (3,)."""

    listed: Tensor
    inside: Tensor
    zero: Tensor
    sum_f: Tensor
    lows: Tensor
    highs: Tensor


@cache
def fused(static: Static) -> Callable[..., tuple[Tensor, Met]]:
    """The compiled sample function of one variant, for chunks of any size.

    Each variant is a function with code of its own: torch counts recompilations by code object, and gives up
    after eight.
    """
    code = sample.__code__.replace(co_name="_".join(["sample", *(str(s) for s in static)]))
    return torch.compile(FunctionType(code, globals()), fullgraph=True, dynamic=True)


def sample(
    shape: Shape,
    has_grid: bool,
    interpolate: bool,
    tables: Tables,
    at: Place,
    source: Tensor,
    wavelength: Tensor,
    vectors: Tensor,
) -> tuple[Tensor, Met]:
    """F_cell²·F_latt² of one sub-pixel, source and orientation for each pixel of a chunk."""
    qx, qy, qz = ((d - source[n]) / wavelength for n, d in enumerate((at.x, at.y, at.z)))
    hkl = [vectors[n, 0] * qx + vectors[n, 1] * qy + vectors[n, 2] * qz for n in range(3)]
    whole = [torch.ceil(x - 0.5) for x in hkl]
    if has_grid:
        # The border of the table is one cell wide: everything beyond it is on it.
        clamped = [torch.clamp(n, tables.low[i] - 1, tables.high[i] + 1) for i, n in enumerate(whole)]
        index = _flat(tables, clamped)
        found = tables.values[index]
        code = tables.listed[index]
        listed, inside = (code == 2).sum(), (code != 0).sum()
        if interpolate:
            found = _tricubic(tables, hkl, found)
    else:
        found = tables.default_f.expand(qx.shape)
        listed = inside = torch.zeros((), dtype=torch.int64, device=qx.device)
    ranges = [torch.aminmax(n) for n in whole]
    met = Met(
        listed,
        inside,
        (found == 0).sum(),
        found.sum(),
        torch.stack([r.min for r in ranges]),
        torch.stack([r.max for r in ranges]),
    )
    deltas = [x - n for x, n in zip(hkl, whole, strict=True)]
    return found * found * _lattice_squared(shape, tables, deltas), met


def _flat(tables: Tables, whole: list[Tensor]) -> Tensor:
    """Index into the bordered table; float64 holds it exactly."""
    at = sum((whole[i] - (tables.low[i] - 1)) * tables.strides[i] for i in range(3))
    assert isinstance(at, Tensor)
    return at.to(torch.int64)


def _tricubic(tables: Tables, hkl: list[Tensor], nearest: Tensor) -> Tensor:
    """The cubic through 4×4×4 cells where all of them and one more are inside the grid, else `nearest`."""
    deep = torch.ones_like(nearest, dtype=torch.bool)
    bases, weights = [], []
    for i, x in enumerate(hkl):
        deep = deep & (x >= tables.low[i] + 2) & (x <= tables.high[i] - 2)
        base = torch.floor(x)
        weights.append(_lagrange(x - base))
        # Pixels that do not interpolate read some cells of the grid, and forget them.
        bases.append(torch.clamp(base, tables.low[i] + 1, tables.high[i] - 2) - 1)
    first = _flat(tables, bases)
    steps = tables.strides.to(torch.int64)
    total = torch.zeros_like(nearest)
    for i in range(4):
        for j in range(4):
            row = torch.zeros_like(nearest)
            for n in range(4):
                row = row + tables.values[first + (i * steps[0] + j * steps[1] + n)] * weights[2][n]
            total = total + weights[0][i] * weights[1][j] * row
    return torch.where(deep, total, nearest)


def _lagrange(t: Tensor) -> list[Tensor]:
    before, after, beyond = t + 1.0, t - 1.0, t - 2.0
    return [
        t * after * beyond / -6.0,
        before * after * beyond / 2.0,
        before * t * beyond / -2.0,
        before * t * after / 6.0,
    ]


def _lattice_squared(shape: Shape, tables: Tables, deltas: list[Tensor]) -> Tensor:
    if shape is Shape.SQUARE:
        over, under = [], []
        for i, delta in enumerate(deltas):
            moved = torch.where(delta == 0, _TINY, delta)
            turns = moved * tables.cells[i]
            over.append(torch.sin(math.pi * (turns - torch.round(turns))))
            under.append(torch.sin(math.pi * moved))
        return (over[0] * over[1] * over[2] / (under[0] * under[1] * under[2])) ** 2
    domain = tables.cells[0] * tables.cells[1] * tables.cells[2]
    if shape is Shape.ROUND:
        radius2 = sum((delta * tables.cells[i]) ** 2 for i, delta in enumerate(deltas))
        assert isinstance(radius2, Tensor)
        return (domain * lattice.ROUND_SCALE * _sinc3(math.pi * torch.sqrt(tables.fudge * radius2))) ** 2
    parts = [sum(delta * tables.reciprocal[i, n] for i, delta in enumerate(deltas)) for n in range(3)]
    spread = (parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2) * domain**2
    assert isinstance(spread, Tensor)
    if shape is Shape.GAUSS:
        return (domain * torch.exp(-spread / lattice.GAUSS_WIDTH * tables.fudge)) ** 2
    return torch.where(spread * tables.fudge < lattice.TOPHAT_LIMIT, domain**2, 0.0)


def _sinc3(x: Tensor) -> Tensor:
    far = torch.clamp(x, min=1.0)
    closed = 3.0 * (torch.sin(far) / far - torch.cos(far)) / (far * far)
    square = torch.clamp(x, max=1.0) ** 2
    series = torch.zeros_like(square)
    for term in reversed(lattice.SINC3_SERIES):
        series = series * square + term
    return torch.where(x < 1.0, series, closed)


def place(plan: Plan, roi: Roi, i_s: int, i_f: int, device: torch.device) -> Place:
    sub = plan.pixel_m / plan.oversample
    rows = torch.arange(roi[0], roi[1], dtype=torch.float64, device=device)[:, None]
    columns = torch.arange(roi[2], roi[3], dtype=torch.float64, device=device)[None, :]
    along_slow = sub * (rows * plan.oversample + (i_s + 0.5))
    along_fast = sub * (columns * plan.oversample + (i_f + 0.5))
    x, y, z = (
        along_fast * float(plan.fast_axis[n]) + float(plan.origin[n]) + along_slow * float(plan.slow_axis[n])
        for n in range(3)
    )
    square = x * x + y * y + z * z
    distance = torch.sqrt(square)
    omega = plan.pixel_m**2 * plan.close_distance / (square * distance)
    return Place(x / distance, y / distance, z / distance, omega)
