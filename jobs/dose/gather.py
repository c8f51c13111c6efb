"""Reads what the comparisons of a study left behind, and keeps count of what is not there and why."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import BadInput
from jobs.dose.absent import why_absent
from jobs.dose.conditions import TRAIN_HALF
from jobs.dose.summary import UNPLACED, Metric, Value
from kernels.diffraction.registration import Shifted

if TYPE_CHECKING:
    from core.kind import Context
    from jobs.dose_kinds.summary import ConditionWords, SummaryParams

SCHEMA = "lab.dose-compare/1"
METRICS_FILE, PICTURES = "metrics.json", ("objects.png",)

# Columns of the comparisons that the summary follows, in the order of the page.
METRICS = (
    Metric("ms_ssim_phase", "MS-SSIM of the phase", "", True),
    Metric("ms_ssim_amplitude", "MS-SSIM of the amplitude (blurred)", "", True),
    Metric("ssim_phase", "SSIM of the phase", "", True),
    Metric("ssim_amplitude", "SSIM of the amplitude", "", True),
    Metric("psnr_phase", "PSNR of the phase", "dB", True),
    Metric("psnr_amplitude", "PSNR of the amplitude", "dB", True),
    Metric("mae_phase", "mean absolute error of the phase", "rad", False),
    Metric("rmse_phase", "RMS error of the phase", "rad", False),
    Metric("mae_amplitude", "mean absolute error of the amplitude", "the reference's", False),
    Metric("mse_amplitude", "mean squared error of the amplitude", "the reference's, squared", False),
    Metric("relative_error", "relative error of the complex object", "", False),
    Metric("frc50", "FRC cutoff at 0.5", "cycles/pixel", True),
    Metric("frc50_of_nyquist", "FRC cutoff at 0.5, parts of Nyquist", "", True),
    Metric("frc_seventh", "FRC cutoff at 1/7", "cycles/pixel", True),
    Metric("frc_half_bit", "FRC cutoff at half a bit", "cycles/pixel", True),
)
BY_NAME = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True)
class Curve:
    """A Fourier ring correlation of one arm of one condition; frequencies in cycles/pixel."""

    photons: float
    view: str
    gridsize: int
    seed: int
    arm: str
    frequency: tuple[float, ...]
    frc: tuple[float, ...]


@dataclass(frozen=True)
class Skip:
    """Something that there is no number of.

    Attributes:
        arm: empty: the whole condition.
        state: infeasible, failed, missing, not registered (its numbers count nowhere), or flagged (there are numbers,
            with a warning).
    """

    words: ConditionWords
    arm: str
    state: str
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """All that the comparisons say.

    Attributes:
        values: of `METRICS`, only of what was measured.
        per_pixel: (photons, view, gridsize, seed) -> total photons a pixel of the object.
        pictures: condition -> name of the file -> path.
    """

    values: tuple[Value, ...]
    curves: tuple[Curve, ...]
    skips: tuple[Skip, ...]
    per_pixel: Mapping[tuple[float, str, int, int], float]
    pictures: Mapping[str, Mapping[str, Path]]
    against: tuple[str, ...]


def gather(ctx: Context, params: SummaryParams) -> Found:
    """Read every comparison that is there.

    Raises:
        BadInput: a file is none of a comparison, or is of another condition than its input's name says.
    """
    values: list[Value] = []
    curves: list[Curve] = []
    skips = [Skip(words, "", "infeasible", words.reason, words.numbers) for words in params.skips]
    per_pixel: dict[tuple[float, str, int, int], float] = {}
    pictures: dict[str, dict[str, Path]] = {}
    against: dict[str, None] = {}
    for words in params.conditions:
        name = f"compare_{words.condition}"
        if not ctx.has_input(name):
            said = why_absent(ctx, name) or f"input {name} is absent"
            skips.append(Skip(words, "", "failed", f"its comparison did not succeed: {said}"))
            continue
        folder = ctx.input(name)
        read = read_metrics(folder / METRICS_FILE, words)
        rows = {str(row["arm"]): row for row in read["rows"]}
        for arm in dict.fromkeys((*params.arms, *rows)):
            row = rows.get(arm)
            skips += _row_skips(words, arm, row)
            if row is not None:
                values += _values(words, arm, row)
                against[str(row.get("against") or "")] = None
                light = row.get("photons_per_pixel")
                if light is not None and arm != TRAIN_HALF:  # that is of another part of the object
                    per_pixel[words.photons, words.view, words.gridsize, words.seed] = float(light)
        lost = {arm for arm, row in rows.items() if not placed(row)}
        curves += _curves(words, {arm: curve for arm, curve in (read.get("frc") or {}).items() if arm not in lost})
        pictures[words.condition] = {n: folder / n for n in PICTURES if (folder / n).is_file()}
    return Found(tuple(values), tuple(curves), tuple(skips), per_pixel, pictures, tuple(a for a in against if a))


def read_metrics(path: Path, words: ConditionWords) -> dict[str, Any]:
    """metrics.json of a comparison.

    Raises:
        BadInput: see `gather`.
    """
    hint = "give the artifacts folder of the dose-compare job of this condition"
    try:
        read = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadInput(f"there is no {path}", hint=hint) from None
    except ValueError as error:
        raise BadInput(f"{path} is no JSON: {error}", hint=hint) from None
    if not isinstance(read, dict) or read.get("schema") != SCHEMA or not isinstance(read.get("rows"), list):
        raise BadInput(f"{path} is no {SCHEMA}", hint=hint)
    told = read.get("condition")
    if not isinstance(told, dict):
        raise BadInput(f"{path} does not say of which condition it is", hint=hint)
    # By its name first: that is what the sentence should say of a mix-up.
    for said in (told, *read["rows"]):
        for name in ("condition", "photons", "view", "gridsize", "seed"):
            if said.get(name) != getattr(words, name):
                raise BadInput(
                    f"{path} is of the {name} {said.get(name)!r}, not of {getattr(words, name)!r}", hint=hint
                )
    return read


def placed(row: Mapping[str, Any]) -> bool:
    """Do the numbers of an arm count? Not where its shift was over the cap: they are of an arm that lies elsewhere.

    A control counts all the same: it has hardly a place, and whoever beats it must do so whatever it looks like.
    """
    return bool(row.get("control")) or row.get("shift_state") != Shifted.OVER_CAP


def _row_skips(words: ConditionWords, arm: str, row: Mapping[str, Any] | None) -> list[Skip]:
    if row is None:
        return [Skip(words, arm, "missing", "the comparison has no row of it")]
    if row.get("status") != "measured":
        return [Skip(words, arm, str(row.get("status")), str(row.get("reason") or "no reason was given"))]
    if not placed(row):
        return [Skip(words, arm, UNPLACED, str(row.get("flags") or "its shift is over the cap"))]
    return [Skip(words, arm, "flagged", str(row["flags"]))] if row.get("flags") else []


def _values(words: ConditionWords, arm: str, row: Mapping[str, Any]) -> list[Value]:
    if row.get("status") != "measured":
        return []
    numbers = dict(row)
    if row.get("mse_phase") is not None:
        numbers["rmse_phase"] = math.sqrt(float(row["mse_phase"]))
    at, counts = (words.photons, words.view, words.gridsize, words.seed, arm), placed(row)
    return [
        Value(*at, metric.name, float(numbers[metric.name]), counts)
        for metric in METRICS
        if numbers.get(metric.name) is not None
    ]


def _curves(words: ConditionWords, frc: Mapping[str, Any]) -> list[Curve]:
    out = []
    for arm, curve in frc.items():
        if isinstance(curve, dict) and curve.get("frequency") and curve.get("frc"):
            pairs = [(f, c) for f, c in zip(curve["frequency"], curve["frc"], strict=True) if c is not None]
            frequency, values = (tuple(float(p[i]) for p in pairs) for i in (0, 1))
            out.append(Curve(words.photons, words.view, words.gridsize, words.seed, arm, frequency, values))
    return out
