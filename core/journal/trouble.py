"""What can be wrong with a journal, in words for people, and the evidence that is kept of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

from core.errors import DiskFull, HomeInUse, JournalDamaged, LabError, Unavailable
from core.fsio import no_space
from core.home import Home

FREE = "free some space and try again"
_RECOVER = "keep the folder as it is and run `lab doctor --recover`"
EVIDENCE = ("damaged", "damaged.2", "damaged.3")


class Doubt(Exception):
    """Something looks like damage. It may also be another process half-way: who raises this is asked again."""


def damaged(home: Home, message: str) -> JournalDamaged:
    """Keep the evidence, then say so: closing the last connection would rewrite the log that is to be examined."""
    with contextlib.suppress(OSError):
        _keep(home)
    return JournalDamaged(message, hint=_RECOVER)


def _keep(home: Home) -> None:
    """Copy what there is into the first free folder of a few. What is kept already is not kept again."""
    # The log first: what a checkpoint moves from it to the journal meanwhile is then in both copies, not in neither.
    paths = [p for p in (Path(f"{home.journal}-wal"), home.journal, home.witness) if p.exists()]
    for name in EVIDENCE:
        folder = home.path / name
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            if all(_same(path, folder / path.name) for path in paths):
                return
            continue
        for path in paths:
            shutil.copy2(path, folder / path.name)
        return


def _same(path: Path, copy: Path) -> bool:
    if not copy.exists():
        return False
    ours, kept = path.stat(), copy.stat()
    return (ours.st_size, ours.st_mtime_ns) == (kept.st_size, kept.st_mtime_ns)


def in_plain_words(home: Home, error: sqlite3.Error) -> LabError | None:
    """The sentence for an error of SQLite that says nothing against the journal itself, or None."""
    if no_space(error) or ("disk I/O error" in str(error) and disk_is_full(home.path)):
        return DiskFull(f"the disk of {home.path} is full: nothing was recorded", hint=FREE)
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
        return Unavailable(
            f"the journal of {home.path} is busy: another process has held it for too long, and nothing was recorded",
            hint="try again",
        )
    return None


def says_damaged(error: Exception) -> bool:
    return "malformed" in str(error) or "not a database" in str(error)


def being_recovered(home: Home) -> HomeInUse:
    return HomeInUse(f"the journal of {home.path} is being recovered", hint="try again when that is done")


def free_bytes(path: Path) -> int:
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize


def disk_is_full(path: Path) -> bool:
    return free_bytes(path) < 1 << 20
