"""Photographs as panning sequences: which, how they are divided, and where each pixel comes from."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.errors import BadInput
from jobs.train.data import photos
from jobs.train.data.photos import PHASES, Panning, pannings, split, taps, window

PICTURE = np.random.default_rng(3).integers(0, 256, (13, 9, 3), dtype=np.uint8)


def test_the_wheel_brings_the_photographs_and_a_grey_one_has_three_equal_channels() -> None:
    found = {p.name: p for p in photos.available()}
    assert {"coffee", "retina", "astronaut", "camera", "rocket", "motorcycle"} <= set(found)
    for photograph in found.values():
        assert photograph.pixels().shape == (photograph.height, photograph.width, 3)
    grey = found["camera"].pixels()
    assert not found["camera"].coloured
    assert (grey == grey[..., :1]).all()
    assert found["coffee"].coloured
    assert (found["coffee"].pixels() != found["coffee"].pixels()[..., :1]).any()


def test_no_two_photographs_show_one_scene() -> None:
    files = [p.path.name for p in photos.available()]
    assert len(set(files)) == len(files)
    assert not {"motorcycle_right.png", "microaneurysms.png"} & set(files), "they show what others show"


@pytest.mark.parametrize("seed", range(5))
def test_a_photograph_is_trained_on_or_held_out_never_both(seed: int) -> None:
    training, held = split(seed=seed, count=5)
    assert not set(training) & set(held)
    assert len(held) == 5
    assert sorted((*training, *held)) == sorted(p.name for p in photos.available())
    assert split(seed=seed, count=5) == (training, held)


def test_the_split_follows_seed_and_names() -> None:
    assert len({split(seed=s)[1] for s in range(8)}) > 4
    training, held = split(["coffee", "camera"])
    assert held == ("coffee", "camera")
    assert not {"coffee", "camera"} & set(training)
    assert split(["coffee"], of=["moon", "coffee"]) == (("moon",), ("coffee",))
    # Another photograph in the set moves only itself: the rank of each depends on its own name.
    assert set(split(seed=2, count=3, of=[n for n in photos.NAMES if n != "text"])[1]) >= {
        n for n in split(seed=2, count=3)[1] if n != "text"
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"held_out": ["lenna"]}, "no photograph 'lenna'"),
        ({"held_out": ["coffee", "coffee"]}, "named twice"),
        ({"held_out": ["coffee"], "of": ["moon"]}, "not among"),
        ({"held_out": ["moon"], "of": ["moon"]}, "none is left to train on"),
        ({"count": 0}, "none is left held out"),
        ({"count": 99}, "none is left to train on"),
    ],
)
def test_a_split_with_an_empty_or_unclear_side_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        split(**arguments)  # type: ignore[arg-type]


def test_whole_pixels_are_the_mirrored_photograph_exactly() -> None:
    far = np.pad(PICTURE, ((26, 26), (18, 18), (0, 0)), mode="symmetric")
    for y, x in ((0, 0), (5, 3), (12, 8), (-7, -4), (20, 11)):
        got = window(PICTURE, y * PHASES, x * PHASES, 14, 10)
        assert np.array_equal(got, far[26 + y : 40 + y, 18 + x : 28 + x])
    # A whole turn further it is the same again.
    assert np.array_equal(window(PICTURE, 26 * PHASES, 18 * PHASES, 14, 10), window(PICTURE, 0, 0, 14, 10))


def test_between_pixels_it_is_the_lanczos_sum() -> None:
    y, x = 5 * PHASES + 23, 2 * PHASES + 50
    got = window(PICTURE, y, x, 6, 8)
    oracle = lanczos_by_hand(y / PHASES, x / PHASES, 6, 8)
    # The weights are rounded to 2^-14: 12 of them times 255 are below 0.1; then half a level of rounding.
    assert np.abs(got - oracle).max() <= 0.6
    assert np.abs(got - lanczos_by_hand((y + 6) / PHASES, x / PHASES, 6, 8)).max() > 2, "a tenth of a pixel is seen"


def test_the_weights_sum_to_one_exactly_so_a_flat_picture_stays_flat() -> None:
    for phase in range(PHASES):
        assert float(taps(phase).sum(dtype=np.float64)) == 1.0
        assert (taps(phase) * 16384 == np.rint(taps(phase) * 16384)).all()
        assert np.allclose(taps(phase), taps((PHASES - phase) % PHASES)[::-1] if phase else taps(0), atol=2**-13)
    flat = np.full((7, 7, 3), 201, np.uint8)
    assert (window(flat, 77, 1001, 12, 12) == 201).all()


def test_a_walk_is_small_steps_and_the_same_every_time() -> None:
    walk = Panning("coffee", 20, seed=4, width=64, height=48, speed=3.0)
    places = np.array(walk.places()) / PHASES
    steps = np.hypot(*np.diff(places, axis=0).T)
    assert len(places) == 40
    assert steps.max() <= 3.03
    assert steps.min() >= 1.47
    assert (np.array(walk.places()) % PHASES != 0).any(), "it goes between pixels"
    first, again = list(walk.frames()), list(walk.frames())
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape == (48, 64, 3)
    assert first[0].dtype == np.uint8
    assert first[0].flags.c_contiguous
    assert not np.array_equal(first[0], first[1])
    assert Panning("coffee", 20, seed=5, width=64, height=48).places() != walk.places()
    assert Panning("moon", 20, seed=4, width=64, height=48).places() != walk.places()
    assert len(set(Panning("coffee", 3, speed=0).places())) == 1


def test_every_setting_and_the_photographs_bytes_are_in_the_identity() -> None:
    identities = [
        Panning("coffee", 2).identity(),
        Panning("moon", 2).identity(),
        Panning("coffee", 3).identity(),
        Panning("coffee", 2, seed=1).identity(),
        Panning("coffee", 2, width=1162).identity(),
        Panning("coffee", 2, height=872).identity(),
        Panning("coffee", 2, speed=2).identity(),
    ]
    assert len({repr(i) for i in identities}) == len(identities)
    assert len({i["sha256"] for i in identities}) == 2


def test_pairs_are_shared_out_evenly() -> None:
    walks = pannings(["coffee", "moon", "text"], 11, seed=2, width=32, height=24)
    assert [(w.photograph, w.pairs) for w in walks] == [("coffee", 4), ("moon", 4), ("text", 3)]
    with pytest.raises(BadInput, match="2 pairs cannot be shared out to 3"):
        pannings(["coffee", "moon", "text"], 2)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"photograph": "lenna"}, "no photograph"),
        ({"pairs": 0}, "no data"),
        ({"width": 33}, "even sides"),
        ({"height": 0}, "even sides"),
        ({"speed": -1.0}, "speed"),
        ({"speed": math.nan}, "speed"),
    ],
)
def test_a_walk_that_cannot_be_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Panning(**{"photograph": "coffee", "pairs": 1, **values})  # type: ignore[arg-type]


def lanczos_by_hand(y: float, x: float, height: int, width: int) -> np.ndarray:
    """Float64, pixel by pixel, from the definition."""

    def weights(place: float) -> tuple[int, np.ndarray]:
        t = np.arange(math.floor(place) - 2, math.floor(place) + 4)
        w = np.sinc(t - place) * np.sinc((t - place) / 3)
        return int(t[0]), w / w.sum()

    far = np.pad(PICTURE.astype(np.float64), ((26, 26), (18, 18), (0, 0)), mode="symmetric")
    result = np.empty((height, width, 3))
    for i in range(height):
        for j in range(width):
            (top, rows), (left, columns) = weights(y + i), weights(x + j)
            part = far[26 + top : 32 + top, 18 + left : 24 + left]
            result[i, j] = np.einsum("i,j,ijc->c", rows, columns, part)
    return result.clip(0, 255)
