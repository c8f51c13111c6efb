"""The kind `dose-views`: which groups of a dataset's frames the arms of one condition are given.

    lab run dose-views --set view=dense --set overlap=0.7 --set gridsize=2 --input data=FOLDER

This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from core.kind import Context, Kind, Params

if TYPE_CHECKING:
    import pyarrow as pa

DATA = "data"  # name of its input, the folder of a dose-data


class DoseViewsParams(Params):
    """See each field."""

    view: str = Field("baseline", min_length=1, max_length=64, description="what the view is called")
    overlap: float | None = Field(None, ge=0, lt=1, description="f: centres (1-f)·N apart at least; null: all groups")
    gridsize: int = Field(1, ge=1, le=4, description="a group has its square of members")
    neighbours: int = Field(7, ge=1, description="K, of which the members are chosen")
    per_point: int = Field(1, ge=1, description="groups of each point; more than one needs K > C")
    disc: float = Field(0.6, gt=0, description="diameter of the disc by which overlap is told, patterns' sides")
    least: int = Field(16, ge=1, description="groups that each split needs")
    seed: int = Field(123, ge=0, description="of the choice of members")
    subsampling_seed: int = Field(456, ge=0, description="of the choice of groups")

    @model_validator(mode="after")
    def _goes_together(self) -> DoseViewsParams:
        members = self.gridsize**2
        if members > 1 and members > self.neighbours:
            raise ValueError(f"groups of {members} cannot be chosen from neighbours={self.neighbours}")
        if self.per_point > 1 and (members == 1 or self.neighbours <= members):
            raise ValueError(f"per_point={self.per_point} needs neighbours above the {members} members of a group")
        return self


class DoseViews(Kind):
    """See the module."""

    name: ClassVar[str] = "dose-views"
    summary: ClassVar[str] = "groups of neighbouring frames for one view of a dataset, and how far apart they lie"
    Params: ClassVar[type[Params]] = DoseViewsParams
    code: ClassVar[tuple[str, ...]] = (
        "core",
        *(f"kernels.diffraction.{name}" for name in ("dose", "grouping", "overlap", "seeds", "views")),
        *(f"jobs.dose.{name}" for name in ("data_schema", "dataset", "npz", "views_run")),
        "jobs.dose_kinds.views",
    )
    packages: ClassVar[tuple[str, ...]] = ("numpy",)
    described: ClassVar[tuple[str, ...]] = ("view", "gridsize", "seed")

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.dose.data_schema import DOSE_SPACING

        return {"dose_spacing": DOSE_SPACING}

    def describe(self, params: DoseViewsParams) -> str:
        return f"{params.view}, gridsize {params.gridsize}, seed {params.seed}"

    def run(self, ctx: Context) -> None:
        from jobs.dose.views_run import make

        make(ctx)
