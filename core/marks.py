"""Marks on processes: which of the programs below one listener opened which file.

The kernel allows one listener per chain of seccomp filters, so inside an attempt its supervisor sees every open, and
a parity run in there must ask it which were its candidate's. The candidate therefore carries a mark that all its
descendants inherit, whatever sessions, environments or parents they change: the soft limit of RLIMIT_LOCKS, which
Linux has not looked at since 2.4 and which any process may read of another one of its user's.

Standard library only, Python 3.9: the lane agent carries this module.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

from core.declared import Declared

LOG = "LAB_MARKED_OPENS"  # the environment names the file in which the supervisor writes down marked opens

_RLIMIT_LOCKS = 10
_FIRST = 1 << 40
_COUNT = 1 << 32
_WRITES = ("w", "m", "d")


def possible() -> bool:
    """Can processes be marked here?"""
    return sys.platform.startswith("linux")


def new_mark() -> int:
    """A mark that nobody else has."""
    return _FIRST + 1 + int.from_bytes(os.urandom(4), "little") % (_COUNT - 1)


def take(mark: int) -> None:
    """Put `mark` on this process and all that it will start.

    Raises:
        OSError, ValueError: somebody set a hard limit below it.
    """
    hard = resource.getrlimit(_RLIMIT_LOCKS)[1]
    resource.setrlimit(_RLIMIT_LOCKS, (mark, hard))


def mark_of(pid: int) -> int:
    """The mark of a process or thread; 0 when it has none, is gone, or is another user's."""
    try:
        soft = int(resource.prlimit(pid, _RLIMIT_LOCKS)[0])
    except (OSError, ValueError):
        return 0
    return soft if _FIRST < soft < _FIRST + _COUNT else 0


def bearers(mark: int) -> List[int]:
    """Pids of all live processes with this mark."""
    return [pid for pid in _marked(mark) if not _is_dead(pid)]


def reap(mark: int) -> None:
    """Take the exit status of orphans with this mark that came to this process (a subreaper) and have ended."""
    for pid in _marked(mark):
        with contextlib.suppress(OSError):
            os.waitpid(pid, os.WNOHANG)


def kill_bearers(mark: int, *, within_s: float = 5.0) -> List[int]:
    """SIGKILL every process with this mark until there is none. Returns those that still live after `within_s`."""
    until = time.monotonic() + within_s
    pause = 0.001
    while True:
        left = bearers(mark)
        for pid in left:
            _kill(pid, mark)
        if not left or time.monotonic() > until:
            return left
        time.sleep(pause)
        pause = min(0.05, pause * 2)


class MarkedLog:
    """The file of marked opens, made with its first line; each is JSON: [mark, letter, path, new name, there, met].

    Letters: r a regular file was there and was opened to be read; w made or emptied; x executed; m renamed or linked,
    d the same of a folder; ? a call whose path could not be read. A line is written before its call is made, which may
    fail: `there` says which file was about to be emptied or replaced, and `met` that such a one was found unchanged.
    """

    def __init__(self, path: "os.PathLike[str] | str") -> None:
        self._path = os.fspath(path)
        self._fd = -1
        self._broken = False
        self._told: Set[Tuple[int, str, str, str, str, str]] = set()
        self._there: Dict[Tuple[int, str], str] = {}  # what was at a name when a mark first wrote to it
        self._threatened: Set[str] = set()

    def tell(self, mark: int, letter: str, path: str, new: str = "") -> None:
        met = _identity(path) if self._threatened else ""
        met = met if met in self._threatened else ""
        there = self._threaten(mark, new or path) if letter in _WRITES else ""
        row = (mark, letter, path, new, there, met)
        if row in self._told or self._broken:
            return
        self._told.add(row)
        try:
            if self._fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._fd = os.open(self._path, flags, 0o600)
            line = (json.dumps(row) + "\n").encode()
            if os.write(self._fd, line) != len(line):
                raise OSError("cut short")
        except OSError:
            # A log with a hole would say that nothing was read. An empty one says that nobody looked.
            self._broken = True
            with contextlib.suppress(OSError):
                os.truncate(self._path, 0)

    def _threaten(self, mark: int, name: str) -> str:
        if (mark, name) not in self._there:
            self._there[mark, name] = _identity(name)
            self._threatened |= {self._there[mark, name]} - {""}
        return self._there[mark, name]

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Replayed(NamedTuple):
    seen: int  # lines with this mark: 0 means that nobody looked
    blind: int  # calls whose path could not be read


def replay(file: "os.PathLike[str] | str", mark: int, declared: Declared) -> Replayed:
    """Tell `declared` what the processes with `mark` opened."""
    seen = blind = 0
    mine = [row for row in _rows(file) if row[0] == mark]
    unchanged = _unchanged(mine)
    for _, letter, path, new, there, _ in mine:
        seen += 1
        if there in unchanged:
            continue  # the call failed, and what a read finds there is no work of its own
        if letter == "r":
            declared.opened(path)
        elif letter == "w":
            declared.made(path)
        elif letter == "x":
            declared.ran(path)
        elif letter in ("m", "d"):
            declared.renamed(path, new, folder=letter == "d")
        else:
            blind += 1
    return Replayed(seen, blind)


def _unchanged(rows: List[List[Any]]) -> Set[str]:
    """Files that were to be emptied or replaced, and that were there all the same afterwards.

    Emptying a file changes its time, replacing one takes it away; a call that fails (it may not be written, it must be
    a new one, its file system is another) leaves it as it was.
    """
    at_the_end = {there for _, _, path, new, there, _ in rows if there and _identity(new or path) == there}
    return at_the_end | {met for *_, met in rows if met}


def _identity(path: str) -> str:
    """Which file is at `path`, and since when it is as it is; "" for none."""
    try:
        info = os.stat(path) if path else None
    except (OSError, ValueError):
        return ""
    return f"{info.st_dev}:{info.st_ino}:{info.st_ctime_ns}" if info is not None else ""


def is_told(file: "os.PathLike[str] | str", mark: int) -> bool:
    """Is anything of `mark` in the log: does somebody look?"""
    return any(row[0] == mark for row in _rows(file))


def _rows(file: "os.PathLike[str] | str") -> List[List[Any]]:
    try:
        data = Path(file).read_bytes()
    except OSError:
        return []
    rows = []
    for line in data.splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, list) and len(row) == 6:
                rows.append(row)
    return rows


def _marked(mark: int) -> List[int]:
    names = os.listdir("/proc") if possible() else []
    return [int(name) for name in names if name.isdigit() and mark_of(int(name)) == mark]


def _kill(pid: int, mark: int) -> None:
    """Kill `pid` if it is still the one with this mark."""
    with contextlib.suppress(OSError):
        handle: Optional[int] = None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # kernels before 5.3
                handle = os.pidfd_open(pid)
        try:
            if mark_of(pid) != mark:
                return
            if handle is None:
                os.kill(pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            if handle is not None:
                os.close(handle)


def _is_dead(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return f.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return True
