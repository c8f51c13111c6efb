"""What Keras has no words for, on PyTorch: a group's canvas, and a step with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from kernels.translation import groups_torch


def settle(threads: int) -> None:
    """So many threads, and algorithms that give the same bits every time. Before anything is computed."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)


def averager(weight: Any, pad: int) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """A function of patches (B, N, N, C) of groups at (B, 1, 2, C): each group's canvas, cut into its patches again."""
    shares = torch.as_tensor(weight)

    def canvas(re: Any, im: Any, positions: Any) -> tuple[Any, Any]:
        patches = torch.complex(re, im).permute(0, 3, 1, 2).contiguous()
        at = positions.permute(0, 3, 1, 2)
        whole = groups_torch.reassemble(patches, at, weight=shares, pad=pad)
        found = groups_torch.extract(whole, at, tuple(re.shape[1:3])).permute(0, 2, 3, 1)
        return found.real, found.imag

    return canvas


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without gradients; tensors in, tensors out."""

    def run(*arguments: Any) -> Any:
        with torch.no_grad():
            return function(*arguments)

    return run


def stepper(loss: Callable[..., Any], weights: Sequence[Any], optimizer: Any) -> Callable[..., Any]:
    """A function of a batch that makes one step and returns the loss before it."""

    def step(*batch: Any) -> Any:
        for weight in weights:
            weight.value.grad = None
        value = loss(*batch)
        value.backward()
        gradients = [weight.value.grad for weight in weights]
        with torch.no_grad():
            optimizer.apply(gradients, weights)
        return value.detach()

    return step


def host(tensor: Any) -> np.ndarray[Any, Any]:
    """As NumPy."""
    found: np.ndarray[Any, Any] = tensor.detach().cpu().numpy()
    return found
