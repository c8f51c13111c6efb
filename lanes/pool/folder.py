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

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.fsio import sha256_file

SPEC, ENV, METRICS, MANIFEST = "spec.json", "env.json", "metrics.jsonl", "manifest.json"
LOG, INDEX, SPOOL = "log.txt", "log.idx", "cells.spool"
SPARE = ".spare"  # among the run directories: those that have no batch yet
NEW_MANIFEST = ".manifest.json.tmp"
VERSION = 1
_ENCODE = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode

Listed = list[object]  # [sha256, bytes], as in every manifest


def write_new(path: Path | str, blob: bytes) -> Listed:
    """Write a file that is not there yet. Returns how a manifest lists it.

    Raises:
        OSError: there is one already, or the disk is full.
    """
    return fill(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), blob)


def fill(fd: int, blob: bytes) -> Listed:
    """Write a file that is open and empty, and close it. Returns how a manifest lists it."""
    try:
        view = memoryview(blob)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
    return [hashlib.sha256(blob).hexdigest(), len(blob)]


class Spare:
    """A run directory that is made before there is a batch for it: making files takes longer than a short cell.

    Args:
        place: where it lies until it gets its name; on the disk of the run directories.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._taken = ""
        self._made = 0
        self._fds: dict[str, int] = {}
        self._env: tuple[bytes, Listed] | None = None  # what the file for it holds already

    def make(self, env: bytes | None = None) -> None:
        """Make one, unless there is one.

        Args:
            env: what its env.json will most likely hold: it is written now.

        Raises:
            OSError: the disk is full, say.
        """
        if self._fds:
            return
        self._made += 1
        folder = f"{self._place}-{self._made}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.dirname(folder))
        os.mkdir(folder)
        flags = os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            for name in (SPEC, ENV, LOG, SPOOL, NEW_MANIFEST):
                self._fds[name] = os.open(
                    f"{folder}/{name}", flags | (os.O_RDWR if name == LOG else os.O_WRONLY), 0o644
                )
            self._env = None
            if env is not None:
                self._env = env, fill(self._fds.pop(ENV), env)
        except OSError:
            self._drop()
            raise

    def env(self, fds: dict[str, int], env: bytes) -> Listed:
        """See that the env.json of the folder just taken holds `env`. Returns how a manifest lists it."""
        ahead, self._env = self._env, None
        if ahead is None:
            return fill(fds[ENV], env)
        if ahead[0] == env:
            return ahead[1]
        os.unlink(f"{self._taken}/{ENV}")
        return write_new(f"{self._taken}/{ENV}", env)

    def take(self, folder: str) -> dict[str, int]:
        """Give it its name. Returns the files of it, open and empty.

        Raises:
            OSError: there is such a folder already, or it cannot be made.
        """
        if os.path.lexists(folder):
            raise FileExistsError(errno.EEXIST, "there is one already", folder)
        if not self._named(folder):
            self.make()
            os.rename(f"{self._place}-{self._made}", folder)
        fds, self._fds, self._taken = self._fds, {}, folder
        return fds

    def _named(self, folder: str) -> bool:
        """Use the one that is there. False when there is none any more: somebody tidied up."""
        if not self._fds:
            return False
        try:
            os.rename(f"{self._place}-{self._made}", folder)
        except OSError:
            self._drop()
            return False
        return True

    def _drop(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds, self._env = {}, None
        shutil.rmtree(f"{self._place}-{self._made}", ignore_errors=True)


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


def seal(
    folder: str, head: Mapping[str, Any], outcome: Mapping[str, Any], files: Mapping[str, Listed], fd: int = -1
) -> str:
    """Write the manifest by rename. Returns its SHA-256.

    Args:
        fd: of the file that becomes the manifest, where it is open already.
    """
    manifest = {"version": VERSION, **head, "outcome": outcome, "files": files}
    blob = _ENCODE(manifest).encode() + b"\n"
    tmp = f"{folder}/{NEW_MANIFEST}" if fd >= 0 else f"{folder}/.{MANIFEST}.{os.getpid()}.tmp"
    if fd >= 0:
        fill(fd, blob)
    else:
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
