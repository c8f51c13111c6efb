"""What a comparison is handed: reconstructions of all arms, what is missing and why, and how much light fell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.kind import Context
from jobs.dose.absent import why_absent
from jobs.dose.conditions import ARMS, CONTROLS, TRAIN_HALF
from jobs.dose.reconstruction import Reconstruction
from jobs.dose.region import Rectangle
from jobs.dose_kinds.compare import (
    DATA,
    HALVES,
    OTHERS,
    RECONSTRUCTION,
    REFERENCE,
    SEEN,
    TRUTH,
    TRUTH_FILE,
    CompareParams,
)

ABSENT = "no reconstruction came: its job failed or was not run"


@dataclass(frozen=True)
class Exposure:
    """What the frames of a view amount to. `per_pixel`: photons, mean over the region; `drawn`: mean a frame."""

    frames: int | None = None
    drawn: float | None = None
    per_pixel: float | None = None


@dataclass(frozen=True)
class Given:
    """What a job was handed. `missing` and `unreadable`: arm -> why; `data`: the folder of the data set, if any.

    `apart`: why the two halves cannot be compared, where both came.
    """

    reference: Reconstruction
    against: str
    arms: Mapping[str, Reconstruction]
    missing: Mapping[str, str]
    unreadable: Mapping[str, str]
    halves: tuple[Reconstruction, Reconstruction] | None
    data: Path | None
    notes: tuple[str, ...] = field(default=())
    apart: str = ""

    @property
    def names(self) -> list[str]:
        """All arms that get a row, in the order of the study."""
        known = {*self.arms, *self.missing, *self.unreadable}
        return [name for name in (*ARMS, *OTHERS, *CONTROLS, TRAIN_HALF) if name in known]

    def train_half(self) -> Given | None:
        """The training half by itself, if it came or should have."""
        found = self._only(lambda name: name == TRAIN_HALF)
        return replace(found, apart="") if found.names else None

    def without_train_half(self) -> Given:
        """All that is of one part of the object."""
        return self._only(lambda name: name != TRAIN_HALF)

    def _only(self, wanted: Callable[[str], bool]) -> Given:
        return replace(
            self,
            arms={k: v for k, v in self.arms.items() if wanted(k)},
            missing={k: v for k, v in self.missing.items() if wanted(k)},
            unreadable={k: v for k, v in self.unreadable.items() if wanted(k)},
        )


def gather(ctx: Context) -> Given:
    """Read all inputs. An arm that is absent or cannot be read is a row and no end.

    Raises:
        BadInput: neither truth nor reference, or both; or one of them cannot be read.
    """
    p: CompareParams = ctx.params

    def folder(name: str) -> Path | None:
        return ctx.input(name) if ctx.has_input(name) else None

    data = folder(TRUTH)
    truth = data / TRUTH_FILE if data is not None and (data / TRUTH_FILE).is_file() else None
    full = folder(REFERENCE)
    if (truth is None) == (full is None):
        said = "both a truth and a reference" if truth is not None else "neither a truth nor a reference"
        raise BadInput(
            f"{p.condition}: there is {said}",
            hint=f"give --input {TRUTH}=FOLDER with {TRUTH_FILE}, or, for a measured set, "
            f"--input {REFERENCE}=FOLDER with the full dose's {RECONSTRUCTION}",
        )
    arms, missing, unreadable = {}, {}, {}
    for name in (*ARMS, *OTHERS, *CONTROLS, TRAIN_HALF):
        where = folder(name)
        if where is None:
            if name in (ARMS if p.arms is None else p.arms):
                missing[name] = ": ".join(w for w in (ABSENT, why_absent(ctx, name)) if w)
            continue
        try:
            arms[name] = _of(p, name, _read(where))
        except BadInput as error:
            unreadable[name] = error.message
    pair, apart = _halves(ctx)
    notes = (not_compared(apart),) if apart else ()
    for note in notes:
        ctx.log(note)
    reference = Reconstruction.load(truth) if truth is not None else _read(full or Path())
    against = TRUTH if truth is not None else REFERENCE
    return Given(reference, against, arms, missing, unreadable, pair, data or folder(DATA), notes, apart)


def exposure_of(given: Given, views: Path | None, region: Rectangle, which: str) -> Exposure:
    """Frames, photons a frame and photons a pixel of the region, as far as data and views say.

    Args:
        which: whose frames: a name of `SEEN`.

    Raises:
        BadInput: a file of them cannot be read.
    """
    from jobs.dose.dataset import Dataset
    from jobs.dose.views_run import Groups
    from kernels.diffraction.fluence import photons_per_pixel

    frames, groups = SEEN[which]
    if given.data is None or views is None or not (given.data / frames).is_file():
        return Exposure()
    data = Dataset.load(given.data / frames)
    members = Groups.load(views / groups, data.count).frames
    drawn = data.meta.get("photons_drawn")
    if not isinstance(drawn, (int, float)):
        return Exposure(frames=len(members))
    lit = photons_per_pixel(
        data.probe_guess,
        data.x[members],
        data.y[members],
        float(drawn),
        origin=(region.top, region.left),
        shape=(region.height, region.width),
    )
    return Exposure(len(members), float(drawn), float(lit.mean()))


def _halves(ctx: Context) -> tuple[tuple[Reconstruction, Reconstruction] | None, str]:
    """The two halves, or why they cannot be compared; neither, where none was given."""
    absent = [name for name in HALVES if not ctx.has_input(name)]
    why = [": ".join(w for w in (f"{name} is missing", why_absent(ctx, name)) if w) for name in absent]
    if absent:
        told = any(why_absent(ctx, name) for name in absent)
        return None, "; ".join(why) if told or len(absent) == 1 else ""
    first, second = (ctx.input(name) for name in HALVES)
    try:
        return (_read(first), _read(second)), ""
    except BadInput as error:
        return None, error.message


def not_compared(why: str) -> str:
    return f"the two halves are not compared: {why}"


def _read(where: Path) -> Reconstruction:
    """Of a job's folder, or the file itself."""
    return Reconstruction.load(where / RECONSTRUCTION if where.is_dir() else where)


def _of(p: CompareParams, name: str, given: Reconstruction) -> Reconstruction:
    """The same, if it is not of another condition, as far as it says of which it is.

    Raises:
        BadInput: it is of another.
    """
    wanted: dict[str, Any] = {"photons": p.photons, "view": p.view, "gridsize": p.gridsize, "seed": p.seed}
    if name not in (*OTHERS, TRAIN_HALF):  # those have the name of what they are a variant of
        wanted["arm"] = name
    if name == TRAIN_HALF:
        wanted["split"] = "train"
    other = [f"{k}={given.meta[k]!r}, not {v!r}" for k, v in wanted.items() if given.meta.get(k) not in (None, v)]
    if other:
        raise BadInput(f"it is a reconstruction of {'; '.join(other)}", hint="give that of this arm and condition")
    return given
