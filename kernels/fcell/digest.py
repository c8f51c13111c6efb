"""The effective input: what a simulation was really given, as text that any program can write, and its SHA-256.

Two programs that disagree about it cannot be compared, whatever their images look like. So both write it from
what they hold in memory when they start to compute (not from their command line), and the digests are compared
before any pixel is. The text is UTF-8, one key a line, in this order, every line ended by one newline:

    fcell-effective-input 1
    cell_a A B C                    Å              crystal edges
    cell_deg ALPHA BETA GAMMA       degrees
    cells NA NB NC                                 unit cells along each edge
    shape WORD                                     square, round, gauss or tophat
    fudge X
    misset_deg X Y Z                degrees
    mosaic SPREAD DOMAINS SEED      degrees, count, negative integer
    fluence X                       1/m²
    polarisation K
    source X Y Z WAVELENGTH         unit vector the rays travel along, Å; one line a source
    detector SLOW FAST OVERSAMPLE   pixels, sub-pixels along an edge
    pixel_mm X
    distance_mm X
    centre_mm XBEAM YBEAM           as used: the default written out
    phi_deg PHI0 OSC STEPS
    interpolate 0|1
    default_f X
    grid none                                      or
    grid HMIN HMAX KMIN KMAX LMIN LMAX             inclusive
    listed COUNT                                   cells with a value of their own; 0 without a grid
    listed_sum X                                   Σ F and
    listed_sum_squares X                           Σ F² over them

Words are separated by one space. Whole numbers are decimal. Components of unit vectors are `%.9f`, all other
numbers `%.9e` as C's printf writes them; a zero has no minus sign. Ten digits are few enough to forgive a
program that keeps metres where another keeps Å, and enough to tell any two inputs apart that matter.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from kernels.fcell import geometry
from kernels.fcell.plan import build_plan
from kernels.fcell.types import Experiment, Grid

HEADER = "fcell-effective-input"
VERSION = 1


@dataclass(frozen=True)
class EffectiveInput:
    """The text, its lines by key (`source` numbered), and the digest of the text."""

    text: str
    values: dict[str, str]
    sha256: str


def effective_input(experiment: Experiment, grid: Grid | None = None) -> EffectiveInput:
    """The effective input of `simulate(experiment, grid)`."""
    crystal, beam, detector, goniometer = (
        experiment.crystal,
        experiment.beam,
        experiment.detector,
        experiment.goniometer,
    )
    plan = build_plan(experiment, grid)
    x_beam, y_beam = geometry.centre(detector)
    lines = [
        f"{HEADER} {VERSION}",
        f"cell_a {_numbers(*crystal.cell[:3])}",
        f"cell_deg {_numbers(*crystal.cell[3:])}",
        f"cells {_whole(*crystal.cells)}",
        f"shape {crystal.shape.value}",
        f"fudge {_numbers(crystal.fudge)}",
        f"misset_deg {_numbers(*crystal.misset_deg)}",
        f"mosaic {_numbers(crystal.mosaic_spread_deg)} {_whole(crystal.mosaic_domains, crystal.mosaic_seed)}",
        f"fluence {_numbers(beam.fluence)}",
        f"polarisation {_numbers(beam.polarisation)}",
    ]
    for direction, wavelength in zip(plan.sources, plan.wavelengths_m, strict=True):
        lines.append(f"source {_unit(*direction)} {_numbers(wavelength * 1e10)}")
    lines += [
        f"detector {_whole(detector.slow, detector.fast, detector.oversample)}",
        f"pixel_mm {_numbers(detector.pixel_mm)}",
        f"distance_mm {_numbers(detector.distance_mm)}",
        f"centre_mm {_numbers(x_beam * 1e3, y_beam * 1e3)}",
        f"phi_deg {_numbers(goniometer.phi0_deg, goniometer.osc_deg)} {_whole(goniometer.phisteps)}",
        f"interpolate {int(experiment.interpolate)}",
        f"default_f {_numbers(crystal.default_f)}",
        *_grid(plan.grid),
    ]
    text = "".join(f"{line}\n" for line in lines)
    return EffectiveInput(text, parse(text), sha256(text))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def parse(text: str) -> dict[str, str]:
    """Line by line: key -> the rest. A key that comes again is numbered: source, source-2, ..."""
    found: dict[str, str] = {}
    seen: dict[str, int] = {}
    for line in text.splitlines():
        key, _, rest = line.partition(" ")
        seen[key] = seen.get(key, 0) + 1
        found[key if seen[key] == 1 else f"{key}-{seen[key]}"] = rest
    return found


def differences(first: str, second: str) -> list[tuple[str, str | None, str | None]]:
    """(key, first's, second's) of each line that differs or that one of them lacks, for the words of a refusal."""
    a, b = parse(first), parse(second)
    return [(key, a.get(key), b.get(key)) for key in (*a, *(k for k in b if k not in a)) if a.get(key) != b.get(key)]


def _grid(grid: Grid | None) -> list[str]:
    if grid is None:
        return ["grid none", "listed 0", f"listed_sum {_numbers(0.0)}", f"listed_sum_squares {_numbers(0.0)}"]
    values = grid.values[grid.listed]
    extents = (n for bound in grid.bounds for n in bound)
    return [
        f"grid {_whole(*extents)}",
        f"listed {grid.count}",
        f"listed_sum {_numbers(float(values.sum()))}",
        f"listed_sum_squares {_numbers(float((values * values).sum()))}",
    ]


def _numbers(*values: float) -> str:
    return " ".join(f"{value + 0.0:.9e}" for value in values)


def _unit(*values: float) -> str:
    # Rounded first, so that what rounds to 0 has no minus sign either.
    return " ".join(f"{round(float(value), 9) + 0.0:.9f}" for value in values)


def _whole(*values: int) -> str:
    return " ".join(str(value) for value in values)
