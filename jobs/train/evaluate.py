"""Candidates on fixed pairs: the int8 weights that would ship, against the decoded frames and a plain unsharp mask.

Everything is measured on frames rounded to whole levels of 0 to 255, as they would be shown. What is chosen is the best
evaluation value on the fixed pairs, and of equals the first. An evaluation value is over fixed pairs and int8 weights;
a training value is neither, and the two are never in one column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from skimage.filters import unsharp_mask
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from jobs.train.loop import SALIENCY_BYTES, Frames, pair_of
from jobs.train.model import flattened
from jobs.train.objective import Objective
from jobs.train.passes import Pair, Passes, planes
from jobs.train.references import References
from kernels.postfilter.quantised import Quantised, encode, quantise
from kernels.postfilter.weights import Weights

# skimage.filters.unsharp_mask, on values of 0 to 255, each channel by itself: its own defaults.
UNSHARP: Mapping[str, float] = {"radius": 1.0, "amount": 1.0}
# Wang, Simoncelli and Bovik, "Multiscale structural similarity for image quality assessment", Asilomar 2003: the weight
# of each of five scales; the window, constants and range of values are those of Wang et al., IEEE TIP 13, 600, 2004.
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, SIGMA, K1, K2, LEVELS = 11, 1.5, 0.01, 0.03, 255.0
# At the last scale the window must still fit.
LEAST_SIDE = WINDOW * 2 ** (len(SCALES) - 1)


@dataclass(frozen=True)
class Quality:
    """Means over the frames of the fixed pairs.

    Attributes:
        value: the objective's evaluation value, mean over the pairs; lower is better.
        psnr: dB, mean over the frames of 10·log10(255² / mean squared difference); infinite for an equal frame.
        ms_ssim: mean over frames and channels, at most 1; NaN where a side is shorter than `LEAST_SIDE`.
    """

    value: float
    terms: Mapping[str, float]
    psnr: float
    ms_ssim: float


@dataclass(frozen=True)
class Candidate:
    """A row of the candidate table.

    Attributes:
        step: optimizer steps behind it; epoch: completed ones.
        size: bytes of the int8 file; digest: of the int8 weights.
    """

    step: int
    epoch: int
    quality: Quality
    size: int
    digest: str


class Evaluation:
    """The fixed pairs of one training.

    Args:
        indices: of the pairs; the same for every candidate.
        between: called before each pair; what it raises ends the measurement.

    Raises:
        ValueError: there is no pair, or one that is not there.
    """

    def __init__(
        self,
        frames: Frames,
        indices: Sequence[int],
        objective: Objective,
        *,
        both: bool = False,
        device: torch.device | None = None,
        threads: int = 1,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        if not indices or not all(0 <= index < len(frames) for index in indices):
            raise ValueError(f"the fixed pairs are {list(indices)}: name some of 0 to {len(frames) - 1}")
        self.frames, self.indices, self.objective, self.both = frames, tuple(indices), objective, both
        self.device, self.threads, self.between = device or torch.device("cpu"), threads, between
        self.maps: dict[int, Tensor] = {}
        self.references = References(objective, self.device)

    def decoded(self) -> Quality:
        """Of the frames as they were decoded: what every filter must better."""
        return self._quality(lambda pair: planes(pair.decoded))

    def unsharp(self) -> Quality:
        """Of the decoded frames through a plain unsharp mask (`UNSHARP`)."""
        return self._quality(lambda pair: torch.stack([_unsharp(frame) for frame in pair.decoded]))

    def candidate(self, averaged: Weights, *, step: int, epoch: int) -> Candidate:
        """Quantise the averaged weights and measure what would ship."""
        shipped = quantise(averaged)
        weights = shipped.weights()
        return Candidate(step, epoch, self.quality(shipped), len(encode(shipped)), weights.digest())

    def quality(self, shipped: Quantised) -> Quality:
        """Of the frames filtered with such weights."""
        flat = flattened(shipped.weights(), self.device)
        with Passes(shipped.h, self.objective, self.device, self.threads) as passes:
            return self._quality(lambda pair: passes.filtered(flat, pair))

    @torch.no_grad()
    def _quality(self, make: Callable[[Pair], Tensor]) -> Quality:
        terms, values, psnrs, ssims = [], [], [], []
        for index in self.indices:
            self.between()
            pair = self._pair(index)
            original, decoded = planes(pair.original), planes(pair.decoded)
            shown = make(pair).round().clamp_(0, 255)
            found = self.references.terms(index, shown, partial(planes, pair.original), decoded, pair.saliency)
            terms.append(found.double().cpu().numpy())
            values.append(float(self.objective.value(found)))
            psnrs += psnr(shown, original)
            ssims += ms_ssim(shown, original)
        named = dict(zip(self.objective.names, np.mean(terms, axis=0).tolist(), strict=True))
        return Quality(math.fsum(values) / len(values), named, float(np.mean(psnrs)), float(np.mean(ssims)))

    def _pair(self, index: int) -> Pair:
        known = self.maps.get(index)
        pair = pair_of(self.frames, index, both=self.both, device=self.device, known=known)
        if known is None and (len(self.maps) + 1) * pair.saliency.numel() <= SALIENCY_BYTES:
            self.maps[index] = pair.saliency.cpu()
        return pair


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """The one with the best (least) evaluation value; of equals the first.

    Raises:
        ValueError: there is none, or none whose value is a number.
    """
    known = [candidate for candidate in candidates if math.isfinite(candidate.quality.value)]
    if not known:
        raise ValueError(f"none of {len(candidates)} candidates has an evaluation value: nothing can be shipped")
    return min(known, key=lambda candidate: candidate.quality.value)  # min keeps the first of equals


def psnr(shown: Tensor, original: Tensor) -> list[float]:
    """dB of each frame of (n, 3, H, W)."""
    errors = (shown.double() - original.double()).square().mean(dim=(1, 2, 3)).tolist()
    return [10 * math.log10(LEVELS**2 / error) if error > 0 else math.inf for error in errors]


def ms_ssim(shown: Tensor, original: Tensor) -> list[float]:
    """MS-SSIM of each frame of (n, 3, H, W) with values from 0 to 255, mean over the channels.

    Where a structure term is negative, which has no fractional power, it counts as 0. NaN for frames too small.
    """
    if min(shown.shape[2:]) < LEAST_SIDE:
        return [math.nan] * len(shown)
    product = torch.ones(shown.shape[:2], dtype=torch.float64, device=shown.device)
    a, b = (x.contiguous(memory_format=torch.channels_last) for x in (shown, original))
    for scale, weight in enumerate(SCALES):
        last = scale == len(SCALES) - 1
        luminance, structure = _ssim(a, b)
        found = (luminance * structure if last else structure).mean(dim=(2, 3)).double()
        product *= found.clamp(min=0) ** weight
        if not last:
            a, b = avg_pool2d(a, 2), avg_pool2d(b, 2)
    means: list[float] = product.mean(dim=1).tolist()
    return means


def _ssim(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The luminance term and the product of contrast and structure, at every place where the window fits."""
    c1, c2 = (K1 * LEVELS) ** 2, (K2 * LEVELS) ** 2
    # The second moments are taken about mid-grey: about 0 float32 would lose the variance of bright, flat places.
    a, b = a - LEVELS / 2, b - LEVELS / 2
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a.square(), _blur(b * b) - mean_b.square()
    cov = _blur(a * b) - mean_a * mean_b
    structure = (2 * cov + c2) / (var_a + var_b + c2)
    mean_a, mean_b = mean_a + LEVELS / 2, mean_b + LEVELS / 2
    return (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1), structure


