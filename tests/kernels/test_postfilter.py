"""The postfilter: the oracle against its definition, every backend against the oracle, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.io
import torch

from kernels.devices import DeviceMissing, KernelRefused
from kernels.postfilter import BACKENDS, PostfilterRefused, Weights, WeightsRefused, apply, build, torch_
from kernels.postfilter.oracle import error_bound
from kernels.postfilter.simd import machine
from kernels.postfilter.torch_ import Postfilter
from kernels.postfilter.torch_ import apply as torch_apply

ROOT = Path(__file__).resolve().parents[2]
HERE = ["numba", "torch"]


def picture(name: str = "astronaut") -> Any:
    """A photograph of scikit-image's own wheel as (1, 3, H, W) float32."""
    path = Path(skimage.__file__).parent / "data" / f"{name}.png"
    return np.ascontiguousarray(np.moveaxis(skimage.io.imread(path)[..., :3], -1, 0)[None].astype(np.float32))


def trained(h: int, seed: int = 0) -> Weights:
    """Weights whose last layer is not zero: residuals of some units, so that both ends of the clamp are met."""
    rng = np.random.default_rng(seed)
    weights = Weights.initial(h, seed)
    weights.w3[...] = rng.normal(scale=0.2 / np.sqrt(h), size=weights.w3.shape)
    weights.b3[...] = rng.normal(size=3)
    return weights


def by_definition(frame: Any, weights: Weights) -> Any:
    """One frame (3, H, W), number by number."""
    layers = [(weights.w1, weights.b1), (weights.w2, weights.b2), (weights.w3, weights.b3)]
    height, width = frame.shape[1:]
    values = frame.astype(np.float64)
    for k, (w, b) in enumerate(layers):
        out = np.zeros((len(b), height, width))
        for o, i, y, x in np.ndindex(len(b), w.shape[1], height, width):
            for ky, kx in np.ndindex(3, 3):
                if 0 <= y + ky - 1 < height and 0 <= x + kx - 1 < width:
                    out[o, y, x] += float(w[o, i, ky, kx]) * values[i, y + ky - 1, x + kx - 1]
        out += b.astype(np.float64)[:, None, None]
        values = out if k == 2 else np.where(out > 0, out, 0)
    return np.minimum(np.maximum(frame + values, 0), 255)


def test_oracle_is_the_definition() -> None:
    frames = picture()[:, :, 100:106, 200:209]
    got = apply(np.concatenate([frames, 255 - frames]), trained(3))
    for frame, filtered in zip((frames[0], 255 - frames[0]), got, strict=True):
        np.testing.assert_allclose(filtered, by_definition(frame, trained(3)), rtol=1e-13, atol=1e-11)
    assert got.dtype == np.float64


@pytest.mark.parametrize("h", [1, 5, 16, 24, 32, 64])
@pytest.mark.parametrize("backend", HERE)
def test_backends_are_within_the_bound_of_float32(backend: str, h: int) -> None:
    frames = picture()
    frames = np.concatenate([frames[:, :, 31:68, 200:253], frames[:, :, 300:337, 0:53]])
    weights = trained(h)
    got, want, bound = apply(frames, weights, backend=backend), apply(frames, weights), error_bound(frames, weights)
    assert (got.dtype, got.shape) == (np.float32, frames.shape)
    assert (np.abs(got - want) <= bound).all()
    assert bound.max() < 0.01  # of 255; roundings are some hundredths of it


def test_the_bound_sees_what_it_should() -> None:
    """Its negative twins: one weight off by a thousandth, taps mirrored, a layer without its bias."""
    frames, weights = picture()[:, :, 31:68, 200:253], trained(16)
    want, bound = apply(frames, weights), error_bound(frames, weights)
    largest = np.unravel_index(np.abs(weights.w3).argmax(), weights.w3.shape)
    off = weights.w3.copy()
    off[largest] *= 1.001
    mirrored, no_bias = weights.w2[..., ::-1].copy(), np.zeros_like(weights.b3)
    for wrong in ({"w3": off}, {"w2": mirrored}, {"b3": no_bias}):
        got = apply(frames, Weights.of({**weights.tensors(), **wrong}), backend="numba")
        assert (np.abs(got - want) > bound).any(), wrong.keys()


