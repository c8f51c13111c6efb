"""The Numba backend against the float64 oracle: every path, every pixel, every counter; and wrong ones that fail."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels import jit
from kernels.devices import KernelRefused
from kernels.fcell import numba_, numba_exact, numba_fast, numba_layout, numba_lookup, oracle
from kernels.fcell.plan import Plan, Simulation, build_plan
from kernels.fcell.types import Beam, Crystal, Detector, Experiment, FcellRefused, Goniometer, Grid, Source

CUBIC: dict[str, Any] = {"cell": (50.0, 50.0, 50.0, 90.0, 90.0, 90.0), "cells": (5, 5, 5)}
TRICLINIC: dict[str, Any] = {
    "cell": (37.0, 43.0, 51.0, 82.0, 97.0, 104.0),
    "cells": (5, 7, 9),
    "misset_deg": (10.0, 20.0, 30.0),
}
LARGE: dict[str, Any] = {"cell": (900.0, 900.0, 900.0, 90.0, 90.0, 90.0)}
SOURCES = (Source((1.0, 0.0, 0.0), 1.0), Source((1.0, 0.02, 0.01), 1.1))


def some_grid(seed: int = 3, *, zeros: bool = False) -> Grid:
    """Smaller than what the frames below see, so that lookups end inside it, beside it and on unlisted cells."""
    random = np.random.default_rng(seed)
    values = np.round(random.uniform(5.0, 300.0, (9, 21, 15)), 2)
    listed = random.random(values.shape) < 0.7
    if zeros:
        values[listed & (random.random(values.shape) < 0.2)] = 0.0
    values[~listed] = 100.0
    return Grid(values, listed, -6, -9, -8, 100.0)


def plan(
    grid: Grid | None = None,
    *,
    slow: int = 60,
    fast: int = 150,
    oversample: int = 2,
    pixel_mm: float = 0.8,
    distance_mm: float = 200.0,
    roi: tuple[int, int, int, int] | None = None,
    beam: Beam | None = None,
    goniometer: Goniometer | None = None,
    interpolate: bool = False,
    **crystal: Any,
) -> Plan:
    detector = Detector(slow=slow, fast=fast, pixel_mm=pixel_mm, distance_mm=distance_mm, oversample=oversample)
    made = Crystal(**{**CUBIC, "default_f": 100.0, **crystal})
    return build_plan(Experiment(made, beam or Beam(1.0), detector, goniometer or Goniometer(), interpolate), grid, roi)


def differences(found: Simulation, true: Simulation) -> list[str]:
    """What the gate has against a result; empty if nothing."""
    assert true.image64 is not None
    wrong = []
    # What is no normal float32 has fewer digits: there a step of float32 is allowed.
    error = np.abs(found.image.astype(np.float64) - true.image64) - float(np.finfo(np.float32).smallest_subnormal)
    worst = float((np.maximum(error, 0.0) / np.maximum(true.image64, 1e-300)).max())
    if not worst <= 1e-6:
        wrong.append(f"pixel off by {worst:.1e}")
    # The ratio of the sums of what was rounded to float32 alike: small frames do not average that out.
    if not math.isclose(found.image.sum(dtype=np.float64), true.image.sum(dtype=np.float64), rel_tol=1e-8):
        wrong.append("sum")
    for field in dataclasses.fields(true.counts):
        a, b = getattr(found.counts, field.name), getattr(true.counts, field.name)
        if not (math.isclose(a, b, rel_tol=1e-12) if field.name == "sum_f" else a == b):
            wrong.append(f"{field.name} is {a}, not {b}")
    return wrong


CASES: dict[str, tuple[bool, Plan]] = {
    # name: (the fast loop computes it, plan)
    "five cells": (True, plan(some_grid())),
    "no oversampling": (True, plan(some_grid(), oversample=1)),
    "oversample 3": (True, plan(some_grid(), oversample=3)),
    "1, 3 and 5 cells": (True, plan(some_grid(), cells=(1, 3, 5))),
    "triclinic": (True, plan(some_grid(), **TRICLINIC)),
    "even and large counts": (True, plan(some_grid(), cells=(2, 4, 30))),
    "far away, where 1/R is a series": (True, plan(some_grid(), pixel_mm=0.1, distance_mm=2000.0, **LARGE)),
    "several chunks in a row": (True, plan(some_grid(), slow=3, fast=700, pixel_mm=0.2)),
    "a roi inside a chunk": (True, plan(some_grid(), roi=(7, 31, 90, 141), **TRICLINIC)),
    "no grid": (True, plan()),
    "no grid and no default": (True, plan(default_f=0.0)),
    "a default of 0": (True, plan(some_grid(), default_f=0.0)),
    "listed zeros": (True, plan(some_grid(zeros=True))),
    "nothing but zeros": (True, plan(some_grid(zeros=True), default_f=0.0, roi=(0, 5, 0, 9))),
    "phi": (True, plan(some_grid(), goniometer=Goniometer(10.0, 2.0, 3))),
    "mosaic": (True, plan(some_grid(), mosaic_spread_deg=1.5, mosaic_domains=4, slow=30)),
    "sources": (
        True,
        plan(some_grid(), beam=Beam(1.0, polarisation=0.7, sources=SOURCES)),
    ),
    "tricubic": (False, plan(some_grid(), interpolate=True, slow=30)),
    "tricubic with zeros": (False, plan(some_grid(zeros=True), interpolate=True, default_f=0.0, slow=30)),
    "round": (False, plan(some_grid(), shape="round", fudge=1.3, **TRICLINIC)),
    "gauss": (False, plan(some_grid(), shape="gauss", **TRICLINIC)),
    "tophat": (False, plan(some_grid(), shape="tophat", fudge=0.4, **TRICLINIC)),
    "too much of reciprocal space for a table": (
        False,
        plan(some_grid(), slow=20, fast=20, pixel_mm=20.0, distance_mm=50.0, **LARGE),
    ),
    "tricubic to the margin of the grid": (
        False,
        plan(some_grid(), interpolate=True, slow=40, fast=60, pixel_mm=1.0, goniometer=Goniometer(60.0)),
    ),
    "every sample of a pixel beside a zero": (
        True,
        plan(
            slow=260,
            fast=260,
            pixel_mm=0.1,
            distance_mm=500.0,
            beam=Beam(0.05),
            goniometer=Goniometer(33.0),
            cells=(4, 1, 100),
            roi=(80, 140, 120, 150),
        ),
    ),
    "all at once": (
        True,
        plan(
            some_grid(zeros=True),
            slow=20,
            goniometer=Goniometer(5.0, 1.0, 2),
            beam=Beam(1.0, polarisation=-0.4, sources=SOURCES),
            mosaic_spread_deg=1.0,
            mosaic_domains=2,
            **TRICLINIC,
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_path_is_the_oracle_within_the_gate(name: str) -> None:
    fast, made = CASES[name]
    assert (numba_layout.layout(made) is not None) is fast
    assert differences(numba_.make(1)(made), oracle.simulate(made)) == []


@pytest.mark.parametrize(
    ("change", "value", "case"),
    [
        ("nearest", lambda x: np.floor(x + 0.25), "five cells"),
        ("places", lambda os: np.arange(os) + 0.0, "five cells"),
        ("samples", lambda os: [(0, 0)], "five cells"),
        ("omega_each", True, "five cells"),
        ("momentum", lambda q: q.astype(np.float32).astype(np.float64), "five cells"),
        ("places", lambda os: np.arange(os) + 0.0, "tricubic"),
    ],
)
def test_the_gate_refuses_a_wrong_program(change: str, value: Any, case: str) -> None:
    made = CASES[case][1]
    rules: Any = {change: value}
    assert differences(numba_.make(1)(made), oracle.simulate(made, dataclasses.replace(oracle.RULES, **rules)))


def tied(made: Plan) -> Plan:
    """The same with orientations that make l of one pixel 3.5 exactly: down is 3, even is 4."""
    place = oracle.sub_pixel(made, oracle.RULES, range(20, 21), range(30, 31), 0, 0)
    q = (float(place.direction[2][0, 0]) - made.sources[0, 2]) / made.wavelengths_m[0]
    vectors = made.orientations.copy()
    for step in range(-40, 41):
        length = 3.5 / q * (1 + step * np.finfo(np.float64).eps)
        if length * q == 3.5:
            vectors[0, 2] = (0.0, 0.0, length)
            return dataclasses.replace(made, orientations=vectors)
    raise AssertionError("no float64 makes this pixel a tie")


def test_a_tie_goes_down_as_in_the_oracle_whatever_the_loop_rounds() -> None:
    made = tied(plan(some_grid(), oversample=1))
    true = oracle.simulate(made)
    assert differences(numba_.make(1)(made), true) == []
    # The twin: with ties to even, as the loop's own rounding has them, the same pixel is another cell.
    even = oracle.simulate(made, dataclasses.replace(oracle.RULES, nearest=np.rint))
    assert differences(even, true)


def test_without_its_watch_the_loop_takes_the_wrong_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tied(plan(some_grid(), oversample=1))
    monkeypatch.setattr(numba_, "layout", lambda made: dataclasses.replace(found_layout(made), tie=1.0))
    wrong = 0
    # Its own rounding error decides on which side of the tie it is, but it cannot be right on both.
    for side in (-1, 0, 1):
        vectors = made.orientations.copy()
        vectors[0, 2, 2] *= 1 + side * np.finfo(np.float64).eps
        moved = dataclasses.replace(made, orientations=vectors)
        wrong += bool(differences(numba_.make(1)(moved), oracle.simulate(moved)))
    assert wrong


def found_layout(made: Plan) -> numba_layout.Layout:
    found = numba_layout.layout(made)
    assert found is not None
    return found


def test_dim_pixels_are_computed_again_and_more_of_them_where_one_lookup_decides() -> None:
    assert found_layout(plan(oversample=1)).dim > 0
    assert 0 < found_layout(plan(oversample=2)).dim < found_layout(plan(oversample=1)).dim


def test_threads_change_nothing_not_even_the_last_digit() -> None:
    for name in ("triclinic", "tricubic"):
        made = CASES[name][1]
        one, three = numba_.make(1)(made), numba_.make(3)(made)
        assert np.array_equal(one.image, three.image)
        assert one.counts == three.counts
    with pytest.raises(KernelRefused, match="at least 1 thread"):
        numba_.make(0)


@pytest.mark.parametrize("name", ["five cells", "triclinic", "all at once", "tricubic", "listed zeros"])
def test_a_pixel_is_probed_in_the_loop_that_computes_the_image(name: str) -> None:
    made = CASES[name][1]
    image = numba_.make(1)(made).image
    for slow, fast in ((0, 0), (11, 77), (19, 149)):
        found, true = numba_.probe(made, slow, fast), oracle.probe(made, slow, fast)
        assert found.final == image[slow, fast]
        assert found.counts.bounds == true.counts.bounds
        assert found.counts.listed == true.counts.listed
        assert found.steps == true.steps
        np.testing.assert_allclose(found.omegas, true.omegas, rtol=1e-13)
        for field in ("intensity", "polar", "omega", "normalised", "physical"):
            assert math.isclose(getattr(found, field), getattr(true, field), rel_tol=1e-7), field
    with pytest.raises(FcellRefused, match="outside the detector"):
        numba_.probe(made, 0, made.fast)


def test_a_roi_is_the_same_part_of_the_image() -> None:
    whole = plan(some_grid(), fast=300, slow=20, **TRICLINIC)
    part = plan(some_grid(), fast=300, slow=20, roi=(3, 9, 200, 291), **TRICLINIC)
    assert np.array_equal(numba_.make(1)(whole).image[3:9, 200:291], numba_.make(1)(part).image)


def test_nothing_is_kept_between_calls() -> None:
    simulate = numba_.make(1)
    first, other = CASES["five cells"][1], plan(some_grid(4))
    before = simulate(first).image
    assert not np.array_equal(before, simulate(other).image)
    assert np.array_equal(before, simulate(first).image)


def test_the_polynomials_are_what_they_say() -> None:
    delta = np.linspace(1e-9, 0.5, 5001)
    t = delta * delta
    cosine = sum(getattr(numba_lookup, f"C{n}") * t**n for n in range(7))
    assert np.abs(cosine - np.cos(np.pi * delta)).max() < 2e-12
    sine = sum(getattr(numba_lookup, f"S{n}") * t**n for n in range(6)) * delta
    assert np.abs(sine / np.sin(np.pi * delta) - 1).max() < 5e-11
    for count in (3, 5):
        c0, c1, c2 = numba_layout._POLYNOMIALS[count]
        y = cosine * cosine
        found, true = (c2 * y + c1) * y + c0, np.sin(count * np.pi * delta) / np.sin(np.pi * delta)
        # Beside the zeros too, where an error of 1e-12 elsewhere would be everything.
        assert np.abs(found / true - 1)[np.abs(true) > 1e-4].max() < 1e-9


def test_the_table_reaches_as_far_as_any_lookup() -> None:
    for name in ("triclinic", "mosaic", "sources", "phi"):
        made = CASES[name][1]
        low, high = numba_layout._reach(made)
        for (least, most), a, b in zip(oracle.simulate(made).counts.bounds, low, high, strict=True):
            assert a <= least
            assert most <= b


@pytest.mark.parametrize("nodes", [2, 3])
def test_the_table_reaches_between_the_nodes_too(monkeypatch: pytest.MonkeyPatch, nodes: int) -> None:
    # With few nodes nearly all of what a lookup may meet lies between them: the margin alone has to cover it.
    monkeypatch.setattr(numba_layout, "_NODES", nodes)
    for name in ("triclinic", "mosaic", "sources", "phi"):
        made = CASES[name][1]
        low, high = numba_layout._reach(made)
        for (least, most), a, b in zip(oracle.simulate(made).counts.bounds, low, high, strict=True):
            assert a <= least
            assert most <= b


def test_compiled_code_is_kept_by_the_text_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    monkeypatch.setattr(jit, "_folders", {})
    (tmp_path / "loops.py").write_text("one")
    before = jit._cache_folder(tmp_path)
    assert before is not None
    assert before.parent == tmp_path / "cache"
    assert before == jit._cache_folder(tmp_path)
    monkeypatch.setattr(jit, "_folders", {})
    (tmp_path / "loops.py").write_text("two")
    assert jit._cache_folder(tmp_path) not in (None, before)
    # Where nothing can be written nothing is kept, and that is no error.
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(jit.config, "CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(jit, "_folders", {})
    assert jit._cache_folder(tmp_path) is None
    monkeypatch.setattr(jit.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.setattr(jit, "_folders", {})
    assert jit._cache_folder(tmp_path) is None


def test_what_compiles_is_measured_apart() -> None:
    made = CASES["five cells"][1]
    numba_.warm(made)
    # One of each for every case above: no second variant is compiled for another plan.
    compiled = (len(numba_fast.band.signatures), len(numba_exact.band.signatures))  # type: ignore[attr-defined]
    assert numba_.warm(made) >= 0.0
    assert compiled == (1, 1)
