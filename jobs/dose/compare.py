"""The comparison of one condition: every arm aligned to the same reference, cut to the same part, and measured.

One pipeline for all (`measure`): trained arms, the iterative one and the controls. Nothing here knows which is which.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import JobFailed
from core.fsio import write_atomic
from core.kind import Context
from jobs.dose.compare_inputs import Given, exposure_of, gather, not_compared
from jobs.dose.compare_rows import aligned_arrays, frc_rows, metric_rows, metrics_document
from jobs.dose.conditions import TRAIN_HALF
from jobs.dose.npz import write_npz
from jobs.dose.reconstruction import Reconstruction
from jobs.dose.region import NOTHING, Rectangle, compared, cut
from jobs.dose_kinds.compare import ALIGNED, CURVES, HALVES, METRICS, OBJECTS, VIEWS, CompareParams
from kernels.devices import KernelRefused
from kernels.diffraction.frc import Curve
from kernels.diffraction.holes import align_seen, correlation_seen, similarity_seen
from kernels.diffraction.registration import Alignment, Shifted
from kernels.diffraction.similarity import Similarity


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
        halves: the correlation of the two halves, both aligned like an arm, or None. apart: why there is none, though
            both were given.
        seen: bool, the same region: pixels that all cover; None: all of it.
    """

    region: Rectangle
    trimmed: int
    reference: npt.NDArray[np.complex128]
    arms: Mapping[str, Measured]
    failed: Mapping[str, str]
    halves: Curve | None = None
    seen: npt.NDArray[np.bool_] | None = None
    apart: str = ""

    @property
    def part_seen(self) -> float:
        """Of the region's pixels."""
        return 1.0 if self.seen is None else float(self.seen.mean())


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
    apart = ""
    if halves is not None and box.side < least_side:
        # The arms are what was asked for; the halves must not take the region from them.
        apart = f"with the halves all cover no rectangle of {least_side} pixels together, only {box.words()}"
        halves = None
        box, seen = compared([reference, *able.values()])
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
    both: list[Alignment] = []
    for name, half in zip(HALVES, halves or (), strict=False):
        try:
            both.append(align_seen(part(half), target, seen, cap=cap, alpha=window))
        except KernelRefused as error:
            apart = apart or f"{name}: {error}"
        else:
            if both[-1].shift.state is Shifted.OVER_CAP:
                found_shift = f"({both[-1].shift.x:g}, {both[-1].shift.y:g}) px"
                apart = apart or f"{name} is not registered: its shift, {found_shift}, is over the cap of {cap:g} px"
    if apart:
        both = []
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
    return Comparison(region, trimmed, still, found, failed, between, None if left.all() else left, apart)


def run(ctx: Context) -> None:
    """Compare, write tables, `metrics.json`, `aligned.npz` and the figures.

    Raises:
        BadInput: neither truth nor reference, or both.
        JobFailed: no arm can be compared.
    """
    p: CompareParams = ctx.params
    everything = gather(ctx)
    given, beside = everything.without_train_half(), everything.train_half()
    count = len(given.names) + (given.halves is not None or bool(given.apart))
    count += beside is not None
    ctx.expect(rows={"dose_metrics": count}, artifacts=[METRICS, ALIGNED, OBJECTS, CURVES])
    for name, why in {**everything.missing, **everything.unreadable}.items():
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
    if found.apart:
        given = replace(given, apart=found.apart, notes=(*given.notes, not_compared(found.apart)))
        everything = replace(everything, notes=given.notes)
        ctx.log(not_compared(found.apart))
    ctx.log(f"compared: {found.region.words()}, {found.trimmed} trimmed along each border for shifts")
    views = ctx.input(VIEWS) if ctx.has_input(VIEWS) else None
    exposure = exposure_of(given, views, found.region, given.against)
    rows, rings = metric_rows(p, given, found, exposure), frc_rows(p, found)
    drawn = list(rows)
    if beside is not None:
        own = _by_itself(p, beside, found)
        ctx.log(f"{TRAIN_HALF}: {own.region.words()}, by itself")
        rows += metric_rows(p, beside, own, exposure_of(given, views, own.region, TRAIN_HALF))
        rings += frc_rows(p, own)
    ctx.progress(1, 2, "figures")
    ctx.results("dose_metrics", rows)
    ctx.results("dose_frc", rings)
    write_npz(ctx.artifact(ALIGNED), aligned_arrays(found, given.against))
    document = metrics_document(p, everything, found, exposure, rows, rings)
    text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_atomic(ctx.artifact(METRICS), text.encode())
    from jobs.dose.figures import curves_figure, objects_figure  # matplotlib, only once the numbers are there

    objects_figure(ctx.artifact(OBJECTS), p.condition, found, drawn)
    curves_figure(ctx.artifact(CURVES), p.condition, found, drawn)
    ctx.progress(2, 2)


def _by_itself(p: CompareParams, beside: Given, found: Comparison) -> Comparison:
    """The training half against the truth on its own part of the object; why not, where that cannot be."""
    try:
        if beside.arms:
            return measure(
                beside.arms,
                beside.reference,
                blur=p.blur,
                window=p.window,
                cap=p.shift_cap,
                least_side=p.least_side,
            )
        why = {}
    except (JobFailed, KernelRefused) as error:
        why = dict.fromkeys(beside.arms, error.message if isinstance(error, JobFailed) else str(error))
    return replace(found, region=NOTHING, trimmed=0, arms={}, failed=why, halves=None, seen=None, apart="")


def _reach(aligned: Alignment) -> int:
    """How many pixels along the border are no data once the shift is undone."""
    return math.ceil(max(abs(aligned.shift.x), abs(aligned.shift.y))) if aligned.shift.applied else 0


def _none(why: Mapping[str, str]) -> str:
    return "no arm can be compared: " + ("; ".join(f"{name}: {reason}" for name, reason in why.items()) or "none given")
