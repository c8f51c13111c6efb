"""The tables of a `train` job: one row for each candidate and each thing it must better, one for the whole training."""

from __future__ import annotations

import pyarrow as pa


def _field(name: str, kind: pa.DataType, *, may_miss: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=may_miss)


# Whatever is measured on the fixed pairs is called an evaluation; a training value is in the step rows only.
CANDIDATES = pa.schema(
    [
        _field("branch", pa.string()),
        _field("weights", pa.string()),  # average-int8; or what has none: decoded, unsharp
        _field("epoch", pa.int64(), may_miss=True),  # completed ones
        _field("step", pa.int64(), may_miss=True),
        _field("quantity", pa.string()),  # what the value is called
        _field("evaluation_value", pa.float64()),  # on the fixed pairs; lower is better
        _field("evaluation_terms", pa.string()),  # JSON
        _field("psnr", pa.float64()),  # dB
        _field("ms_ssim", pa.float64(), may_miss=True),  # null for frames that are too small for it
        _field("bytes", pa.int64(), may_miss=True),  # of the int8 file
        _field("weights_sha256", pa.string(), may_miss=True),  # of the int8 weights
        _field("chosen", pa.bool_()),
    ],
    metadata={
        "lab.headline": "epoch,weights,evaluation_value,psnr,ms_ssim,bytes,chosen",
        "lab.plot": "weights=average-int8",
    },
)

TRAINING = pa.schema(
    [
        _field("branch", pa.string()),
        _field("quantity", pa.string()),
        _field("epochs", pa.int64()),
        _field("steps", pa.int64()),
        _field("resumed_at", pa.int64(), may_miss=True),  # the step that this attempt went on from; null: from nothing
        _field("mode", pa.string()),  # fresh; else how it was started: exact, model-only, reset-rate
        _field("weights_sha256", pa.string()),  # in full precision, after the last step
        _field("average_sha256", pa.string()),  # of their average, after the last step
        _field("shipped_sha256", pa.string()),  # of the int8 file
        _field("bundle_bytes", pa.int64()),  # of the int8 file
        _field("chosen_epoch", pa.int64()),
        _field("recipe_sha256", pa.string()),
        _field("data_sha256", pa.string()),
        _field("evaluation_sha256", pa.string()),  # of the fixed pairs: only values on equal ones may be compared
        _field("value_sha256", pa.string()),  # of what an evaluation value is made of: only equal ones are compared
        _field("settings_sha256", pa.string()),  # of all but the seeds: runs with equal ones differ by chance only
        _field("code_sha256", pa.string()),
        _field("encoded_bytes", pa.int64()),
        _field("evaluation_encoded_bytes", pa.int64()),
        _field("device", pa.string()),
        _field("threads", pa.int64()),
        _field("torch", pa.string()),
        _field("seconds", pa.float64()),  # of this attempt
    ],
    metadata={"lab.headline": "branch,steps,chosen_epoch,bundle_bytes,resumed_at,mode,weights_sha256,seconds"},
)
