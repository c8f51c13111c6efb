"""The F_cell oracle: against a loop of scalars written from the formulas, and against known numbers.

The loop shares nothing with the kernel but the input: it has its own geometry, lookup and generator of mosaic
rotations. The mutants at the end are what wrong programs do; each has to fail the gate that the kernel passes.
"""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from kernels.devices import DeviceMissing, KernelRefused
from kernels.fcell import (
    BACKENDS,
    Beam,
    Crystal,
    Detector,
    Experiment,
    FcellRefused,
    Goniometer,
    Grid,
    Plan,
    Shape,
    Source,
    build,
    build_plan,
    oracle,
    probe,
    simulate,
)
from tests.kernels.fcell_cases import everything, experiment, small_grid, whole, worst

GATE = 1e-6
BENCH = Crystal((100, 100, 100, 90, 90, 90), (5, 5, 5), default_f=100.0)


def bench(oversample: int) -> Experiment:
    return Experiment(BENCH, Beam(0.5), Detector(4096, 4096, 0.05, 500.0, oversample))


# --- numbers known from elsewhere -----------------------------------------------------------------------------


def test_corner_of_the_benchmark_without_a_grid() -> None:
    told = probe(bench(2), None, 0, 0)
    assert told.intensity == pytest.approx(141520.166457388, rel=1e-13)
    assert told.final == pytest.approx(3.01366151806705e-4, rel=6e-8)
    assert told.physical == pytest.approx(3.01366151806705e-4, rel=1e-13)
    assert told.counts.bounds == ((-8, -8), (39, 39), (-39, -39))
    assert (told.counts.lookups, told.counts.no_grid, told.counts.mean_f) == (4, 4, 100.0)


def test_sum_of_the_benchmark_without_a_grid() -> None:
    told = simulate(bench(1))
    assert float(told.image.sum(dtype=np.float64)) == pytest.approx(201039.07, abs=0.005)
    assert told.counts.lookups == told.counts.no_grid == 4096**2
    assert told.counts.bounds == ((-8, 0), (-40, 40), (-40, 40))


def test_a_listed_cell_of_the_benchmark() -> None:
    # All four sub-pixels of (1792, 2048) fall into cell (0, 5, 0), so intensity goes with its F².
    grid = Grid(np.array([[[108.21, 50.0]]]), np.ones((1, 1, 2), bool), 0, 5, 0)
    told = probe(bench(2), grid, 1792, 2048)
    assert told.intensity == pytest.approx(108197572.984681, rel=1e-13)
    assert told.final == pytest.approx(0.270137674166631, rel=6e-8)
    assert told.counts.listed == 4
    assert told.counts.mean_f == pytest.approx(108.21)
    assert told.counts.bounds == ((0, 0), (5, 5), (0, 0))


# --- against a loop of scalars --------------------------------------------------------------------------------


def scalar_ran1(seed: int) -> list[float]:
    """The first deviates, as in the textbook: shuffled Park-Miller by Schrage's division."""
    number, table = max(-seed, 1), [0] * 32

    def step(n: int) -> int:
        quotient = n // 127773
        n = 16807 * (n - quotient * 127773) - 2836 * quotient
        return n + 2147483647 if n < 0 else n

    for j in reversed(range(40)):
        number = step(number)
        if j < 32:
            table[j] = number
    out, found = table[0], []
    for _ in range(30):
        number = step(number)
        j = out // (1 + 2147483646 // 32)
        out, table[j] = table[j], number
        found.append(float(np.float32(min(out * (1.0 / 2147483647), 1.0 - 1.2e-7))))
    return found


def turn(axis: tuple[float, ...], angle: float, v: list[float]) -> list[float]:
    """Rodrigues on one vector."""
    x, y, z = axis
    dot = (1 - math.cos(angle)) * (x * v[0] + y * v[1] + z * v[2])
    cross = [y * v[2] - z * v[1], z * v[0] - x * v[2], x * v[1] - y * v[0]]
    return [v[n] * math.cos(angle) + cross[n] * math.sin(angle) + axis[n] * dot for n in range(3)]


