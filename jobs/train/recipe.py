"""The recipe of a training: every value that decides its course, the rate of each epoch, and which pairs it sees. Pure.

Everything follows from the recipe and the number of the step alone, so a training that is resumed anywhere goes on as
if it had never been interrupted. The defaults are the seed's; `DEVIATIONS` says where one is not.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, fields

import numpy as np

WARMUP_EPOCHS = 5
FLOOR_RATE = 0.02  # of the base rate, at the end
# Options whose default here is not what the seed did, and why.
DEVIATIONS = {
    "divide_by_own_length": "the last, short group of an epoch is a mean over its own pairs; the seed divided it by 4",
    "cut_largest": "every weight trains; the seed cut the gradient where |q| >= 127, so each tensor's largest did not",
}
_NAME = re.compile(r"long([1-9][0-9]*)_qat_ema_alpha([0-9]+(?:\.[0-9]+)?(?:e-[0-9]+)?)_h([1-9][0-9]*)")


class RecipeRefused(ValueError):
    """A value of the recipe cannot be used; the message names it."""


@dataclass(frozen=True)
class Recipe:
    """What decides the course of a training.

    Attributes:
        epochs: E; 500 for `long500`, 1000 for `long1000`.
        alpha: how far saliency takes the weight off the `sal` term: 1 / (1 + alpha·saliency).
        h: hidden channels of the filter.
        pairs: of frames that there are; `pairs_per_epoch`: that an epoch sees.
        group: pairs whose gradients make one step; the last group of an epoch may be shorter.
        divide_by_own_length: a short group is a mean over its own pairs; False divides it by `group`, as the seed did.
        rate: Adam's, before the schedule. `beta1`, `beta2`, `epsilon`: Adam's. There is no weight decay.
        clip: the largest Euclidean norm that a gradient keeps.
        decay: of the average of the weights: average = decay·average + (1 - decay)·weights after every step.
        cut_largest: the gradient is cut where |q| >= 127, as the seed did.
        sal_both_frames: the `sal` term is over both frames of a pair; False is over the second only, as in the seed.
        sal_weight, seg_weight, pose_weight, pose_epsilon: of the loss; see `objective`.
        seed: of the permutations; `weights_seed`: of the first weights.
    """

    epochs: int = 500
    alpha: float = 20.0
    h: int = 16
    pairs: int = 600
    pairs_per_epoch: int = 75
    group: int = 4
    divide_by_own_length: bool = True
    rate: float = 5e-4
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip: float = 0.5
    decay: float = 0.997
    cut_largest: bool = False
    sal_both_frames: bool = False
    sal_weight: float = 0.1
    seg_weight: float = 100.0
    pose_weight: float = 10.0
    pose_epsilon: float = 1e-8
    seed: int = 0
    weights_seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, field.type, getattr(self, field.name))
        if self.pairs_per_epoch > self.pairs:
            raise RecipeRefused(
                f"an epoch cannot see {self.pairs_per_epoch} of {self.pairs} pairs: make pairs_per_epoch at most pairs"
            )

    @property
    def name(self) -> str:
        """`long500_qat_ema_alpha20_h32`."""
        return branch_name(self.epochs, self.alpha, self.h)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.pairs_per_epoch // self.group)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training: 9,500 for 500 epochs of 75 pairs."""
        return self.epochs * self.steps_per_epoch

    def where(self, step: int) -> tuple[int, int]:
        """(epoch, place in it) of the step with this number, both from 0."""
        return divmod(step, self.steps_per_epoch)

    def groups(self, epoch: int) -> list[tuple[int, ...]]:
        """The pairs of each step of an epoch: the first of a fresh permutation of all pairs."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.pairs)[: self.pairs_per_epoch]
        return [tuple(int(i) for i in order[at : at + self.group]) for at in range(0, len(order), self.group)]

    def pairs_of(self, step: int) -> tuple[int, ...]:
        """The pairs whose gradients make the step with this number, from 0."""
        epoch, place = self.where(step)
        return self.groups(epoch)[place]

    def divisor(self, pairs: int) -> int:
        """By what the sum of the gradients of a group of so many pairs is divided."""
        return pairs if self.divide_by_own_length else self.group

    def rate_of(self, step: int) -> float:
        """Adam's rate at the step with this number, from 0; the same for all steps of an epoch."""
        return self.rate * factor(self.where(step)[0], self.epochs)

    def digest(self) -> str:
        """SHA-256 of every value."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def factor(epoch: int, epochs: int) -> float:
    """By what the base rate is multiplied in this epoch (from 0): five epochs up, then half a cosine down to 0.02."""
    if epoch < WARMUP_EPOCHS:
        return (epoch + 1) / WARMUP_EPOCHS
    p = (epoch - WARMUP_EPOCHS) / (epochs - WARMUP_EPOCHS)
    return (1 - FLOOR_RATE) * 0.5 * (1 + math.cos(math.pi * p)) + FLOOR_RATE


def branch_name(epochs: int, alpha: float, h: int) -> str:
    """`long500_qat_ema_alpha20_h32`."""
    return f"long{epochs}_qat_ema_alpha{format(alpha, '.15g') if alpha < 1e15 else int(alpha)}_h{h}"


def branch_of(name: str) -> tuple[int, float, int]:
    """(epochs, alpha, h) of a branch's name.

    Raises:
        ValueError: it is no such name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no branch: they are called like long500_qat_ema_alpha20_h32")
    return int(match[1]), float(match[2]), int(match[3])


# The least and the greatest value; None: there is none. Both may be reached, but for those in _OPEN.
_RANGES: dict[str, tuple[float, float | None]] = {
    "epochs": (1, None),
    "alpha": (0, None),
    "h": (1, 4096),
    "pairs": (1, None),
    "pairs_per_epoch": (1, None),
    "group": (1, None),
    "rate": (0, None),
    "beta1": (0, 1),
    "beta2": (0, 1),
    "epsilon": (0, None),
    "clip": (0, None),
    "decay": (0, 1),
    "sal_weight": (0, None),
    "seg_weight": (0, None),
    "pose_weight": (0, None),
    "pose_epsilon": (0, None),
    "seed": (0, 2**63 - 1),
    "weights_seed": (0, 2**63 - 1),
}
# Ends that may not be reached: a rate of 0 trains nothing, a decay of 1 averages nothing, and so on. An epsilon of 0
# makes the slope of the root infinite where both frames have one pose.
_OPEN = {
    ("rate", 0),
    ("clip", 0),
    ("epsilon", 0),
    ("pose_epsilon", 0),
    ("beta1", 1),
    ("beta2", 1),
    ("decay", 1),
}


def _check(name: str, kind: object, value: object) -> None:
    if kind == "bool":
        if not isinstance(value, bool):
            raise RecipeRefused(f"{name} is {value!r}: say true or false")
        return
    numbers = (int,) if kind == "int" else (int, float)
    if isinstance(value, bool) or not isinstance(value, numbers) or not math.isfinite(value):
        raise RecipeRefused(f"{name} is {value!r}: it must be a {'whole' if kind == 'int' else 'finite'} number")
    least, most = _RANGES[name]
    low = value <= least if (name, least) in _OPEN else value < least
    high = most is not None and (value >= most if (name, most) in _OPEN else value > most)
    if low or high:
        above = f"{'above' if (name, least) in _OPEN else 'at least'} {least:g}"
        below = "" if most is None else f" and {'below' if (name, most) in _OPEN else 'at most'} {most:g}"
        raise RecipeRefused(f"{name} is {value!r}: it must be {above}{below}")
