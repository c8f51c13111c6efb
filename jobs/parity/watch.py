"""One candidate, watched: which files it opened that nobody declared, and what it left behind.

A candidate that finds a stale cache works on another input than the oracle, and no correlation says so. It therefore
gets an empty working folder, an empty home and an empty temporary folder of its own, and what it opens all the same
is seen by the kernel: a compiled program's opens as well as Python's, its descendants' as well as its own.

Inside an attempt the supervisor sees every open already, and the kernel allows no second listener below it; there the
candidate is marked (`core.marks`), and the supervisor's list of marked opens is read. Outside, under `lab run`, the
candidate gets a filter of its own. Where neither can be had, Python's audit hook is used, and the note says what is
not seen.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import signal
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import jobs
from core import audit, launch, marks, opens
from core.declared import Declared, regular
from core.errors import BadInput, LabError
from core.fsio import safe_join, walk_files

# Where libraries keep what they made earlier. Unset, they look below HOME, which is empty.
CACHES = (
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "MPLCONFIGDIR",
    "KERAS_HOME", "TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "TRITON_CACHE_DIR", "HF_HOME",
    "TFHUB_CACHE_DIR", "CUDA_CACHE_PATH", "CUPY_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR", "SKIMAGE_DATADIR",
    "PYTHONPYCACHEPREFIX",
)  # fmt: skip
PACKAGES = ("core", "jobs", "kernels", "lab", "lanes")
SHOWN = 5  # a reason names so many files

_NOISE = ("*.pyc", "*/__pycache__/*", "__pycache__/*")


class How(StrEnum):
    AUTO = "auto"  # the best that there is
    KERNEL = "kernel"  # every open of every program
    HOOK = "hook"  # what Python opens itself
    NONE = "none"  # nothing


class NotStarted(LabError):
    """A candidate could not be started, or not be watched as was asked."""

    slug = "not-started"


@dataclass(frozen=True)
class Found:
    """A file that was opened and that nobody declared: its real path, and where that is, in words."""

    path: str
    where: str

    def __str__(self) -> str:
        return f"{self.path} ({self.where})"


@dataclass(frozen=True)
class Place:
    """The folders of one candidate: `work` is its current folder, `home` and `tmp` are what HOME and TMPDIR say.

    Attributes:
        put: names of the declared files that were put into `work`.
    """

    base: Path
    work: Path
    home: Path
    tmp: Path
    put: tuple[str, ...] = ()

    @classmethod
    def make(cls, base: Path, put: Mapping[str, Path] | None = None) -> Place:
        """Make them, empty but for the declared files `put`: name in the working folder -> file to copy there.

        Raises:
            BadInput: there is something already, or a name leads outside.
        """
        place = cls(base, base / "work", base / "home", base / "tmp", tuple(put or ()))
        for folder in (place.work, place.home, place.tmp):
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise BadInput(f"{folder} is not empty", hint="every candidate needs fresh folders")
        for name, source in (put or {}).items():
            try:
                target = safe_join(place.work, name)
            except ValueError as error:
                raise BadInput(f"a file for the working folder: {error}") from error
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        return place


@dataclass(frozen=True)
class Seen:
    """What is known of a candidate that has ended.

    Attributes:
        note: how it was watched, or why not and what therefore stays unseen; one sentence.
        left: files that it made and that are no outputs: names in the working folder, absolute paths elsewhere.
    """

    how: How
    note: str
    undeclared: tuple[Found, ...]
    left: tuple[str, ...]


class Watched:
    """A running candidate.

    It has no input but files, prints to `log`, leads a session of its own, and is killed when the thread that
    started it ends.

    Args:
        argv: the program (an absolute path, or a name on the PATH of `env`) and its arguments.
        declared: files and folders that it may read.
        code: folders of code that it may import; other files there are not declared by that.
        own: folders besides `place` that it writes to.
        outputs: names (patterns) in the working folder that it may leave there.
        python: it is a Python that imports this package.

    Raises:
        NotStarted: there is no such program, or it cannot be watched as `how` says.
    """

    def __init__(
        self,
        argv: Sequence[str],
        place: Place,
        *,
        env: Mapping[str, str],
        log: Path,
        declared: Sequence[Path] = (),
        code: Sequence[Path] = (),
        own: Sequence[Path] = (),
        outputs: Sequence[str] = (),
        python: bool = False,
        how: How = How.AUTO,
    ) -> None:
        self._place, self._log, self._outputs, self._python = place, log, tuple(outputs), python
        self._before = {p.as_posix(): _signature(place.work / p) for p in walk_files(place.work)}
        hook = os.environ.get(audit.FILE)  # the attempt's own: Python reads it at start-up
        self._declared = [*declared, *(place.work / name for name in place.put), *([Path(hook).parent] if hook else [])]
        self._code, self._own = [*code, *(_our_code() if python else ())], list(own)
        self._marked = Path(place.base) / "opens.jsonl"
        self._hooked: Path | None = None
        self._tracer: opens.Tracer | None = None
        self._mark = marks.new_mark() if marks.possible() else 0
        self._why = ""
        self._seen: Seen | None = None
        self._made: frozenset[str] | None = None
        env = private_environment(env, place, python=python)
        program = shutil.which(argv[0], path=env.get("PATH", os.defpath))
        if program is None:
            raise NotStarted(f"there is no program {argv[0]}", hint="name it by its absolute path")
        self.how, self.process = self._start([os.path.abspath(program), *argv[1:]], env, how)

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        return self.process.wait(timeout)

    def stop(self) -> None:
        """End it and everything that it started."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._mark:
            marks.kill_bearers(self._mark)
            marks.reap(self._mark)
        else:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def tail(self, limit: int = 4000) -> str:
        """The end of what it printed."""
        if not self._log.exists():
            return ""
        with self._log.open("rb") as f:
            f.seek(max(0, self._log.stat().st_size - limit))
            return f.read(limit).decode(errors="replace")

    def seen(self) -> Seen:
        """End what is left of it, and say what was seen."""
        if self._seen is None:
            self.stop()
            self._seen = self._look()
        return self._seen

    def undeclared(self) -> tuple[Found, ...]:
        return self.seen().undeclared

    def left(self) -> tuple[str, ...]:
        return self.seen().left

    def made(self, path: Path) -> bool | None:
        """Did it make this file itself? None where only the kernel would know and was not asked."""
        self.seen()
        return None if self._made is None else os.path.realpath(path) in self._made

    # Starting it.

    def _start(self, argv: list[str], env: dict[str, str], how: How) -> tuple[How, subprocess.Popen[bytes]]:
        if how in (How.AUTO, How.KERNEL):
            for ways in (self._with_supervisor, self._with_filter):
                process = ways(argv, env)
                if process is not None:
                    return How.KERNEL, process
            if how is How.KERNEL:
                raise NotStarted(f"what {argv[0]} opens cannot be seen: {self._why}", hint="set watch=auto")
        if how is How.NONE:
            self._why = "it was switched off"
            return How.NONE, self._launch(argv, env, self._mark).process
        folder = self._place.base / "hook"
        self._declared.append(folder)
        self._hooked = audit.install(folder)
        path = os.pathsep.join(p for p in (str(folder), env.get("PYTHONPATH", "")) if p)
        env = {**env, "PYTHONPATH": path, audit.FILE: str(self._hooked)}
        self._why = self._why or "the hook was asked for"
        return How.HOOK, self._launch(argv, env, self._mark).process

    def _with_supervisor(self, argv: list[str], env: dict[str, str]) -> subprocess.Popen[bytes] | None:
        """Below a supervisor that sees every open: it is enough to be marked."""
        log = os.environ.get(marks.LOG)
        if not log or not self._mark:
            return None
        try:
            started = self._launch(argv, env, self._mark)
        except launch.FilterTaken as error:
            self._why, self._mark = f"no mark can be put on it ({error})", 0
            return None
        # The exec of the program itself must be there by now; otherwise that supervisor does not look at us.
        if marks.is_told(log, self._mark):
            self._marked = Path(log)
            return started.process
        started.process.kill()
        started.process.wait()
        marks.kill_bearers(self._mark)
        self._why = "the supervisor's list of opens does not know it"
        return None

    def _with_filter(self, argv: list[str], env: dict[str, str]) -> subprocess.Popen[bytes] | None:
        if not self._mark or not opens.available():
            self._why = self._why or "this machine's kernel cannot be asked at every open"
            return None
        try:
            started = self._launch(argv, env, self._mark, answer=(Declared({}, ""), marks.MarkedLog(self._marked)))
        except launch.FilterTaken as error:
            self._why = f"the kernel allows no listener here ({error}), as in a job inside a job"
            return None
        self._tracer = started.tracer
        return started.process

    def _launch(
        self,
        argv: list[str],
        env: dict[str, str],
        mark: int,
        answer: tuple[Declared, marks.MarkedLog] | None = None,
    ) -> launch.Started:
        try:
            with self._log.open("ab") as log:
                return launch.start(argv, cwd=self._place.work, env=env, log=log, mark=mark, answer=answer)
        except launch.FilterTaken:
            raise
        except launch.LaunchError as error:
            raise NotStarted(str(error)) from error

    # Looking at it.

    def _look(self) -> Seen:
        place = self._place
        private = [str(p) for p in (place.work, place.home, place.tmp, *self._own)]
        never = [*private, *_deep_parents(place.base), os.path.expanduser("~"), tempfile.gettempdir()]
        declared = Declared({}, "", extra=map(str, self._declared), own=private, code=map(str, self._code), never=never)
        if self._python:
            for prefix in {sys.prefix, sys.base_prefix}:
                declared.prefix(prefix)
        how, note = self._replay(declared)
        found = [Found(path, self._where(path)) for path in declared.undeclared()]
        made = declared.created()
        self._made = frozenset(made) if how is How.KERNEL else None
        return Seen(how, note, tuple(found), tuple(self._left(made)))

    def _replay(self, declared: Declared) -> tuple[How, str]:
        """Tell `declared` what was opened. Returns what was really watched, and the sentence about it."""
        if self.how is How.KERNEL:
            if self._tracer is not None:
                self._tracer.finish()
            told = marks.replay(self._marked, self._mark, declared)
            if told.seen <= told.blind:
                return How.NONE, "not watched: the list of its opens was lost (is a disk full?)"
            rest = f"; of {told.blind} calls the path could not be read" if told.blind else ""
            return How.KERNEL, f"every open was seen by the kernel{rest}"
        if self.how is How.HOOK and self._hooked is not None:
            lines = audit.replay(self._hooked, declared)
            self._pass_on(self._hooked)
            if lines:
                return How.HOOK, f"only what Python itself opened was seen, no compiled program's opens: {self._why}"
            return How.NONE, f"not watched: compiled programs are not seen here, {self._why}"
        return How.NONE, f"not watched: {self._why}"

    def _pass_on(self, hooked: Path) -> None:
        """In an attempt that is watched by hooks too, its own list lacks what went to ours."""
        attempt = os.environ.get(audit.FILE)
        if attempt:
            with suppress(OSError), open(attempt, "ab") as f:
                f.write(hooked.read_bytes())

    def _where(self, path: str) -> str:
        work = os.path.realpath(self._place.work)
        folder = os.path.dirname(path)
        homes = [os.path.realpath(p) for p in (os.path.expanduser("~"), self._place.home)]
        temporary = [os.path.realpath(p) for p in (tempfile.gettempdir(), self._place.tmp, "/tmp", "/var/tmp")]
        if _below(path, work):
            return "its working folder"
        if folder in homes:
            return "the home folder"
        if folder in temporary:
            return "the temporary folder"
        if _below(work, folder):
            return "a parent folder"
        if any(_below(path, p) for p in homes):
            return "the home folder"
        return "the temporary folder" if any(_below(path, p) for p in temporary) else "elsewhere"

    def _left(self, made: Sequence[str]) -> Iterator[str]:
        for rel in walk_files(self._place.work):
            name = rel.as_posix()
            fine = any(fnmatch.fnmatch(name, pattern) for pattern in (*self._outputs, *_NOISE))
            if not fine and self._before.get(name) != _signature(self._place.work / rel):
                yield name
        place = self._place
        ours = [os.path.realpath(p) for p in (place.work, place.home, place.tmp, self._log, *self._own)]
        for path in made:
            if regular(path) != path or any(_below(path, p) for p in ours):
                continue
            if not any(fnmatch.fnmatch(path, pattern) for pattern in _NOISE):
                yield path


