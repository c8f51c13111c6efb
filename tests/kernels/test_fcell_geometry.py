"""Cell vectors, rotations, the generator of mosaic domains, the shape transforms, detector and sources."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from kernels.fcell import Beam, Crystal, Detector, Goniometer, Shape, Source, build_plan, geometry, lattice, mosaic
from tests.kernels.fcell_cases import TRICLINIC, everything, experiment

CELLS = [
    (100.0, 100.0, 100.0, 90.0, 90.0, 90.0),
    TRICLINIC,
    (77.0, 77.0, 38.0, 90.0, 90.0, 120.0),
    (9.0, 30.0, 12.0, 60.1, 71.0, 118.0),
]


@pytest.mark.parametrize("cell", CELLS)
def test_cell_vectors_have_the_lengths_and_angles_of_the_cell(cell: tuple[float, ...]) -> None:
    a, b, c = geometry.real_vectors(Crystal(cell, (1, 1, 1)))  # type: ignore[arg-type]
    assert [float(np.linalg.norm(v)) for v in (a, b, c)] == pytest.approx(cell[:3], rel=1e-13)
    for (first, second), degrees in zip(((b, c), (a, c), (a, b)), cell[3:], strict=True):
        cosine = float(first @ second) / float(np.linalg.norm(first) * np.linalg.norm(second))
        assert cosine == pytest.approx(math.cos(math.radians(degrees)), abs=1e-13)


@pytest.mark.parametrize("cell", CELLS)
def test_reciprocal_vectors_are_dual_and_in_mosflm_s_frame(cell: tuple[float, ...]) -> None:
    star = geometry.reciprocal_vectors(cell)
    real = geometry.real_vectors(Crystal(cell, (1, 1, 1)))  # type: ignore[arg-type]
    assert np.allclose(star @ real.T, np.eye(3), atol=1e-13)
    assert star[0, 1] == star[0, 2] == star[1, 2] == 0.0
    assert star[0, 0] > 0
    assert star[1, 1] > 0
    assert np.linalg.det(real) > 0


def test_a_right_angle_is_one() -> None:
    real = geometry.real_vectors(Crystal((100, 110, 120, 90, 90, 90), (1, 1, 1)))
    assert np.count_nonzero(real) == 3
    assert np.diag(real) == pytest.approx([100, 110, 120], rel=1e-15)


def test_rotations_are_right_handed() -> None:
    quarter = geometry.rotation(geometry.SPINDLE, math.pi / 2)
    assert np.allclose(quarter @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    assert np.array_equal(geometry.rotation(geometry.SPINDLE, 0.0), np.eye(3))
    tilted = geometry.rotation(np.array([1.0, 2.0, 2.0]) / 3, 0.7)
    assert np.allclose(tilted @ tilted.T, np.eye(3), atol=1e-15)
    assert np.allclose(tilted @ [1, 2, 2], [1, 2, 2], atol=1e-14)


def test_spindle_steps_leave_out_the_last_angle() -> None:
    turns = geometry.spindle_rotations(Goniometer(10.0, 3.0, 3))
    angles = [math.degrees(math.atan2(t[1, 0], t[0, 0])) for t in turns]
    assert angles == pytest.approx([10.0, 11.0, 12.0], rel=1e-13)


def test_misset_turns_about_x_then_y_then_z() -> None:
    crystal = Crystal((10, 20, 30, 90, 90, 90), (1, 1, 1), misset_deg=(90.0, 90.0, 0.0))
    # c along z: about x to -y, and about y it stays there.
    assert np.allclose(geometry.real_vectors(crystal)[2], [0, -30, 0], atol=1e-13)


def test_orientations_are_phi_outer_and_mosaic_after_phi() -> None:
    told = everything()
    plan = build_plan(told)
    real = geometry.real_vectors(told.crystal) * 1e-10
    domains = mosaic.rotations(0.5, 3, told.crystal.mosaic_seed)
    for (n, turn), (m, domain) in itertools.product(
        enumerate(geometry.spindle_rotations(told.goniometer)), enumerate(domains)
    ):
        assert np.allclose(plan.orientations[3 * n + m], (domain @ turn @ real.T).T, rtol=1e-14, atol=1e-24)
    assert plan.steps == 2 * 2 * 3 * 4


def test_generator_gives_the_published_deviates() -> None:
    found = [round(u, 6) for u in itertools.islice(mosaic.uniforms(-1), 5)]
    assert found == [0.415999, 0.091965, 0.756410, 0.529700, 0.930436]
    assert list(itertools.islice(mosaic.uniforms(-2), 5)) != list(itertools.islice(mosaic.uniforms(-1), 5))


def test_generator_is_the_minimal_standard_underneath() -> None:
    # Park and Miller's own check: from 1, the 10 000th number is 1043618065. A shuffle hands on every number,
    # late by at most what its table holds.
    state, numbers = 1, []
    for _ in range(10_000):
        state = state * 16807 % (2**31 - 1)
        numbers.append(state)
    assert state == 1043618065
    known = {float(np.float32(n / (2**31 - 1))) for n in numbers}
    assert all(u in known for u in itertools.islice(mosaic.uniforms(-1), 500))


def test_deviates_are_float32_and_even() -> None:
    drawn = np.array(list(itertools.islice(mosaic.uniforms(-12345678), 20_000)))
    assert np.array_equal(drawn, drawn.astype(np.float32).astype(np.float64))
    assert abs(drawn.mean() - 0.5) < 0.01
    assert drawn.min() > 0
    assert drawn.max() < 1


def test_mosaic_domains_start_with_the_identity_and_do_not_depend_on_their_number() -> None:
    few, many = mosaic.rotations(0.5, 4, -12345678), mosaic.rotations(0.5, 40, -12345678)
    assert np.array_equal(few[0], np.eye(3))
    assert np.array_equal(many[:4], few)
    angles = [math.degrees(math.acos(min(1.0, (np.trace(u) - 1) / 2))) for u in many]
    assert 0.3 < max(angles) <= 0.5
    assert np.allclose(many @ many.transpose(0, 2, 1), np.eye(3), atol=1e-15)
    assert not np.array_equal(mosaic.rotations(0.5, 4, -7)[1], few[1])
    assert np.array_equal(mosaic.rotations(0.0, 2, -7)[1], np.eye(3))


def test_default_centre_is_half_a_pixel_beyond_the_middle() -> None:
    frame = geometry.frame(Detector(4096, 2048, 0.05, 500.0))
    assert frame.origin == pytest.approx([0.5, 0.10245, -0.05125], rel=1e-14)
    assert frame.close_distance == 0.5
    given = geometry.frame(Detector(4096, 2048, 0.05, 500.0, centre_mm=(102.425, 51.225)))
    assert given.origin == pytest.approx(frame.origin, rel=1e-14)
    swapped = geometry.frame(Detector(4096, 2048, 0.05, 500.0, centre_mm=(51.225, 102.425)))
    assert swapped.origin != pytest.approx(frame.origin)


def test_sources_are_unit_vectors_of_any_length() -> None:
    beam = Beam(1.0, sources=(Source((3e200, 0.0, 4e200), 0.5), Source((1e-200, 0.0, 0.0), 2.0)))
    directions, wavelengths = geometry.sources(beam)
    assert directions.tolist() == [[pytest.approx(0.6), 0.0, pytest.approx(0.8)], [1.0, 0.0, 0.0]]
    assert wavelengths == pytest.approx([0.5e-10, 2e-10])
    assert geometry.sources(Beam(1.5))[0].tolist() == [[1.0, 0.0, 0.0]]


def test_sincg_is_the_sum_over_cells_and_exact_at_its_zeros() -> None:
    delta = np.array([0.0, 1e-18, 0.2, 0.4, -0.5, 0.5, 0.123])
    found = lattice.sincg(delta, 5)
    assert found[0] == 5.0
    assert found[1] == pytest.approx(5.0, rel=1e-15)
    assert abs(found[2]) < 1e-15
    assert abs(found[3]) < 1e-15
    assert found[4] ** 2 == pytest.approx(1.0)
    right = sum(math.cos(2 * math.pi * 0.123 * n) for n in range(-2, 3))
    assert found[6] ** 2 == pytest.approx(right**2, rel=1e-14)


def test_sinc3_joins_its_series_without_a_step() -> None:
    x = np.array([0.0, 1e-9, 1e-4, 0.999999999, 1.0, 1.000000001, 4.493409457909064])
    found = lattice.sinc3(x)
    assert found[0] == 1.0
    assert found[2] == pytest.approx(1 - 1e-9, rel=1e-15)
    assert found[3] == pytest.approx(found[5], rel=1e-9)
    assert found[4] == pytest.approx(3 * (math.sin(1) - math.cos(1)), rel=1e-15)
    assert abs(found[6]) < 1e-16


@pytest.mark.parametrize("shape", list(Shape))
def test_every_shape_is_at_its_greatest_on_the_lattice(shape: Shape) -> None:
    plan = build_plan(experiment(shape, (5, 7, 9)))
    zero, off = np.zeros(1), np.array([0.03])
    on = lattice.squared(shape, plan.cells, 1.0, plan.reciprocal, zero, zero, zero)[0]
    away = lattice.squared(shape, plan.cells, 1.0, plan.reciprocal, off, zero, off)[0]
    assert on == pytest.approx(315.0**2 * (lattice.ROUND_SCALE**2 if shape is Shape.ROUND else 1.0), rel=1e-14)
    assert away < on
    wider = lattice.squared(shape, plan.cells, 0.5, plan.reciprocal, off, zero, off)[0]
    assert (wider == away) if shape is Shape.SQUARE else (wider > away or shape is Shape.TOPHAT)
