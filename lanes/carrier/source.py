"""What is to be sent, as one stream that can be read from any offset: a file, or a folder as packing says it."""

from __future__ import annotations

import bisect
import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from core.digests import Digests
from core.fsio import walk_files
from lanes.agent import packing
from lanes.agent.packing import Entry
from lanes.carrier.errors import NotSendable

_CACHE = "__pycache__"


@dataclass(frozen=True)
class Want:
    """One thing that an attempt needs on its lane.

    Attributes:
        kind: "code", "inputs" or "checkpoints" of the lane's store.
        digest: what it must be, as core hashes it.
        source: where it lies on the head.
        what: for people, the beginning of a sentence: `the input 'data' (/home/u/data)`.
        since: from when on it may not change, for people.
    """

    kind: str
    digest: str
    source: Path
    what: str
    tree: bool
    below: str = ""  # of a folder only this sub-folder, under its name
    since: str = "since the job was submitted"

    @property
    def name(self) -> str:
        """Its name in the store: executable files are kept apart from the same bytes as mere data."""
        return f"{self.digest}.x" if not self.tree and self._executable() else self.digest

    def _executable(self) -> bool:
        try:
            return bool(self.source.stat().st_mode & 0o100)
        except OSError:
            return False


class Source:
    """The stream of one Want. Nothing is copied: bytes are read where they lie when they are sent.

    Raises:
        NotSendable: it is not there any more, is not what it was, or holds what cannot be sent.
    """

    def __init__(self, want: Want, digests: Digests) -> None:
        self.want = want
        self._pieces: list[tuple[int, int, Path]] = []  # where it begins, size, file
        self._plan = b""
        try:
            entries = self._entries(digests)
        except OSError as error:
            raise self._stale(f"cannot be read ({error.strerror or error})") from error
        if want.tree:
            try:
                packing.check(entries)
            except ValueError as error:
                raise NotSendable("setup", f"{want.what} cannot be sent to a lane: {error}") from error
            self._plan = packing.encode(entries)
        at = len(self._plan)
        for entry in entries:
            if entry.size and not entry.link:
                self._pieces.append((at, entry.size, want.source / entry.name if want.tree else want.source))
                at += entry.size
        self.size = at
        self._starts = [p[0] for p in self._pieces]

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`.

        Raises:
            NotSendable: a file went away or became shorter.
        """
        out = bytearray(self._plan[offset : offset + size])
        index = max(0, bisect.bisect_right(self._starts, offset + len(out)) - 1)
        while len(out) < size and index < len(self._pieces):
            start, length, path = self._pieces[index]
            inside = offset + len(out) - start
            wanted = min(size - len(out), length - inside)
            if wanted > 0:
                out += self._bytes(path, inside, wanted)
            index += 1
        return bytes(out)

    def sha256(self, start: int, end: int) -> str:
        """Digest of the stream between two offsets."""
        h = hashlib.sha256()
        while start < end:
            block = self.read(start, min(1 << 20, end - start))
            h.update(block)
            start += len(block)
        return h.hexdigest()

    def changed(self, digests: Digests) -> str:
        """Why the head's own bytes are not those that were declared; empty when they are."""
        try:
            self._entries(digests)
        except NotSendable as error:
            return error.reason
        except OSError as error:
            return self._stale(f"cannot be read ({error.strerror or error})").reason
        return ""

    def _bytes(self, path: Path, offset: int, size: int) -> bytes:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                block = os.pread(fd, size, offset)
            finally:
                os.close(fd)
        except OSError as error:
            raise self._stale(f"cannot be read ({error.strerror or error})") from error
        if len(block) < size:
            raise self._stale("became shorter")
        return block

    def _entries(self, digests: Digests) -> list[Entry]:
        want = self.want
        if not want.tree:
            content = digests.file(want.source)
            if content.sha256 != want.digest:
                raise self._stale(f"changed ({content.sha256[:12]} now, {want.digest[:12]} then)")
            return [Entry("", content.sha256, content.size, False)]
        make: Iterable[Callable[[], list[Entry]]] = (
            (lambda: _code(want.source, digests), lambda: _code(want.source, digests, without=_CACHE))
            if want.kind == "code"
            else (lambda: data_entries(want.source, digests, want.below),)
        )
        if not (want.source / want.below).is_dir():
            raise self._stale("is not there")
        for entries in (f() for f in make):
            if packing.tree_digest(want.kind, entries) == want.digest:
                return entries
        raise self._stale("changed")

    def _stale(self, how: str) -> NotSendable:
        want = self.want
        if want.kind == "code":
            return NotSendable("setup", f"{want.what} {how}: it is damaged; submit again to have it stored anew")
        if want.kind == "inputs":
            return NotSendable("stale-input", f"{want.what} {how} {want.since}; submit again to use it as it is now")
        return NotSendable("setup", f"{want.what} {how}")


def data_entries(folder: Path, digests: Digests, below: str = "") -> list[Entry]:
    """What core's tree digest is made of: links to files count as files, links to folders by their text."""
    found = []
    for rel in (below / rel for rel in walk_files(folder / below)):
        full = folder / rel
        if full.is_dir():
            found.append(Entry(rel.as_posix(), f"link:{full.readlink()}", 0, False))
        else:
            content = digests.file(full)
            found.append(Entry(rel.as_posix(), content.sha256, content.size, bool(full.stat().st_mode & 0o100)))
    return found


def _code(folder: Path, digests: Digests, without: str = "") -> list[Entry]:
    """What core.snapshot stored, in its order. Python may have put its bytecode into a snapshot since."""
    found = []
    for rel in walk_files(folder):
        if without and without in rel.parts:
            continue
        full = folder / rel
        info = full.lstat()
        if stat.S_ISLNK(info.st_mode):
            found.append(Entry(rel.as_posix(), f"link:{full.readlink()}", 0, False))
        else:
            content = digests.file(full)
            found.append(Entry(rel.as_posix(), content.sha256, content.size, bool(info.st_mode & 0o100)))
    return sorted(found, key=lambda e: e.name)
