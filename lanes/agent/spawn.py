"""Start the kind's process: own session, dies with its supervisor, traced, with an environment said in full."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from core import audit, marks, opens
from core.declared import Declared
from core.rundir import RunDir
from lanes.agent import FAILPOINTS, procs

# What a program may take from the lane it runs on. Everything else comes from the spec.
INHERITED = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "USER", "LOGNAME", "SHELL", "TZ", "LD_LIBRARY_PATH", FAILPOINTS,
)  # fmt: skip
THREADS = tuple(f"{name}_NUM_THREADS" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA"))
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
CHILD = "from lanes.child import main; main()"
_RESET = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ,
)  # fmt: skip
_SOCKET_ROOM = 60  # sockets below TMPDIR (107 bytes at most) need what is left for names of their own


class SpawnError(Exception):
    """The interpreter could not be started."""


class Child(NamedTuple):
    pid: int
    traced: str  # "seccomp" | "audit" | "none"
    tracer: "Optional[opens.Tracer]"
    opened: Optional[Path]  # what the audit hooks fill


def start_child(spec: Dict[str, Any], run: RunDir, cwd: Path, *, log_fd: int, declared: Declared) -> Child:
    """Fork and exec the kind's process.

    Raises:
        SpawnError: with the operating system's reason.
    """
    how = str(spec.get("trace") or "auto")  # "auto" | "audit" | "none"
    argv = [str(spec["python"]), "-P", "-c", CHILD, str(run.path)]
    env = child_env(spec, run)
    if how == "auto" and opens.available():
        marked = run.path / "tmp" / "marked.jsonl"  # for a run that watches its own candidates
        found = _fork(argv, cwd, {**env, marks.LOG: str(marked)}, log_fd, (declared, marks.MarkedLog(marked)))
        if found is not None:
            return found
    opened = None
    if how != "none":
        folder = run.path / "tmp" / "audit"
        opened = audit.install(folder)
        env["PYTHONPATH"] = os.pathsep.join(p for p in (str(folder), env.get("PYTHONPATH", "")) if p)
        env[audit.FILE] = str(opened)
    child = _fork(argv, cwd, env, log_fd, None)
    if child is None:
        raise SpawnError("the child could not be started")
    return child._replace(traced="none" if opened is None else "audit", opened=opened)


def child_env(spec: Dict[str, Any], run: RunDir) -> Dict[str, str]:
    """The whole environment of the kind's process."""
    grant = spec.get("grant") or {}
    cores = str(max(1, int(grant.get("cores") or 1)))
    env = {name: os.environ[name] for name in INHERITED if name in os.environ}
    env.update({str(k): str(v) for k, v in (spec.get("base_env") or {}).items()})  # the submitter's PATH and the like
    env.setdefault("PATH", DEFAULT_PATH)
    env.setdefault("LANG", "C.UTF-8")
    env["PYTHONUNBUFFERED"] = "1"
    env.update(dict.fromkeys(THREADS, cores))
    # Threads that spin while they wait for one another starve the neighbours they wait for.
    env.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0", KMP_BLOCKTIME="0")
    env.update({str(k): str(v) for k, v in (spec.get("env") or {}).items()})
    env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    env["CUDA_VISIBLE_DEVICES"] = ",".join(str(g) for g in grant.get("gpus") or ())
    env["TMPDIR"] = short_tmp(spec, run)
    env["LAB_JOB"], env["LAB_ATTEMPT_NUMBER"] = str(spec["job"]), str(spec["attempt"])
    env["LAB_CORES"] = cores
    env[procs.MARKER] = str(spec["marker"])
    env["PYTHONPATH"] = str(spec.get("kind_path") or "")
    env["PYTHONSAFEPATH"] = "1"
    return env


def short_tmp(spec: Dict[str, Any], run: RunDir) -> str:
    """The run's own temporary folder, under a short name when sockets made in it would not fit."""
    place = run.path / "tmp"
    place.mkdir(exist_ok=True)
    if len(os.fsencode(place)) <= _SOCKET_ROOM:
        return str(place)
    link = short_name(spec)
    with contextlib.suppress(OSError):
        if os.path.islink(link):
            os.unlink(link)
        os.symlink(place, link)
        return link
    return str(place)


def short_name(spec: Dict[str, Any]) -> str:
    return f"/tmp/lab-{os.getuid()}-{str(spec.get('nonce') or 'x')[:16]}.tmp"


def _fork(
    argv: List[str],
    cwd: Path,
    env: Dict[str, str],
    log_fd: int,
    told: "Optional[Tuple[Declared, marks.MarkedLog]]",
) -> Optional[Child]:
    """One try; None when the filter could not be installed (nothing was started then)."""
    ours, theirs = socket.socketpair()  # closed by exec: end of file means that the program runs
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(argv, cwd, env, log_fd, theirs, parent, told is not None)
    theirs.close()
    tracer = None
    with ours:
        said, fds, _flags, _address = socket.recv_fds(ours, 512, 1)
        if fds and told is not None:
            tracer = opens.Tracer(fds[0], *told)
            tracer.start()
            said = ours.recv(512)
    if not said:
        return Child(pid, "seccomp" if tracer else "none", tracer, None)
    os.waitpid(pid, 0)
    if tracer is not None:
        tracer.finish()
    if said.startswith(b"seccomp"):
        return None
    raise SpawnError(f"{argv[0]} cannot be started: {said.decode('utf-8', 'replace')}")


def _become(
    argv: List[str], cwd: Path, env: Dict[str, str], log_fd: int, tell: socket.socket, parent: int, trace: bool
) -> None:
    """In the forked process: never returns. It must not open files once the filter is on."""
    step = "setup"
    try:
        signal.set_wakeup_fd(-1)
        for sig in _RESET:
            signal.signal(sig, signal.SIG_DFL)
        os.setsid()
        procs.die_with_parent(parent)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log_fd, 1)
        os.dup2(log_fd, 2)
        os.chdir(cwd)
        if trace:
            step = "seccomp"
            fd = opens.install()
            step = "send"
            opens.send_fd(tell, fd)
            os.close(fd)
        step = "exec"
        os.execve(argv[0], argv, env)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            why = getattr(error, "strerror", None) or str(error)
            tell.send(f"{step}: {why}".encode() if step != "exec" else why.encode())
        os._exit(127)
