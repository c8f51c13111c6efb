"""Copies of the journal, made beside the work by SQLite's own backup call. Of the automatic ones the last few stay."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path
from urllib.parse import quote

from core.fsio import fsync_dir
from core.home import Home

KEEP = 3
EVERY_S = 600.0


class Backups:
    """Makes a backup in a thread of its own, at most every ten minutes and only when there is something new."""

    def __init__(self, home: Home, *, every_s: float = EVERY_S) -> None:
        self._home = home
        self._every = every_s
        self._due = time.monotonic()
        self._thread: threading.Thread | None = None

    def maybe(self) -> None:
        if time.monotonic() >= self._due and not (self._thread and self._thread.is_alive()):
            self._due = time.monotonic() + self._every
            self._thread = threading.Thread(target=self._quietly, name="backup", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """One last backup at a graceful end."""
        if self._thread is not None:
            self._thread.join(timeout=30)
        self._quietly()

    def _quietly(self) -> None:
        # A backup that cannot be made (disk full) must not disturb the work that it is for.
        with contextlib.suppress(OSError, sqlite3.Error):
            backup(self._home)


def backup(home: Home) -> str:
    """Copy the journal to backups/journal-SEQ.db, whole or not at all. Returns the file's name."""
    # mode=rw: a journal that is gone is not replaced by an empty one.
    uri = f"file:{quote(os.fsencode(home.journal))}?mode=rw"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=30)) as source:
        name = copy_whole(source, home.backups, "journal-{seq:012d}.db")
    for old in sorted(home.backups.glob("journal-*.db"))[:-KEEP]:
        old.unlink(missing_ok=True)
    return name


def copy_whole(source: sqlite3.Connection, folder: Path, name: str) -> str:
    """Copy an open journal into `folder`, whole or not at all. Returns the file's name.

    Args:
        name: what to call it; `{seq}` stands for its last event.
    """
    folder.mkdir(exist_ok=True)
    tmp = folder / f".copy.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        # It holds what the journal holds: for our eyes only.
        fd = os.open(tmp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.close(fd)
        with contextlib.closing(sqlite3.connect(tmp)) as copy:
            source.backup(copy)
            name = name.format(seq=int(copy.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0]))
        with tmp.open("rb") as f:
            os.fsync(f.fileno())
        tmp.replace(folder / name)
        fsync_dir(folder)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            tmp.with_name(tmp.name + suffix).unlink(missing_ok=True)
    return name
