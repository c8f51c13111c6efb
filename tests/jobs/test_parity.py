"""The parity job: its whole default matrix once, and then every way in which it must not be fooled."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from core.errors import CheckCannotFail, JobFailed
from jobs.parity import Params, Parity, dump, exchange, gates, predictions, verdict, wiring
from jobs.parity import rows as table
from jobs.parity.adapter import Inputs
from jobs.parity.kernels.photographs import photograph
from jobs.parity.kernels.translation import TOLERANCE, Case, Translation, batch, cells, patches, reference
from jobs.parity.kernels.translation_mutants import SPOILED, mutants
from jobs.parity.questions import QUESTIONS
from jobs.parity.settle import settle
from jobs.parity.sides import Report, Task
from jobs.parity.verdict import Judgement, Reference, judge
from jobs.parity.words import Phase, Role, Verdict
from kernels.translation import translate
from kernels.translation.groups import stitch
from tests.jobs.context import Left, Recorder
from tests.jobs.outsider import install

ROOT = Path(__file__).resolve().parents[2]
LIMIT = TOLERANCE["complex64"]
# The smallest run that still has a backend, every mutant and every gate.
SMALL: dict[str, Any] = {"backends": ("torch",), "sizes": (4,), "channels": (1,), "patch": 16, "repeats": 1}
OUTSIDE: dict[str, Any] = {**SMALL, "sizes": (4, 64), "train": 4, "predict": 8}


def recorder(tmp_path: Path, **params: Any) -> Recorder:
    kind = Parity()
    return Recorder(kind, kind.Params(**params), tmp_path / "attempt")


@pytest.fixture(
    scope="module",
    # Its pictures of 64 pixels cost half of it, and show nothing that those of 16 do not: `make test-long` has them.
    params=[pytest.param({"patch": 16}, id="small"), pytest.param({}, id="default", marks=pytest.mark.long)],
)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """The default run, as a newcomer starts it: all of its cells, all that it draws."""
    ctx = recorder(tmp_path_factory.mktemp("parity"), **request.param)
    ctx.run()
    return ctx


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the whole run is drawn: a second a run, and nothing is asked of the pictures of the others."""
    for name in ("draw", "draw_grid"):
        monkeypatch.setattr(f"jobs.parity.figure.{name}", lambda *_: None)


# The default run.


def test_every_cell_passes_and_every_mutant_is_caught(whole: Recorder) -> None:
    by_role: dict[str, set[str]] = {}
    for row in whole.rows:
        by_role.setdefault(row["role"], set()).add(row["verdict"])
    assert by_role == {"candidate": {"pass"}, "mutant": {"fail"}, "gate": {"pass"}}


def test_the_plan_was_kept(whole: Recorder) -> None:
    assert whole.expected == {
        "rows": {"parity": len(whole.rows), "patches": len(whole.tables["patches"])},
        "artifacts": ["parity.png", "patches.png"],
    }
    for name in whole.expected["artifacts"]:
        assert (whole.artifacts / name).read_bytes().startswith(b"\x89PNG")
    assert whole.steps[-1] == (len(whole.rows), len(whole.rows))
    assert sorted(r["cell"] for r in whole.rows) == list(range(len(whole.rows)))
    for name in whole.tables:
        whole.table(name).validate(full=True)


def test_the_matrix_is_the_whole_one(whole: Recorder) -> None:
    for backend in ("numba", "torch", "tensorflow-eager", "tensorflow-graph", "tensorflow-xla"):
        mine = [r for r in whole.rows if r["candidate"] == backend]
        mixed = {(r["size"], r["channels"]) for r in mine if r["case"] == "mixed"}
        assert mixed == {(1, 1), (4, 1), (4, 4), (16, 1), (16, 4), (64, 1), (64, 4), (128, 1), (128, 4)}
        assert {r["case"] for r in mine} == {"mixed", "zero", "integer", "predict"}
        assert all(r["tolerance"] == 0 and r["max_abs"] == 0 for r in mine if r["case"] in ("zero", "integer"))
        assert all(r["tolerance"] == LIMIT and 0 < r["max_rel"] <= LIMIT for r in mine if r["case"] == "mixed")
        assert {r["size"] for r in mine if r["case"] == "predict"} == {128}


