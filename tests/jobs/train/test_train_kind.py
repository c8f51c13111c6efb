"""The kind `train` on run directories as a lane makes them: whole, killed, stopped, diverged, cut short."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from core.errors import BadInput
from core.fsio import read_json, sha256_file
from core.rundir import RunDir, latest_checkpoint, verify_checkpoint
from core.states import DEFAULT_RETRIES, Cause
from jobs.train import bundle, evaluate
from jobs.train import run as module
from jobs.train.data.av1 import Settings
from jobs.train.evaluate import Evaluation
from jobs.train.loop import pair_of, train
from jobs.train.measured import Measured
from jobs.train.recipe import Recipe
from jobs.train_kind import Train, TrainParams
from lanes.agent.verdict import Ended, Found, last_step, unmet, verdict
from lanes.child import outcome_of
from lanes.context import RunContext
from tests.jobs.train.checkout import make_checkout
from tests.jobs.train.data_context import encoder

pytestmark = encoder
KIND, KEY = Train(), "k" * 64
SMALL: dict[str, Any] = {
    "epochs": 4,
    "h": 3,
    "pairs": 4,
    "pairs_per_epoch": 3,
    "group": 2,
    "photographs": ["astronaut", "chelsea", "coffee"],
    "held_out": ["coffee"],
    "width": 64,
    "height": 48,
    "evaluation_pairs": 1,
    "preset": 12,
    "preview": False,
    "candidate_epochs": 3,
    "checkpoint_epochs": 1,
    "checkpoint_seconds": 1e9,
    "keep_checkpoints": 100,
}
STEPS = 8
NEVER = 1 << 30


class Killed(BaseException):
    """The process ends here; no `except Exception` sees it."""


class Watched(RunContext):
    """A context that ends or warns at a step, or inside the writing of a checkpoint."""

    kill_at = warn_at = kill_in_checkpoint = NEVER

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.logs: list[str] = []

    def log(self, message: str) -> None:
        self.logs.append(message)

    def metrics(self, step: int, **values: Any) -> None:
        super().metrics(step, **values)
        if "training_value" in values and step >= self.kill_at:
            raise Killed
        if step >= self.warn_at:
            self.stop()

    @contextlib.contextmanager
    def save_checkpoint(self, step: int, *, keep: int | None = None, **meta: Any) -> Iterator[Path]:
        with super().save_checkpoint(step, keep=keep, **meta) as folder:
            yield folder
            if step >= self.kill_in_checkpoint:
                raise Killed


class Attempt:
    """One attempt of a job, judged as a lane judges it."""

    def __init__(self, root: Path, n: int, **changed: Any) -> None:
        self.root, self.run = root, RunDir(root / str(n))
        self.run.create()
        given = {**SMALL, "cache": str(root.parent / "cache"), **changed}
        self.params = TrainParams(**given)
        earlier = [str(RunDir(root / str(k)).checkpoints) for k in range(n - 1, 0, -1)]
        inputs = KIND.inputs(self.params)
        for name, path in inputs.items():
            (self.run.inputs / name).parent.mkdir(parents=True, exist_ok=True)
            (self.run.inputs / name).symlink_to(path)
        self.spec = {
            "job": 1,
            "attempt": n,
            "key": KEY,
            "grant": {"cores": 1},
            "inputs": [{"name": name} for name in inputs],
            "checkpoints": earlier,
        }
        self.ctx = Watched(self.run, self.spec, self.params, KIND.tables)
        self.logs = self.ctx.logs
        self.caught: BaseException | None = None
        self.cause = self.message = ""

    def go(self) -> Attempt:
        try:
            KIND.run(self.ctx)
        except BaseException as error:
            self.caught = error
        rows = self.ctx.finish()
        said, code = outcome_of(self.caught)
        missing = unmet(self.spec, read_json(self.run.plan, {}), self.run, rows, last_step(self.run.metrics))
        judged = verdict(Found(ended=Ended(exit_code=code), child=said, missing=missing))
        self.cause, self.message = judged["cause"], judged["message"]
        return self

    def steps(self) -> list[int]:
        return [row["step"] for row in self.lines() if "training_value" in row]

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run.metrics.read_text().splitlines()]

    def table(self, name: str) -> list[dict[str, Any]]:
        parts = sorted(self.run.results.rglob(f"{name}*"))
        assert parts, list(self.run.results.rglob("*"))
        with pa.memory_map(str(parts[0])) as file:
            try:
                return list(pa.ipc.open_file(file).read_all().to_pylist())
            except pa.ArrowInvalid:
                return list(pa.ipc.open_stream(file).read_all().to_pylist())

    @property
    def whole(self) -> dict[str, Any]:
        (row,) = self.table("training")
        return row

    def checkpoints(self) -> list[int]:
        return sorted(int(p.name) for p in self.run.checkpoints.iterdir() if p.name.isdecimal())


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one cache of encoded data for all."""
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def uninterrupted(place: Path) -> Attempt:
    return Attempt(place / "uninterrupted", 1).go()


