"""The parity job on the F_cell kernel: the matrix, the taps and the controls that keep them honest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import BadInput, CheckCannotFail, JobFailed
from jobs.parity import Parity, taps, wiring
from jobs.parity.adapter import Given, Inputs, Tapping
from jobs.parity.kernels import fcell as adapter
from jobs.parity.kernels.fcell import Fcell, taken
from jobs.parity.kernels.fcell_cases import DEFAULT_F, TIED_PIXEL, made_grid, tied, tied_grid
from jobs.parity.kernels.fcell_mutants import SPOILED
from jobs.parity.settle import settle
from jobs.parity.sides import Report, Task
from jobs.parity.verdict import judge
from jobs.parity.words import Role, Verdict
from kernels.fcell import build_plan, write_hkl
from kernels.fcell.oracle import probe, simulate
from tests.jobs.context import Recorder

CASES = {
    *("default F ×1", "grid ×1", "default F ×2", "grid ×2", "round", "gauss", "tophat"),
    *("triclinic", "phi", "mosaic", "sources", "tricubic", "everything"),
}
SMALL: dict[str, Any] = {"kernel": "fcell", "backends": "torch", "frames": "24x18", "repeats": 1, "outside": False}
LEAST: dict[str, Any] = {**SMALL, "oversamples": 2, "shapes": "square"}


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second a run, and nothing is asked of these pictures."""
    for name in ("draw", "draw_grid"):
        monkeypatch.setattr(f"jobs.parity.figure.{name}", lambda *_: None)


def recorder(tmp_path: Path, **params: Any) -> Recorder:
    kind = Parity()
    return Recorder(kind, kind.Params(**params), tmp_path / "attempt")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """Every case, with the quick backend and the plain one, on a small frame."""
    ctx = recorder(tmp_path_factory.mktemp("fcell"), **{**SMALL, "backends": "numba,torch", "pixels": "3x7"})
    ctx.run()
    return ctx


def fresh(tmp_path: Path, **params: Any) -> Fcell:
    folder = tmp_path / "kernel"
    folder.mkdir(parents=True)
    return Fcell(Parity.Params(**{**LEAST, **params}), folder, {})


# The run.


def test_every_case_passes_on_every_backend_and_every_mutant_is_caught_for_its_own_reason(whole: Recorder) -> None:
    for backend in ("numba", "torch"):
        mine = [r for r in whole.rows if r["candidate"] == backend]
        assert {r["case"] for r in mine} == CASES
        assert {r["verdict"] for r in mine} == {"pass"}
        assert all(r["max_rel"] <= r["tolerance"] == 1e-6 for r in mine)
        assert all(abs(r["sum_ratio"] - 1) < 1e-7 for r in mine)
        assert all(r["input_digest"] == r["candidate_digest"] and len(r["output_digest"]) == 64 for r in mine)
    (constant,) = [r for r in whole.rows if r["candidate"] == "constant-taps"]
    assert (constant["role"], constant["verdict"], constant["own_reason"]) == ("mutant", "fail", True)
    mutants = [r for r in whole.rows if r["role"] == "mutant" and r["case"] != "examination"]
    assert {r["candidate"] for r in mutants} == set(SPOILED)
    assert all(r["verdict"] == "fail" and r["own_reason"] for r in mutants)


def test_the_plan_was_kept(whole: Recorder) -> None:
    assert whole.expected["rows"] == {name: len(rows) for name, rows in whole.tables.items()}
    assert whole.expected["artifacts"] == ["parity.png", "patches.png", "taps.json"]
    for name in whole.tables:
        whole.table(name).validate(full=True)


def test_all_seven_taps_agree_at_edge_centre_listed_and_asked_pixels(whole: Recorder) -> None:
    rows = [r for r in whole.tables["taps"] if r["role"] == "candidate"]
    assert {r["verdict"] for r in rows} == {"pass"}
    for backend in ("numba", "torch"):
        mine = [r for r in rows if r["candidate"] == backend]
        assert {r["tap"] for r in mine} == set(range(1, 8))
        assert {r["tag"] for r in mine} == {"edge", "centre", "listed", "3x7"}
        assert {r["oversample"] for r in mine} == {1, 2}
        listed = [r for r in mine if r["tag"] == "listed" and r["field"] == "listed"]
        assert listed
        assert all(r["value"] == r["oversample"] ** 2 for r in listed)
        assert all(r["oracle_text"] == r["value_text"] for r in mine if r["field"] == "sha256")


