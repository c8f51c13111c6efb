"""The extractor's network: convolutions of 3×3 with ReLU, the mean over space as features, a linear head.

Its weights are arrays with names; its forward pass is in float64, so that two machines differ by rounding only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from jobs.drift.digests import arrays_sha256

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float64]
_BLOCK = 256  # images at a time
_GAIN = 4.0  # of a random head, so that its classes are not all alike


@dataclass(frozen=True)
class Weights:
    """Frozen weights.

    Attributes:
        kernels: float32 (out, in, 3, 3), one for each layer; biases: (out,); strides: of each layer.
        head: (features, classes); offset: (classes,).
    """

    kernels: tuple[npt.NDArray[np.float32], ...]
    biases: tuple[npt.NDArray[np.float32], ...]
    strides: tuple[int, ...]
    head: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]

    @property
    def channels(self) -> int:
        return int(self.kernels[0].shape[1])

    @property
    def feature_dim(self) -> int:
        return int(self.head.shape[0])

    @property
    def classes(self) -> int:
        return int(self.head.shape[1])

    @property
    def sha256(self) -> str:
        """Of the content, whatever the file."""
        return arrays_sha256(self.arrays())

    def architecture(self) -> dict[str, Any]:
        """For the contract."""
        return {
            "layers": "convolution 3x3, zero padding 1, ReLU",
            "widths": [int(k.shape[0]) for k in self.kernels],
            "strides": list(self.strides),
            "features": "mean over space of the last layer",
            "probabilities": "softmax(features @ head + offset)",
            "arithmetic": "float64",
        }

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """By name, as they stand in the file."""
        out: dict[str, npt.NDArray[Any]] = {"strides": np.asarray(self.strides, dtype=np.int64)}
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            out |= {f"conv{i}_weight": kernel, f"conv{i}_bias": bias}
        return {**out, "head_weight": self.head, "head_bias": self.offset}

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]], path: Path) -> Weights:
        """From the arrays of a file.

        Raises:
            BadInput: they are no such weights.
        """
        try:
            strides = tuple(int(s) for s in arrays["strides"])
            kernels = tuple(arrays[f"conv{i}_weight"] for i in range(len(strides)))
            biases = tuple(arrays[f"conv{i}_bias"] for i in range(len(strides)))
            head, offset = arrays["head_weight"], arrays["head_bias"]
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{path} has no extractor: {error}", hint="it is made by drift-extractor") from None
        found = cls(kernels, biases, strides, head, offset)
        if not _fits(found) or set(arrays) != set(found.arrays()):
            raise BadInput(f"{path}: the shapes of its arrays do not go together", hint="it is made by drift-extractor")
        return found


def shape_of(side: int, feature_dim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(widths, strides) of the layers for images of this side: halved until it is 2 pixels or less."""
    strides, left = [1], side
    while left > 2:
        strides.append(2)
        left = (left + 1) // 2
    widths = [min(16 * 2**i, 64) for i in range(len(strides))]
    widths[-1] = feature_dim
    return tuple(widths), tuple(strides)


def random_weights(side: int, channels: int, classes: int, feature_dim: int, seed: int) -> Weights:
    """He's initialisation (He et al. 2015), from Philox; a head of its own, which knows nothing of the classes."""
    rng = np.random.Generator(np.random.Philox(seed))
    widths, strides = shape_of(side, feature_dim)
    kernels, biases = [], []
    for inward, outward in zip((channels, *widths[:-1]), widths, strict=True):
        spread = np.sqrt(2 / (9 * inward))
        kernels.append((rng.standard_normal((outward, inward, 3, 3)) * spread).astype(np.float32))
        biases.append((rng.standard_normal(outward) * 0.1).astype(np.float32))
    head = (rng.standard_normal((feature_dim, classes)) * _GAIN / np.sqrt(feature_dim)).astype(np.float32)
    return Weights(tuple(kernels), tuple(biases), strides, head, np.zeros(classes, dtype=np.float32))


def features_of(weights: Weights, images: npt.NDArray[np.float32], device: str = "cpu") -> tuple[Floats, Floats]:
    """Features (n, feature_dim) and class probabilities (n, classes) of images (n, H, W, C) in [-1, 1].

    Raises:
        BadInput: the images have other channels than the extractor was made for.
        KernelRefused: there is no such device.
    """
    import torch

    from kernels.devices import torch_device

    if images.shape[-1] != weights.channels:
        raise BadInput(
            f"images of {images.shape[-1]} channels, and the extractor is made for {weights.channels}",
            hint="make an extractor of this data",
        )
    place = torch_device(device)

    def tensor(array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.array(array, dtype=np.float64)).to(place)

    layers = [
        (tensor(k), tensor(b), s) for k, b, s in zip(weights.kernels, weights.biases, weights.strides, strict=True)
    ]
    head, offset = tensor(weights.head), tensor(weights.offset)
    features, probabilities = [], []
    with torch.no_grad():
        for start in range(0, len(images), _BLOCK):
            x = tensor(np.moveaxis(images[start : start + _BLOCK], -1, 1))
            found = forward(x, layers)
            features.append(found.cpu().numpy())
            probabilities.append(torch.softmax(found @ head + offset, dim=1).cpu().numpy())
    return np.concatenate(features), np.concatenate(probabilities)


def forward(x: torch.Tensor, layers: Sequence[tuple[torch.Tensor, torch.Tensor, int]]) -> torch.Tensor:
    """Features (n, d) of images (n, C, H, W); layers are (kernel, bias, stride)."""
    from torch.nn.functional import conv2d, relu

    for kernel, bias, stride in layers:
        x = relu(conv2d(x, kernel, bias, stride=stride, padding=1))
    return x.mean(dim=(2, 3))


def _fits(w: Weights) -> bool:
    inward = w.kernels[0].shape[1] if w.kernels and w.kernels[0].ndim == 4 else 0
    for kernel, bias, stride in zip(w.kernels, w.biases, w.strides, strict=True):
        if kernel.shape[1:] != (inward, 3, 3) or bias.shape != kernel.shape[:1] or stride < 1:
            return False
        inward = kernel.shape[0]
    whole = all(a.dtype == np.float32 and np.isfinite(a).all() for a in (*w.kernels, *w.biases, w.head, w.offset))
    return bool(
        inward and w.head.ndim == 2 and w.head.shape == (inward, w.offset.size) and w.offset.ndim == 1 and whole
    )
