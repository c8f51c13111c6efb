"""The parity job with candidates of other people's: external programs, and what any candidate may not read."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from core import opens
from core.errors import BadInput, CheckCannotFail, JobFailed
from jobs.parity import Params, Parity
from jobs.parity import rows as table
from jobs.parity.adapter import Inputs
from jobs.parity.exchange import put
from jobs.parity.external import ExternalSide
from jobs.parity.kernels.translation import Translation
from jobs.parity.sides import Side, Task
from jobs.parity.words import Role
from tests.jobs.context import Recorder
from tests.jobs.outsider import install

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {"backends": "torch", "sizes": 4, "channels": 1, "patch": 8, "train": 4, "predict": 8}
OPTIONS: dict[str, Any] = {"repeats": 1, "outside": False}
FCELL: dict[str, Any] = {
    "kernel": "fcell",
    "backends": "torch",
    "frames": "12x10",
    "oversamples": 2,
    "shapes": "square",
}
watched = pytest.mark.skipif(not opens.available(), reason="this kernel cannot be asked at every open")

# A translation by somebody else, in his own way: zeros around, one slice a corner.
TRANSLATION = r"""
import hashlib, json, math, sys
import numpy as np
images_file, offsets_file, output, digest = sys.argv[1:5]
images, offsets = np.load(images_file), np.load(offsets_file)
BEFORE
text = ""
for name, a in (("images", images), ("offsets", offsets)):
    shape = "x".join(str(n) for n in a.shape)
    text += f"{name} {a.dtype.str} {shape} {hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()}\n"
height, width = images.shape[-2:]
out = np.zeros(images.shape, dtype=images.dtype)
flat = out.reshape(-1, height, width)
for image, moved, (tx, ty) in zip(images.reshape(flat.shape), flat, offsets.reshape(-1, 2).astype(float)):
    x0, y0 = math.floor(-tx), math.floor(-ty)
    wx, wy = -tx - x0, -ty - y0
    far = max(abs(x0), abs(y0), height, width) + 2
    wide = np.pad(image.astype(complex), far)
    def corner(dx, dy):
        top, left = far + y0 + dy, far + x0 + dx
        return wide[top : top + height, left : left + width]
    lx, ly = tx - math.floor(tx) or 1.0, ty - math.floor(ty) or 1.0
    moved[...] = ly * (lx * corner(0, 0) + wx * corner(1, 0)) + wy * (lx * corner(0, 1) + wx * corner(1, 1))
AFTER
json.dump({"text": text}, open(digest, "w"))
"""
SAVE = "np.save(output, np.stack([out.real, out.imag], axis=-1))"

# An F_cell program: the kernel's own parts in a process of its own, its effective input and its taps written out.
SIMULATION = r"""
import json, sys
sys.path.insert(0, sys.argv[7])
import numpy as np
from kernels.fcell import Beam, Crystal, Detector, Experiment, Goniometer, build_plan, digest, read_hkl, taps
from kernels.fcell.oracle import simulate
params, hkl, output, told, pixels, tapped = sys.argv[1:7]
given = json.load(open(params))
s = given["settings"]
e = Experiment(Crystal(**s["crystal"]), Beam(**s["beam"]), Detector(**s["detector"]), Goniometer(**s["goniometer"]),
               s["interpolate"])
grid = read_hkl(hkl, e.crystal.default_f) if "hkl" in given["files"] else None
image = simulate(build_plan(e, grid)).image
image.tofile(output)
json.dump({"text": digest.effective_input(e, grid).text}, open(told, "w"))
places = {name: tuple(at) for name, at in json.load(open(pixels)).items()}
if places:
    found = taps.taps(e, grid, places, "sim", "numpy", frame=image)
    CHANGE
    taps.write_taps(tapped, found)
"""


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second a run, and nothing is asked of these pictures."""
    for name in ("draw", "draw_grid"):
        monkeypatch.setattr(f"jobs.parity.figure.{name}", lambda *_: None)


def recorder(tmp_path: Path, *, declared: dict[str, Path] | None = None, **params: Any) -> Recorder:
    kind = Parity()
    ctx = Recorder(kind, kind.Params(**{**OPTIONS, **params}), tmp_path / "attempt", inputs=declared)
    ctx.raw = {"inputs": [{"name": n, "path": str(p), "dest": None} for n, p in ctx.inputs.items()]}
    return ctx


