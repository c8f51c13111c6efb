"""From an experiment to the raw numbers of the loops, and what every backend hands back.

All physics that does not depend on the pixel is done here, once, in float64: a backend only loops. So no two
backends can differ in the geometry, the rotations or the scale, and the oracle's own intermediate numbers
mean the same as theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.fcell import geometry, mosaic
from kernels.fcell.types import Experiment, FcellRefused, FloatArray, Grid, Roi, Shape

R_E_SQUARED = 7.94079248018965e-30
"""The square of the classical electron radius, m²."""

MAX_INDEX = 1 << 31
"""Of h, k and l: up to here a double still tells a tenth of a millionth of a cell."""

Bounds = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Plan:
    """What a backend needs, as raw numbers. All vectors are in the laboratory frame, in metres.

    The pixel (slow s, fast f) has os² sub-pixels, slow outer; the centre of (i_s, i_f) is at
        P = origin + (pixel_m/os)·((f·os + i_f + ½)·fast_axis + (s·os + i_s + ½)·slow_axis)
    and for every source and orientation, with d = P/|P|:
        q = (d - source)/wavelength,  (h, k, l) = orientation @ q
        I += F(h, k, l)² · F_latt(h - h0, k - k0, l - l0)²
        pixel = I · scale · polar · omega,  omega = (pixel_m²/R²)·(close_distance/R)
    where omega and polar are those of sub-pixel (0, 0), and polar of source 0 besides.

    Attributes:
        slow, fast: pixels of the whole detector; `roi` is the part to compute, half-open.
        orientations: (T, 3, 3), rows a, b, c in metres; T = phisteps · mosaic domains, phi outer.
        sources: (S, 3) unit vectors the rays travel along; wavelengths_m: (S,).
        cells: (Na, Nb, Nc).
        reciprocal: (3, 3), rows a*, b*, c* in 1/Å of the unrotated crystal. Only lengths of differences are
            taken from it (GAUSS, TOPHAT), and those no rotation changes.
        grid: its unlisted cells hold default_f. None: every lookup is default_f.
        scale: r_e² · fluence / steps.
        polar_axis: unit vector of the E field.
        steps: sources · mosaic domains · phisteps · os², which is the lookups of one pixel.
    """

    slow: int
    fast: int
    roi: Roi
    oversample: int
    pixel_m: float
    origin: FloatArray
    fast_axis: FloatArray
    slow_axis: FloatArray
    normal: FloatArray
    close_distance: float
    orientations: FloatArray
    sources: FloatArray
    wavelengths_m: FloatArray
    cells: tuple[int, int, int]
    shape: Shape
    fudge: float
    reciprocal: FloatArray
    grid: Grid | None
    default_f: float
    interpolate: bool
    fluence: float
    scale: float
    polarisation: float
    polar_axis: FloatArray
    steps: int

    @property
    def brightest(self) -> float:
        """A bound that no pixel exceeds: every lookup the greatest F, on the lattice, straight ahead."""
        greatest = self.default_f if self.grid is None else max(self.default_f, float(self.grid.values.max()))
        # A cubic overshoots by at most 1.25 on each axis: the greatest sum of its four weights' sizes.
        amplitude = greatest * math.prod(self.cells) * (1.25**3 if self.interpolate else 1.0)
        # Products, not powers: a float's power raises where its product is infinite, and infinite is an answer.
        angle = self.pixel_m / self.close_distance
        return self.scale * self.steps * amplitude * amplitude * angle * angle

    @property
    def rows(self) -> int:
        """Rows of the ROI."""
        return self.roi[1] - self.roi[0]

    @property
    def columns(self) -> int:
        """Columns of the ROI."""
        return self.roi[3] - self.roi[2]


@dataclass(frozen=True)
class Counts:
    """What the lookups met. listed + unlisted + out_of_grid + no_grid = lookups.

    Attributes:
        lookups: how many there were.
        listed, unlisted: nearest cell inside the grid's extents, named by the file or not.
        out_of_grid: nearest cell outside them; no_grid: there is no grid.
        zero_f: lookups whose structure factor is exactly 0, whatever the outcome.
        sum_f: sum of the structure factors.
        bounds: least and greatest (h, k, l) of the nearest cells.
    """

    lookups: int
    listed: int
    unlisted: int
    out_of_grid: int
    no_grid: int
    zero_f: int
    sum_f: float
    bounds: Bounds

    @property
    def mean_f(self) -> float:
        return self.sum_f / self.lookups

    def __add__(self, other: Counts) -> Counts:
        h, k, l = (  # noqa: E741
            (min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(self.bounds, other.bounds, strict=True)
        )
        return Counts(
            lookups=self.lookups + other.lookups,
            listed=self.listed + other.listed,
            unlisted=self.unlisted + other.unlisted,
            out_of_grid=self.out_of_grid + other.out_of_grid,
            no_grid=self.no_grid + other.no_grid,
            zero_f=self.zero_f + other.zero_f,
            sum_f=self.sum_f + other.sum_f,
            bounds=(h, k, l),
        )


@dataclass(frozen=True, eq=False)
class Simulation:
    """An image of the ROI, what its lookups met, and the oracle's image before it was rounded to float32."""

    image: npt.NDArray[np.float32]
    counts: Counts
    image64: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class Probe:
    """One pixel as a backend saw it, from its own code path: what the taps are made of.

    Attributes:
        omegas: (os, os) solid angle of each sub-pixel; omega, polar: those that were used.
        intensity: I = Σ F²·F_latt² before anything is multiplied.
        normalised: I / steps · polar · omega; physical: r_e² · fluence times that; final: as float32.
    """

    omegas: FloatArray
    counts: Counts
    intensity: float
    steps: int
    polar: float
    omega: float
    normalised: float
    physical: float
    final: float