def test_every_tap_moves_under_its_own_perturbation_and_so_does_the_oracles(whole: Recorder) -> None:
    gates = [r for r in whole.tables["taps"] if r["role"] == "gate"]
    assert {r["verdict"] for r in gates} == {"pass"}
    for who in ("numpy", "numba", "torch"):
        mine = {(r["perturbed"], r["tap"], r["tag"]) for r in gates if r["candidate"] == who}
        assert mine == {
            ("configuration", 1, "edge"),
            ("geometry", 2, "edge"),
            ("geometry", 3, "centre"),
            *(("grid", tap, "listed") for tap in (4, 5, 6, 7)),
            ("list", 4, "listed"),
        }


def test_taps_are_kept_as_json_with_edge_and_centre_side_by_side(whole: Recorder) -> None:
    told = json.loads((whole.artifacts / "taps.json").read_text())
    assert {d["candidate"] for d in told["records"]} == {"numpy", "numba", "torch"}
    for document in told["records"]:
        assert set(document["records"]) == {"", "configuration", "geometry", "grid", "list"}
    omega = next(r for r in told["edge_and_centre"] if r["field"] == "omega:used")
    assert omega["edge_minus_centre"] == omega["edge"] - omega["centre"] < 0


# Taps that lie.


def told(adapter_: Fcell, change: Any = None) -> tuple[Tapping, Report]:
    """What a side would report of its taps, changed on the way."""
    cell = adapter_.tapped()[0]
    tapping = adapter_.tapping(cell)
    records = {label: [json.loads(json.dumps(r)) for r in found] for label, found in tapping.records.items()}
    if change is not None:
        change(records)
    task = Task(0, "liar", Role.CANDIDATE, "backend:liar", cell)
    return tapping, Report(task, None, None, "", {"taps": records})


def value(records: Any, tap: int, place: str) -> dict[str, Any]:
    found: dict[str, Any] = next(r for r in records if r["tap"] == tap and r["place"] == place)["values"]
    return found


def test_an_honest_tap_passes(tmp_path: Path) -> None:
    subject = fresh(tmp_path)
    _, report = told(subject)
    rows = taps.rows(subject, report)
    assert {r["verdict"] for r in rows} == {"pass"}
    settle([], rows)


@pytest.mark.parametrize(
    ("name", "function", "found"),
    [
        ("difference", lambda *_: "", "passed with another value"),
        ("_before", lambda *_: (None, ""), "taps of another input were compared"),
        ("_moves", lambda *_: iter(()), "tap 4 has no negative control"),
    ],
)
def test_a_run_finds_out_that_its_comparison_of_taps_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, function: Any, found: str
) -> None:
    subject = fresh(tmp_path)
    cell = subject.tapped()[0]
    assert wiring.examine_taps(subject, cell) == []
    monkeypatch.setattr(taps, name, function)
    assert any(found in mistake for mistake in wiring.examine_taps(subject, cell))


@pytest.mark.parametrize("tap", range(1, 8))
def test_a_tap_that_always_says_the_same_fails_the_run(tmp_path: Path, tap: int) -> None:
    def constant(records: Any) -> None:
        for label in records:
            kept = [r for r in records[label] if r["tap"] != tap]
            records[label] = kept + [r for r in records[""] if r["tap"] == tap]

    subject = fresh(tmp_path)
    _, report = told(subject, constant)
    rows = taps.rows(subject, report)
    assert {r["verdict"] for r in rows if r["role"] == "candidate"} == {"pass"}, "it agrees, and proves nothing"
    still = [r for r in rows if r["verdict"] == "fail"]
    assert {r["tap"] for r in still} == {tap}
    with pytest.raises(CheckCannotFail, match=rf"liar tap {tap} .*does not move with the"):
        settle([], rows)


