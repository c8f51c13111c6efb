"""Locks between the processes of a home: `flock`, which the kernel drops when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SHARED = fcntl.LOCK_SH
ALONE = fcntl.LOCK_EX
_POLL_S = 0.005
# Where SQLite itself puts the lock by which it lets nobody new into a database file (its file format says so).
_PENDING_BYTE = 0x40000000


@contextlib.contextmanager
def lock(path: Path, how: int, patience_s: float) -> Iterator[bool]:
    """Hold a lock on `path` (made when there is none); False when others held it for all of `patience_s`."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        got = _try_for(patience_s, lambda: fcntl.flock(fd, how | fcntl.LOCK_NB))
        try:
            yield got
        finally:
            # Said, not left to the close: a child that was forked meanwhile holds the same open file.
            fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


@contextlib.contextmanager
def nobody_new(database: Path, patience_s: float) -> Iterator[bool]:
    """Hold the lock of SQLite's own that keeps new connections waiting; those that are open go on reading.

    The last connection to close also needs it, to remove the write-ahead log *by its name*: it must not do so while
    another file takes that name. Neither may this process open and close `database` meanwhile: that drops the lock.
    """
    fd = os.open(database, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield _try_for(patience_s, lambda: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _PENDING_BYTE))
    finally:
        os.close(fd)


def _try_for(patience_s: float, attempt: Callable[[], None]) -> bool:
    deadline = 0.0
    while True:
        try:
            attempt()
            return True
        except (BlockingIOError, PermissionError):  # POSIX lets a lock be refused by either
            now = time.monotonic()
            deadline = deadline or now + patience_s
            if now >= deadline:
                return False
            time.sleep(_POLL_S)