def scalar_vectors(crystal: Crystal) -> list[list[float]]:
    """a, b, c in Å, with a* along x and b* in the xy plane."""
    a, b, c = crystal.cell[:3]
    alpha, beta, gamma = (math.radians(x) for x in crystal.cell[3:])
    # So c, square to both, is along z; b, square to a*, is in the yz plane; a follows from its two angles.
    by, bz = b * math.sin(alpha), b * math.cos(alpha)
    az = a * math.cos(beta)
    ay = (a * b * math.cos(gamma) - az * bz) / by
    ax = math.sqrt(a * a - ay * ay - az * az)
    vectors = [[ax, ay, az], [0.0, by, bz], [0.0, 0.0, c]]
    for axis, degrees in zip(((1, 0, 0), (0, 1, 0), (0, 0, 1)), crystal.misset_deg, strict=True):
        vectors = [turn(axis, math.radians(degrees), v) for v in vectors]
    return vectors


def scalar_orientations(told: Experiment) -> list[list[list[float]]]:
    crystal, goniometer = told.crystal, told.goniometer
    deviates, found = scalar_ran1(crystal.mosaic_seed), []
    for n in range(goniometer.phisteps):
        phi = math.radians(goniometer.phi0_deg + n * goniometer.osc_deg / goniometer.phisteps)
        for domain in range(crystal.mosaic_domains):
            r1, r2, r3 = (2 * u - 1 for u in deviates[3 * domain : 3 * domain + 3])
            flat = math.sqrt(1 - r2 * r2)
            axis = (flat * math.sin(math.pi * r1), flat * math.cos(math.pi * r1), r2)
            angle = math.radians(crystal.mosaic_spread_deg) * float(np.float32(1 - r3 * r3) ** np.float32(1 / 3))
            vectors = [turn((0, 0, 1), phi, v) for v in scalar_vectors(crystal)]
            found.append([turn(axis, angle if domain else 0.0, v) for v in vectors])
    return found


def scalar_f(grid: Grid | None, default_f: float, interpolate: bool, hkl: list[float]) -> float:
    if grid is None:
        return default_f
    held = {
        tuple(int(i) + low for i, low in zip(index, (grid.hmin, grid.kmin, grid.lmin), strict=True)): grid.values[index]
        for index in np.ndindex(grid.values.shape)
        if grid.listed[index]
    }

    def at(*cell: int) -> float:
        return float(held.get(cell, default_f))

    if interpolate and all(low + 2 <= x <= high - 2 for x, (low, high) in zip(hkl, grid.bounds, strict=True)):
        total = 0.0
        bases = [math.floor(x) for x in hkl]
        nodes = (-1, 0, 1, 2)
        weights = [
            [math.prod((x - b - m) / (n - m) for m in nodes if m != n) for n in nodes]
            for x, b in zip(hkl, bases, strict=True)
        ]
        for i, j, m in np.ndindex(4, 4, 4):
            total += (
                weights[0][i]
                * weights[1][j]
                * weights[2][m]
                * at(*(b + n - 1 for b, n in zip(bases, (i, j, m), strict=True)))
            )
        return total
    return at(*(math.ceil(x - 0.5) for x in hkl))


def scalar_lattice(told: Experiment, hkl: list[float]) -> float:
    crystal = told.crystal
    away = [x - math.ceil(x - 0.5) for x in hkl]
    product = math.prod(crystal.cells)
    if crystal.shape is Shape.SQUARE:
        # The sum of exp(2πi·n·h), in the middle of the crystal: a closed form of its own kind.
        return math.prod(
            sum(math.cos(2 * math.pi * x * (n - (count - 1) / 2)) for n in range(count))
            for x, count in zip(away, crystal.cells, strict=True)
        )
    if crystal.shape is Shape.ROUND:
        x = math.pi * math.sqrt(crystal.fudge * sum((d * n) ** 2 for d, n in zip(away, crystal.cells, strict=True)))
        return product * 0.723601254558268 * 3 * (math.sin(x) / x - math.cos(x)) / x**2
    a, b, c = (np.array(v) for v in scalar_vectors(crystal))
    volume = float(a @ np.cross(b, c))
    star = [np.cross(b, c) / volume, np.cross(c, a) / volume, np.cross(a, b) / volume]
    distance = np.sum([d * s for d, s in zip(away, star, strict=True)], axis=0)
    spread = float(distance @ distance) * product**2
    if crystal.shape is Shape.GAUSS:
        return product * math.exp(-spread / 0.63 * crystal.fudge)
    return product if spread * crystal.fudge < 0.3969 else 0.0