def test_rows_2_4_5_and_8_of_the_trap_table_are_there(whole: Recorder) -> None:
    seen = {r["candidate"] for r in whole.rows if r["role"] == "mutant"}
    assert seen == {*SPOILED, *gates.BAD_GATES}
    assert {m.trap for m in mutants(64).values()} | {g.trap for g in gates.BAD_GATES.values()} >= {2, 4, 5, 8}
    reasons = {r["candidate"]: r["reason"] for r in whole.rows if r["role"] == "mutant"}
    shape = (128, 1, whole.params.patch, whole.params.patch)
    assert f"not {shape}" in reasons["repeats-by-zero"] or "(0, 4" in reasons["repeats-by-zero"]
    assert "collapsed" in reasons["collapses"]
    assert "said ok to mutant collapses" in reasons["gate-ratio-is-computable"]


def test_inputs_are_proven_equal_and_environments_are_those_of_the_sides(whole: Recorder) -> None:
    for row in whole.rows:
        if row["case"] == "examination":
            continue
        assert row["input_digest"] == row["candidate_digest"]
        env, versions = json.loads(row["env"]), json.loads(row["versions"])
        assert env["OMP_NUM_THREADS"] == str(row["threads"]) == "1"
        assert env["CUDA_VISIBLE_DEVICES"] == ""
        assert not {"torch", "tensorflow"} <= set(versions), "TensorFlow and torch met in one process"
        if row["role"] == "candidate":
            assert row["seconds"] > 0
            assert row["first_seconds"] > 0
            assert row["peak_mb"] > 10
        if row["candidate"].startswith("tensorflow"):
            xla = row["candidate"] == "tensorflow-xla"
            assert env["ran:xla"] is xla
            assert env["ran:static"] is True
            assert ("auto_jit=2" in env["TF_XLA_FLAGS"]) is xla
    assert not {"torch", "tensorflow"} & _imported_by("jobs.parity.run")


def test_the_table_says_where_it_is_worst(whole: Recorder) -> None:
    for row in whole.rows:
        if row["max_rel"] is not None:
            assert row["max_rel"] == max(row["edge_error"], row["centre_error"])
            assert 0 <= row["worst_image"] < row["size"]


def test_statistics_of_predictions_are_kept_for_training_and_inference(whole: Recorder) -> None:
    rows = whole.tables["patches"]
    assert {r["role"] for r in rows} == {"candidate"}
    assert {(r["verdict"], r["status"]) for r in rows} == {("pass", "ok")}
    for backend in ("numba", "torch", "tensorflow-eager", "tensorflow-graph", "tensorflow-xla"):
        mine = [r for r in rows if r["candidate"] == backend]
        sizes = {(r["phase"], r["batch_index"]): r["batch"] * r["channels"] for r in mine}
        assert sizes == {
            ("train", 0): 16,
            ("train", 1): 16,
            ("inference", 0): 128,
            ("inference", 1): 128,
            ("inference", 2): 1,
            ("inference", 3): 4,
        }
        for r in mine:
            assert r["count"] == r["batch"] * r["channels"] == len(r["patch_mean"]) == len(r["patch_max"])
            assert r["contrast"] > 1e-6 < r["level"]
            assert abs(r["mean_ratio"] - 1) < 1e-5 > abs(r["var_zero_mean_delta"])
            assert min(r["patch_min"]) >= 0


def test_the_three_questions_have_answers(whole: Recorder) -> None:
    """The SQL of the page, on two runs and two lanes."""
    import duckdb
    import pyarrow as pa

    one = whole.table("parity")
    runs = []
    for job, lane in ((1, "here"), (2, "there")):
        origin = {"job": pa.array([job] * len(one)), "lane": pa.array([lane] * len(one))}
        runs.append(pa.table({**origin, **{name: one[name] for name in one.column_names}}))
    parity = pa.concat_tables(runs)  # noqa: F841  (the queries read it)
    worst, drift, time_by_lane = (
        QUESTIONS[name].sql.format("1", "2", jobs="true") for name in ("worst", "drift", "time")
    )
    found = duckdb.sql(worst).fetchall()
    assert {(r[0], r[1]) for r in found} == {("translation", b) for b in Params().backends}
    for _, name, *_, error, _, _ in found:
        assert error == max(r["max_rel"] for r in whole.rows if r["candidate"] == name)
    rows = duckdb.sql(drift).fetchall()
    assert len(rows) == sum(r["role"] == "candidate" for r in whole.rows)
    assert {(r[6], r[7]) for r in rows} == {(True, 0.0)}
    times = duckdb.sql(time_by_lane).fetchall()
    assert {(r[0], r[2]) for r in times} == {(lane, b) for lane in ("here", "there") for b in Params().backends}


