"""The parity job on the postfilter: whole frames against the oracle, tiles against whole frames, mutants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import JobFailed
from jobs.parity import Parity, rows, wiring
from jobs.parity.adapter import Array, Given
from jobs.parity.kernels.photographs import coloured
from jobs.parity.kernels.postfilter import TILE_CASE, Postfilter, weights_of
from jobs.parity.kernels.postfilter_mutants import SPOILED
from jobs.parity.rows import row
from jobs.parity.sides import Report, Task
from jobs.parity.verdict import Judgement, Reference, judge
from jobs.parity.words import Role, Verdict
from kernels.postfilter import apply
from tests.jobs.context import Recorder

SMALL: dict[str, Any] = {
    "kernel": "postfilter",
    "backends": "numba,torch",
    "frames": "40x31,27x33",
    "widths": 8,
    "tiles": "7,16",
    "repeats": 1,
    "outside": False,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    kind = Parity()
    ctx = Recorder(kind, kind.Params(**SMALL), tmp_path_factory.mktemp("postfilter") / "attempt")
    ctx.run()
    return ctx


def fresh(tmp_path: Path, **params: Any) -> Postfilter:
    return Postfilter(Parity.Params(**{**SMALL, **params}), tmp_path, {})


def test_whole_frames_are_as_the_oracles_and_tiles_as_whole_frames_bit_for_bit(whole: Recorder) -> None:
    candidates = [r for r in whole.rows if r["role"] == "candidate"]
    assert {r["verdict"] for r in candidates} == {"pass"}
    by_name = {name: [r for r in candidates if r["candidate"] == name] for name in ("numba", "torch")}
    assert {r["case"] for r in by_name["torch"]} == {"h8"}, "its library's sums depend on the frame: no tiles"
    assert {r["case"] for r in by_name["numba"]} == {"h8", "h8 tiles of 7", "h8 tiles of 16"}
    assert {(r["height"], r["width"]) for r in candidates} == {(40, 31), (27, 33)}
    tiled = [r for r in candidates if "tiles" in r["case"]]
    assert all(r["tolerance"] == r["max_abs"] == 0 and r["reason"] == "bit for bit" for r in tiled)


def test_every_mutant_is_caught_for_its_own_reason(whole: Recorder) -> None:
    mutants = [r for r in whole.rows if r["role"] == "mutant" and r["case"] != "examination"]
    assert {r["candidate"] for r in mutants} == set(SPOILED)
    assert all(r["verdict"] == "fail" and r["own_reason"] for r in mutants)


def test_the_plan_was_kept_and_drawn(whole: Recorder) -> None:
    assert whole.expected["rows"] == {name: len(rows) for name, rows in whole.tables.items()}
    for name in whole.expected["artifacts"]:
        assert (whole.artifacts / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", SPOILED)
def test_each_mutant_would_pass_without_its_bug(tmp_path: Path, name: str) -> None:
    subject = fresh(tmp_path)
    mutant = subject.mutants()[name]
    (cell,) = mutant.cells
    given = subject.given(cell)
    wrong = subject.spoiled(name)(given.inputs).values
    assert judge(given.reference, wrong, given.tolerance).verdict is Verdict.FAIL
    assert mutant.symptom(given, wrong, given.tolerance)
    right = given.reference.values.astype(np.float32)
    assert judge(given.reference, right, given.tolerance).verdict is Verdict.PASS
    assert not mutant.symptom(given, right, given.tolerance)
    assert not mutant.symptom(given, np.clip(right * np.float32(0.5) + 60, 0, 255), given.tolerance)


def test_frames_are_photographs_and_the_clamp_is_reached_at_both_ends(tmp_path: Path) -> None:
    subject = fresh(tmp_path)
    (cell,) = subject.mutants()["never-clamps"].cells
    given = subject.given(cell)
    frames, right = given.inputs.arrays["frames"], given.reference.values
    assert coloured("astronaut.png").shape == (512, 512, 3)
    assert frames.dtype == np.float32
    assert np.array_equal(frames, np.round(frames))
    assert (right == 0).any()
    assert (right == 255).any()
    assert (np.abs(right - frames) > 5).mean() > 0.2, "the filter does something"
    assert np.array_equal(right, apply(frames, weights_of(given.inputs)))


def test_tiles_that_differ_by_one_bit_fail(tmp_path: Path) -> None:
    subject = fresh(tmp_path)
    cell = next(c for c in subject.cells("numba") if TILE_CASE in c.case)
    given = subject.given(cell)
    values = given.reference.values.astype(np.float32)
    task = Task(0, "numba", Role.CANDIDATE, "backend:numba", cell)
    spoiled = values.copy()
    spoiled.flat[700] = np.nextafter(spoiled.flat[700], np.float32(300))
    for tiled, verdict in ((values, "pass"), (spoiled, "fail"), (values[..., :-1], "fail")):
        np.save(tmp_path / "tiled.npy", tiled)
        np.save(tmp_path / "whole.npy", values)
        report = Report(task, tmp_path / "tiled.npy", None, "", {"digest": given.digest}, peer=tmp_path / "whole.npy")
        assert row(subject, {}, report, 1)[0]["verdict"] == verdict
    alone = Report(task, tmp_path / "tiled.npy", None, "", {"digest": given.digest})
    assert "nothing to compare itself with" in row(subject, {}, alone, 1)[0]["reason"]


def test_a_run_finds_out_that_tiles_are_held_against_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = fresh(tmp_path)
    assert wiring.examine(subject) == {}
    right = rows.judged
    monkeypatch.setattr(rows, "judged", lambda report, *a: right(replace(report, peer=None), *a))
    assert wiring.examine(subject) == {}, "no peer at all is failed"

    def itself(report: Report, given: Given, values: Array) -> Judgement:
        return judge(Reference(values, np.abs(values)), values, given.tolerance)

    monkeypatch.setattr(rows, "judged", itself)
    assert any("half too much" in mistake for mistake in wiring.examine(subject).values())


def test_a_tile_that_is_too_small_blocks_its_cell(tmp_path: Path) -> None:
    kind = Parity()
    params = kind.Params(**{**SMALL, "backends": "numba", "frames": "27x33", "tiles": "4"})
    ctx = Recorder(kind, params, tmp_path / "attempt")
    with pytest.raises(JobFailed, match="a tile of 4×4 pixels is too small"):
        ctx.run()
    found = {(r["case"], r["verdict"]) for r in ctx.rows if r["role"] == "candidate"}
    assert found == {("h8", "pass"), ("h8 tiles of 4", "blocked")}
