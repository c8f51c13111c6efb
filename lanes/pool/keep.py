"""What is kept of a batch: notes of finished cells become frames of the spool, log slices, step rows, and the seal.

Two threads may ask for a flush: the loop between two cells, and a helper while a long cell runs. The loop only ever
appends to `finished`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from core.errors import BadInput
from core.failpoint import failpoint
from core.fsio import no_space, sha256_file
from lanes.child import outcome_of
from lanes.pool.columns import CellRows, Columns
from lanes.pool.folder import (
    ENV,
    INDEX,
    LOG,
    METRICS,
    NEW_MANIFEST,
    SPEC,
    Appended,
    Listed,
    Spare,
    fill,
    seal,
    write_new,
)
from lanes.pool.spool import FILE, EndRow, Frame, SpoolWriter, joined
from lanes.pool.types import TableBytes

# The answer for a batch of which nothing was done.
NOTHING: dict[str, Any] = {
    "ok": [],
    "ends": [],
    "back": [],
    "tables": {},
    "seconds": 0.0,
    "manifest": None,
    "broken": "",
}

End = tuple[Any, ...]  # state, cause, message, seconds, undeclared


class Ended(NamedTuple):
    """How one cell ended. `end` is None for one that plainly succeeded."""

    job: int
    attempt: int
    end: End | None
    rows: dict[str, list[Any]] | None
    steps: list[dict[str, Any]] | None


class Keeper:
    """The run directory of one batch while it is filled.

    Attributes:
        finished: cells that ended and are not yet on disk.
        broken: why nothing more can be written; empty while it can.
        no_room: the disk is full.
    """

    def __init__(
        self,
        order: Mapping[str, Any],
        cells: Sequence[Any],
        columns: Columns,
        stale: Callable[[], str],
        spare: Spare,
    ) -> None:
        self.finished: deque[Ended] = deque()
        self.broken = ""
        self.no_room = False
        self._order = order
        self._cells = cells
        self._columns = columns
        self._stale = stale
        self._spare = spare
        self._folder = str(order["folder"])
        self._lock = threading.Lock()
        self._ok: list[int] = []
        self._ends: list[EndRow] = []
        self._tables: list[dict[str, TableBytes]] = []
        self._slices: list[tuple[int, int, int]] = []
        self._files: dict[str, Listed] = {}
        self._spool: SpoolWriter | None = None
        self._log_fd = self._manifest_fd = -1
        self._outside: tuple[int, int] | None = None
        self._metrics = Appended(f"{self._folder}/{METRICS}")
        self._flushed = self._begun = time.monotonic()

    def begin(self, spec: bytes, env: bytes) -> bool:
        """Make the folder and its first files. False when that cannot be done, or an input is stale: see `end`."""
        try:
            why = self._stale()
            if why:
                self._refuse("stale-input", why, every=True)
                return False
            fds = self._spare.take(self._folder)
            self._log_fd, self._manifest_fd = fds[LOG], fds[NEW_MANIFEST]
            self._spool = SpoolWriter(fds[FILE])
            try:
                self._files[SPEC] = fill(fds[SPEC], self._spec(spec))
            finally:
                self._files[ENV] = self._spare.env(fds, env)
        except OSError as error:
            if no_space(error):
                self._give_back()
            else:
                self._refuse("setup", f"the run directory {self._folder} cannot be made: {error}")
            return False
        self._outside = (os.dup(1), os.dup(2))
        os.dup2(self._log_fd, 1)
        os.dup2(self._log_fd, 2)
        return True

    def printed(self, job: int, start: int, end: int) -> None:
        """The log from `start` to `end` is this cell's."""
        self._slices.append((job, start, end))

    def flush_if_late(self, after_s: float) -> None:
        if self.finished and time.monotonic() - self._flushed >= after_s:
            self.flush()

    def flush(self) -> None:
        """Put everything that is finished on disk. A disk that is full breaks the batch; it never raises."""
        with self._lock:
            taken: list[Ended] = []
            while self.finished:
                taken.append(self.finished.popleft())
            self._flushed = time.monotonic()
            if not taken:
                return
            try:
                self._write(taken)
            except Exception as error:
                self.broken = f"the results could not be written: {error}"
                self.no_room = no_space(error)
                cause = "disk-full" if self.no_room else "error"
                for cell in taken:
                    end = cell.end if cell.end and cell.end[0] != "succeeded" else None
                    self._ends.append(_row(cell, end or ("failed", cause, self.broken, None, ())))

    def fail(self, index: int, error: Exception) -> None:
        """The loop cannot go on, with the cell `index` under way (-1: with none)."""
        self.broken = f"the worker could not go on: {type(error).__name__}: {error}"
        if 0 <= index < len(self._cells):
            job, attempt = self._cells[index][:2]
            self.finished.append(Ended(job, attempt, ("failed", "error", self.broken, None, ()), None, None))

    def end(self, seconds: float) -> dict[str, Any]:
        """Close and seal. Returns the batch's end as plain values."""
        self.flush()
        failpoint("pool.before_seal")
        manifest = self._seal(seconds)
        known = set(self._ok)
        known.update(int(row[0]) for row in self._ends)  # type: ignore[call-overload]
        back = [cell[0] for cell in self._cells if cell[0] not in known] if len(known) < len(self._cells) else []
        tables = joined(self._tables)
        return {
            "ok": sorted(self._ok),
            "ends": self._ends,
            "back": back,
            "tables": {name: (t.data, t.rows, t.first, t.last) for name, t in tables.items()},
            "seconds": seconds,
            "manifest": manifest,
            "broken": self.broken,
            "no_room": self.no_room,
        }

    def _write(self, taken: list[Ended]) -> None:
        tables, wrong = self._convert(taken)
        stale = self._stale()
        ok: list[int] = []
        ends: list[EndRow] = []
        steps: list[dict[str, Any]] = []
        for cell in taken:
            end: End | None = cell.end
            if stale and (end is None or end[0] == "succeeded"):
                end = ("failed", "stale-input", stale, None, ())
            elif cell.job in wrong:
                end = wrong[cell.job]
            if end is None:
                ok.append(cell.job)
            else:
                ends.append(_row(cell, end))
            if cell.steps:
                steps += cell.steps
        frame = Frame(ok, ends, {} if stale else tables, time.monotonic() - self._begun)
        assert self._spool is not None
        self._spool.append(frame)
        self._ok += ok
        self._ends += ends
        self._tables.append(frame.tables)
        if steps:
            self._metrics.append("".join([json.dumps(s, separators=(",", ":")) + "\n" for s in steps]).encode())

    def _convert(self, taken: list[Ended]) -> tuple[dict[str, TableBytes], dict[int, End]]:
        """Rows of all cells that succeeded as streams, and the cells whose rows cannot be converted."""
        wrong: dict[int, End] = {}
        while True:
            by_table: dict[str, list[CellRows]] = {}
            for cell in taken:
                if cell.rows and cell.job not in wrong:
                    for table, rows in cell.rows.items():
                        if rows:
                            by_table.setdefault(table, []).append((cell.job, cell.attempt, rows))
            streams: dict[str, TableBytes] = {}
            found: dict[int, BadInput] = {}
            for table, cells in by_table.items():
                stream, blamed = self._columns.stream(table, cells)
                found.update(blamed)
                if stream is not None:
                    streams[table] = stream
            if not found:
                return streams, wrong
            # None of a cell's tables counts when one of them is wrong: convert once more, without it.
            for job, error in found.items():
                said, _ = outcome_of(error)
                wrong[job] = ("failed", str(said["cause"]), str(said["message"]), None, ())

    def _refuse(self, cause: str, message: str, *, every: bool = False) -> None:
        """Nothing was begun. One cell says why, unless the reason is one of all of them."""
        for cell in self._cells if every else self._cells[:1]:
            self._ends.append([cell[0], cell[1], "failed", cause, message, None, []])

    def _give_back(self) -> None:
        """The disk is full. That is no fault of any cell: they are as if never placed, and nothing is left of this."""
        self.no_room = True
        if self._spool is not None:
            with contextlib.suppress(OSError):
                self._spool.close()
            for fd in (self._log_fd, self._manifest_fd):
                os.close(fd)
            self._spool = None
            self._log_fd = self._manifest_fd = -1
            self._files.clear()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _spec(self, spec: bytes) -> bytes:
        head = {name: self._order[name] for name in ("nonce", "dir", "lane", "spec_digest", "grant")}
        cells = ",\n".join(['[%d,%d,"%s",%s]' % cell for cell in self._cells])  # noqa: UP031 (twice as fast)
        text = json.dumps({"version": 1, **head}, sort_keys=True)[:-1]
        return b"".join([text.encode(), b',\n"spec": ', spec, b',\n"cells": [\n', cells.encode(), b"\n]}\n"])

    def _seal(self, seconds: float) -> str | None:
        if self._outside is not None:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            for number, old in zip((1, 2), self._outside, strict=True):
                os.dup2(old, number)
                os.close(old)
        if self._spool is None:
            return None
        files = self._files
        try:
            size = os.fstat(self._log_fd).st_size if self._log_fd >= 0 else 0
            os.close(self._log_fd)
            log = f"{self._folder}/{LOG}"
            files[LOG] = [sha256_file(log) if size else _NOTHING, size]
            if self._slices:
                lines = [f'{{"job":{job},"from":{start},"to":{end}}}\n' for job, start, end in self._slices]
                files[INDEX] = write_new(f"{self._folder}/{INDEX}", "".join(lines).encode())
            metrics = self._metrics.close()
            if metrics is not None:
                files[METRICS] = metrics
            files[FILE] = self._spool.close()
            order = self._order
            head = {name: order[name] for name in ("nonce", "dir", "lane", "spec_digest")}
            failed = sum(1 for row in self._ends if row[2] != "succeeded")
            outcome = {
                "cause": "disk-full" if self.broken else "ok",
                "message": self.broken,
                "seconds": seconds,
                "succeeded": len(self._ok) + len(self._ends) - failed,
                "failed": failed,
            }
            return seal(self._folder, head, outcome, files, self._manifest_fd)
        except OSError as error:
            self.broken = self.broken or f"the batch could not be sealed: {error}"
            self.no_room = self.no_room or no_space(error)
            return None


_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of no bytes


def _row(cell: Ended, end: End) -> EndRow:
    state, cause, message, seconds, undeclared = end
    return [cell.job, cell.attempt, state, cause, message, seconds, list(undeclared)]
