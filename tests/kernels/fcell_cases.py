"""Small experiments and a grid with all four outcomes, shared by the tests of the F_cell kernel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kernels.fcell import Beam, Counts, Crystal, Detector, Experiment, Goniometer, Grid, Shape, Simulation, Source

TRICLINIC = (18.0, 21.0, 24.0, 75.0, 85.0, 98.0)


def small_grid(default_f: float = 30.0) -> Grid:
    """Listed, listed with 0, unlisted, and small enough for lookups outside; listed up to every extent."""
    h, k, l = np.meshgrid(np.arange(-3, 3), np.arange(-5, 6), np.arange(-6, 5), indexing="ij")  # noqa: E741
    values = np.round(20.0 + 15.0 * np.sin(1.7 * h + 0.9 * k * k - 0.4 * l * h) + 3.0 * l, 2) + 40.0
    values[(h + 2 * k + 3 * l) % 11 == 0] = 0.0
    listed = (h * h + 3 * k + 5 * l) % 7 != 3
    listed[0, 0, 0] = listed[-1, -1, -1] = True
    return Grid(np.where(listed, values, default_f), listed, -3, -5, -6, default_f)


def experiment(
    shape: Shape = Shape.SQUARE,
    cells: tuple[int, int, int] = (5, 5, 5),
    *,
    cell: tuple[float, float, float, float, float, float] = (20.0, 20.0, 20.0, 90.0, 90.0, 90.0),
    oversample: int = 2,
    interpolate: bool = False,
    default_f: float = 30.0,
) -> Experiment:
    """One orientation and one source; 36 × 44 pixels of 3 mm at 100 mm."""
    return Experiment(
        Crystal(cell, cells, shape, default_f=default_f),
        Beam(1.0),
        Detector(36, 44, 3.0, 100.0, oversample),
        interpolate=interpolate,
    )


def everything(shape: Shape = Shape.SQUARE, *, interpolate: bool = False) -> Experiment:
    """Triclinic, N = (5, 7, 9), spindle, mosaic, sources, polarisation, misset, off centre."""
    base = experiment(shape, (5, 7, 9), cell=TRICLINIC, interpolate=interpolate)
    return replace(
        base,
        crystal=replace(base.crystal, mosaic_spread_deg=0.5, mosaic_domains=3, misset_deg=(3.0, -8.0, 21.0), fudge=0.9),
        beam=Beam(1.0, polarisation=0.6, sources=(Source((2.0, 0.002, 0.001), 1.0), Source((1.0, 0.0, -0.002), 1.03))),
        detector=replace(base.detector, centre_mm=(40.0, 71.3)),
        goniometer=Goniometer(12.0, 1.5, 2),
    )


def worst(simulation: Simulation, oracle: Simulation) -> float:
    """The greatest relative error of all pixels.

    Below the least normal float32, where a float32 image has no digits left, errors are relative to that number:
    GAUSS goes down to 1e-300 between its spots.
    """
    assert oracle.image64 is not None
    found, right = simulation.image.astype(np.float64), oracle.image64
    relative = np.abs(found - right) / np.maximum(np.abs(right), np.finfo(np.float32).tiny)
    return float(np.where(np.isnan(relative), np.inf, relative).max())


def whole(counts: Counts) -> Counts:
    """The counts without the one number that is a sum of floats."""
    return replace(counts, sum_f=0.0)