def same(one: Attempt, other: Attempt) -> bool:
    keys = ("weights_sha256", "average_sha256", "shipped_sha256", "chosen_epoch")
    tables = one.table("candidates") == other.table("candidates")
    return tables and all(one.whole[k] == other.whole[k] for k in keys)


def test_a_whole_run(uninterrupted: Attempt) -> None:
    a = uninterrupted
    assert (a.cause, a.message) == ("ok", "")
    assert a.steps() == list(range(1, STEPS + 1))
    assert a.checkpoints() == [2, 4, 6, 8]
    rows = a.table("candidates")
    assert [(r["weights"], r["epoch"], r["step"]) for r in rows] == [
        ("decoded", None, None),
        ("unsharp", None, None),
        ("average-int8", 3, 6),
        ("average-int8", 4, 8),
    ]
    best = min(rows[2:], key=lambda r: float(r["evaluation_value"]))
    assert [r["chosen"] for r in rows] == [r is best for r in rows]
    assert a.whole["branch"] == "long4_qat_ema_alpha20_h3" == KIND.describe(a.params)
    assert (a.whole["steps"], a.whole["resumed_at"], a.whole["mode"]) == (STEPS, None, "fresh")
    shipped = bundle.read(a.run.artifacts / "bundle")
    assert shipped.about["epoch"] == best["epoch"] == a.whole["chosen_epoch"]
    assert (shipped.sha256, shipped.size) == (a.whole["shipped_sha256"], a.whole["bundle_bytes"])
    assert shipped.about["weights_sha256"] == best["weights_sha256"]
    assert a.whole["encoded_bytes"] > 0
    # A training value and an evaluation value are never in one row, let alone in one column.
    assert all(("training_value" in row) != ("evaluation_value" in row) for row in a.lines())
    assert {"epoch", "reconstruction", "sal", "rate", "gradient_norm", "ema_distance", "seconds", "pairs"} <= set(
        a.lines()[0]
    )


def test_large_enough_frames_have_ms_ssim_and_small_ones_say_nothing(uninterrupted: Attempt, place: Path) -> None:
    assert all(r["ms_ssim"] is None for r in uninterrupted.table("candidates"))
    large = Attempt(place / "large", 1, width=192, height=192, epochs=1, candidate_epochs=1, preview=True).go()
    assert large.cause == "ok", large.message
    assert all(0 < r["ms_ssim"] <= 1 for r in large.table("candidates"))
    # Here is also what people look at.
    shown = {p.name: p.stat().st_size for p in large.run.artifacts.iterdir() if p.is_file()}
    assert shown.keys() == {"training.png", "preview.mp4", "preview.png"}
    assert all(size > 1000 for size in shown.values())


def test_the_curves_go_on_where_an_earlier_attempt_ended(uninterrupted: Attempt, place: Path) -> None:
    """Every step counts once in the figure, though some were made twice."""
    first = Attempt(place / "curves", 1, checkpoint_epochs=2)
    first.ctx.kill_at = 7
    first.go()
    again = Attempt(place / "curves", 2, checkpoint_epochs=2).go()
    assert again.cause == "ok", again.message
    folder = again.run.checkpoints / str(STEPS)
    course, whole = Measured.load(folder).course, Measured.load(uninterrupted.run.checkpoints / str(STEPS)).course
    assert course.epochs == whole.epochs
    assert course.curves().steps == STEPS


