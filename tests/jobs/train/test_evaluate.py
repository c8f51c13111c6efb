"""Candidates: MS-SSIM against a float64 oracle in NumPy, int8 weights, the unsharp mask, the rule of selection."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage, signal

from jobs.train.evaluate import LEAST_SIDE, Candidate, Evaluation, Quality, choose, ms_ssim, psnr
from jobs.train.objective import Surrogate
from kernels.postfilter.oracle import apply
from kernels.postfilter.quantised import encode, quantise
from kernels.postfilter.weights import Weights, shapes
from tests.jobs.train.small import Pictures, pictures

Double = npt.NDArray[np.float64]


def exact_ms_ssim(a: Double, b: Double, weights: tuple[float, ...] = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)) -> float:
    """Of (3, H, W), by the definition: full two-dimensional windows, double precision."""
    at = np.arange(-5, 6)
    line = np.exp(-(at**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    every = []
    for x, y in zip(a, b, strict=True):
        product = 1.0
        for scale, weight in enumerate(weights):
            blur = [signal.convolve2d(z, window, mode="valid") for z in (x, y, x * x, y * y, x * y)]
            mx, my, xx, yy, xy = blur
            luminance = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
            structure = (2 * (xy - mx * my) + c2) / (xx - mx**2 + yy - my**2 + c2)
            found = (luminance * structure if scale == 4 else structure).mean()
            product *= max(found, 0.0) ** weight
            h, w = (side // 2 * 2 for side in x.shape)
            x, y = (z[:h, :w].reshape(h // 2, 2, w // 2, 2).mean(axis=(1, 3)) for z in (x, y))
        every.append(product)
    return float(np.mean(every))


def planes(frames: npt.NDArray[np.uint8]) -> Double:
    return np.moveaxis(frames, -1, 1).astype(np.float64)


def test_ms_ssim_and_psnr_against_the_oracles() -> None:
    frames = pictures(1, 181, 203)
    a, b = planes(frames.original[0]), planes(frames.decoded[0])
    pair = torch.from_numpy(b.astype(np.float32)), torch.from_numpy(a.astype(np.float32))
    exact = [exact_ms_ssim(x, y) for x, y in zip(b, a, strict=True)]
    assert ms_ssim(*pair) == pytest.approx(exact, abs=2e-5)
    assert all(0.3 < value < 0.9999 for value in exact)
    assert psnr(*pair) == pytest.approx(
        [10 * math.log10(255**2 / ((x - y) ** 2).mean()) for x, y in zip(a, b, strict=True)]
    )
    # The twin: equal weights for the scales are another measure.
    assert exact_ms_ssim(b[0], a[0], (0.2,) * 5) != pytest.approx(exact[0], abs=2e-4)


def test_equal_frames_and_frames_too_small() -> None:
    frame = torch.from_numpy(planes(pictures(1, LEAST_SIDE, 180).original[0]).astype(np.float32))
    assert ms_ssim(frame, frame) == pytest.approx([1, 1], abs=1e-6)
    assert psnr(frame, frame) == [math.inf, math.inf]
    assert all(math.isnan(value) for value in ms_ssim(frame[:, :, 1:], frame[:, :, 1:]))


def some_weights() -> Weights:
    rng = np.random.default_rng(4)
    return Weights.of({n: (rng.standard_normal(s) * 0.05).astype(np.float32) for n, s in shapes(4).items()})


def by_hand(frames: Pictures, indices: tuple[int, ...], weights: Weights) -> float:
    """Mean PSNR of whole levels, by the float64 oracle of the operator."""
    values = []
    for k in indices:
        shown = np.rint(apply(planes(frames.decoded[k]), weights))
        values += [((x - y) ** 2).mean() for x, y in zip(shown, planes(frames.original[k]), strict=True)]
    return float(np.mean([10 * math.log10(255**2 / value) for value in values]))


def test_a_candidate_is_measured_with_the_int8_weights_that_would_ship() -> None:
    frames, weights = pictures(3, 40, 44), some_weights()
    evaluation = Evaluation(frames, (0, 2), Surrogate())
    candidate = evaluation.candidate(weights, step=12, epoch=4)
    shipped = quantise(weights)
    assert (candidate.step, candidate.epoch) == (12, 4)
    assert candidate.size == len(encode(shipped)) == 9 * 16 + 56 * 4 + 3 + 144
    assert candidate.digest == shipped.weights().digest()
    assert candidate.quality.psnr == pytest.approx(by_hand(frames, (0, 2), shipped.weights()), abs=2e-4)
    # Twins: the weights before they are quantised, or other pairs, are measurably others.
    assert by_hand(frames, (0, 2), weights) != pytest.approx(candidate.quality.psnr, abs=2e-4)
    assert by_hand(frames, (1, 2), shipped.weights()) != pytest.approx(candidate.quality.psnr, abs=2e-4)
    terms = candidate.quality.terms
    assert candidate.quality.value == pytest.approx(terms["reconstruction"] + 0.1 * terms["sal"], rel=1e-6)


def test_what_it_is_held_against() -> None:
    frames = pictures(2, 40, 44)
    evaluation = Evaluation(frames, (1,), Surrogate())
    decoded, sharp = evaluation.decoded(), evaluation.unsharp()
    assert decoded.terms["sal"] == 0
    assert decoded.psnr == pytest.approx(by_hand(frames, (1,), Weights.zeros(4)), abs=1e-5)
    # The definition, by SciPy: x + amount·(x - blurred x), every channel by itself.
    exact = frames.decoded[1].astype(np.float64)
    made = np.clip(np.rint(2 * exact - ndimage.gaussian_filter(exact, (0, 1, 1, 0), mode="reflect")), 0, 255)
    errors = [((x - y) ** 2).mean() for x, y in zip(made, frames.original[1].astype(np.float64), strict=True)]
    assert sharp.psnr == pytest.approx(float(np.mean([10 * math.log10(255**2 / e) for e in errors])), abs=1e-3)
    assert sharp.psnr != pytest.approx(decoded.psnr, abs=1e-2)


def candidate(step: int, value: float) -> Candidate:
    return Candidate(step, step, Quality(value, {}, 30.0, 0.9), 500, str(step))


def test_the_best_value_is_chosen_and_of_equals_the_first() -> None:
    rows = [candidate(1, 3.0), candidate(2, math.nan), candidate(3, 2.5), candidate(4, 2.5), candidate(5, 2.6)]
    assert choose(rows).step == 3
    with pytest.raises(ValueError, match="none of 1 candidates has an evaluation value"):
        choose([candidate(1, math.nan)])


@pytest.mark.parametrize("indices", [(), (3,), (-1,)])
def test_fixed_pairs_must_be_there(indices: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the fixed pairs are"):
        Evaluation(pictures(3, 8, 9), indices, Surrogate())
