"""Feature encoders: in what spaces samples are compared with data. Each gives features at several scales.

A feature is (n, places, channels): the places of one map share their scales. `raw` has no weights; `tiny` is a random
convolutional network that is never trained; `autoencoder` has the same form, trained on the train split to fill in
what was masked ("mae-surrogate": far smaller than the masked autoencoder of the paper, and never called by its name).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as fn
from torch import Tensor, nn

MASKED = 0.5  # part of the 2×2 patches that the autoencoder has to fill in
_MAPS = (16, 32, 64)  # channels at full, half and quarter side
_EPSILON = 1e-6  # under the root of a deviation
_OF_LAYER = ("weight", "bias")


Encode = Callable[[Tensor], list[Tensor]]


class Convolutions(nn.Module):
    """Three convolutions with their maps at full, half and quarter side."""

    def __init__(self, channels: int, *, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = (channels, *_MAPS)
            self.layers = nn.ModuleList(
                nn.Conv2d(a, b, 3, stride=1 if i == 0 else 2, padding=1) for i, (a, b) in enumerate(pairwise(sizes))
            )
            for layer in self.layers:
                assert isinstance(layer, nn.Conv2d)
                nn.init.kaiming_normal_(layer.weight, nonlinearity="leaky_relu", a=0.1)
                assert layer.bias is not None
                nn.init.normal_(layer.bias, std=0.1)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Of images (n, H, W, C): (n, channels, h, w) each."""
        x = images.permute(0, 3, 1, 2).contiguous()
        found = []
        for layer in self.layers:
            x = fn.leaky_relu(layer(x), 0.1).contiguous()
            found.append(x)
        return found

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features: of each map its places at quarter side, its mean and its deviation; and the last map whole."""
        maps = self.maps(images)
        features = []
        for above, each in zip((4, 2, 1), maps, strict=True):
            places = fn.avg_pool2d(each, above, ceil_mode=True)
            features.append(places.flatten(2).transpose(1, 2))
            flat = each.flatten(2)
            mean = flat.mean(2)
            spread = (((flat - mean[..., None]) ** 2).mean(2) + _EPSILON).sqrt()
            features += [mean[:, None], spread[:, None]]
        features.append(maps[-1].flatten(1)[:, None])
        return features


class _Decoder(nn.Module):
    def __init__(self, channels: int, height: int, width: int, *, seed: int) -> None:
        super().__init__()
        self.size = height, width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv2d(_MAPS[2], _MAPS[1], 3, padding=1)
            self.second = nn.Conv2d(_MAPS[1], _MAPS[0], 3, padding=1)
            self.last = nn.Conv2d(_MAPS[0], channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.size
        x = fn.interpolate(x, size=((height + 1) // 2, (width + 1) // 2), mode="nearest")
        x = fn.leaky_relu(self.first(x), 0.1)
        x = fn.interpolate(x, size=self.size, mode="nearest")
        images: Tensor = self.last(fn.leaky_relu(self.second(x), 0.1))
        return images.permute(0, 2, 3, 1)


def raw_features(images: Tensor) -> list[Tensor]:
    """Pixels themselves at half and quarter side (the raw pixel term has them whole), and 4×4 blocks of them."""
    x = images.permute(0, 3, 1, 2)
    half = fn.avg_pool2d(x, 2, ceil_mode=True)
    blocks = fn.unfold(x, 4, stride=2).transpose(1, 2)
    return [half.flatten(1)[:, None], blocks]


def train_autoencoder(
    images: npt.NDArray[np.float32],
    *,
    steps: int,
    seed: int,
    device: torch.device,
    batch: int = 128,
    rate: float = 3e-3,
) -> tuple[Convolutions, float]:
    """(encoder, mean squared error over the last tenth of the steps), trained to fill in masked 2×2 patches."""
    count, height, width, channels = images.shape
    encoder = Convolutions(channels, seed=seed).to(device)
    decoder = _Decoder(channels, height, width, seed=seed + 1).to(device)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = np.random.default_rng([seed, 7])
    errors = []
    for _ in range(steps):
        shown = torch.from_numpy(images[rng.integers(0, count, batch)]).to(device)
        grid = rng.random((batch, (height + 1) // 2, (width + 1) // 2)) < MASKED
        hidden = np.repeat(np.repeat(grid, 2, 1), 2, 2)[:, :height, :width, None]
        mask = torch.from_numpy(hidden).to(device)
        found = decoder(encoder.maps(shown.masked_fill(mask, 0.0))[-1])
        loss = ((found - shown) ** 2).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        errors.append(float(loss.detach()))
    encoder.requires_grad_(False)
    return encoder, float(np.mean(errors[-max(1, steps // 10) :]))


class Given:
    """The layers of an extractor's file (conv0_weight, conv0_bias, ..., strides) as an encoder.

    Raises:
        KeyError: it has no such arrays.
        ValueError: they do not fit together.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]], device: torch.device) -> None:
        self.strides = [int(s) for s in arrays["strides"]]
        if not self.strides:
            raise ValueError("it has no layer")
        self.layers = [
            tuple(torch.from_numpy(np.array(arrays[f"conv{i}_{what}"], np.float32)).to(device) for what in _OF_LAYER)
            for i in range(len(self.strides))
        ]
        if any(weight.ndim != 4 or bias.shape != weight.shape[:1] for weight, bias in self.layers):
            raise ValueError("weights and biases of its layers do not go together")

    @property
    def channels(self) -> int:
        return int(self.layers[0][0].shape[1])

    def __call__(self, images: Tensor) -> list[Tensor]:
        """The mean over space of each layer, and the places of the last."""
        x = images.permute(0, 3, 1, 2)
        features = []
        for (weight, bias), stride in zip(self.layers, self.strides, strict=True):
            x = fn.relu(fn.conv2d(x, weight, bias, stride=stride, padding=1))
            features.append(x.mean((2, 3))[:, None])
        return [*features, x.flatten(2).transpose(1, 2)]