@pytest.mark.parametrize("backend", HERE)
def test_frames_laid_out_in_any_way_are_taken(backend: str) -> None:
    frames, weights = picture()[:, :, 100:121, 200:217], trained(1)
    # With one channel, NumPy calls even this contiguous.
    weights = Weights.of({**weights.tensors(), "w1": weights.w1[::-1], "w2": weights.w2[:, ::-1]})
    for given in (
        frames[:, ::-1],
        frames[:, :, ::-1, ::-1],
        np.asfortranarray(frames),
        frames[:, :, :1, :1][..., ::-1],
    ):
        given.flags.writeable = False
        assert np.array_equal(apply(given, weights, backend=backend), apply(given.copy("C"), weights, backend=backend))


@pytest.mark.parametrize("backend", ["numpy", *HERE])
def test_step_0_is_the_identity(backend: str) -> None:
    frames = picture()[:, :, :61, :83]
    np.testing.assert_array_equal(apply(frames, Weights.initial(16, 7), backend=backend), frames)
    assert (apply(frames, trained(16), backend=backend) != frames).any()


def test_parameters_are_counted_and_seeded() -> None:
    assert [Weights.zeros(h).count() for h in (16, 24, 32)] == [3203, 6531, 11011]
    assert all(Weights.zeros(h).count() == 9 * h * h + 56 * h + 3 for h in (1, 7, 64))
    first = Weights.initial(8, 1)
    for seed in (1, 2):
        other = Weights.initial(8, seed)
        assert (first == other, first.digest() == other.digest()) == (seed == 1, seed == 1)
    assert [t.any() for t in first.tensors().values()] == [True] * 4 + [False] * 2


def test_minus_zero_is_the_same_weight() -> None:
    weights = Weights.zeros(2)
    signed = Weights.of({name: -tensor for name, tensor in weights.tensors().items()})
    assert np.signbit(signed.w1).all()
    assert signed == weights
    assert (signed.digest(), hash(signed)) == (weights.digest(), hash(weights))


# --- torch: the form that is trained ----------------------------------------------------------------------------


def test_module_is_the_operator_and_gives_its_weights_back() -> None:
    frames, weights = picture()[:, :, 200:233, 100:141], trained(12)
    module = Postfilter(weights)
    got = module(torch.from_numpy(frames)).detach().numpy()
    assert (np.abs(got - apply(frames, weights)) <= error_bound(frames, weights)).all()
    assert module.weights() == weights
    with torch.no_grad():
        module.b1[0] += 1
    assert module.weights() != weights  # a copy both ways: the original did not move
    assert not np.shares_memory(weights.b1, module.b1.detach().numpy())


