"""The learned arms: what they are shown, what is put together, the guard, and a training in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from core.errors import BadInput
from jobs.dose import network_oracle
from jobs.dose.architecture import Architecture
from jobs.dose.controls import physics_object
from jobs.dose.dataset import Dataset
from jobs.dose.guard import golden_loss, guard
from jobs.dose.network import _Barred
from jobs.dose.reconstruction import Reconstruction
from jobs.dose.samples import Samples, groups_of, log_factorial
from jobs.dose.stitching import Canvas, constant_phases, stitched
from jobs.dose.views_run import Groups
from jobs.dose_kinds.train import DoseTrain, DoseTrainParams
from kernels.diffraction.forward import amplitude, patches
from kernels.diffraction.probe import simulated_probe
from tests.jobs.context import Recorder

SIZE, SIDE = 16, 72


def made(folder: Path, members: int) -> Samples:
    """A small scan, its groups and its files."""
    rng = np.random.default_rng(3)
    rough = rng.normal(size=(SIDE // 8, SIDE // 8, 2))
    smooth = gaussian_filter(np.kron(rough, np.ones((8, 8, 1))), (3, 3, 0))
    true = ((1 + 0.2 * smooth[..., 0]) * np.exp(0.5j * smooth[..., 1])).astype(np.complex64)
    x, y = (a.ravel() for a in np.meshgrid(np.arange(10.0, 62, 6), np.arange(10.0, 40, 6)))
    x, y = np.rint((x + rng.uniform(-1, 1, x.size)) * 64) / 64, np.rint((y + rng.uniform(-1, 1, y.size)) * 64) / 64
    seen = patches(true, x, y, SIZE)
    probe = simulated_probe(SIZE).astype(np.complex128)
    light = amplitude(probe, seen)
    factor = SIZE / 2 / math.sqrt((light**2).sum(axis=(1, 2)).mean())
    scale = 5.0
    counts = rng.poisson((scale * factor * light) ** 2)
    data = Dataset(
        diffraction=(np.sqrt(counts) / scale).astype(np.float32),
        object_guess=true,
        probe_guess=(probe * factor).astype(np.complex64),
        x=x,
        y=y,
        patches=seen.astype(np.complex64),
        meta={"scale": scale, "photons": 1e3},
    )
    index = np.array([np.argsort((x - a) ** 2 + (y - b) ** 2)[:members] for a, b in zip(x, y, strict=True)], np.int32)
    groups = Groups(index, np.stack([x, y], axis=1))
    for kind in ("data", "views"):
        (folder / kind).mkdir(parents=True)
    for split in ("train", "test"):
        data.save(folder / "data" / f"{split}.npz")
        groups.save(folder / "views" / f"{split}_groups.npz")
    (folder / "views" / "spacing.json").write_text(json.dumps([{"view": "dense", "split": "train"}]))
    return Samples.of(data, groups)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return made(tmp_path_factory.mktemp("samples"), 4)


# The guard.


@pytest.mark.parametrize(
    ("candidate", "reference", "ok"),
    [
        (1.25, 1.0, True),
        (1.26, 1.0, False),
        (-0.75, -1.0, True),  # a limit of reference·(1 + tolerance) would refuse this
        (-1.2, -1.0, True),
        (-0.74, -1.0, False),
        (0.0, 0.0, True),
        (1e-9, 0.0, False),
        (math.nan, 1.0, False),
        (-math.inf, 1.0, False),
        (1.0, math.nan, False),
        (1.0, math.inf, False),
        (None, 1.0, False),
        (1.0, None, False),
    ],
)
def test_the_guard_holds_for_either_sign(candidate: float | None, reference: float | None, ok: bool) -> None:
    assert guard(candidate, reference, 0.25).ok is ok


def test_the_seeds_form_of_the_guard_is_inverted_for_negative_losses() -> None:
    better, golden = -1.1, -1.0
    assert not better <= golden * 1.25  # what the seed asked
    assert guard(better, golden, 0.25).ok


def test_a_golden_of_another_condition_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    path.write_text(json.dumps({"condition": {"arm": "pinn", "photons": 1e3}, "final_loss": 0.5}))
    assert golden_loss(path, {"arm": "pinn", "photons": 1e3}) == 0.5
    with pytest.raises(BadInput, match=r"golden of photons=1000\.0, and this is 10000\.0"):
        golden_loss(path, {"arm": "pinn", "photons": 1e4})
    path.write_text("{")
    with pytest.raises(BadInput, match="cannot be read as a golden"):
        golden_loss(path, {})


# What a training is shown.


def test_every_group_comes_once_in_a_turn_and_follows_from_the_step() -> None:
    turn = np.concatenate([groups_of(step, groups=10, batch=4, seed=1) for step in range(5)])
    assert sorted(turn[:10]) == sorted(turn[10:]) == list(range(10))
    assert not np.array_equal(turn[:10], turn[10:])
    assert np.array_equal(groups_of(3, groups=10, batch=4, seed=1), turn[12:16])
    assert not np.array_equal(np.concatenate([groups_of(s, groups=10, batch=4, seed=2) for s in range(5)]), turn)


def test_photons_held_back_are_not_shown(samples: Samples) -> None:
    which = np.arange(5)
    counts = samples.data.counts()[samples.members[which]]
    batch = samples.photons(which, held_back=0.3, chance=np.random.default_rng(0))
    shown = np.moveaxis(batch.diffraction.astype(np.float64), -1, 1) ** 2 * samples.data.scale**2 * 0.7
    assert np.abs(np.rint(shown) + batch.target - counts).max() == 0
    assert abs(batch.target.sum() / counts.sum() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / counts.sum())
    # Without holding back the same photons are both.
    whole = samples.photons(which, held_back=0.0, chance=None)
    assert np.array_equal(whole.target, counts)
    assert np.allclose(np.moveaxis(whole.diffraction, -1, 1), samples.data.diffraction[samples.members[which]])
    assert whole.constant == np.float32(log_factorial(counts).mean())


def test_the_log_factorial_is_that_of_the_photons() -> None:
    assert np.allclose(log_factorial(np.arange(20)), [math.log(math.factorial(k)) for k in range(20)], atol=1e-12)


# The oracle of the network, and what is put together.


def test_the_flat_object_is_seen_as_flat_and_another_is_not(samples: Samples) -> None:
    probe = samples.data.probe_guess
    flat = amplitude(probe.astype(np.complex128), np.ones((1, SIZE, SIZE)))
    assert np.abs(network_oracle.estimated(probe, flat) - 1).max() < 1e-12
    assert np.abs(network_oracle.estimated(probe, samples.data.diffraction[:1]) - 1).max() > 0.05


def test_to_first_order_the_fixed_layer_moves_towards_the_object(samples: Samples) -> None:
    probe = samples.data.probe_guess.astype(np.complex128)
    rng = np.random.default_rng(1)
    true = 1 + 0.02 * (rng.normal(size=(1, SIZE, SIZE)) + 1j * rng.normal(size=(1, SIZE, SIZE)))
    found = network_oracle.estimated(probe, amplitude(probe, true)) - 1
    weight = np.abs(probe) ** 2

    def alike(a: Any, b: Any) -> float:
        a, b = (v - (weight * v).sum() / weight.sum() for v in (a, b))
        return float((np.vdot(a, weight * b) / np.sqrt(np.vdot(a, weight * a) * np.vdot(b, weight * b))).real)

    assert alike(found[0], true[0]) > 0.3
    assert alike(-found[0], true[0]) < 0


def test_patches_of_one_object_are_put_together_to_it(samples: Samples) -> None:
    data = samples.data
    assert data.patches is not None
    weight = np.abs(data.probe_guess) ** 2
    canvas = Canvas(data.x, data.y, weight)
    canvas.add(data.patches, data.x, data.y)
    found, covered = canvas.picture()
    top, left = canvas.origin
    true = data.object_guess[top : top + found.shape[0], left : left + found.shape[1]]
    assert covered.mean() > 0.3
    error = np.abs(found - true)[covered].mean()
    assert error < 0.05
    moved = Canvas(data.x, data.y, weight)
    moved.add(data.patches, data.x[::-1], data.y[::-1])  # patches at the places of others
    assert np.abs(moved.picture()[0] - true)[covered].mean() > 4 * error


def test_constant_phases_are_found_and_matter(samples: Samples) -> None:
    data = samples.data
    assert data.patches is not None
    weight = np.abs(data.probe_guess) ** 2
    angles = np.random.default_rng(5).uniform(-np.pi, np.pi, data.count)
    turned = data.patches * np.exp(1j * angles)[:, None, None]
    found = constant_phases(turned, data.x, data.y, weight)
    apart = np.exp(1j * (found - angles))
    assert np.abs(apart / apart.mean() * np.abs(apart.mean()) - 1).max() < 0.1

    def light(patches_: Any) -> float:
        canvas = Canvas(data.x, data.y, weight)
        canvas.add(patches_, data.x, data.y)
        return float(np.abs(canvas.picture()[0]).mean())

    assert light(turned * np.exp(-1j * found)[:, None, None]) > 1.3 * light(turned)


def test_groups_that_share_nothing_keep_the_phases_they_were_found_with(samples: Samples) -> None:
    data = samples.data
    assert data.patches is not None
    weight = np.abs(data.probe_guess) ** 2
    left, right = data.x < 22, data.x > 46  # more than a frame apart
    chosen = left | right
    true, x, y = data.patches[chosen], data.x[chosen], data.y[chosen]
    other = right[chosen]

    def turned(patches_: Any) -> complex:
        """By how much the groups stand turned to each other, by the mean of each."""
        return complex((patches_[other] * weight).sum() * (patches_[~other] * weight).sum().conj())

    apart = true * np.where(other, np.exp(1.5j), 1)[:, None, None]
    found = constant_phases(apart, x, y, weight)
    assert abs(np.angle(turned(apart * np.exp(-1j * found)[:, None, None]))) < 0.1
    assert abs(np.angle(turned(apart))) > 1


# The kind.


def test_an_idle_parameter_is_refused() -> None:
    idle = ({"arm": "mean", "width": 32}, {"arm": "supervised", "held_back": 0.5}, {"arm": "physics", "epochs": 3})
    for given in (*idle, {"arm": "physics", "backend": "torch"}, {"arm": "mean", "checkpoint_epochs": 3}):
        with pytest.raises(ValidationError, match="means nothing"):
            DoseTrainParams(**given)  # type: ignore[arg-type]
    assert DoseTrainParams(epochs=0).name == "untrained"
    assert DoseTrainParams(arm="physics").name == "physics"
    assert DoseTrainParams(arm="physics") == DoseTrainParams(arm="physics", epochs=0), "one control, one key"
    assert DoseTrainParams().recipe().steps == 40 * 8


def test_the_mean_control_is_one_number_and_needs_the_truth(tmp_path: Path) -> None:
    given = made(tmp_path, 4)
    kind = DoseTrain()
    inputs = {name: tmp_path / name for name in ("data", "views")}
    ctx = Recorder(kind, kind.Params(arm="mean"), tmp_path / "mean", inputs=inputs)
    ctx.run()
    found = Reconstruction.load(ctx.artifacts / "reconstruction.npz")
    assert np.ptp(np.abs(found.object[found.covered])) < 1e-6
    assert given.data.patches is not None
    assert abs(abs(found.object[found.covered][0]) - np.abs(given.data.patches.mean())) < 0.3
    assert ctx.tables["dose_training"][0]["status"] == "control"
    bare = Dataset(**{**vars(given.data), "patches": None})
    bare.save(tmp_path / "data" / "train.npz")
    for arm in ("mean", "supervised"):
        again = Recorder(kind, kind.Params(arm=arm), tmp_path / f"bare-{arm}", inputs=inputs)
        with pytest.raises(BadInput, match="needs true patches"):
            again.run()


def test_the_physics_alone_is_the_fixed_layer_and_takes_nothing_of_a_training(tmp_path: Path) -> None:
    given = made(tmp_path, 4)
    data, weight = given.data, np.abs(given.data.probe_guess) ** 2
    kind = DoseTrain()
    inputs = {name: tmp_path / name for name in ("data", "views")}

    def ran(name: str) -> tuple[Reconstruction, dict[str, Any]]:
        ctx = Recorder(kind, kind.Params(arm="physics", seed=7), tmp_path / name, inputs=inputs)
        ctx.run()
        found = Reconstruction.load(ctx.artifacts / "reconstruction.npz")
        assert ctx.expected["last_step"] is None
        assert ctx.tables["dose_training_time"][0]["process"] == os.getpid()
        return found, ctx.tables["dose_training"][0]

    def alike(patches_: Any) -> float:
        """Of patches with the true ones under the probe, the mean of each taken off."""
        assert data.patches is not None
        a, b = (v - (weight * v).sum(axis=(1, 2), keepdims=True) / weight.sum() for v in (patches_, data.patches))
        top = np.sum(weight * a * b.conj()).real
        return float(top / np.sqrt(np.sum(weight * abs(a) ** 2) * np.sum(weight * abs(b) ** 2)))

    found, row = ran("first")
    assert (row["arm"], row["status"], row["steps"], row["epochs_done"]) == ("physics", "control", 0, 0)
    assert row["bundle_sha256"] is None
    assert row["backend"] is None
    # By the definition: what each frame says, averaged over its group, put at its place.
    own = np.stack([network_oracle.estimated(data.probe_guess, d) for d in data.diffraction])
    groups = network_oracle.averaged(own[given.members], given.positions, data.probe_guess, given.pad)
    index = given.members.ravel()
    picture, origin, covered = stitched(groups.reshape(-1, SIZE, SIZE), data.x[index], data.y[index], data.probe_guess)
    assert found.origin == origin
    assert np.array_equal(found.covered, covered)
    np.testing.assert_allclose(found.object, picture, atol=1e-5)
    # It sees the object, the group sees more than a frame, and neither is the flat object that it starts from.
    first = np.array([np.flatnonzero(index == i)[0] for i in range(data.count)])
    frames, together = alike(own), alike(groups.reshape(-1, SIZE, SIZE)[first])
    assert together > frames > 0.2
    assert np.ptp(np.abs(found.object[found.covered])) > 0.2
    # The training half plays no part, and truth is not needed.
    Dataset(**{**vars(data), "patches": None, "diffraction": data.diffraction[::-1].copy()}).save(
        tmp_path / "data" / "train.npz"
    )
    again, _ = ran("again")
    np.testing.assert_array_equal(again.object, found.object)
    # The twin: the test half does.
    Dataset(**{**vars(data), "diffraction": data.diffraction[::-1].copy()}).save(tmp_path / "data" / "test.npz")
    other, _ = ran("other")
    assert not np.allclose(other.object, found.object, atol=0.05)


def test_the_physics_of_groups_of_one_is_each_frames_own(tmp_path: Path) -> None:
    given = made(tmp_path, 1)
    found = physics_object(given, {"arm": "physics"})
    data = given.data
    own = network_oracle.estimated(data.probe_guess, data.diffraction)
    picture, _, _ = stitched(own, data.x, data.y, data.probe_guess)
    np.testing.assert_allclose(found.object, picture, atol=1e-6)
    assert found.meta == {"arm": "physics", "engine": "physics"}


def test_a_network_needs_frames_that_can_be_halved() -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        Architecture(20)


def test_a_barred_library_is_as_good_as_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks for it is told nothing wrong: SciPy asks what is loaded, PyTorch asks where TensorFlow lies."""
    name = "sndhdr"  # of the standard library; nobody else here imports it
    assert name not in sys.modules
    monkeypatch.setattr(sys, "meta_path", [_Barred(name), *sys.meta_path])
    with pytest.raises(ImportError, match="sndhdr is barred"):
        importlib.import_module(name)
    assert name not in sys.modules
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is None
    assert importlib.util.find_spec("json") is not None
    # The twin: None keeps it out too, and is taken for a module by those that look there.
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError):
        importlib.import_module(name)
    assert name in sys.modules


