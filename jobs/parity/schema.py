"""The columns of the three tables: cells, taps, statistics of predictions.

What names a row stands first and is never null, so that two runs can be laid side by side row by row (`lab compare`).
What they are asked most is in `questions`; the head adds job and lane to every row.
"""

from __future__ import annotations

import pyarrow as pa


def _name(name: str) -> pa.Field:
    return pa.field(name, pa.string(), nullable=False)


def _count(name: str) -> pa.Field:
    return pa.field(name, pa.int32(), nullable=False)


def _numbers(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.float64()) for name in names]


_CELL = [
    _name("kernel"),
    _name("candidate"),
    _name("role"),
    _name("case"),
    _name("dtype"),
    _name("device"),  # asked for
    _count("batch"),
    _count("channels"),
    _count("height"),
    _count("width"),
]

PARITY = pa.schema(
    [
        *_CELL,
        _count("size"),  # B·C
        _count("cell"),  # the order in which the plan names them
        _name("verdict"),
        _name("reason"),
        pa.field("own_reason", pa.bool_()),  # mutants: did it fail by the harm that this very bug does?
        pa.field("tolerance", pa.float64(), nullable=False),  # of max_rel; 0: bit for bit
        *_numbers("max_rel", "max_abs", "rmse", "correlation", "sum_ratio", "edge_error", "centre_error"),
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
        pa.field("ran_on", pa.string()),  # as the side reports it
        pa.field("input_digest", pa.string()),  # of the effective input, in the run's process
        pa.field("candidate_digest", pa.string()),  # of the effective input, as the candidate's process saw it
        pa.field("output_digest", pa.string()),  # SHA-256 of dtype, shape and bytes of what it gave back
        pa.field("output_sum", pa.float64()),  # of the amplitudes
        pa.field("output_rms", pa.float64()),
        pa.field("undeclared", pa.string()),  # JSON: files that it read and had not declared
        pa.field("left", pa.string()),  # JSON: files that it left in its working folder
        pa.field("watch", pa.string()),  # how its files were seen, or why not
        pa.field("settings", pa.string()),  # JSON: what else the kernel was told
        pa.field("env", pa.string()),  # JSON: the variables that the side's process really had
        pa.field("versions", pa.string()),  # JSON
        pa.field("error", pa.string()),
    ],
    metadata={
        "lab.headline": "candidate,role,case,batch,channels,max_rel,tolerance,verdict,reason",
        "lab.plot": "role=candidate",  # mutants are wrong on purpose: beside them nothing else could be seen
    },
)

TAPS = pa.schema(
    [
        _name("candidate"),
        _name("role"),  # candidate: compared with the oracle; gate: did the tap move under its perturbation?
        _name("case"),
        _count("tap"),
        _name("tag"),  # edge, centre, listed, or the pixel itself
        _name("field"),
        _name("perturbed"),  # "": nothing; else what was changed
        _count("slow"),
        _count("fast"),
        _count("oversample"),
        pa.field("oracle", pa.float64()),  # gate: before the perturbation
        pa.field("value", pa.float64()),  # gate: under it
        pa.field("difference", pa.float64()),  # value - oracle
        pa.field("oracle_text", pa.string()),  # where a field is no number
        pa.field("value_text", pa.string()),
        _name("verdict"),
        _name("reason"),
        _name("utc"),
    ],
    metadata={"lab.headline": "candidate,role,case,tap,tag,field,perturbed,oracle,value,difference,verdict"},
)

COMPARED = ("mean", "std", "maximum", "var_zero_mean")

PATCHES = pa.schema(
    [
        *_CELL,
        _name("phase"),
        _count("batch_index"),  # of this candidate and phase
        _name("verdict"),
        _name("reason"),
        _name("status"),  # the worst of those below
        pa.field("count", pa.int32()),
        *_numbers("mean", "std", "rms", "maximum", "var_zero_mean", "contrast", "level"),
        *[
            f
            for name in COMPARED
            for f in (*_numbers(f"{name}_delta", f"{name}_ratio"), pa.field(f"{name}_status", pa.string()))
        ],
        *[pa.field(f"patch_{what}", pa.list_(pa.float64())) for what in ("mean", "std", "min", "max")],
    ],
    metadata={
        "lab.headline": "candidate,role,case,phase,batch_index,mean,std,var_zero_mean,contrast,level,status,verdict",
        "lab.plot": "role=candidate",
    },
)
