"""The kind `dose-train`: a learned arm of the dose study, or one of its three controls.

    lab run dose-train --set arm=pinn --set epochs=40 --input data=FOLDER --input views=FOLDER

`epochs=0` is the untrained network, `arm=mean` the mean of the training object everywhere, `arm=physics` the network's
fixed first layer by itself: no weights, each frame's estimate averaged over its group. A golden is promoted by a
person: `lab fetch JOB -o out`, then `--set golden=out/artifacts/model.json`; for a study see `jobs.dose.guard`.

This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from core.errors import BadInput
from core.kind import Context, Kind, Params

if TYPE_CHECKING:
    import pyarrow as pa

    from jobs.dose.recipe import Recipe

DATA, VIEWS, GOLDEN = "data", "views", "golden"  # names of its inputs: two folders, and a file that may be missing
TABLE, TIME = "dose_training", "dose_training_time"
FIXED = ("mean", "physics")  # arms without a network
_OF_NETWORKS = ("backend", "width", "frames_per_step", "frames_per_epoch", "rate", "clip", "checkpoint_epochs")


class DoseTrainParams(Params):
    """See each field."""

    arm: Literal["pinn", "supervised", "mean", "physics"] = Field(
        "pinn", description="mean, physics: controls without weights"
    )
    backend: Literal["tensorflow", "torch"] = Field("tensorflow", description="what Keras runs on")
    epochs: int = Field(40, ge=0, description="of frames_per_epoch frames each; 0: the untrained network, a control")
    seed: int = Field(42, ge=0, lt=2**31, description="of the first weights, the order and the photons held back")
    width: int = Field(16, ge=2, le=256, multiple_of=2, description="channels after the first halving")
    frames_per_step: int = Field(16, ge=1, le=4096, description="groups in a batch times their members")
    frames_per_epoch: int = Field(128, ge=1, description="an epoch is so many frames, however many there are")
    rate: float = Field(3e-3, gt=0, description="Adam's at the start; it falls to 0 as a cosine")
    clip: float = Field(1.0, gt=0, description="the largest norm of a step's gradient")
    held_back: float = Field(0.3, ge=0, lt=1, description="pinn: part of the photons it is judged by and not shown")
    background: float = Field(0.01, gt=0, description="pinn: photons a pixel that come from nowhere")
    checkpoint_epochs: int = Field(10, ge=1, description="epochs from one checkpoint to the next")
    tolerance: float = Field(0.25, ge=0, description="how much above its golden a loss may be, in parts of it")
    golden: str | None = Field(None, description="model.json of a good training of the same condition [none]")

    @field_validator("golden")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        return None if value is None else str(Path(value).expanduser().absolute())

    @model_validator(mode="before")
    @classmethod
    def _without_epochs(cls, given: Any) -> Any:
        # One control has one key, whether it is said that there is nothing to train or not.
        return {"epochs": 0, **given} if isinstance(given, dict) and given.get("arm") in FIXED else given

    @model_validator(mode="after")
    def _goes_together(self) -> DoseTrainParams:
        if self.frames_per_epoch < self.frames_per_step:
            raise ValueError(f"an epoch of {self.frames_per_epoch} frames has no step of {self.frames_per_step}")
        idle = {
            **dict.fromkeys(("held_back", "background"), self.arm != "pinn"),
            **dict.fromkeys((*_OF_NETWORKS, "tolerance", "golden"), self.arm in FIXED),
        }
        if self.arm in FIXED and self.epochs:
            raise ValueError(f"epochs means nothing with arm={self.arm}: leave it out")
        for name in (n for n, is_idle in idle.items() if is_idle):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} means nothing with arm={self.arm}: leave it out")
        return self

    @property
    def name(self) -> str:
        """Of the arm or control."""
        return "untrained" if self.arm not in FIXED and self.epochs == 0 else self.arm

    def recipe(self) -> Recipe:
        """The training in numbers; of an arm without a network there is none, and this is an empty one."""
        from dataclasses import fields

        from jobs.dose.recipe import Recipe

        own = {f.name: getattr(self, f.name) for f in fields(Recipe) if f.name in type(self).model_fields}
        return Recipe(**{**own, "arm": "pinn" if self.arm in FIXED else self.arm})


class DoseTrain(Kind):
    """See the module."""

    name: ClassVar[str] = "dose-train"
    summary: ClassVar[str] = (
        "a learned arm of the dose study (PINN, supervised), or a control: untrained, mean, physics"
    )
    Params: ClassVar[type[Params]] = DoseTrainParams
    code: ClassVar[tuple[str, ...]] = (
        "core",
        "kernels.devices",
        *(f"kernels.diffraction.{name}" for name in ("dose", "grouping", "overlap", "seeds", "views")),
        "kernels.translation",
        *(f"jobs.dose.{name}" for name in ("architecture", "controls", "data_schema", "dataset", "guard", "learned")),
        "jobs.dose.losses",
        *(f"jobs.dose.{name}" for name in ("network", "network_oracle", "npz", "recipe", "reconstruction", "samples")),
        *(f"jobs.dose.{name}" for name in ("shim_tensorflow", "shim_torch", "stitching", "training", "views_run")),
        "jobs.dose_kinds.train",
        "jobs.dose_kinds.views",
    )
    packages: ClassVar[tuple[str, ...]] = ("numpy", "scipy", "keras", "tensorflow", "torch")
    described: ClassVar[tuple[str, ...]] = ("arm", "epochs", "seed")

    def tables(self) -> dict[str, pa.Schema]:
        import pyarrow as pa

        def column(name: str, kind: Any, *, may_miss: bool = False) -> pa.Field:
            return pa.field(name, kind, nullable=may_miss)

        schema = pa.schema(
            [
                column("arm", pa.string()),  # pinn, supervised, untrained, mean, physics
                column("photons", pa.float64(), may_miss=True),  # a pattern, asked for
                column("view", pa.string(), may_miss=True),
                column("gridsize", pa.int64()),
                column("seed", pa.int64()),
                column("status", pa.string()),  # trained, untrained, control
                column("epochs_done", pa.int64()),
                column("steps", pa.int64()),
                column("final_loss", pa.float64(), may_miss=True),  # of all training groups; pinn: nats a pixel
                column("bundle_sha256", pa.string(), may_miss=True),
                column("backend", pa.string(), may_miss=True),  # really loaded
                column("backend_version", pa.string(), may_miss=True),
                column("guard", pa.bool_(), may_miss=True),  # held against its golden
            ],
            metadata={"lab.headline": "arm,photons,view,gridsize,status,epochs_done,final_loss"},
        )
        # Apart from the other, which the same seed makes equal on any lane.
        time = pa.schema(
            [
                column("arm", pa.string()),
                column("threads", pa.int64()),
                column("process", pa.int64()),  # its number: each training has one of its own
                column("steps", pa.int64()),  # of this attempt
                column("resumed_at", pa.int64(), may_miss=True),  # the step that it went on from
                column("seconds", pa.float64()),  # of this attempt
            ],
            metadata={"lab.headline": "arm,threads,process,steps,seconds"},
        )
        return {TABLE: schema, TIME: time}

    def describe(self, params: DoseTrainParams) -> str:
        return f"{params.name}, {params.epochs} epochs, seed {params.seed}, {params.backend}"

    def inputs(self, params: DoseTrainParams) -> dict[str, Path]:
        if params.golden is None:
            return {}
        path = Path(params.golden)
        if not path.is_file():
            raise BadInput(f"golden={path} is no file", hint="give the model.json of a good training")
        return {GOLDEN: path}

    def run(self, ctx: Context) -> None:
        from jobs.dose.learned import run

        run(ctx)