def test_a_tap_that_never_reads_the_grid_is_found_out(tmp_path: Path) -> None:
    """The seed's fourth tap: every branch returned default_F."""

    def default_only(records: Any) -> None:
        for found in records.values():
            value(found, 4, "listed").update(listed=0, unlisted=4, mean_f_cell=DEFAULT_F)

    subject = fresh(tmp_path)
    _, report = told(subject, default_only)
    rows = taps.rows(subject, report)
    wrong = {r["field"] for r in rows if r["role"] == "candidate" and r["verdict"] == "fail"}
    assert wrong == {"listed", "unlisted", "mean_f_cell"}
    with pytest.raises(CheckCannotFail, match="tap 4 mean_f_cell at listed"):
        settle([], rows)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v.update(accumulated=v["accumulated"] / 4), "relative 0.75"),
        (lambda v: v.update(accumulated=v["accumulated"] * (1 + 3e-6)), "relative 3e-06"),
        (lambda v: v.update(steps=v["steps"] + 1), "5 where the oracle has 4"),
        (lambda v: v.update(polar=float("nan")), "off by nan"),
        (lambda v: v.pop("omega"), "the field is missing"),
    ],
)
def test_a_field_that_differs_is_named(tmp_path: Path, change: Any, reason: str) -> None:
    subject = fresh(tmp_path)
    _, report = told(subject, lambda records: change(value(records[""], 5, "centre")))
    rows = taps.rows(subject, report)
    (bad,) = [r for r in rows if r["role"] == "candidate" and r["verdict"] != "pass"]
    assert (bad["tap"], bad["tag"], bad["reason"]) == (5, "centre", bad["reason"])
    assert reason in bad["reason"]
    with pytest.raises(JobFailed, match="1 taps differ from the oracle's: liar tap 5"):
        settle([], rows)


def test_taps_of_other_inputs_are_not_compared(tmp_path: Path) -> None:
    subject = fresh(tmp_path)
    _, report = told(subject)
    for changed in (
        replace(report, mismatch="it opened what was not declared: /tmp/Fdump.bin"),
        replace(report, raw={**report.raw, "digests": {"grid": "0" * 64}}),
    ):
        rows = taps.rows(subject, changed)
        assert {r["verdict"] for r in rows} == {"input mismatch"}
        assert all(r["value"] is None for r in rows)
    rows = taps.rows(subject, replace(report, raw={}, error="boom", reason="RuntimeError: boom"))
    assert {r["verdict"] for r in rows} == {"blocked"}


# Mutants, ties, sums.


def given_of(subject: Fcell, name: str) -> Given:
    return subject.given(subject.mutants()[name].cells[0])


@pytest.mark.parametrize("name", SPOILED)
def test_each_mutant_would_pass_without_its_bug(tmp_path: Path, name: str) -> None:
    subject = fresh(tmp_path)
    mutant, given = subject.mutants()[name], given_of(subject, name)
    wrong = subject.spoiled(name)(given.inputs).values
    assert judge(given.reference, wrong, given.tolerance).verdict is Verdict.FAIL
    assert mutant.symptom(given, wrong, given.tolerance)
    right = given.reference.values.astype(np.float32)
    assert judge(given.reference, right, given.tolerance).verdict is Verdict.PASS
    assert not mutant.symptom(given, right, given.tolerance)
    assert not mutant.symptom(given, right * np.float32(1.5), given.tolerance)


def test_most_of_them_pass_a_correlation(tmp_path: Path) -> None:
    """0.999 was the seed's gate."""
    subject = fresh(tmp_path)
    for name in ("float32-q", "omega-of-each"):
        given = given_of(subject, name)
        wrong = subject.spoiled(name)(given.inputs).values
        assert np.corrcoef(wrong.ravel(), given.reference.values.ravel())[0, 1] > 0.999


def test_the_tied_pixel_lies_exactly_between_two_cells() -> None:
    counts = probe(build_plan(tied(), tied_grid()), *TIED_PIXEL).counts
    (least, greatest), _, _ = counts.bounds
    assert least == greatest
    assert least % 2 == 1, "down to the odd one, where rounding to even goes up"


def test_rounding_to_float32_is_all_that_the_sum_may_be_off_beyond_its_limit(tmp_path: Path) -> None:
    subject = fresh(tmp_path)
    given = subject.given(subject.tapped()[0])
    assert given.reference.sum_limit is not None
    assert 1e-8 < given.reference.sum_limit < 5e-8
    brighter = given.reference.values * (1 + 2e-7)  # every pixel within its tolerance
    found = judge(given.reference, brighter, given.tolerance)
    assert found.verdict is Verdict.FAIL
    assert "the sum is off by 2e-07" in found.reason


# Inputs.


