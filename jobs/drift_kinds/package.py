"""The kind `drift-package`: what a claim about a drifting model stands on, as one tree of ordinary jobs.

    lab submit drift-package --wait
    lab submit drift-package --set profile=proxy --set steps=200 --wait    # quick; a claim on it stays at smoke
    lab submit drift-package --set unconditional=0 --wait                  # alpha without effect: it is labelled inert

The last checkpoints, a sweep over alpha for each seed, the claimed alpha with its audits, and the untrained control.
State the claim first (`lab claim new`): a rule that was there before the results is worth more than one after them.
This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from core.kind import Kind, Params
from core.study import Study
from jobs.drift_kinds.ablation import once
from jobs.drift_kinds.source import SourceParams, counted

GREATEST = 4.0  # alpha that a training sees


class PackageParams(SourceParams):
    """See each field."""

    encoder: Literal["raw", "tiny", "autoencoder"] = Field("raw", description="of the training")
    seeds: list[int] = Field([1, 2, 3], min_length=1, max_length=100, description="the first is the claimed one")
    unconditional: int = Field(16, ge=0, le=4096, description="real images of any class among the negatives; 0: inert")
    scheduler: Literal["none", "constant", "cosine", "warmup_cosine"] = Field(
        "warmup_cosine", description="of the rate"
    )
    last: int = Field(3, ge=1, le=100, description="checkpoints at the end that are evaluated, of the first seed")
    alphas: list[float] = Field([1.0, 1.5, 2.0], min_length=1, description="the sweep, for each seed")
    alpha: float = Field(1.5, ge=1, le=GREATEST, description="that is claimed; one of the sweep")
    n: int = Field(1000, ge=20, le=1_000_000, description="samples of each evaluation")

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: list[int]) -> list[int]:
        return once(value, "a seed")

    @field_validator("alphas")
    @classmethod
    def _alphas(cls, value: list[float]) -> list[float]:
        if len(set(value)) < len(value):
            raise ValueError("an alpha is named twice")
        wrong = [a for a in value if not 1 <= a <= GREATEST]
        if wrong:
            raise ValueError(f"alpha {wrong[0]:g} is none that a training sees: give 1 to {GREATEST:g}")
        return value

    @model_validator(mode="after")
    def _claimed(self) -> PackageParams:
        if self.alpha not in self.alphas:
            raise ValueError(f"alpha={self.alpha:g} is claimed and is not in alphas: add it there")
        return self


class DriftPackage(Kind):
    """See the module."""

    name: ClassVar[str] = "drift-package"
    summary: ClassVar[str] = "a study: a drifting model over seeds, its sweep over alpha, its control, and its audits"
    Params: ClassVar[type[Params]] = PackageParams

    def describe(self, params: PackageParams) -> str:
        alphas = ", ".join(f"{a:g}" for a in params.alphas)
        return (
            f"{params.named}, {params.profile}, {params.encoder}, {counted(len(params.seeds), 'seed')}, alpha {alphas}"
        )

    def study(self, params: PackageParams) -> Study:
        """The tree.

        Raises:
            BadInput: the source cannot be used.
        """
        from jobs.drift.package_tree import package_tree

        return package_tree(params)
