"""The oracle: NumPy, float64, the definition written down term by term, in tiles so that memory stays bounded.

Slow and plain on purpose. Everything else is judged against it, and it is itself held against a per-pixel
loop of scalars in the tests. What a wrong program may get wrong on its own (rounding, sub-pixels, omega,
precision of q) is a rule that can be replaced: `simulate(plan, replace(RULES, nearest=np.rint))` is such a
program, and a gate worth its name refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.devices import thread_count
from kernels.fcell import geometry, lattice
from kernels.fcell.plan import Counts, Plan, Probe, Simulation, one_pixel
from kernels.fcell.types import FloatArray, Grid

# Pixels of one tile. Measured: with shorter ones Python shows, with longer ones the arrays leave the cache.
TILE = 1 << 15


def nearest_down(x: FloatArray) -> FloatArray:
    """The nearest whole number, ties down: 0.5 → 0, 1.5 → 1, -0.5 → -1."""
    return np.asarray(np.ceil(x - 0.5))


def middles(oversample: int) -> FloatArray:
    """Where along a pixel its sub-pixels are sampled, in sub-pixels: at their middles."""
    return np.arange(oversample, dtype=np.float64) + 0.5


def every_sample(oversample: int) -> list[tuple[int, int]]:
    """(i_s, i_f) of the samples that are added up, slow outer."""
    return [(s, f) for s in range(oversample) for f in range(oversample)]


def as_it_is(q: FloatArray) -> FloatArray:
    return q


@dataclass(frozen=True)
class Rules:
    """The choices of the definition. `RULES` are the right ones.

    Attributes:
        nearest: rounds h, k, l to the cell that is looked up.
        places: os -> (os,) positions of the samples along a pixel, in sub-pixels.
        samples: os -> the (i_s, i_f) that are added up.
        omega_each: weigh each sub-pixel with its own solid angle, not with the first one's.
        momentum: what q goes through before h, k, l are taken from it.
    """

    nearest: Callable[[FloatArray], FloatArray] = field(default=nearest_down)
    places: Callable[[int], FloatArray] = field(default=middles)
    samples: Callable[[int], Sequence[tuple[int, int]]] = field(default=every_sample)
    omega_each: bool = False
    momentum: Callable[[FloatArray], FloatArray] = field(default=as_it_is)


RULES = Rules()


def simulate(plan: Plan, rules: Rules = RULES, *, tile: int = TILE) -> Simulation:
    """The image of the plan's ROI, float32 and before rounding to it, with its counts."""
    slow0, _, fast0, _ = plan.roi
    image = np.empty((plan.rows, plan.columns))
    counts = []
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is refused by the caller, in words
        for rows, columns in _tiles(plan, tile):
            total, part = _accumulate(plan, rules, rows, columns)
            first = sub_pixel(plan, rules, rows, columns, 0, 0)
            weight = polar(plan, first.direction)
            if not rules.omega_each:  # else the sum holds the solid angles already
                weight = weight * first.omega
            pixels = total * plan.scale * weight
            image[rows.start - slow0 : rows.stop - slow0, columns.start - fast0 : columns.stop - fast0] = pixels
            counts.append(part)
        return Simulation(image.astype(np.float32), reduce(add, counts), image)


def probe(plan: Plan, slow: int, fast: int, rules: Rules = RULES) -> Probe:
    """The intermediate numbers of one pixel.

    Raises:
        FcellRefused: the pixel is not on the detector.
    """
    slow0, slow1, fast0, fast1 = one_pixel(plan, slow, fast)
    rows, columns = range(slow0, slow1), range(fast0, fast1)
    total, counts = _accumulate(plan, rules, rows, columns)
    size = plan.oversample
    omegas = np.array(
        [[sub_pixel(plan, rules, rows, columns, s, f).omega[0, 0] for f in range(size)] for s in range(size)]
    )
    first = sub_pixel(plan, rules, rows, columns, 0, 0)
    factor, omega = float(polar(plan, first.direction)[0, 0]), float(first.omega[0, 0])
    intensity = float(total[0, 0])
    weight = factor if rules.omega_each else factor * omega  # as in `simulate`
    return Probe(
        omegas=omegas,
        counts=counts,
        intensity=intensity,
        steps=plan.steps,
        polar=factor,
        omega=omega,
        normalised=intensity / plan.steps * weight,
        physical=intensity * plan.scale * weight,
        final=float(np.float32(intensity * plan.scale * weight)),
    )


def make(threads: int | None = None) -> Callable[[Plan], Simulation]:
    """The oracle as a backend; it runs on one thread, whatever is asked.

    Raises:
        KernelRefused: fewer threads than one.
    """
    thread_count(threads)
    return simulate


@dataclass(frozen=True, eq=False)
class SubPixel:
    """One sub-pixel of every pixel of a tile: unit vector towards it (three arrays) and solid angle."""

    direction: tuple[FloatArray, FloatArray, FloatArray]
    omega: FloatArray


def sub_pixel(plan: Plan, rules: Rules, rows: range, columns: range, i_s: int, i_f: int) -> SubPixel:
    """Where the sub-pixel (i_s, i_f) of each pixel lies, as arrays (rows, columns)."""
    sub = plan.pixel_m / plan.oversample
    places = rules.places(plan.oversample)
    along_slow = (sub * (np.arange(rows.start, rows.stop) * plan.oversample + places[i_s]))[:, None]
    along_fast = (sub * (np.arange(columns.start, columns.stop) * plan.oversample + places[i_f]))[None, :]
    x, y, z = (plan.origin[n] + along_fast * plan.fast_axis[n] + along_slow * plan.slow_axis[n] for n in range(3))
    square = x * x + y * y + z * z
    distance = np.sqrt(square)
    omega = plan.pixel_m**2 / square * plan.close_distance / distance
    return SubPixel((x / distance, y / distance, z / distance), omega)