def test_the_upstream_objective_asks_the_networks_of_a_checkout(uninterrupted: Attempt, place: Path) -> None:
    checkout = make_checkout(place / "checkout", git=False)
    asked: dict[str, Any] = {"objective": "upstream", "checkout": str(checkout), "epochs": 1, "candidate_epochs": 1}
    a = Attempt(place / "upstream", 1, **asked).go()
    assert a.cause == "ok", a.message
    assert {"seg", "pose", "sal"} <= set(a.lines()[0])
    assert a.whole["quantity"] == "upstream training value"
    assert a.whole["recipe_sha256"] != uninterrupted.whole["recipe_sha256"]
    # Other networks make another training: a checkpoint of the first is refused.
    first = Attempt(place / "other", 1, **asked)
    first.ctx.kill_at = 2
    first.go()
    (checkout / "modules.py").write_text((checkout / "modules.py").read_text() + "\n# changed\n")
    second = Attempt(place / "other", 2, **asked).go()
    assert second.cause == "ok", second.message
    assert second.whole["resumed_at"] is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"objective": "upstream"}, "needs checkout=FOLDER"),
        ({"checkout": "/somewhere"}, "checkout means nothing"),
        ({"seg_weight": 1.0}, "seg_weight means nothing"),
    ],
)
def test_parameters_of_the_other_objective_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainParams(**{**SMALL, **given})


def test_other_seeds_give_other_weights(uninterrupted: Attempt, place: Path) -> None:
    """The digest that the tests below compare can differ."""
    other = Attempt(place / "seed", 1, seed=1).go()
    assert other.cause == "ok"
    assert not same(other, uninterrupted)


@pytest.mark.parametrize("at", [1, 3, 6, 7, 8])
def test_killed_at_a_step_and_resumed_it_gives_the_same_weights(at: int, uninterrupted: Attempt, place: Path) -> None:
    first = Attempt(place / f"killed{at}", 1)
    first.ctx.kill_at = at
    assert isinstance(first.go().caught, Killed)
    kept = max(first.checkpoints(), default=None)
    second = Attempt(place / f"killed{at}", 2).go()
    assert second.cause == "ok", second.message
    assert second.whole["resumed_at"] == kept
    assert second.steps() == list(range((kept or 0) + 1, STEPS + 1))
    assert same(second, uninterrupted)


@pytest.mark.parametrize("at", [2, 6, 8])
def test_killed_inside_a_checkpoint(at: int, uninterrupted: Attempt, place: Path) -> None:
    first = Attempt(place / f"inside{at}", 1)
    first.ctx.kill_in_checkpoint = at
    assert isinstance(first.go().caught, Killed)
    assert first.checkpoints() == list(range(2, at, 2))
    second = Attempt(place / f"inside{at}", 2).go()
    assert (second.cause, second.whole["resumed_at"]) == ("ok", at - 2 or None)
    assert same(second, uninterrupted)