def scalar_pixel(told: Experiment, grid: Grid | None, slow: int, fast: int) -> float:
    detector, beam = told.detector, told.beam
    pixel, size = detector.pixel_mm * 1e-3, detector.oversample
    centre = detector.centre_mm or tuple((n + 1) * detector.pixel_mm / 2 for n in (detector.slow, detector.fast))
    s_beam, f_beam = (mm * 1e-3 + pixel / 2 for mm in centre)
    sources = [(s.direction, s.wavelength_a) for s in beam.sources] or [((1.0, 0.0, 0.0), beam.wavelength_a)]
    total, first = 0.0, 0.0
    for i_s in range(size):
        for i_f in range(size):
            s_det, f_det = ((n + (i + 0.5) / size) * pixel for n, i in ((slow, i_s), (fast, i_f)))
            point = [detector.distance_mm * 1e-3, s_beam - s_det, f_det - f_beam]
            distance = math.hypot(*point)
            direction = [x / distance for x in point]
            for n, (towards, wavelength) in enumerate(sources):
                incident = [x / math.hypot(*towards) for x in towards]
                if not (first or n):
                    omega = pixel**2 * detector.distance_mm * 1e-3 / distance**3
                    first = omega * scalar_polar(beam.polarisation, incident, direction)
                q = [(d - i) / wavelength for d, i in zip(direction, incident, strict=True)]
                for vectors in scalar_orientations(told):
                    hkl = [sum(v * x for v, x in zip(vector, q, strict=True)) for vector in vectors]
                    found = scalar_f(grid, told.crystal.default_f, told.interpolate, hkl)
                    total += (found * scalar_lattice(told, hkl)) ** 2
    steps = size**2 * len(sources) * told.crystal.mosaic_domains * told.goniometer.phisteps
    return 7.94079248018965e-30 * beam.fluence * total / steps * first


def scalar_polar(kahn: float, incident: list[float], direction: list[float]) -> float:
    cosine = sum(a * b for a, b in zip(incident, direction, strict=True))
    across = np.cross(incident, (0, 0, 1))
    along = np.cross(incident, across)
    psi = math.atan2(
        float(np.dot(direction, across)) / float(np.linalg.norm(across)),
        float(np.dot(direction, along)) / float(np.linalg.norm(along)),
    )
    return 0.5 * (1 + cosine**2 - kahn * math.cos(2 * psi) * (1 - cosine**2))


PIXELS = [(0, 0), (13, 23), (20, 30), (12, 25), (35, 43), (8, 17)]


@pytest.mark.parametrize("interpolate", [False, True])
@pytest.mark.parametrize("shape", list(Shape))
def test_oracle_is_the_scalar_loop(shape: Shape, interpolate: bool) -> None:
    told = everything(shape, interpolate=interpolate)
    found = simulate(told, small_grid()).image64
    assert found is not None
    for slow, fast in PIXELS:
        right = scalar_pixel(told, small_grid(), slow, fast)
        assert found[slow, fast] == pytest.approx(right, rel=1e-9, abs=1e-30), (slow, fast)


def test_oracle_without_a_grid_is_the_scalar_loop() -> None:
    told = everything()
    found = simulate(told).image64
    assert found is not None
    for slow, fast in PIXELS:
        assert found[slow, fast] == pytest.approx(scalar_pixel(told, None, slow, fast), rel=1e-9)


def test_the_scalar_loop_would_tell() -> None:
    told = everything()
    found = simulate(replace(told, goniometer=Goniometer(12.01, 1.5, 2)), small_grid()).image64
    assert found is not None
    assert found[13, 23] != pytest.approx(scalar_pixel(told, small_grid(), 13, 23), rel=1e-6)


# --- counts, rounding, interpolation --------------------------------------------------------------------------


def test_all_four_outcomes_are_counted_apart() -> None:
    told = simulate(experiment(), small_grid()).counts
    assert min(told.listed, told.unlisted, told.out_of_grid, told.zero_f) > 50
    assert told.listed + told.unlisted + told.out_of_grid == told.lookups == 36 * 44 * 4
    assert told.no_grid == 0
    bare = simulate(experiment()).counts
    assert (bare.no_grid, bare.listed, bare.unlisted, bare.out_of_grid) == (told.lookups, 0, 0, 0)
    assert bare.mean_f == 30.0
    assert bare.bounds == told.bounds
    assert simulate(experiment(default_f=0.0)).counts.zero_f == bare.lookups


