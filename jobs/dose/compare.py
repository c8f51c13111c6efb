"""The comparison of one condition: every arm aligned to the same reference, cut to the same part, and measured.

One pipeline for all (`measure`): trained arms, the iterative one and the controls. Nothing here knows which is which.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput, JobFailed
from core.fsio import write_atomic
from core.kind import Context
from jobs.dose.compare_rows import aligned_arrays, frc_rows, metric_rows, metrics_document
from jobs.dose.npz import write_npz
from jobs.dose.reconstruction import Reconstruction
from jobs.dose.region import Rectangle, compared, cut
from jobs.dose_kinds.compare import (
    ALIGNED,
    ARMS,
    CONTROLS,
    CURVES,
    DATA,
    HALVES,
    METRICS,
    OBJECTS,
    OTHERS,
    RECONSTRUCTION,
    REFERENCE,
    SEEN,
    TRUTH,
    TRUTH_FILE,
    VIEWS,
    CompareParams,
)
from kernels.devices import KernelRefused
from kernels.diffraction.frc import Curve
from kernels.diffraction.holes import align_seen, correlation_seen, similarity_seen
from kernels.diffraction.registration import Alignment
from kernels.diffraction.similarity import Similarity

ABSENT = "no reconstruction came: its job failed or was not run"


@dataclass(frozen=True)
class Measured:
    """One arm on the common region.

    Attributes:
        aligned: before the region was trimmed. object: complex128, after.
    """

    aligned: Alignment
    object: npt.NDArray[np.complex128]
    similarity: Similarity
    curve: Curve


@dataclass(frozen=True)
class Comparison:
    """What came of all arms.

    Attributes:
        region: that is compared, after trimming. trimmed: pixels along each border, for the longest shift of any arm.
        reference: complex128, the same region.
        arms: measured ones by name. failed: name -> why it cannot be compared.
        halves: the correlation of the two halves, both aligned like an arm, or None.
        seen: bool, the same region: pixels that all cover; None: all of it.
    """

    region: Rectangle
    trimmed: int
    reference: npt.NDArray[np.complex128]
    arms: Mapping[str, Measured]
    failed: Mapping[str, str]
    halves: Curve | None = None
    seen: npt.NDArray[np.bool_] | None = None

    @property
    def part_seen(self) -> float:
        """Of the region's pixels."""
        return 1.0 if self.seen is None else float(self.seen.mean())


@dataclass(frozen=True)
class Exposure:
    """What the frames of a view amount to. `per_pixel`: photons, mean over the region; `drawn`: mean a frame."""

    frames: int | None = None
    drawn: float | None = None
    per_pixel: float | None = None


@dataclass(frozen=True)
class Given:
    """What a job was handed. `missing` and `unreadable`: arm -> why; `data`: the folder of the data set, if any."""

    reference: Reconstruction
    against: str
    arms: Mapping[str, Reconstruction]
    missing: Mapping[str, str]
    unreadable: Mapping[str, str]
    halves: tuple[Reconstruction, Reconstruction] | None
    data: Path | None
    notes: tuple[str, ...] = field(default=())

    @property
    def names(self) -> list[str]:
        """All arms that get a row, in the order of the study."""
        known = {*self.arms, *self.missing, *self.unreadable}
        return [name for name in (*ARMS, *OTHERS, *CONTROLS) if name in known]


