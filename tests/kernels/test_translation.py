"""The translation kernel: the oracle against independent definitions, every backend against the oracle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage

from kernels.devices import DeviceMissing, KernelRefused
from kernels.translation import BACKENDS, ShapeMismatch, TranslationRefused, build, translate

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(11)
UNIT = {"complex64": 2.0**-24, "complex128": 2.0**-53}
TENSORFLOW = [name for name in BACKENDS if name.startswith("tensorflow")]
SIZES = [(1, 1), (1, 4), (4, 4), (16, 4), (32, 4), (128, 1)]  # B·C from 1 to 128; one function answers them all


def cuda_missing() -> str:
    """Why the CUDA backend cannot run here; empty where it can."""
    try:
        build("torch-cuda")
    except DeviceMissing as error:
        return str(error)
    return ""


RUNNABLE_CUDA = pytest.mark.skipif(bool(cuda_missing()), reason=cuda_missing())
RUNNABLE = [pytest.param(name, marks=RUNNABLE_CUDA) if name == "torch-cuda" else name for name in BACKENDS]
# Every kind of offset: sub-pixel of both signs, tiny, large, integer, zero, just inside and far outside.
OFFSETS = [
    *((0.25, -0.75), (-0.5, 0.5), (1.5, 2.25), (-7.9, 3.0), (3, -5), (0, 0), (0, 0.4), (-0.3, 0)),
    *((9.999, 0), (-15.4, 0.1), (16, 0), (0, -17.5), (400.25, -3), (1e30, 1e-30), (1e-9, -1e-9), (2e-4, -2e-4)),
]


def complex_images(shape: tuple[int, ...], dtype: str = "complex128") -> Any:
    return (RNG.normal(size=shape) + 1j * RNG.normal(size=shape)).astype(dtype)


def by_definition(image: Any, tx: float, ty: float) -> Any:
    """The definition, pixel by pixel, in exact fractions until the last step."""
    from fractions import Fraction

    height, width = image.shape
    out = np.zeros_like(image)
    sx, sy = -Fraction(tx), -Fraction(ty)
    for y in range(height):
        for x in range(width):
            total: complex = 0
            x0, y0 = math.floor(x + sx), math.floor(y + sy)
            for dy in (0, 1):
                for dx in (0, 1):
                    wx, wy = x + sx - x0, y + sy - y0
                    weight = (wx if dx else 1 - wx) * (wy if dy else 1 - wy)
                    if 0 <= y0 + dy < height and 0 <= x0 + dx < width and weight:
                        total += float(weight) * image[y0 + dy, x0 + dx]
            out[y, x] = total
    return out


def local_error(got: Any, want: Any, images: Any, offsets: Any) -> float:
    """Largest error relative to the sum of absolute values that it comes from."""
    scale = np.abs(translate(np.abs(images.real) + 1j * np.abs(images.imag), offsets))
    assert not np.any(got[scale == 0])
    lit = scale > 0
    return float((np.abs(got - want)[lit] / scale[lit]).max()) if lit.any() else 0.0


# The oracle.


@pytest.mark.parametrize("offset", OFFSETS)
def test_oracle_is_the_definition(offset: tuple[float, float]) -> None:
    images = complex_images((1, 16, 11))
    offsets = np.array([offset], dtype=float)
    got = translate(images, offsets)
    assert got.dtype == np.complex128
    assert local_error(got, by_definition(images[0], *offset)[None], images, offsets) <= 8 * UNIT["complex128"]


@pytest.mark.parametrize("offset", [o for o in OFFSETS if max(map(abs, o)) < 1e6])
def test_oracle_agrees_with_scipy(offset: tuple[float, float]) -> None:
    image = RNG.normal(size=(16, 11))
    want = scipy.ndimage.shift(image, offset[::-1], order=1, mode="grid-constant", cval=0.0, prefilter=False)
    np.testing.assert_allclose(translate(image[None], np.array([offset], dtype=float))[0], want, atol=1e-12)


def test_content_moves_by_plus_t_and_the_last_axis_is_x_then_y() -> None:
    image = np.zeros((1, 9, 9))
    image[0, 4, 4] = 1
    moved = translate(image, np.array([[2.0, -1.0]]))
    assert np.argwhere(moved[0]).tolist() == [[3, 6]]


def test_border_weights_are_partial() -> None:
    moved = translate(np.ones((1, 4, 4)), np.array([[0.25, 0.0]]))
    np.testing.assert_array_equal(moved[0, 0], [0.75, 1, 1, 1])


# What every backend refuses.


@pytest.mark.parametrize(("images", "offsets"), [((4, 8, 8), (128, 2)), ((128, 8, 8), (4, 2)), ((4, 8, 8), (1, 2))])
def test_batches_that_differ_are_refused_never_tiled(images: tuple[int, ...], offsets: tuple[int, ...]) -> None:
    with pytest.raises(ShapeMismatch, match="never tiled or repeated"):
        translate(np.zeros(images), np.zeros(offsets))


def test_other_refusals() -> None:
    with pytest.raises(ShapeMismatch, match="never tiled"):
        translate(np.zeros((2, 4, 8, 8)), np.zeros((8, 2)))  # as many, but grouped otherwise
    with pytest.raises(ShapeMismatch, match="nothing to translate"):
        translate(np.zeros((0, 8, 8)), np.zeros((0, 2)))
    with pytest.raises(ShapeMismatch, match="batch axis"):
        translate(np.zeros((8, 8)), np.zeros(2))
    with pytest.raises(ShapeMismatch, match="2 long"):
        translate(np.zeros((1, 8, 8)), np.zeros((1, 3)))
    with pytest.raises(TranslationRefused, match="float or complex"):
        translate(np.zeros((1, 8, 8), dtype=int), np.zeros((1, 2)))
    with pytest.raises(TranslationRefused, match="real"):
        translate(np.zeros((1, 8, 8)), np.zeros((1, 2), dtype=complex))
    with pytest.raises(TranslationRefused, match=r"image \(1,\) is not finite"):
        translate(np.zeros((2, 8, 8)), np.array([[0, 0], [np.nan, 0]]))
    with pytest.raises(TranslationRefused, match=r"float or complex.*not >f4"):
        translate(np.zeros((1, 8, 8), dtype=">f4"), np.zeros((1, 2)))
    with pytest.raises(TranslationRefused, match=r"real numbers.*not >f8"):
        translate(np.zeros((1, 8, 8)), np.zeros((1, 2), dtype=">f8"), backend="torch")
    with pytest.raises(TranslationRefused, match=r"images must be a NumPy array, not list"):
        translate([[[0.0]]], np.zeros((1, 2)))  # type: ignore[arg-type]
    with pytest.raises(TranslationRefused, match=r"offsets must be a NumPy array, not tuple"):
        translate(np.zeros((1, 8, 8)), ((0.0, 0.0),))  # type: ignore[arg-type]
    with pytest.raises(TranslationRefused, match="no translation backend is called 'jax': there are numpy, numba"):
        build("jax")
    assert issubclass(TranslationRefused, KernelRefused)


@pytest.mark.parametrize("bad", [np.nan, -np.inf, complex(0, np.nan)])
@pytest.mark.parametrize("backend", ["numpy", "numba", "torch"])
def test_an_image_that_is_not_finite_is_refused_with_its_place(backend: str, bad: complex) -> None:
    images = complex_images((2, 3, 400, 300), "complex64")
    run, offsets = build(backend), np.full((2, 3, 2), 0.5, "float32")
    run(images, offsets)  # the negative twin: without the bad pixel there is nothing to say
    images[1, 2, 399, 7] = bad
    with pytest.raises(TranslationRefused, match=r"image \(1, 2\) is not finite at y 399, x 7"):
        run(images, offsets)
    build(backend, finite=False)(images, offsets)  # whoever has looked already need not look again


def test_cuda_where_there_is_none_is_one_sentence() -> None:
    if not cuda_missing():
        pytest.skip("there is CUDA here")
    with pytest.raises(DeviceMissing, match=r"^cuda was asked for, but .*use the cpu"):
        translate(np.zeros((1, 8, 8)), np.zeros((1, 2)), backend="torch-cuda")


# The backends against the oracle.


def cases() -> dict[str, Any]:
    """Named batches: images and offsets, in every layout and precision, and what a gradient needs."""
    found: dict[str, Any] = {}
    for dtype, real in (("complex64", "float32"), ("complex128", "float64")):
        for name, lead in (("flat", (16,)), ("grouped", (4, 4)), ("one", (1, 1))):
            count = math.prod(lead)
            offsets = np.array(OFFSETS[:count], dtype=float) if count > 1 else np.array([[0.0017, -5.3]])
            found[f"{name}-{dtype}.images"] = complex_images((*lead, 16, 11), dtype)
            found[f"{name}-{dtype}.offsets"] = offsets.reshape(*lead, 2).astype(real)
    exact = complex_images((6, 12, 12), "complex64")
    exact[:, 2] = complex(-0.0, -0.0)  # the sign of zero belongs to "bit for bit"
    exact[1, 3, 3] = complex(np.inf, np.nan)
    exact[2, 1, 1] = complex(np.float32(1e-45), np.float32(3e38))
    found["zero.images"], found["zero.offsets"] = exact, np.zeros((6, 2), "float32")
    found["integer.images"] = exact
    found["integer.offsets"] = np.array([[1, 2], [-3, 0], [0, 5], [11, -11], [12, 0], [-2, -2]], "float32")
    found["bright.images"] = np.full((3, 8, 8), 1e-4 + 0j, "complex64")
    found["bright.images"][:, 4, 4] = 1
    found["bright.offsets"] = np.array([[1e-4, 0], [0, 3e-4], [2e-4, 1e-3]], "float32")
    for batch, channels in SIZES:
        found[f"{batch}x{channels}.images"] = complex_images((batch, channels, 8, 8), "complex64")
        found[f"{batch}x{channels}.offsets"] = RNG.uniform(-9, 9, (batch, channels, 2)).astype("float32")
    found["real.images"] = RNG.normal(size=(3, 8, 8)).astype("float32")
    found["real.offsets"] = np.array([[0.5, 0], [0, 0], [-1.25, 2]], "float32")
    found["mixed.images"] = complex_images((3, 8, 8), "complex128")
    found["mixed.offsets"] = np.array([[0.3, -0.1], [-1.7, 2.9], [1e-9, -1e-9]], "float32")
    found["grad.x"], found["grad.y"] = RNG.normal(size=(2, 16, 16, 11))
    found["grad.t"] = np.array(OFFSETS)
    return found


CASES = cases()


@pytest.fixture(scope="module")
def answers(tensorflow_answers: dict[str, Any]) -> dict[str, Any]:
    """What every backend makes of every case; TensorFlow in a process of its own."""
    found = dict(tensorflow_answers)
    for backend in ("numpy", "numba", "torch", *(["torch-cuda"] if not cuda_missing() else [])):
        run = build(backend, finite=False)
        for name in [n.removesuffix(".images") for n in CASES if n.endswith(".images")]:
            found[f"{backend}.{name}"] = run(CASES[f"{name}.images"], CASES[f"{name}.offsets"])
    return found


@pytest.mark.parametrize("backend", RUNNABLE)
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("name", ["flat", "grouped", "one"])
def test_backend_is_the_oracle_in_every_pixel(answers: dict[str, Any], backend: str, dtype: str, name: str) -> None:
    images, offsets = (CASES[f"{name}-{dtype}.{what}"] for what in ("images", "offsets"))
    got = answers[f"{backend}.{name}-{dtype}"]
    assert got.shape == images.shape
    assert got.dtype == ("complex128" if backend == "numpy" else dtype)
    limit = (8 if dtype == "complex64" else 16) * UNIT[dtype]
    assert local_error(got, translate(images, offsets), images, offsets) <= limit


@pytest.mark.parametrize("backend", RUNNABLE)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_batch_goes_through_one_function(answers: dict[str, Any], backend: str, size: tuple[int, int]) -> None:
    """Training batches, then prediction batches of another size: each image by its own offset."""
    images, offsets = (CASES[f"{size[0]}x{size[1]}.{what}"] for what in ("images", "offsets"))
    got = answers[f"{backend}.{size[0]}x{size[1]}"]
    assert got.shape == images.shape
    assert local_error(got, translate(images, offsets), images, offsets) <= 8 * UNIT["complex64"]


@pytest.mark.parametrize("backend", RUNNABLE)
def test_zero_shift_returns_the_image_bit_for_bit(answers: dict[str, Any], backend: str) -> None:
    images = CASES["zero.images"]
    got = answers[f"{backend}.zero"]
    assert got.tobytes() == images.astype(got.dtype).tobytes()


@pytest.mark.parametrize("backend", RUNNABLE)
def test_integer_shift_is_an_exact_copy(answers: dict[str, Any], backend: str) -> None:
    images, offsets = CASES["integer.images"], CASES["integer.offsets"].astype(int)
    want = np.zeros_like(images)
    for image, out, (tx, ty) in zip(images, want, offsets, strict=True):
        for y in range(12):
            for x in range(12):
                if 0 <= y - ty < 12 and 0 <= x - tx < 12:
                    out[y, x] = image[y - ty, x - tx]
    got = answers[f"{backend}.integer"]
    assert got.tobytes() == want.astype(got.dtype).tobytes()


@pytest.mark.parametrize("backend", RUNNABLE)
def test_real_images_stay_real(answers: dict[str, Any], backend: str) -> None:
    got = answers[f"{backend}.real"]
    assert got.dtype == ("float64" if backend == "numpy" else "float32")
    np.testing.assert_allclose(got, translate(CASES["real.images"], CASES["real.offsets"]), atol=1e-6)


def test_xla_really_compiled_and_the_others_did_not(answers: dict[str, Any]) -> None:
    assert [bool(answers[f"{mode}.xla"]) for mode in TENSORFLOW] == [False, False, True]


def test_tensorflow_refuses_dynamic_shapes_and_other_batches(answers: dict[str, Any]) -> None:
    assert "static shapes only" in str(answers["dynamic"])
    assert "never tiled or repeated" in str(answers["mismatch"])


@pytest.mark.parametrize("backend", RUNNABLE)
def test_small_weights_keep_their_digits(answers: dict[str, Any], backend: str) -> None:
    """1 - w in float32 loses a small weight: beside a bright pixel that is an error of 1e-4, not of 1e-7.

    TensorFlow's graph optimiser brings it back by reordering any sum that holds a constant.
    """
    images, offsets = CASES["bright.images"], CASES["bright.offsets"]
    want = translate(images, offsets)
    assert local_error(answers[f"{backend}.bright"], want, images, offsets) <= 8 * UNIT["complex64"]


@pytest.mark.parametrize("backend", RUNNABLE)
def test_double_images_keep_their_digits_by_offsets_of_single_precision(answers: Any, backend: str) -> None:
    images, offsets = CASES["mixed.images"], CASES["mixed.offsets"]
    want = translate(images, offsets)
    assert local_error(answers[f"{backend}.mixed"], want, images, offsets) <= 16 * UNIT["complex128"]


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_arrays_laid_out_in_any_way_are_taken(backend: str) -> None:
    images, offsets = complex_images((3, 5, 1)), np.array([[0.5, 0.25], [0, 1], [-0.5, 3]], "float16")
    want = translate(images, offsets)
    # With one column, NumPy calls even the last of these contiguous.
    for given in (np.asfortranarray(images), images[::-1][::-1], images[:, :, ::-1], images[:1, :1, ::-1]):
        assert np.allclose(
            translate(given, offsets[: len(given)], backend=backend), translate(given, offsets[: len(given)])
        )
    assert np.allclose(translate(images, offsets, backend=backend), want, rtol=1e-14, atol=0)


# Gradients.


def transposed(y: Any, offsets: Any) -> Any:
    """T^T from the definition: the gradient of <T(x), y> is, by symmetry of bilinear weights, T by -t."""
    return translate(y, -offsets)


@pytest.mark.parametrize("mode", TENSORFLOW)
def test_tensorflow_gradient_is_the_exact_adjoint(answers: dict[str, Any], mode: str) -> None:
    want = transposed(CASES["grad.y"], CASES["grad.t"])
    np.testing.assert_allclose(answers[f"{mode}.adjoint"], want, rtol=0, atol=1e-14)


def test_torch_gradient_is_the_exact_adjoint() -> None:
    import torch

    from kernels.translation.torch_ import translate as torch_translate

    x = torch.tensor(CASES["grad.x"], requires_grad=True)
    loss = (torch_translate(x, torch.tensor(CASES["grad.t"])) * torch.tensor(CASES["grad.y"])).sum()
    (gradient,) = torch.autograd.grad(loss, x)

    np.testing.assert_allclose(gradient.numpy(), transposed(CASES["grad.y"], CASES["grad.t"]), rtol=0, atol=1e-14)


def test_adjoint_pairs_with_the_forward_map() -> None:
    x, y, t = CASES["grad.x"], CASES["grad.y"], CASES["grad.t"]
    assert np.vdot(translate(x, t), y) == pytest.approx(np.vdot(x, transposed(y, t)), rel=1e-13)
    # The negative twin: the forward map is not its own adjoint.
    assert abs(np.vdot(translate(x, t), y) - np.vdot(x, translate(y, t))) > 1e-3


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=RUNNABLE_CUDA)])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_torch_gradients_of_first_and_second_order(dtype: str, device: str) -> None:
    import torch

    from kernels.translation.torch_ import translate_bchw

    values = complex_images((2, 2, 5, 4))
    images = torch.tensor(values if dtype == "complex128" else values.real, device=device, requires_grad=True)
    # Inside, over the edge, and far outside.
    offsets = torch.tensor(RNG.uniform(-5.4, 5.4, size=(2, 2, 1, 2)), device=device, requires_grad=True)
    assert torch.autograd.gradcheck(translate_bchw, (images, offsets))
    assert torch.autograd.gradgradcheck(translate_bchw, (images, offsets))


def test_torch_moves_a_large_batch_in_pieces_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels.translation import torch_

    run, images, offsets = build("torch"), CASES["flat-complex64.images"], CASES["flat-complex64.offsets"]
    want = run(images, offsets).tobytes()
    for held in (1, 5 * images[0].nbytes):
        monkeypatch.setattr(torch_, "HELD_BYTES", held)
        assert run(images, offsets).tobytes() == want


def slopes_below() -> Any:
    """d <T(x), y> / dt on the side of smaller offsets, from the oracle by differences."""
    x, y, t, step = CASES["grad.x"], CASES["grad.y"], CASES["grad.t"], 1e-6
    here = (translate(x, t) * y).sum((1, 2))
    below = [(translate(x, t - np.eye(2)[axis] * step) * y).sum((1, 2)) for axis in (0, 1)]
    return np.stack([(here - b) / step for b in below], axis=-1)


@pytest.mark.parametrize("backend", [*TENSORFLOW, "torch"])
def test_gradient_by_the_offset_is_the_slope_also_at_whole_pixels(answers: dict[str, Any], backend: str) -> None:
    """Offsets begin at exactly 0 in training: a gradient of 0 there would keep them there.

    Where the slope jumps it is the one on the side of smaller offsets.
    """
    if backend == "torch":
        import torch

        from kernels.translation.torch_ import translate as torch_translate

        x, y = torch.tensor(CASES["grad.x"]), torch.tensor(CASES["grad.y"])
        t = torch.tensor(CASES["grad.t"], requires_grad=True)
        got = torch.autograd.grad((torch_translate(x, t) * y).sum(), t)[0].numpy()
    else:
        got = answers[f"{backend}.slope"]
    near = (np.abs(CASES["grad.t"]) < 1e6).all(axis=1)  # 1e30 - 1e-6 is no other number
    near[[o == (1e-9, -1e-9) for o in OFFSETS]] = False  # nor is the whole step on the same side here
    np.testing.assert_allclose(got[near], slopes_below()[near], rtol=1e-4, atol=1e-4)
    assert np.abs(got[OFFSETS.index((0, 0))]).min() > 0.1