def test_counts_are_those_of_single_pixels() -> None:
    told, grid = everything(), small_grid()
    plan = build_plan(told, grid, (10, 14, 20, 25))
    together = oracle.simulate(plan)
    parts = [oracle.probe(plan, s, f) for s in range(10, 14) for f in range(20, 25)]
    summed = parts[0].counts
    for part in parts[1:]:
        summed = summed + part.counts
    assert whole(summed) == whole(together.counts)
    assert summed.sum_f == pytest.approx(together.counts.sum_f, rel=1e-14)
    assert [p.final for p in parts] == together.image.ravel().tolist()


def test_ties_go_down() -> None:
    x = np.array([0.5, 1.5, -0.5, -1.5, 0.49999999999999994, 2.5000000000000004, -0.0])
    assert oracle.nearest_down(x).tolist() == [0, 1, -1, -2, 0, 3, 0]
    assert np.rint(x).tolist() != oracle.nearest_down(x).tolist()


def tied(h: float) -> Plan:
    """One pixel that samples h to the last digit, and k = l = 0."""
    plan = build_plan(experiment(oversample=1), small_grid(), (10, 11, 14, 15))
    q = (oracle.sub_pixel(plan, oracle.RULES, range(10, 11), range(14, 15), 0, 0).direction[1].item()) / 1e-10
    scale = h / q
    while scale * q != h:
        scale = np.nextafter(scale, math.inf if scale * q < h else -math.inf)
    orientation = np.zeros((1, 3, 3))
    orientation[0, 0, 1] = scale
    return replace(plan, orientations=orientation)


@pytest.mark.parametrize(("h", "cell"), [(0.5, 0), (1.5, 1), (-0.5, -1), (-1.5, -2)])
def test_a_tie_in_the_loop_goes_down(h: float, cell: int) -> None:
    plan, grid = tied(h), small_grid()
    told = oracle.probe(plan, 10, 14)
    assert told.counts.bounds == ((cell, cell), (0, 0), (0, 0))
    assert told.counts.sum_f == grid.values[cell + 3, 5, 6]
    if h == 0.5 or h == -1.5:
        return  # here even and down are the same
    wrong = oracle.probe(plan, 10, 14, replace(oracle.RULES, nearest=np.rint))
    assert wrong.counts.bounds != told.counts.bounds


def lookups(grid: Grid, h: list[float], interpolate: bool = True) -> list[float]:
    hkl = [np.array(h), np.zeros(len(h)), np.zeros(len(h))]
    nearest = [oracle.nearest_down(x) for x in hkl]
    return [float(f) for f in oracle.structure_factors(grid, 7.0, hkl, nearest, interpolate)[0]]


def test_tricubic_reproduces_a_cubic_and_stops_at_its_border() -> None:
    index = np.arange(-4.0, 5.0)
    cubic = (index**3 - 2 * index**2 + 3 * index + 400)[:, None, None] * np.ones((9, 9, 9))
    grid = Grid(cubic, np.ones(cubic.shape, bool), -4, -4, -4)
    for x in (0.3, -1.75, 1.999, 2.0, -2.0):
        assert lookups(grid, [x])[0] == pytest.approx(x**3 - 2 * x**2 + 3 * x + 400, rel=1e-14)
    # Beyond max - 2 and before min + 2 it is the nearest cell again, and only for that lookup.
    inside, above, below, outside = lookups(grid, [1.3, 2.0000001, -2.3, 5.2])
    assert inside != pytest.approx(cubic[5, 0, 0])
    assert above == cubic[6, 0, 0]
    assert below == cubic[2, 0, 0]
    assert outside == 7.0
    assert lookups(grid, [1.3], interpolate=False)[0] == cubic[5, 0, 0]


def test_a_grid_too_thin_to_interpolate_is_looked_up() -> None:
    thin = Grid(np.array([[[3.0, 4.0]]]), np.ones((1, 1, 2), bool), 0, 0, 0)
    assert lookups(thin, [0.2, 0.7]) == [3.0, 7.0]


# --- form -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [1, 7, 44, 100, 10**6])
def test_tiles_and_rois_change_nothing(tile: int) -> None:
    told, grid = everything(), small_grid()
    full = oracle.simulate(build_plan(told, grid))
    part = oracle.simulate(build_plan(told, grid, (9, 15, 3, 40)), tile=tile)
    assert full.image64 is not None
    assert part.image64 is not None
    assert np.array_equal(part.image64, full.image64[9:15, 3:40])


