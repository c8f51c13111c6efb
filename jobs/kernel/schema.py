"""The columns of the `kernel` table: one row per cell."""

from __future__ import annotations

import pyarrow as pa

KERNEL = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("backend", pa.string(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("batch", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("dx", pa.float64(), nullable=False),
        pa.field("dy", pa.float64(), nullable=False),
        pa.field("amplitude", pa.float64(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("tolerance", pa.float64(), nullable=False),  # of max_rel; 0: bit for bit
        pa.field("max_rel", pa.float64(), nullable=False),
        pa.field("max_abs", pa.float64(), nullable=False),
        pa.field("checksum", pa.string(), nullable=False),  # SHA-256 of the output, widened to double
        pa.field("seconds", pa.float64(), nullable=False),  # best of the repeats
        pa.field("threads", pa.int32(), nullable=False),
    ],
    metadata={"lab.headline": "name,backend,dtype,batch,height,width,dx,dy,max_rel,tolerance,verdict,seconds"},
)
