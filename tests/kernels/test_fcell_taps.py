"""Taps and the effective input: what they hold, that they come from the backend, and how two sides compare."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.fcell import Beam, Crystal, Detector, Experiment, FcellRefused, Grid, Source, simulate
from kernels.fcell.digest import differences, effective_input, parse, sha256
from kernels.fcell.taps import (
    TapsRefused,
    compare,
    leaves,
    read_taps,
    side_by_side,
    table,
    taps,
    write_taps,
)
from tests.kernels.fcell_cases import everything, experiment, small_grid

# (17, 22) is the middle; (12, 21) meets listed cells, all four sub-pixels.
PIXELS = {"edge": (0, 0), "centre": (17, 22), "listed": (12, 21)}


def take(told: Experiment | None = None, grid: Grid | None = None, **options: Any) -> list[dict[str, Any]]:
    return taps(told or experiment(), grid or small_grid(), PIXELS, "run", **options)


def pick(records: list[dict[str, Any]], tap: int, place: str) -> dict[str, Any]:
    [found] = [r["values"] for r in records if r["tap"] == tap and r["place"] == place]
    return dict(found)


def changed(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> set[tuple[int, str]]:
    """(tap, place) of the records whose numbers differ."""
    return {
        (a["tap"], a["place"])
        for a, b in zip(first, second, strict=True)
        if dict(leaves(a["values"])) != dict(leaves(b["values"]))
    }


def test_one_record_per_tap_and_pixel_with_its_envelope() -> None:
    records = take()
    assert [(r["tap"], r["place"]) for r in records] == [
        *((n, "edge") for n in (1, 2, 4, 5, 6, 7)),
        *((n, "centre") for n in (1, 3, 4, 5, 6, 7)),
        *((n, "listed") for n in (1, 4, 5, 6, 7)),
    ]
    for record in records:
        assert record["pixel"] == list(PIXELS[record["place"]])
        assert record["oversample"] == 2
        assert record["tag"] == "run"
        assert datetime.fromisoformat(record["utc"]).utcoffset() is not None
    assert len(take(which=(4,))) == 3


def test_values_are_those_of_the_image() -> None:
    told, grid = everything(), small_grid()
    frame = simulate(told, grid).image
    records = take(told, grid, frame=frame)
    for place, (slow, fast) in PIXELS.items():
        final = pick(records, 7, place)
        assert final["final"] == final["without_roi"] == final["from_probe"] == float(frame[slow, fast])
        five, six = pick(records, 5, place), pick(records, 6, place)
        assert five["accumulated"] / five["steps"] * five["polar"] * five["omega"] == pytest.approx(five["normalised"])
        assert six["r_e_squared"] * six["fluence"] * five["normalised"] == pytest.approx(six["physical"])
        assert np.float32(six["physical"]) == np.float32(final["final"])
    assert pick(records, 2, "edge")["used"] == pick(records, 5, "edge")["omega"]
    assert pick(records, 3, "centre")["omega"][0][0] == pick(records, 3, "centre")["used"]


def test_statistics_of_the_lookups() -> None:
    four = pick(take(), 4, "listed")
    assert four["total_lookups"] == four["listed"] == 4
    assert four["grid_hkl_bounds"] == {"h": [-3, 2], "k": [-5, 5], "l": [-6, 4]}
    edge = pick(take(), 4, "edge")
    assert (edge["out_of_grid"], edge["mean_f_cell"]) == (4, 30.0)
    bare = taps(experiment(), None, PIXELS, "run")
    assert pick(bare, 4, "listed")["grid_hkl_bounds"] is None
    assert pick(bare, 4, "listed")["no_grid"] == 4


def test_each_tap_changes_under_its_own_perturbation() -> None:
    told, grid = experiment(), small_grid()
    before = take(told, grid)
    near = replace(told, detector=replace(told.detector, distance_mm=101.0))
    assert {(2, "edge"), (3, "centre")} <= changed(before, take(near, grid))
    louder = Grid(np.where(grid.listed, grid.values * 1.01, grid.values), grid.listed, -3, -5, -6, grid.default_f)
    moved = changed(before, take(told, louder))
    assert {(n, "listed") for n in (1, 4, 5, 6, 7)} <= moved
    assert not {(2, "edge"), (3, "centre"), (4, "edge"), (7, "edge")} & moved
    assert changed(before, take(told, grid)) == set()


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_backends_agree_tap_by_tap(backend: str) -> None:
    pytest.importorskip(backend)
    told, grid = everything(), small_grid()
    found = compare(take(told, grid), take(told, grid, backend=backend))
    assert [d for d in found if not d.ok] == []
    assert len(found) > 100


def test_json_goes_round_and_compares_as_the_same(tmp_path: Path) -> None:
    records = take()
    write_taps(tmp_path / "taps.json", records)
    again = read_taps(tmp_path / "taps.json")
    assert again == records
    assert {d.status for d in compare(records, again)} == {"same"}
    (tmp_path / "object.json").write_text(json.dumps({"program": "x", "records": records}))
    assert read_taps(tmp_path / "object.json") == records


def test_an_external_program_needs_four_fields_only(tmp_path: Path) -> None:
    path = tmp_path / "external.json"
    path.write_text('[{"tap": 5, "pixel": [0, 0], "oversample": 2, "values": {"accumulated": 1.0, "steps": 4}}]')
    [record] = read_taps(path)
    ours = take(which=(5,))
    found = {(d.pixel, d.field): d.status for d in compare(ours, [record])}
    assert found[(0, 0), "steps"] == "same"
    assert found[(0, 0), "accumulated"] == "differs"
    assert found[(0, 0), "omega"] == "missing"
    assert found[(17, 22), "steps"] == "missing"
    passes = {d.status: d.ok for d in compare(ours, [record])}
    assert passes == {"same": True, "differs": False, "missing": False}


def altered(tap: int, field: str, value: Any) -> list[dict[str, Any]]:
    records = json.loads(json.dumps(take()))
    for record in records:
        if record["tap"] == tap and record["place"] == "listed":
            record["values"][field] = value(record["values"][field])
    return list(records)


@pytest.mark.parametrize(
    ("tap", "field", "value", "status"),
    [
        (5, "accumulated", lambda x: x * (1 + 5e-7), "close"),
        (5, "accumulated", lambda x: x * (1 + 5e-6), "differs"),
        (5, "accumulated", lambda x: math.nan, "differs"),
        (5, "accumulated", lambda x: str(x), "differs"),
        (5, "accumulated", lambda x: None, "differs"),
        (5, "accumulated", lambda x: True, "differs"),
        (4, "listed", lambda x: x + 1, "differs"),
        (4, "listed", lambda x: x * (1 + 1e-9), "differs"),
        (4, "listed", float, "same"),
        (1, "shape", lambda x: "gauss", "differs"),
        (4, "zero_f_count", lambda x: 1, "differs"),
    ],
)
def test_fields_are_compared_one_by_one(tap: int, field: str, value: Any, status: str) -> None:
    found = compare(take(), altered(tap, field, value))
    odd = [d for d in found if d.status != "same"]
    assert [(d.tap, d.field, d.status) for d in odd] == ([] if status == "same" else [(tap, field, status)])
    assert all(d.ok for d in odd) == (status in ("same", "close"))


def test_extra_is_told_and_does_no_harm() -> None:
    more = altered(4, "listed", lambda x: x)
    more[0]["values"]["colour"] = "red"
    odd = [d for d in compare(take(), more) if d.status != "same"]
    assert [(d.field, d.status, d.ok) for d in odd] == [("colour", "extra", True)]
    assert [d.status for d in compare(take(which=(5,)), take(which=(5, 6))) if d.tap == 6] == ["extra"] * 12


def test_edge_and_centre_side_by_side() -> None:
    rows = {(r.name, r.field): r for r in side_by_side(take())}
    omega = rows["omega", "omega[0][0]"]
    assert omega.edge < omega.centre
    assert omega.difference == pytest.approx(omega.centre - omega.edge)
    assert omega.ratio == pytest.approx(omega.centre / omega.edge)
    assert rows["config", "shape"].difference is None
    assert rows["f_cell", "listed"].ratio is None  # nothing listed at the edge
    assert ("f_cell", "listed") in rows


def test_table_has_one_row_a_field() -> None:
    rows = table(take())
    assert len({tuple(row) for row in rows}) == 1
    [row] = [r for r in rows if r["tap"] == 4 and r["place"] == "listed" and r["field"] == "sampled_hkl_bounds.k[1]"]
    assert isinstance(row["number"], float)
    assert [r["text"] for r in rows if r["field"] == "shape"] == ["square"] * 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no tap records"),
        ('{"a": 1}', "holds no tap records"),
        ("[1]", "record 0 is not an object"),
        ('[{"tap": 8}]', "record 0: tap is 8, and taps are 1 to 7"),
        ('[{"tap": true}]', "tap is True"),
        ('[{"tap": 4, "pixel": [1]}]', r"pixel is \[1\]"),
        ('[{"tap": 4, "pixel": [1, 2], "oversample": "2"}]', "oversample is '2'"),
        ('[{"tap": 4, "pixel": [1, 2], "oversample": 2}]', "has no values"),
    ],
)
def test_bad_taps_are_refused_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(TapsRefused, match=words) as caught:
        read_taps(path)
    assert "bad.json" in str(caught.value)


def test_what_cannot_be_tapped_is_refused() -> None:
    with pytest.raises(TapsRefused, match="no pixel to tap"):
        taps(experiment(), None, {}, "run")
    with pytest.raises(TapsRefused, match="there is no tap 8: there are 1, 2"):
        take(which=(8,))
    with pytest.raises(TapsRefused, match="pixel edge must be"):
        taps(experiment(), None, {"edge": (1, 2.5)}, "run")  # type: ignore[dict-item]
    with pytest.raises(FcellRefused, match=r"pixel \(36, 0\) is outside"):
        taps(experiment(), None, {"edge": (36, 0)}, "run")
    with pytest.raises(TapsRefused, match="the frame is"):
        take(frame=np.zeros((2, 2), np.float32))
    with pytest.raises(TapsRefused, match=r"tap 4 of pixel .* twice"):
        compare(take(which=(4,)) * 2, take(which=(4,)))
    with pytest.raises(TapsRefused, match="nothing to compare"):
        compare([], take(which=(4,)))
    with pytest.raises(TapsRefused, match=r"none.json cannot be read"):
        read_taps("none.json")


# --- effective input ------------------------------------------------------------------------------------------

BENCHMARK = """\
fcell-effective-input 1
cell_a 1.000000000e+02 1.000000000e+02 1.000000000e+02
cell_deg 9.000000000e+01 9.000000000e+01 9.000000000e+01
cells 5 5 5
shape square
fudge 1.000000000e+00
misset_deg 0.000000000e+00 0.000000000e+00 0.000000000e+00
mosaic 0.000000000e+00 1 -12345678
fluence 1.259320153e+29
polarisation 0.000000000e+00
source 1.000000000 0.000000000 0.000000000 5.000000000e-01
detector 4096 4096 2
pixel_mm 5.000000000e-02
distance_mm 5.000000000e+02
centre_mm 1.024250000e+02 1.024250000e+02
phi_deg 0.000000000e+00 0.000000000e+00 1
interpolate 0
default_f 1.000000000e+02
grid 0 1 5 5 -2 -1
listed 3
listed_sum 1.200000000e+01
listed_sum_squares 5.000000000e+01
"""


def benchmark_input() -> tuple[Experiment, Grid]:
    told = Experiment(
        Crystal((100, 100, 100, 90, 90, 90), (5, 5, 5), default_f=100.0),
        Beam(0.5),
        Detector(4096, 4096, 0.05, 500.0, 2),
    )
    listed = np.array([[[True, False]], [[True, True]]])
    return told, Grid(np.array([[[3.0, 0.0]], [[4.0, 5.0]]]), listed, 0, 5, -2)


def test_effective_input_is_this_text() -> None:
    told = effective_input(*benchmark_input())
    assert told.text == BENCHMARK
    assert told.sha256 == hashlib.sha256(BENCHMARK.encode()).hexdigest() == sha256(BENCHMARK)
    assert told.values["grid"] == "0 1 5 5 -2 -1"
    assert "grid none\nlisted 0\n" in effective_input(benchmark_input()[0]).text


def test_units_do_not_change_the_digest_and_inputs_do() -> None:
    told, grid = benchmark_input()
    metres = replace(told, detector=replace(told.detector, pixel_mm=5e-5 * 1e3, distance_mm=0.5 * 1e3))
    assert metres.detector.pixel_mm == pytest.approx(0.05)
    right = effective_input(told, grid).sha256
    assert effective_input(metres, grid).sha256 == right
    assert (
        effective_input(replace(told, beam=Beam(0.5, sources=(Source((7.0, -0.0, 1e-15), 0.5),))), grid).sha256 == right
    )
    louder = Grid(grid.values + 0.25 * grid.listed, grid.listed, 0, 5, -2)
    others = [
        effective_input(told).sha256,
        effective_input(told, louder).sha256,
        effective_input(told, Grid(grid.values, grid.listed, 0, 5, -1)).sha256,
        effective_input(replace(told, interpolate=True), grid).sha256,
        effective_input(replace(told, crystal=replace(told.crystal, default_f=99.0)), grid).sha256,
        effective_input(replace(told, crystal=replace(told.crystal, cells=(5, 5, 7))), grid).sha256,
        effective_input(replace(told, detector=replace(told.detector, distance_mm=500.00001)), grid).sha256,
        effective_input(replace(told, detector=replace(told.detector, centre_mm=(102.4, 102.425))), grid).sha256,
        effective_input(replace(told, beam=Beam(0.5, polarisation=0.1)), grid).sha256,
    ]
    assert len({right, *others}) == len(others) + 1


def test_what_differs_is_named() -> None:
    told, grid = benchmark_input()
    here, there = effective_input(told, grid).text, effective_input(told).text
    assert [key for key, _, _ in differences(here, there)] == ["grid", "listed", "listed_sum", "listed_sum_squares"]
    assert differences(here, here) == []
    two = replace(told, beam=Beam(0.5, sources=(Source((1, 0, 0), 0.5), Source((1, 0, 0), 0.6))))
    assert [key for key, _, _ in differences(here, effective_input(two, grid).text)] == ["source-2"]
    assert parse("a 1\na 2\n") == {"a": "1", "a-2": "2"}
