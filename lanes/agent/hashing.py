"""Digests of data that lies on this lane: as the head would compute them, and remembered for large files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from core.fsio import digest, walk_files, write_json
from lanes.agent.safe import read_dict

SETTLED_S = 2.0  # a file changed more recently than this may change again within one tick of its clock
_REMEMBER = 1 << 20  # smaller files are hashed again
_CHUNK = 1 << 20


class Hashing:
    """The digest of one path, as the head would compute it.

    Args:
        notes: the folder in which digests of large files are kept.
    """

    def __init__(self, notes: Path) -> None:
        self._notes = notes
        self.done = 0  # bytes so far

    def of(self, path: Path) -> Dict[str, Any]:
        """{"sha256", "size", "tree", "signature"} of a file or folder."""
        if not path.is_dir():
            found, size, seen = self._file(path)
            return {"sha256": found, "size": size, "tree": False, "signature": digest(seen)}
        rows, total, marks = [], 0, []
        for rel in walk_files(path):
            full = path / rel
            if full.is_dir():
                rows.append([rel.as_posix(), "link:" + os.readlink(full)])
                continue
            found, size, seen = self._file(full)
            rows.append([rel.as_posix(), found])
            marks.append([rel.as_posix(), seen])
            total += size
        return {"sha256": digest(rows), "size": total, "tree": True, "signature": digest(marks)}

    def _file(self, path: Path) -> Tuple[str, int, List[int]]:
        for _ in range(3):
            info = os.stat(path)
            if not stat.S_ISREG(info.st_mode):
                raise ValueError(f"{path} is neither a file nor a folder")
            seen = _signature(info)
            note = self._notes / f"lane-{info.st_dev}-{info.st_ino}.json"
            known = read_dict(note) if info.st_size >= _REMEMBER else {}
            if known.get("signature") == seen:
                self.done += info.st_size
                return str(known["sha256"]), info.st_size, seen
            found = sha256_of(path, self._count)
            if _signature(os.stat(path)) == seen:
                young = time.time() - max(info.st_mtime, info.st_ctime) <= SETTLED_S
                if info.st_size >= _REMEMBER and not young:
                    with contextlib.suppress(OSError):
                        note.parent.mkdir(parents=True, exist_ok=True)
                        write_json(note, {"signature": seen, "sha256": found, "path": str(path)}, sync=False)
                return found, info.st_size, seen
        raise OSError(0, "it changes while it is being read", str(path))

    def _count(self, size: int) -> None:
        self.done += size


def sha256_of(path: Path, count: Callable[[int], None] = lambda size: None) -> str:
    """SHA-256 (hex) of a file; `count` is told of bytes as they are read."""
    h = hashlib.sha256()
    with open(path, "rb", buffering=0) as f:
        while True:
            block = f.read(_CHUNK)
            if not block:
                return h.hexdigest()
            h.update(block)
            count(len(block))


def _signature(info: os.stat_result) -> List[int]:
    return [info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]
