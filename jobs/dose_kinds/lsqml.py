"""The kind `dose-lsqml`: one iterative reconstruction of the frames of a view, from a flat object.

    lab run dose-lsqml --input data=DATA --input views=VIEWS --set split=test
    lab run dose-lsqml --input data=DATA                        # every frame of a measured set

Inputs: `data`, the folder of a dose-data; `views`, of a dose-views (without it every frame is taken).
This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from core.kind import Context, Kind, Params

if TYPE_CHECKING:
    import pyarrow as pa

DATA, VIEWS = "data", "views"  # names of its inputs
RECONSTRUCTION = "reconstruction.npz"


class DoseLsqmlParams(Params):
    """See each field."""

    split: Literal["train", "test"] = Field("test", description="which half of the scan; a measured set has train")
    engine: Literal["lean", "ptychi"] = Field("lean", description="lean: our own; ptychi: in a process of its own")
    python: str | None = Field(None, description="the interpreter that has ptychi [this one]; engine=ptychi")
    epochs: int = Field(100, ge=1, le=100_000, description="each frame once an epoch")
    batch: int | None = Field(None, ge=1, le=4096, description="frames of a minibatch [a third of them, at most 512]")
    seed: int = Field(42, ge=0, description="of the order of the frames")
    start: Literal["flat", "guess"] = Field("flat", description="guess: objectGuess; refused if it is like the truth")
    refine_probe: bool = Field(True, description="the probe moves too, from the data set's probeGuess")
    axes: Literal["check", "allow"] = Field(
        "check", description="check: fails where the data say that x and y are swapped; allow: says so and goes on"
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="cuda needs --gpus 1")
    checkpoint_epochs: int = Field(25, ge=1, description="epochs from one checkpoint to the next; engine=lean")

    @field_validator("python")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        # Not resolved: a virtual environment's interpreter is a link, and what it has hangs on the link's own path.
        return None if value is None else str(Path(value).expanduser().absolute())

    @model_validator(mode="after")
    def _goes_together(self) -> DoseLsqmlParams:
        idle = ("python",) if self.engine == "lean" else ("checkpoint_epochs",)
        fields = type(self).model_fields
        for name in idle:
            if getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} means nothing with engine={self.engine}: leave it out")
        return self


class DoseLsqml(Kind):
    """See the module."""

    name: ClassVar[str] = "dose-lsqml"
    summary: ClassVar[str] = "an iterative ptychographic reconstruction (LSQML) of one view, from a flat object"
    Params: ClassVar[type[Params]] = DoseLsqmlParams
    code: ClassVar[tuple[str, ...]] = (
        "core",
        "kernels.devices",
        "kernels.jit",
        *(f"kernels.diffraction.{name}" for name in ("dose", "grouping", "lsqml", "overlap", "seeds", "views")),
        *(f"jobs.dose.{name}" for name in ("axes", "data_schema", "dataset", "engines", "lsqml_run", "npz")),
        *(f"jobs.dose.{name}" for name in ("ptychi_engine", "ptychi_process", "reconstruction", "starts", "views_run")),
        "jobs.dose_kinds.lsqml",
        "jobs.dose_kinds.views",
    )
    packages: ClassVar[tuple[str, ...]] = ("numpy", "torch", "numba")
    described: ClassVar[tuple[str, ...]] = ("engine", "split", "epochs")

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.dose.lsqml_run import DOSE_LSQML, DOSE_LSQML_TIME

        return {"dose_lsqml": DOSE_LSQML, "dose_lsqml_time": DOSE_LSQML_TIME}

    def describe(self, params: DoseLsqmlParams) -> str:
        return f"{params.engine}, {params.split}, {params.epochs} epochs, seed {params.seed}"

    def run(self, ctx: Context) -> None:
        from jobs.dose.lsqml_run import run

        run(ctx)