def side(backend: str, folder: Path, members: int) -> dict[str, Any]:
    made(folder, members)
    script = Path(__file__).with_name("train_side.py")
    own = folder / "own"
    own.mkdir()
    (own / "keras.json").write_text('{"epsilon": 0.5}')  # somebody's own settings, which nobody declared
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[3]), "KERAS_HOME": str(own)}
    done = subprocess.run(
        [sys.executable, str(script), backend, str(folder)], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def held(found: dict[str, Any], backend: str, other: str, gridsize: int) -> None:
    told = found["told"]
    assert told["backend"]["backend"] == backend
    assert told["backend"]["absent"] == other
    assert found["epsilon"] == 1e-7, "settings of a home were read"
    assert told["status"] == "trained"
    assert (told["epochs_done"], told["steps"], len(found["losses"])) == (3, 6, 6)
    assert told["condition"] == {"arm": "pinn", "photons": 1e3, "view": "dense", "gridsize": gridsize, "seed": 7}
    assert told["bundle_sha256"] == found["whole"] == found["row"]["bundle_sha256"]
    assert math.isfinite(told["final_loss"])
    assert 0.2 < found["covered"] < 1
    # Going on is exact; another seed or another recipe is another training.
    assert (found["left_at"], found["resumed_at"]) == (3, 3)
    assert found["resumed"] == found["whole"] != found["other"]
    assert "another recipe" in found["foreign"][0]
    assert found["untrained"]["status"] == "untrained"
    assert found["untrained"]["condition"]["arm"] == "untrained"
    assert found["untrained"]["steps"] == 0
    before, after = found["supervised"]
    assert after < 0.85 * before
    assert found["met"] is None
    assert "against the golden" in found["missed"]
    assert "is nan" in found["diverges"] or "is inf" in found["diverges"]
    assert (found["failed"]["status"], found["failed"]["final_loss"]) == ("failed", None)
    assert found["error"] < 1e-5 < found["spoiled"]


def test_a_training_on_torch(tmp_path: Path) -> None:
    held(side("torch", tmp_path, 1), "torch", "tensorflow", 1)


@pytest.mark.long
def test_a_training_on_tensorflow(tmp_path: Path) -> None:
    held(side("tensorflow", tmp_path, 1), "tensorflow", "torch", 1)


@pytest.mark.long
@pytest.mark.parametrize(("backend", "other"), [("tensorflow", "torch"), ("torch", "tensorflow")])
def test_a_training_of_groups(backend: str, other: str, tmp_path: Path) -> None:
    held(side(backend, tmp_path, 4), backend, other, 2)
