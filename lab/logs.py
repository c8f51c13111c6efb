"""Reading what programs printed, made harmless: a log must not move the reader's cursor or retitle the window."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path

from core.home import Home
from core.journal.query import Job
from lab.batchlog import Whole, where

# Operating-system commands and other strings up to their end, control sequences, two-byte escapes.
_ESCAPES = re.compile(
    r"\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]|\x9b[0-?]*[ -/]*[@-~]", re.DOTALL
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CHUNK = 1 << 16


def plain_line(line: str) -> str:
    """One line without escapes; of a line that a progress bar wrote over, what was seen last."""
    line = _ESCAPES.sub("", line)
    if "\r" in line:
        pieces = [p for p in line.split("\r") if p.strip()]
        line = pieces[-1] if pieces else ""
    return _CONTROL.sub("", line)


def tail(path: Path, count: int) -> list[str]:
    """The last `count` lines of a log; empty when there is none."""
    try:
        with path.open("rb") as f:
            end = f.seek(0, os.SEEK_END)
            blob = b""
            while end > 0 and blob.count(b"\n") <= count:
                start = max(0, end - _CHUNK)
                f.seek(start)
                blob = f.read(end - start) + blob
                end = start
    except OSError:
        return []
    return lines_of(blob)[-count:] if count else []


def lines_of(blob: bytes) -> list[str]:
    """All lines of a log that is at hand."""
    lines = blob.decode(errors="replace").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [plain_line(line) for line in lines]


def log_tail(home: Home, conn: sqlite3.Connection, job: Job, count: int) -> list[str]:
    """The last lines of the newest attempt of a job, wherever it ran."""
    found = where(home, conn, job, job.attempts)
    if isinstance(found, Whole):
        return tail(found.path, count)
    return lines_of(found.read())[-count:] if count else []


class LogReader:
    """Follows one growing log file, giving whole lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._rest = b""

    def skip_to_tail(self, count: int) -> None:
        """Start at the last `count` lines instead of at the beginning."""
        try:
            with self.path.open("rb") as f:
                end = f.seek(0, os.SEEK_END)
                blob, start = b"", end
                while start > 0 and blob.count(b"\n") <= count:
                    start = max(0, start - _CHUNK)
                    f.seek(start)
                    blob = f.read(end - start)
        except OSError:
            return
        cut = len(blob)
        for _ in range(count + (not blob.endswith(b"\n"))):
            found = blob.rfind(b"\n", 0, max(0, cut - 1))
            cut = found + 1
            if found < 0:
                break
        self._offset = start + cut if count else end

    def lines(self, *, final: bool = False) -> list[str]:
        """Lines that came since the last call; with `final` also one that has no end."""
        try:
            with self.path.open("rb") as f:
                f.seek(self._offset)
                new = f.read(16 * _CHUNK)
                self._offset += len(new)
        except OSError:
            new = b""
        *whole, self._rest = (self._rest + new).split(b"\n")
        if final and not new and self._rest:
            whole, self._rest = [*whole, self._rest], b""
        return [plain_line(line.decode(errors="replace")) for line in whole]
