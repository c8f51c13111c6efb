"""`lab` commands as processes that do not import everything anew: forked from one that has.

A start of `lab` costs some tenths of a second of imports, and the tests of the command line start it a thousand times.
What is forked here is a process of its own all the same: own memory, folder, environment, exit code, and Python's own
end. Whatever could change what Python is at its start (its variables, the locale, a foreign package on the path) is
left to a real start, and so are tests of the process itself: its command line, its imports, its signals.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_OURS = ("core", "jobs", "lab", "lanes", "kernels")
_AT_START = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "COV_")
_LENGTH = struct.Struct("!I")
# Nothing here may start a thread, or be what some command must do without (numpy, pyarrow, ray, ...).
# fmt: off
_WARM = [
    "core.cluster", "core.digests", "core.git", "core.kindcode", "core.snapshot", "core.spec", "core.study",
    "core.journal", "lab.answers", "lab.axes", "lab.batchlog", "lab.capacity", "lab.cells", "lab.cli",
    "lab.completion", "lab.commands", "lab.commands._submitted", "lab.commands.submit", "lab.commands.status",
    "lab.commands.results", "lab.commands.explain", "lab.commands.lanes", "lab.explain", "lab.files", "lab.jobsfile",
    "lab.logs", "lab.main", "lab.output.human", "lab.output.job", "lab.output.page", "lab.output.progress",
    "lab.output.sweep", "lab.params", "lab.planning", "lab.ranking", "lab.selection", "lab.session", "lab.studies",
    "lab.submission", "lab.sweepagain", "lab.wait", "lanes.start",
]
# fmt: on
_warm: list[tuple[subprocess.Popen[bytes], Path]] = []


def run_lab(
    args: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None, timeout: float
) -> subprocess.CompletedProcess[str]:
    """`python -P -m lab ARGS` with nothing on stdin; its output is captured."""
    argv = [sys.executable, "-P", "-m", "lab", *args]
    if not _plain(env):
        return subprocess.run(
            argv, cwd=cwd, env=dict(env), capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
    request = json.dumps({"args": list(args), "env": dict(env), "cwd": os.fspath(cwd or Path.cwd())}).encode()
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        open(os.devnull, "rb") as nothing,
        socket.socket(socket.AF_UNIX) as wire,
    ):
        wire.connect(str(_address()))
        socket.send_fds(wire, [_LENGTH.pack(len(request))], [nothing.fileno(), out.fileno(), err.fileno()])
        wire.sendall(request)
        wire.settimeout(timeout)
        (pid,) = _LENGTH.unpack(_all_of(wire, _LENGTH.size))
        try:
            code = struct.unpack("!i", _all_of(wire, 4))[0]
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(argv, timeout) from None
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(io.TextIOWrapper(file, encoding="utf-8").read())  # with newlines as `subprocess` gives them
    return subprocess.CompletedProcess(argv, code, *said)


def _plain(env: Mapping[str, str]) -> bool:
    """Would a Python that starts with `env` be like the one that waits?"""
    names = {n for n in {*env, *os.environ} if n.startswith(_AT_START) and n != "PYTHONPATH"}
    if any(env.get(n) != os.environ.get(n) for n in names):
        return False
    places = [Path(p) for p in env.get("PYTHONPATH", "").split(os.pathsep) if p]
    return not any((p / n).exists() for p in places if p.resolve() != ROOT for n in (*_OURS, "sitecustomize.py"))


def _address() -> Path:
    """Where the waiting process listens; it is started when it is first asked for, and goes when we go."""
    if not _warm or _warm[0][0].poll() is not None:
        _warm.clear()
        folder = Path(tempfile.mkdtemp(prefix="lab-forked-"))
        process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).resolve()), str(folder / "s")],
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", "the process from which commands are forked does not start"
        _warm.append((process, folder / "s"))
        atexit.register(_end, process, folder, os.getpid())
    return _warm[0][1]


def _end(process: subprocess.Popen[bytes], folder: Path, owner: int) -> None:
    if os.getpid() != owner:
        return
    process.kill()
    process.wait()
    for path in (folder / "s", folder):
        with contextlib.suppress(OSError):
            path.unlink() if path != folder else path.rmdir()


def _all_of(wire: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = wire.recv(size - len(data))
        if not more:
            raise ConnectionError("the process from which commands are forked has gone")
        data += more
    return data


# The process that waits.


def _serve(address: str) -> int:
    """Returns only in a command's own process, with its exit code."""
    import importlib
    import threading

    sys.path.insert(0, str(ROOT))
    for name in _WARM:
        importlib.import_module(name)
    sys.path.remove(str(ROOT))
    assert threading.active_count() == 1
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that are forked here are waited for by nobody
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(64)
        os.write(1, b"ready\n")
        while True:
            if 0 in select.select([server, 0], [], [])[0]:
                os._exit(0)  # the tests have gone
            wire, _ = server.accept()
            if not os.fork():
                server.close()
                break
            wire.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, fds, _, _ = socket.recv_fds(wire, _LENGTH.size, 3)
    (size,) = _LENGTH.unpack(head)
    request = json.loads(_all_of(wire, size))
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):
            wire.sendall(_LENGTH.pack(pid))
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            wire.sendall(struct.pack("!i", os.waitstatus_to_exitcode(status)))
        os._exit(0)
    wire.close()
    return _command(request, fds)


def _command(request: Mapping[str, object], fds: Sequence[int]) -> int:
    """What `python -P -m lab` does, from here on."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdin, sys.stdout = io.TextIOWrapper(open(0, "rb")), io.TextIOWrapper(open(1, "wb"))  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(open(2, "wb", 0), errors="backslashreplace", write_through=True)  # noqa: SIM115
    env, args, cwd = request["env"], request["args"], request["cwd"]
    assert isinstance(env, dict)
    assert isinstance(args, list)
    assert isinstance(cwd, str)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[:0] = [p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p]
    sys.argv = [str(ROOT / "lab" / "__main__.py"), *args]
    from lab.main import main

    return main()


if __name__ == "__main__":
    sys.path[:] = [p for p in sys.path if Path(p).resolve() != ROOT / "tests"]
    sys.exit(_serve(sys.argv[1]))
