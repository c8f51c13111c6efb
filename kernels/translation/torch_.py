"""The torch backend: CPU and CUDA, differentiable, whatever the precision of its input.

The integer part of an offset moves a window by padding and cropping (no gather); the fractional part is the
2×2 stencil with four weights per image. Both are linear in the image, so autograd's backward pass is the
transposed stencil exactly, with nothing written by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from kernels.translation.shapes import check_shapes


def translate(images: Tensor, offsets: Tensor) -> Tensor:
    """Translate (n, H, W) by (n, 2) [x, y]; real or complex, gradients to both arguments."""
    check_shapes(images.shape, offsets.shape)
    if images.is_complex():
        return torch.view_as_complex(_shift(torch.view_as_real(images), offsets))
    return _shift(images.unsqueeze(-1), offsets).squeeze(-1)


def translate_bchw(images: Tensor, offsets: Tensor) -> Tensor:
    """The layout of the models: images (B, C, H, W), offsets (B, C, 1, 2), flat index b·C+c."""
    check_shapes(images.shape, (*offsets.shape[:2], *offsets.shape[3:]))
    moved = translate(images.reshape(-1, *images.shape[2:]), offsets.reshape(-1, 2))
    return moved.reshape(images.shape)


def make() -> Any:
    """NumPy in, NumPy out, through the models' own layout."""

    def run(images: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> npt.NDArray[Any]:
        tensor, shifts = torch.tensor(images), torch.tensor(offsets)
        with torch.no_grad():
            if images.ndim == 4:
                moved = translate_bchw(tensor, shifts.unsqueeze(2))
            else:
                moved = translate(tensor.reshape(-1, *images.shape[-2:]), shifts.reshape(-1, 2))
        return np.asarray(moved.numpy()).reshape(images.shape)

    return run


def _shift(planes: Tensor, offsets: Tensor) -> Tensor:
    """(n, H, W, parts): the parts (real and imaginary) move together and never mix."""
    _, height, width, _ = planes.shape
    offsets = offsets.to(planes.device)
    # Each weight by a subtraction of its own: the small one of 1 - w would keep few digits.
    whole = torch.floor(-offsets.detach())
    high, low = -offsets - whole, offsets - torch.floor(offsets.detach())

    # Beyond the edge every window is empty, so a far offset costs no more than a near one.
    x0 = whole[:, 0].clamp(-(width + 1), width).long().tolist()
    y0 = whole[:, 1].clamp(-(height + 1), height).long().tolist()
    windows = torch.stack([_window(image, x, y) for image, x, y in zip(planes, x0, y0, strict=True)])

    rows = _mix(windows[:, :, :-1], windows[:, :, 1:], low[:, 0], high[:, 0])
    return _mix(rows[:, :-1], rows[:, 1:], low[:, 1], high[:, 1])


def _window(image: Tensor, x0: int, y0: int) -> Tensor:
    """The (H+1, W+1) pixels from (x0, y0) on, 0 where the image has none. Negative padding crops."""
    height, width = image.shape[:2]
    # Padding that cropped more than there is would be refused; such a window is empty anyway.
    if abs(x0) > width or abs(y0) > height or x0 == width or y0 == height:
        return image.new_zeros(height + 1, width + 1, image.shape[2])
    return pad(image, (0, 0, -x0, x0 + 1, -y0, y0 + 1))


def _mix(first: Tensor, second: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """low·first + high·second, and `first` itself where high is 0: an integer shift is a copy, bit for bit."""
    low, high = (w.to(first.dtype)[:, None, None, None] for w in (low, high))
    return torch.where(high == 0, first, low * first + high * second)