# Imports, parameters.


def _imported_by(module: str) -> set[str]:
    code = f"import {module}, sys; print(*sorted(m for m in sys.modules if '.' not in m))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_kind_is_light() -> None:
    heavy = {"torch", "tensorflow", "numpy", "pyarrow", "skimage", "matplotlib", "scipy", "ray"}
    assert not heavy & _imported_by("jobs.parity")
    assert not heavy & _imported_by("jobs.parity.outside"), "what a submit needs to name its inputs"


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"backends": ["jax"]}, "'jax' is none of numba, torch, tensorflow-eager"),
        ({"backends": []}, "at least one"),
        ({"backends": "torch,torch"}, "each once"),
        ({"dtypes": "float16"}, "'float16' is none of complex64, complex128"),
        ({"sizes": [0]}, "between 1 and"),
        ({"sizes": [4, 4]}, "twice"),
        ({"sizes": ["four"]}, "valid integer"),
        ({"sizes": [3], "channels": [4]}, "no size of"),
        ({"train": 3, "channels": [4]}, "divides both train=3"),
        ({"patch": 2}, "greater than or equal to 4"),
        ({"patch": 1000}, "less than or equal to 256"),
        ({"tolerance": 0}, "above 0"),
        ({"tolerance": float("nan")}, "finite"),
        ({"kernel": "rotation"}, "'translation', 'fcell', 'postfilter' or 'pinn'"),
        ({"kernel": "fcell", "sizes": "4"}, "sizes means nothing for fcell: it belongs to translation"),
        ({"kernel": "fcell", "backends": "tensorflow-xla"}, "'tensorflow-xla' is none of numba, torch, torch-cuda"),
        ({"backends": "numba", "devices": "cuda"}, "none of numba runs on cuda"),
        ({"devices": "tpu"}, "'tpu' is none of cpu, cuda"),
        ({"kernel": "fcell", "frames": "big"}, "'big' is no pair of numbers"),
        ({"kernel": "fcell", "frames": "0x0"}, "a frame of 0x0 has no pixel"),
        ({"kernel": "fcell", "frames": "8x8", "pixels": "3x8"}, "the pixel 3x8 lies outside a frame of 8x8"),
        ({"kernel": "fcell", "shapes": "cube"}, "'cube' is none of square, round, gauss, tophat"),
        ({"tolernce": 1}, "Extra inputs are not permitted"),
    ],
)
def test_bad_parameters_are_refused_in_one_sentence(params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Params(**params)
    assert len(caught.value.errors()) == 1
    assert sentence in caught.value.errors()[0]["msg"]


def test_lists_may_be_written_with_commas() -> None:
    params = Params(backends="torch, tensorflow-xla", sizes="4,16", channels=4)
    assert params.backends == ("torch", "tensorflow-xla")
    assert params.sizes == (4, 16)
    assert params.channels == (4,)
    assert Parity().describe(params) == "translation: torch, tensorflow-xla at complex64, B·C 4,16"


# Statistics, dumps.


@pytest.mark.parametrize(
    ("spoil", "status", "reason"),
    [
        (lambda v: v, "ok", "as the oracle's"),
        (np.zeros_like, "collapsed", "collapsed beside the oracle's batch"),
        (lambda v: v[:0], "missing", "missing beside the oracle's batch"),
        (lambda v: v * np.nan, "missing", "missing beside the oracle's batch"),
        (lambda v: v * 1e-5, "collapsed", "collapsed beside"),
        (lambda v: v.mean((-2, -1), keepdims=True) + 0 * v, "collapsed", "collapsed beside"),
    ],
)
def test_statistics_of_a_batch_say_what_it_is(tmp_path: Path, spoil: Any, status: str, reason: str) -> None:
    adapter = Translation(Params(**SMALL), tmp_path, {})
    (cell,) = (c for c in adapter.cells() if c.case == Case.MIXED)
    task = Task(0, "mine", Role.CANDIDATE, "backend:mine", cell)
    (planned,) = predictions.planned(adapter, [task], 3)
    right = adapter.given(cell).reference.values
    (row,) = predictions.rows(adapter, [planned], Report(task, None, None, ""), spoil(right.astype("complex64")))
    assert (row["status"], row["verdict"]) == (status, "pass" if status == "ok" else "fail")
    assert row["reason"].startswith(reason)
    if status == "ok":
        settle([], [], [row])
    else:
        with pytest.raises(JobFailed, match="batches of predictions are no good: mine at mixed"):
            settle([], [], [row])


def test_a_first_call_that_gave_nothing_is_missing_however_good_the_second(tmp_path: Path) -> None:
    adapter = Translation(Params(**SMALL), tmp_path, {})
    (cell,) = (c for c in adapter.cells() if c.case == Case.PREDICT)
    task = Task(0, "mine", Role.CANDIDATE, "backend:mine", cell)
    batches = predictions.planned(adapter, [task], 3)
    rows = predictions.rows(adapter, batches, Report(task, None, None, ""), adapter.given(cell).reference.values)
    assert [(r["phase"], r["status"]) for r in rows] == [("train", "missing"), ("inference", "ok")]


def test_the_number_of_batches_kept_has_a_limit(tmp_path: Path) -> None:
    adapter = Translation(Params(), tmp_path, {})
    tasks = [Task(i, "mine", Role.CANDIDATE, "backend:mine", c) for i, c in enumerate(adapter.cells())]
    for limit in (0, 1, 3):
        found = predictions.planned(adapter, tasks, limit)
        assert [b.phase for b in found].count(Phase.INFERENCE) == limit
        assert [b.phase for b in found].count(Phase.TRAIN) == min(limit, 2)


def test_a_dump_holds_metadata_amplitudes_and_a_canvas(tmp_path: Path) -> None:
    ctx = recorder(tmp_path, **{**SMALL, "patch": 32, "dump": True, "batches": 0})
    ctx.run()
    assert ctx.expected["artifacts"] == ["parity.png", "dump.json", "dump.npz", "canvas.png"]
    assert "patches" not in ctx.tables
    told = json.loads((ctx.artifacts / "dump.json").read_text())
    assert told["cell"] == "scan complex64 16×1"
    assert len(told["offsets"]) == len(told["positions"]) == 16
    assert told["statistics"]["torch"]["count"] == 16
    (pair,) = told["canvas"]["pairs"]
    assert (pair["first"], pair["second"]) == ("oracle", "torch")
    assert pair["mae"] < 1e-6
    assert pair["ssim"] > 0.999999
    with np.load(ctx.artifacts / "dump.npz") as arrays:
        assert arrays["torch-raw"].shape == (16, 32, 32)
        assert (arrays["torch-normalised"].min(), arrays["torch-normalised"].max()) == (0, 1)
        canvas = arrays["oracle-canvas"]
    assert list(canvas.shape) == told["canvas"]["shape"]
    # Put together the right way, the patches are the photograph again; the other way they are not.
    scan = Translation(ctx.params, tmp_path, {}).dumped()
    patch, positions = scan.height, np.array(told["positions"])
    inner = np.ascontiguousarray(batch(scan, 0).reference.values.reshape(-1, patch, patch)[:, 1:-1, 1:-1])
    middle = positions.mean(axis=0) + 128 - patch // 4 + (patch - 1) / 2
    x, y = np.round(middle - (len(canvas) - 1) / 2).astype(int)
    photo = photograph("camera.png")[y : y + len(canvas), x : x + len(canvas)]
    within = (slice(10, -10), slice(10, -10))
    for found, same in ((canvas, True), (np.abs(stitch(inner, -positions)), False)):
        correlation = np.corrcoef(photo[within].ravel(), found[within].ravel())[0, 1]
        assert correlation > 0.99 if same else correlation < 0.5


def test_canvases_of_two_shapes_or_none_are_not_compared() -> None:
    picture = np.linspace(0, 1, 100).reshape(10, 10)
    same, other = dump.compared({"a": picture, "b": picture, "c": picture + 0.1})[:2]
    assert (same["mae"], same["ssim"]) == (0, 1)
    assert other["mae"] == pytest.approx(0.1)
    assert other["ssim"] < 1
    (none,) = dump.compared({"a": picture, "b": picture[1:]})
    assert none["mae"] is None


# Inputs.


def test_batches_are_photographs_and_the_same_everywhere() -> None:
    cell = patches(Case.MIXED, "complex64", 32, 4, 64)
    given = batch(cell, 0)
    batch.cache_clear()
    assert batch(cell, 0).effective == given.effective
    assert batch(cell, 1).effective != given.effective
    assert Translation.effective(Inputs({"images": given.images, "offsets": given.offsets})) == given.effective
    pixels = photograph("camera.png")
    assert pixels.shape == (512, 512)
    assert 0 <= pixels.min() < 0.01 < 0.99 < pixels.max() <= 1
    assert np.abs(given.images).max() <= 1 + 1e-6
    assert not given.images.flags.writeable


def test_offsets_are_of_every_kind() -> None:
    t = batch(patches(Case.MIXED, "complex64", 32, 4, 64), 0).offsets.reshape(-1, 2)
    whole = t == np.floor(t)
    assert (~whole & (t < 0)).any()
    assert (~whole & (t > 0)).any()
    assert (~whole & (np.abs(t) > 1)).any()
    assert (whole.all(axis=1) & (t != 0).all(axis=1)).any()
    assert (t == 0).all(axis=1).any()
    assert (np.abs(t) > 64).any()


# The judge.


def given_batch() -> tuple[Reference, npt.NDArray[Any], npt.NDArray[Any]]:
    given = batch(patches(Case.MIXED, "complex64", 4, 4, 32), 0)
    return given.reference, given.images, given.offsets


def test_the_judge_cannot_be_told_whose_arrays_they_are() -> None:
    assert list(inspect.signature(judge).parameters) == ["reference", "candidate", "tolerance"]


def test_the_judge_passes_what_is_right() -> None:
    right, _, _ = given_batch()
    assert judge(right, right.values.astype("complex64"), LIMIT).verdict is Verdict.PASS


@pytest.mark.parametrize(
    "spoil",
    [
        lambda i, t: translate(i, t + np.float32(1e-3)),
        lambda i, t: translate(i, t) * 1.001,
        lambda i, t: translate(i, t) + 1e-6,
        lambda i, t: np.conj(translate(i, t)),
        lambda i, t: np.abs(translate(i, t)) * np.exp(1j * np.angle(translate(i, t.round()))),
        lambda i, t: translate(i, t[..., ::-1]),
        lambda i, t: translate(i, t)[..., :1, :],
        lambda i, t: translate(i, t).real,
        lambda i, t: np.where(np.abs(translate(i, t)) < 0.01, 0, translate(i, t)),
        lambda i, t: translate(i, t).astype(np.complex64).astype(np.complex128) * (1 + 1e-6),
    ],
)
def test_the_judge_fails_what_is_a_little_wrong(spoil: Callable[..., Any]) -> None:
    right, images, offsets = given_batch()
    assert judge(right, spoil(images, offsets), LIMIT).verdict is Verdict.FAIL


def test_one_bad_pixel_of_a_batch_is_enough() -> None:
    right, _, _ = given_batch()
    spoiled = right.values.copy()
    spoiled[2, 1, 15, 16] *= 1 + 1e-5
    found = judge(right, spoiled, LIMIT)
    assert found.verdict is Verdict.FAIL
    assert "image 9, y 15, x 16" in found.reason
    assert found.errors is not None
    assert found.errors.correlation > 0.9999999


def test_bit_for_bit_means_the_sign_of_zero_too() -> None:
    images = np.array([[[1 + 1j, -0.0], [2, 3]]], dtype="complex64")
    right = reference(images, np.zeros((1, 2)))
    assert judge(right, images, 0.0).verdict is Verdict.PASS
    found = judge(right, images + 0, 0.0)
    assert found.verdict is Verdict.FAIL
    assert "sign of a zero" in found.reason


@pytest.mark.parametrize("name", SPOILED)
def test_each_mutant_fails_for_its_own_reason_and_would_pass_without_its_bug(name: str) -> None:
    mutant = mutants(32)[name]
    for cell in mutant.cells:
        filled = batch(cell, 5)
        given = filled.given(0.0 if cell.case in (Case.ZERO, Case.INTEGER) else LIMIT)
        wrong = SPOILED[name](filled.images, filled.offsets)
        assert judge(filled.reference, wrong, given.tolerance).verdict == "fail"
        assert mutant.symptom(given, wrong, given.tolerance)
        right = translate(filled.images, filled.offsets).astype("complex64")
        assert judge(filled.reference, right, given.tolerance).verdict == "pass"
        assert not mutant.symptom(given, right, given.tolerance)
        # Wrong in quite another way: no symptom of this bug.
        assert not mutant.symptom(given, right * np.float32(1.5) + np.float32(0.25), given.tolerance)


@pytest.mark.parametrize(("patch", "seed"), [(4, 0), (16, 0), (16, 1), (64, 0)])
def test_the_examination_finds_the_judge_good_and_the_others_blind(patch: int, seed: int) -> None:
    paper = gates.questions(patch, seed)
    assert gates.examine(gates.judge_gate, paper) == {}
    for name, bad in gates.BAD_GATES.items():
        assert bad.blind_to in gates.examine(bad.says, paper), name
    assert gates.examine(lambda *_: False, paper), "refusing everything is no gate either"


# A run that must fail itself.


def test_a_judge_that_always_says_pass_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, threading.Thread]] = []

    def kind_judge(*_: Any) -> Judgement:
        seen.append((os.getpid(), threading.current_thread()))
        return Judgement(Verdict.PASS, "looks fine")

    monkeypatch.setattr(verdict, "judge", kind_judge)
    ctx = recorder(tmp_path, **SMALL)
    with pytest.raises(CheckCannotFail, match="loses-the-batch") as caught:
        ctx.run()
    assert "the judge itself said ok to mutant" in str(caught.value) or "more" in str(caught.value)
    assert len(ctx.rows) == ctx.expected["rows"]["parity"], "the table is there all the same"
    # Judging happens in this very thread: a breakpoint in the kind stops a debugger.
    assert set(seen) == {(os.getpid(), threading.main_thread())}