def test_both_sides_write_the_effective_input_from_what_they_hold(tmp_path: Path) -> None:
    subject = fresh(tmp_path)
    given = subject.given(subject.tapped()[0])
    assert Fcell.effective(given.inputs) == given.effective
    experiment, grid = taken(given.inputs)
    assert adapter.settings(experiment) == given.inputs.settings
    assert np.array_equal(simulate(build_plan(experiment, grid)).image64, given.reference.values)
    # One reflection more or less, or a geometry that differs: another input.
    other = Inputs(given.inputs.settings, files={})
    assert Fcell.effective(replace(given.inputs, files=other.files)) != given.effective


def test_a_list_of_ones_own_is_a_declared_input(tmp_path: Path) -> None:
    path = tmp_path / "mine.hkl"
    write_hkl(path, made_grid(5))
    ctx = recorder(tmp_path, **LEAST, hkl=str(path))
    assert ctx.inputs["hkl"] == path
    ctx.run()
    env = {json.loads(r["settings"]).get("interpolate") for r in ctx.rows if r["role"] == "candidate"}
    assert env == {True, False}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1 2 3 4\n1 2 x 4\n", "line 2"),
        ("# nothing\n", "lists no reflection"),
        ("1 2 3 nan\n", "line 1"),
        ("1 2 3 4\n1 2 3 5\n", "(1, 2, 3)"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "mine.hkl"
    path.write_text(text)
    kind = Parity()
    with pytest.raises(BadInput) as caught:
        kind.inputs(kind.Params(**LEAST, hkl=str(path)))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert sentence in str(caught.value)
    # A lane gets a file that was fine when it was submitted; should it not be, that is one sentence too.
    with pytest.raises(BadInput) as again:
        fresh_with(tmp_path, path)
    assert sentence in str(again.value)


def test_a_list_that_is_no_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    kind = Parity()
    for path, sentence in ((tmp_path / "gone.hkl", "does not exist"), (tmp_path, "is no file")):
        with pytest.raises(BadInput, match=sentence) as caught:
            kind.inputs(kind.Params(**LEAST, hkl=str(path)))
        assert "\n" not in str(caught.value)


def fresh_with(tmp_path: Path, hkl: Path) -> None:
    good = tmp_path / "good.hkl"
    write_hkl(good, made_grid(0))
    ctx = recorder(tmp_path, **LEAST, hkl=str(good))
    ctx.inputs["hkl"] = hkl
    ctx.run()


def test_a_side_that_reads_another_list_is_a_mismatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(self: Fcell, experiment: Any, gridded: bool, hkl: Path | None = None) -> Inputs:
        path = hkl or self.folder / "stale.hkl"
        write_hkl(self.folder / "stale.hkl", made_grid(1))
        return Inputs(settings=adapter.settings(experiment), files={"hkl": path} if gridded else {})

    monkeypatch.setattr(Fcell, "_inputs", stale)
    ctx = recorder(tmp_path, **LEAST)
    with pytest.raises((JobFailed, CheckCannotFail), match="input mismatch"):
        ctx.run()
    rows = [r for r in ctx.rows if r["role"] == "candidate" and r["case"] != "default F ×2"]
    assert {r["verdict"] for r in rows} == {"input mismatch"}
    assert all(r["max_rel"] is None and r["correlation"] is None for r in rows)


def test_cuda_where_there_is_none_is_blocked_with_the_reason_never_a_pass(tmp_path: Path) -> None:
    ctx = recorder(tmp_path, **{**LEAST, "devices": "cpu,cuda"})
    with pytest.raises(JobFailed, match=r"torch-cuda at .*: blocked, DeviceMissing: cuda was asked for"):
        ctx.run()
    by_device = {(r["device"], r["verdict"]) for r in ctx.rows if r["role"] == "candidate"}
    assert by_device == {("cpu", "pass"), ("cuda", "blocked")}
    assert {r["verdict"] for r in ctx.tables["taps"] if r["candidate"] == "torch-cuda"} == {"blocked"}


def test_a_run_of_cuda_alone_without_a_gpu_is_refused_before_anything_starts(tmp_path: Path) -> None:
    ctx = recorder(tmp_path, **{**LEAST, "devices": "cuda"})
    with pytest.raises(BadInput, match="torch-cuda need a GPU and this job was given none; submit with --gpus 1"):
        ctx.run()
    assert ctx.expected == {}
