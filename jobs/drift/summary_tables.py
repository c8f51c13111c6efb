"""Arrow schemas of the drift summary's tables."""

from __future__ import annotations

import pyarrow as pa

_TEXT, _FLOAT, _INT = pa.string(), pa.float64(), pa.int64()

# A row for each number of each node; of a node that left none, one row that says how it ended.
SUMMARY = pa.schema(
    [
        ("node", _TEXT),
        ("role", _TEXT),
        ("variant", _TEXT),
        ("encoder", _TEXT),
        ("seed", _INT),
        ("alpha", _FLOAT),
        ("checkpoint", _INT),
        ("control", _TEXT),  # "", untrained, or held: real images in the place of samples
        ("state", _TEXT),
        ("reason", _TEXT),
        ("metric", _TEXT),
        ("value", _FLOAT),
        ("std", _FLOAT),
        ("n", _INT),
        ("contract", _TEXT),  # SHA-256, of an evaluation
        ("samples", _TEXT),  # SHA-256 of their content
        ("claimed", pa.bool_()),  # of a package: at the claimed alpha, of the last checkpoint
    ],
    metadata={"lab.headline": "node,state,metric,value,std,n,reason"},
)

# Answers, each beside the spread over the seeds that it had to exceed.
VERDICTS = pa.schema(
    [
        ("question", _TEXT),  # worse, floor, alpha, untrained
        ("subject", _TEXT),
        ("other", _TEXT),
        ("metric", _TEXT),
        ("margin", _FLOAT),
        ("spread", _FLOAT),
        ("seeds", _INT),
        ("answer", _TEXT),
    ],
    metadata={"lab.headline": "question,subject,other,metric,margin,spread,seeds,answer"},
)