def test_gradients_are_those_of_the_operator() -> None:
    weights = {name: torch.from_numpy(t).double().requires_grad_() for name, t in trained(2).tensors().items()}
    # Away from the corners of ReLU and clamp, where there is no gradient to check.
    frames = (torch.from_numpy(picture()[:, :, 40:43, 60:64]).double() * 0.5 + 60).requires_grad_()
    names = list(weights)

    def run(frames: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        return torch_apply(frames, dict(zip(names, tensors, strict=True)))

    assert torch.autograd.gradcheck(run, (frames, *weights.values()))


def test_torch_computes_in_float32_and_leaves_the_settings_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    backends: Any = torch.backends

    def settings() -> Any:
        return backends.mkldnn.conv.fp32_precision, backends.cudnn.deterministic, torch.get_num_threads()

    seen = []
    monkeypatch.setattr(torch_, "apply", lambda *given: seen.append(settings()) or torch_apply(*given))
    was = backends.mkldnn.conv.fp32_precision
    backends.mkldnn.conv.fp32_precision = "bf16"
    try:
        before = settings()
        apply(picture()[:, :, :20, :20], trained(4), backend="torch", threads=1)
        assert seen == [("ieee", True, 1)]
        assert settings() == before
        assert before[:2] == ("bf16", False)
    finally:
        backends.mkldnn.conv.fp32_precision = was


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("h", [16, 24, 32, 64])
def test_cuda_is_within_the_bound_of_float32(h: int) -> None:
    frames, weights = picture(), trained(h)
    run = build("torch-cuda", weights)
    got = run(frames)
    assert (np.abs(got - apply(frames, weights)) <= error_bound(frames, weights)).all()
    np.testing.assert_array_equal(got, run(frames))
    np.testing.assert_array_equal(apply(frames, Weights.initial(h, 0), backend="torch-cuda"), frames)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_without_a_device_is_one_sentence() -> None:
    with pytest.raises(DeviceMissing, match="cuda was asked for"):
        build("torch-cuda", trained(4))


# --- other processes --------------------------------------------------------------------------------------------


def in_a_child(tmp_path: Path, code: str, weights: Weights, frames: Any, **environment: str) -> Any:
    given, out = tmp_path / "given.npz", tmp_path / "out.npz"
    np.savez(given, frames=frames, **weights.tensors())
    program = (
        "import sys, numpy as np\n"
        "from kernels.postfilter import Weights, apply, build\n"
        "given = dict(np.load(sys.argv[1]))\n"
        "frames, weights = given.pop('frames'), Weights.of(given)\n" + code
    )
    done = subprocess.run(
        [sys.executable, "-c", program, given, out],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    with np.load(out) as answers:
        return {name: answers[name] for name in answers.files}


def test_tensorflow_is_within_the_bound_of_float32(tmp_path: Path) -> None:
    """In a process of its own: TensorFlow and torch never meet."""
    pytest.importorskip("importlib.metadata").version("tensorflow")
    frames, weights = np.concatenate([picture()[:, :, 31:68, 200:253]] * 2), trained(16)
    code = (
        "run = build('tensorflow', weights)\n"
        "np.savez(sys.argv[2], got=run(frames), other=run(frames[:1, :, :20, :31]),\n"
        "         identity=apply(frames, Weights.initial(16, 0), backend='tensorflow'))\n"
    )
    told = in_a_child(tmp_path, code, weights, frames, TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    part = frames[:1, :, :20, :31]
    for got, given in ((told["got"], frames), (told["other"], part)):
        assert (np.abs(got - apply(given, weights)) <= error_bound(given, weights)).all()
    np.testing.assert_array_equal(told["identity"], frames)


@pytest.mark.skipif(machine().lanes not in (8, 16), reason="the processor has no AVX to leave out")
@pytest.mark.parametrize(("features", "lanes", "fused"), [("+avx,+avx2,+fma", 8, True), ("", 4, False)])
def test_narrow_vectors_are_as_good(tmp_path: Path, features: str, lanes: int, fused: bool) -> None:
    """What an older processor computes; with the same instruction for a·b + c it is the same bit for bit."""
    frames, weights = picture()[:, :, 31:68, 200:253], trained(10)
    code = (
        "run = build('numba', weights)\n"
        "told = run.evidence()\n"
        "np.savez(sys.argv[2], got=run(frames), tiles=apply(frames, weights, backend='numba', tile=(16, 9)),\n"
        "         whole=apply(frames, weights, backend='numba', tile='whole'),\n"
        "         lanes=told['lanes'], fused=told['fused'])\n"
    )
    told = in_a_child(tmp_path, code, weights, frames, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES=features)
    assert (told["lanes"], told["fused"]) == (lanes, fused)
    np.testing.assert_array_equal(told["tiles"], told["whole"])
    np.testing.assert_array_equal(told["got"], told["whole"])
    assert (np.abs(told["got"] - apply(frames, weights)) <= error_bound(frames, weights)).all()
    if machine().fused:
        assert np.array_equal(told["got"], apply(frames, weights, backend="numba")) == fused


def test_the_register_tile_follows_the_processor() -> None:
    wide = machine({"avx": True, "avx2": True, "fma": True, "avx512f": True}, "x86_64")
    assert (wide.lanes, wide.channels, wide.fused) == (16, 8, True)
    assert machine({"avx": True, "fma": True}, "x86_64").lanes == 8
    assert not machine({}, "x86_64").fused
    assert machine({}, "aarch64").fused


# --- refusals ---------------------------------------------------------------------------------------------------

GOOD = np.full((2, 3, 12, 10), 20, dtype=np.float32)


def spoiled(value: float) -> Any:
    frames = GOOD.copy()
    frames[1, 2, 5, 7] = value
    return frames


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        (GOOD[0], r"frames must be \(n, 3, height, width\), not \(3, 12, 10\)"),
        (GOOD[:, :2], r"frames must be \(n, 3, height, width\), not \(2, 2, 12, 10\)"),
        (GOOD[:0], "nothing to filter"),
        (GOOD.astype(np.uint8), "must be float32 .* not uint8"),
        (GOOD.astype(np.float64), "must be float32 .* not float64"),
        (GOOD.tolist(), "must be a NumPy array, not list"),
        (spoiled(np.nan), "the value nan of frame 1, channel B, row 5, column 7 is not finite"),
        (spoiled(np.inf), "the value inf of frame 1, channel B, row 5, column 7 is not finite"),
        (spoiled(-0.5), "the value -0.5 of frame 1, channel B, row 5, column 7 is outside 0 to 255"),
        (spoiled(255.5), "the value 255.5 of frame 1, channel B, row 5, column 7 is outside 0 to 255"),
    ],
)
@pytest.mark.parametrize("backend", ["numpy", *HERE])
def test_frames_that_are_refused(frames: Any, says: str, backend: str) -> None:
    with pytest.raises(PostfilterRefused, match=says):
        apply(frames, Weights.zeros(2), backend=backend)


@pytest.mark.parametrize("backend", ["numpy", *HERE])
def test_frames_at_the_ends_of_the_range_are_taken(backend: str) -> None:
    for value in (0, 255):
        frames = np.full_like(GOOD, value)
        np.testing.assert_array_equal(apply(frames, Weights.zeros(2), backend=backend), frames)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"backend": "jax"}, "no postfilter backend is called 'jax': there are numpy, numba, torch"),
        ({"backend": "numba", "tile": 6}, "a tile of 6×6 pixels is too small: one output pixel sees 7×7"),
        ({"backend": "numba", "tile": (64, 3)}, "a tile of 64×3 pixels is too small"),
        ({"backend": "numba", "tile": 64.0}, "a tile is one number of pixels"),
        ({"backend": "numba", "tile": (64, 64, 3)}, "a tile is one number of pixels"),
        ({"backend": "numba", "tile": "all"}, "a tile is one number of pixels"),
        ({"backend": "numba", "tile": True}, "a tile is one number of pixels"),
        ({"backend": "torch", "tile": 64}, "the torch backend filters whole frames only.* or use numba"),
        ({"backend": "numba", "threads": 0}, "at least 1 thread, not 0"),
    ],
)
def test_arguments_that_are_refused(arguments: Any, says: str) -> None:
    with pytest.raises(KernelRefused, match=says):
        apply(GOOD, Weights.zeros(2), **arguments)