def reads_the_labels(given: Any) -> Judgement:
    return judge(given.reference, given.reference.values, 1.0)


@pytest.mark.parametrize(
    ("place", "broken", "found"),
    [
        (verdict, {"same_counts": lambda *_: ""}, "the counts"),
        (table, {"before_the_judge": lambda *_: None}, "compared in spite of"),
        (
            table,
            {"judged": lambda _r, given, _v: verdict.judge(given.reference, given.reference.values, 1.0)},
            "half too much",
        ),
        (table, {"by_its_own_harm": lambda *_: True}, "saw the harm of"),
        (predictions, {"_reason": lambda *_: ""}, "has collapsed"),
    ],
)
def test_a_run_finds_out_what_around_the_judge_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, broken: dict[str, Any], found: str
) -> None:
    ctx = recorder(tmp_path, **SMALL)
    adapter = Translation(ctx.params, tmp_path, {})
    assert wiring.examine(adapter) == {}
    for name, function in broken.items():
        monkeypatch.setattr(place, name, function)
    assert any(found in mistake for mistake in wiring.examine(adapter).values())


def test_a_run_that_tried_nothing_bad_proves_nothing() -> None:
    row = {"role": Role.CANDIDATE, "verdict": Verdict.PASS, "candidate": "torch", "case": "mixed"}
    with pytest.raises(CheckCannotFail, match=r"no mutant .* no gate"):
        settle([row])


