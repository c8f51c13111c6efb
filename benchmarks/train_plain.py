"""The recipe of `train` as one writes it in PyTorch: the peer that `benchmarks.train` measures against.

Modules and autograd, stock fake quantisation tensor by tensor, an average parameter by parameter, `.item()` at every
step. It has what a careful author gives it: channels-last frames and weights, saliency made once, fused nothing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from jobs.train.recipe import Recipe
from kernels.postfilter.weights import Weights

# What a pair is here: original, decoded (2, H, W, 3) uint8, saliency (1, H, W) uint8.
Triple = tuple[Tensor, Tensor, Tensor]


class PlainFilter(nn.Module):
    """The postfilter whose weights are quantised on their way into every convolution."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        h = weights.h
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, h), (h, h), (h, 3)))
        with torch.no_grad():
            for k, conv in enumerate((self.conv1, self.conv2, self.conv3), 1):
                conv.weight.copy_(torch.from_numpy(getattr(weights, f"w{k}").copy()))
                assert conv.bias is not None
                conv.bias.copy_(torch.from_numpy(getattr(weights, f"b{k}").copy()))
                conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, frames: Tensor) -> Tensor:
        hidden = F.relu(quantised_conv(self.conv1, frames))
        hidden = F.relu(quantised_conv(self.conv2, hidden))
        return (frames + quantised_conv(self.conv3, hidden)).clamp(0, 255)


def quantised_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    assert conv.bias is not None
    return F.conv2d(x, fake_quantise(conv.weight), fake_quantise(conv.bias), padding=1)


def fake_quantise(w: Tensor) -> Tensor:
    """torch's own operator, whose gradient is 1 within the range."""
    largest = w.detach().abs().max()
    scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
    zero = torch.zeros(1, dtype=torch.int32)
    return torch.fake_quantize_per_tensor_affine(w, scale.reshape(1), zero, -127, 127)


class PlainTraining:
    """One training; `run` goes on from where it is."""

    def __init__(self, recipe: Recipe, data: Sequence[Triple]) -> None:
        self.recipe, self.data, self.step = recipe, data, 0
        self.model = PlainFilter(Weights.initial(recipe.h, recipe.weights_seed))
        self.ema = copy.deepcopy(self.model)
        self.adam = torch.optim.Adam(self.model.parameters(), lr=recipe.rate)
        self.losses: list[float] = []

    def run(self, steps: int) -> None:
        recipe = self.recipe
        for _ in range(steps):
            group = recipe.pairs_of(self.step)
            for options in self.adam.param_groups:
                options["lr"] = recipe.rate_of(self.step)
            self.adam.zero_grad()
            total = 0.0
            for index in group:
                loss = self.loss(*self.data[index]) / len(group)
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.item()
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
            self.adam.step()
            with torch.no_grad():
                for average, parameter in zip(self.ema.parameters(), self.model.parameters(), strict=True):
                    average.mul_(recipe.decay).add_(parameter, alpha=1 - recipe.decay)
            self.losses.append(total)
            self.step += 1
            if not math.isfinite(total):
                raise ArithmeticError(f"the loss of step {self.step} is {total}")

    def loss(self, original: Tensor, decoded: Tensor, saliency: Tensor) -> Tensor:
        target = original.permute(0, 3, 1, 2).float()
        frames = decoded.permute(0, 3, 1, 2).float()
        filtered = self.model(frames)
        emphasis = 1 / (1 + self.recipe.alpha * saliency.unsqueeze(1).float() / 255)
        sal = ((filtered[1:] - frames[1:]) ** 2 * emphasis).mean()
        value: Tensor = F.mse_loss(filtered, target) + self.recipe.sal_weight * sal
        return value