def test_killed_while_the_last_candidate_is_measured(
    uninterrupted: Attempt, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps are done, and the attempt that follows makes none; its rows still reach the last step."""
    measure = Evaluation.candidate

    def killed(self: Any, averaged: Any, *, step: int, epoch: int) -> Any:
        if step == STEPS:
            raise Killed
        return measure(self, averaged, step=step, epoch=epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "candidate", killed)
        assert isinstance(Attempt(place / "measuring", 1).go().caught, Killed)
    second = Attempt(place / "measuring", 2).go()
    assert (second.cause, second.steps(), second.whole["resumed_at"]) == ("ok", [], STEPS)
    assert same(second, uninterrupted)


@pytest.mark.long  # test_train_kills kills three times through the queue by default
def test_a_real_kill(uninterrupted: Attempt, place: Path) -> None:
    """SIGKILL to a process of its own, at a step and inside a checkpoint."""
    for n, (name, at) in enumerate((("kill_at", 3), ("kill_in_checkpoint", 6)), 1):
        script = (
            "import os, signal, sys\nfrom pathlib import Path\nimport tests.jobs.train.test_train_kind as t\n"
            "class Killed(BaseException):\n"
            "    def __init__(self): os.kill(os.getpid(), signal.SIGKILL)\n"
            f"t.Killed = Killed\na = t.Attempt(Path({str(place / 'real')!r}), {n})\na.ctx.{name} = {at}\na.go()\n"
        )
        ended = subprocess.run([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
        assert ended.returncode == -signal.SIGKILL
    third = Attempt(place / "real", 3).go()
    assert (third.cause, third.whole["resumed_at"]) == ("ok", 4)
    assert same(third, uninterrupted)


def test_a_stop_wish_is_a_checkpoint_and_then_left(uninterrupted: Attempt, place: Path) -> None:
    first = Attempt(place / "stopped", 1, checkpoint_epochs=100)
    first.ctx.warn_at = 4
    assert first.go().cause == "preempted"
    assert first.checkpoints()[-1:] == [4]
    assert first.steps()[-1] == 4
    second = Attempt(place / "stopped", 2, checkpoint_epochs=100).go()
    assert (second.cause, second.whole["resumed_at"]) == ("ok", 4)
    assert same(second, uninterrupted)


def test_a_stop_wish_at_the_last_step_leaves_its_candidate_to_the_next_attempt(
    uninterrupted: Attempt, place: Path
) -> None:
    first = Attempt(place / "late", 1)
    first.ctx.warn_at = STEPS
    assert first.go().cause == "preempted"
    assert first.checkpoints()[-1] == STEPS
    second = Attempt(place / "late", 2).go()
    assert (second.cause, second.steps(), second.whole["resumed_at"]) == ("ok", [], STEPS)
    assert same(second, uninterrupted)


@pytest.mark.parametrize("which", ["decoded", "unsharp", "candidate", "last candidate"])
def test_a_stop_wish_while_it_is_measured(
    which: str, uninterrupted: Attempt, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves before the next pair; the measurement is made again, whole, by the next attempt."""
    pairs = SMALL["evaluation_pairs"]
    wished = {"decoded": 1, "unsharp": pairs + 1, "candidate": 2 * pairs + 1, "last candidate": 3 * pairs + 1}[which]
    looked = []
    first = Attempt(place / f"measured-{which.replace(' ', '-')}", 1)

    def look(frames: Any, index: int, **more: Any) -> Any:
        looked.append(index)
        return pair_of(frames, index, **more)

    def between() -> None:
        if len(looked) + 1 == wished:
            first.ctx.stop()

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "pair_of", look)
        patch.setattr(module, "failpoint", lambda name: between() if name == "train.measuring" else None)
        assert first.go().cause == "preempted"
    assert len(looked) == wished - 1
    kept = {"decoded": None, "unsharp": None, "candidate": 6, "last candidate": STEPS}[which]
    assert max(first.checkpoints(), default=None) == kept
    second = Attempt(place / f"measured-{which.replace(' ', '-')}", 2).go()
    assert (second.cause, second.whole["resumed_at"]) == ("ok", kept), second.message
    assert same(second, uninterrupted)


def test_a_stop_wish_while_frames_are_encoded(place: Path) -> None:
    a = Attempt(place / "encoding", 1, data_seed=77)
    a.ctx.stop()
    assert a.go().cause == "preempted"
    assert not a.checkpoints()


def test_checkpoints_by_the_clock(uninterrupted: Attempt, place: Path) -> None:
    often = Attempt(place / "often", 1, checkpoint_seconds=0).go()
    assert often.checkpoints() == list(range(1, STEPS + 1))
    assert same(often, uninterrupted)
    seldom = Attempt(place / "seldom", 1, checkpoint_epochs=100, candidate_epochs=100).go()
    assert seldom.checkpoints() == [STEPS]


def test_what_is_no_number_has_its_own_cause_and_the_last_good_checkpoint_stays(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recipe, "rate_of", lambda self, step: math.inf if step == 3 else 1e-3)
    a = Attempt(place / "diverged", 1, checkpoint_seconds=0).go()
    assert a.cause == Cause.NOT_FINITE
    assert "no number" in a.message or "not finite" in a.message
    assert not list(a.run.results.rglob("training*"))
    kept, notes = latest_checkpoint([a.run.checkpoints], key=KEY)
    assert kept is not None
    assert (kept.step, notes) == (3, [])
    assert a.checkpoints() == a.steps() == [1, 2, 3]
    for name in ("weights", "ema", "first_moment"):
        assert np.isfinite(np.load(kept.path / f"{name}.npy")).all()
    assert Cause.NOT_FINITE not in DEFAULT_RETRIES, "it would diverge again"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), Cause.HOST_MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), Cause.HOST_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), Cause.DEVICE_MEMORY),
        (RuntimeError("something else"), Cause.ERROR),
    ],
)
def test_out_of_memory_has_its_own_cause(
    error: Exception, cause: Cause, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: Any, **__: Any) -> bool:
        raise error

    monkeypatch.setattr(module, "train", fails)
    a = Attempt(tmp_path / "job", 1, cache=str(place / "cache")).go()
    assert a.cause == cause
    assert (DEFAULT_RETRIES.get(cause, 0) == 1) == (cause is not Cause.ERROR)


