"""What is simulated: experiments that each turn one thing on, and grids of structure factors of no crystal.

The crystal is small and near the detector, so that a frame of some thousand pixels sees about eighty reflections, meets
the edge of the grid, and has bright spots and pixels a billion times dimmer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from kernels.fcell import (
    Beam,
    Crystal,
    Detector,
    Experiment,
    FcellRefused,
    Goniometer,
    Grid,
    Shape,
    Source,
    build_plan,
)
from kernels.fcell.oracle import RULES, probe

if TYPE_CHECKING:
    from jobs.parity import Params

# 80 mm across at 100 mm: out to 2θ = 22°, so that h, k and l all run over several cells.
DISTANCE_MM, EDGE_MM = 100.0, 80.0
DEFAULT_F = 50.0
CUBIC = Crystal((20, 20, 20, 90, 90, 90), (5, 5, 5), default_f=DEFAULT_F)
TRICLINIC = Crystal((18, 21, 24, 82, 97, 104), (5, 7, 9), default_f=DEFAULT_F, misset_deg=(11, -23, 37))
BEAM = Beam(1.0)
SOURCES = (Source((1, 0, 0), 1.0), Source((1, 0.01, -0.02), 1.01), Source((1, -0.015, 0.01), 0.985))
TURNED = Goniometer(phi0_deg=12.0, osc_deg=3.0, phisteps=3)
# Extents of the grid that is made: the frame reaches beyond it on k and l.
BOUNDS = ((-6, 4), (-6, 6), (-5, 7))
TIED_PIXEL = (4, 4)
# A cell edge in wavelengths that is exactly halfway between an odd and an even index.
TIED = (11.5, 13.5, 15.5, 9.5, 7.5)


def matrix(params: Params, slow: int, fast: int) -> dict[str, tuple[Experiment, bool]]:
    """Case -> experiment, and whether it has a grid; each turns one thing on, the last one everything."""
    out: dict[str, tuple[Experiment, bool]] = {}
    for n in params.oversamples:
        plain = Experiment(CUBIC, BEAM, detector(slow, fast, n))
        out[f"default F ×{n}"] = plain, False
        out[f"grid ×{n}"] = plain, True
    most = detector(slow, fast, max(params.oversamples))
    for word in params.shapes:
        shape = Shape(word)
        if shape is not Shape.SQUARE:
            out[shape.value] = Experiment(dataclasses.replace(CUBIC, shape=shape), BEAM, most), True
    mosaic = dataclasses.replace(CUBIC, mosaic_spread_deg=0.4, mosaic_domains=4)
    whole = dataclasses.replace(TRICLINIC, mosaic_spread_deg=0.4, mosaic_domains=2)
    beam = Beam(1.0, sources=SOURCES, polarisation=0.9)
    out |= {
        "triclinic": (Experiment(TRICLINIC, BEAM, most), True),
        "phi": (Experiment(CUBIC, BEAM, most, TURNED), True),
        "mosaic": (Experiment(mosaic, BEAM, most), True),
        "sources": (Experiment(CUBIC, beam, most), True),
        "tricubic": (Experiment(CUBIC, BEAM, most, interpolate=True), True),
        "everything": (Experiment(whole, beam, most, TURNED, interpolate=True), True),
    }
    return out


def detector(slow: int, fast: int, oversample: int) -> Detector:
    return Detector(slow, fast, EDGE_MM / max(slow, fast), DISTANCE_MM, oversample)


def made_grid(seed: int) -> Grid:
    """Structure factors of no crystal: most indices listed, some of them 0."""
    rng = np.random.default_rng([seed, 3])
    size = tuple(high - low + 1 for low, high in BOUNDS)
    listed = rng.random(size) < 0.75
    listed[0, 0, 0] = listed[-1, -1, -1] = True  # so that the extents are those
    values = np.round(rng.gamma(1.5, 60.0, size), 2)
    values[rng.random(size) < 0.04] = 0.0
    hmin, kmin, lmin = (low for low, _ in BOUNDS)
    return Grid(np.where(listed, values, DEFAULT_F), listed, hmin, kmin, lmin, DEFAULT_F)


def tied() -> Experiment:
    """A frame of which one pixel lies exactly halfway between two cells, as the oracle computes it.

    The rays come in square to the beam, so that h of the pixel in the beam is the cell edge in wavelengths.

    Raises:
        FcellRefused: rounding is such that no edge of those tried is exactly halfway.
    """
    place = TIED_PIXEL
    flat = Detector(9, 9, 1.0, DISTANCE_MM, 1, centre_mm=(float(place[0]), float(place[1])))
    even = dataclasses.replace(RULES, nearest=np.rint)
    for edge in TIED:
        crystal = Crystal((edge, 20, 20, 90, 90, 90), (5, 5, 5), default_f=DEFAULT_F)
        experiment = Experiment(crystal, Beam(1.0, sources=(Source((0, 1, 0), 1.0),)), flat)
        plan = build_plan(experiment, tied_grid())
        if probe(plan, *place).final != probe(plan, *place, even).final:
            return experiment
    raise FcellRefused("no pixel could be put exactly halfway between two cells, so the rounding cannot be tried")


def tied_grid() -> Grid:
    """Neighbours along h never have the same structure factor."""
    h = np.arange(5, 19)
    values = np.broadcast_to((20.0 + 7.0 * (h % 5))[:, None, None], (len(h), 9, 9)).copy()
    return Grid(values, np.ones(values.shape, dtype=bool), 5, -24, -4, DEFAULT_F)


def plain() -> tuple[Experiment, Grid]:
    """What known-bad simulations are tried on; the same in every run, so that they are bad there for certain."""
    return Experiment(CUBIC, BEAM, detector(48, 36, 2)), made_grid(0)


def tie() -> tuple[Experiment, Grid]:
    """`tied` with its grid."""
    return tied(), tied_grid()


KNOWN: dict[str, Callable[[], tuple[Experiment, Grid]]] = {"plain": plain, "tie": tie}
