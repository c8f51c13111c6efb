"""Known-bad simulations: each is the oracle with one rule of the definition replaced.

0.999 correlation passes most of them. Each is wrong in its own way, and has to be caught for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from jobs.parity import verdict
from jobs.parity.adapter import Array, Cell, Given, Mutant
from jobs.parity.kernels.fcell import TINY, reference, taken
from jobs.parity.kernels.fcell_cases import TIED_PIXEL
from jobs.parity.words import Verdict
from kernels.fcell import Experiment, Grid, build_plan, geometry
from kernels.fcell.oracle import RULES, Rules, every_sample, simulate, sub_pixel


def ties_to_even(experiment: Experiment, grid: Grid | None) -> Array:
    """`round` where the definition says ceil(x - 0.5): 11.5 goes to 12."""
    return _ruled(experiment, grid, replace(RULES, nearest=np.rint))


def samples_corners(experiment: Experiment, grid: Grid | None) -> Array:
    """Sub-pixels sampled at their corners, not at their middles."""
    return _ruled(experiment, grid, replace(RULES, places=lambda n: np.arange(n, dtype=np.float64)))


def one_sample_of_four(experiment: Experiment, grid: Grid | None) -> Array:
    """Only the first sub-pixel is added up; the steps count all of them."""
    return _ruled(experiment, grid, replace(RULES, samples=lambda n: [(0, 0)]))


def omega_of_each(experiment: Experiment, grid: Grid | None) -> Array:
    """Every sub-pixel weighs with its own solid angle, not with the first one's."""
    return _ruled(experiment, grid, replace(RULES, omega_each=True))


def float32_q(experiment: Experiment, grid: Grid | None) -> Array:
    """h, k, l from a scattering vector in single precision."""
    return _ruled(experiment, grid, replace(RULES, momentum=lambda q: q.astype(np.float32).astype(np.float64)))


def never_reads_the_grid(experiment: Experiment, grid: Grid | None) -> Array:
    """Every branch returns default_F, as the seed's tap of the structure factors did."""
    return _ruled(experiment, None, RULES)


def all_zero(experiment: Experiment, grid: Grid | None) -> Array:
    """Nothing, of the right shape."""
    return np.zeros((experiment.detector.slow, experiment.detector.fast), dtype=np.float32)


SPOILED: dict[str, Callable[[Experiment, Grid | None], Array]] = {
    "ties-to-even": ties_to_even,
    "samples-corners": samples_corners,
    "one-sample-of-four": one_sample_of_four,
    "omega-of-each": omega_of_each,
    "float32-q": float32_q,
    "never-reads-the-grid": never_reads_the_grid,
    "all-zero": all_zero,
}


def mutants(plain: Cell, tie: Cell) -> Mapping[str, Mutant]:
    """All of them: at a plain frame with a grid, and at one of which a pixel lies between two cells."""
    found = (
        Mutant("ties-to-even", 0, "wrong only where two cells are equally near", _tie, (tie,)),
        Mutant("samples-corners", 0, "right for a detector moved by half a sub-pixel", _corner, (plain,)),
        Mutant("one-sample-of-four", 0, "a part of the truth everywhere, a quarter in all", _part, (plain,)),
        Mutant("omega-of-each", 0, "wrong by the solid angles within a pixel", _omega, (plain,)),
        Mutant("float32-q", 0, "right to the eye, wrong in dim pixels", _dim, (plain,)),
        Mutant("never-reads-the-grid", 0, "right for default_F alone", _no_grid, (plain,)),
        Mutant("all-zero", 0, "nothing but zeros", _nothing, (plain,)),
    )
    return {m.name: m for m in found}


# What each bug does to a result.


def _tie(given: Given, values: Array, tolerance: float) -> bool:
    wrong = _wrong(given, values, tolerance)
    return bool(wrong[TIED_PIXEL]) and int(np.count_nonzero(wrong)) == 1


def _corner(given: Given, values: Array, tolerance: float) -> bool:
    experiment, grid = taken(given.inputs)
    d = experiment.detector
    x, y = (1e3 * v for v in geometry.centre(d))
    half = d.pixel_mm / d.oversample / 2
    moved = replace(experiment, detector=replace(d, centre_mm=(x + half, y + half)))
    return _passes(moved, grid, values, tolerance)


def _part(given: Given, values: Array, tolerance: float) -> bool:
    right = given.reference.values
    return bool((values <= right * (1 + tolerance)).all()) and 0.1 < float(values.sum() / right.sum()) < 0.6


def _omega(given: Given, values: Array, tolerance: float) -> bool:
    # Σ ω_s·I_s over ω_0·Σ I_s lies between the least and the greatest ω_s/ω_0 of its pixel, whatever the I_s are.
    plan = build_plan(*taken(given.inputs))
    rows, columns = range(plan.slow), range(plan.fast)
    omegas = np.stack([sub_pixel(plan, RULES, rows, columns, *s).omega for s in every_sample(plan.oversample)])
    ratio, bounds = values / np.maximum(given.reference.values, TINY), omegas / omegas[0]
    inside = (ratio >= bounds.min(axis=0) * (1 - tolerance)) & (ratio <= bounds.max(axis=0) * (1 + tolerance))
    dark = given.reference.values <= TINY
    return bool((inside | dark).all() and _wrong(given, values, tolerance).any())


def _dim(given: Given, values: Array, tolerance: float) -> bool:
    error, right = np.abs(values - given.reference.values), given.reference.values
    bright = error.max() < 1e-4 * right.max()
    return bool(bright and (error / given.reference.scale)[right < np.median(right)].max() > 3 * tolerance)


def _no_grid(given: Given, values: Array, tolerance: float) -> bool:
    experiment, _ = taken(given.inputs)
    return _passes(experiment, None, values, tolerance)


def _nothing(given: Given, values: Array, tolerance: float) -> bool:
    return values.shape == given.reference.values.shape and not np.any(values)


def _passes(experiment: Experiment, grid: Grid | None, values: Array, tolerance: float) -> bool:
    other, _ = reference(experiment, grid)
    return verdict.judge(replace(other, sum_limit=None), values, tolerance).verdict is Verdict.PASS


def _wrong(given: Given, values: Array, tolerance: float) -> Array:
    error = np.abs(values.astype(np.float64) - given.reference.values)
    return np.asarray(~(error <= tolerance * given.reference.scale))


def _ruled(experiment: Experiment, grid: Grid | None, rules: Rules) -> Array:
    image = simulate(build_plan(experiment, grid), rules).image64
    assert image is not None
    return image.astype(np.float32)
