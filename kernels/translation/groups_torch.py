"""`groups` on torch tensors, on the CPU and on CUDA, differentiable by patches, canvas and positions.

Shapes: patches (B, C, N, N), positions (B, C, 1, 2) [x, y], canvas (B, 1, M, M).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad as pad_zeros

from kernels.translation.groups import check_extract, check_group, checked_pad, checked_weight, crop
from kernels.translation.shapes import check_shapes
from kernels.translation.torch_ import translate


def extract(canvas: Tensor, positions: Tensor, frame: tuple[int, int]) -> Tensor:
    """crop(T(canvas, +r_c)): (B, 1, H, W) by (B, C, 1, 2) to (B, C, *frame).

    Raises:
        ShapeMismatch: another number of canvases than groups, or a frame that has no place in the middle.
    """
    spots = _spots(positions)
    check_extract((*canvas.shape[:1], *canvas.shape[2:]), spots.shape, frame)
    count, channels = spots.shape[:2]
    # Each canvas once for each of its own positions; never one group's canvas for another.
    wide = canvas.expand(count, channels, *canvas.shape[2:]).reshape(-1, *canvas.shape[2:])
    moved = translate(wide, relative(spots).reshape(-1, 2))
    found: Tensor = crop(moved.reshape(count, channels, *canvas.shape[2:]), frame)
    return found


def reassemble(patches: Tensor, positions: Tensor, *, weight: Tensor | None = None, pad: int | None = None) -> Tensor:
    """The weighted mean of each group's patches at their places: (B, C, N, N) to (B, 1, N + 2·pad, N + 2·pad).

    Args:
        weight: (N, N), real, not negative; 1 everywhere if left out.
        pad: pixels on every side; what all r_c need if left out, for which a GPU is waited for.

    Raises:
        ShapeMismatch: patches and positions that do not belong together.
        TranslationRefused: a pad over which patches would be moved out.
    """
    spots = _spots(positions)
    check_group(patches.shape, spots.shape)
    moves = -relative(spots)
    pad = checked_pad(pad, moves.detach().cpu().numpy())
    shares = _weight(weight, patches)
    mean = _mean(patches.reshape(-1, *patches.shape[2:]), shares, moves.reshape(-1, 2), pad, patches.shape[0])
    return mean.unsqueeze(1)


def stitch(crops: Tensor, positions: Tensor, *, pad: int | None = None) -> Tensor:
    """The mean of all crops at their places: (n, m, m) by (n, 2) to (m + 2·pad, m + 2·pad).

    Raises:
        ShapeMismatch: crops and positions that do not belong together.
        TranslationRefused: a pad over which crops would be moved out.
    """
    check_shapes(crops.shape, positions.shape)
    wide = positions.to(torch.float64)
    moves = wide - wide.mean(dim=0)
    pad = checked_pad(pad, moves.detach().cpu().numpy())
    return _mean(crops, _weight(None, crops), moves, pad, 1)[0]


def relative(positions: Tensor) -> Tensor:
    """r_c = -(o_c - mean_C o), for (B, C, 2), in double precision: positions are large, their differences not."""
    wide = positions.to(torch.float64)
    return -(wide - wide.mean(dim=1, keepdim=True))


def _mean(images: Tensor, weight: Tensor, moves: Tensor, pad: int, groups: int) -> Tensor:
    """Σ T(pad(weight·image)) / Σ T(pad(weight)) within each group: (groups·C, H, W) to (groups, H', W')."""
    around = (pad, pad, pad, pad)
    shares = weight.expand(images.shape)
    moved = translate(pad_zeros(images * shares, around), moves)
    weights = translate(pad_zeros(shares, around), moves)
    total, per_pixel = (t.reshape(groups, -1, *moved.shape[1:]).sum(dim=1) for t in (moved, weights))
    # Divided by 1 where there is nothing: by 0 would be NaN, and stay so in the gradient.
    lit = per_pixel > 0
    return torch.where(lit, total / torch.where(lit, per_pixel, 1), 0)


def _weight(weight: Tensor | None, patches: Tensor) -> Tensor:
    real = patches.real.dtype if patches.is_complex() else patches.dtype
    if weight is None:
        return torch.ones(patches.shape[-2:], dtype=real, device=patches.device)
    host = weight.detach().cpu().numpy()
    checked_weight(host, tuple(patches.shape[-2:]), host.dtype)
    return weight.to(device=patches.device, dtype=real)


def _spots(positions: Tensor) -> Tensor:
    """(B, C, 1, 2) as (B, C, 2); what is not so is left for the checks to refuse."""
    return positions.squeeze(2) if positions.dim() == 4 and positions.shape[2] == 1 else positions
