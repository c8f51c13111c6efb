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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.states import AttemptState, Cause
from lanes.pool.types import CellEnd, TableBytes

FILE = "cells.spool"

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
    """Appends frames and keeps the digest of what it wrote."""

    def __init__(self, path: Path | str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
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
