"""Where the output of a job is: a log of its own, or the slices of a batch's log that are its own."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from core.home import Home
from core.journal import query
from core.journal.query import Job

LOG, INDEX = "log.txt", "log.idx"


@dataclass(frozen=True)
class Whole:
    """A file that is one attempt's alone."""

    path: Path


@dataclass(frozen=True)
class Slices:
    """Parts of the log of a batch, each (first byte, byte after the last); `known` once the batch has ended."""

    path: Path
    parts: tuple[tuple[int, int], ...]
    known: bool

    def read(self) -> bytes:
        try:
            with self.path.open("rb") as f:
                out = b""
                for start, end in self.parts:
                    f.seek(start)
                    out += f.read(max(0, end - start))
                return out
        except OSError:
            return b""


def where(home: Home, conn: sqlite3.Connection, job: Job, n: int) -> Whole | Slices:
    """What attempt `n` of `job` printed, and where it lies."""
    batch = query.batch_of(conn, job.id, n if n != job.attempts else None) if job.pooled else None
    if batch is None:
        return Whole(home.run_dir(job.id, n).log)
    folder = home.batches / batch.dir
    parts = []
    try:
        lines = (folder / INDEX).read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        try:
            row = json.loads(line)
            if row["job"] == job.id:
                parts.append((int(row["from"]), int(row["to"])))
        except (ValueError, KeyError, TypeError):
            continue  # a line that a death cut off
    return Slices(folder / LOG, tuple(parts), bool(lines) or job.state.terminal)
