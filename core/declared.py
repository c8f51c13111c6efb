"""What a job may read without a word, and what it read beyond that.

Allowed: the system's own folders, the interpreters that run (with their site-packages), the snapshots, the run
directory, the declared inputs, and what the job made itself. Not allowed silently: the rest of the home folder,
caches and settings among it, because a number must not depend on them unseen.

For one candidate of a parity run the rules are narrower (`code`, `own`, `never`): not even its own working folder is
allowed, for that is where a stale file lies.

Standard library only, Python 3.9: the lane agent carries this module.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import Any, Dict, Iterable, List, Optional, Set

SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/proc", "/sys", "/dev", "/run",
    "/nix/store", "/var/lib", "/var/cache", "/opt/cuda", "/opt/nvidia", "/opt/rocm",
    "/System", "/Library", "/opt/homebrew", "/private/etc", "/private/var/db",
)  # fmt: skip
NOT_SYSTEM = ("/dev/shm", "/run/user", "/run/shm")
REPORTED = 200  # the outcome names so many; opens.json names all

_PYTHON = re.compile(r"^(python|pypy)[\d.]*$")
_CACHED = re.compile(r"^(.*/)?__pycache__/([^/]+?)\.[^./]+(?:\.opt-\d)?\.pyc$")
_VERSIONED = re.compile(r"^(python|pypy)\d")
_SHIMS = ("/.pyenv/shims/", "/.asdf/shims/", "/mise/shims/")
_CODE = (".py", ".pyc", ".pyi", ".pth", ".so", ".pyd", ".dylib")
_INFO = re.compile(r"\.(egg|dist)-info/[^/]+$")
# Numba looks at the time stamp of one source file only: a changed helper in another file leaves a stale one.
_STALE = (".nbi", ".nbc")


class Declared:
    """The allowed places of one attempt, and a record of everything read outside them.

    Args:
        spec: what the attempt declares; an empty one declares nothing.
        run_path: the run directory, allowed as a whole; "" for none.
        extra: more allowed files and folders.
        own: folders that are the program's own to write to. What it finds there and did not make is not allowed.
        code: folders of which only source, bytecode, libraries and package metadata are allowed.
        never: folders that are not the system's, although they lie below one of the system's.
    """

    def __init__(
        self,
        spec: Dict[str, Any],
        run_path: str,
        *,
        extra: Iterable[str] = (),
        own: Iterable[str] = (),
        code: Iterable[str] = (),
        never: Iterable[str] = (),
    ) -> None:
        self._home = os.path.realpath(os.path.expanduser("~"))
        self._roots: Set[str] = set()
        # Matplotlib's list of this machine's fonts is derived from them: it changes letters, never a number.
        fonts = os.path.join(self._home, ".cache", "matplotlib", "fontlist-")
        self._fixed = (*(p + "/" for p in SYSTEM), fonts)
        self._unfixed = (*(p + "/" for p in NOT_SYSTEM), *(p.rstrip("/") + "/" for p in _both(never)))
        own = list(own)
        self._own = tuple(p + "/" for p in _both([run_path, *own]))
        self._code = _both(code)
        self._narrow = bool(own)
        self._seen: Set[str] = set()  # paths as they were opened: looked at once
        self._made: Set[str] = set()
        self._ran: Set[str] = set()
        self._read: Dict[str, None] = {}  # real paths outside the allowed places, in order
        snapshot = spec.get("code") or {}
        for place in (run_path, snapshot.get("path"), spec.get("kind_path"), *extra):
            self._allow(place)
        for item in spec.get("inputs") or []:
            self._allow(item.get("path"))
        for place in list(spec.get("checkpoints") or []) + list(spec.get("allow_undeclared") or []):
            self._allow(place)
        if not own:
            # Frames encoded by the kind `train`, by content: each byte is checked against its hash when it is taken up.
            self._allow(os.path.join(self._home, ".cache", "lab", "encoded"))
        if spec.get("python"):
            self.ran(str(spec["python"]))

    def undeclared(self) -> List[str]:
        """Files outside the allowed places that were there before and were read, sources in place of their bytecode."""
        found: Dict[str, None] = {}
        for path in self._read:
            if not self._allowed(path):
                source = source_of(path)
                if not self._allowed(source):
                    found[source] = None
        return sorted(found)

    def known(self, path: str) -> bool:
        """Was this path looked at already, or is it in a place of the system's?"""
        return path in self._seen or (
            path.startswith(self._fixed) and not path.startswith(self._unfixed) and "/../" not in path
        )

    def read(self, path: str) -> None:
        """`path` was opened for reading. Only regular files that exist and may be read count."""
        real = regular(path)
        if real is None:
            return  # not there now; it may be later, so it is looked at again
        self._seen.add(path)
        self.opened(real)

    def opened(self, real: str) -> None:
        """As `read`, of a real path at which a regular file was found when it was opened."""
        if real not in self._made and not self._allowed(real):
            self._read[real] = None

    def made(self, path: str) -> None:
        """`path` was created, or emptied, by the job itself: what it reads there is its own."""
        self._made.add(_real(path))
        self._made.add(os.path.realpath(path))

    def created(self) -> List[str]:
        """All that the job made itself, by every name that it had."""
        return sorted(self._made)

    def renamed(self, old: str, new: str, *, folder: bool = False) -> None:
        """`old`, which is there, gets another name or (a hard link) one more. What is brought in so counts as read."""
        source, target = _real(old), _real(new)
        if source in self._made:
            self._made.add(target)
            return
        inside = source + "/"
        within = [p for p in self._made if p.startswith(inside)] if folder else []
        self._made.update(target + p[len(source) :] for p in within)
        if not within and target.startswith(self._own) and not source.startswith(self._own):
            self.opened(source)

    def ran(self, path: str) -> None:
        """`path` was executed: a read like any other, and perhaps an interpreter with a world of its own."""
        if path in self._ran:
            return
        self._ran.add(path)
        real = regular(path)
        if real is None:
            return
        for place in (path, real):
            self._interpreter(os.path.abspath(place))
        self.read(path)
        with contextlib.suppress(OSError), open(real, "rb") as f:
            first = f.readline(512)
            if first.startswith(b"#!"):
                words = os.fsdecode(first[2:]).split()
                if words and words[0] != path:
                    self._interpreter(words[0])
                    self._interpreter(os.path.realpath(words[0]))

    def prefix(self, place: str) -> None:
        """A Python said that it lives here (`sys.prefix`)."""
        self._allow_prefix(os.path.abspath(place))

    def _interpreter(self, path: str) -> None:
        for shims in _SHIMS:
            if shims in path:  # a version manager: its own scripts and settings choose the interpreter
                self._allow(path[: path.index(shims) + len(shims.rsplit("/", 2)[0])])
                return
        prefix = os.path.dirname(os.path.dirname(path))
        if _PYTHON.match(os.path.basename(path)) or os.path.isdir(os.path.join(prefix, "conda-meta")):
            self._allow_prefix(prefix)

    def _allow_prefix(self, prefix: str) -> None:
        with contextlib.suppress(OSError), open(os.path.join(prefix, "pyvenv.cfg")) as f:
            for line in f:
                name, _, value = line.partition("=")
                if name.strip() == "home" and value.strip():
                    base = os.path.dirname(os.path.realpath(value.strip()))
                    if base != prefix:
                        self._allow_prefix(base)
        whole = any(os.path.exists(os.path.join(prefix, x)) for x in ("pyvenv.cfg", "conda-meta", "bin/python3"))
        broad = prefix == "/" or (self._home + "/").startswith(prefix.rstrip("/") + "/")
        if whole and not broad and prefix not in ("/home", "/opt", "/usr"):
            self._allow(prefix)
        for home in (prefix, os.path.join(self._home, ".local")):
            with contextlib.suppress(OSError):
                for name in os.listdir(os.path.join(home, "lib")):
                    if _VERSIONED.match(name):
                        self._allow(os.path.join(home, "lib", name))

    def _allow(self, place: Optional[str]) -> None:
        self._roots |= _both([place])

    def _allowed(self, path: str) -> bool:
        if path in self._roots:
            return True
        if self._narrow and path.endswith(_STALE):
            return False
        if path.startswith(self._fixed) and not path.startswith(self._unfixed):
            return True
        is_code = self._narrow and (path.endswith(_CODE) or _INFO.search(path) is not None)
        place = os.path.dirname(path)
        while len(place) > 1:
            if place in self._roots or (is_code and place in self._code):
                return True
            place = os.path.dirname(place)
        return False


def source_of(path: str) -> str:
    """The source of a bytecode file, where it is there; the path itself for all others."""
    match = _CACHED.match(path)
    if not match:
        return path
    source = f"{match.group(1) or ''}{match.group(2)}.py"
    return source if os.path.exists(source) else path


def regular(path: str) -> Optional[str]:
    """The real path of a readable regular file; None for everything else."""
    flag = getattr(os, "O_PATH", 0)
    if not flag:
        real = os.path.realpath(path)
        return real if os.path.isfile(real) and os.access(real, os.R_OK) else None
    try:
        fd = os.open(path, flag | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode) or not os.access(path, os.R_OK):
            return None
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return None
    finally:
        os.close(fd)


def _both(places: Iterable[Optional[str]]) -> Set[str]:
    """Each place as it is written and as it really is; never the root of all."""
    both = {path for place in places if place for path in (os.path.abspath(place), os.path.realpath(place))}
    return both - {"/"}


def _real(path: str) -> str:
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
