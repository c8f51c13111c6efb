"""What a batch has finished so far, on disk: a worker that is killed loses only what it had not finished.

    CRC32 JSON\\n PAYLOAD    one frame per flush; the JSON says how long the payload is

The JSON names the cells that ended; the payload holds the rows of those that succeeded, one Arrow stream per table.
A torn last frame is as if it had never been written. Not synced: the journal makes results durable, this only has to
outlive the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.states import AttemptState, Cause
from lanes.pool.folder import SPOOL
from lanes.pool.types import CellEnd, TableBytes

FILE = SPOOL

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode

EndRow = Sequence[object]  # a CellEnd as JSON and pickle carry it


@dataclass(frozen=True)
class Frame:
    """One flush: jobs that plainly succeeded, those that did not, and rows."""

    ok: list[int]
    ends: list[EndRow]
    tables: dict[str, TableBytes]
    seconds: float


class SpoolWriter:
    """Appends frames to an empty file that is open for it, and keeps the digest of what it wrote."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._sha = hashlib.sha256()
        self.size = 0

    def append(self, frame: Frame) -> None:
        """Write one frame.

        Raises:
            OSError: the disk is full; what was written of it does not count.
        """
        payload = b"".join(t.data for t in frame.tables.values())
        head = {
            "ok": frame.ok,
            "ends": frame.ends,
            "seconds": frame.seconds,
            "tables": [[name, len(t.data), t.rows, t.first, t.last] for name, t in frame.tables.items()],
            "bytes": len(payload),
        }
        body = _ENCODE(head).encode() + b"\n" + payload
        blob = b"%08x %b" % (zlib.crc32(body), body)
        try:
            view = memoryview(blob)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.size)
            raise
        self._sha.update(blob)
        self.size += len(blob)

    def close(self) -> list[object]:
        """Returns [sha256, bytes], as a manifest lists a file."""
        os.close(self._fd)
        return [self._sha.hexdigest(), self.size]


def read_spool(path: Path) -> tuple[list[Frame], int]:
    """The whole frames of a spool, and how many bytes they are. A missing file has none."""
    try:
        blob = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return [], 0
    frames: list[Frame] = []
    at = 0
    while (found := _frame_at(blob, at)) is not None:
        frame, at = found
        frames.append(frame)
    return frames, at


def _frame_at(blob: bytes, at: int) -> tuple[Frame, int] | None:
    line_end = blob.find(b"\n", at)
    if line_end < 0:
        return None
    try:
        crc = int(blob[at : at + 8], 16)
        head = json.loads(blob[at + 9 : line_end])
        end = line_end + 1 + int(head["bytes"])
        if end > len(blob) or zlib.crc32(blob[at + 9 : end]) != crc:
            return None
        tables: dict[str, TableBytes] = {}
        place = line_end + 1
        for name, size, rows, first, last in head["tables"]:
            tables[name] = TableBytes(blob[place : place + size], rows, first, last)
            place += size
        return Frame(head["ok"], head["ends"], tables, head["seconds"]), end
    except (ValueError, KeyError, TypeError):
        return None


def end_row(end: CellEnd) -> EndRow:
    return [
        *(end.job, end.attempt, str(end.state), str(end.cause), end.message, end.seconds),
        list(end.undeclared),
    ]


def end_of(row: EndRow) -> CellEnd:
    job, attempt, state, cause, message, seconds, undeclared = row
    return CellEnd(
        int(job),  # type: ignore[call-overload]
        int(attempt),  # type: ignore[call-overload]
        AttemptState(str(state)),
        Cause(str(cause)),
        str(message),
        seconds if isinstance(seconds, float) else None,
        tuple(undeclared) if isinstance(undeclared, list | tuple) else (),
    )


def once(frames: Sequence[Frame]) -> list[Frame]:
    """The frames without cells that had ended in an earlier one, and without the rows of those.

    A worker writes each cell once; a process that it left behind may have written some of them again.
    """
    seen: set[int] = set()
    out: list[Frame] = []
    for frame in frames:
        told = {*frame.ok, *(int(row[0]) for row in frame.ends)}  # type: ignore[call-overload]
        new = told - seen
        seen |= new
        if len(new) == len(told):
            out.append(frame)
            continue
        tables = {name: only_of(table, new) for name, table in frame.tables.items()}
        out.append(
            Frame(
                [job for job in frame.ok if job in new],
                [row for row in frame.ends if row[0] in new],
                {name: table for name, table in tables.items() if table.rows},
                frame.seconds,
            )
        )
    return out


def only_of(table: TableBytes, jobs: Collection[int]) -> TableBytes:
    """The rows of these jobs; zero bytes when there are none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    with pa.ipc.open_stream(pa.py_buffer(table.data)) as reader:
        rows = reader.read_all()
    keep = pc.is_in(rows.column("job"), value_set=pa.array(sorted(jobs), pa.int64()))
    if pc.all(keep).as_py() is not False and rows.num_rows == table.rows:
        return table
    rows = rows.filter(keep).combine_chunks()
    if not rows.num_rows:
        return TableBytes(b"", 0, 0, 0)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    ends = pc.min_max(rows.column("job")).as_py()
    return TableBytes(sink.getvalue().to_pybytes(), rows.num_rows, ends["min"], ends["max"])


def joined(frames: Iterable[Mapping[str, TableBytes]]) -> dict[str, TableBytes]:
    """The tables of several flushes as one stream each. One flush alone is passed on as it is."""
    found: dict[str, list[TableBytes]] = {}
    for tables in frames:
        for name, table in tables.items():
            found.setdefault(name, []).append(table)
    return {name: parts[0] if len(parts) == 1 else _concat(parts) for name, parts in found.items()}


def _concat(parts: Sequence[TableBytes]) -> TableBytes:
    import pyarrow as pa

    tables = [pa.ipc.open_stream(p.data).read_all() for p in parts]
    whole = pa.concat_tables(tables).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole)
    return TableBytes(
        sink.getvalue().to_pybytes(),
        sum(p.rows for p in parts),
        min(p.first for p in parts),
        max(p.last for p in parts),
    )
