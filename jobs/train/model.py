"""What is trained: all weights in one vector, Adam on it, and their average. No step waits for the device.

The six tensors lie one behind the other in one flat float32 vector, so that quantising, clipping, Adam and the average
are a handful of operations whatever the number of tensors. A convolution's numbers lie in the order (output, row,
column, input), channels last, which is what oneDNN and cuDNN compute in.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from jobs.train.quant import FakeQuantiser
from jobs.train.recipe import Recipe
from kernels.postfilter.weights import Weights, shapes


class Model:
    """The weights of a training, and everything that changes with them.

    Attributes:
        flat: (9h² + 56h + 3,) float32, the weights in full precision.
        ema: the same of their average, which starts equal to them and follows after every optimizer step. It stops at
            the last step at which all was finite.
        finite: () bool on the device: whether every loss and gradient so far was a number. Reading it waits.
        steps: how many optimizer steps were made.
    """

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.flat = flattened(Weights.initial(recipe.h, recipe.weights_seed), device)
        self.ema = self.flat.clone()
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        self.steps = 0
        self.quantiser = FakeQuantiser(recipe.h, device, cut_largest=recipe.cut_largest)
        self.first_moment, self.second_moment = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.start_adam()

    def start_adam(self) -> None:
        """Adam with the two moments as they stand; at a step number of its own, which is `adam_steps`."""
        self.adam = torch.optim.Adam(
            [self.flat],
            lr=self.recipe.rate,
            betas=(self.recipe.beta1, self.recipe.beta2),
            eps=self.recipe.epsilon,
            fused=True,
        )
        self.adam.state[self.flat] = {
            "step": torch.zeros((), device=self.device),
            "exp_avg": self.first_moment,
            "exp_avg_sq": self.second_moment,
        }

    @property
    def adam_steps(self) -> Tensor:
        """() float32 on the device: by which Adam corrects its moments."""
        steps: Tensor = self.adam.state[self.flat]["step"]
        return steps

    def step(self, gradient: Tensor, rate: float, finite: Tensor) -> tuple[Tensor, Tensor]:
        """One optimizer step: clip, Adam, average.

        Args:
            gradient: (n,) of the loss with respect to `flat`; it is changed.
            rate: Adam's.
            finite: () bool on the device: whether the loss of this step is a number.

        Returns:
            The norm of the gradient before it was clipped, and the distance of the average from the weights after.
        """
        norm = torch.linalg.vector_norm(gradient)
        # As torch.nn.utils.clip_grad_norm_ has it.
        gradient.mul_((self.recipe.clip / (norm + 1e-6)).clamp(max=1.0))
        self.finite.logical_and_(finite).logical_and_(torch.isfinite(norm))
        self.flat.grad = gradient
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()
        self.flat.grad = None
        followed = self.ema * self.recipe.decay + self.flat * (1 - self.recipe.decay)
        torch.where(self.finite, followed, self.ema, out=self.ema)
        self.steps += 1
        return norm, torch.linalg.vector_norm(self.flat - self.ema)

    def weights(self) -> Weights:
        """A copy of the weights on the host.

        Raises:
            WeightsRefused: one is not finite.
        """
        return unflattened(self.flat, self.recipe.h)

    def averaged(self) -> Weights:
        """A copy of their average on the host: what is shipped, after it is quantised."""
        return unflattened(self.ema, self.recipe.h)


def views(flat: Tensor, h: int) -> dict[str, Tensor]:
    """The six tensors by name, sharing the memory of the vector."""
    found, at = {}, 0
    for name, shape in shapes(h).items():
        size = int(np.prod(shape))
        part = flat[at : at + size]
        found[name] = part if len(shape) == 1 else part.view(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)
        at += size
    return found


def flattened(weights: Weights, device: torch.device) -> Tensor:
    """The vector of such weights."""
    flat = torch.empty(weights.count())
    _fill(flat, weights.tensors(), weights.h)
    return flat.to(device)


def unflattened(flat: Tensor, h: int) -> Weights:
    """The weights that a vector holds, copied to the host.

    Raises:
        WeightsRefused: one is not finite.
    """
    found = views(flat.detach().cpu(), h)
    return Weights.of({name: np.array(tensor.numpy(), order="C") for name, tensor in found.items()})


def _fill(flat: Tensor, tensors: Mapping[str, np.ndarray], h: int) -> None:
    for name, view in views(flat, h).items():
        view.copy_(torch.from_numpy(tensors[name].copy()))
