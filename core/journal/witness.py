"""The witness: a small file beside the journal that holds the last acknowledged sequence number.

SQLite opens a torn write-ahead log with fewer rows and no complaint. The witness is written after every commit, so
a journal shorter than its witness has lost something that somebody was promised.

Two slots, written in turn: a write that is torn leaves the other one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from core.fsio import fsync_dir, write_atomic

_SLOT = 128
_MAGIC = "lab-witness-1"


@dataclass(frozen=True)
class Seen:
    """What was acknowledged: at least `seq` events of `generation`, job ids up to `last_job`."""

    generation: str
    seq: int
    last_job: int


def read(path: Path) -> Seen | None:
    """The newest readable slot; None when the file does not exist.

    Raises:
        ValueError: the file exists and no slot of it can be read.
    """
    try:
        blob = path.read_bytes()
    except FileNotFoundError:
        return None
    slots = [s for s in (_parse(blob[:_SLOT]), _parse(blob[_SLOT : 2 * _SLOT])) if s]
    if not slots:
        raise ValueError(f"{path}: no readable slot")
    return max(slots, key=lambda s: s.seq)


def write(path: Path, seen: Seen, *, sync: bool = True) -> None:
    """Advance the witness. Never moves it back: of two writers the one that committed later wins.

    The witness of another generation is left alone: the journal was replaced, and what was written to the old one
    proves nothing about the new one.
    """
    if not path.exists():
        create(path, seen)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        blob = os.pread(fd, 2 * _SLOT, 0)
        slots = [_parse(blob[:_SLOT]), _parse(blob[_SLOT : 2 * _SLOT])]
        known = [s for s in slots if s]
        if any(s.generation != seen.generation or s.seq >= seen.seq for s in known):
            return
        # Overwrite the older (or unreadable) slot.
        ages = [s.seq if s else -1 for s in slots]
        os.pwrite(fd, _format(seen), _SLOT * ages.index(min(ages)))
        if sync:
            os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)
    finally:
        os.close(fd)


def reset(path: Path, seen: Seen) -> None:
    """Start over: the journal was recovered."""
    write_atomic(path, _whole(seen), mode=0o600)


def create(path: Path, seen: Seen) -> None:
    """Make the first witness, whole from the start. One that is there already is left as it is."""
    tmp = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        write_atomic(tmp, _whole(seen), mode=0o600)
        with contextlib.suppress(FileExistsError):
            os.link(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)
    fsync_dir(path.parent)


def _whole(seen: Seen) -> bytes:
    return _format(seen) + b" " * (_SLOT - 1) + b"\n"


def _format(seen: Seen) -> bytes:
    body = f"{_MAGIC} {seen.generation} {seen.seq} {seen.last_job}"
    line = f"{body} {zlib.crc32(body.encode()):08x}"
    return line.ljust(_SLOT - 1).encode() + b"\n"


def _parse(slot: bytes) -> Seen | None:
    try:
        magic, generation, seq, last_job, crc = slot.decode().split()
        if magic != _MAGIC or int(crc, 16) != zlib.crc32(f"{magic} {generation} {seq} {last_job}".encode()):
            return None
        return Seen(generation, int(seq), int(last_job))
    except ValueError:
        return None
