"""Programs of other people run as they would be by hand: decoder and evaluator, each in a process of its own.

What they write goes into one scratch folder, whose disk is looked at first and which is gone afterwards. What a killed
scoring left is removed by whoever looks after the attempt, where the folder is in the attempt's own temporary one, and
else by the next scoring. Their output goes to the job's log and to an artifact.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import fcntl
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from core.errors import DiskFull, JobFailed
from core.kind import Context

PREFIX = "lab-score-"
_LOCK = ".held"
_TAIL = 12
_LOOK_S = 0.2
_GRACE_S = 5.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None  # loaded before any fork
# What a program may know of us: the mark by which stray processes are found, the granted cores and GPUs, the locale.
_KEPT = re.compile(
    r"LAB_ATTEMPT|LANG|LC_ALL|TZ|CUDA_VISIBLE_DEVICES|LD_LIBRARY_PATH|SSL_CERT_(?:FILE|DIR)"
    r"|(?:OMP|GOMP|KMP|MKL|OPENBLAS|NUMEXPR|VECLIB)_[A-Z_]+"
)


class EvaluatorFailed(JobFailed):
    """A program ended badly, took too long, or left no report."""

    slug = "evaluator-failed"


@contextlib.contextmanager
def scratch(base: Path, *, need: int, also: Iterable[Path] = ()) -> Iterator[Path]:
    """An empty folder below `base`, gone with all that is in it when the block ends, however it ends.

    Args:
        need: bytes that must be free there.
        also: more folders in which an earlier scoring may have been killed.

    Raises:
        DiskFull: less is free, on the file system that `base` is on.
    """
    base.mkdir(parents=True, exist_ok=True)
    for place in (base, *also):
        remove_leftovers(place)
    free = shutil.disk_usage(base).free
    if free < need:
        raise DiskFull(
            f"a scoring writes {need / 1e9:.2f} GB of frames, and {base} has {free / 1e9:.2f} GB free",
            hint="free some space, or name a folder on another disk with --set scratch=FOLDER",
        )
    folder, lock = _held_folder(base)
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def remove_leftovers(base: Path) -> list[str]:
    """Remove the scratch folders below `base` whose makers are dead. Returns their names."""
    gone = []
    for folder in sorted(base.glob(f"{PREFIX}*")):
        with contextlib.suppress(OSError):
            lock = os.open(folder / _LOCK, os.O_WRONLY)  # a job may look into none of the others: this reads nothing
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(folder)
                gone.append(folder.name)
            finally:
                os.close(lock)
    return gone


def clean_environment(
    ours: Mapping[str, str], *, home: Path, interpreter: Path, path: Sequence[str] = ()
) -> dict[str, str]:
    """What the programs see: none of our paths, settings or secrets, and `python` is the evaluator's."""
    env = {name: value for name, value in ours.items() if _KEPT.fullmatch(name)}
    system = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")
    return env | {
        "PATH": os.pathsep.join([str(interpreter.parent), *path, *system]),
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
        "LC_ALL": env.get("LC_ALL", "C.UTF-8"),
    }


@dataclass
class Programs:
    """Runs one program after another against one deadline.

    Attributes:
        log: gets all that they write, as it comes.
        limit_s: seconds for all of them together.
    """

    ctx: Context
    env: Mapping[str, str]
    log: Path
    limit_s: float
    _begun: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    def run(self, what: str, argv: Sequence[str], cwd: Path) -> None:
        """Run to the end.

        Raises:
            EvaluatorFailed: it cannot be started, ends with another exit code than 0, by a signal, or too late; the
                message has its last lines.
        """
        self.ctx.log(f"{what}: {' '.join(argv)}")
        last: collections.deque[str] = collections.deque(maxlen=_TAIL)
        try:
            process = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_us,
            )
        except OSError as error:
            raise EvaluatorFailed(f"{what} ({argv[0]}) cannot be started: {error.strerror}") from None
        try:
            late = self._follow(process, last)
        finally:
            end_group(process)
        if late:
            raise EvaluatorFailed(
                f"{what} was ended: decoding and evaluating took longer than {self.limit_s:g} s{_said(last)}",
                hint="give it longer with --set limit_s=SECONDS",
            )
        code = process.returncode
        if code < 0:
            raise EvaluatorFailed(f"{what} was ended by {signal.Signals(-code).name}{_said(last)}")
        if code:
            raise EvaluatorFailed(f"{what} ended with exit {code}{_said(last)}")

    def _follow(self, process: subprocess.Popen[bytes], last: collections.deque[str]) -> bool:
        """Pass on what it writes until it ends. True: it took too long. Leaves with the context where that must."""
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        os.set_blocking(pipe, False)
        lines, is_open = _Lines(self.ctx, last), True
        with self.log.open("ab") as kept, selectors.DefaultSelector() as waiting:
            waiting.register(pipe, selectors.EVENT_READ)
            while True:
                ended = _has_ended(process)
                if is_open and (ended or waiting.select(_LOOK_S)):
                    is_open = _drain(pipe, kept, lines)
                    if not is_open:
                        waiting.unregister(pipe)
                elif not ended:
                    time.sleep(_LOOK_S)
                if ended:  # what it started may hold the pipe open: nobody waits for that
                    lines.finish()
                    return False
                if self.ctx.stopping:
                    end_group(process)
                    self.ctx.leave()
                if self.seconds > self.limit_s:
                    lines.finish()
                    return True


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a program and all of its session: first asked, then killed; last its number is given back."""
    if process.returncode is None:
        if not _has_ended(process):
            _signal_group(process, signal.SIGTERM)
            until = time.monotonic() + _GRACE_S
            while not _has_ended(process) and time.monotonic() < until:
                time.sleep(0.02)
        _signal_group(process, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Has it? Its number stays taken, so that its group can still be signalled and nobody else's."""
    if process.returncode is not None:
        return True
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


class _Lines:
    """Output cut into lines for the job's log; of a progress bar that draws over itself, the last state."""

    def __init__(self, ctx: Context, last: collections.deque[str]) -> None:
        self._ctx, self._last, self._rest = ctx, last, b""

    def add(self, block: bytes) -> None:
        *whole, self._rest = (self._rest + block).split(b"\n")
        for line in whole:
            self._say(line)
        self._rest = self._rest[-65536:]

    def finish(self) -> None:
        self._say(self._rest)
        self._rest = b""

    def _say(self, line: bytes) -> None:
        text = line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace").rstrip()
        if text:
            self._last.append(text)
            self._ctx.log(text)


def _drain(pipe: int, kept: IO[bytes], lines: _Lines) -> bool:
    """Read what is there. False at the end of it all."""
    while True:
        try:
            block = os.read(pipe, 65536)
        except BlockingIOError:
            return True
        if not block:
            return False
        kept.write(block)
        kept.flush()
        lines.add(block)


def _said(last: Iterable[str]) -> str:
    lines = [line for line in last if line.strip()]
    return f"; it said last: {' | '.join(lines)}" if lines else "; it said nothing"


def _held_folder(base: Path) -> tuple[Path, int]:
    """A new folder, and the lock that says that somebody lives in it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (folder / _LOCK).exists():
                return folder, lock
        except OSError:
            pass
        os.close(lock)  # somebody who tidied up was quicker


def _remove(folder: Path) -> None:
    """The whole folder, also what a program made unwritable. The lock goes last, so that the next one goes on."""
    for path, names, _ in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                where = os.path.join(path, name)
                if not os.path.islink(where):
                    os.chmod(where, 0o700)
    for entry in folder.iterdir():
        if entry.name == _LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _die_with_us() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
