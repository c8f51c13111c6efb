"""Arrow schemas of the summary's tables."""

from __future__ import annotations

import pyarrow as pa

_TEXT, _FLOAT, _INT = pa.string(), pa.float64(), pa.int64()
_PLACE = [("photons", _FLOAT), ("view", _TEXT), ("gridsize", _INT)]


def _schema(fields: list[tuple[str, pa.DataType]], headline: str) -> pa.Schema:
    return pa.schema(fields, metadata={"lab.headline": headline})


# Mean and spread over the seeds.
SUMMARY = _schema(
    [
        *_PLACE,
        ("arm", _TEXT),
        ("metric", _TEXT),
        ("unit", _TEXT),
        ("greater_is_better", pa.bool_()),
        ("seeds", _INT),
        ("lost", _INT),  # seeds whose number is none, or of an arm that was not registered
        ("planned", _INT),
        ("mean", _FLOAT),
        ("sd", _FLOAT),
        ("least", _FLOAT),
        ("most", _FLOAT),
        ("photons_per_pixel", _FLOAT),
    ],
    "photons,view,gridsize,arm,metric,seeds,mean,sd,least,most",
)

# Is an arm better than a control, than the physics layer alone, than LSQML, than itself at the dose below?
VERDICTS = _schema(
    [
        ("question", _TEXT),
        *_PLACE,
        ("metric", _TEXT),
        ("arm", _TEXT),
        ("other", _TEXT),
        ("margin", _FLOAT),
        ("spread", _FLOAT),
        ("seeds", _INT),
        ("answer", _TEXT),
    ],
    "question,photons,view,gridsize,metric,arm,other,margin,spread,seeds,answer",
)

# What there is no number of, and why: infeasible views, failed jobs, arms not registered; and what was flagged.
SKIPS = _schema(
    [
        ("condition", _TEXT),
        *_PLACE,
        ("seed", _INT),
        ("arm", _TEXT),
        ("state", _TEXT),
        ("reason", _TEXT),
        ("numbers", _TEXT),
    ],
    "condition,arm,state,reason",
)

# The manifest of trainings: one row for each that was planned or skipped.
TRAININGS = _schema(
    [
        ("condition", _TEXT),
        *_PLACE,
        ("seed", _INT),
        ("arm", _TEXT),
        ("paths", _TEXT),  # job of the study/file below its artifacts, comma between; null: there are none
        ("status", _TEXT),
        ("epochs_planned", _INT),
        ("epochs_done", _INT),
        ("final_loss", _FLOAT),
        ("bundle_sha256", _TEXT),
        ("error", _TEXT),
    ],
    "condition,arm,status,epochs_done,final_loss,error",
)
