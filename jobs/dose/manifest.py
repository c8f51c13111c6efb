"""The study's manifest of trainings: what each planned one came to, and the reason where it came to nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from core.errors import BadInput
from jobs.dose.absent import why_absent
from jobs.dose.conditions import CONTROLS, TRAINED

if TYPE_CHECKING:
    from core.kind import Context
    from jobs.dose_kinds.summary import ConditionWords, SummaryParams

INPUT = "model_{arm}_{condition}"  # of a model.json
_TOLD = ("epochs_planned", "epochs_done", "final_loss", "bundle_sha256")  # of a model.json
_NOT_THERE: dict[str, Any] = dict.fromkeys(("paths", *_TOLD))
_RECONSTRUCTION = "reconstruction.npz"


def input_name(arm: str, condition: str) -> str:
    """Of the summary's input that is the manifest of one training."""
    return INPUT.format(arm=arm, condition=condition)


def trainings(ctx: Context, params: SummaryParams) -> list[dict[str, Any]]:
    """A row for each training and control that was planned, and for those of the conditions that were skipped.

    Raises:
        BadInput: an input is no manifest, or is one of another condition.
    """
    arms = [arm for arm in (*TRAINED, *CONTROLS) if arm in params.arms]
    rows = [_row(ctx, words, arm) for words in params.conditions for arm in arms]
    for words in params.skips:
        rows += [
            {**_words(words), "arm": arm, "status": "skipped", **_NOT_THERE, "error": words.reason} for arm in arms
        ]
    return rows


def _row(ctx: Context, words: ConditionWords, arm: str) -> dict[str, Any]:
    name = input_name(arm, words.condition)
    if not ctx.has_input(name):
        error = why_absent(ctx, name) or f"its job did not succeed: input {name} is absent"
        return {**_words(words), "arm": arm, "status": "failed", **_NOT_THERE, "error": error}
    path = ctx.input(name)
    hint = "give the model.json of the dose-train job of this arm and condition"
    try:
        read = json.loads(path.read_text("utf-8"))
        told = read["condition"]
        same = (told["arm"], told["photons"], told["view"], told["gridsize"], told["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is no manifest of a training: {error}", hint=hint) from None
    wanted = (arm, words.photons, words.view, words.gridsize, words.seed)
    if same != wanted:
        raise BadInput(f"{path} is the manifest of {same}, not of {wanted}", hint=hint)
    found = {key: read.get(key) for key in _TOLD}
    status = str(read.get("status"))
    # A manifest that is given by hand may be of a training that failed, which made no files.
    files = [] if status == "failed" else [f for f in (read.get("bundle"), _RECONSTRUCTION) if f]
    paths = ", ".join(f"{_maker(ctx, name, arm, words)}/{file}" for file in files) or None
    row = {**_words(words), "arm": arm, "paths": paths, "status": status, **found}
    return {**row, "error": read.get("error")}


def _maker(ctx: Context, name: str, arm: str, words: ConditionWords) -> str:
    """What the job that made the input is called: no folder of a machine, which another has elsewhere."""
    labels = [i["made"].get("label") for i in ctx.raw.get("inputs") or () if i["name"] == name and i.get("made")]
    return str(labels[0]) if labels and labels[0] else f"{arm}_{words.condition}"


def _words(words: ConditionWords) -> dict[str, Any]:
    return words.model_dump(include={"condition", "photons", "view", "gridsize", "seed"})
