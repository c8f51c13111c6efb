"""Making parts: the rows of one attempt as one synced Parquet file, and the way in which all such files are written."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import DiskFull, LabError
from core.fsio import fsync_dir, no_space, sha256_file
from core.home import Home

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# What the head adds in front of each row: where it came from.
ORIGIN = ("job", "attempt", "lane", "key")

ROW_GROUP = 1 << 17

_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,63}$")
_ARROW_FILE = b"ARROW1"


class BadTable(LabError):
    """An attempt's result table cannot be read or is not what its kind declares."""

    slug = "bad-table"


@dataclass(frozen=True)
class PartInfo:
    """A part as the journal records it; `data()` is its entry in the event that commits it.

    Attributes:
        first, last: the jobs of which it holds rows lie in this range.
    """

    table: str
    path: str  # relative to Home.tables
    rows: int
    bytes: int
    sha256: str
    first: int
    last: int

    def data(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "path": self.path,
            "rows": self.rows,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "first": self.first,
            "last": self.last,
        }


def append_part(
    home: Home,
    *,
    job: int,
    attempt: int,
    lane: str,
    key: str,
    kind: str,
    table: str,
    arrow_path: Path | Sequence[Path],
    schema: pa.Schema | None = None,
) -> PartInfo:
    """Write the rows that an attempt left as one synced Parquet part. Not live until the journal lists it.

    Doing it again after a crash writes the same part over itself.

    Args:
        arrow_path: Arrow IPC of this one table, files or streams.
        schema: what the kind declares; None: whatever is there (the lane has enforced it already).

    Raises:
        BadTable: the Arrow data is torn, has other columns than declared, or brings columns of ours.
        DiskFull: nothing was written.
    """
    import pyarrow as pa

    if not _NAME.match(table):
        raise BadTable(
            f"the table name {table!r} of kind {kind!r} cannot be used", hint="use letters, digits and underscores"
        )
    paths = [arrow_path] if isinstance(arrow_path, Path) else list(arrow_path)
    rows = pa.concat_tables([read_arrow(p) for p in paths])
    if schema is not None:
        rows = _enforce(rows, schema, f"table {table!r} of job {job}, attempt {attempt}")
    clash = [name for name in ORIGIN if name in rows.column_names]
    if clash:
        raise BadTable(
            f"the table {table!r} of kind {kind!r} has a column {clash[0]!r}, which lab adds itself", hint="rename it"
        )
    n = rows.num_rows
    full = with_origin(
        rows, pa.array([job] * n, pa.int64()), pa.array([attempt] * n, pa.int32()), pa.array([lane] * n), [key] * n
    )
    with new_part(home, table, f"{job}-{attempt}.parquet", full.schema) as new:
        new.writer.write_table(full, row_group_size=ROW_GROUP)
    return new.info(n, job, job)


def with_origin(rows: pa.Table, job: Any, attempt: Any, lane: Any, key: Any) -> pa.Table:
    """`rows` with the columns that say where they come from in front."""
    import pyarrow as pa

    types = (pa.int64(), pa.int32(), pa.string(), pa.string())
    origin = []
    for values, kind in zip((job, attempt, lane, key), types, strict=True):
        made = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, kind)
        origin.append(made if made.type == kind else made.cast(kind))
    fields = [pa.field(name, kind, nullable=False) for name, kind in zip(ORIGIN, types, strict=True)]
    schema = pa.schema([*fields, *rows.schema], metadata=rows.schema.metadata)
    return pa.Table.from_arrays([*origin, *rows.columns], schema=schema)


class NewPart:
    """A part that is being written. `info` speaks of it once it is whole."""

    def __init__(self, home: Home, table: str, final: Path, writer: pq.ParquetWriter) -> None:
        self.writer = writer
        self._home, self._table, self._final = home, table, final
        self.size, self.sha256 = 0, ""

    def info(self, rows: int, first: int, last: int) -> PartInfo:
        path = self._final.relative_to(self._home.tables).as_posix()
        return PartInfo(self._table, path, rows, self.size, self.sha256, first, last)


@contextlib.contextmanager
def new_part(home: Home, table: str, name: str, schema: pa.Schema) -> Iterator[NewPart]:
    """Write one Parquet file: under another name, synced, then renamed. Nothing is left of one that fails.

    Raises:
        DiskFull: nothing was written.
    """
    folder = home.tables / table
    final = folder / name
    tmp = folder / f".{name}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            fsync_dir(home.tables)
        with tmp.open("wb") as out:
            with open_writer(out, schema) as writer:
                new = NewPart(home, table, final, writer)
                yield new
            out.flush()
            os.fsync(out.fileno())
        new.size, new.sha256 = tmp.stat().st_size, sha256_file(tmp)
        tmp.replace(final)
        fsync_dir(folder)
    except OSError as error:
        if no_space(error):
            raise DiskFull(
                f"the disk of {home.path} is full: {final.name} is not in the table {table!r} yet",
                hint="free some space",
            ) from error
        raise
    finally:
        tmp.unlink(missing_ok=True)


def open_writer(out: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """A Parquet writer tuned for queries: encodings by type, statistics, page checksums."""
    import pyarrow.parquet as pq

    return pq.ParquetWriter(out, schema, compression="zstd", write_page_checksum=True, **_encodings(schema))


def _encodings(schema: pa.Schema) -> dict[str, Any]:
    """Half of the time of a scan is decoding: dictionaries for text only, numbers in what compresses and decodes best.

    A file of nested columns alone is left to the defaults.
    """
    import pyarrow.types as pt

    text, special = [], {}
    for field in schema:
        kind = field.type
        if pt.is_string(kind) or pt.is_large_string(kind) or pt.is_binary(kind) or pt.is_dictionary(kind):
            text.append(field.name)
        elif pt.is_float32(kind) or pt.is_float64(kind):
            special[field.name] = "BYTE_STREAM_SPLIT"
        elif pt.is_integer(kind):
            special[field.name] = "DELTA_BINARY_PACKED"
    plain = {name: kind for name, kind in special.items() if "." not in name}
    return {"use_dictionary": text or False, "column_encoding": plain or None}


def read_arrow(path: Path) -> pa.Table:
    """An Arrow file or stream, whole.

    It is read through Arrow's own file: what is read through a Python one is let go of by a thread of Arrow's, and if
    the interpreter ends at that moment, the process aborts (github.com/apache/arrow/issues/34314).

    Raises:
        BadTable: it is not there, or cannot be read.
    """
    import pyarrow as pa

    try:
        with path.open("rb") as f:
            is_file = f.read(len(_ARROW_FILE)) == _ARROW_FILE
        with pa.OSFile(str(path), "rb") as source:
            reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
            return reader.read_all()
    except FileNotFoundError:
        raise BadTable(f"the result table {path} is not there") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise BadTable(f"the result table {path} cannot be read: {first_line(error)}") from error


def _enforce(rows: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    import pyarrow as pa

    missing = [n for n in schema.names if n not in rows.column_names]
    extra = [n for n in rows.column_names if n not in schema.names]
    if missing or extra:
        words = [f"lacks {', '.join(missing)}"] if missing else []
        words += [f"has {', '.join(extra)} beyond what its kind declares"] if extra else []
        raise BadTable(f"{what} {' and '.join(words)}")
    try:
        return rows.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise BadTable(f"{what} does not fit what its kind declares: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
