"""The one-step generator: noise, a class and a strength of guidance to an image. Small; any side and channel count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

# Mean and deviation of √(alpha-1), alpha-1 and log alpha under p(alpha) ∝ alpha⁻³ on [1, 4]. What alpha says is
# centred: numbers that are always positive take part in every bias, and an alpha that the loss never sees would seem
# to do something. The root, since a weight w counts as √w beside the softmax over samples.
_MEAN = (0.674, 0.6, 0.4076)
_SPREAD = (0.3818, 0.6304, 0.3367)


@dataclass(frozen=True)
class Architecture:
    """What a generator is made of.

    Attributes:
        height, width, channels: of an image. classes: how many.
        noise: numbers of ε. hidden: width of the blocks. depth: how many blocks.
    """

    height: int
    width: int
    channels: int
    classes: int
    noise: int = 32
    hidden: int = 256
    depth: int = 3

    def words(self) -> dict[str, int]:
        return asdict(self)


class _Block(nn.Module):
    """A residual block whose input is scaled and shifted by the condition."""

    def __init__(self, hidden: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.film = nn.Linear(condition, 2 * hidden)
        self.up = nn.Linear(hidden, hidden)
        self.down = nn.Linear(hidden, hidden)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, shift = self.film(condition).chunk(2, dim=-1)
        y = self.norm(x) * (1 + gain) + shift
        moved: Tensor = self.down(torch.nn.functional.silu(self.up(y)))
        return x + moved


class Generator(nn.Module):
    """f(ε, c, alpha). The first weights follow from the seed, and no other chance is used up."""

    def __init__(self, architecture: Architecture, *, seed: int = 0) -> None:
        super().__init__()
        self.architecture = a = architecture
        condition = a.hidden // 2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Linear(a.noise, a.hidden)
            self.label = nn.Embedding(a.classes, condition)
            self.guidance = nn.Linear(3, condition, bias=False)
            self.blocks = nn.ModuleList(_Block(a.hidden, condition) for _ in range(a.depth))
            self.norm = nn.LayerNorm(a.hidden)
            self.last = nn.Linear(a.hidden, a.height * a.width * a.channels)

    def forward(self, noise: Tensor, labels: Tensor, alpha: Tensor) -> Tensor:
        """Images in [-1, 1], (n, H, W, C), of ε (n, noise), classes (n,) and alpha (n,)."""
        a = self.architecture
        told = torch.stack([(alpha - 1).clamp(min=0).sqrt(), alpha - 1, alpha.log()], dim=-1)
        told = (told - told.new_tensor(_MEAN)) / told.new_tensor(_SPREAD)
        condition = torch.nn.functional.silu(self.label(labels)) + self.guidance(told)
        x = self.first(noise)
        for block in self.blocks:
            x = block(x, condition)
        flat = torch.tanh(self.last(self.norm(x)))
        return flat.reshape(-1, a.height, a.width, a.channels)


def weights_of(module: nn.Module) -> dict[str, npt.NDArray[Any]]:
    """All weights by name, copied."""
    return {name: value.detach().cpu().numpy().copy() for name, value in module.state_dict().items()}


def take_weights(module: nn.Module, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Put weights in.

    Raises:
        ValueError: names or shapes are not this module's.
    """
    own = module.state_dict()
    if set(own) != set(weights) or any(tuple(own[n].shape) != np.shape(v) for n, v in weights.items()):
        raise ValueError("these are weights of another network")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(torch.from_numpy(np.array(weights[name])))