def test_a_tolerance_that_lets_a_mutant_pass_fails_the_run(tmp_path: Path) -> None:
    with pytest.raises(CheckCannotFail, match="drops-the-last-line"):
        recorder(tmp_path, **SMALL, tolerance=2.0).run()


def test_a_mutant_that_cannot_run_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "path"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text("import sys\nsys.modules['numpy'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    with pytest.raises(CheckCannotFail, match="blocked"):
        recorder(tmp_path, **SMALL).run()


# Candidates that fail, or cannot run.


def test_a_backend_that_cannot_run_is_blocked_never_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "path"
    broken.mkdir()
    (broken / "torch.py").write_text("raise ImportError('no torch for this machine')\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    ctx = recorder(tmp_path, **SMALL)
    with pytest.raises(JobFailed, match="blocked, ImportError: no torch for this machine") as caught:
        ctx.run()
    assert not isinstance(caught.value, CheckCannotFail)
    mine = [r for r in ctx.rows if r["candidate"] == "torch"]
    assert {r["verdict"] for r in mine} == {"blocked"}
    assert all("Traceback" in r["error"] and r["max_abs"] is None for r in mine)


def test_other_inputs_end_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A side that works on other bytes than the oracle is a mismatch, whatever it computes from them."""
    honest_save = exchange.save
    stolen = batch(patches(Case.PREDICT, "complex64", 128, 1, 16, before=16), 0).images

    def stale(path: Path, array: npt.NDArray[Any]) -> None:
        # One unit in the last place of one number of one batch that no mutant uses.
        if array.shape == stolen.shape and np.array_equal(array, stolen):
            array = np.array(array)
            array.real[0, 0, 0, 0] = np.nextafter(array.real[0, 0, 0, 0], np.float32(2))
        honest_save(path, array)

    monkeypatch.setattr(exchange, "save", stale)
    ctx = recorder(tmp_path, **SMALL)
    with pytest.raises(JobFailed, match="torch at predict complex64 128×1: input mismatch"):
        ctx.run()
    (row,) = (r for r in ctx.rows if r["verdict"] == "input mismatch")
    assert row["input_digest"] != row["candidate_digest"]
    assert row["max_abs"] is None
    assert row["correlation"] is None


def test_outside_candidates_are_judged_from_their_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"swift": "swift", "reference": "slightly", "fine": "honest", "raises": "raises", "quits": "quits"}
    ctx = outside(tmp_path, monkeypatch, candidates={**names, "in-place": "in_place"}, controls={"upside": "backwards"})
    assert set(ctx.inputs) >= {"candidate-swift", "control-upside"}
    with pytest.raises(JobFailed) as caught:
        ctx.run()
    assert not isinstance(caught.value, CheckCannotFail)
    found = {name: {} for name in (*names, "in-place", "upside")}  # type: dict[str, dict[str, set[int]]]
    for row in ctx.rows:
        if row["candidate"] in found:
            found[row["candidate"]].setdefault(row["verdict"], set()).add(row["size"])
    assert found["fine"].keys() == {"pass"}
    assert found["swift"] == {"pass": {4, 8}, "fail": {64}}
    assert "fail" in found["reference"], "a name proves nothing"
    assert found["raises"].keys() == {"blocked"}
    assert found["quits"].keys() == {"blocked"}
    assert found["in-place"].keys() == {"blocked"}
    assert "fail" in found["upside"]
    assert "swift at mixed complex64 64×1: fail" in str(caught.value)
    reasons = {r["reason"] for r in ctx.rows if r["candidate"] == "quits"}
    assert reasons == {"the side's process ended with exit code 3 before it answered"}


def test_a_control_that_passes_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = outside(tmp_path, monkeypatch, controls={"known-bad": "honest"})
    with pytest.raises(CheckCannotFail, match=r"known-bad \(registered as a control, pass in all"):
        ctx.run()


def test_a_silent_side_is_blocked_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = outside(tmp_path, monkeypatch, candidates={"thinker": "sleeps"}, side_time_s=4)
    with pytest.raises(JobFailed, match="no answer in 4 s"):
        ctx.run()
    assert {r["verdict"] for r in ctx.rows if r["candidate"] == "thinker"} == {"blocked"}


def test_asked_to_stop_it_leaves_and_leaves_nothing_running(tmp_path: Path) -> None:
    ctx = recorder(tmp_path, **SMALL)
    ctx.stopping = True
    with pytest.raises(Left):
        ctx.run()
    assert _running("jobs.parity.candidate", str(ctx.work)) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="parent death signals are Linux's")
def test_sides_die_with_the_run(tmp_path: Path) -> None:
    install(tmp_path / "site", candidates={"thinker": "sleeps"})
    script = (
        "import sys; from pathlib import Path; from tests.jobs.test_parity import recorder, SMALL;"
        "recorder(Path(sys.argv[1]), **SMALL).run()"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path / "site")])}
    parent = subprocess.Popen([sys.executable, "-P", "-c", script, str(tmp_path)], env=env)
    mark = str(tmp_path / "attempt" / "work" / "sides")
    _wait(lambda: len(_running("jobs.parity.candidate", mark)) >= 2, "two sides at once")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _wait(lambda: not _running("jobs.parity.candidate", mark), "the sides to die")


# Helpers.


def outside(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    candidates: dict[str, str] | None = None,
    controls: dict[str, str] | None = None,
    **params: Any,
) -> Recorder:
    """A run in an environment in which another package is installed."""
    site = tmp_path / "site"
    install(site, candidates=candidates, controls=controls)
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    return recorder(tmp_path, **OUTSIDE, **params)


def _running(*words: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if all(word in line for word in words):
                found.append(int(entry.name))
    return found


def _wait(condition: Callable[[], bool], what: str, deadline_s: float = 60) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def test_cells_are_the_plan() -> None:
    assert len(list(cells(Params()))) == 15
    assert len(list(cells(Params(dtypes="complex64,complex128")))) == 30
