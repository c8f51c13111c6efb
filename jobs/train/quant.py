"""Fake quantisation of all six tensors at once: they lie one behind the other in one flat float32 vector.

Per tensor s = max|w|/127 (1 where that is 0) and q = clamp(round_half_even(w/s), -127, 127); the forward pass runs with
q·s. Every operation is one IEEE float32 operation in the order of `kernels.postfilter.quantised`, so the values are
those of the int8 file, bit for bit. Backwards the rounding counts as the identity (the straight-through estimator:
Bengio, Léonard and Courville, arXiv 1308.3432).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.postfilter.quantised import LIMIT
from kernels.postfilter.weights import shapes


class FakeQuantiser:
    """For filters of `h` hidden channels; it holds which numbers of the vector belong to which tensor.

    Args:
        cut_largest: the seed's option: no gradient where |q| >= 127. The largest weight of every tensor has |q| = 127
            by the definition of s, so it never trains.
    """

    def __init__(self, h: int, device: torch.device, *, cut_largest: bool = False) -> None:
        sizes = [int(torch.Size(shape).numel()) for shape in shapes(h).values()]
        self.lengths = torch.tensor(sizes, device=device)
        self.tensor_of = torch.repeat_interleave(torch.arange(len(sizes), device=device), self.lengths)
        self.cut_largest = cut_largest

    def __call__(self, flat: Tensor) -> tuple[Tensor, Tensor | None]:
        """(q·s, where the gradient passes); the second is None where it passes everywhere.

        Args:
            flat: (9h² + 56h + 3,) float32. A NaN makes its whole tensor NaN, so that it cannot be overlooked.
        """
        s = self.scales(flat)[self.tensor_of]
        q = torch.round(flat / s).clamp_(-LIMIT, LIMIT)  # torch rounds half to even
        passes = (q.abs() < LIMIT).to(flat.dtype) if self.cut_largest else None
        return q.add_(0.0).mul_(s), passes  # an int8 has no -0

    def scales(self, flat: Tensor) -> Tensor:
        """(6,) float32: max|w|/127 of every tensor, 1 where that is 0."""
        # A tensor on the same device, because a number of Python divides as a product with 1/127.
        limit = torch.full((), LIMIT, dtype=flat.dtype, device=flat.device)
        s = torch.segment_reduce(flat.abs(), "max", lengths=self.lengths, unsafe=True) / limit
        return torch.where(s == 0, torch.ones_like(s), s)
