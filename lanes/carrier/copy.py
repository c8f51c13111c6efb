"""The head's copy of one run directory on a lane, as far as it has come: the same files as on `local`."""

from __future__ import annotations

import binascii
import contextlib
import os
import threading
from pathlib import Path
from typing import Any

from core.fsio import no_space, read_json, write_atomic
from core.home import Home
from core.rundir import RunDir
from lanes.agent.news import GROWING, OVERLAP, WHOLE
from lanes.agent.trees import remove_tree
from lanes.harvest import NoRoom

PARTIAL = ".partial"  # in the run directory: what is not whole yet


class Copy:
    """What we have of an attempt, and who writes to it just now.

    Logs and rows are appended to in place, so that whoever follows them on the head sees them grow; all else comes
    into its place by rename, when it is whole and its digest is right.
    """

    def __init__(self, home: Home, job: int, n: int) -> None:
        self.job = job
        self.n = n
        self.run: RunDir = home.run_dir(job, n)
        self.lock = threading.RLock()
        self.files = threading.Lock()  # held by whoever fetches whole files: checkpoints, or all that is sealed
        self.fetching = False  # what is sealed is being fetched: nothing else writes here
        self.checkpoints: list[list[Any]] = []  # completed ones on the lane: [step, signature]
        self.mirrored: dict[int, str] = {}  # step -> signature of those that are here
        self.refused: set[tuple[int, str]] = set()  # those that are none, or went away while they were read
        self._inodes: dict[str, int] = {}
        self._whole: dict[str, str] = {}

    @property
    def key(self) -> str:
        return f"{self.job}.{self.n}"

    @property
    def partial(self) -> Path:
        return self.run.path / PARTIAL

    def spec(self) -> dict[str, Any]:
        """What this head had the lane run; empty when it did not (or does not know any more)."""
        found = read_json(self.run.spec, {})
        return found if isinstance(found, dict) else {}

    def wanted(self) -> dict[str, Any] | None:
        """What to ask the lane for; None when there is nothing to mirror."""
        with self.lock:
            nonce = self.spec().get("nonce")
            if not nonce or self.fetching or self.run.manifest.exists():
                return None
            grown = {name: self._end(name) for name in GROWING}
            whole = {name: self._whole[name] for name in WHOLE if name in self._whole}
            return {"nonce": nonce, "grown": grown, "whole": whole}

    def take(self, name: str, row: dict[str, Any], blob: bytes) -> str:
        """Put news in place. Returns a sentence when a file began anew.

        Raises:
            NoRoom: our disk is full; the file is as it was.
        """
        with self.lock:
            if self.fetching or self.run.manifest.exists() or not self.run.path.is_dir():
                return ""
            try:
                if "signature" in row:
                    write_atomic(self.run.path / name, blob, sync=False)
                    self._whole[name] = str(row["signature"])
                    return ""
                return self._append(name, row, blob)
            except OSError as error:
                if no_space(error):
                    raise NoRoom(f"the head's disk is full: {error}") from error
                raise

    def next_checkpoint(self) -> tuple[int, str] | None:
        """The newest on the lane that is not here, and newer than all that are; None: nothing to bring."""
        there = {(int(step), str(signature)) for step, signature in self.checkpoints}
        found = max(there - self.refused, default=None)
        return None if found is None or self.mirrored.get(found[0]) == found[1] else found

    def forget_partial(self) -> None:
        remove_tree(self.partial)

    def _append(self, name: str, row: dict[str, Any], blob: bytes) -> str:
        path = self.run.path / name
        size = _size(path)
        offset = int(row["offset"])
        said = ""
        if offset == 0 and size:
            os.truncate(path, 0)
            size = 0
            said = f"{name} of attempt {self.key} is another file now on the lane: it begins anew"
        self._inodes[name] = int(row["inode"])
        if offset != size:
            return said  # an answer to an older question
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            view = memoryview(blob)
            while view:
                view = view[os.write(fd, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)
            raise
        finally:
            os.close(fd)
        return said

    def _end(self, name: str) -> list[int]:
        """[size, inode on the lane or 0, crc32 of the last bytes] of our copy of a growing file."""
        path = self.run.path / name
        size = _size(path)
        back = min(OVERLAP, size)
        tail = b""
        if back:
            with path.open("rb") as f:
                f.seek(size - back)
                tail = f.read(back)
        return [size, self._inodes.get(name, 0), binascii.crc32(tail)]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
