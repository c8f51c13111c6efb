"""How much a submit would have to send, and where it lies: said before a large upload, not after it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.fsio import walk_files

LARGE = 256 << 20
SHOWN = 5


@dataclass(frozen=True)
class Weight:
    """Bytes in all, and the folders that hold most of them, largest first."""

    total: int
    largest: tuple[tuple[str, int], ...]

    @property
    def is_large(self) -> bool:
        return self.total > LARGE

    def __str__(self) -> str:
        """`3.2 GB; the largest folders: /data/a (2.9 GB), ...`"""
        named = ", ".join(f"{folder} ({human(size)})" for folder, size in self.largest)
        return f"{human(self.total)}; the largest folders: {named}" if named else human(self.total)


def weigh(paths: Iterable[str | Path], shown: int = SHOWN) -> Weight:
    """Weigh files and folders of the head. A path that is not there weighs nothing; each counts once.

    A folder's bytes are counted for its sub-folders one level down, those beside them for the folder itself.
    """
    sizes: dict[str, int] = {}
    for path in dict.fromkeys(Path(os.path.realpath(p)) for p in paths):
        if path.is_dir():
            for rel in walk_files(path):
                folder = path / rel.parts[0] if len(rel.parts) > 1 else path
                with contextlib.suppress(OSError):
                    sizes[str(folder)] = sizes.get(str(folder), 0) + (path / rel).stat().st_size
        else:
            with contextlib.suppress(OSError):
                sizes[str(path.parent)] = sizes.get(str(path.parent), 0) + path.stat().st_size
    rows = sorted(sizes.items(), key=lambda row: (-row[1], row[0]))
    return Weight(sum(sizes.values()), tuple(rows[:shown]))


def largest(paths: Iterable[str | Path], shown: int = SHOWN) -> list[tuple[str, int]]:
    """The folders that hold most of `paths`: (folder, bytes), largest first."""
    return list(weigh(paths, shown).largest)


def human(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit in ("B", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
