"""The fused backend: Numba, parallel over bands of rows, memory bounded by the image.

`numba_fast` computes what it can promise, and `numba_exact` the rest; which of them runs is decided per plan in
`numba_layout`, and per pixel by what the fast loop marks. Threads are plain Python threads, as the loops do not
hold the interpreter lock: Numba's own threading layers share one pool a process, and some do not survive a fork.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt

from kernels import jit
from kernels.devices import thread_count
from kernels.fcell import numba_exact, numba_fast
from kernels.fcell.numba_layout import Layout, layout, polar_axes
from kernels.fcell.plan import Counts, Plan, Probe, Simulation, one_pixel
from kernels.fcell.types import FloatArray, Shape

__all__ = ["make", "probe", "warm"]

_SHAPES = {
    Shape.SQUARE: numba_exact.SQUARE,
    Shape.ROUND: numba_exact.ROUND,
    Shape.GAUSS: numba_exact.GAUSS,
    Shape.TOPHAT: numba_exact.TOPHAT,
}

# A band is the work of one call: long enough that Python, which only one thread runs at a time, does not matter; short
# enough that threads end together.
_BAND_ROWS, _BAND_LOOKUPS = 64, 1 << 20


def make(threads: int | None = None) -> Callable[[Plan], Simulation]:
    """The backend on that many threads; every core this process may run on, if None.

    The image and the counts do not depend on the number of threads.

    Raises:
        KernelRefused: fewer than one thread.
    """
    count = thread_count(threads)

    def simulate(plan: Plan) -> Simulation:
        image = np.empty((plan.rows, plan.columns), dtype=np.float32)
        return Simulation(image, _run(plan, image, count, np.empty(0)))

    return simulate


def probe(plan: Plan, slow: int, fast: int) -> Probe:
    """The intermediate numbers of one pixel, from the loop that computes it in the image of this plan.

    Raises:
        FcellRefused: the pixel is not on the detector.
    """
    size = plan.oversample
    plan = replace(plan, roi=one_pixel(plan, slow, fast))
    image, detail = np.empty((1, 1), dtype=np.float32), np.zeros(3 + size * size)
    counts = _run(plan, image, 1, detail)
    intensity, polar, omega = (float(value) for value in detail[:3])
    return Probe(
        omegas=detail[3:].reshape(size, size),
        counts=counts,
        intensity=intensity,
        steps=plan.steps,
        polar=polar,
        omega=omega,
        normalised=intensity / plan.steps * polar * omega,
        physical=intensity * plan.scale * polar * omega,
        final=float(image[0, 0]),
    )


def warm(plan: Plan) -> float:
    """Compile whatever this plan may need, by computing one pixel of it; seconds that took."""
    slow, fast = plan.roi[0], plan.roi[2]
    small = replace(plan, roi=one_pixel(plan, slow, fast))

    def both() -> None:
        _exact(small, np.empty((1, 1), dtype=np.float32), 1, np.empty(0))
        probe(plan, slow, fast)

    return jit.warm(both)


@dataclass(frozen=True)
class _Met:
    """What one band of rows met, bounds aside."""

    listed: int = 0
    unlisted: int = 0
    zero: int = 0
    lookups: int = 0
    sum_f: float = 0.0

    def __add__(self, other: _Met) -> _Met:
        return _Met(
            self.listed + other.listed,
            self.unlisted + other.unlisted,
            self.zero + other.zero,
            self.lookups + other.lookups,
            self.sum_f + other.sum_f,
        )


# rows first..last of the detector, bounds so far (added to) -> what they met
_Band = Callable[[int, int, FloatArray], _Met]


def _run(plan: Plan, image: npt.NDArray[np.float32], threads: int, detail: FloatArray) -> Counts:
    found = layout(plan)
    if found is None:
        return _exact(plan, image, threads, detail)
    return _over_bands(plan, _fast_band(plan, found, image, detail), threads)


def _exact(plan: Plan, image: npt.NDArray[np.float32], threads: int, detail: FloatArray) -> Counts:
    return _over_bands(plan, _exact_band(plan, image, detail), threads)


def _over_bands(plan: Plan, band: _Band, threads: int) -> Counts:
    slow0, slow1 = plan.roi[:2]
    rows = max(1, min(_BAND_ROWS, _BAND_LOOKUPS // (plan.columns * plan.steps)))
    starts = range(slow0, slow1, rows)
    met: list[_Met] = [_Met()] * len(starts)
    turn = itertools.count()

    def work() -> FloatArray:
        bounds = np.array([np.inf, -np.inf] * 3)
        while (n := next(turn)) < len(starts):
            met[n] = band(starts[n], min(starts[n] + rows, slow1), bounds)
        return bounds

    threads = min(threads, len(starts))
    if threads == 1:
        found = [work()]
    else:
        # The caller works too: a thread that only waits has its core, and a new one may be put beside another.
        with ThreadPoolExecutor(threads - 1) as pool:
            others = [pool.submit(work) for _ in range(threads - 1)]
            found = [work(), *(other.result() for other in others)]
    # In the order of the rows, whichever thread had them: the sum of F has the same last digit every time.
    return _counts(plan, reduce(add, met), np.array(found))


def _counts(plan: Plan, met: _Met, bounds: FloatArray) -> Counts:
    (h, k, l) = (  # noqa: E741
        (int(bounds[:, 2 * n].min()), int(bounds[:, 2 * n + 1].max())) for n in range(3)
    )
    outside = met.lookups - met.listed - met.unlisted
    return Counts(
        lookups=met.lookups,
        listed=met.listed,
        unlisted=met.unlisted,
        out_of_grid=outside if plan.grid is not None else 0,
        no_grid=outside if plan.grid is None else 0,
        zero_f=met.zero,
        sum_f=met.sum_f,
        bounds=(h, k, l),
    )


def _fast_band(plan: Plan, found: Layout, image: npt.NDArray[np.float32], detail: FloatArray) -> _Band:
    slow0, _, fast0, fast1 = plan.roi
    redo_band = _exact_band(plan, image, detail)

    def call(
        first: int,
        last: int,
        table: FloatArray,
        bounds: FloatArray,
        outcomes: npt.NDArray[np.int64],
        target: npt.NDArray[np.float32],
        redo: npt.NDArray[np.uint8],
        report: FloatArray,
    ) -> tuple[int, float]:
        return numba_fast.band(
            first,
            last,
            fast0,
            fast1,
            plan.oversample,
            plan.pixel_m,
            plan.close_distance,
            found.series,
            plan.origin,
            plan.fast_axis,
            plan.slow_axis,
            found.polar_lines,
            plan.polarisation,
            plan.scale,
            found.lines,
            table,
            found.strides,
            found.small,
            found.shape,
            found.tie,
            found.dim,
            found.margins,
            bounds,
            outcomes,
            target,
            redo,
            report,
        )

    def band(first: int, last: int, bounds: FloatArray) -> _Met:
        redo = np.zeros((last - first, plan.columns), dtype=np.uint8)
        outcomes = np.zeros(2, dtype=np.int64)
        rows = image[first - slow0 : last - slow0]
        marked, sum_f = call(first, last, found.table, bounds, outcomes, rows, redo, detail)
        apart = int(np.count_nonzero(redo == numba_fast.ALL_AGAIN)) if marked else 0
        lookups = (redo.size - apart) * plan.steps
        listed, unlisted = (int(n) for n in outcomes)
        zero = lookups - listed if plan.default_f == 0 else 0
        if found.zeros is not None:
            # A listed 0 is rare, and a third outcome would cost every lookup: then the same loop runs once more.
            outcomes[:] = 0
            call(first, last, found.zeros, bounds, outcomes, np.empty_like(rows), redo.copy(), np.empty(0))
            zero += int(outcomes[0])
        # What stands for 0 in the table is no part of a sum of zeros.
        met = _Met(listed, unlisted, zero, lookups, sum_f if sum_f > numba_fast.NONE_AT_ALL**0.5 else 0.0)
        return met + redo_band(first, last, bounds, redo) if marked else met

    return band


def _exact_band(plan: Plan, image: npt.NDArray[np.float32], detail: FloatArray) -> Callable[..., _Met]:
    slow0, _, fast0, fast1 = plan.roi
    axes = polar_axes(plan)
    cells = np.array(plan.cells, dtype=np.int64)
    grid = plan.grid
    values = np.zeros((1, 1, 1)) if grid is None else np.ascontiguousarray(grid.values)
    named = np.zeros((1, 1, 1), dtype=np.bool_) if grid is None else np.ascontiguousarray(grid.listed)
    minima = np.array([0, 0, 0] if grid is None else [grid.hmin, grid.kmin, grid.lmin], dtype=np.int64)

    def band(first: int, last: int, bounds: FloatArray, redo: npt.NDArray[np.uint8] = _EVERY) -> _Met:
        outcomes = np.zeros(4, dtype=np.int64)
        sum_f = numba_exact.band(
            first,
            last,
            fast0,
            fast1,
            plan.oversample,
            plan.pixel_m,
            plan.pixel_m**2,
            plan.close_distance,
            plan.origin,
            plan.fast_axis,
            plan.slow_axis,
            plan.sources,
            plan.wavelengths_m,
            plan.orientations,
            axes,
            plan.polarisation,
            plan.scale,
            values,
            named,
            minima,
            grid is not None,
            plan.default_f,
            plan.interpolate,
            _SHAPES[plan.shape],
            cells,
            plan.fudge,
            plan.reciprocal,
            bounds,
            outcomes,
            image[first - slow0 : last - slow0],
            redo,
            detail,
        )
        listed, unlisted, zero, lookups = (int(n) for n in outcomes)
        return _Met(listed, unlisted, zero, lookups, sum_f)

    return band


# No pixel is marked: every one is computed.
_EVERY = np.empty((0, 0), dtype=np.uint8)
