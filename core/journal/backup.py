"""Automatic backups of the journal, made beside the work by SQLite's own backup call; the last few are kept."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time

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
    home.backups.mkdir(exist_ok=True)
    tmp = home.backups / f".backup.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        source = sqlite3.connect(home.journal, timeout=30)
        with contextlib.closing(source), contextlib.closing(sqlite3.connect(tmp)) as copy:
            source.backup(copy)
            seq = int(copy.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0])
        name = f"journal-{seq:012d}.db"
        with tmp.open("rb") as f:
            os.fsync(f.fileno())
        tmp.replace(home.backups / name)
        fsync_dir(home.backups)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            tmp.with_name(tmp.name + suffix).unlink(missing_ok=True)
    for old in sorted(home.backups.glob("journal-*.db"))[:-KEEP]:
        old.unlink(missing_ok=True)
    return name