def measure(
    arms: Mapping[str, Reconstruction],
    reference: Reconstruction,
    *,
    halves: tuple[Reconstruction, Reconstruction] | None = None,
    blur: float = 1.0,
    window: float = 0.5,
    cap: float = 4.0,
    least_side: int = 32,
) -> Comparison:
    """Align every arm with the reference on the region that all cover, trim all alike, and compare.

    The region is a rectangle; a sparse view leaves holes in it, see `kernels.diffraction.holes`.

    Args:
        blur: of the amplitude before MS-SSIM, pixels. window: alpha of the Tukey window. cap: of a shift, pixels.
        least_side: of the region, in pixels.

    Raises:
        JobFailed: no arm can be compared, or what all cover together is smaller than `least_side`.
        KernelRefused: the reference is flat or zero.
    """
    failed: dict[str, str] = {}
    alone: dict[str, Rectangle] = {}
    for name, arm in arms.items():
        alone[name], _ = compared([reference, arm])
        if alone[name].side < least_side:
            failed[name] = (
                f"what it covers of the reference holds no rectangle with sides of {least_side} pixels: the largest is "
                f"{alone[name].words()}"
            )
    able = {name: arm for name, arm in arms.items() if name not in failed}
    if not able:
        raise JobFailed(_none(failed), hint="look at the jobs of the arms: lab show ID")
    box, seen = compared([reference, *able.values(), *(halves or ())])
    if box.side < least_side:
        each = "; ".join(f"{name}: {alone[name].words()}" for name in able)
        raise JobFailed(
            f"the arms cover no rectangle of {least_side} pixels together, the largest is {box.words()} ({each})",
            hint="compare fewer arms, or lower least_side",
        )

    def part(given: Reconstruction) -> npt.NDArray[np.complex128]:
        return np.asarray(cut(given.object, given.origin, box), dtype=np.complex128)

    target = part(reference)
    aligned: dict[str, Alignment] = {}
    for name, arm in able.items():
        try:
            aligned[name] = align_seen(part(arm), target, seen, cap=cap, alpha=window)
        except KernelRefused as error:
            failed[name] = str(error)
    if not aligned:
        raise JobFailed(_none(failed), hint="look at the jobs of the arms: lab show ID")
    both = [align_seen(part(half), target, seen, cap=cap, alpha=window) for half in halves or ()]
    trimmed = max((_reach(a) for a in (*aligned.values(), *both)), default=0)
    region = box.trimmed(trimmed)

    def trim(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.ascontiguousarray(image[trimmed : trimmed + region.height, trimmed : trimmed + region.width])

    still, left = trim(target), trim(seen)
    found: dict[str, Measured] = {}
    for name, alignment in aligned.items():
        mine = trim(alignment.object)
        found[name] = Measured(
            alignment,
            mine,
            similarity_seen(mine, still, left, sigma=blur),
            correlation_seen(mine, still, left, alpha=window),
        )
    between = correlation_seen(trim(both[0].object), trim(both[1].object), left, alpha=window) if both else None
    return Comparison(region, trimmed, still, found, failed, between, None if left.all() else left)


def run(ctx: Context) -> None:
    """Compare, write tables, `metrics.json`, `aligned.npz` and the figures.

    Raises:
        BadInput: neither truth nor reference, or both.
        JobFailed: no arm can be compared.
    """
    p: CompareParams = ctx.params
    given = gather(ctx)
    count = len(given.names) + (given.halves is not None)
    ctx.expect(rows={"dose_metrics": count}, artifacts=[METRICS, ALIGNED, OBJECTS, CURVES])
    for name, why in {**given.missing, **given.unreadable}.items():
        ctx.log(f"{name}: {why}")
    if not given.arms:
        raise JobFailed(_none({**given.missing, **given.unreadable}), hint="look at the jobs of the arms: lab show ID")
    try:
        found = measure(
            given.arms,
            given.reference,
            halves=given.halves,
            blur=p.blur,
            window=p.window,
            cap=p.shift_cap,
            least_side=p.least_side,
        )
    except KernelRefused as error:
        raise JobFailed(f"{p.condition}: {error}", hint=f"look at the {given.against}") from None
    ctx.log(f"compared: {found.region.words()}, {found.trimmed} trimmed along each border for shifts")
    exposure = exposure_of(given, ctx.input(VIEWS) if ctx.has_input(VIEWS) else None, found.region)
    ctx.progress(1, 2, "figures")
    rows, rings = metric_rows(p, given, found, exposure), frc_rows(p, found)
    ctx.results("dose_metrics", rows)
    ctx.results("dose_frc", rings)
    write_npz(ctx.artifact(ALIGNED), aligned_arrays(found, given.against))
    document = metrics_document(p, given, found, exposure, rows, rings)
    text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_atomic(ctx.artifact(METRICS), text.encode())
    from jobs.dose.figures import curves_figure, objects_figure  # matplotlib, only once the numbers are there

    objects_figure(ctx.artifact(OBJECTS), p.condition, found, rows)
    curves_figure(ctx.artifact(CURVES), p.condition, found, rows)
    ctx.progress(2, 2)


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
    for name in (*ARMS, *OTHERS, *CONTROLS):
        where = folder(name)
        if where is None:
            if name in (ARMS if p.arms is None else p.arms):
                missing[name] = ABSENT
            continue
        try:
            arms[name] = _of(p, name, _read(where))
        except BadInput as error:
            unreadable[name] = error.message
    halves = [folder(name) for name in HALVES]
    pair = None if halves[0] is None or halves[1] is None else (_read(halves[0]), _read(halves[1]))
    notes: tuple[str, ...] = ()
    if pair is None and any(halves):
        notes = ("one of the two halves is missing: they are not compared",)
        ctx.log(notes[0])
    reference = Reconstruction.load(truth) if truth is not None else _read(full or Path())
    against = TRUTH if truth is not None else REFERENCE
    return Given(reference, against, arms, missing, unreadable, pair, data or folder(DATA), notes)


def exposure_of(given: Given, views: Path | None, region: Rectangle) -> Exposure:
    """Frames, photons a frame and photons a pixel of the region, as far as data and views say.

    Raises:
        BadInput: a file of them cannot be read.
    """
    from jobs.dose.dataset import Dataset
    from jobs.dose.views_run import Groups
    from kernels.diffraction.fluence import photons_per_pixel

    frames, groups = SEEN[given.against]
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


def _read(where: Path) -> Reconstruction:
    """Of a job's folder, or the file itself."""
    return Reconstruction.load(where / RECONSTRUCTION if where.is_dir() else where)


def _of(p: CompareParams, name: str, given: Reconstruction) -> Reconstruction:
    """The same, if it is not of another condition, as far as it says of which it is.

    Raises:
        BadInput: it is of another.
    """
    wanted: dict[str, Any] = {"photons": p.photons, "view": p.view, "gridsize": p.gridsize, "seed": p.seed}
    if name not in OTHERS:  # those have the name of what they are a variant of
        wanted["arm"] = name
    other = [f"{k}={given.meta[k]!r}, not {v!r}" for k, v in wanted.items() if given.meta.get(k) not in (None, v)]
    if other:
        raise BadInput(f"it is a reconstruction of {'; '.join(other)}", hint="give that of this arm and condition")
    return given


def _reach(aligned: Alignment) -> int:
    """How many pixels along the border are no data once the shift is undone."""
    return math.ceil(max(abs(aligned.shift.x), abs(aligned.shift.y))) if aligned.shift.applied else 0


def _none(why: Mapping[str, str]) -> str:
    return "no arm can be compared: " + ("; ".join(f"{name}: {reason}" for name, reason in why.items()) or "none given")