def polar(plan: Plan, direction: tuple[FloatArray, FloatArray, FloatArray]) -> FloatArray:
    """½(1 + cos²2θ - K·cos2ψ·sin²2θ) for source 0."""
    along, across = geometry.polar_basis(plan.sources[0], plan.polar_axis)
    # cos2ψ·sin²2θ is the difference of the squared components along E and across it: no angle is needed.
    electric, magnetic = _dot(along, direction), _dot(across, direction)
    cosine = _dot(plan.sources[0], direction)
    return 0.5 * (1.0 + cosine * cosine - plan.polarisation * (electric * electric - magnetic * magnetic))


def structure_factors(
    grid: Grid | None, default_f: float, hkl: Sequence[FloatArray], whole: Sequence[FloatArray], interpolate: bool
) -> tuple[FloatArray, Counts]:
    """F_cell of each lookup, and what the lookups met.

    Args:
        hkl: h, k, l as they are; whole: the cells they are nearest to.
    """
    lookups = int(hkl[0].size)
    h, k, l = ((int(n.min()), int(n.max())) for n in whole)  # noqa: E741
    if grid is None:
        zero = lookups if default_f == 0 else 0
        counts = Counts(lookups, 0, 0, 0, lookups, zero, default_f * lookups, (h, k, l))
        return np.full(hkl[0].shape, default_f), counts
    inside = np.ones(hkl[0].shape, dtype=bool)
    index = np.zeros(hkl[0].shape, dtype=np.int64)
    for n, (low, high), size in zip(whole, grid.bounds, grid.values.shape, strict=True):
        inside &= (n >= low) & (n <= high)
        index = index * size + (n - low).astype(np.int64)
    index = np.where(inside, index, 0)
    found = np.where(inside, grid.values.reshape(-1)[index], default_f)
    listed = int(np.count_nonzero(grid.listed.reshape(-1)[index] & inside))
    within = int(np.count_nonzero(inside))
    if interpolate:
        deep = np.ones(hkl[0].shape, dtype=bool)
        for x, (low, high) in zip(hkl, grid.bounds, strict=True):
            deep &= (x >= low + 2) & (x <= high - 2)
        if deep.any():
            found[deep] = _tricubic(grid, *(x[deep] for x in hkl))
    zero = int(np.count_nonzero(found == 0))
    sum_f = float(found.sum())
    return found, Counts(lookups, listed, within - listed, lookups - within, 0, zero, sum_f, (h, k, l))


def _tiles(plan: Plan, tile: int) -> Iterator[tuple[range, range]]:
    slow0, slow1, fast0, fast1 = plan.roi
    width = min(fast1 - fast0, tile)
    height = max(1, tile // width)
    for s in range(slow0, slow1, height):
        for f in range(fast0, fast1, width):
            yield range(s, min(s + height, slow1)), range(f, min(f + width, fast1))


def _accumulate(plan: Plan, rules: Rules, rows: range, columns: range) -> tuple[FloatArray, Counts]:
    """Σ F_cell²·F_latt² over sub-pixels, sources and orientations, and the counts of the tile."""
    total = np.zeros((len(rows), len(columns)))
    counts = []
    for i_s, i_f in rules.samples(plan.oversample):
        place = sub_pixel(plan, rules, rows, columns, i_s, i_f)
        part = np.zeros_like(total)
        for source, wavelength in zip(plan.sources, plan.wavelengths_m, strict=True):
            q = [rules.momentum((d - i) / wavelength) for d, i in zip(place.direction, source, strict=True)]
            for vectors in plan.orientations:
                hkl = [_dot(vector, q) for vector in vectors]
                whole = [rules.nearest(x) for x in hkl]
                found, met = structure_factors(plan.grid, plan.default_f, hkl, whole, plan.interpolate)
                dh, dk, dl = (x - n for x, n in zip(hkl, whole, strict=True))
                shape2 = lattice.squared(plan.shape, plan.cells, plan.fudge, plan.reciprocal, dh, dk, dl)
                part += found * found * shape2
                counts.append(met)
        total += part * place.omega if rules.omega_each else part
    return total, reduce(add, counts)


def _dot(vector: npt.NDArray[Any], parts: Sequence[FloatArray]) -> FloatArray:
    return np.asarray(vector[0] * parts[0] + vector[1] * parts[1] + vector[2] * parts[2])


def _tricubic(grid: Grid, h: FloatArray, k: FloatArray, l: FloatArray) -> FloatArray:  # noqa: E741
    """The cubic through 4×4×4 cells, floor - 1 to floor + 2 on each axis; every node is inside the grid."""
    starts, weights = [], []
    for x, low in zip((h, k, l), (grid.hmin, grid.kmin, grid.lmin), strict=True):
        base = np.floor(x)
        starts.append(base.astype(np.int64) - 1 - low)
        weights.append(_lagrange(x - base))
    found = np.zeros(h.shape)
    for i in range(4):
        for j in range(4):
            row = sum(grid.values[starts[0] + i, starts[1] + j, starts[2] + n] * weights[2][n] for n in range(4))
            found += weights[0][i] * weights[1][j] * row
    return found


def _lagrange(t: FloatArray) -> list[FloatArray]:
    """Weights of the nodes -1, 0, 1, 2 at 0 ≤ t < 1."""
    before, after, beyond = t + 1.0, t - 1.0, t - 2.0
    return [
        t * after * beyond / -6.0,
        before * after * beyond / 2.0,
        before * t * beyond / -2.0,
        before * t * after / 6.0,
    ]
