"""Which files cells read beyond what was declared, seen by an audit hook in the worker.

What one cell read may live on in the process (a module, a cache), so every later cell of the same worker is held to
depend on it too: it is better that a cell is looked at once too often than that a number depends on a file unseen.
Libraries that open files below Python stay unseen here, as they do wherever the kernel cannot be asked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.declared import NOT_SYSTEM, SYSTEM, Declared
from lanes.agent.safe import clean

_FIXED = tuple(p + "/" for p in SYSTEM)
_UNFIXED = tuple(p + "/" for p in NOT_SYSTEM)
_WRITES = os.O_WRONLY | os.O_RDWR
# After these the working folder may be another one, or hold files that this process did not open itself.
_LEAVES = frozenset(
    [
        "os.chdir",
        "os.mkdir",
        "os.rename",
        "os.symlink",
        "os.link",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
        "os.exec",
        "subprocess.Popen",
        "sqlite3.connect",
    ]
)


class Watch:
    """Collects what is opened while `on` is set.

    Attributes:
        on: set while the kind's own code runs.
        fresh: something was noted since it was last looked at.
        wrote: something was done since this was last reset that may have changed the working folder.
        ours: the prefix of paths that are the batch's own.
    """

    def __init__(self, kind_path: Path, folder: Path, extra: tuple[str, ...] = ()) -> None:
        self.on = False
        self.fresh = False
        self.wrote = False
        self.ours = str(folder) + "/"
        self._kind_path = str(kind_path)
        self._folder = str(folder)
        self._extra = extra
        self._notes: list[tuple[str, str]] = []
        self._seen: set[tuple[str, str]] = set()
        self._declared: dict[str, tuple[Declared, list[int]]] = {}
        self._found: dict[str, tuple[str, ...]] = {}
        self._pid = os.getpid()

    def install(self) -> None:
        """From now on and for the life of the process: a hook cannot be removed."""
        sys.addaudithook(self._hook)

    def undeclared(self, digest: str, spec: Mapping[str, Any]) -> tuple[str, ...]:
        """Everything read so far in this process that `spec` does not declare."""
        self.fresh = False
        if digest not in self._declared:
            self._declared[digest] = (self._declared_of(spec), [0])
        declared, fed = self._declared[digest]
        if fed[0] < len(self._notes):
            on, self.on = self.on, False
            try:
                self._feed(declared, fed)
                self._found[digest] = tuple(clean(declared.undeclared()))
            finally:
                self.on = on
        return self._found.get(digest, ())

    def _feed(self, declared: Declared, fed: list[int]) -> None:
        notes = self._notes
        while fed[0] < len(notes):
            letter, path = notes[fed[0]]
            fed[0] += 1
            if letter == "w":
                declared.made(path)
            else:
                declared.read(path)

    def _declared_of(self, spec: Mapping[str, Any]) -> Declared:
        known = {
            "kind_path": self._kind_path,
            "inputs": spec.get("inputs"),
            "allow_undeclared": spec.get("allow_undeclared"),
            "python": sys.executable,
        }
        declared = Declared(known, self._folder, extra=self._extra)
        for place in {sys.prefix, sys.base_prefix}:
            declared.prefix(place)
        return declared

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, _mode, flags = args
            if not isinstance(path, str | bytes):
                return
            path, flags = os.fsdecode(path), flags or 0
            writes = flags & _WRITES
            if writes:
                self.wrote = True
            if (flags & os.O_CREAT and not os.path.lexists(path)) or (flags & os.O_TRUNC and writes):
                self._note("w", path)
            elif not flags & os.O_WRONLY:
                self._note("r", path)
        elif event == "ctypes.dlopen" or event == "sqlite3.connect":
            if args and isinstance(args[0], str) and "/" in args[0]:
                self._note("r", args[0])
        elif event == "import" and len(args) > 1 and isinstance(args[1], str):
            self._note("r", args[1])
        elif event == "subprocess.Popen" and isinstance(args[0], str):
            self._note("r", args[0])
        if event in _LEAVES:
            self.wrote = True

    def _note(self, letter: str, path: str) -> None:
        if not path.startswith("/"):
            path = os.path.join(os.getcwd(), path)
        if path.startswith(self.ours) or os.getpid() != self._pid:
            return
        if path.startswith(_FIXED) and not path.startswith(_UNFIXED) and "/../" not in path:
            return
        if (letter, path) not in self._seen:
            self._seen.add((letter, path))
            self._notes.append((letter, os.path.abspath(path)))
            self.fresh = True
