"""SHA-256 of files, remembered by what the filesystem says of them.

A file is taken for unchanged while device, inode, size, mtime and ctime are what they were. A file changed less than
two seconds ago may change again within one tick of its clock, so what is younger is neither stored nor looked up.
The memory may be thrown away at any time: a damaged one is removed, and one that cannot be written is done without.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.fsio import digest, sha256_file, walk_files

SETTLED_S = 2.0

_CREATE = """CREATE TABLE IF NOT EXISTS digest(
    dev INTEGER NOT NULL, ino INTEGER NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL,
    sha256 TEXT NOT NULL, PRIMARY KEY(dev, ino)) WITHOUT ROWID"""


@dataclass(frozen=True)
class Content:
    """What a path holds: its digest, its bytes, and whether it is a folder."""

    sha256: str
    size: int
    tree: bool = False


class Digests:
    """The remembered digests of one home. Safe to share between threads and processes.

    Args:
        path: the sqlite file (`Home.digests`). Its folder is never made: without one nothing is remembered.
        clock: wall clock in seconds, the one that the filesystem's times are read against.
    """

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._conn = self._connect()
        self._fresh: list[tuple[int, int, int, int, int, str]] = []

    def __enter__(self) -> Digests:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Store what was learned, and let go of the file."""
        with self._lock:
            self._store()
            if self._conn is not None:
                self._conn.close()
                self._conn = None

    def of(self, path: Path) -> Content:
        """Digest of a file, or of a folder (see `tree`).

        Raises:
            OSError: it cannot be read, or a link below it leads nowhere.
        """
        return self.tree(path) if path.is_dir() else self.file(path)

    def file(self, path: Path) -> Content:
        """Digest of the bytes at `path`, links followed.

        Raises:
            OSError: it is not there, not a regular file, not readable, or never still while it was read.
        """
        for _ in range(3):
            before = os.stat(path)  # noqa: PTH116 - one system call, thousands of times
            if not stat.S_ISREG(before.st_mode):
                raise OSError(0, "it is not a regular file", str(path))
            known = self._lookup(before)
            if known is not None:
                return Content(known, before.st_size)
            found = sha256_file(path)
            after = os.stat(path)  # noqa: PTH116
            if _identity(before) == _identity(after):
                self._learn(after, found)
                return Content(found, after.st_size)
        raise OSError(0, "it changes while it is being read", str(path))

    def tree(self, folder: Path) -> Content:
        """Digest over the sorted listing of names and digests below `folder`; links to folders count by their text."""
        rows: list[list[str]] = []
        size = 0
        for rel in walk_files(folder):
            full = folder / rel
            if full.is_dir():
                rows.append([rel.as_posix(), f"link:{full.readlink()}"])
            else:
                content = self.file(full)
                rows.append([rel.as_posix(), content.sha256])
                size += content.size
        return Content(digest(rows), size, tree=True)

    def _lookup(self, info: os.stat_result) -> str | None:
        if self._conn is None or not self._settled(info):
            return None
        with self._lock:
            try:
                row = self._conn.execute(
                    "SELECT sha256 FROM digest WHERE dev = ? AND ino = ? AND size = ? AND mtime = ? AND ctime = ?",
                    _identity(info),
                ).fetchone()
            except sqlite3.OperationalError:  # busy: hashed instead
                return None
            except sqlite3.Error:
                self._forget()
                return None
        return str(row[0]) if row else None

    def _learn(self, info: os.stat_result, sha256: str) -> None:
        if self._conn is None or not self._settled(info):
            return
        with self._lock:
            self._fresh.append((*_identity(info), sha256))
            if len(self._fresh) >= 512:
                self._store()

    def _settled(self, info: os.stat_result) -> bool:
        # A time in the future is as little to be trusted as one just now.
        return self._clock() - max(info.st_mtime, info.st_ctime) > SETTLED_S

    def _store(self) -> None:
        if self._conn is None or not self._fresh:
            return
        rows, self._fresh = self._fresh, []
        try:
            self._conn.execute("BEGIN IMMEDIATE")
            self._conn.executemany("INSERT OR REPLACE INTO digest VALUES(?,?,?,?,?,?)", rows)
            self._conn.execute("COMMIT")
        except sqlite3.OperationalError:  # busy, read-only or a full disk: remembered another time
            with contextlib.suppress(sqlite3.Error):
                if self._conn.in_transaction:
                    self._conn.execute("ROLLBACK")
        except sqlite3.Error:
            self._forget()

    def _connect(self) -> sqlite3.Connection | None:
        if self._path is None or not self._path.parent.is_dir():
            return None
        for last in (False, True):
            conn = None
            try:
                conn = sqlite3.connect(self._path, timeout=1.0, isolation_level=None, check_same_thread=False)
                conn.execute("PRAGMA synchronous = OFF")
                conn.execute("PRAGMA journal_mode = WAL")
                conn.execute(_CREATE)
                # One row of each column: a file that is no such table shows itself here.
                conn.execute("SELECT dev, ino, size, mtime, ctime, sha256 FROM digest LIMIT 1").fetchone()
                return conn
            except sqlite3.OperationalError as error:
                if conn is not None:
                    conn.close()
                if "no such column" not in str(error) or last:
                    return None
                self._remove()
            except sqlite3.DatabaseError:
                if conn is not None:
                    conn.close()
                if last:
                    return None
                self._remove()
        return None

    def _forget(self) -> None:
        """The memory is damaged: remove it and go on without."""
        if self._conn is not None:
            with contextlib.suppress(sqlite3.Error):
                self._conn.close()
            self._conn = None
        self._remove()

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)


def _identity(info: os.stat_result) -> tuple[int, int, int, int, int]:
    return (_signed(info.st_dev), _signed(info.st_ino), info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def _signed(value: int) -> int:
    """SQLite's integers are signed; inode numbers of some filesystems use all 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value
