"""The figure of a training: the means of its steps, the rule of the squares, what is refused, equal bytes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.train.evaluate import Evaluation
from jobs.train.figure import SIDE, ZOOM, Crops, Curves, HeldOut, View, choose_crops, curves, training_figure
from jobs.train.objective import Surrogate
from jobs.train.schema import CANDIDATES
from kernels.postfilter.quantised import quantise
from kernels.postfilter.weights import Weights, shapes
from tests.jobs.train.small import pictures

TERMS = ("reconstruction", "sal")


def step(number: int, epoch: int, value: float, **changed: Any) -> dict[str, Any]:
    row = {"step": number, "epoch": epoch, "training_value": value, "rate": 0.1 * (epoch + 1)}
    return {**row, "reconstruction": value - 1, "sal": 10.0, **changed}


def view(errors: dict[str, list[list[int]]], side: int) -> View:
    """Grey frames of squares; each square of `decoded` and `filtered` is that many levels off, everywhere."""
    shape = (2 * side + 1, 2 * side + 3, 3)  # a margin that no whole square covers
    original = np.full(shape, 100, np.uint8)
    images = {}
    for name in ("decoded", "filtered"):
        images[name] = original.copy()
        for row, line in enumerate(errors[name]):
            for column, levels in enumerate(line):
                images[name][row * side : (row + 1) * side, column * side : (column + 1) * side] += np.uint8(levels)
        images[name][2 * side :] = 255  # of the margin nothing may count
    return View("hand", original, images["decoded"], original + np.uint8(7), images["filtered"])


# Gains in dB, 20·log10(decoded / filtered): 0, +6.02, -6.02, +12.04 and -9.54, 0, +6.02, 0.
VIEWS = [
    view({"decoded": [[4, 8], [2, 8]], "filtered": [[4, 4], [4, 2]]}, 5),
    view({"decoded": [[1, 5], [6, 0]], "filtered": [[3, 5], [3, 0]]}, 5),
]


def test_the_squares_with_the_most_the_middle_and_the_least_gain_are_shown() -> None:
    crops = choose_crops(VIEWS.__getitem__, 2, side=5)
    assert (crops.side, crops.count, crops.better) == (5, 8, 3)
    assert [(c.which, c.frame, c.y, c.x) for c in crops.shown] == [
        ("most", 0, 5, 5),
        ("middle", 1, 0, 5),  # the second of the three with no gain: fourth of eight
        ("least", 1, 0, 0),
    ]
    most, middle, least = crops.shown
    assert most.gain == pytest.approx(20 * math.log10(4), abs=1e-12)
    assert middle.gain == 0.0
    assert least.gain == pytest.approx(-20 * math.log10(3), abs=1e-12)
    assert most.psnr["decoded"] == pytest.approx(20 * math.log10(255 / 8), abs=1e-12)
    assert most.psnr["unsharp"] == pytest.approx(20 * math.log10(255 / 7), abs=1e-12)
    assert most.psnr["filtered"] == pytest.approx(20 * math.log10(255 / 2), abs=1e-12)
    assert np.array_equal(most.images["decoded"], np.full((5, 5, 3), 108, np.uint8))
    assert "5×5 pixels" in crops.rule
    assert "all 8 squares" in crops.rule


def test_of_equal_squares_the_first_is_shown_and_another_filter_moves_the_choice() -> None:
    same = view({"decoded": [[2, 2], [2, 2]], "filtered": [[2, 2], [2, 2]]}, 5)
    places = [(c.y, c.x) for c in choose_crops(lambda _: same, 1, side=5).shown]
    assert places == [(0, 0), (0, 5), (0, 0)]
    better = view({"decoded": [[2, 2], [2, 2]], "filtered": [[2, 2], [1, 2]]}, 5)
    assert choose_crops(lambda _: better, 1, side=5).shown[0].y == 5
    exact = view({"decoded": [[2, 2], [2, 2]], "filtered": [[2, 2], [2, 0]]}, 5)
    found = choose_crops(lambda _: exact, 1, side=5)
    assert found.shown[0].gain == math.inf
    assert found.shown[0].psnr["filtered"] == math.inf


def test_squares_fit_small_frames_and_nothing_to_cut_is_said() -> None:
    assert choose_crops(VIEWS.__getitem__, 2, side=500).side == 11
    with pytest.raises(ValueError, match="no held-out frame"):
        choose_crops(VIEWS.__getitem__, 0)
    odd = replace(VIEWS[0], filtered=VIEWS[0].filtered[1:])
    with pytest.raises(ValueError, match="differ in size"):
        choose_crops(lambda _: odd, 1)


def test_an_epoch_is_the_mean_of_its_steps_each_counted_once() -> None:
    rows = [step(1, 0, 8.0), step(2, 0, 4.0), step(3, 1, 100.0), step(3, 1, 3.0), step(4, 1, 5.0)]
    rows.append({"step": 4, "epoch": 1, "evaluation_value": 2.0})  # of a candidate: no training value
    found = curves(rows, TERMS)
    assert found == Curves((0, 1), (6.0, 4.0), {"reconstruction": (5.0, 3.0), "sal": (10.0, 10.0)}, (0.1, 0.2), 4)
    assert curves(rows[:3], TERMS).value == (6.0, 100.0)
    with pytest.raises(KeyError):
        curves(rows, ("pose",))


def candidates() -> list[dict[str, Any]]:
    empty = dict.fromkeys(CANDIDATES.names)
    common = {**empty, "quantity": "surrogate value", "chosen": False, "weights": "average, int8"}
    rows = [
        {**common, "epoch": e, "evaluation_value": 9.0 - e, "psnr": 30.0 + e, "ms_ssim": 0.9, "chosen": e == 3}
        for e in (1, 2, 3)
    ]
    for name, psnr in (("decoded", 30.0), ("unsharp", 3.0)):
        rows.append({**common, "weights": name, "evaluation_value": 9.0, "psnr": psnr, "ms_ssim": None})
    return rows


def draw(path: Path, rows: list[dict[str, Any]], crops: Crops) -> bytes:
    steps = curves([step(1, 0, 8.0), step(2, 1, 4.0)], TERMS)
    training_figure(path, title="long2_qat_ema_alpha20_h4", steps=steps, candidates=rows, crops=crops)
    return path.read_bytes()


def test_equal_arguments_give_equal_bytes_and_a_pixel_is_shown_as_two_by_two(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = {n: rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for n in ("original", "decoded", "filtered")}
    crops = choose_crops(lambda _: View("noise", **images, unsharp=images["decoded"]), 1)
    first = draw(tmp_path / "a.png", candidates(), crops)
    assert draw(tmp_path / "b.png", candidates(), crops) == first
    moved = candidates()
    moved[0]["psnr"] += 0.5
    assert draw(tmp_path / "c.png", moved, crops) != first
    assert b"tEXt" not in first  # neither a date nor the name of a program
    shown = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    wanted = images["filtered"].repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
    line = np.ascontiguousarray(wanted[0])
    at = [y for y in range(shown.shape[0]) if line.tobytes() in shown[y].tobytes()]
    assert len(at) >= 3 * ZOOM  # the same square in all three rows
    x = shown[at[0]].tobytes().index(line.tobytes()) // 3
    assert np.array_equal(shown[at[0] : at[0] + ZOOM * SIDE, x : x + ZOOM * SIDE], wanted)


def test_what_cannot_stand_in_a_figure_is_refused(tmp_path: Path) -> None:
    crops = choose_crops(VIEWS.__getitem__, 2, side=5)
    none, two, other, alone = candidates(), candidates(), candidates(), candidates()[:4]
    none[2]["chosen"] = False
    two[0]["chosen"] = True
    other[1]["quantity"] = "upstream value"
    for rows, said in ((none, "0 of 5"), (two, "2 of 5"), (other, "cannot stand"), (alone, "'unsharp'")):
        with pytest.raises(ValueError, match=said):
            draw(tmp_path / "a.png", rows, crops)
    assert not (tmp_path / "a.png").exists()
    assert draw(tmp_path / "a.png", candidates(), crops)


def test_views_are_the_frames_that_candidates_are_measured_on() -> None:
    frames = pictures(2, 20, 28)
    rng = np.random.default_rng(1)
    shipped = quantise(Weights.of({n: 0.2 * rng.standard_normal(s).astype(np.float32) for n, s in shapes(4).items()}))
    evaluation = Evaluation(frames, [0, 1], Surrogate())
    with HeldOut(frames, ["a", "b"], shipped) as held:
        views = [held(i) for i in range(len(held))]
    assert [v.source for v in views] == ["a", "a", "b", "b"]
    for name, wanted in (
        ("decoded", evaluation.decoded().psnr),
        ("unsharp", evaluation.unsharp().psnr),
        ("filtered", evaluation.quality(shipped).psnr),
    ):
        every = [psnr(v.original, getattr(v, name)) for v in views]
        assert np.mean(every) == pytest.approx(wanted, abs=1e-9)
    assert not np.array_equal(views[0].filtered, views[0].decoded)


def psnr(a: Any, b: Any) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))