def test_memory_is_bounded_by_the_image() -> None:
    told = replace(experiment(oversample=3), detector=Detector(600, 600, 0.2, 100.0, 3))
    build("numpy")
    tracemalloc.start()
    oracle.simulate(build_plan(told, small_grid()), tile=4096)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 600 * 600 * 8  # 9 lookups a pixel; the image twice, once in each precision, and a tile


@pytest.mark.parametrize("interpolate", [False, True])
def test_no_pixel_is_brighter_than_the_bound(interpolate: bool) -> None:
    told = replace(everything(interpolate=interpolate), goniometer=Goniometer())
    plan = build_plan(told, small_grid())
    image = oracle.simulate(plan).image64
    assert image is not None
    assert 0.001 * plan.brightest < image.max() < plan.brightest


def test_default_of_the_crystal_fills_the_grid() -> None:
    told = experiment(default_f=12.5)
    for filled in (0.0, 12.5, 99.0):
        found = simulate(told, small_grid(filled))
        assert np.array_equal(found.image, simulate(told, small_grid(12.5)).image)
    assert not np.array_equal(simulate(experiment(default_f=13.0), small_grid()).image, found.image)


# --- mutants: what wrong programs do ---------------------------------------------------------------------------

FIRST = oracle.RULES
MUTANTS = {
    "corner-sampled sub-pixels": replace(FIRST, places=lambda size: np.arange(size, dtype=np.float64)),
    "one sample of four": replace(FIRST, samples=lambda size: [(0, 0)]),
    "omega of each sub-pixel": replace(FIRST, omega_each=True),
    "float32 q": replace(FIRST, momentum=lambda q: q.astype(np.float32).astype(np.float64)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails_the_gate(name: str) -> None:
    plan = build_plan(experiment(), small_grid())
    right, wrong = oracle.simulate(plan), oracle.simulate(plan, MUTANTS[name])
    assert worst(right, right) <= GATE
    assert worst(wrong, right) > 10 * GATE
    pixel = oracle.probe(plan, 13, 25), oracle.probe(plan, 13, 25, MUTANTS[name])
    assert pixel[0].final != pixel[1].final


def test_ties_to_even_fail_the_gate() -> None:
    plan = tied(1.5)
    wrong = oracle.simulate(plan, replace(FIRST, nearest=np.rint))
    assert worst(wrong, oracle.simulate(plan)) > 10 * GATE


def test_all_zero_fails_the_gate() -> None:
    right = simulate(experiment(), small_grid())
    assert worst(replace(right, image=np.zeros_like(right.image)), right) > 10 * GATE


# --- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: simulate(experiment(), backend="fortran"), "no F_cell backend is called 'fortran': there are numpy"),
        (lambda: probe(experiment(), None, 0, 0, backend=""), "no F_cell backend is called ''"),
        (lambda: simulate(experiment(), roi=(0, 37, 0, 1)), "outside the detector of 36 × 44"),
        (lambda: simulate(experiment(), roi=(3, 3, 0, 1)), "is empty or outside"),
        (lambda: simulate(experiment(), roi=(0, 1.5, 0, 1)), "four whole numbers"),  # type: ignore[arg-type]
        (lambda: probe(experiment(), None, 36, 0), r"pixel \(36, 0\) is outside the detector"),
        (lambda: probe(experiment(), None, 0, -1), r"pixel \(0, -1\) is outside the detector"),
        (lambda: Beam(math.nan), "wavelength_a must be finite"),
        (lambda: Beam(0.0), "wavelength_a must be greater than 0"),
        (lambda: Beam(1.0, polarisation=1.1), "from -1 to 1"),
        (lambda: Beam(1.0, sources=((0, 0, 0), 1.0)), "source 0 must be"),  # type: ignore[arg-type]
        (lambda: Beam(1.0, sources=(((0, 0, 0), 1.0),)), "source 0 has no direction"),  # type: ignore[arg-type]
        (lambda: Beam(1.0, polarisation=0.5, sources=(((0, 0, 1), 1.0),)), "along the polarisation axis"),  # type: ignore[arg-type]
        (lambda: Detector(0, 4, 1.0, 1.0), "slow must be at least 1"),
        (lambda: Detector(4, 4, 1.0, math.inf), "distance_mm must be finite"),
        (lambda: Detector(4, 4, 1.0, 1.0, 1.5), "oversample must be a whole number"),  # type: ignore[arg-type]
        (lambda: Detector(4, 4, "wide", 1.0), "pixel_mm must be a number"),  # type: ignore[arg-type]
        (lambda: Goniometer(phisteps=0), "phisteps must be at least 1"),
        (lambda: replace(BENCH, cell=(10, 10, 10, 90, 90)), "must be 6 numbers, not 5"),  # type: ignore[arg-type]
        (lambda: replace(BENCH, cell=(10, 10, -1, 90, 90, 90)), "edges of the unit cell"),
        (lambda: replace(BENCH, cell=(10, 10, 10, 30, 30, 90)), "enclose no volume"),
        (lambda: replace(BENCH, cell=(10, 10, 10, 30, 180, 90)), "between 0 and 180"),
        (lambda: replace(BENCH, cells=(5, 5)), "three counts"),  # type: ignore[arg-type]
        (lambda: replace(BENCH, cells=(5, 0, 5)), "cells along b must be at least 1"),
        (lambda: replace(BENCH, shape="cube"), "no crystal shape is called 'cube': there are square"),  # type: ignore[arg-type]
        (lambda: replace(BENCH, default_f=math.nan), "default_f must be finite"),
        (lambda: replace(BENCH, default_f=-1.0), "default_f must not be negative"),
        (lambda: replace(BENCH, mosaic_seed=5), "mosaic_seed must be between"),
        (lambda: Beam(1e300), r"wavelength_a must be between 1e-09 and 1e\+09"),
        (lambda: Beam(1.0, sources=5), "sources must be a list"),  # type: ignore[arg-type]
        (lambda: Beam(1.0, sources=(Source((1, 0, 0), 1e-30),)), "wavelength of source 0 must be between"),
        (lambda: Detector(4, 4, 1e200, 1.0), "pixel_mm must be between"),
        (lambda: Detector(4, 4, 1.0, 1e-300), "distance_mm must be between"),
        (lambda: Detector(4, 4, 1.0, 1.0, 1, (1e300, 0.0)), "centre_mm must be within"),
        (lambda: replace(BENCH, cell=(1e-200, 1e-200, 1e-200, 90, 90, 90)), "edge a of the unit cell must be between"),
        (lambda: replace(BENCH, cells=5), "three counts"),  # type: ignore[arg-type]
        (lambda: replace(BENCH, cells=(3_000_000,) * 3), "unit cells at most"),
        (lambda: simulate(replace(experiment(), beam=Beam(1e-8))), "h, k or l could reach 4e"),
        (lambda: simulate(experiment(), roi=5), "four whole numbers"),  # type: ignore[arg-type]
        (lambda: simulate(experiment(), [[1.0]]), "a Grid or None, not list"),  # type: ignore[arg-type]
        (lambda: simulate(None), "needs an Experiment .* not NoneType"),  # type: ignore[arg-type]
        (lambda: replace(experiment(), crystal=None), "crystal must be a Crystal"),  # type: ignore[arg-type]
        (lambda: Grid(np.ones((1, 1, 1)), np.ones((1, 1, 1), bool), 2**62, 0, 0), "no grid reaches beyond"),
        (lambda: Grid([[[1.0]]], [[[True]]], 0, 0, 0), "as NumPy arrays"),  # type: ignore[arg-type]
        (lambda: Grid(np.zeros((1, 1, 1)), np.zeros((1, 1, 1), bool), 0, 0, 0), "the grid is empty"),
        (lambda: Grid(np.full((1, 1, 1), np.nan), np.ones((1, 1, 1), bool), 2, 0, 0), r"factor of \(2, 0, 0\) is nan"),
        (lambda: Grid(np.zeros((1, 1, 2)), np.ones((1, 1, 1), bool), 0, 0, 0), "of one shape"),
        (lambda: simulate(replace(experiment(), beam=Beam(1.0, fluence=1e80))), "too bright for float32"),
        (lambda: simulate(experiment(default_f=1e200)), r"pixel \(0, 0\) is too bright for float32"),
    ],
)
def test_bad_input_is_one_sentence(make: object, words: str) -> None:
    with pytest.raises(FcellRefused, match=words) as caught:
        make()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["numpy", "numba", "torch"])
def test_no_thread_is_refused(backend: str) -> None:
    pytest.importorskip(backend)
    with pytest.raises(KernelRefused, match="at least 1 thread"):
        build(backend, threads=0)


def test_cuda_where_there_is_none_is_one_sentence() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(DeviceMissing, match="cuda was asked for"):
        simulate(experiment(), backend="torch-cuda")


def test_backends_are_named() -> None:
    assert list(BACKENDS) == ["numpy", "numba", "torch", "torch-cuda"]
