"""Result rows written out as CSV, JSON lines, Parquet or Arrow, batch by batch: never all of them in memory."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from core.errors import BadInput, DiskFull
from core.fsio import fsync_dir, no_space
from core.tables import Stream

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("csv", "json", "parquet", "arrow")


def write(rows: Stream, form: str, out: BinaryIO) -> int:
    """Write all rows to `out`. Returns how many."""
    return {"csv": _csv, "json": _json, "parquet": _parquet, "arrow": _arrow}[form](rows, out)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: they become null and text. Whole decimals, as `sum` gives them, are numbers."""
    out: dict[str, Any] = {}
    for name, v in row.items():
        if isinstance(v, float) and v != v:
            v = None
        elif isinstance(v, float) and v in (float("inf"), float("-inf")):
            v = "Infinity" if v > 0 else "-Infinity"
        elif isinstance(v, Decimal) and v.is_finite() and v == v.to_integral_value():
            v = int(v)
        out[name] = v
    return out


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write `path` whole or not at all.

    Raises:
        BadInput: it cannot be written there.
        DiskFull: nothing was written.
    """
    tmp = path.parent / f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        with tmp.open("xb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        tmp.replace(path)
        fsync_dir(path.parent)
    except OSError as error:
        if no_space(error):
            raise DiskFull(f"the disk of {path.parent} is full: {path} was not written", hint="free some space") from (
                error
            )
        raise BadInput(
            f"{path} cannot be written ({error.strerror or error})", hint="give a path in a folder of yours"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            tmp.unlink(missing_ok=True)


class Pipe(io.RawIOBase):
    """A binary stream over a function that takes bytes."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        blob = bytes(data)
        self._take(blob)
        self._at += len(blob)
        return len(blob)

    def tell(self) -> int:
        return self._at


def _csv(rows: Stream, out: BinaryIO) -> int:
    import pyarrow as pa
    import pyarrow.csv

    nested = [i for i, f in enumerate(rows.schema) if pa.types.is_nested(f.type) or _is_bytes(f.type)]
    schema = rows.schema
    for i in nested:
        schema = schema.set(i, schema.field(i).with_type(pa.string()))
    count = 0
    with pyarrow.csv.CSVWriter(out, schema) as writer:
        for batch in rows.batches:
            writer.write_batch(_flat(batch, nested, schema))
            count += batch.num_rows
    return count


def _flat(batch: pa.RecordBatch, nested: list[int], schema: pa.Schema) -> pa.RecordBatch:
    """CSV knows no lists and no bytes: they become JSON text, and base64."""
    import pyarrow as pa

    if not nested:
        return batch
    columns = list(batch.columns)
    for i in nested:
        told = (
            v if v is None or isinstance(v, bytes) else json.dumps(v, default=_told) for v in columns[i].to_pylist()
        )
        texts = [_told(v) if isinstance(v, bytes) else v for v in told]
        columns[i] = pa.array(texts, pa.string())
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _is_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _told(value: object) -> str:
    """What neither CSV nor JSON has a form for."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _json(rows: Stream, out: BinaryIO) -> int:
    encode = json.JSONEncoder(default=_told, ensure_ascii=False).encode
    count = 0
    for batch in rows.batches:
        out.write("".join([encode(plain(row)) + "\n" for row in batch.to_pylist()]).encode("utf-8", "backslashreplace"))
        count += batch.num_rows
    return count


def _parquet(rows: Stream, out: BinaryIO) -> int:
    from core.tables.parts import open_writer

    count = 0
    with open_writer(out, rows.schema) as writer:
        for batch in rows.batches:
            writer.write_batch(batch)
            count += batch.num_rows
    return count


def _arrow(rows: Stream, out: BinaryIO) -> int:
    import pyarrow as pa

    count = 0
    with pa.ipc.new_file(out, rows.schema) as writer:
        for batch in rows.batches:
            writer.write_batch(batch)
            count += batch.num_rows
    return count