def program(tmp_path: Path, text: str, *words: str, **changes: str) -> str:
    path = tmp_path / "program.py"
    for name, line in changes.items():
        text = text.replace(name.upper(), line)
    path.write_text(text)
    return " ".join([sys.executable, str(path), *words])


def translation(tmp_path: Path, *, before: str = "", after: str = SAVE, **params: Any) -> Recorder:
    words = ("{images}", "{offsets}", "{output}", "{digest}")
    command = program(tmp_path, TRANSLATION, *words, before=before, after=after)
    return recorder(tmp_path, **SMALL, program=command, **params)


def mine(ctx: Recorder) -> list[dict[str, Any]]:
    return [r for r in ctx.rows if r["candidate"] == "program"]


# Programs.


def test_a_program_is_held_against_the_oracle_like_a_backend(tmp_path: Path) -> None:
    ctx = translation(tmp_path)
    assert ctx.inputs == {"program-1-program.py": tmp_path / "program.py"}
    ctx.run()
    rows = mine(ctx)
    assert [r["case"] for r in rows] == ["mixed", "zero", "integer", "predict"]
    assert {r["verdict"] for r in rows} == {"pass"}
    assert all(r["input_digest"] == r["candidate_digest"] and r["seconds"] > 0 for r in rows)
    assert {r["verdict"] for r in ctx.tables["patches"] if r["candidate"] == "program"} >= {"pass"}


@watched
def test_a_stale_file_ends_the_comparison_whatever_the_program_computes(tmp_path: Path) -> None:
    stale = tmp_path / "Fdump.bin"
    stale.write_bytes(b"from another day")
    ctx = translation(tmp_path, before=f"open({str(stale)!r}, 'rb').read()")
    with pytest.raises(JobFailed, match=r"input mismatch, it opened what was not declared: .*Fdump\.bin"):
        ctx.run()
    for row in mine(ctx):
        assert row["verdict"] == "input mismatch"
        assert str(stale) in row["reason"]
        assert str(stale) in row["undeclared"]
        assert row["max_rel"] is None
        assert row["correlation"] is None


@watched
def test_it_is_the_watch_that_sees_it(tmp_path: Path) -> None:
    """Without one the same program passes: the digest that it tells is right, and its floats are."""
    stale = tmp_path / "Fdump.bin"
    stale.write_bytes(b"from another day")
    for watch, verdict in (("none", "pass"), ("auto", "input mismatch")):
        (tmp_path / watch).mkdir()
        row = alone(translation(tmp_path / watch, before=f"open({str(stale)!r}, 'rb').read()", watch=watch))
        assert row["verdict"] == verdict
        assert ("not watched" in row["watch"]) is (watch == "none")


@watched
def test_with_the_file_declared_it_passes(tmp_path: Path) -> None:
    table = tmp_path / "Fdump.bin"
    table.write_bytes(b"said beforehand")
    words = ("{images}", "{offsets}", "{output}", "{digest}")
    command = program(tmp_path, TRANSLATION, *words, before=f"open({str(table)!r}, 'rb').read()", after=SAVE)
    ctx = recorder(tmp_path, **SMALL, program=command, declared={"dump": table})
    ctx.run()
    assert {r["verdict"] for r in mine(ctx)} == {"pass"}


@pytest.mark.parametrize(
    ("before", "after", "verdict", "reason"),
    [
        ("", SAVE + "; text = text.replace('offsets', 'shifts')", "input mismatch", "the effective input is"),
        ("", "", "blocked", "the program did not write its floats"),
        ("raise SystemExit(3)", SAVE, "blocked", "ended with exit code 3"),
        ("", "np.save(output, out.real)", "blocked", "is 4×1×8×8, not 4×1×8×8×2"),
        ("", "out[0, 0, 0, 0] = np.nan; " + SAVE, "fail", "1 of 256 numbers are not finite"),
        ("offsets = -offsets", SAVE, "input mismatch", "the effective input is"),
    ],
)
def test_what_a_program_gets_wrong_is_said(tmp_path: Path, before: str, after: str, verdict: str, reason: str) -> None:
    row = alone(translation(tmp_path, before=before, after=after))
    assert row["verdict"] == verdict
    assert reason in row["reason"]


