"""The kind `dose`: the whole dose study as a tree of ordinary jobs.

    lab submit dose --set size=small --wait            # synthetic: three arms, three controls, with a truth
    lab submit dose --set data=siemens-star.npz.bz2    # measured: thinned counts against the full dose

This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from core.kind import Kind, Params
from core.study import Study

_SYNTHETIC = ("size", "source", "views", "gridsizes", "arms", "pinn_epochs", "supervised_epochs", "goldens")
_MEASURED = ("scan_order", "dc")


class DoseParams(Params):
    """See each field. Constants of the set are in `jobs.dose.design`."""

    size: Literal["small", "seed", "tiny"] = Field(
        "small", description="which set of constants: small (N=64, two cores), seed (N=128), tiny (a quick try)"
    )
    source: str | None = Field(
        None, description="an NPZ of yours: its object, probe and scan are simulated at each dose [two photographs]"
    )
    data: str | None = Field(None, description="a measured set (NPZ) to thin, in place of the synthetic study")
    doses: list[float] | None = Field(None, description="only these, photons a pattern [all of the set]")
    views: list[str] | None = Field(None, description="only these: baseline, dense, sparse [all]")
    gridsizes: list[int] | None = Field(None, description="only views of these gridsizes [all]")
    arms: list[str] | None = Field(None, description="only these: pinn, supervised, lsqml [all]")
    seeds: list[int] | None = Field(None, description="of the simulation, one repetition each [the set's]")
    pinn_epochs: int | None = Field(None, ge=1, description="of the PINN [as the set says]")
    supervised_epochs: int | None = Field(None, ge=1, description="of the supervised baseline [as the set says]")
    goldens: str | None = Field(
        None, description="a folder with CONDITION_ARM.json: the model.json that a training is held against [none]"
    )
    lsqml_epochs: int = Field(100, ge=1, description="of the iterative reconstructions")
    engine: Literal["lean", "ptychi"] = Field("lean", description="of the iterative reconstructions")
    python: str | None = Field(None, description="the interpreter that has ptychi [the lane's]; with engine=ptychi")
    scan_order: Literal["yx", "xy"] = Field("yx", description="columns of a measured scan; with data")
    dc: Literal["corner", "centre"] = Field("corner", description="where measured counts have DC; with data")

    @field_validator("data", "source", "python", "goldens")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        return None if value is None else str(Path(value).expanduser().absolute())

    @model_validator(mode="after")
    def _goes_together(self) -> DoseParams:
        if self.python is not None and self.engine != "ptychi":
            raise ValueError("python means nothing without engine=ptychi: leave it out")
        idle, where = (_SYNTHETIC, "for") if self.data is not None else (_MEASURED, "without")
        fields = type(self).model_fields
        for name in idle:
            if getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} means nothing {where} a measured set (data=FILE): leave it out")
        return self


def iterative(params: DoseParams) -> dict[str, Any]:
    """What every dose-lsqml of the study is given."""
    python = {} if params.python is None else {"python": params.python}
    return {"epochs": params.lsqml_epochs, "engine": params.engine, **python}


class Dose(Kind):
    """See the module."""

    name: ClassVar[str] = "dose"
    summary: ClassVar[str] = "quality of ptychographic reconstructions against dose: PINN, supervised, LSQML"
    Params: ClassVar[type[Params]] = DoseParams

    def describe(self, params: DoseParams) -> str:
        return f"size {params.size}" if params.data is None else f"thinned counts of {Path(params.data).name}"

    def study(self, params: DoseParams) -> Study:
        """The tree.

        Raises:
            BadInput: a filter matches nothing, nothing of the design is feasible, or there is no such file.
        """
        if params.data is not None:
            from jobs.dose.measured_tree import measured_tree

            return measured_tree(params)
        from jobs.dose.tree import synthetic_tree

        return synthetic_tree(params)
