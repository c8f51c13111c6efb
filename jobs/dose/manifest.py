"""The study's manifest of trainings: what each planned one came to, and the reason where it came to nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from core.errors import BadInput
from jobs.dose.design import CONTROLS, TRAINED

if TYPE_CHECKING:
    from core.kind import Context
    from jobs.dose_kinds.summary import ConditionWords, SummaryParams

INPUT = "model_{arm}_{condition}"  # of a model.json
_NOT_THERE: dict[str, Any] = {"epochs_planned": None, "epochs_done": None, "final_loss": None, "bundle_sha256": None}


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
        error = f"its job did not succeed: input {name} is absent"
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
    found = {key: read.get(key) for key in _NOT_THERE}
    return {**_words(words), "arm": arm, "status": str(read.get("status")), **found, "error": read.get("error")}


def _words(words: ConditionWords) -> dict[str, Any]:
    return words.model_dump(include={"condition", "photons", "view", "gridsize", "seed"})
