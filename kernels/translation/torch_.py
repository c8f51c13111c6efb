"""The torch backend: CPU and CUDA, differentiable, whatever the precision of its input.

The integer part of an offset moves a window: whole rows, copied from an image with zeros around it. The
fractional part is the 2×2 stencil with four weights per image. No loop over images, and no weight or index per
pixel.

The gradient by the image is written down: the transposed stencil is the translation by -t, with the very same
weights. It is made by the same function, so gradients of any order follow. By the offset there is a gradient
too; at a whole pixel, where the slope jumps, it is the slope on the side of smaller offsets. Forward-mode
derivatives are not there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kernels.devices import torch_device
from kernels.translation.shapes import check_shapes

# On the CPU so much is moved at a time: what lies between input and output then stays in the cache.
HELD_BYTES = 2 << 20


def translate(images: Tensor, offsets: Tensor) -> Tensor:
    """Translate (n, H, W) by (n, 2) [x, y]; real or complex, gradients to both arguments.

    The weights are made in the wider precision of the two: those of a float32 offset would spoil double images.

    Raises:
        ShapeMismatch: images and offsets do not belong together.
    """
    check_shapes(images.shape, offsets.shape)
    planes = torch.view_as_real(images) if images.is_complex() else images.unsqueeze(-1)
    wide = offsets.to(planes.device, torch.promote_types(offsets.dtype, planes.dtype))
    moved: Tensor = _Translation.apply(planes, wide)  # type: ignore[no-untyped-call]
    return torch.view_as_complex(moved) if images.is_complex() else moved.squeeze(-1)


def translate_bchw(images: Tensor, offsets: Tensor) -> Tensor:
    """The layout of the models: images (B, C, H, W), offsets (B, C, 1, 2), flat index b·C+c."""
    check_shapes(images.shape, (*offsets.shape[:2], *offsets.shape[3:]))
    moved = translate(images.reshape(-1, *images.shape[2:]), offsets.reshape(-1, 2))
    return moved.reshape(images.shape)


def make(*, device: str = "cpu") -> Any:
    """NumPy in, NumPy out, through the models' own layout.

    Raises:
        DeviceMissing: CUDA was asked for where there is none.
    """
    return _Host(torch_device(device))


class _Host:
    """One built function on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, images: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with torch.no_grad():
            tensor, shifts = _tensor(images).to(self.device), _tensor(offsets).to(self.device)
            if images.ndim == 4:
                moved = translate_bchw(tensor, shifts.unsqueeze(2))
            else:
                moved = translate(tensor.reshape(-1, *images.shape[-2:]), shifts.reshape(-1, 2))
        return np.asarray(moved.cpu().numpy()).reshape(images.shape)

    def evidence(self) -> dict[str, Any]:
        """Where it ran."""
        if self.device.type == "cpu":
            return {"device": "cpu"}
        return {"device": str(self.device), "device_name": torch.cuda.get_device_name(self.device)}


