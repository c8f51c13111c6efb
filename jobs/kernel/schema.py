"""The tables of a `kernel` job: one row for what was measured, one for each array that came back in a row."""

from __future__ import annotations

import pyarrow as pa

KERNEL = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("backend", pa.string(), nullable=False),
        pa.field("device", pa.string(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),  # of the result
        pa.field("batch", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("settings", pa.string(), nullable=False),  # JSON: the parameters of this kernel
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("input_digest", pa.string(), nullable=False),  # of all that the kernel was given
        pa.field("verdict", pa.string(), nullable=False),  # pass, or unchecked
        pa.field("tolerance", pa.float64()),  # of max_rel; 0: bit for bit
        pa.field("max_rel", pa.float64()),
        pa.field("max_abs", pa.float64()),
        pa.field("sum_ratio", pa.float64()),
        pa.field("counts", pa.string()),  # JSON: what the kernel counted; equal to the oracle's
        pa.field("checksum", pa.string(), nullable=False),  # SHA-256 of the result, widened to double
        pa.field("work", pa.int64(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),  # of the work
        pa.field("rate", pa.float64(), nullable=False),  # million units a second, of the quickest call
        pa.field("seconds", pa.float64(), nullable=False),  # of the quickest call
        pa.field("first_seconds", pa.float64(), nullable=False),  # of the first: compiling is in it
        pa.field("threads", pa.int32(), nullable=False),
    ],
    metadata={"lab.headline": "name,backend,batch,height,width,settings,max_rel,tolerance,verdict,rate,unit,seconds"},
)

# Little-endian, C order. `lab.handles.Job.arrays` makes arrays of them again, without a copy.
ARRAYS = pa.schema(
    [
        pa.field("array", pa.string(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("shape", pa.list_(pa.int64()), nullable=False),
        pa.field("values", pa.large_binary(), nullable=False),
    ],
    metadata={"lab.headline": "array,dtype,shape"},
)
