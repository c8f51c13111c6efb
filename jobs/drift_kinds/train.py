"""The kind `drift-train`: a one-step generator, trained by drifting; or one of the variants that must do worse.

    lab run drift-train --input data=FOLDER                         # the artifacts of a drift-data job
    lab run drift-train --set variant=attraction-only --input data=FOLDER
    lab run drift-train --set encoder=autoencoder --set scheduler=cosine --input data=FOLDER

`unconditional=0` takes the guidance away: alpha is then a number that the network is given and that nothing follows
from. This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from core.kind import Context, Kind, Params
from jobs.drift.train_files import CONFIG as CONFIG
from jobs.drift.train_files import MODEL as MODEL

if TYPE_CHECKING:
    import pyarrow as pa

    from jobs.drift.train_recipe import Recipe

DATA, EXTRACTOR = "data", "extractor"  # names of its inputs: folders
STEPS_TABLE, TRAINING_TABLE = "drift_steps", "drift_training"


class DriftTrainParams(Params):
    """See each field."""

    variant: Literal["full", "attraction-only", "over-repulsion", "untrained"] = Field(
        "full", description="over-repulsion: 1.5 times; untrained: no step; both and attraction-only are controls"
    )
    encoder: Literal["raw", "tiny", "autoencoder", "extractor"] = Field(
        "raw", description="of features; extractor: that of the evaluation, which no claim allows (input extractor)"
    )
    steps: int | None = Field(None, ge=0, le=1_000_000, description="of the optimizer [400; untrained: 0]")
    seed: int = Field(0, ge=0, lt=2**31, description="of the first weights, the noise, the queues and alpha")
    real: Literal["data", "noise"] = Field("data", description="noise: train on noise in place of the data, a control")

    temperatures: list[float] = Field([0.02, 0.05, 0.2], min_length=1, description="τ, in parts of the mean distance")
    pixel_weight: float = Field(1.0, ge=0, description="of the term on raw pixels; each encoder's features weigh 1")
    samples: int = Field(32, ge=2, le=4096, description="generated images of a group, each other's negatives")
    positives: int = Field(32, ge=1, le=4096, description="real images of a group's class")
    unconditional: int = Field(16, ge=0, le=4096, description="real images of any class among the negatives")
    groups: int = Field(10, ge=1, le=1000, description="classes at a step, each with an alpha; at most all there are")
    alpha_least: float = Field(1.0, ge=1, description="alpha is drawn from here")
    alpha_greatest: float = Field(4.0, ge=1, description="to here")
    alpha_power: float = Field(3.0, ge=0, description="with a density of alpha to the minus this")
    queue: int = Field(64, ge=1, description="real images that wait for each class")
    queue_all: int = Field(512, ge=1, description="real images that wait for the unconditional ones")
    queue_push: int = Field(32, ge=1, description="real images that come in at a step")

    rate: float = Field(1e-3, gt=0, description="AdamW's, before the schedule")
    scheduler: Literal["none", "constant", "cosine", "warmup_cosine"] = Field(
        "warmup_cosine", description="none: always the rate; constant: after a warm-up; cosine: without one"
    )
    warmup_steps: int | None = Field(None, ge=0, description="up to the rate [a twentieth of the steps]")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's")
    clip: float = Field(2.0, gt=0, description="the largest norm of a step's gradient")
    ema: float = Field(0.995, ge=0, lt=1, description="decay of the average of the weights, which is the model")

    noise: int = Field(32, ge=1, le=4096, description="numbers of ε")
    hidden: int = Field(192, ge=4, le=4096, multiple_of=2, description="width of the generator's blocks")
    depth: int = Field(3, ge=1, le=32, description="how many blocks")
    encoder_seed: int = Field(0, ge=0, lt=2**31, description="of the encoder's weights")
    autoencoder_steps: int = Field(400, ge=1, le=1_000_000, description="of the autoencoder's own training")

    checkpoint_steps: int = Field(100, ge=1, description="steps from one checkpoint to the next")
    last_checkpoints: int = Field(1, ge=1, le=1000, description="averages of so many last ones are artifacts models/")
    row_steps: int = Field(10, ge=1, description="steps from one row of the table to the next")
    threads: int = Field(1, ge=1, le=256, description="of torch; other numbers may give other bits")
    device: Literal["cpu", "cuda"] = Field("cpu", description="cuda needs --gpus 1; equal bits are promised on cpu")

    @model_validator(mode="after")
    def _goes_together(self) -> DriftTrainParams:
        untrained = self.variant == "untrained"
        if untrained and self.steps:
            raise ValueError("variant=untrained makes no step: leave steps out")
        if self.steps == 0 and not untrained:
            raise ValueError("steps=0 is variant=untrained: say so")
        if any(not 0 < tau < 100 for tau in self.temperatures):
            raise ValueError(f"temperatures are {self.temperatures}: give positive ones, in parts of the mean distance")
        if self.alpha_greatest < self.alpha_least:
            raise ValueError(f"alpha from {self.alpha_least} to {self.alpha_greatest} is no range")
        idle = {
            "warmup_steps": self.scheduler in ("none", "cosine"),
            "autoencoder_steps": self.encoder != "autoencoder",
            "encoder_seed": self.encoder not in ("tiny", "autoencoder"),
            "queue_all": not self.unconditional,
        }
        for name in (n for n, is_idle in idle.items() if is_idle):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} means nothing with the other parameters that are given: leave it out")
        if self.warmup_steps is not None and self.warmup_steps > self.planned:
            raise ValueError(f"a warm-up of {self.warmup_steps} steps is longer than the training of {self.planned}")
        return self

    @property
    def planned(self) -> int:
        """Steps of the optimizer."""
        if self.variant == "untrained":
            return 0
        return 400 if self.steps is None else self.steps

    @property
    def checkpoints(self) -> list[int]:
        """After which steps there is a checkpoint."""
        return [*range(self.checkpoint_steps, self.planned, self.checkpoint_steps), self.planned]

    @property
    def models(self) -> dict[int, str]:
        """Steps of the last checkpoints, and the artifacts that are their averages."""
        return {step: f"models/step-{step:06d}.npz" for step in self.checkpoints[-self.last_checkpoints :]}

    @property
    def row_at(self) -> list[int]:
        """After which steps the table has a row."""
        if not self.planned:
            return []
        return [*range(self.row_steps, self.planned, self.row_steps), self.planned]

    def recipe(self) -> Recipe:
        """The training in numbers."""
        from dataclasses import fields

        from jobs.drift.train_recipe import Recipe, Variant

        warmup = self.warmup_steps
        if self.scheduler in ("none", "cosine"):
            warmup = 0
        elif warmup is None:
            warmup = self.planned // 20
        own = {f.name: getattr(self, f.name) for f in fields(Recipe) if f.name in type(self).model_fields}
        more = {
            "variant": Variant(self.variant),
            "steps": self.planned,
            "warmup_steps": warmup,
            "temperatures": tuple(self.temperatures),
        }
        return Recipe(**{**own, **more})


class DriftTrain(Kind):
    """See the module."""

    name: ClassVar[str] = "drift-train"
    summary: ClassVar[str] = "a one-step generator of small images trained by drifting, or a variant that must do worse"
    Params: ClassVar[type[Params]] = DriftTrainParams
    code: ClassVar[tuple[str, ...]] = (
        "core",
        "kernels.devices",
        *(f"kernels.drifting.{name}" for name in ("field", "kernel", "schedule", "torch_field")),
        "jobs.dose.npz",
        *(f"jobs.drift.{name}" for name in ("dataset", "digests", "encoders", "generator", "training")),
        *(f"jobs.drift.train_{name}" for name in ("files", "given", "queue", "recipe", "run", "state")),
        "jobs.drift_kinds.train",
    )
    packages: ClassVar[tuple[str, ...]] = ("torch", "numpy")
    needs: ClassVar[Mapping[str, Any]] = {"cores": 1}
    described: ClassVar[tuple[str, ...]] = ("variant", "encoder", "seed")

    def tables(self) -> dict[str, pa.Schema]:
        import pyarrow as pa

        def column(name: str, kind: pa.DataType, *, may_miss: bool = False) -> pa.Field:
            return pa.field(name, kind, nullable=may_miss)

        steps = pa.schema(
            [
                column("step", pa.int64()),  # from 1: made so far
                column("loss", pa.float64()),  # of all features, normalised: it hardly falls
                column("loss_pixel", pa.float64()),  # the raw pixel term of it
                column("lr", pa.float64()),
                column("negatives_per_group", pa.int64()),  # of a sample
                column("alpha_mean", pa.float64()),
                column("unconditional_weight_mean", pa.float64()),  # 0: alpha is without effect
                column("drift_norm", pa.float64()),  # RMS pixel drift in parts of the mean distance, before λ
                column("gradient_norm", pa.float64()),
                column("finite", pa.bool_()),  # this and all steps before
                column("variant", pa.string()),
                column("encoder", pa.string()),
                column("seed", pa.int64()),
            ],
            metadata={"lab.headline": "step,loss,loss_pixel,lr,drift_norm,finite"},
        )
        training = pa.schema(
            [
                column("variant", pa.string()),
                column("encoder", pa.string()),
                column("seed", pa.int64()),
                column("real", pa.string()),  # data or noise
                column("steps_planned", pa.int64()),
                column("steps_done", pa.int64()),
                column("unconditional", pa.int64()),
                column("scheduler", pa.string()),
                column("drift_norm", pa.float64(), may_miss=True),  # mean over the last tenth of the steps
                column("encoder_error", pa.float64(), may_miss=True),  # of the autoencoder on masked images
                column("model_sha256", pa.string()),  # of model.npz
                column("config_sha256", pa.string()),
                column("data_sha256", pa.string()),
                column("training_encoder_sha256", pa.string(), may_miss=True),
                column("resumed_at", pa.int64(), may_miss=True),  # the step that this attempt went on from
                column("device", pa.string()),
                column("threads", pa.int64()),
                column("seconds", pa.float64()),  # of this attempt
            ],
            metadata={"lab.headline": "variant,encoder,seed,steps_done,drift_norm,model_sha256,seconds"},
        )
        return {STEPS_TABLE: steps, TRAINING_TABLE: training}

    def describe(self, params: DriftTrainParams) -> str:
        real = ", on noise" if params.real == "noise" else ""
        return f"{params.variant}, {params.encoder}, {params.planned} steps, seed {params.seed}{real}"

    def run(self, ctx: Context) -> None:
        from jobs.drift.train_run import run

        run(ctx)