def _blur(x: Tensor) -> Tensor:
    """Every channel with the Gaussian window, only where it fits.

    With channels last the library makes all channels of a pixel at once: the same bits in a twentieth of the time.
    """
    channels = x.shape[1]
    at = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    window = torch.exp(-at.square() / (2 * SIGMA**2))
    window = (window / window.sum()).to(x.dtype).to(x.device)
    across, down = (window.view(shape).expand(channels, *shape[1:]) for shape in ((1, 1, 1, -1), (1, 1, -1, 1)))
    return conv2d(conv2d(x, across, groups=channels), down, groups=channels)


def unsharp(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A frame (H, W, 3) through the unsharp mask, as it would be shown."""
    shown = _unsharp(torch.from_numpy(frame)).round().clamp_(0, 255)
    return np.asarray(shown.permute(1, 2, 0).byte().numpy())


def _unsharp(frame: Tensor) -> Tensor:
    # Not channel_axis=-1: scikit-image (at least to 0.26) then sharpens the first rows and leaves the others unset, see
    # github.com/scikit-image/scikit-image/issues/7264.
    sharp = unsharp_mask(frame.cpu().numpy().astype(np.float32), channel_axis=2, preserve_range=True, **UNSHARP)
    return torch.from_numpy(np.asarray(sharp, dtype=np.float32)).permute(2, 0, 1).to(frame.device)
