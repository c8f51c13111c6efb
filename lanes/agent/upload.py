"""One thing on its way into the store: a file, or a folder as `packing` says it, received in pieces.

What has arrived lies on disk and nowhere else, so that a transfer goes on where it stopped: after a cut, after the end
of this process, after a reboot. Of what an earlier process left nothing is believed before it was hashed again. Each
file is compared with its digest the moment it is complete: a wrong one is removed, and asked for once more.
"""

from __future__ import annotations

import binascii
import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Set

from core.fsio import fsync_dir, no_space
from lanes.agent import packing
from lanes.agent.packing import Entry
from lanes.agent.trees import fits, make_read_only, remove_tree, size_of

_CHUNK = 1 << 20
_SYNC_EACH = 200  # with more files, one sync of everything is faster than one for each
State = Dict[str, Any]


class StoreRefused(Exception):
    """What was sent cannot be kept; a sentence says why. Sending the same again would not help."""


class StoreFull(Exception):
    """The lane's disk has no room for it."""


class Upload:
    """What is there so far of one file or folder. Several processes may feed the same one.

    Args:
        place: the folder of this upload; it is this upload's own.
        kind, name: what it is to be in the store.
        size: bytes of the whole stream.
        sha256: of a file's bytes; of a folder its tree digest.
    """

    def __init__(self, place: Path, kind: str, name: str, size: int, sha256: str, tree: bool) -> None:
        self.place = place
        self.kind = kind
        self.name = name
        self.size = size
        self.sha256 = sha256
        self.tree = tree
        self.ready = False  # is what lies on disk known and hashed?
        self.touched = time.monotonic()
        self._guard = threading.RLock()
        self._held = False
        self._entries: List[Entry] = []
        self._planned = 0  # bytes of the plan; 0 until it is there
        self._index = 0  # the entry that comes next
        self._start = 0  # where in the stream the current piece begins
        self._have = 0  # bytes of the current piece that are there
        self._hash = hashlib.sha256()
        self._later: Set[int] = set()  # entries behind a damaged one that were there when we looked

    # What the store calls.

    def look(self) -> None:
        """Find out from the disk how far it is, hashing everything again. Long for large ones.

        Raises:
            StoreRefused: what lies there is not what was announced; it was removed.
        """
        with self._locked():
            self.place.mkdir(parents=True, exist_ok=True)
            self._reset()
            if self.tree:
                self._look_at_plan()
            else:
                self._look_at_file()
            self.ready = True

    def state(self, **more: Any) -> State:
        """Where to go on. `sha256` is of what is there of the current piece, which begins at `start`."""
        return {
            "state": "ready",
            "offset": self._start + self._have,
            "start": self._start,
            "sha256": self._hash.hexdigest(),
            **more,
        }

    def anew(self) -> State:
        """Forget what is there of the current piece."""
        with self._locked():
            if self._agrees():
                self._drop_piece()
            return self.state()

    def put(self, offset: int, data: bytes, crc: int) -> State:
        """Take the next bytes.

        Returns:
            the state; with "wrong" (a name) when a file was complete and not what it should be: it is asked for again;
            {"state": "look"} when somebody else changed what lies on disk: begin again.

        Raises:
            StoreFull: the disk is full; what was there stays.
            StoreRefused: the plan is not one, or of another folder; everything was removed.
        """
        with self._locked():
            self.touched = time.monotonic()
            if not self.ready or not self._agrees():
                self.ready = False
                return {"state": "look"}
            if offset != self._start + self._have:
                return self.state()
            if binascii.crc32(data) != crc:
                return self.state(wrong="a piece that was damaged under way")
            if offset + len(data) > self.size:
                self.remove()
                raise StoreRefused(f"more was sent of {self.name[:12]} than the {self.size} bytes that were announced")
            view = memoryview(data)
            while view:
                room = self._piece_size() - self._have
                self._write(view[:room])
                view = view[room:]
                if self._have == self._piece_size():
                    wrong = self._complete()
                    if wrong:
                        return self.state(wrong=wrong)
                    if view and self._index in self._later:
                        self.ready = False
                        return {"state": "look"}
            return self.state()

    def complete(self) -> bool:
        return self.ready and self._start + self._have == self.size and (not self.tree or bool(self._planned))

    def finish(self, final: Path, whole: Callable[[], bool], before: Callable[[List[Entry]], None]) -> None:
        """Make it durable and read-only, and put it at `final` by rename.

        Others may do so at this moment, or have changed what lies on disk. Who comes second does nothing: what is at
        `final` then says how it went.

        Args:
            whole: is the thing at its place?
            before: told what it consists of, before the rename; whatever lies at `final` must be gone afterwards.
        """
        with self._locked():
            if whole():
                self.remove()
                return
            executable = self.name.endswith(".x")
            entries = self._entries if self.tree else [Entry("", self.sha256, self.size, executable)]
            body = self._body()
            if not self.complete() or not fits(body, entries):
                self.ready = False
                return
            self._sync(body)
            final.parent.mkdir(parents=True, exist_ok=True)
            if self.tree:
                make_read_only(body, folders=self.kind != "code")
            else:
                os.chmod(body, 0o555 if executable else 0o444)
            before(entries)
            os.replace(body, final)
            if self.tree and self.kind != "code":
                os.chmod(final, 0o555)  # not before: a folder that is renamed must be writable
            fsync_dir(final.parent)
            self.ready = False
            shutil.rmtree(self.place, ignore_errors=True)

    def remove(self) -> None:
        """Throw away what is there."""
        with self._locked():
            self.ready = False
            remove_tree(self.place)

    # Pieces: the plan (of a folder), then its files in order.

    def _body(self) -> Path:
        return self.place / ("files" if self.tree else "file")

    def _path(self, at: Optional[int] = None) -> Path:
        """Where the current piece (or that of entry `at`) is written."""
        if self.tree and not self._planned:
            return self.place / "plan"
        return self._body() / self._entries[self._index if at is None else at].name if self.tree else self._body()

    def _piece_size(self) -> int:
        if not self.tree:
            return self.size
        if self._planned:
            return self._entries[self._index].size
        if self._have < packing.HEAD.size:
            return packing.HEAD.size  # the length of the plan is in there
        with open(self.place / "plan", "rb") as f:
            try:
                return packing.plan_size(f.read(packing.HEAD.size))
            except ValueError as error:
                raise self._refuse(str(error)) from error

    def _reset(self) -> None:
        self.ready = False
        self._entries, self._planned, self._index, self._start, self._later = [], 0, 0, 0, set()
        self._begin_piece()

    def _begin_piece(self) -> None:
        self._have = 0
        self._hash = hashlib.sha256()

    def _look_at_plan(self) -> None:
        self._rehash(self.place / "plan")
        if self._have > packing.HEAD.size and self._have == self._piece_size():
            self._take_plan()
            self._advance(look=True)
            self._later = {at for at in range(self._index + 1, len(self._entries)) if size_of(self._path(at))}

    def _look_at_file(self) -> None:
        if not self.size:
            self._body().touch()
        self._rehash(self._body())
        if self._have < self.size:
            return
        if self._have == self.size and self._hash.hexdigest() == self.sha256:
            self._close_piece()
        elif self.size:
            self._drop_piece()
        else:
            raise self._refuse(f"an empty file was announced as {self.sha256[:12]}")

    def _rehash(self, path: Path) -> None:
        """What is there of the current piece."""
        self._begin_piece()
        with contextlib.suppress(FileNotFoundError), open(path, "rb", buffering=0) as f:
            while True:
                block = f.read(_CHUNK)
                if not block:
                    break
                self._hash.update(block)
                self._have += len(block)

    def _agrees(self) -> bool:
        """Does the disk hold what we remember? Another process may have gone on with it, or finished it."""
        if self._at_end():
            return self._body().exists()
        try:
            return os.lstat(self._path()).st_size == self._have
        except OSError:
            return self._have == 0 and self.place.is_dir()

    def _at_end(self) -> bool:
        if not self.tree:
            return self._index > 0
        return bool(self._planned) and self._index >= len(self._entries)

    def _write(self, data: memoryview) -> None:
        path = self._path()
        try:
            if self._have == 0:
                path.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    if stat.S_ISLNK(os.lstat(path).st_mode) or os.lstat(path).st_size:
                        raise self._refuse(f"two names are one on this lane: {path.name!r}")
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o644)
            try:
                done = 0
                while done < len(data):
                    done += os.pwrite(fd, data[done:], self._have + done)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, self._have)
                raise
            finally:
                os.close(fd)
        except OSError as error:
            if no_space(error):
                raise StoreFull(
                    f"the lane's disk is full: {self._start + self._have:,} of {self.size:,} bytes of "
                    f"{self.name[:12]} are in {self.place}"
                ) from error
            raise
        self._hash.update(data)
        self._have += len(data)

    def _complete(self) -> str:
        """The current piece has all its bytes: check it and go to the next. Returns its name when it is wrong."""
        if self.tree and not self._planned:
            self._take_plan()
            self._advance(look=False)
            return ""
        want = self._entries[self._index].sha256 if self.tree else self.sha256
        if self._hash.hexdigest() != want:
            name = self._entries[self._index].name if self.tree else "the file"
            self._drop_piece()
            return name
        self._close_piece()
        if self.tree:
            self._advance(look=False)
        return ""

    def _drop_piece(self) -> None:
        if self._at_end():
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path())
        self._begin_piece()

    def _close_piece(self) -> None:
        if self.tree and not self._entries[self._index].link:
            os.chmod(self._path(), 0o755 if self._entries[self._index].executable else 0o644)
        self._start += self._piece_size()
        self._index += 1
        self._begin_piece()

    def _take_plan(self) -> None:
        blob = (self.place / "plan").read_bytes()
        try:
            entries = packing.decode(blob[packing.HEAD.size :])
        except ValueError as error:
            raise self._refuse(str(error)) from error
        if packing.tree_digest(self.kind, entries) != self.sha256:
            raise self._refuse(f"the plan that came for {self.sha256[:12]} is of another folder")
        if len(blob) + sum(e.size for e in entries) != self.size:
            raise self._refuse(f"the plan of {self.sha256[:12]} does not fit the {self.size} bytes that were announced")
        self._entries, self._planned, self._index, self._start = entries, len(blob), 0, len(blob)
        self._begin_piece()
        self._body().mkdir(parents=True, exist_ok=True)

    def _advance(self, *, look: bool) -> None:
        """Go past what needs no bytes: links, empty files and, with `look`, what was there already."""
        while self._index < len(self._entries):
            entry = self._entries[self._index]
            path = self._path()
            if entry.link or not entry.size:
                self._make(entry, path)
            elif look:
                self._rehash(path)
                if self._have < entry.size:
                    return
                if self._hash.hexdigest() != entry.sha256:
                    self._drop_piece()
                    return
            else:
                return
            self._close_piece()

    def _make(self, entry: Entry, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not entry.link:
            if entry.sha256 != hashlib.sha256().hexdigest():
                raise self._refuse(f"{entry.name!r} is empty, and its digest is that of something")
            path.touch()
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.symlink(entry.link, path)

    def _sync(self, body: Path) -> None:
        files = [body / e.name for e in self._entries if not e.link] if self.tree else [body]
        if len(files) > _SYNC_EACH:
            os.sync()
            return
        for path in files:
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        for folder in {p.parent for p in files} if self.tree else ():
            fsync_dir(folder)

    def _refuse(self, why: str) -> StoreRefused:
        self.remove()
        return StoreRefused(why)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time: threads of this process, and processes that serve the same lane."""
        with self._guard:
            fd: Optional[int] = None
            if not self._held:
                self.place.parent.mkdir(parents=True, exist_ok=True)
                # By the first two letters: a lock's file cannot be removed safely, so there are not many of them.
                lock = self.place.parent / f"{self.name[:2]}.lock"
                fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(fd, fcntl.LOCK_EX)
                self._held = True
            try:
                yield
            finally:
                if fd is not None:
                    self._held = False
                    os.close(fd)
