"""The torch backend: CPU and CUDA; and the operator as a differentiable function and a module, for training.

A frame is filtered whole. oneDNN and cuDNN choose blocks, and with them the order of sums, by the shape of the
frame; cut into tiles, the same frame differs in the last bit at most pixels (measured). `numba` is for tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import conv2d, relu

from kernels.devices import torch_device
from kernels.postfilter.weights import Weights


def apply(frames: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """Filter (n, 3, H, W); gradients go to the frames and to the tensors w1, b1, w2, b2, w3, b3.

    Where the clamp holds a value at 0 or 255 the gradient is 0.
    """
    hidden = relu(conv2d(frames, tensors["w1"], tensors["b1"], padding=1))
    hidden = relu(conv2d(hidden, tensors["w2"], tensors["b2"], padding=1))
    return (frames + conv2d(hidden, tensors["w3"], tensors["b3"], padding=1)).clamp(0, 255)


class Postfilter(torch.nn.Module):
    """The operator with its six tensors as parameters of the same names."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        for name, tensor in weights.tensors().items():
            self.register_parameter(name, torch.nn.Parameter(torch.from_numpy(tensor.copy())))

    def forward(self, frames: Tensor) -> Tensor:
        return apply(frames, dict(self.named_parameters()))

    def weights(self) -> Weights:
        """A copy of the parameters, on the host.

        Raises:
            WeightsRefused: a parameter is not finite.
        """
        return Weights.of({name: p.detach().float().cpu().numpy().copy() for name, p in self.named_parameters()})


@contextmanager
def plain_float32(device: torch.device) -> Iterator[None]:
    """Convolutions of whole float32 products by one fixed algorithm, whatever the process has set."""
    backends: Any = torch.backends
    conv, cudnn = (backends.cudnn if device.type == "cuda" else backends.mkldnn).conv, backends.cudnn
    before = conv.fp32_precision, cudnn.deterministic, cudnn.benchmark
    conv.fp32_precision, cudnn.deterministic, cudnn.benchmark = "ieee", True, False
    try:
        yield
    finally:
        conv.fp32_precision, cudnn.deterministic, cudnn.benchmark = before


def make(weights: Weights, *, threads: int, device: str) -> Any:
    """NumPy in, NumPy out.

    Raises:
        DeviceMissing: CUDA was asked for, and there is none.
    """
    return _Host(weights, torch_device(device), threads)


class _Host:
    """One built filter, with its weights on the device."""

    def __init__(self, weights: Weights, device: torch.device, threads: int) -> None:
        self.device, self.threads = device, threads
        # Pixel by pixel in memory is what oneDNN computes in; planes would be turned around for every layer.
        self.format = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        self.tensors = {
            name: torch.from_numpy(tensor.copy()).to(device, memory_format=self.format if tensor.ndim == 4 else None)
            for name, tensor in weights.tensors().items()
        }

    def __call__(self, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        before = torch.get_num_threads()
        if self.device.type == "cpu":
            torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode(), plain_float32(self.device):
                given = (
                    torch.from_numpy(np.array(frames, order="C")).to(self.device).contiguous(memory_format=self.format)
                )
                return np.asarray(apply(given, self.tensors).contiguous().cpu().numpy())
        finally:
            torch.set_num_threads(before)

    def evidence(self) -> dict[str, Any]:
        """Which device, by its own name."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {"device": name, "tf32": False, "threads": self.threads}
