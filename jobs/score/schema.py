"""The tables of a `score` job: one row for the score, one for each file whose bytes count."""

from __future__ import annotations

import pyarrow as pa


def _field(name: str, kind: pa.DataType, *, may_miss: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=may_miss)


SCORE = pa.schema(
    [
        # Of the archive alone, as the evaluator counts; all decimals.
        _field("score", pa.float64()),
        _field("pose", pa.float64()),
        _field("seg", pa.float64()),
        _field("rate", pa.float64()),
        _field("seg_part", pa.float64()),
        _field("pose_part", pa.float64()),
        _field("rate_part", pa.float64()),
        _field("printed", pa.float64()),  # the evaluator's last line
        _field("resolution", pa.float64()),  # by so much the score may be off: the report's rounding
        _field("archive_bytes", pa.int64()),
        _field("original_bytes", pa.int64()),
        # The same distortions with every runtime file counted; null where frames were made elsewhere.
        _field("faithful_score", pa.float64(), may_miss=True),
        _field("faithful_rate", pa.float64(), may_miss=True),
        _field("faithful_bytes", pa.int64(), may_miss=True),
        _field("view", pa.string()),  # the one that `value` is
        _field("value", pa.float64()),
        _field("authority", pa.string()),
        _field("why", pa.string()),  # it is no higher
        _field("samples", pa.int64()),
        _field("device", pa.string()),
        _field("checkout_commit", pa.string(), may_miss=True),
        _field("checkout_dirty", pa.bool_(), may_miss=True),
        _field("scorer_sha256", pa.string()),  # of the evaluator, its networks and its video
        _field("contract_sha256", pa.string()),  # only values of one contract may be compared
        _field("archive_sha256", pa.string()),
        _field("bundle_sha256", pa.string()),  # of archive and runtime files: what was scored
        _field("report_sha256", pa.string()),
        # Of the evaluator's own process: its Python, and as JSON the packages that its modules import.
        _field("evaluator_python", pa.string(), may_miss=True),
        _field("evaluator_packages", pa.string(), may_miss=True),
        _field("seconds", pa.float64()),
    ],
    metadata={"lab.headline": "value,view,authority,score,faithful_score,archive_bytes,seg,pose,samples,device,why"},
)

FILES = pa.schema(
    [
        _field("name", pa.string()),
        _field("bytes", pa.int64()),
        _field("sha256", pa.string()),
        _field("counts", pa.bool_()),  # False: its content is paid for already, as that of archive.zip/NAME is
    ],
    metadata={"lab.headline": "name,bytes,counts"},
)
