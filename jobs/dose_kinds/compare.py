"""The kind `dose-compare`: all arms of one condition against the truth, or against a full-dose reconstruction.

    lab run dose-compare --input truth=DATA --input views=VIEWS --input lsqml=FOLDER --set condition=d1000_dense_gs2_s42

Inputs are folders. Those that must be there: `truth` (of a dose-data job, with truth.npz) or, for a measured set,
`reference` (with reconstruction.npz of the full dose). Those that may be missing: every arm, every control, the pair
`half_a`, `half_b` of reconstructions from disjoint halves of the counts, `lsqml_train` (LSQML on the training half of a
simulation: another part of the object, measured by itself), and, to count photons by the pixel, `views` and for a
measured set `data` (of a dose-data job; `truth` is one already).

This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from core.kind import Context, Kind, Params, Question
from jobs.dose.conditions import ARMS, CONTROLS, TRAIN_HALF

if TYPE_CHECKING:
    import pyarrow as pa

# Inputs besides those of the arms.
TRUTH, REFERENCE, DATA, VIEWS, HALVES = "truth", "reference", "data", "views", ("half_a", "half_b")
# A folder that is given for one of these is compared too.
OTHERS = ("ptychi", "untrained_pinn", "untrained_supervised")
# What a folder of a reconstruction must hold, and artifacts of this kind.
RECONSTRUCTION, TRUTH_FILE = "reconstruction.npz", "truth.npz"
# (frames, groups) that the compared arms saw: of a simulation the test half, of a measured set all of it.
SEEN = {TRUTH: ("test.npz", "test_groups.npz"), REFERENCE: ("train.npz", "train_groups.npz")}
SEEN[TRAIN_HALF] = SEEN[REFERENCE]
METRICS, ALIGNED, OBJECTS, CURVES = "metrics.json", "aligned.npz", "objects.png", "frc.png"


class CompareParams(Params):
    """See each field."""

    condition: str = Field(min_length=1, description="its name, e.g. d1000_dense_gs2_s42")
    photons: float = Field(gt=0, description="asked for, mean a pattern")
    view: str = Field(min_length=1, description="baseline, dense or sparse")
    gridsize: int = Field(ge=1, description="a group has gridsize² members")
    seed: int = Field(description="of the condition")
    arms: list[str] | None = Field(
        None, min_length=1, description="those that there must be; a missing one is a row with its reason [all three]"
    )
    blur: float = Field(1.0, ge=0, description="sigma, pixels, of the Gaussian on the amplitude before MS-SSIM")
    frc_threshold: float = Field(0.5, gt=0, lt=1, description="at which the ring correlation is cut")
    window: float = Field(0.5, ge=0, le=1, description="alpha of the Tukey window for registration and FRC")
    shift_cap: float = Field(4.0, ge=0, le=16, description="pixels; a longer shift is recorded and not applied")
    least_side: int = Field(32, ge=16, description="pixels; a smaller common region is refused")

    @field_validator("arms")
    @classmethod
    def _known(cls, value: list[str] | None) -> list[str] | None:
        known = (*ARMS, *CONTROLS, *OTHERS, TRAIN_HALF)
        for name in value or ():
            if name not in known:
                raise ValueError(f"no arm is called {name!r}: there are {', '.join(known)}")
        if value is not None and len(set(value)) < len(value):
            raise ValueError("an arm is named twice")
        return value


class DoseCompare(Kind):
    """See the module."""

    name: ClassVar[str] = "dose-compare"
    summary: ClassVar[str] = "all arms of one condition, aligned alike and measured: MS-SSIM, SSIM, FRC, errors"
    Params: ClassVar[type[Params]] = CompareParams
    code: ClassVar[tuple[str, ...]] = (
        "core",
        "kernels.devices",
        *(f"kernels.diffraction.{name}" for name in ("dose", "fluence", "frc", "grouping", "holes", "overlap")),
        *(f"kernels.diffraction.{name}" for name in ("registration", "seeds", "similarity", "views", "windows")),
        *(f"jobs.dose.{name}" for name in ("absent", "compare", "compare_inputs", "compare_rows", "compare_tables")),
        *(f"jobs.dose.{name}" for name in ("conditions", "data_schema", "dataset")),
        *(f"jobs.dose.{name}" for name in ("figures", "npz", "reconstruction", "region", "views_run")),
        "jobs.dose_kinds.compare",
        "jobs.dose_kinds.views",
    )
    packages: ClassVar[tuple[str, ...]] = (
        "numpy",
        "scipy",
        "scikit-image",
        "torch",
        "pytorch-msssim",
        "matplotlib",
    )
    described: ClassVar[tuple[str, ...]] = ("condition",)

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.dose.compare_tables import FRC, TABLE_METRICS

        return {"dose_metrics": TABLE_METRICS, "dose_frc": FRC}

    def questions(self) -> Mapping[str, Question]:
        return {
            "arms": Question(
                "every arm at every condition, mean over the seeds at which it was registered",
                "SELECT photons, view, gridsize, arm, count(ms_ssim_phase) AS seeds, "
                "avg(ms_ssim_phase) AS ms_ssim_phase, avg(ssim_phase) AS ssim_phase, avg(frc50) AS frc50, "
                "avg(relative_error) AS relative_error FROM dose_metrics WHERE {jobs} "
                "AND (control OR shift_state IS NULL OR shift_state NOT LIKE 'over the cap%') "
                "GROUP BY ALL ORDER BY photons, view, gridsize, arm",
            ),
            "doubts": Question(
                "arms that are missing, failed or flagged, and why",
                "SELECT job, condition, arm, status, reason, flags FROM dose_metrics WHERE {jobs} "
                "AND (status <> 'measured' OR flags <> '') ORDER BY job, arm",
            ),
        }

    def describe(self, params: CompareParams) -> str:
        return params.condition

    def run(self, ctx: Context) -> None:
        from jobs.dose.compare import run

        run(ctx)
