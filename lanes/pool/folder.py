"""The run directory of a batch: few small files, and a manifest over them, written last.

    batches/DIR/  spec.json      the batch as it was asked for: spec, grant, every cell with its parameters
                  env.json       what was realised
                  log.txt        what cells printed, and tracebacks      log.idx  which part of it is whose
                  metrics.jsonl  step rows with their job
                  cells.spool    how cells ended, and their rows, as they finished
                  manifest.json  <- written last: the seal

Nothing is synced: what a batch found out becomes durable in the journal.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.fsio import sha256_file

SPEC, ENV, METRICS, MANIFEST = "spec.json", "env.json", "metrics.jsonl", "manifest.json"
LOG, INDEX = "log.txt", "log.idx"
VERSION = 1
_ENCODE = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode

Listed = list[object]  # [sha256, bytes], as in every manifest


def write_new(path: Path | str, blob: bytes) -> Listed:
    """Write a file that is not there yet. Returns how a manifest lists it.

    Raises:
        OSError: there is one already, or the disk is full.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        view = memoryview(blob)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
    return [hashlib.sha256(blob).hexdigest(), len(blob)]


class Appended:
    """A file that grows, made when there is something to put into it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._sha = hashlib.sha256()
        self._size = 0

    def append(self, blob: bytes) -> None:
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        view = memoryview(blob)
        while view:
            view = view[os.write(self._fd, view) :]
        self._sha.update(blob)
        self._size += len(blob)

    def close(self) -> Listed | None:
        """How a manifest lists it; None when it was never made."""
        if self._fd < 0:
            return None
        os.close(self._fd)
        self._fd = -1
        return [self._sha.hexdigest(), self._size]


def seal(folder: str, head: Mapping[str, Any], outcome: Mapping[str, Any], files: Mapping[str, Listed]) -> str:
    """Write the manifest by rename. Returns its SHA-256."""
    manifest = {"version": VERSION, **head, "outcome": outcome, "files": files}
    blob = _ENCODE(manifest).encode() + b"\n"
    tmp = f"{folder}/.{MANIFEST}.{os.getpid()}.tmp"
    write_new(tmp, blob)
    os.rename(tmp, f"{folder}/{MANIFEST}")
    return hashlib.sha256(blob).hexdigest()


def seal_dead(folder: Path, head: Mapping[str, Any], outcome: Mapping[str, Any]) -> str | None:
    """Seal what a worker that died left, as it lies. None when there is nothing, or it cannot be done."""
    if not (folder / SPEC).is_file():
        return None
    try:
        files: dict[str, Listed] = {}
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.name.startswith(".") and path.name != MANIFEST:
                files[path.name] = [sha256_file(path), path.stat().st_size]
        return seal(str(folder), head, outcome, files)
    except OSError:
        return None