def test_half_the_epochs_are_no_success(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A training that ends early and says it is done, as a bug or a stray `break` would."""

    def half(model: Any, frames: Any, objective: Any, hooks: Any, **more: Any) -> bool:
        monkeypatch.setattr(type(hooks), "stopping", lambda self: model.steps == 6)
        train(model, frames, objective, hooks, **more)
        return True

    monkeypatch.setattr(module, "train", half)
    a = Attempt(tmp_path / "job", 1, cache=str(place / "cache")).go()
    assert a.caught is None
    assert a.cause == "incomplete"
    assert f"the step rows end at 6 and step {STEPS} was planned" in a.message


def test_no_checkpoint_is_left(uninterrupted: Attempt, place: Path) -> None:
    first = Attempt(place / "none", 1)
    first.ctx.kill_at = 5
    first.go()
    shutil.rmtree(first.run.checkpoints)
    second = Attempt(place / "none", 2).go()
    assert any("starts over" in line for line in second.logs)
    assert (second.cause, second.whole["resumed_at"]) == ("ok", None)
    assert same(second, uninterrupted)


def test_a_whole_checkpoint_of_other_data_is_refused(uninterrupted: Attempt, place: Path) -> None:
    """Its seal is right and its key too, but what it was trained on is not what this job is given."""
    other = Attempt(place / "other-data", 1, data_seed=3)
    other.ctx.kill_at = 5
    other.go()
    second = Attempt(place / "other-data", 2).go()
    refused = [line for line in second.logs if "passed over" in line]
    assert [step_in(line) for line in refused] == other.checkpoints()[::-1] == [4, 2]
    assert all("another data" in line for line in refused)
    assert sum("starts over" in line for line in second.logs) == 1
    assert (second.cause, second.whole["resumed_at"]) == ("ok", None)
    assert same(second, uninterrupted)


def step_in(line: str) -> int:
    """Of which step's checkpoint a line of the log speaks."""
    found = re.search(r"(?:checkpoints/|step )(\d+)", line)
    assert found, line
    return int(found[1])


def seal_again(folder: Path, **changed: Any) -> None:
    """Give a checkpoint the seal of what lies in it now: every byte of it verifies, whatever it says."""
    manifest = read_json(folder / "manifest.json")
    files = {name: [sha256_file(folder / name), (folder / name).stat().st_size] for name in manifest["files"]}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": files, **changed}))


def spoil(folder: Path, how: str) -> str:
    """Make a checkpoint one that cannot be gone on from; why the log should say that it was passed over."""
    weights, said = folder / "weights.npy", folder / "state.json"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-7])
        return "differs from what was written"
    if how == "flipped":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        return "differs from what was written"
    if how in ("damaged tensor", "truncated tensor"):  # before it was sealed: only its own digest can tell
        spoil(folder, "flipped" if how == "damaged tensor" else "truncated")
        seal_again(folder)
        return "does not match its digest" if how == "damaged tensor" else "weights.npy cannot be read"
    if how == "foreign key":
        seal_again(folder, key="f" * 64)
        return "belongs to another job"
    if how == "no manifest":
        (folder / "manifest.json").unlink()
        return "no readable manifest"
    if how == "no measurements":
        (folder / "measured.json").write_text('{"decoded": null}')
        seal_again(folder)
        return "does not say what was measured"
    if how in ("no best weights", "no curves"):
        if how == "no curves":
            measured = json.loads((folder / "measured.json").read_text())
            (folder / "measured.json").write_text(json.dumps({**measured, "course": {"terms": [], "epochs": []}}))
        else:
            (folder / "best.int8").write_bytes(b"half")
            (folder / "manifest.json").write_text(
                (folder / "manifest.json").read_text().replace('"files": {', '"files": {"best.int8": ["", 0], ')
            )
        seal_again(folder)
        return "does not say what was measured"
    state = json.loads(said.read_text())
    if how == "no generator":
        state["numpy_rng"] = {}
        said.write_text(json.dumps(state))
        seal_again(folder)
        return "is not of format"
    what = how.removeprefix("another ")
    state[what] = "0" * 64
    said.write_text(json.dumps(state))
    seal_again(folder)
    return how