def private_environment(env: Mapping[str, str], place: Place, *, python: bool) -> dict[str, str]:
    """`env` with every place where something could have been kept from earlier pointed into `place`."""
    out = {name: value for name, value in env.items() if name not in CACHES}
    out["HOME"] = str(place.home)
    out.update(dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(place.tmp)))
    # Beside the source is where Numba looks otherwise, and it does not see that a function elsewhere has changed.
    out["NUMBA_CACHE_DIR"] = str(place.tmp / "numba")
    if python and site.ENABLE_USER_SITE:
        out.setdefault("PYTHONUSERBASE", site.getuserbase())  # packages of the user's own are below the real home
    return out


def mismatch(undeclared: Sequence[Found]) -> str:
    """Why rows of a candidate that opened these are no comparison; "" when there are none."""
    if not undeclared:
        return ""
    named = ", ".join(str(found) for found in undeclared[:SHOWN])
    more = len(undeclared) - SHOWN
    return f"it opened what was not declared: {named}" + (f" and {more} more" if more > 0 else "")


def _our_code() -> list[Path]:
    """Our packages and their metadata, of this run and not of whatever is installed."""
    root = Path(jobs.__file__).resolve().parents[1]
    return [*(root / name for name in PACKAGES), *root.glob("*.egg-info"), *root.glob("*.dist-info")]


def _deep_parents(base: Path) -> list[str]:
    """Folders above `base`, as far as they can be somebody's own: /var/lib/x is, /var/lib is the system's."""
    return [str(p) for p in (base, *base.parents) if len(p.parts) > 3]


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _signature(path: Path) -> tuple[int, ...]:
    info = os.lstat(path)
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
