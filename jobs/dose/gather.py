"""Reads what the comparisons of a study left behind, and keeps count of what is not there and why."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import BadInput
from jobs.dose.summary import Metric, Value

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
        state: infeasible, failed, missing, or flagged (there are numbers, with a warning).
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
            skips.append(Skip(words, "", "failed", f"its comparison did not succeed: input {name} is absent"))
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
                if light is not None:
                    per_pixel[words.photons, words.view, words.gridsize, words.seed] = float(light)
        curves += _curves(words, read.get("frc") or {})
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
    for row in read["rows"]:
        said = row.get("condition")
        if said != words.condition:
            raise BadInput(f"{path} is of the condition {said!r}, not of {words.condition!r}", hint=hint)
    return read


def _row_skips(words: ConditionWords, arm: str, row: Mapping[str, Any] | None) -> list[Skip]:
    if row is None:
        return [Skip(words, arm, "missing", "the comparison has no row of it")]
    if row.get("status") != "measured":
        return [Skip(words, arm, str(row.get("status")), str(row.get("reason") or "no reason was given"))]
    return [Skip(words, arm, "flagged", str(row["flags"]))] if row.get("flags") else []


def _values(words: ConditionWords, arm: str, row: Mapping[str, Any]) -> list[Value]:
    if row.get("status") != "measured":
        return []
    numbers = dict(row)
    if row.get("mse_phase") is not None:
        numbers["rmse_phase"] = math.sqrt(float(row["mse_phase"]))
    return [
        Value(words.photons, words.view, words.gridsize, words.seed, arm, metric.name, float(numbers[metric.name]))
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