SPOILT = ["truncated", "flipped", "damaged tensor", "truncated tensor", "foreign key", "no manifest"]
SPOILT += ["no measurements", "no best weights", "no curves", "no generator"]
FOREIGN = ["another recipe", "another data", "another code"]


@pytest.mark.parametrize(
    "hows",
    [
        *([how] for how in [*SPOILT, *FOREIGN]),
        ["another recipe", "flipped"],
        ["no manifest", "damaged tensor", "foreign key"],
        ["truncated tensor", "another code", "truncated", "another data"],
    ],
    ids=" then ".join,
)
def test_it_falls_back_to_the_newest_checkpoint_that_it_can_go_on_from(
    hows: list[str], uninterrupted: Attempt, place: Path
) -> None:
    """The newest is spoilt by the first of `hows`, the one before by the second, and so on; each is named, and why."""
    root = place / "spoilt" / "-".join(hows).replace(" ", "-")
    shutil.copytree(place / "four" if (place / "four").exists() else four(place), root / "1", symlinks=True)
    kept = [4, 3, 2, 1]
    whys = [spoil(root / "1" / "checkpoints" / str(step), how) for step, how in zip(kept, hows, strict=False)]
    second = Attempt(root, 2, checkpoint_seconds=0).go()
    said = [line for line in second.logs if "passed over" in line]
    assert [step_in(line) for line in said] == kept[: len(hows)]
    assert all(why in line for why, line in zip(whys, said, strict=True)), said
    left = kept[len(hows)] if len(hows) < len(kept) else None
    assert (second.cause, second.whole["resumed_at"]) == ("ok", left), second.message
    assert sum("starts over" in line for line in second.logs) == (left is None)
    assert any("going on from" in line for line in second.logs) == (left is not None)
    assert second.steps() == list(range((left or 0) + 1, STEPS + 1))
    assert same(second, uninterrupted)


def four(place: Path) -> Path:
    """An attempt that was killed with four checkpoints."""
    first = Attempt(place / "killed-at-four", 1, checkpoint_seconds=0)
    first.ctx.kill_at = 5
    first.go()
    assert first.checkpoints() == [1, 2, 3, 4]
    first.run.path.rename(place / "four")
    return place / "four"


def test_of_two_attempts_the_newest_step_counts_then_the_older_one(uninterrupted: Attempt, place: Path) -> None:
    root = place / "two"
    shutil.copytree(place / "four" if (place / "four").exists() else four(place), root / "1", symlinks=True)
    second = Attempt(root, 2, checkpoint_seconds=0)
    second.ctx.kill_at = 6
    assert isinstance(second.go().caught, Killed)
    assert second.checkpoints() == [5], second.logs
    spoil(second.run.checkpoints / "5", "another code")
    third = Attempt(root, 3).go()
    assert (third.cause, third.whole["resumed_at"]) == ("ok", 4)
    assert any("step 5 of attempt 2" in line for line in third.logs)
    assert any("step 4 of 8, of attempt 1" in line for line in third.logs)
    assert same(third, uninterrupted)


def test_only_the_newest_checkpoints_are_kept(uninterrupted: Attempt, place: Path) -> None:
    few = Attempt(place / "few", 1, checkpoint_seconds=0, keep_checkpoints=2)
    seen: list[list[int]] = []
    say = few.ctx.metrics

    def metrics(step: int, **values: Any) -> None:
        seen.append(few.checkpoints())
        say(step, **values)

    few.ctx.metrics = metrics  # type: ignore[method-assign]
    assert few.go().cause == "ok"
    assert few.checkpoints() == [STEPS - 1, STEPS]
    assert max(map(len, seen)) == 2
    assert same(few, uninterrupted)
    with pytest.raises(ValidationError, match="keep_checkpoints"):
        TrainParams(**{**SMALL, "keep_checkpoints": 1})


