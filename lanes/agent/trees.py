"""Files and folders as a whole: are they what a list says, made read-only, removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path
from typing import Iterable

from lanes.agent.packing import Entry


def fits(path: Path, entries: Iterable[Entry]) -> bool:
    """Is everything there, with its size? A file alone is an entry without a name. Bytes are not read."""
    try:
        for entry in entries:
            info = os.lstat(path / entry.name if entry.name else path)
            if bool(entry.link) != stat.S_ISLNK(info.st_mode):
                return False
            if not entry.link and (info.st_size != entry.size or not stat.S_ISREG(info.st_mode)):
                return False
    except OSError:
        return False
    return True


def make_read_only(root: Path, *, folders: bool) -> None:
    """Files below `root`, and the folders too if asked; not `root` itself."""
    for here, _names, files in os.walk(root, topdown=False):
        for name in files:
            full = os.path.join(here, name)
            if not os.path.islink(full):
                os.chmod(full, os.stat(full).st_mode & 0o555)
        if folders and here != str(root):
            os.chmod(here, 0o555)


def remove_tree(path: Path) -> None:
    """Remove a file or folder, read-only or not."""
    if path.is_dir() and not path.is_symlink():
        for here, _names, _files in os.walk(path):
            with contextlib.suppress(OSError):
                os.chmod(here, 0o755)
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def size_of(path: Path) -> int:
    """Bytes of one file; 0 where there is none."""
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0
