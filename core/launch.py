"""Start one program so that whatever it and its descendants open can be told apart, and seen.

A small Python is started first; it puts the mark (and, where nobody looks yet, the filter) on itself and becomes the
program. Nothing runs between fork and exec in the process that asks, so it may have threads and locks as it likes.

Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from core import marks, opens
from core.declared import Declared

_BOOT = "import sys; sys.path.append(sys.argv[1]); from core.launch import become; become(sys.argv[2:])"
_ANSWER_S = 60.0  # a machine may be busy, but not so busy
_GOES = b"+"
_FILTER = "filter: "
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# What Python ignores; and what a shell has its background jobs ignore, which they pass on.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT)


class LaunchError(Exception):
    """The program could not be started: the operating system's reason."""


class FilterTaken(LaunchError):
    """Somebody else looks already (or the kernel refuses a filter); nothing was started."""


class Started(NamedTuple):
    process: subprocess.Popen[bytes]
    tracer: opens.Tracer | None


def start(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: IO[bytes],
    mark: int,
    answer: tuple[Declared, marks.MarkedLog] | None = None,
) -> Started:
    """Start `argv` (an absolute program path first) in a session of its own, with no input, printing to `log`.

    It is killed when the thread that calls this ends. With a filter, its orphans become children of this process:
    some systems (Yama) let the memory of descendants be read and of nobody else.

    Args:
        mark: put on it and all its descendants; 0 for none.
        answer: for a filter of its own: what its opens are told to.

    Raises:
        FilterTaken: no filter can be installed.
        LaunchError: the program cannot be started.
    """
    if answer is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        order = [str(mark), str(int(answer is not None)), str(theirs.fileno()), str(os.getpid())]
        root = str(Path(__file__).resolve().parents[1])
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", _BOOT, root, *order, *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(env),
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        ours.settimeout(_ANSWER_S)
        tracer: opens.Tracer | None = None
        said = b""
        try:
            part, fds, _flags, _address = socket.recv_fds(ours, 512, 1)
            if fds and answer is not None:
                os.set_inheritable(fds[0], False)
                tracer = opens.Tracer(fds[0], *answer)
                tracer.start()
                part = ours.recv(512)
            while part:
                said += part
                part = ours.recv(512)
        except BaseException as error:
            _abandon(process, tracer)
            if isinstance(error, OSError):
                raise LaunchError(f"{argv[0]} did not start: {error}") from error
            raise
    if said == _GOES:
        return Started(process, tracer)
    _abandon(process, tracer)
    why = said.decode("utf-8", "replace")
    if why.startswith(_FILTER):
        raise FilterTaken(why[len(_FILTER) :])
    raise LaunchError(f"{argv[0]} cannot be started: {why[1:] or 'the Python that should start it ended'}")


def become(order: list[str]) -> None:
    """In the small Python: never returns. It must not open a file once the filter is on."""
    mark, ask, number, parent, *argv = order
    tell = socket.socket(fileno=int(number))
    tell.set_inheritable(False)
    try:
        _die_with(int(parent))
        for sig in _IGNORED:
            signal.signal(sig, signal.SIG_DFL)
        try:
            if int(mark):
                marks.take(int(mark))
            fd = opens.install() if int(ask) else -1
        except (OSError, ValueError) as error:
            tell.send(f"{_FILTER}{_reason(error)}".encode())
            os._exit(127)
        if fd >= 0:
            opens.send_fd(tell, fd)
            os.close(fd)
        tell.send(_GOES)  # exec closes the socket: this alone means that the program runs
        os.execve(argv[0], argv, os.environ)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            tell.send(_reason(error).encode())
        os._exit(127)


def _die_with(parent: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it went before we could ask
        os._exit(125)


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOEXEC:
        return "it is neither a program of this machine nor a script that begins with #!"
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def _abandon(process: subprocess.Popen[bytes], tracer: Any) -> None:
    process.kill()
    process.wait()
    if tracer is not None:
        tracer.finish()
