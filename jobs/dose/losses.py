"""What the learned arms make small, in keras.ops: functions of a network, to be called with tensors of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jobs.dose.network import Network

Loss = Callable[..., Any]


def poisson(network: Network, *, scale: float, part: float, background: float) -> Loss:
    """The mean over pixels of λ - k·log λ + log k!, the exact negative log-likelihood of the photons.

    λ = part·(scale²·|FFT2(P·O)|²/N² + background), O being the patches as the group's canvas has them.

    Args:
        scale: root of photons for one unit of amplitude.
        part: of the photons that are the target; 1: all.
        background: photons a pixel that come from nowhere, so that none is impossible.
    """
    ops = network.keras.ops

    def loss(diffraction: Any, positions: Any, counts: Any, constant: Any) -> Any:
        re, im = network.far(*network.object_patches(diffraction, positions))
        # The target has its DC in the middle, as the data has.
        half = network.architecture.size // 2
        light = ops.roll(re * re + im * im, (half, half), axis=(2, 3))
        expected = part * (scale**2 * light + background)
        return ops.mean(expected - counts * ops.log(expected)) + constant

    return loss


def supervised(network: Network) -> Loss:
    """The mean over pixels of |amplitude error| + |phase error|, each weighted by the probe's intensity.

    Diffraction does not say the constant phase of a patch, so the mean phase error of each patch is taken off first;
    the rest is on the nearest branch.
    """
    ops = network.keras.ops
    relative = (network.weight / network.weight.mean()).astype(np.float32)[None, :, :, None]
    weight = ops.convert_to_tensor(relative)

    def loss(diffraction: Any, positions: Any, target: Any, constant: Any) -> Any:
        amplitude, phase = network.forward(diffraction, positions)
        apart = phase - target[1]
        sine, cosine = (ops.mean(weight * f(apart), axis=(1, 2), keepdims=True) for f in (ops.sin, ops.cos))
        apart = apart - ops.stop_gradient(ops.arctan2(sine, cosine))
        turned = ops.arctan2(ops.sin(apart), ops.cos(apart))
        return ops.mean(weight * (ops.abs(amplitude - target[0]) + ops.abs(turned))) + constant

    return loss
