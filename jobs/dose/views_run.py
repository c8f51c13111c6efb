"""What `dose-views` does, and its files read again."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from core.fsio import write_atomic
from core.kind import Context
from jobs.dose.dataset import Dataset
from jobs.dose.npz import read_npz, write_npz
from jobs.dose_kinds.views import DATA, DoseViewsParams
from kernels.diffraction import seeds
from kernels.diffraction.overlap import overlaps
from kernels.diffraction.views import Feasibility, View, feasible, select_view, spacing_of

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Groups:
    """Groups of one split, as they stand in a file.

    Attributes:
        members: int32 (g, C), indices into the split's frames.
        centres: float64 (g, 2), (x, y).
    """

    members: npt.NDArray[np.int32]
    centres: npt.NDArray[np.float64]

    @property
    def frames(self) -> npt.NDArray[np.int32]:
        """The frames that are in a group, each once, rising."""
        return np.unique(self.members)

    def save(self, path: Path) -> None:
        write_npz(path, {"members": self.members, "centres": self.centres})

    @classmethod
    def load(cls, path: Path, frames: int) -> Groups:
        """Read them.

        Args:
            frames: that the split has.

        Raises:
            BadInput: it is no such file, or it belongs to other frames.
        """
        arrays = read_npz(path)
        hint = "it is written by dose-views, from the same dose-data"
        for key in ("members", "centres"):
            if key not in arrays:
                raise BadInput(f"{path} has no {key!r}", hint=hint)
        members, centres = arrays["members"], arrays["centres"]
        if members.dtype != np.int32 or members.ndim != 2 or not members.size:
            raise BadInput(f"{path}: members: expected int32 (g, C), found {members.dtype} {members.shape}", hint=hint)
        if centres.dtype != np.float64 or centres.shape != (len(members), 2):
            expected = f"float64 {(len(members), 2)}"
            raise BadInput(f"{path}: centres: expected {expected}, found {centres.dtype} {centres.shape}", hint=hint)
        if members.min() < 0 or members.max() >= frames:
            found = f"{members.min()} to {members.max()}"
            raise BadInput(f"{path}: members: expected frames 0 to {frames - 1}, found {found}", hint=hint)
        return cls(members, centres)


def make(ctx: Context) -> None:
    """The groups of each split that the data has, and a row for each.

    Raises:
        BadInput: a split has too few groups: the view is infeasible; with the numbers.
    """
    params: DoseViewsParams = ctx.params
    folder = ctx.input(DATA)
    splits = [s for s in SPLITS if (folder / f"{s}.npz").is_file()]
    if not splits:
        raise BadInput(f"{folder} has no train.npz", hint="give the artifacts of a dose-data")
    ctx.expect(rows={"dose_spacing": len(splits)}, artifacts=[*(f"{s}_groups.npz" for s in splits), "spacing.json"])
    rows, whys = [], []
    for name in splits:
        data = Dataset.load(folder / f"{name}.npz")
        view = view_of(data.x, data.y, data.size, name, params)
        verdict = feasible(view, params.least)
        rows.append(row_of(view, verdict, data, name, params))
        if not verdict.ok:
            whys.append(f"{name}: {verdict.why}")
            continue
        Groups(view.members, view.centres).save(ctx.artifact(f"{name}_groups.npz"))
    write_atomic(ctx.artifact("spacing.json"), (json.dumps(rows, indent=1, sort_keys=True) + "\n").encode())
    ctx.results("dose_spacing", rows)
    if whys:
        raise BadInput(
            f"the view {params.view} is infeasible: {'; '.join(whys)}", hint="scan more, or ask for more overlap"
        )


def view_of(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], size: int, split: str, params: DoseViewsParams
) -> View:
    """The view of one split, from its positions alone."""
    return select_view(
        x,
        y,
        spacing=spacing_of(params.overlap, size),
        neighbours=params.neighbours,
        members=params.gridsize**2,
        grouping=seeds.grouping_chance(params.seed, split),
        subsampling=seeds.subsampling_chance(params.subsampling_seed, split),
        per_point=params.per_point,
    )


def row_of(view: View, verdict: Feasibility, data: Dataset, split: str, params: DoseViewsParams) -> dict[str, Any]:
    """What the table says of one split."""
    told, frames = view.spacing, np.unique(view.members)
    disc = params.disc * data.size
    shared = overlaps(data.x, data.y, view.members, view.centres, params.neighbours, disc)
    pixels = disc_pixels(data.x[frames], data.y[frames], disc)
    photons = int(data.select(frames).counts().sum()) if "scale" in data.meta and len(frames) else None
    return {
        "view": params.view,
        "split": split,
        "gridsize": params.gridsize,
        "overlap": params.overlap,
        "neighbours": params.neighbours,
        "per_point": params.per_point,
        "feasible": verdict.ok,
        "groups": verdict.groups,
        "least_groups": verdict.least,
        "frames": data.count,
        "frames_used": len(frames),
        **{name: _number(getattr(told, name)) for name in ("least", "mean", "median", "most")},
        "threshold": told.threshold,
        "accepted": told.accepted,
        "rejected": told.rejected,
        "rate": told.rate,
        "edges": list(told.edges),
        "histogram": list(told.histogram),
        "disc": disc,
        "overlap_in_group": _number(shared.in_group),
        "overlap_neighbours": _number(shared.neighbours),
        "overlap_centres": _number(shared.centres),
        "disc_pixels": pixels,
        "photons_per_pixel": None if photons is None or not pixels else photons / pixels,
    }


def disc_pixels(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], diameter: float) -> int:
    """Pixels whose middle lies in the disc of at least one frame."""
    if not len(x):
        return 0
    reach = math.ceil(diameter / 2) + 1
    left, top = math.floor(x.min()) - reach, math.floor(y.min()) - reach
    seen = np.zeros((math.ceil(y.max()) + reach - top + 1, math.ceil(x.max()) + reach - left + 1), dtype=bool)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    for px, py in zip(x, y, strict=True):
        column, row = math.floor(px), math.floor(py)
        inside = (columns + column - px) ** 2 + (rows + row - py) ** 2 <= (diameter / 2) ** 2
        part = seen[row - top - reach : row - top + reach + 1, column - left - reach : column - left + reach + 1]
        part |= inside
    return int(seen.sum())


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
