"""Declared inputs of cells: the files themselves, proven to be what they were when the job was submitted.

A cell reads them where they lie (a copy would cost more than the cell). So they are hashed once per worker and
version of the file, and looked at again before what was computed from them is written down.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lanes.agent.setup import SETTLED_S

Signature = tuple[int, ...]


class Inputs:
    """What this worker knows about files. Shared by all batches."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Signature, str]] = {}

    def stale(self, items: Sequence[Mapping[str, Any]]) -> str:
        """A sentence about the first input that is not what it was at submit; empty when all are."""
        for item in items:
            path = str(item["path"])
            try:
                found = self._digest(path)
            except OSError as error:
                return f"the input {item['name']!r} ({path}) cannot be read: {error.strerror}"
            if found != item["sha256"]:
                return (
                    f"the input {item['name']!r} ({path}) is not what it was when the job was submitted "
                    f"({found[:12]} now, {str(item['sha256'])[:12]} then); submit again to use the new one"
                )
        return ""

    def _digest(self, path: str) -> str:
        before = _signature(path)
        known = self._known.get(path)
        if known is not None and known[0] == before:
            return known[1]
        h = hashlib.sha256()
        with open(path, "rb", buffering=0) as f:
            while block := f.read(1 << 20):
                h.update(block)
        found = h.hexdigest()
        # One that changed a moment ago may change again within one tick of its clock.
        if time.time() - max(before[3:5]) / 1e9 > SETTLED_S and _signature(path) == before:
            self._known[path] = (before, found)
        return found


def _signature(path: str | Path) -> Signature:
    info = os.stat(path)
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
