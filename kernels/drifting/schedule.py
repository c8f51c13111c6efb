"""What follows from a step's number and from chance: rates, guidance, and the average of the weights."""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from kernels.devices import KernelRefused


class Scheduler(StrEnum):
    """How the rate goes over a training.

    NONE: always the same. CONSTANT: up in a straight line over the warm-up, then always the same. COSINE: down as half
    a cosine from the first step on. WARMUP_COSINE: up over the warm-up, then down.
    """

    NONE = "none"
    CONSTANT = "constant"
    COSINE = "cosine"
    WARMUP_COSINE = "warmup_cosine"

    @property
    def warms_up(self) -> bool:
        return self in (Scheduler.CONSTANT, Scheduler.WARMUP_COSINE)


def rate_of(step: int, steps: int, *, rate: float, scheduler: Scheduler, warmup: int = 0, last: float = 0.0) -> float:
    """The rate of a step.

    Args:
        step: from 0. steps: of the training. warmup: steps of it; counts for those schedulers that warm up.
        last: part of the rate that a cosine ends at.

    Raises:
        KernelRefused: the step is not one of the training.
    """
    if not 0 <= step < steps:
        raise KernelRefused(f"step {step} is not one of {steps}")
    before = warmup if scheduler.warms_up else 0
    if step < before:
        return rate * (step + 1) / before
    if scheduler in (Scheduler.NONE, Scheduler.CONSTANT):
        return rate
    along = (step - before) / max(1, steps - before)
    return rate * (last + (1 - last) * 0.5 * (1 + math.cos(math.pi * along)))


def alphas(
    uniform: npt.ArrayLike, *, power: float = 3.0, least: float = 1.0, greatest: float = 4.0
) -> npt.NDArray[np.float64]:
    """Strengths of guidance with p(alpha) ∝ alpha^-power on [least, greatest], from uniform numbers in [0, 1).

    By the inverse of the distribution function.

    Raises:
        KernelRefused: the range is empty, or reaches below 1.
    """
    if not 1 <= least <= greatest:
        raise KernelRefused(f"alpha from {least} to {greatest} is no range of guidance: it begins at 1 or above")
    u = np.asarray(uniform, np.float64)
    found: npt.NDArray[np.float64]
    if math.isclose(power, 1.0):
        found = least * (greatest / least) ** u
    else:
        low, high = least ** (1 - power), greatest ** (1 - power)
        found = (low + u * (high - low)) ** (1 / (1 - power))
    return found


def unconditional_weight(alpha: npt.ArrayLike, negatives: int, unconditional: int) -> npt.NDArray[np.float64]:
    """w = (alpha-1)·(N_neg-1)/N_unc: what an unconditional real sample counts among the negatives.

    So that the negatives of a sample, itself left out, are 1/alpha samples and 1-1/alpha unconditional ones.

    Raises:
        KernelRefused: there are no unconditional ones, or fewer than two samples.
    """
    if unconditional < 1 or negatives < 2:
        raise KernelRefused(f"{unconditional} unconditional samples among {negatives} negatives have no weight")
    found: npt.NDArray[np.float64] = (np.asarray(alpha, np.float64) - 1) * (negatives - 1) / unconditional
    return found
