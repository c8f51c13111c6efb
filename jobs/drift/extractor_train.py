"""Training of a `cached` extractor: the network with its head as a classifier of the train split."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from core.errors import JobFailed
from jobs.drift.extractor_net import Weights, forward
from jobs.drift.given import Images

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Epoch:
    """Where training stands. Attributes: loss: mean cross-entropy over the epoch's images, nats; weights: after it."""

    number: int
    loss: float
    weights: Weights


def trained(
    start: Weights, images: Images, *, epochs: int, rate: float, batch: int, seed: int, head: float = 0.25
) -> Iterator[Epoch]:
    """Adam on cross-entropy, in float32 on one thread: the same weights for the same seed on the same machine.

    Args:
        head: the random head is scaled by it, so that training starts from classes that are nearly alike.

    Raises:
        JobFailed: the loss is no longer finite.
    """
    import torch

    threads = torch.get_num_threads()
    # The sums of several threads depend on how many there are.
    torch.set_num_threads(1)
    try:
        kernels = [_parameter(k) for k in start.kernels]
        biases = [_parameter(b) for b in start.biases]
        last, offset = _parameter(start.head * np.float32(head)), _parameter(start.offset)
        adam = torch.optim.Adam([*kernels, *biases, last, offset], lr=rate)
        pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images.images, -1, 1)))
        labels = torch.from_numpy(images.labels)
        rng = np.random.Generator(np.random.Philox(seed))
        for number in range(1, epochs + 1):
            total = 0.0
            order = rng.permutation(images.n)
            for first in range(0, images.n, batch):
                at = torch.from_numpy(order[first : first + batch])
                found = forward(pixels[at], list(zip(kernels, biases, start.strides, strict=True)))
                loss = torch.nn.functional.cross_entropy(found @ last + offset, labels[at])
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step()
                total += float(loss.detach()) * len(at)
            if not math.isfinite(total):
                raise JobFailed(f"the loss of the classifier is {total} in epoch {number}", hint="lower the rate")
            layers = tuple(_array(k) for k in kernels), tuple(_array(b) for b in biases)
            yield Epoch(number, total / images.n, Weights(*layers, start.strides, _array(last), _array(offset)))
    finally:
        torch.set_num_threads(threads)


def _parameter(array: npt.NDArray[np.float32]) -> torch.Tensor:
    import torch

    return torch.from_numpy(array.copy()).requires_grad_()


def _array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(tensor.detach().numpy().copy(), dtype=np.float32)