def test_weights_that_are_refused() -> None:
    good = Weights.zeros(4).tensors()
    broken = good["w2"].copy()
    broken[1, 2, 0, 1] = np.nan
    for wrong, says in (
        ({**good, "w2": good["w2"][:, :3]}, r"w2 must be \(4, 4, 3, 3\) where b1 has 4 channels, not \(4, 3, 3, 3\)"),
        ({**good, "b3": good["b3"].astype(np.float64)}, "b3 must be a float32 array, not float64"),
        ({**good, "w2": broken}, r"w2\[1, 2, 0, 1\] is not finite"),
        ({**good, "b1": np.zeros((4, 1), np.float32)}, r"b1 must be \(h,\)"),
        ({**good, "w4": good["b3"]}, "weights with w4, which this operator has not"),
        ({k: v for k, v in good.items() if k not in ("b2", "w3")}, "weights without b2, w3"),
    ):
        with pytest.raises(WeightsRefused, match=says):
            Weights.of(wrong)
    with pytest.raises(WeightsRefused, match="1 to 4096 hidden channels, not 0"):
        Weights.initial(0, 0)
    with pytest.raises(WeightsRefused, match=r"must be a kernels.postfilter.Weights, not dict"):
        build("numpy", good)  # type: ignore[arg-type]


def test_nothing_is_imported_before_it_is_built() -> None:
    program = "import sys, kernels.postfilter; print({'torch', 'numba', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert set(BACKENDS) == {"numpy", "numba", "torch", "torch-cuda", "tensorflow"}
