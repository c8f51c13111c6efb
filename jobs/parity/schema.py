"""The columns of the `parity` table: one row per cell and candidate."""

from __future__ import annotations

import pyarrow as pa

PARITY = pa.schema(
    [
        pa.field("cell", pa.int32(), nullable=False),  # the order in which the plan names them
        pa.field("kernel", pa.string(), nullable=False),
        pa.field("candidate", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("case", pa.string(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("device", pa.string()),
        pa.field("batch", pa.int32(), nullable=False),
        pa.field("channels", pa.int32(), nullable=False),
        pa.field("size", pa.int32(), nullable=False),  # B·C
        pa.field("patch", pa.int32(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("tolerance", pa.float64(), nullable=False),  # of max_rel; 0: bit for bit
        pa.field("max_rel", pa.float64()),
        pa.field("max_abs", pa.float64()),
        pa.field("rmse", pa.float64()),
        pa.field("correlation", pa.float64()),
        pa.field("sum_ratio", pa.float64()),
        pa.field("edge_error", pa.float64()),
        pa.field("centre_error", pa.float64()),
        pa.field("worst_image", pa.int32()),
        pa.field("worst_y", pa.int32()),
        pa.field("worst_x", pa.int32()),
        pa.field("statistics", pa.string()),  # ok, collapsed, ... of the candidate's amplitudes
        pa.field("contrast", pa.float64()),  # variance within patches over mean square, of the candidate
        pa.field("level", pa.float64()),  # |mean| over rms, of the candidate
        pa.field("seconds", pa.float64()),  # best of the repeats
        pa.field("first_seconds", pa.float64()),  # first call: tracing and compiling are in it
        pa.field("peak_mb", pa.float64()),  # of the side's process so far
        pa.field("threads", pa.int32()),
        pa.field("input_digest", pa.string()),
        pa.field("candidate_digest", pa.string()),  # of the input, as the candidate's process saw it
        pa.field("env", pa.string()),  # JSON: the variables that the side's process really had
        pa.field("versions", pa.string()),  # JSON
        pa.field("error", pa.string()),
    ],
    metadata={
        "lab.headline": "candidate,role,case,batch,channels,max_rel,tolerance,verdict,reason",
        "lab.plot": "role=candidate",  # mutants are wrong on purpose: beside them nothing else could be seen
    },
)