class _Translation(torch.autograd.Function):
    """Planes (n, H, W, parts) by (n, 2); the parts (real and imaginary) move together and never mix."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(planes, offsets)
        held = max(1, HELD_BYTES // (planes[:1].numel() * planes.element_size()))
        if planes.is_cuda or len(planes) <= held:
            return _moved(planes, offsets)
        out = torch.empty_like(planes)
        for start in range(0, len(planes), held):
            piece = slice(start, start + held)
            out[piece] = _moved(planes[piece], offsets[piece])
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        planes, offsets = ctx.saved_tensors
        (gradient,) = gradients
        by_image = by_offset = None
        if ctx.needs_input_grad[0]:
            by_image = _Translation.apply(gradient, -offsets)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            slopes = [(gradient * slope).sum((1, 2, 3)) for slope in _slopes(planes, offsets)]
            by_offset = torch.stack(slopes, dim=-1).to(offsets.dtype)
        return by_image, by_offset


class _Window(torch.autograd.Function):
    """`_window` where its own gradient is wanted: the window of the gradient, the other way."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor, x0: Tensor, y0: Tensor, height: int, width: int) -> Tensor:
        ctx.save_for_backward(x0, y0)
        ctx.frame = planes.shape[1:3]
        return _window(planes, x0, y0, height, width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        x0, y0 = ctx.saved_tensors
        moved: Tensor = _Window.apply(gradients[0], -x0, -y0, *ctx.frame)  # type: ignore[no-untyped-call]
        return moved, None, None, None, None


def _moved(planes: Tensor, offsets: Tensor) -> Tensor:
    """The stencil itself, where no gradient is recorded."""
    height, width = planes.shape[1:3]
    x0, y0 = _whole(offsets)
    (left, right), (above, below) = (_weights(offsets[:, axis]) for axis in (0, 1))
    window = _window(planes, x0, y0, height + 1, width + 1)
    rows = _mix(window[:, :, :-1], window[:, :, 1:], left, right)
    return _mix(rows[:, :-1], rows[:, 1:], above, below)


def _slopes(planes: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """d out / d tx and d out / d ty, from operations that have gradients of their own."""
    height, width = planes.shape[1:3]
    window: Tensor = _Window.apply(planes, *_whole(offsets), height + 1, width + 1)  # type: ignore[no-untyped-call]
    here, right_of = window[:, :-1, :-1], window[:, :-1, 1:]
    below_of, across = window[:, 1:, :-1], window[:, 1:, 1:]
    (left, right), (above, below) = (
        tuple(_broadcast(w, planes) for w in _weights(offsets[:, axis])) for axis in (0, 1)
    )
    return (
        above * (here - right_of) + below * (below_of - across),
        left * (here - below_of) + right * (right_of - across),
    )


def _whole(offsets: Tensor) -> tuple[Tensor, Tensor]:
    """x0 and y0 of each image, long."""
    # Clamped: what is farther than any image stays so, and fits into an integer.
    x0, y0 = torch.floor(-offsets.detach()).clamp(-(2**40), 2**40).long().unbind(-1)
    return x0, y0


def _weights(offset: Tensor) -> tuple[Tensor, Tensor]:
    """Of the nearer and the farther neighbour along one axis.

    Each by a subtraction of its own: the small one of 1 - w would keep few digits.
    """
    fixed = offset.detach()
    far = -offset - torch.floor(-fixed)
    near = offset - torch.floor(fixed)
    return torch.where(far.detach() == 0, torch.ones_like(near), near), far


def _broadcast(weight: Tensor, planes: Tensor) -> Tensor:
    return weight.to(planes.dtype)[:, None, None, None]


def _mix(first: Tensor, second: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """near·first + far·second, and `first` itself where far is 0: an integer shift is a copy, bit for bit."""
    near, far = _broadcast(near, first), _broadcast(far, first)
    mixed = (first * near).addcmul_(second, far)
    copied = far == 0
    # On a GPU asking whether there is any would wait for it; there one more pass costs less.
    if mixed.is_cuda or bool(copied.any()):
        return torch.where(copied, first, mixed)
    return mixed


def _window(planes: Tensor, x0: Tensor, y0: Tensor, height: int, width: int) -> Tensor:
    """(n, height, width, parts): the pixels from (x0, y0) of each image on, 0 where it has none.

    The rows of all images are laid out one after the other with zeros between them, wide enough that a window
    that begins left of an image or ends right of it reads zeros. Then each row of a window is one piece.
    """
    count, rows, columns, parts = planes.shape
    x0, y0 = x0.clamp(-width, columns), y0.clamp(-height, rows)
    gap = width
    if not planes.is_cuda:  # there the true number would have to be waited for
        gap = min(gap, max(0, int((-x0).max()), int(x0.max()) + width - columns))
    stride = columns + gap
    dark = gap + count * rows * stride  # where a row of zeros begins
    laid = planes.new_zeros(dark + width, parts)
    laid[gap:dark].view(count, rows, stride, parts)[:, :, :columns] = planes

    wanted = y0[:, None] + torch.arange(height, device=planes.device)
    images = torch.arange(count, device=planes.device)[:, None]
    starts = gap + (images * rows + wanted) * stride + x0[:, None]
    starts = torch.where((wanted >= 0) & (wanted < rows), starts, dark)
    pieces = laid.as_strided((dark + 1, width * parts), (parts, 1))
    return pieces.index_select(0, starts.flatten()).view(count, height, width, parts)


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    """Without a copy where torch allows it: not of what is read-only, nor of negative steps."""
    # Flat, as an axis of length 1 may have a negative step in what NumPy calls contiguous.
    flat = array.reshape(-1)
    return torch.from_numpy(flat if flat.flags.writeable and flat.strides[0] > 0 else flat.copy()).view(array.shape)
