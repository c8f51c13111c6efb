"""A drift training in numbers. Light: the kind makes one to check its parameters."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Variant(StrEnum):
    """What is trained. FULL is the drifting model; the others are there to be worse."""

    FULL = "full"
    ATTRACTION_ONLY = "attraction-only"
    OVER_REPULSION = "over-repulsion"
    UNTRAINED = "untrained"

    @property
    def gains(self) -> tuple[float, float]:
        """(of the attraction, of the repulsion)."""
        return {Variant.ATTRACTION_ONLY: (1.0, 0.0), Variant.OVER_REPULSION: (1.0, 1.5)}.get(self, (1.0, 1.0))


@dataclass(frozen=True)
class Recipe:
    """See `jobs.drift_kinds.train.DriftTrainParams` for what each number is.

    Attributes:
        steps: of the optimizer, 0 for the untrained network.
    """

    variant: Variant
    encoder: str
    steps: int
    seed: int
    encoder_seed: int
    autoencoder_steps: int
    temperatures: tuple[float, ...]
    pixel_weight: float
    samples: int
    positives: int
    unconditional: int
    groups: int
    alpha_least: float
    alpha_greatest: float
    alpha_power: float
    queue: int
    queue_all: int
    queue_push: int
    rate: float
    scheduler: str
    warmup_steps: int
    weight_decay: float
    clip: float
    ema: float
    noise: int
    hidden: int
    depth: int
    threads: int
    device: str

    def words(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "variant": str(self.variant), "temperatures": list(self.temperatures)}
