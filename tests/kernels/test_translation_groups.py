"""Extraction, reassembly and stitch: the formulas one by one, every library against the oracle, the round trip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels.translation import ShapeMismatch, TranslationRefused, groups, oracle
from kernels.translation.groups import centred, even_pad, extract, reassemble, relative, stitch

RNG = np.random.default_rng(23)
LIMIT = 64 * 2.0**-24  # of complex64: two translations and a mean, relative to the largest value


def smooth(height: int, width: int) -> Any:
    """A picture in which nothing is finer than some 25 pixels, as a bilinear round trip needs it."""
    y, x = np.mgrid[:height, :width] / 25.0
    return (1.5 + np.sin(x) * np.cos(0.7 * y)) * np.exp(1j * 0.8 * np.sin(0.9 * y + 0.4 * x))


def cases() -> dict[str, Any]:
    spots = RNG.uniform(-4, 4, (3, 4, 2)) + RNG.uniform(0, 9000, (3, 1, 2))  # groups lie far from each other
    places = RNG.uniform(-20, 20, (9, 2)) + 500
    return {
        "groups.canvas": np.stack([smooth(60, 52) * (1 + b) for b in range(3)]).astype("complex64"),
        "groups.patches": (RNG.normal(size=(3, 4, 16, 12)) + 1j * RNG.normal(size=(3, 4, 16, 12))).astype("complex64"),
        "groups.weight": RNG.uniform(0.2, 1, (16, 12)).astype("float32"),
        "groups.positions": spots,
        "groups.pad": np.array(even_pad(relative(spots))),
        "groups.crops": RNG.normal(size=(9, 10, 10)).astype("float32"),
        "groups.places": places,
        "groups.wide": np.array(even_pad(centred(places))),
    }


CASES = cases()
GIVEN = {name.removeprefix("groups."): value for name, value in CASES.items()}


def made(backend: str) -> dict[str, Any]:
    frame = GIVEN["patches"].shape[2:]
    return {
        "extract": extract(GIVEN["canvas"], GIVEN["positions"], frame, backend=backend),
        "reassemble": reassemble(GIVEN["patches"], GIVEN["positions"], weight=GIVEN["weight"], backend=backend),
        "stitch": stitch(GIVEN["crops"], GIVEN["places"], backend=backend),
    }


ORACLE = made("numpy")


def close(got: Any, want: Any) -> bool:
    assert got.shape == want.shape
    return bool(np.abs(got - want).max() <= LIMIT * np.abs(want).max())


# The formulas, term by term.


def test_extraction_is_a_crop_of_the_moved_canvas() -> None:
    r = -(GIVEN["positions"] - GIVEN["positions"].mean(axis=1, keepdims=True))
    for b in range(3):
        for c in range(4):
            moved = oracle.translate(GIVEN["canvas"][b][None], r[b, c][None])[0]
            np.testing.assert_array_equal(ORACLE["extract"][b, c], moved[22:38, 20:32])


def test_reassembly_is_a_weighted_mean_that_keeps_the_batch() -> None:
    r = -(GIVEN["positions"] - GIVEN["positions"].mean(axis=1, keepdims=True))
    pad = int(np.ceil(np.abs(r).max()))
    pad += pad % 2
    assert ORACLE["reassemble"].shape == (3, 16 + 2 * pad, 12 + 2 * pad)
    weight = GIVEN["weight"].astype(float)
    for b in range(3):
        above, below = 0, 0
        for c in range(4):
            above = above + oracle.translate(np.pad(GIVEN["patches"][b, c] * weight, pad)[None], -r[b, c][None])[0]
            below = below + oracle.translate(np.pad(weight, pad)[None], -r[b, c][None])[0]
        want = np.where(below > 0, above / np.where(below > 0, below, 1), 0)
        np.testing.assert_allclose(ORACLE["reassemble"][b], want, rtol=0, atol=1e-13)


def test_stitch_is_a_mean_over_all_crops() -> None:
    a = GIVEN["places"] - GIVEN["places"].mean(axis=0)
    pad = int(GIVEN["wide"])
    assert pad % 2 == 0
    assert np.abs(a).max() <= pad < np.abs(a).max() + 2
    crops = GIVEN["crops"].astype(float)
    above = sum(oracle.translate(np.pad(crops[i], pad)[None], a[i][None])[0] for i in range(9))
    below = sum(oracle.translate(np.pad(np.ones((10, 10)), pad)[None], a[i][None])[0] for i in range(9))
    want = np.where(below > 0, above / np.where(below > 0, below, 1), 0)
    np.testing.assert_allclose(ORACLE["stitch"], want, rtol=0, atol=1e-13)
    assert not ORACLE["stitch"][below == 0].any()


def test_the_picture_does_not_depend_on_how_many_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "HELD_BYTES", 1)
    np.testing.assert_allclose(stitch(GIVEN["crops"], GIVEN["places"]), ORACLE["stitch"], rtol=0, atol=1e-13)


# The round trip, and its negative twin.


@pytest.mark.parametrize("backend", ["numpy", "numba", "torch"])
def test_merge_then_extract_gives_the_patches_back_and_the_wrong_sign_does_not(backend: str) -> None:
    canvas = np.stack([smooth(96, 96)] * 2).astype("complex64")
    spots = RNG.uniform(-3, 3, (2, 4, 2))
    patches = extract(canvas, spots, (64, 64), backend=backend)
    merged = reassemble(patches, spots, backend=backend)

    def error(positions: Any) -> float:
        again = extract(merged, positions, (64, 64), backend=backend)
        return float(np.abs(again - patches)[..., 8:-8, 8:-8].max() / np.abs(patches).max())

    assert error(spots) < 1e-3
    assert error(-spots) > 1e-2


# Every library against the oracle.


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_backends_by_name_agree_with_the_oracle(backend: str) -> None:
    for name, got in made(backend).items():
        assert close(got, ORACLE[name]), name
        assert got.dtype in ("complex64", "float32")


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_tensorflow_agrees_with_the_oracle(tensorflow_answers: dict[str, Any], mode: str) -> None:
    for name, want in ORACLE.items():
        assert close(tensorflow_answers[f"tensorflow-{mode}.{name}"], want), name
    assert "never tiled or repeated" in str(tensorflow_answers[f"tensorflow-{mode}.mismatch"])


def torch_given() -> tuple[Any, Any, Any, Any]:
    import torch

    spots = torch.tensor(GIVEN["positions"]).unsqueeze(2)
    return torch.tensor(GIVEN["canvas"]).unsqueeze(1), torch.tensor(GIVEN["patches"]), spots, torch.tensor


def test_torch_tensors_agree_with_the_oracle() -> None:
    from kernels.translation import groups_torch

    canvas, patches, spots, tensor = torch_given()
    frame = patches.shape[2:]
    assert close(groups_torch.extract(canvas, spots, frame).numpy(), ORACLE["extract"])
    merged = groups_torch.reassemble(patches, spots, weight=tensor(GIVEN["weight"]))
    assert close(merged[:, 0].numpy(), ORACLE["reassemble"])
    assert close(groups_torch.stitch(tensor(GIVEN["crops"]), tensor(GIVEN["places"])).numpy(), ORACLE["stitch"])
    with pytest.raises(ShapeMismatch, match="never tiled or repeated"):
        groups_torch.reassemble(patches, spots[:1])
    with pytest.raises(ShapeMismatch, match="never tiled or repeated"):
        groups_torch.extract(canvas[:1], spots, frame)


def test_torch_gradients_through_merge_and_extract() -> None:
    import torch

    from kernels.translation import groups_torch

    patches = torch.tensor(RNG.normal(size=(2, 2, 4, 4)), requires_grad=True)
    spots = torch.tensor(RNG.uniform(-1.3, 1.3, (2, 2, 1, 2)), requires_grad=True)

    def both(p: Any, s: Any) -> Any:
        return groups_torch.extract(groups_torch.reassemble(p, s, pad=4), s, (4, 4))

    assert torch.autograd.gradcheck(both, (patches, spots))
    merged = groups_torch.reassemble(patches, spots, pad=4).sum()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(merged, (patches, spots)))  # also where 0/0 was


# What is refused.


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    patches, spots, canvas = GIVEN["patches"], GIVEN["positions"], GIVEN["canvas"]
    with pytest.raises(ShapeMismatch, match="never tiled or repeated"):
        reassemble(patches, spots[:2])
    with pytest.raises(ShapeMismatch, match="never tiled or repeated"):
        extract(canvas[:1], spots, (16, 12))
    with pytest.raises(ShapeMismatch, match="never tiled or repeated"):
        stitch(GIVEN["crops"], GIVEN["places"][:4])
    with pytest.raises(ShapeMismatch, match="has to be even"):
        extract(canvas, spots, (15, 12))
    with pytest.raises(ShapeMismatch, match="has to fit"):
        extract(canvas, spots, (62, 12))
    with pytest.raises(TranslationRefused, match="a pad of 1 is less than the largest offset"):
        reassemble(patches, spots, pad=1)
    with pytest.raises(ShapeMismatch, match=r"the weight is \(12, 16\)"):
        reassemble(patches, spots, weight=np.ones((12, 16)))
    with pytest.raises(TranslationRefused, match="not negative"):
        reassemble(patches, spots, weight=-np.ones((16, 12)))
    bad = patches.copy()
    bad[2, 1, 3, 4] = np.nan
    with pytest.raises(TranslationRefused, match=r"image \(2, 1\) is not finite at y 3, x 4"):
        reassemble(bad, spots)
    with pytest.raises(TranslationRefused, match="a position is not finite"):
        reassemble(patches, np.where(np.arange(24).reshape(3, 4, 2) == 5, np.nan, spots))
    with pytest.raises(TranslationRefused, match=r"1e\+09 pixels from the mean.*positions in pixels"):
        stitch(GIVEN["crops"], np.where(np.arange(len(GIVEN["crops"]))[:, None] == 0, 1e9, 0) * np.ones(2) * 1.25)
    with pytest.raises(TranslationRefused, match=r"whole number of pixels, .* not 40\.5"):
        reassemble(patches, spots, pad=40.5)  # type: ignore[arg-type]
    with pytest.raises(ShapeMismatch, match=r"two whole numbers, not \(16,\)"):
        extract(canvas, spots, (16,))  # type: ignore[arg-type]
    with pytest.raises(TranslationRefused, match="patches must be a NumPy array, not list"):
        reassemble(patches.tolist(), spots)