def test_starts(uninterrupted: Attempt, place: Path, tmp_path: Path) -> None:
    half = str(uninterrupted.run.checkpoints / "4")
    cache = str(place / "cache")
    exact = Attempt(tmp_path / "exact", 1, start=half, cache=cache).go()
    assert (exact.cause, exact.whole["resumed_at"], exact.whole["mode"]) == ("ok", 4, "exact")
    assert same(exact, uninterrupted)
    found = {}
    for mode in ("model-only", "reset-rate"):
        a = Attempt(tmp_path / mode, 1, start=half, mode=mode, cache=cache).go()
        assert (a.cause, a.whole["resumed_at"], a.whole["mode"]) == ("ok", None, mode), a.message
        assert a.steps() == list(range(1, STEPS + 1))
        found[mode] = a.whole["weights_sha256"]
    assert len({*found.values(), uninterrupted.whole["weights_sha256"]}) == 3
    other = Attempt(tmp_path / "foreign", 1, start=half, seed=5, cache=cache).go()
    assert isinstance(other.caught, BadInput)
    assert "another recipe" in other.message
    with pytest.raises(BadInput, match="no checkpoint"):
        Attempt(tmp_path / "nothing", 1, start=str(tmp_path))


def test_frames_of_the_users(place: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder, count in (("mine", 8), ("fixed", 2)):
        (tmp_path / folder).mkdir()
        for k in range(count):
            picture = np.kron(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), dtype=np.uint8))
            Image.fromarray(picture).save(tmp_path / folder / f"{k}.png")
    size = {name: TrainParams.model_fields[name].default for name in ("width", "height", "photographs", "held_out")}
    own = {**size, "source": str(tmp_path / "mine"), "evaluation_source": str(tmp_path / "fixed")}
    a = Attempt(tmp_path / "job", 1, **own, cache=str(place / "cache")).go()
    assert a.cause == "ok", a.message
    held = {**own, "evaluation_source": None, "photographs": SMALL["photographs"], "held_out": SMALL["held_out"]}
    b = Attempt(tmp_path / "held", 1, **held, cache=str(place / "cache")).go()
    assert b.cause == "ok", b.message
    assert b.whole["evaluation_sha256"] != a.whole["evaluation_sha256"]
    assert b.whole["data_sha256"] == a.whole["data_sha256"]
    with pytest.raises(BadInput, match="both be trained on"):
        KIND.inputs(TrainParams(**{**SMALL, **own, "evaluation_source": own["source"]}))
    shutil.copytree(tmp_path / "mine", tmp_path / "copy")
    again = {**own, "evaluation_source": str(tmp_path / "copy"), "evaluation_pairs": 4}
    copied = Attempt(tmp_path / "copied", 1, **again, cache=str(place / "cache")).go()
    assert isinstance(copied.caught, BadInput)
    assert "same frames" in copied.message


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"pairs_per_epoch": 9}, "pairs_per_epoch"),
        ({"rate": float("nan")}, "rate"),
        ({"decay": 1.0}, "decay"),
        ({"objective": "upstream"}, "objective"),
        ({"mode": "model-only"}, "mode"),
        ({"encoded_width": 32}, "encoded_height"),
        ({"split_seed": 4}, "split_seed"),
        ({"source": "/tmp/x", "width": 64}, "width"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_parameters_that_cannot_be_used(changed: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        TrainParams(**{**SMALL, **changed})


def test_what_the_photographs_cannot_give_is_refused_at_the_submit() -> None:
    with pytest.raises(BadInput, match="no photograph 'nobody'"):
        KIND.inputs(TrainParams(**{**SMALL, "held_out": ["nobody"]}))
    with pytest.raises(BadInput, match="cannot be shared out"):
        KIND.inputs(TrainParams(**{**SMALL, "held_out": ["coffee", "chelsea"]}))


def test_the_defaults_are_the_recipes() -> None:
    p, known = TrainParams(), TrainParams.model_fields
    assert p.recipe() == Recipe()
    own = {f.name for f in fields(Recipe)}
    assert own <= set(known)
    assert p.settings(1164, 874) == Settings()
    assert KIND.describe(TrainParams(alpha=30, h=24, epochs=1000)) == "long1000_qat_ema_alpha30_h24"


def test_the_command_line_waits_for_no_torch() -> None:
    script = (
        "import sys\nfrom jobs.train_kind import Train, TrainParams\nk = Train()\np = TrainParams()\n"
        "k.describe(p), k.inputs(p), k.tables(), k.questions()\n"
        "print(sorted({'torch', 'av', 'scipy'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_a_checkpoint_verifies_by_its_seal(uninterrupted: Attempt) -> None:
    found, why = verify_checkpoint(uninterrupted.run.checkpoints / "4", key=KEY)
    assert found is not None, why
    assert (found.meta["epoch"], found.meta["place"]) == (2, 0)
