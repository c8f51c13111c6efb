"""The numbers of a training; light, so that parameters are checked by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """A training in numbers. Equal recipes on equal data and backend give equal weights.

    Attributes:
        frames_per_step: groups in a batch times their members.
        frames_per_epoch: an epoch is so many frames, however many there are: views with few frames are trained as long.
        rate: Adam's at the start; it falls to 0 as a cosine.
        clip: the largest norm of a step's gradient.
        held_back: part of the photons that a PINN is judged by and not shown; 0: it is shown all.
        background: photons a pixel, see `losses.poisson`.
    """

    arm: Literal["pinn", "supervised"]
    epochs: int
    seed: int
    frames_per_step: int = 16
    frames_per_epoch: int = 128
    rate: float = 3e-3
    clip: float = 1.0
    held_back: float = 0.3
    background: float = 0.01

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.frames_per_step < 1 or self.frames_per_epoch < self.frames_per_step:
            raise ValueError(
                f"epochs={self.epochs}, frames_per_step={self.frames_per_step} and "
                f"frames_per_epoch={self.frames_per_epoch}: an epoch has at least one step"
            )
        if not 0 <= self.held_back < 1 or not self.background > 0 or not self.rate > 0 or not self.clip > 0:
            raise ValueError("held_back is from 0 to below 1; background, rate and clip are positive")

    @property
    def steps_per_epoch(self) -> int:
        return self.frames_per_epoch // self.frames_per_step

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def batch(self, members: int) -> int:
        """Groups in a step."""
        return max(1, self.frames_per_step // members)
