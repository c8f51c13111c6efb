"""The extractor's forward pass in plain NumPy: windows and one product a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.audit.ledger import Unauditable
from jobs.audit.reading import array

Floats = npt.NDArray[np.float64]
_BLOCK = 64  # images at a time


def forward(weights: Mapping[str, npt.NDArray[Any]], images: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Features (n, d) and class probabilities (n, k) of images (n, H, W, C).

    Each layer: 3×3 windows of the image with a border of zeros, at every stride-th pixel, times the kernel, plus the
    bias, negative ones 0. Features are the means over space; probabilities the softmax of the head.

    Raises:
        Unauditable: the weights are no such network, or not for such images.
    """
    strides = array(weights, "strides", "i", None).tolist()
    layers, inward = [], images.shape[-1]
    for i, stride in enumerate(strides):
        kernel = array(weights, f"conv{i}_weight", "f", None, inward, 3, 3).astype(np.float64)
        layers.append((kernel, array(weights, f"conv{i}_bias", "f", len(kernel)).astype(np.float64), int(stride)))
        inward = len(kernel)
    head = array(weights, "head_weight", "f", inward, None).astype(np.float64)
    offset = array(weights, "head_bias", "f", head.shape[1]).astype(np.float64)
    if len(weights) != 2 * len(layers) + 3 or min(strides) < 1:
        raise Unauditable("the extractor has arrays that its layers do not use, or strides below 1")
    features = np.concatenate([_features(images[i : i + _BLOCK], layers) for i in range(0, len(images), _BLOCK)])
    logits = features @ head + offset
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return features, np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _features(images: npt.NDArray[Any], layers: list[tuple[Floats, Floats, int]]) -> Floats:
    x = images.astype(np.float64)
    for kernel, bias, stride in layers:
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::stride, ::stride]
        # (n, h, w, C, 3, 3) with (out, C, 3, 3)
        x = np.maximum(np.tensordot(windows, kernel, axes=([3, 4, 5], [1, 2, 3])) + bias, 0.0)
    return np.asarray(x.mean(axis=(1, 2)))
