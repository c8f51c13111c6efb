"""Comparisons as dose-compare leaves them, made up: only their form is real."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.dose.conditions import CONTROLS, Condition
from jobs.dose.gather import SCHEMA
from jobs.dose.tree import condition_words

Quality = Callable[[Condition, str], float | None]


def row(condition: Condition, arm: str, quality: float | None) -> dict[str, Any]:
    """A row of dose_metrics; no quality: the arm is missing."""
    words = {**condition_words(condition), "control": arm in CONTROLS, "shift_state": None}
    if quality is None:
        return {**words, "arm": arm, "status": "missing", "reason": f"no input {arm}", "flags": "", "against": "truth"}
    return {
        **words,
        "arm": arm,
        "status": "measured",
        "reason": None,
        "flags": "",
        "against": "truth",
        "ms_ssim_phase": quality,
        "ms_ssim_amplitude": quality - 0.05,
        "ssim_phase": quality - 0.1,
        "mae_phase": 1 - quality,
        "mse_phase": (1 - quality) ** 2,
        "relative_error": (1 - quality) / 2,
        "frc50": quality / 2,
        "photons_per_pixel": condition.photons / (10 if condition.view.name == "sparse" else 2),
    }


def comparison(folder: Path, condition: Condition, arms: tuple[str, ...], quality: Quality) -> Path:
    """Write one. Returns its folder."""
    folder.mkdir(parents=True)
    rows = [row(condition, arm, quality(condition, arm)) for arm in arms]
    frequency = [i / 40 for i in range(1, 21)]
    frc = {
        str(r["arm"]): {"frequency": frequency, "frc": [max(0.0, r["ms_ssim_phase"] - f) for f in frequency]}
        for r in rows
        if r["status"] == "measured"
    }
    read = {"schema": SCHEMA, "condition": condition_words(condition), "rows": rows, "frc": frc}
    (folder / "metrics.json").write_text(json.dumps(read), "utf-8")
    return folder
