"""The kind `drift-ablation`: variants of the drifting model side by side, those that must do badly among them.

    lab submit drift-ablation --wait
    lab submit drift-ablation --set source=PICTURES --set side=16 --set seeds=[0,1] --wait

This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator

from core.errors import BadInput
from core.kind import Kind, Params
from core.study import Study
from jobs.drift_kinds.source import SourceParams, counted, filtered

# Name -> parameters of drift-train. The order is that of the tables.
VARIANTS: dict[str, dict[str, str]] = {
    "raw": {},
    "tiny": {"encoder": "tiny"},
    "autoencoder": {"encoder": "autoencoder"},
    "attraction-only": {"variant": "attraction-only"},
    "over-repulsion": {"variant": "over-repulsion"},
    "untrained": {"variant": "untrained"},
}
# These must be worse than `raw`, whose encoder they have.
CONTROLS = ("attraction-only", "over-repulsion", "untrained")


class AblationParams(SourceParams):
    """See each field."""

    variants: list[str] | None = Field(None, min_length=1, description=f"only these: {', '.join(VARIANTS)} [all]")
    seeds: list[int] = Field([0, 1, 2], min_length=1, max_length=100, description="of the trainings and the samples")
    n: int = Field(500, ge=20, le=1_000_000, description="samples of each evaluation")
    alpha: float = Field(1.5, ge=1, le=4, description="strength of guidance of the samples")

    @field_validator("seeds")
    @classmethod
    def _once(cls, value: list[int]) -> list[int]:
        return once(value, "a seed")


def once(values: list[int], what: str) -> list[int]:
    """Raises ValueError: one stands twice, or is negative."""
    if len(set(values)) < len(values):
        raise ValueError(f"{what} is named twice")
    if min(values) < 0:
        raise ValueError(f"{what} is negative")
    return values


def chosen(params: AblationParams) -> list[str]:
    """The variants that are asked for, in the order of the tables.

    Raises:
        BadInput: one is none.
    """
    if params.variants is None:
        return list(VARIANTS)
    return filtered("variants", params.variants, VARIANTS)


class DriftAblation(Kind):
    """See the module."""

    name: ClassVar[str] = "drift-ablation"
    summary: ClassVar[str] = "a study: variants of a drifting model, controls that must do badly, and what they reached"
    Params: ClassVar[type[Params]] = AblationParams

    def describe(self, params: AblationParams) -> str:
        try:
            count = len(chosen(params))
        except BadInput:
            count = 0
        return f"{params.named}, {counted(count, 'variant')} × {counted(len(params.seeds), 'seed')}"

    def study(self, params: AblationParams) -> Study:
        """The tree.

        Raises:
            BadInput: there is no such variant, or the source cannot be used.
        """
        from jobs.drift.ablation_tree import ablation_tree

        return ablation_tree(params)
