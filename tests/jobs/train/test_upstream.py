"""The checkout's own networks as an objective: its values bit for bit, true gradients, no trace left, refusals."""

from __future__ import annotations

import hashlib
import importlib
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import BadInput
from jobs.score.checkout import Layout, scorer_digest
from jobs.score.report import read_report
from jobs.train.data.source import open_source
from jobs.train.loop import train
from jobs.train.model import Model
from jobs.train.networks import network_parts, version_of, videos_of
from jobs.train.objective import Local, Upstream
from jobs.train.passes import planes
from jobs.train.recipe import Recipe
from jobs.train.state import Identity, load, save
from jobs.train.upstream import Networks, Pose, UpstreamRefused
from jobs.train.upstream import load as load_networks
from tests.jobs.train import checkout
from tests.jobs.train.checkout import HEIGHT, WIDTH, make_checkout, save_weights, small_video, weights
from tests.jobs.train.small import Pictures, Remembered, one_thread, recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("upstream") / "challenge")


@pytest.fixture(scope="module")
def networks(made: Path) -> Networks:
    return networks_of(made)


@pytest.fixture(scope="module")
def theirs(made: Path) -> Any:
    """The checkout's DistortionNet as its evaluator has it: imported by path, nothing of ours in between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(made))
        patch.setattr(sys, "dont_write_bytecode", True)
        found = importlib.import_module("modules")
        for name in ("modules", "frame_utils"):
            assert Path(str(sys.modules.pop(name).__file__)).parent == made
    return found.DistortionNet().load(".pt")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def networks_of(folder: Path, **changed: Any) -> Networks:
    return load_networks(network_parts(folder), CPU, **{"height": HEIGHT, "width": WIDTH, **changed})


def data(pairs: int = 5) -> Pictures:
    """Waves, and what is left of them: coarse, noisy and of another tint."""
    original = np.stack(checkout.frames(pairs)).reshape(pairs, 2, HEIGHT, WIDTH, 3)
    lost = original + np.random.default_rng(1).normal(0, 8, original.shape) + (14, -9, -14)
    return Pictures(original, np.clip(np.rint(lost / 12) * 12, 0, 255).astype(np.uint8))


# What they say


def test_the_values_are_those_of_the_checkouts_own_distortion_net_bit_for_bit(networks: Networks, theirs: Any) -> None:
    for pair in torch.from_numpy(data().decoded):
        with torch.inference_mode():
            outputs, logits = theirs(pair.unsqueeze(0))
        assert torch.equal(networks.pose(planes(pair)), outputs["pose"])
        assert torch.equal(networks.seg(planes(pair)), logits)
        # The twin: a mutant that swaps the frames of a pair is seen by both.
        assert not torch.allclose(networks.pose(planes(pair.flip(0))), outputs["pose"], rtol=1e-3)
        assert not torch.allclose(networks.seg(planes(pair.flip(0))), logits, rtol=1e-3)


def test_the_pose_term_is_what_the_checkout_calls_the_distortion(networks: Networks, theirs: Any) -> None:
    frames = data()
    for original, decoded in zip(*map(torch.from_numpy, (frames.original, frames.decoded)), strict=True):
        pose, _ = theirs.compute_distortion(original.unsqueeze(0), decoded.unsqueeze(0))
        maps = torch.zeros((1, HEIGHT, WIDTH), dtype=torch.uint8)
        terms = networks.objective(Recipe()).terms(planes(decoded), planes(original), planes(decoded), maps)
        assert float(terms[1]) == pytest.approx(float(pose), rel=1e-6)


def test_the_loss_by_hand_from_the_checkouts_own_outputs(networks: Networks, theirs: Any) -> None:
    original, decoded = torch.from_numpy(data().original[0]), torch.from_numpy(data().decoded[0])
    rng = np.random.default_rng(4)
    filtered = torch.from_numpy(rng.integers(0, 256, decoded.shape, dtype=np.uint8))
    maps = torch.from_numpy(rng.integers(0, 256, (1, HEIGHT, WIDTH), dtype=np.uint8))
    with torch.inference_mode():
        (pose_f, seg_f), (pose_o, seg_o) = (theirs(x.unsqueeze(0)) for x in (filtered, original))
    shares = []
    for logits in (seg_f, seg_o):
        e = np.exp(logits.double().numpy()[0])
        shares.append(e / e.sum(axis=0))
    seg = 1 - (shares[0] * shares[1]).sum(axis=0).mean()
    pose = ((pose_f["pose"] - pose_o["pose"]).double().numpy()[0, :6] ** 2).mean()
    moved = (filtered[1].double() - decoded[1].double()).numpy() ** 2
    sal = (moved / (1 + 30 * maps[0].double().numpy()[..., None] / 255)).mean()
    objective = networks.objective(Recipe(alpha=30.0))
    terms = objective.terms(planes(filtered), planes(original), planes(decoded), maps)
    assert terms.tolist() == pytest.approx([seg, pose, sal], rel=1e-5)
    exact = 100 * seg + np.sqrt(10 * pose + 1e-8) + 0.1 * sal
    assert float(objective.value(terms)) == pytest.approx(exact, rel=1e-5)
    # The twin: each of the three terms counts.
    assert all(abs(part) > 1e-3 * exact for part in (100 * seg, np.sqrt(10 * pose), 0.1 * sal))


def test_gradients_are_those_of_finite_differences_in_double_precision(made: Path) -> None:
    networks, exact = networks_of(made), networks_of(made)
    exact.pose.net.double()
    exact.seg.net.double()
    frames = data()
    original, decoded = planes(torch.from_numpy(frames.original[1])), planes(torch.from_numpy(frames.decoded[1]))
    maps = torch.full((1, HEIGHT, WIDTH), 51, dtype=torch.uint8)
    moved = decoded + torch.randn(decoded.shape, generator=torch.Generator().manual_seed(2))

    def loss(of: Networks, filtered: torch.Tensor) -> torch.Tensor:
        objective = of.objective(Recipe())
        kind = filtered.dtype
        return objective.value(objective.terms(filtered, original.to(kind), decoded.to(kind), maps))

    single, double = moved.clone().requires_grad_(), moved.double().requires_grad_()
    for of, given in ((networks, single), (exact, double)):
        loss(of, given).backward()  # type: ignore[no-untyped-call]
    assert single.grad is not None
    assert double.grad is not None
    source = torch.Generator().manual_seed(3)
    for frame in (0, 1):
        for _ in range(6):
            along = torch.zeros_like(double)
            along[frame] = torch.randn(along[frame].shape, generator=source, dtype=torch.float64)
            with torch.no_grad():
                ends = [loss(exact, double + sign * 1e-5 * along) for sign in (1, -1)]
            slope = float((ends[0] - ends[1]) / 2e-5)
            assert float((double.grad * along).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-7)
            assert float((single.grad * along).sum()) == pytest.approx(slope, rel=2e-3, abs=2e-5)
    assert single.grad[0].any()


def test_the_checkouts_own_way_gives_the_pose_networks_frames_no_gradient(theirs: Any, networks: Networks) -> None:
    """Why decorators are taken off at all; and that this is done to our copy only."""
    pair = planes(torch.from_numpy(data().decoded[0])).requires_grad_()
    assert not theirs.posenet.preprocess_input(pair.unsqueeze(0)).requires_grad
    assert networks.pose.net.preprocess_input(pair.unsqueeze(0)).requires_grad


def test_weights_get_no_gradients_and_the_networks_evaluate(networks: Networks) -> None:
    assert not any(p.requires_grad for net in (networks.pose.net, networks.seg.net) for p in net.parameters())
    assert not any(module.training for net in (networks.pose.net, networks.seg.net) for module in net.modules())


def test_the_checkouts_evaluator_reports_what_the_objective_measures(tmp_path: Path) -> None:
    """The video is read as the training reads it, and its evaluator runs in a process of its own."""
    folder = make_checkout(tmp_path / "challenge", video=small_video(), git=False)
    (video,) = videos_of(folder)
    original = torch.from_numpy(np.stack(list(open_source(video).frames()))).reshape(-1, 2, HEIGHT, WIDTH, 3)
    shown = (original // 16 * 16).contiguous()
    submission = tmp_path / "submission"
    (submission / "inflated").mkdir(parents=True)
    (submission / "inflated" / "0.raw").write_bytes(shown.numpy().tobytes())
    (submission / "archive.zip").write_bytes(b"x" * 100)
    words = [sys.executable, "-B", str(folder / "evaluate.py"), "--submission-dir", str(submission)]
    words += ["--uncompressed-dir", str(folder / "videos"), "--report", str(tmp_path / "report.txt")]
    words += ["--video-names-file", str(folder / "public_test_video_names.txt"), "--batch-size", "3"]
    subprocess.run(words, check=True, capture_output=True)
    report = read_report(
        (tmp_path / "report.txt").read_text(), archive_bytes=100, original_bytes=video.stat().st_size, samples=4
    )
    networks = networks_of(folder)
    maps = torch.zeros((1, HEIGHT, WIDTH), dtype=torch.uint8)
    objective = networks.objective(Recipe())
    poses, classes = [], []
    for a, b in zip(original, shown, strict=True):
        poses.append(float(objective.terms(planes(b), planes(a), planes(b), maps)[1]))
        one, other = (networks.seg(planes(x)).argmax(dim=1) for x in (a, b))
        classes.append(float((one != other).float().mean()))
    # Eight decimals are printed.
    assert report.score.pose == pytest.approx(np.mean(poses), rel=1e-5, abs=6e-9)
    assert report.score.seg == pytest.approx(np.mean(classes), rel=1e-5, abs=6e-9)
    assert report.score.pose > 1e-5
    assert report.score.seg > 1e-3


# A training with them


def train_on(networks: Networks, model: Model, hooks: Remembered) -> bool:
    objective = networks.objective(model.recipe)
    assert isinstance(objective, Upstream)
    assert not isinstance(objective, Local)
    return train(model, data(), objective, hooks)


def test_a_training_of_some_steps_lowers_the_loss(networks: Networks) -> None:
    hooks, rule = Remembered(), recipe(epochs=25, rate=3e-3, group=5)  # every step sees every pair
    before = [p.clone() for net in (networks.pose.net, networks.seg.net) for p in net.state_dict().values()]
    train_on(networks, Model(rule, CPU), hooks)
    assert hooks.seen[-1].value < 0.85 * hooks.seen[0].value
    assert hooks.seen[-1].terms["pose"] < 0.5 * hooks.seen[0].terms["pose"]
    assert hooks.seen[-1].terms["seg"] < 0.85 * hooks.seen[0].terms["seg"]
    for row in hooks.seen:
        seg, pose, sal = (row.terms[name] for name in ("seg", "pose", "sal"))
        assert seg > 0
        assert pose > 0
        # A step's value is the mean over its pairs, and the root of a mean is more than the mean of the roots.
        of_means = 100 * seg + (10 * pose + 1e-8) ** 0.5 + 0.1 * sal
        assert of_means - 0.1 < row.value < of_means
    after = [p for net in (networks.pose.net, networks.seg.net) for p in net.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_steps_value_is_the_mean_of_its_pairs_losses(networks: Networks) -> None:
    hooks, rule = Remembered(), recipe(epochs=1, group=5, seg_weight=1.0)
    train_on(networks, Model(rule, CPU), hooks)
    objective, frames, values, roots = networks.objective(rule), data(), [], []
    for original, decoded in zip(*map(torch.from_numpy, (frames.original, frames.decoded)), strict=True):
        maps = torch.zeros((1, HEIGHT, WIDTH), dtype=torch.uint8)  # the first filter is the identity: no sal
        terms = objective.terms(planes(decoded), planes(original), planes(decoded), maps)
        values.append(float(objective.value(terms)))
        roots.append(float(terms[1]))
    assert hooks.seen[0].value == pytest.approx(np.mean(values), rel=1e-5)
    # The twin: the value of the mean terms is another number.
    of_means = hooks.seen[0].terms["seg"] + (10 * np.mean(roots) + 1e-8) ** 0.5
    assert of_means != pytest.approx(np.mean(values), rel=1e-4)


def test_pieces_with_networks_loaded_anew_equal_one_go_bit_for_bit(made: Path, tmp_path: Path) -> None:
    rule = recipe()
    identity = Identity(rule.digest(), "d" * 64, "c" * 64)
    whole = Model(rule, CPU)
    assert train_on(networks_of(made), whole, Remembered())

    def in_pieces(swap: bool) -> str:
        folder = tmp_path / f"state-{swap}"
        folder.mkdir()
        model = Model(rule, CPU)
        first = Remembered(due_at=frozenset({5}), stop_at=5, save=lambda m: save(folder, m, identity))
        assert not train_on(networks_of(made), model, first)
        torch.manual_seed(99)
        model = Model(rule, CPU)
        assert load(folder, model, identity) == 5
        again = networks_of(made)
        if swap:
            again = Networks(Pose(_Swapped(again.pose.net)), again.seg, again.sha256)
        assert train_on(again, model, Remembered())
        return model.weights().digest()

    assert in_pieces(False) == whole.weights().digest()
    # The twin: a mutant that swaps the frames of a pair from there on gives other weights.
    assert in_pieces(True) != whole.weights().digest()


class _Swapped:
    def __init__(self, net: Any) -> None:
        self.net = net

    def preprocess_input(self, x: torch.Tensor) -> Any:
        return self.net.preprocess_input(x.flip(1))

    def __call__(self, x: torch.Tensor) -> Any:
        return self.net(x)


# What loading leaves behind: nothing


def test_loading_leaves_paths_modules_random_numbers_and_the_checkout_as_they_were(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {name: ModuleType(name) for name in ("modules", "frame_utils")}
    for name, module in ours.items():
        monkeypatch.setitem(sys.modules, name, module)
    random_before = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()  # type: ignore[index]
    paths, finders, files = list(sys.path), list(sys.meta_path), sorted(made.rglob("*"))
    public = {name for name in sys.modules if not name.startswith("_upstream_")}
    networks_of(made)
    assert (sys.path, sys.meta_path, sorted(made.rglob("*"))) == (paths, finders, files)
    assert {name for name in sys.modules if not name.startswith("_upstream_")} == public
    assert all(sys.modules[name] is module for name, module in ours.items())
    assert torch.equal(torch.get_rng_state(), random_before[0])
    assert (np.random.get_state()[1].tobytes(), random.getstate()) == random_before[1:]  # type: ignore[index]


def test_parts_may_lie_anywhere_under_any_name(made: Path, tmp_path: Path, networks: Networks) -> None:
    parts = {}
    for k, (name, path) in enumerate(network_parts(made).items()):
        parts[name] = tmp_path / f"{k:064x}"
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, parts[name])
    found = load_networks(parts, CPU, height=HEIGHT, width=WIDTH, sha256=version_of(made).sha256)
    pair = planes(torch.from_numpy(data().decoded[0]))
    assert torch.equal(found.pose(pair), networks.pose(pair))


# Which ones they are


def test_the_version_says_commit_changes_and_files(tmp_path: Path) -> None:
    folder = make_checkout(tmp_path / "challenge")
    said = version_of(folder)
    head = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert (said.commit, said.dirty) == (head.stdout.strip(), False)
    assert set(said.files) == {
        *("evaluate.py", "modules.py", "frame_utils.py"),
        *("models/posenet.pt", "models/segnet.pt"),
    }
    assert said.files["modules.py"] == hashlib.sha256((folder / "modules.py").read_bytes()).hexdigest()
    assert said.sha256 == scorer_digest(network_parts(folder))
    assert networks_of(folder, sha256=said.sha256).sha256 == said.sha256
    # The video is the data's affair, and what git does not know is nothing that it says.
    (folder / "videos" / "0.mkv").write_bytes(b"another")
    assert version_of(folder) == said
    assert videos_of(folder) == [folder / "videos" / "0.mkv"]
    shutil.rmtree(folder / ".git")
    assert (version_of(folder).commit, version_of(folder).dirty) == (None, None)


def test_a_flipped_byte_is_refused_through_the_hash(tmp_path: Path) -> None:
    folder = make_checkout(tmp_path / "challenge")
    said = version_of(folder)
    path = folder / "models" / "segnet.pt"
    content = bytearray(path.read_bytes())
    at = content.index(weights()["segnet"]["layers.2.weight"].numpy().tobytes())
    content[at] ^= 1  # the last bit of one weight: it loads, and no value looks wrong
    path.write_bytes(content)
    with pytest.raises(UpstreamRefused, match="are not those that this training was made for") as refused:
        networks_of(folder, sha256=said.sha256)
    assert said.sha256[:12] in str(refused.value)
    assert version_of(folder).dirty
    networks_of(folder)  # only the hash sees it


# Refusals


def no_class(folder: Path) -> None:
    rewrite(folder, "class SegNet(", "class SegmentationNet(", "SegNet()", "SegmentationNet()")


def rewrite(folder: Path, *changes: str, file: str = "modules.py") -> None:
    text = (folder / file).read_text()
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in text
        text = text.replace(old, new)
    (folder / file).write_text(text)


BEFORE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no checkout": (shutil.rmtree, "there is no checkout"),
    "no evaluator": (lambda f: (f / "evaluate.py").unlink(), "has no evaluate.py"),
    "no modules": (lambda f: (f / "modules.py").unlink(), "has no modules.py: its networks cannot be had"),
    "no models": (lambda f: shutil.rmtree(f / "models"), "has no models: its networks cannot be had"),
    "no weights": (lambda f: (f / "models" / "posenet.pt").unlink(), r"has no posenet.safetensors, .pt or .pth"),
    "no class": (no_class, "modules.py has no class SegNet: it is another version"),
    "no Python": (lambda f: (f / "modules.py").write_text("class PoseNet(:"), "modules.py is no Python"),
    "a pointer": (
        lambda f: (f / "models" / "posenet.pt").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "posenet.pt is a Git LFS pointer",
    ),
}


@pytest.mark.parametrize("case", BEFORE)
def test_what_is_refused_at_the_submit(case: str, tmp_path: Path) -> None:
    folder = make_checkout(tmp_path / "challenge", git=False)
    spoil, says = BEFORE[case]
    spoil(folder)
    with pytest.raises(BadInput, match=says) as refused:
        version_of(folder)
    assert "\n" not in str(refused.value)


def change_weights(network: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors: dict[str, Any] = weights()[network]
        change(tensors)
        save_weights(folder / "models" / f"{network}.pt", tensors)

    return spoil


LOADING: dict[str, tuple[Callable[[Path], Any], str]] = {
    "one too few": (
        change_weights("segnet", lambda t: t.pop("layers.2.bias")),
        r"segnet.pt does not fit SegNet: it has no layers.2.bias$",
    ),
    "one too many": (
        change_weights("segnet", lambda t: t.update(more=torch.ones(2))),
        "it has more, which there is none of",
    ),
    "another shape": (
        change_weights("posenet", lambda t: t.update({"tell.weight": torch.ones(14, 280)})),
        r"posenet.pt does not fit PoseNet: it has tell.weight \(14, 280\) in place of \(12, 280\)",
    ),
    "no number": (
        change_weights("posenet", lambda t: t["tell.bias"].fill_(float("nan"))),
        "tell.bias with values that are no numbers",
    ),
    "no weights": (
        lambda f: (f / "models" / "posenet.pt").write_bytes(b"nothing"),
        "posenet.pt cannot be read as weights",
    ),
    "no tensors": (lambda f: save_weights(f / "models" / "posenet.pt", {"a": 1}), "it must be tensors by name"),
    "breaks": (
        lambda f: rewrite(f, "class SegNet(", "1 / 0\n\nclass SegNet("),
        "modules.py cannot be run: ZeroDivisionError: division by zero",
    ),
    "ends": (lambda f: rewrite(f, "class SegNet(", "exit(3)\n\nclass SegNet("), "cannot be run: SystemExit: 3"),
    "no neighbour": (lambda f: (f / "frame_utils.py").unlink(), r"needs frame_utils, which this interpreter"),
    "no library": (
        lambda f: rewrite(f, "from torch import nn", "from torch import nn\nimport lab_no_lib, lab_none.too"),
        r"needs lab_no_lib, lab_none, which this .* has not; install with `pip install lab_no_lib lab_none`",
    ),
    "a neighbour without a library": (
        lambda f: rewrite(f, "import torch", "import torch\nimport lab_no_lib", file="frame_utils.py"),
        "frame_utils.py needs lab_no_lib",
    ),
    "no network": (
        lambda f: rewrite(f, "class SegNet(nn.Module):", "class SegNet:"),
        "has no network SegNet with a preprocess_input",
    ),
    "no mapping": (
        lambda f: rewrite(f, 'return {"pose": ', "return (", ".flatten(1))}", ".flatten(1)))"),
        r"PoseNet gives a tensor \(1, 12\): it must give a mapping whose 'pose' has at least 6 numbers",
    ),
    "no logits": (
        lambda f: rewrite(f, "return self.layers(x / 32 - 4)", "return self.layers(x / 32 - 4).argmax(1)"),
        r"SegNet gives a tensor \(1, 24, 32\): it must give logits of two classes or more",
    ),
    "no gradient": (
        lambda f: rewrite(f, "return planes.reshape(", "return planes.detach().reshape("),
        "no gradient comes through PoseNet to the frames",
    ),
    "another distance": (
        lambda f: rewrite(f, '["pose"][..., :6] - b["pose"][..., :6]', '["pose"] - b["pose"]'),
        "PoseNet calls two pairs .* it measures something else than the objective",
    ),
    "another size": (
        lambda f: rewrite(f, "(32, 24)", "(40, 24)", file="frame_utils.py"),
        "PoseNet cannot take a pair of 64×48: mat1 and mat2 shapes cannot be multiplied",
    ),
}


@pytest.mark.parametrize("case", LOADING)
def test_what_is_refused_at_the_start(case: str, tmp_path: Path) -> None:
    folder = make_checkout(tmp_path / "challenge", git=False)
    spoil, says = LOADING[case]
    spoil(folder)
    known = set(sys.modules)
    with pytest.raises(UpstreamRefused, match=says) as refused:
        networks_of(folder)
    assert "\n" not in str(refused.value)
    if "cannot be run" in says:  # and half a module is not left behind
        assert not {name for name in set(sys.modules) - known if name.endswith("_modules")}


def test_safetensors_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkout(tmp_path / "challenge", ending=".safetensors", git=False)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UpstreamRefused, match=r"posenet.safetensors needs safetensors.*`pip install safetensors`"):
        networks_of(folder)


def test_safetensors_give_the_same_networks(tmp_path: Path, networks: Networks) -> None:
    pytest.importorskip("safetensors")
    folder = make_checkout(tmp_path / "challenge", ending=".safetensors", git=False)
    pair = planes(torch.from_numpy(data().decoded[0]))
    found = networks_of(folder)
    assert torch.equal(found.pose(pair), networks.pose(pair))
    assert torch.equal(found.seg(pair), networks.seg(pair))
    (folder / "models" / "segnet.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UpstreamRefused, match=r"segnet\.safetensors cannot be read as weights"):
        networks_of(folder)


def test_a_video_that_is_named_and_not_there(tmp_path: Path) -> None:
    folder = make_checkout(tmp_path / "challenge", git=False)
    (folder / "public_test_video_names.txt").write_text("0.mkv\n1.mkv\n")
    with pytest.raises(BadInput, match=r"names 1.mkv, and there is no"):
        videos_of(folder, Layout())
