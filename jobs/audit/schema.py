"""The table of the kind `audit`: a row for each check."""

from __future__ import annotations

import pyarrow as pa

AUDIT = pa.schema(
    [
        pa.field("of", pa.string(), nullable=False),  # the input
        pa.field("check", pa.string(), nullable=False),
        pa.field("expected", pa.string(), nullable=False),  # made by the audit, from bytes
        pa.field("found", pa.string(), nullable=False),  # what stands in the evidence
        pa.field("tolerance", pa.float64()),  # null: they must be the same
        pa.field("passed", pa.bool_(), nullable=False),
    ],
    metadata={"lab.headline": "of,check,expected,found,tolerance,passed"},
)