def build_plan(experiment: Experiment, grid: Grid | None = None, roi: Roi | None = None) -> Plan:
    """The raw numbers of one experiment; `roi` is the whole detector if not given.

    Raises:
        FcellRefused: the ROI is empty or outside the detector, or indices would have no digits after the point.
    """
    _check_kinds(experiment, grid)
    crystal, beam, detector = experiment.crystal, experiment.beam, experiment.detector
    frame = geometry.frame(detector)
    real = geometry.real_vectors(crystal)
    domains = mosaic.rotations(crystal.mosaic_spread_deg, crystal.mosaic_domains, crystal.mosaic_seed)
    turns = geometry.spindle_rotations(experiment.goniometer)
    # (phi, domain) -> U·R(phi)·a0 for each of the three vectors, which are the rows.
    orientations = np.einsum("mxy,pyz,iz->pmix", domains, turns, real).reshape(-1, 3, 3) * 1e-10
    directions, wavelengths = geometry.sources(beam)
    # |q| is at most 2/λ. F_latt is made of what is behind the point of h, and a double has 16 digits in all.
    furthest = 2 * float(np.sqrt((real * real).sum(axis=1)).max()) * 1e-10 / float(wavelengths.min())
    if furthest > MAX_INDEX:
        raise FcellRefused(
            f"h, k or l could reach {furthest:.3g}, and beyond {MAX_INDEX} they have no digits left behind the point: "
            "check the wavelength and the cell"
        )
    steps = len(directions) * len(orientations) * detector.oversample**2
    return Plan(
        slow=detector.slow,
        fast=detector.fast,
        roi=_roi(detector.slow, detector.fast, roi),
        oversample=detector.oversample,
        pixel_m=frame.pixel_m,
        origin=frame.origin,
        fast_axis=frame.fast,
        slow_axis=frame.slow,
        normal=frame.normal,
        close_distance=frame.close_distance,
        orientations=np.ascontiguousarray(orientations),
        sources=directions,
        wavelengths_m=wavelengths,
        cells=crystal.cells,
        shape=crystal.shape,
        fudge=crystal.fudge,
        reciprocal=geometry.reciprocal_vectors(crystal.cell),
        grid=None if grid is None else grid.with_default(crystal.default_f),
        default_f=crystal.default_f,
        interpolate=experiment.interpolate,
        fluence=beam.fluence,
        scale=R_E_SQUARED * beam.fluence / steps,
        polarisation=beam.polarisation,
        polar_axis=geometry.POLAR_AXIS.copy(),
        steps=steps,
    )


def one_pixel(plan: Plan, slow: int, fast: int) -> Roi:
    """The ROI that is this pixel.

    Raises:
        FcellRefused: it is not on the detector.
    """
    if not (0 <= slow < plan.slow and 0 <= fast < plan.fast):
        raise FcellRefused(f"pixel ({slow}, {fast}) is outside the detector of {plan.slow} × {plan.fast} pixels")
    return (slow, slow + 1, fast, fast + 1)


def _check_kinds(experiment: object, grid: object) -> None:
    wrong = experiment if not isinstance(experiment, Experiment) else grid
    if not isinstance(wrong, Grid | None) or not isinstance(experiment, Experiment):
        raise FcellRefused(f"an F_cell simulation needs an Experiment and a Grid or None, not {type(wrong).__name__}")


def _roi(slow: int, fast: int, roi: Roi | None) -> Roi:
    if roi is None:
        return (0, slow, 0, fast)
    if (
        not isinstance(roi, Sequence | np.ndarray)
        or len(roi) != 4
        or not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in roi)
    ):
        raise FcellRefused(f"a roi is four whole numbers (slow0, slow1, fast0, fast1), half-open, not {roi!r}")
    slow0, slow1, fast0, fast1 = (int(n) for n in roi)
    if not (0 <= slow0 < slow1 <= slow and 0 <= fast0 < fast1 <= fast):
        raise FcellRefused(
            f"the roi {(slow0, slow1, fast0, fast1)} is empty or outside the detector of {slow} × {fast} pixels: "
            "it is (slow0, slow1, fast0, fast1), half-open"
        )
    return (slow0, slow1, fast0, fast1)
