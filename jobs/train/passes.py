"""Forwards and backwards through the filter, strip by strip, with the derivatives written down.

A frame of 1164×874 has 130 MB of activations a layer. Made whole, each of them goes to memory and back a dozen times,
and every page of it is asked of the system anew. In strips of some rows they stay in the cache, and the strips are what
threads share. Three more things that the library does not do by itself:
- A convolution to 3 channels costs as much as one to 16, a whole vector. Several neighbouring pixels as one of 3·s
  channels, with a wider kernel that steps s pixels, give the same sums in half the time.
- Its weights' derivative is, with the sides swapped, that of a convolution from 3 channels, which takes a quarter.
- Nothing asks for the derivative of the frame, and ReLU works in place in both directions.

A strip is read with 3 rows more on either side, one of which every layer takes, so the strips' derivatives sum to the
frame's. At the edge of a frame, where a layer is padded with zeros, all rows are made and the wrong ones left out.
The sum is in the order of the strips and the cut does not depend on the number of threads: equal weights and pairs
give the same bits on one thread or twenty.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, relu_

from jobs.train.model import views
from jobs.train.objective import Local, Objective, emphasis
from jobs.train.references import References

HALO = 3
# Pixels of one strip: their activations of 16 channels, some 5 MB a layer, fit a second or third level cache.
STRIP = 100_000
# Pixels of small frames that are taken together; twice as many were slower (50 against 35 ms a step, 128×128).
TOGETHER = 33_000
_LAST = 4  # neighbouring pixels that one step of the last layer makes
# The float32 numbers just below 0 and above 255, denormal ones left out: between them a value was not clamped.
_CLAMP = (-(2.0**-126), 255 + 2.0**-16)

Slope = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Pair:
    """A pair of frames on the device.

    Attributes:
        original, decoded: (2, H, W, 3) uint8.
        saliency: (frames, H, W) uint8, in 255ths, of the second frame or of both.
        index: among the pairs of one training, or of its fixed ones; None: of no account.
    """

    original: Tensor
    decoded: Tensor
    saliency: Tensor
    index: int | None = None


@dataclass(frozen=True)
class Strip:
    """Rows [y0, y1) of some frames (pair, frame)."""

    frames: tuple[tuple[int, int], ...]
    y0: int
    y1: int


class Passes:
    """The passes of one training. Close it when done: it may hold threads.

    Args:
        threads: on a CPU; a CUDA device gets whole pairs, one after another.
    """

    def __init__(self, h: int, objective: Objective, device: torch.device, threads: int) -> None:
        self.h, self.objective, self.device = h, objective, device
        self.references = References(objective, device)
        # The threads of torch wait for each other at every operation; ours only at the end.
        self.pool = (
            ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
            if threads > 1 and device.type == "cpu"
            else None
        )

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown()

    def __enter__(self) -> Passes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @torch.no_grad()
    def gradient(self, flat: Tensor, pairs: Sequence[Pair], divisor: int) -> tuple[Tensor, Tensor, Tensor]:
        """The sum of the loss's derivatives over the pairs, divided by `divisor`; the terms' and the value's means.

        Args:
            flat: (n,) the weights that the filter runs with, all tensors in one vector.
        """
        layers = Layers(flat, self.h, _step(pairs[0].decoded.shape[2]) if self.device.type == "cpu" else 1)
        if isinstance(self.objective, Local):
            local, slopes = self.objective, None
        else:
            local, slopes = None, [self._slope(layers, pair) for pair in pairs]

        def of_strip(strip: Strip) -> tuple[Tensor, Tensor | None]:
            decoded, top = _frames(pairs, strip, "decoded", HALO)
            rows = slice(top, top + strip.y1 - strip.y0)
            terms: list[Tensor] = []

            def slope(filtered: Tensor) -> Tensor:
                if slopes is not None:
                    return torch.stack([slopes[p][0][f, :, strip.y0 : strip.y1] for p, f in strip.frames])
                assert local is not None
                original, _ = _frames(pairs, strip, "original", 0)
                weight = _emphasis(pairs, strip, local.alpha)
                height, width = pairs[0].decoded.shape[1:3]
                found, added = local.slope(filtered, original, decoded[:, :, rows], weight, height * width)
                terms.append(added)
                return found

            found = layers.gradient(decoded, rows, slope, inner=_inner(strip, top, decoded))
            return found, terms[0] if terms else None

        done = self._each(of_strip, _strips(pairs, self.device))
        gradient = torch.stack([found for found, _ in done]).sum(dim=0).div_(divisor)
        terms = [added for _, added in done if added is not None] if slopes is None else [own for _, own, _ in slopes]
        mean = torch.stack(terms).sum(dim=0).div_(len(pairs))
        # A sum over pixels has the value of its mean terms; another objective, with a root in it, has not.
        value = self.objective.value(mean) if slopes is None else torch.stack([own for _, _, own in slopes]).mean()
        return gradient, mean, value

    @torch.no_grad()
    def filtered(self, flat: Tensor, pair: Pair) -> Tensor:
        """(2, 3, H, W) float32, channels last: both frames through the filter."""
        return self._filtered(Layers(flat, self.h, _step(pair.decoded.shape[2])), pair)

    def _filtered(self, layers: Layers, pair: Pair) -> Tensor:
        frames, height, width, _ = pair.decoded.shape
        out = torch.empty((frames, height, width, 3), device=self.device).permute(0, 3, 1, 2)

        def of_strip(strip: Strip) -> None:
            decoded, top = _frames([pair], strip, "decoded", HALO)
            made = layers.forward(decoded, inner=_inner(strip, top, decoded))[-1].clamp_(0, 255)
            first = top if made.shape == decoded.shape else 0
            for k, (_, f) in enumerate(strip.frames):
                out[f, :, strip.y0 : strip.y1] = made[k, :, first : first + strip.y1 - strip.y0]

        self._each(of_strip, _strips([pair], self.device))
        return out

    def _slope(self, layers: Layers, pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
        """The loss's derivative at every value of the filtered pair, by the library's own; its terms; the loss."""
        made = self._filtered(layers, pair).requires_grad_()
        with torch.enable_grad():
            terms = self.references.terms(
                pair.index, made, lambda: planes(pair.original), planes(pair.decoded), pair.saliency
            )
            value = self.objective.value(terms)
            (slope,) = torch.autograd.grad(value, made)
        return slope, terms.detach(), value.detach()

    def _each(self, work: Callable[[Strip], Any], strips: list[Strip]) -> list[Any]:
        if self.pool is None:
            return [work(strip) for strip in strips]

        def quietly(strip: Strip) -> Any:
            with torch.no_grad():  # what a thread records is its own affair
                return work(strip)

        return list(self.pool.map(quietly, strips))


class Layers:
    """The three layers with the weights of one step.

    Args:
        flat: (n,) all weights.
        step: neighbouring pixels that one step of the last layer makes; it divides the frames' width.
    """

    def __init__(self, flat: Tensor, h: int, step: int) -> None:
        self.flat, self.h, self.step = flat, h, step
        self.w = views(flat, h)
        wide = flat.new_zeros((step, 3, 3, step + 2, h)).permute(0, 1, 4, 2, 3)
        for k in range(step):
            wide[k, :, :, :, k : k + 3] = self.w["w3"]
        self.wide, self.bias = wide.flatten(0, 1), self.w["b3"].repeat(step)
        # Of the last layer with its sides swapped only the shape counts.
        self.swapped = flat.new_empty((h, 3, 3, 3)).permute(0, 3, 1, 2)

    def forward(self, x: Tensor, *, inner: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The two hidden layers and frame + residual, not clamped, of (n, 3, rows, W) channels last.

        Args:
            inner: every layer has a row less than the one before on either side, for want of what is beyond; else rows
                of zeros are taken for what is beyond, as at the edge of a frame.
        """
        pad = 0 if inner else 1
        first = relu_(conv2d(x, self.w["w1"], self.w["b1"], padding=(pad, 1)))
        second = relu_(conv2d(first, self.w["w2"], self.w["b2"], padding=(pad, 1)))
        made = conv2d(second, self.wide, self.bias, stride=(1, self.step), padding=(pad, 1))
        # In memory a pixel of 3·step channels is `step` pixels of 3.
        residual = made.permute(0, 2, 3, 1).reshape(x.shape[0], made.shape[2], x.shape[3], 3).permute(0, 3, 1, 2)
        return first, second, residual.add_(x[:, :, HALO:-HALO] if inner else x)

    def gradient(self, x: Tensor, rows: slice, slope: Callable[[Tensor], Tensor], *, inner: bool) -> Tensor:
        """(n,) the derivative with respect to all weights of what `slope` is the slope of.

        Args:
            x: (n, 3, rows, W) channels last.
            rows: of x that count; the others are only seen.
            slope: from the filtered rows to the derivative there, which may be changed here.
            inner: see `forward`.
        """
        first, second, made = self.forward(x, inner=inner)
        wanted = made if inner else made[:, :, rows]
        outer = slope(wanted.clamp(0, 255))
        # Where the clamp holds a value there is no slope; at 0 and 255 themselves it holds nothing.
        torch.ops.aten.hardtanh_backward.grad_input(outer, wanted, *_CLAMP, grad_input=outer)
        found = torch.empty_like(self.flat)
        into = views(found, self.h)
        into["b3"].copy_(outer.sum(dim=(0, 2, 3)))
        if outer.shape != made.shape:
            outer, counted = torch.zeros_like(made), outer
            outer[:, :, rows] = counted
        pad = 0 if inner else 1
        down3, _, _ = _backwards(outer, second, self.w["w3"], pad, (True, False, False))
        # w3[o, i, k] is a sum over y of slope[o, y]·second[i, y + k - pad]: over `second`, k runs backwards.
        _, swapped, _ = _backwards(second, outer, self.swapped, 2 - pad, (False, True, False))
        into["w3"].copy_(swapped.flip(2, 3).transpose(0, 1))
        _held(down3, second)
        down2, w2, b2 = _backwards(down3, first, self.w["w2"], pad, (True, True, True))
        into["w2"].copy_(w2)
        into["b2"].copy_(b2)
        _held(down2, first)
        _, w1, b1 = _backwards(down2, x, self.w["w1"], pad, (False, True, True))
        into["w1"].copy_(w1)
        into["b1"].copy_(b1)
        return found


