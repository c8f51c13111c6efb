"""What is simulated: crystal, beam, detector, goniometer and the grid of structure factors.

Everything is checked where it is made, in one sentence, so that nothing below has to ask again. Units are in
the names: `_a` is Å, `_mm` millimetres, `_deg` degrees. The laboratory frame is MOSFLM's: beam along x,
detector fast axis and spindle along z, slow axis along -y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kernels.devices import KernelRefused

FloatArray = npt.NDArray[np.float64]
Roi = tuple[int, int, int, int]
Vector = tuple[float, float, float]

FLUENCE = 1.25932015286227086e29
"""Photons per square metre: the default of the C program."""

MOSAIC_SEED = -12345678

# A dense grid of this many cells takes 2.25 GiB; a file that asks for more has a wrong index in it.
MAX_CELLS = 1 << 28

# Å and mm beyond these are mistakes, and their squares and quotients would leave the range of floating point.
LEAST_LENGTH, GREATEST_LENGTH = 1e-9, 1e9

# The unit cells of a domain are multiplied as whole numbers and as doubles, and shall be the same in both.
MAX_DOMAIN = 1 << 53


class FcellRefused(KernelRefused):
    """The experiment cannot be simulated; nothing was computed."""


class Shape(StrEnum):
    """The shape of the crystal, which gives the shape of its spots."""

    SQUARE = "square"
    ROUND = "round"
    GAUSS = "gauss"
    TOPHAT = "tophat"


class Source(NamedTuple):
    """One point of the source: the direction its rays travel in (any length but 0), and their wavelength."""

    direction: Vector
    wavelength_a: float


@dataclass(frozen=True)
class Crystal:
    """A mosaic crystal of one kind of cell.

    Attributes:
        cell: a, b, c in Å and alpha, beta, gamma in degrees; any triclinic cell.
        cells: unit cells along a, b and c of one mosaic domain.
        shape: its outer shape; `fudge` scales the spots of every shape but SQUARE.
        default_f: the structure factor of every cell that no file lists.
        misset_deg: rotations about x, then y, then z, before the spindle turns.
        mosaic_spread_deg: the greatest misorientation of a domain.
        mosaic_domains: how many domains; the first is never misoriented.
        mosaic_seed: negative; the generator starts from -mosaic_seed.

    Raises:
        FcellRefused: a number that is not finite or out of its range, or a cell without volume.
    """

    cell: tuple[float, float, float, float, float, float]
    cells: tuple[int, int, int]
    shape: Shape = Shape.SQUARE
    fudge: float = 1.0
    default_f: float = 0.0
    misset_deg: Vector = (0.0, 0.0, 0.0)
    mosaic_spread_deg: float = 0.0
    mosaic_domains: int = 1
    mosaic_seed: int = MOSAIC_SEED

    def __post_init__(self) -> None:
        _put(self, "cell", _floats("the unit cell (a, b, c, alpha, beta, gamma)", self.cell, 6))
        if not isinstance(self.cells, Sequence | np.ndarray) or len(self.cells) != 3:
            raise FcellRefused(f"cells must be three counts (Na, Nb, Nc), not {self.cells!r}")
        _put(self, "cells", tuple(_count(f"cells along {n}", v) for n, v in zip("abc", self.cells, strict=True)))
        if math.prod(self.cells) > MAX_DOMAIN:
            raise FcellRefused(f"cells are {self.cells}, and a domain has {MAX_DOMAIN} unit cells at most")
        if self.shape not in tuple(Shape):
            raise FcellRefused(f"no crystal shape is called {self.shape!r}: there are {', '.join(Shape)}")
        _put(self, "shape", Shape(self.shape))
        _put(self, "fudge", _positive("fudge", self.fudge))
        _put(self, "default_f", _not_negative("default_f", self.default_f))
        _put(self, "misset_deg", _floats("misset_deg", self.misset_deg, 3))
        _put(self, "mosaic_spread_deg", _not_negative("mosaic_spread_deg", self.mosaic_spread_deg))
        _put(self, "mosaic_domains", _count("mosaic_domains", self.mosaic_domains))
        _put(self, "mosaic_seed", _whole("mosaic_seed", self.mosaic_seed))
        # Every seed that is not negative would start the generator from 1, and be the same crystal.
        if not -(2**31 - 1) < self.mosaic_seed < 0:
            raise FcellRefused(f"mosaic_seed must be between -2147483646 and -1, not {self.mosaic_seed}")
        _check_cell(self.cell)


@dataclass(frozen=True)
class Beam:
    """Monochromatic along x, or a list of sources.

    Attributes:
        wavelength_a: of the one source along the beam; with `sources`, each has its own and this is not used.
        fluence: photons per square metre, over all sources.
        polarisation: Kahn's factor K, -1 to 1; the axis is z.
        sources: equal in weight; none means one along the beam.
    """

    wavelength_a: float
    fluence: float = FLUENCE
    polarisation: float = 0.0
    sources: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        _put(self, "wavelength_a", _length("wavelength_a", self.wavelength_a))
        _put(self, "fluence", _positive("fluence", self.fluence))
        _put(self, "polarisation", _floats("polarisation", (self.polarisation,), 1)[0])
        if not -1 <= self.polarisation <= 1:
            raise FcellRefused(f"polarisation is Kahn's factor, from -1 to 1, not {self.polarisation:g}")
        if not isinstance(self.sources, Sequence):
            raise FcellRefused(f"sources must be a list of (direction, wavelength_a), not {self.sources!r}")
        found = tuple(_source(n, source) for n, source in enumerate(self.sources))
        _put(self, "sources", found)
        if self.polarisation and found and found[0].direction[:2] == (0.0, 0.0):
            raise FcellRefused("source 0 travels along the polarisation axis z, so its polarisation is not defined")


@dataclass(frozen=True)
class Detector:
    """A flat detector square to the beam, turned about the point where the beam meets it.

    Attributes:
        slow, fast: pixels along each axis.
        oversample: sub-pixels along each axis of a pixel.
        centre_mm: (Xbeam, Ybeam), where the beam meets the detector, X along slow and Y along fast; the middle
            of the detector plus half a pixel if not given.
    """

    slow: int
    fast: int
    pixel_mm: float
    distance_mm: float
    oversample: int = 1
    centre_mm: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("slow", "fast", "oversample"):
            _put(self, name, _count(name, getattr(self, name)))
        _put(self, "pixel_mm", _length("pixel_mm", self.pixel_mm))
        _put(self, "distance_mm", _length("distance_mm", self.distance_mm))
        if self.centre_mm is not None:
            _put(self, "centre_mm", _floats("centre_mm (Xbeam, Ybeam)", self.centre_mm, 2))
            if max(map(abs, self.centre_mm)) > GREATEST_LENGTH:
                raise FcellRefused(f"centre_mm must be within {GREATEST_LENGTH:g} mm, not {self.centre_mm}")


@dataclass(frozen=True)
class Goniometer:
    """Rotation about the spindle z: phi0 + n·osc/phisteps, right-handed."""

    phi0_deg: float = 0.0
    osc_deg: float = 0.0
    phisteps: int = 1

    def __post_init__(self) -> None:
        _put(self, "phi0_deg", _floats("phi0_deg", (self.phi0_deg,), 1)[0])
        _put(self, "osc_deg", _floats("osc_deg", (self.osc_deg,), 1)[0])
        _put(self, "phisteps", _count("phisteps", self.phisteps))


@dataclass(frozen=True)
class Experiment:
    """One image to simulate; `interpolate` asks for the tricubic lookup instead of the nearest cell."""

    crystal: Crystal
    beam: Beam
    detector: Detector
    goniometer: Goniometer = field(default_factory=Goniometer)
    interpolate: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("crystal", Crystal), ("beam", Beam), ("detector", Detector), ("goniometer", Goniometer)):
            if not isinstance(getattr(self, name), kind):
                raise FcellRefused(f"{name} must be a {kind.__name__}, not {getattr(self, name)!r}")
        if not isinstance(self.interpolate, bool):
            raise FcellRefused(f"interpolate must be true or false, not {self.interpolate!r}")


@dataclass(frozen=True, eq=False)
class Grid:
    """Structure factors on a dense grid of whole indices, and which of them a file listed.

    Attributes:
        values: float64 (nh, nk, nl), not negative; `default_f` where nothing is listed.
        listed: bool, the same shape.
        hmin, kmin, lmin: the indices of values[0, 0, 0].
        default_f: what unlisted cells hold. `plan.build_plan` refills them with the crystal's default_f, which
            is the one that counts.

    Raises:
        FcellRefused: shapes differ, nothing is listed, or a value is negative or not finite.
    """

    values: FloatArray
    listed: npt.NDArray[np.bool_]
    hmin: int
    kmin: int
    lmin: int
    default_f: float = 0.0

    def __post_init__(self) -> None:
        if not (isinstance(self.values, np.ndarray) and isinstance(self.listed, np.ndarray)):
            raise FcellRefused("a grid needs values and listed as NumPy arrays (nh, nk, nl)")
        if self.values.ndim != 3 or self.values.shape != self.listed.shape:
            raise FcellRefused(
                f"a grid needs values and listed of one shape (nh, nk, nl), not {self.values.shape} and "
                f"{self.listed.shape}"
            )
        if self.values.dtype != np.float64 or self.listed.dtype != np.bool_:
            raise FcellRefused(
                f"a grid needs float64 values and bool listed, not {self.values.dtype} and {self.listed.dtype}"
            )
        if not self.listed.any():
            raise FcellRefused("the grid is empty: it lists no structure factor; pass no grid to use default_f alone")
        for name in ("hmin", "kmin", "lmin"):
            _put(self, name, _whole(name, getattr(self, name)))
            if abs(getattr(self, name)) > MAX_CELLS:
                raise FcellRefused(f"{name} is {getattr(self, name)}, and no grid reaches beyond {MAX_CELLS}")
        _put(self, "default_f", _not_negative("default_f", self.default_f))
        bad = ~(np.isfinite(self.values) & (self.values >= 0))
        if bad.any():
            h, k, l = (int(n) for n in np.argwhere(bad)[0])  # noqa: E741
            raise FcellRefused(
                f"the structure factor of ({h + self.hmin}, {k + self.kmin}, {l + self.lmin}) is "
                f"{self.values[h, k, l]:g}: it must be finite and not negative"
            )

    @property
    def count(self) -> int:
        """How many cells are listed."""
        return int(np.count_nonzero(self.listed))

    @property
    def bounds(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """(hmin, hmax), (kmin, kmax), (lmin, lmax), all inclusive."""
        nh, nk, nl = self.values.shape
        return (
            (self.hmin, self.hmin + nh - 1),
            (self.kmin, self.kmin + nk - 1),
            (self.lmin, self.lmin + nl - 1),
        )

    def with_default(self, default_f: float) -> Grid:
        """The same grid with another value in its unlisted cells."""
        if default_f == self.default_f and bool((self.values[~self.listed] == default_f).all()):
            return self
        values = np.where(self.listed, self.values, default_f)
        return Grid(values, self.listed, self.hmin, self.kmin, self.lmin, default_f)


def _put(owner: Any, name: str, value: Any) -> None:
    # The field keeps its plain type (float, int, tuple), whatever NumPy scalar or list was passed.
    object.__setattr__(owner, name, value)


def _floats(name: str, values: Sequence[Any], count: int) -> tuple[float, ...]:
    try:
        found = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        raise FcellRefused(f"{name} must be {_numbers(count)}, not {values!r}") from None
    if len(found) != count:
        raise FcellRefused(f"{name} must be {_numbers(count)}, not {len(found)}")
    if not all(math.isfinite(v) for v in found):
        raise FcellRefused(f"{name} must be finite, not {found[0] if count == 1 else found}")
    return found


def _numbers(count: int) -> str:
    return "a number" if count == 1 else f"{count} numbers"


def _positive(name: str, value: Any) -> float:
    found = _floats(name, (value,), 1)[0]
    if found <= 0:
        raise FcellRefused(f"{name} must be greater than 0, not {found:g}")
    return found


def _length(name: str, value: Any) -> float:
    found = _positive(name, value)
    if not LEAST_LENGTH <= found <= GREATEST_LENGTH:
        raise FcellRefused(f"{name} must be between {LEAST_LENGTH:g} and {GREATEST_LENGTH:g}, not {found:g}")
    return found


def _not_negative(name: str, value: Any) -> float:
    found = _floats(name, (value,), 1)[0]
    if found < 0:
        raise FcellRefused(f"{name} must not be negative, and it is {found:g}")
    return found + 0.0  # -0.0 would be another digest of the same input


def _whole(name: str, value: Any) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise FcellRefused(f"{name} must be a whole number, not {value!r}")
    return int(value)


def _count(name: str, value: Any) -> int:
    found = _whole(name, value)
    if found < 1:
        raise FcellRefused(f"{name} must be at least 1, not {found}")
    return found


def _source(number: int, source: Any) -> Source:
    try:
        direction, wavelength = source
    except (TypeError, ValueError):
        raise FcellRefused(f"source {number} must be (direction, wavelength_a), not {source!r}") from None
    x, y, z = _floats(f"the direction of source {number}", direction, 3)
    if not math.hypot(x, y, z) > 0:
        raise FcellRefused(f"source {number} has no direction: its vector is 0")
    return Source((x, y, z), _length(f"the wavelength of source {number}", wavelength))


def _check_cell(cell: tuple[float, ...]) -> None:
    lengths, angles = cell[:3], cell[3:]
    if min(lengths) <= 0:
        raise FcellRefused(f"the edges of the unit cell must be greater than 0 Å, not {lengths}")
    for name, length in zip("abc", lengths, strict=True):
        _length(f"edge {name} of the unit cell", length)
    if not all(0 < angle < 180 for angle in angles):
        raise FcellRefused(f"the angles of the unit cell must be between 0 and 180 degrees, not {angles}")
    ca, cb, cg = (math.cos(math.radians(angle)) for angle in angles)
    if not 1 + 2 * ca * cb * cg - ca * ca - cb * cb - cg * cg > 1e-12:
        raise FcellRefused(f"the angles {angles} enclose no volume: no unit cell has them")
