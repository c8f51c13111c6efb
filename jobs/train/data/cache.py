"""Encoded data by content: a folder of entries, each made once, whole or not there, and looked through when taken up.

    ROOT/<key>/            files and, written last, manifest.json
    ROOT/.making-<key>-…   one that is being made, or was when its maker died
    ROOT/.locks/<key>.use  held shared (flock) as long as an entry is in use: it is not removed then
    ROOT/.locks/<key>.make held alone by the one who makes it; the others wait, and take up what was made

The key is the digest of what the entry is made from (`how`): digests of the sources, every setting, the versions.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import BadInput, DiskFull
from core.fsio import digest, fsync_dir, no_space, read_json, sha256_file, write_json

FORMAT = 1
LIMIT = 40 << 30  # bytes; 600 pairs of 1164×874 take 7.3 GB
_MANIFEST = "manifest.json"

Say = Callable[[str], None]


@dataclass
class Entry:
    """A verified entry, held until `close`: as long as that, nobody's size bound removes it.

    Attributes:
        digest: of the files' content and of how they were made.
        about: what the maker said of it.
        made: it was made now, not found.
    """

    folder: Path
    digest: str
    about: dict[str, Any]
    made: bool
    _lock: _Lock = field(repr=False)

    def close(self) -> None:
        self._lock.close()


def default_root() -> Path:
    """`$XDG_CACHE_HOME/lab/encoded`, or `~/.cache/lab/encoded`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lab" / "encoded"


def take(
    how: Mapping[str, Any],
    make: Callable[[Path], dict[str, Any]],
    *,
    root: Path | None = None,
    limit: int = LIMIT,
    say: Say = lambda sentence: None,
) -> Entry:
    """The entry made from `how`: the one that is there if its hashes are right, or a new one.

    Args:
        make: writes the files into an empty folder and returns what is to be said of them, as JSON can hold it.
        limit: bytes that all entries together may have; those used longest ago go first, those in use never.
        say: told in one sentence when something is made anew, waited for or removed.

    Raises:
        BadInput: the folder cannot be written. DiskFull: there is no space. What `make` raises; nothing is left then.
    """
    root = root or default_root()
    how = {"format": FORMAT, **how}
    key = digest(how)
    try:
        (root / ".locks").mkdir(parents=True, exist_ok=True)
        used = _Lock(root, key, "use")
        used.take(fcntl.LOCK_SH)
    except OSError as error:
        raise BadInput(
            f"the cache of encoded data {root} cannot be written ({error})", hint="name another folder"
        ) from None
    try:
        entry, damage = _found(root, key, how, used)
        if entry is None:
            with _maker(root, key, say):
                # Again: another one may have made it while this one waited.
                entry, damage = _found(root, key, how, used)
                if entry is None:
                    if damage:
                        say(f"the cached data {root / key} are damaged ({damage}) and are made anew")
                    entry = _make(root, key, how, make, used)
    except BaseException as error:
        used.close()
        if no_space(error):
            raise DiskFull(
                f"no space for the encoded data in {root}", hint="free some, or name a folder on another disk"
            ) from error
        raise
    try:
        trim(root, limit, say)
    except OSError as error:  # no reason to fail what has its data
        say(f"the cache {root} could not be brought down to {limit} bytes ({error})")
    return entry


def trim(root: Path, limit: int, say: Say = lambda sentence: None) -> None:
    """Remove what dead makers left, and of the rest what was used longest ago, down to `limit` bytes."""
    for left in root.glob(".making-*"):
        with _Lock(root, left.name.split("-")[1], "make") as lock:
            if lock.take(fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(left, ignore_errors=True)
    entries = []
    for manifest in root.glob(f"[!.]*/{_MANIFEST}"):  # without the dot: one that is being made is no entry yet
        with contextlib.suppress(OSError):
            size = sum(p.stat().st_size for p in manifest.parent.iterdir())
            entries.append((manifest.stat().st_mtime_ns, size, manifest.parent))
    total = sum(size for _, size, _ in entries)
    for _, size, folder in sorted(entries):
        if total <= limit:
            break
        with _Lock(root, folder.name, "use") as lock:
            if lock.take(fcntl.LOCK_EX | fcntl.LOCK_NB):
                say(f"the cached data {folder} are removed: the cache is over its {limit} bytes")
                _remove(root, folder.name)
                total -= size


class _Lock:
    """A lock on a file that is never removed; released by `close`, or when the process dies."""

    def __init__(self, root: Path, key: str, what: str) -> None:
        self._fd: int | None = os.open(root / ".locks" / f"{key}.{what}", os.O_RDWR | os.O_CREAT, 0o600)

    def take(self, how: int) -> bool:
        assert self._fd is not None
        try:
            fcntl.flock(self._fd, how)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        if self._fd is not None:
            # Said, not left to the close: a child that was forked meanwhile holds the same open file.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> _Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def _maker(root: Path, key: str, say: Say) -> Iterator[None]:
    with _Lock(root, key, "make") as lock:
        if not lock.take(fcntl.LOCK_EX | fcntl.LOCK_NB):
            say(f"another process makes {root / key}; waiting for it")
            lock.take(fcntl.LOCK_EX)
        yield


def _found(root: Path, key: str, how: Mapping[str, Any], used: _Lock) -> tuple[Entry | None, str]:
    """(the entry, "") or (None, what is wrong with it; "" when there is none)."""
    folder = root / key
    if not folder.exists():
        return None, ""
    manifest = read_json(folder / _MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        return None, f"{_MANIFEST} cannot be read"
    if manifest.get("digest") != _digest(how, manifest["files"], manifest.get("about")):
        return None, f"{_MANIFEST} does not fit"
    for name, sha256 in manifest["files"].items():
        try:
            if sha256_file(folder / name) != sha256:
                return None, f"{name} has other bytes"
        except OSError as error:
            return None, f"{name}: {error.strerror}"
    with contextlib.suppress(OSError):
        os.utime(folder / _MANIFEST)  # used now
    return Entry(folder, manifest["digest"], manifest["about"], False, used), ""


def _make(root: Path, key: str, how: Mapping[str, Any], make: Callable[[Path], dict[str, Any]], used: _Lock) -> Entry:
    for left in root.glob(f".making-{key}-*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = root / f".making-{key}-{os.getpid()}-{os.urandom(4).hex()}"
    folder.mkdir()
    try:
        about = make(folder)
        files = {p.name: sha256_file(p) for p in sorted(folder.iterdir())}
        for name in files:
            with open(folder / name, "rb") as file:
                os.fsync(file.fileno())
        whole = _digest(how, files, about)
        write_json(folder / _MANIFEST, {"digest": whole, "how": how, "files": files, "about": about})
        _remove(root, key)
        folder.rename(root / key)
        fsync_dir(root)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Entry(root / key, whole, about, True, used)


def _remove(root: Path, key: str) -> None:
    """Out of the way in one step, then away; whoever has its files open keeps them."""
    gone = root / f".making-{key}-gone-{os.urandom(4).hex()}"
    with contextlib.suppress(FileNotFoundError):
        (root / key).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _digest(how: Mapping[str, Any], files: Mapping[str, str], about: Any) -> str:
    return digest({"how": how, "files": files, "about": about})