def alone(ctx: Recorder) -> dict[str, Any]:
    """The row of the program's first cell, without any other side."""
    folders = [ctx.work / name for name in ("kernel", "inputs", "sides")]
    for folder in folders[:2]:
        folder.mkdir()
    adapter = Translation(ctx.params, folders[0], {})
    (task,) = (Task(0, "program", Role.CANDIDATE, "program", cell) for cell in adapter.cells()[:1])

    def place(cell: Any, inputs: Inputs) -> str:
        put(folders[1] / "0", inputs)
        return str(folders[1] / "0")

    words = list(ctx.params.command)
    side = ExternalSide(
        Side("program", "", {}, (task,), program=True), folders[2], ctx.params, adapter, words, place,
        threads=1, gpus="",
    )  # fmt: skip
    while (reports := side.poll(patience_s=60)) is None:
        time.sleep(0.01)
    return table.row(adapter, {}, reports[0], 1)[0]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("{program} {images} {output}", "does not say where its effective input goes"),
        ("{program} {images} {hkl} {output} {digest}", "a placeholder that is none of"),
        ("/no/such/program {output} {digest}", "the program /no/such/program is not there"),
    ],
)
def test_commands_that_cannot_work_are_refused_before_anything_starts(
    tmp_path: Path, command: str, sentence: str
) -> None:
    kind = Parity()
    params = kind.Params(**SMALL, program=command.replace("{program}", sys.executable))
    with pytest.raises(BadInput, match=sentence):
        kind.inputs(params)


def test_an_empty_command_is_refused() -> None:
    with pytest.raises(ValidationError, match="give a program and its arguments"):
        Params(program=" ")


# Taps of programs.


def simulation(tmp_path: Path, change: str = "pass", **params: Any) -> Recorder:
    words = ("{params}", "{hkl}", "{output}", "{digest}", "{pixels}", "{taps}", str(ROOT))
    command = program(tmp_path, SIMULATION, *words, change=change)
    # Its parts lie in our source: for this program they are an input like any other.
    return recorder(
        tmp_path, **FCELL, program=command, program_format="float32", declared={"kernels": ROOT / "kernels"}, **params
    )


def test_taps_of_a_program_are_compared_field_by_field_and_have_to_move(tmp_path: Path) -> None:
    ctx = simulation(tmp_path)
    ctx.run()
    assert {r["verdict"] for r in mine(ctx)} == {"pass"}
    rows = [r for r in ctx.tables["taps"] if r["candidate"] == "program"]
    assert {r["verdict"] for r in rows} == {"pass"}
    assert {r["tap"] for r in rows if r["role"] == "candidate"} == set(range(1, 8))
    assert {r["perturbed"] for r in rows if r["role"] == "gate"} == {"configuration", "geometry", "grid", "list"}


def test_a_program_whose_fourth_tap_stands_still_fails_the_run(tmp_path: Path) -> None:
    change = "[r['values'].update(mean_f_cell=50.0) for r in found if r['tap'] == 4]"
    with pytest.raises(CheckCannotFail, match="program tap 4 mean_f_cell at listed"):
        simulation(tmp_path, change).run()


# Packages.


@watched
def test_an_outside_candidate_that_reads_a_cache_of_its_own_is_a_mismatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    install(site, candidates={"cached": "cached", "tidy": "leaves"})
    (site / "cache.npy").write_bytes(b"0")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    ctx = recorder(tmp_path, **{**SMALL, "outside": True})
    with pytest.raises(JobFailed, match=r"cached at .*: input mismatch, it opened what was not declared: .*cache.npy"):
        ctx.run()
    found = {name: {r["verdict"] for r in ctx.rows if r["candidate"] == name} for name in ("cached", "tidy")}
    assert found == {"cached": {"input mismatch"}, "tidy": {"pass"}}
    left = {r["left"] for r in ctx.rows if r["candidate"] == "tidy"}
    assert left == {'["notes.txt"]'}
    assert any("tidy left in its working folder: notes.txt" in line for line in ctx.logs)


def test_another_kernel_has_groups_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    install(site, candidates={"theirs": "image"}, controls={"blind": "no_grid"}, kernel="fcell")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    ctx = recorder(tmp_path, **{**FCELL, "outside": True})
    assert set(ctx.inputs) >= {"candidate-theirs", "control-blind"}
    ctx.run()
    found = {name: {r["verdict"] for r in ctx.rows if r["candidate"] == name} for name in ("theirs", "blind")}
    assert found == {"theirs": {"pass"}, "blind": {"pass", "fail"}}, "without a grid it is right, of course"
