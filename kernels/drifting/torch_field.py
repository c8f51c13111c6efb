"""The drift field in torch, for many groups of samples at once, and the loss that moves a generator along it.

Shapes: (G, L, n, C): groups (a class with its alpha each), places of a feature map, samples, channels. Scales are
over all of it, as the features of one map share theirs. Held to the float64 oracle `kernels.drifting.field`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.devices import KernelRefused
from kernels.drifting.field import TEMPERATURES, Gains


@dataclass(frozen=True)
class Found:
    """The drift of a feature.

    Attributes:
        drift: Ṽ (G, L, n, C), of samples in units of `scale`.
        scale: S, a scalar tensor.
        sizes: (T,), λ of each temperature: what is left of the drift. 0 where p = q.
    """

    drift: Tensor
    scale: Tensor
    sizes: Tensor


def drift_of(
    x: Tensor,
    positive: Tensor,
    unconditional: Tensor | None = None,
    weight: Tensor | None = None,
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    gains: Gains | None = None,
) -> Found:
    """Where samples are to move, with the samples themselves as negatives and no sample its own.

    Args:
        x: (G, L, n, C). positive: (G, L, p, C). unconditional: (G, L, u, C), real ones that are negatives too.
        weight: (G,), of each unconditional one; 0: they are not there.

    Raises:
        KernelRefused: fewer than two samples, no positive, or unconditional ones without a weight.
    """
    gains = gains or Gains()
    if x.shape[-2] < 2 or positive.shape[-2] < 1:
        raise KernelRefused("a drift needs two samples or more, and a real one: give larger groups")
    if (unconditional is None) != (weight is None):
        raise KernelRefused("unconditional samples and their weight go together")
    with torch.no_grad():
        count, width = x.shape[-2], x.shape[-1]
        negative = x if unconditional is None else torch.cat([x, unconditional], dim=-2)
        near, far = _distances(x, positive), _distances(x, negative)
        own = torch.zeros(far.shape[-2:], dtype=torch.bool, device=x.device)
        own[:, :count].fill_diagonal_(True)
        weights = torch.ones((*far.shape[:1], 1, 1, far.shape[-1]), dtype=x.dtype, device=x.device)
        if weight is not None:
            weights[..., count:] = weight.to(x.dtype)[:, None, None, None]
        counted = weights.expand_as(far).masked_fill(own, 0.0)
        mean = (near.sum() + (counted * far).sum()) / (near.numel() + counted.sum())
        scale = mean / math.sqrt(width)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))

        apart = torch.cat([near, far.masked_fill(own, math.inf)], dim=-1) / scale
        log_weight = torch.cat([torch.zeros_like(weights[..., :1]).expand(*weights.shape[:-1], near.shape[-1]),
                                weights.log()], dim=-1)  # fmt: skip
        reals, others, samples = positive / scale, negative / scale, x / scale
        total = torch.zeros_like(x)
        sizes = []
        for tau in temperatures:
            found = _field(apart, log_weight, samples, reals, others, tau * math.sqrt(width), gains)
            size = ((found**2).sum(-1).mean() / width).sqrt()
            sizes.append(size)
            total += found / torch.where(size > 0, size, torch.ones_like(size))
    return Found(total, scale, torch.stack(sizes))


def drift_loss(
    x: Tensor,
    positive: Tensor,
    unconditional: Tensor | None = None,
    weight: Tensor | None = None,
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    gains: Gains | None = None,
) -> tuple[Tensor, Found]:
    """Mean of (φ̃ - stopgrad(φ̃ + Ṽ))² over all samples and channels: its gradient moves φ̃ along Ṽ.

    Its value is only how large the normalised drift is. What is left to do is said by `Found.sizes`.
    """
    found = drift_of(x.detach(), positive.detach(),
                     None if unconditional is None else unconditional.detach(), weight,
                     temperatures=temperatures, gains=gains)  # fmt: skip
    scaled = x / found.scale
    target = (scaled + found.drift).detach()
    return ((scaled - target) ** 2).mean(), found


def _field(
    apart: Tensor, log_weight: Tensor, x: Tensor, reals: Tensor, others: Tensor, temperature: float, gains: Gains
) -> Tensor:
    count = reals.shape[-2]
    logits = -apart / temperature
    # The weight of a column is in every term of its softmax over x, so it cancels there.
    both = (torch.softmax(logits + log_weight, dim=-1) * torch.softmax(logits, dim=-2)).sqrt()
    a_pos, a_neg = both[..., :count], both[..., count:]
    w_pos = a_pos * a_neg.sum(-1, keepdim=True)
    w_neg = a_neg * a_pos.sum(-1, keepdim=True)
    attraction = w_pos @ reals - w_pos.sum(-1, keepdim=True) * x
    repulsion = w_neg @ others - w_neg.sum(-1, keepdim=True) * x
    return gains.attraction * attraction - gains.repulsion * repulsion


def _distances(x: Tensor, y: Tensor) -> Tensor:
    # By differences: by products of large numbers the distance of near neighbours would be lost.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