def _backwards(
    slope: Tensor, x: Tensor, w: Tensor, pad: int, mask: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The derivatives of a 3×3 convolution with respect to its input, weights and biases, as far as asked for."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        slope, x, w, [w.shape[0]], [1, 1], [pad, 1], [1, 1], False, [0, 0], 1, list(mask)
    )
    return found


def _held(slope: Tensor, activation: Tensor) -> None:
    """ReLU backwards, in place."""
    torch.ops.aten.threshold_backward.grad_input(slope, activation, 0, grad_input=slope)


def _step(width: int) -> int:
    return next(step for step in range(_LAST, 0, -1) if width % step == 0)


def _strips(pairs: Sequence[Pair], device: torch.device) -> list[Strip]:
    """Whole frames together where they are small, parts of one where they are large; on CUDA whole pairs."""
    height, width = pairs[0].decoded.shape[1:3]
    frames = [(p, f) for p in range(len(pairs)) for f in (0, 1)]
    if device.type != "cpu":
        return [Strip(tuple(frames[k : k + 2]), 0, height) for k in range(0, len(frames), 2)]
    if height * width <= STRIP:
        # Never all in one: two threads would have nothing to share. The cut is the same for any number of threads.
        many = min(max(TOGETHER // (height * width), 1), -(-len(frames) // 2))
        return [Strip(tuple(frames[k : k + many]), 0, height) for k in range(0, len(frames), many)]
    cuts = -(-height * width // STRIP)
    edges = [height * k // cuts for k in range(cuts + 1)]
    return [Strip((frame,), y0, y1) for frame in frames for y0, y1 in itertools.pairwise(edges)]


def _frames(pairs: Sequence[Pair], strip: Strip, which: str, halo: int) -> tuple[Tensor, int]:
    """((n, 3, rows, W) float32 channels last with so many rows more where there are, how many of them are above)."""
    height = pairs[0].decoded.shape[1]
    above, below = max(strip.y0 - halo, 0), min(strip.y1 + halo, height)
    parts = [getattr(pairs[p], which)[f, above:below] for p, f in strip.frames]
    rows = parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)
    return rows.permute(0, 3, 1, 2).to(torch.float32), strip.y0 - above


def _inner(strip: Strip, top: int, rows: Tensor) -> bool:
    """Whether a strip has all its rows more above and below."""
    return top == HALO and rows.shape[2] == strip.y1 - strip.y0 + 2 * HALO


def planes(frames: Tensor) -> Tensor:
    """(n, 3, H, W) float32 channels last of (n, H, W, 3) uint8."""
    return frames.permute(0, 3, 1, 2).to(torch.float32)


def _emphasis(pairs: Sequence[Pair], strip: Strip, alpha: float) -> Tensor | None:
    """Of every frame of a strip; 0 for a frame without saliency, None where no frame has any."""
    first = 2 - len(pairs[0].saliency)  # the frame that the first map is of
    if all(f < first for _, f in strip.frames):
        return None
    rows = slice(strip.y0, strip.y1)
    maps = torch.stack([pairs[p].saliency[max(f - first, 0), rows] for p, f in strip.frames])
    found = emphasis(maps, alpha)
    for k, (_, f) in enumerate(strip.frames):
        if f < first:
            found[k] = 0
    return found
