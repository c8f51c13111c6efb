"""Kind `command`: any program, in a working folder of its own.

The program is run as it is, without a shell, with its own interpreter and the submitter's PATH; our packages are not
on its path. `$LAB_METRICS` names a file: each line that the program appends to it as JSON with a "step" is a step row.
`$LAB_ARTIFACTS` names the folder for files to keep.

Importing this module loads no pydantic: the process that runs a command uses `LIGHT` and is a few milliseconds old
when the program starts.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from core.errors import JobFailed

if TYPE_CHECKING:
    from core.kind import Context
    from jobs.command_kind import Command as Command

_PR_SET_PDEATHSIG = 1
# For our own process only; the program gets back what the user declared, if anything.
_OURS = ("PYTHONPATH", "PYTHONSAFEPATH", "LAB_FAILPOINTS")


class ProgramFailed(JobFailed):
    """The program ended by itself, and not well."""

    def __init__(self, message: str, *, exit_code: int | None = None, signal: int | None = None) -> None:
        super().__init__(message)
        self.program: dict[str, int | None] = {"exit_code": exit_code, "signal": signal}


def run(ctx: Context) -> None:
    """Start the program, pass the warn signal on, wait, and say how it ended.

    Raises:
        ProgramFailed: it could not be started, ended with another exit code than 0, or by a signal.
    """
    argv = [str(word) for word in ctx.params.argv]
    env = program_env(ctx.raw, os.environ)
    env.update({str(k): str(v) for k, v in (ctx.params.env or {}).items()})
    run_path = ctx.artifacts.parent
    env["LAB_METRICS"] = str(run_path / "metrics.jsonl")
    env["LAB_ARTIFACTS"] = str(ctx.artifacts)
    env["LAB_INPUTS"] = str(run_path / "inputs")
    path = find_program(argv[0], env.get("PATH", os.defpath), str(ctx.work))
    status = _run(ctx, path, argv, env)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        raise ProgramFailed(f"{argv[0]} was ended by {signal.Signals(number).name}", signal=number)
    code = os.WEXITSTATUS(status)
    if code:
        raise ProgramFailed(f"{argv[0]} ended with exit {code}", exit_code=code)


def program_env(spec: Mapping[str, Any], ours: Mapping[str, str]) -> dict[str, str]:
    """The kind process's environment without what is only for it, and with the user's declared variables back."""
    env = {name: value for name, value in ours.items() if name not in _OURS}
    declared = spec.get("env") or {}
    env.update({n: str(declared[n]) for n in _OURS if n in declared})
    if "LAB_OPENS" in ours:  # opens are noted by a hook that Python finds on its path
        hook = ours.get("PYTHONPATH", "").split(os.pathsep)[0]
        env["PYTHONPATH"] = os.pathsep.join(p for p in (hook, env.get("PYTHONPATH", "")) if p)
    return env


def find_program(name: str, path: str, work: str) -> str:
    """The file that `name` means, as a shell started in `work` would find it.

    Raises:
        ProgramFailed: there is none; exit code 127, as in a shell.
    """
    if "/" in name:
        places = [os.path.join(work, name)]
    else:
        places = [os.path.join(work, folder or ".", name) for folder in path.split(os.pathsep)]
    for place in places:
        if os.access(place, os.X_OK) and not os.path.isdir(place):
            return place
    where = "in the working folder" if "/" in name else f"on PATH ({path})"
    raise ProgramFailed(f"no program {name!r} can be run {where}", exit_code=127)


def _run(ctx: Context, path: str, argv: list[str], env: dict[str, str]) -> int:
    sys.stdout.flush()
    parent, child = os.getpid(), 0
    libc = _libc()
    asked = False

    def forward(*_: object) -> None:
        nonlocal asked
        asked = True
        stop: Callable[[], None] | None = getattr(ctx, "stop", None)
        if stop is not None:
            stop()
        if child:
            _signal_group(child)

    before = signal.signal(signal.SIGTERM, forward)
    failed, tell = os.pipe()
    child = os.fork()
    if child == 0:
        _become(path, argv, env, str(ctx.work), tell, parent, libc)
    os.close(tell)
    try:
        if asked or ctx.stopping:
            _signal_group(child)
        with os.fdopen(failed, "rb") as f:
            reason = f.read().decode("utf-8", "replace")
        _, status = os.waitpid(child, 0)
    finally:
        signal.signal(signal.SIGTERM, before)
    if reason:
        raise ProgramFailed(f"{argv[0]} ({path}) cannot be started: {reason}", exit_code=126)
    return status


def _become(path: str, argv: list[str], env: dict[str, str], work: str, tell: int, parent: int, libc: Any) -> NoReturn:
    """In the forked process: a session of its own, gone when the kind's process goes."""
    try:
        for sig in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(sig, signal.SIG_DFL)
        os.setsid()
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(125)
        os.chdir(work)
        os.execve(path, argv, env)
    except BaseException as error:
        os.write(tell, (getattr(error, "strerror", None) or str(error)).encode())
    os._exit(126)


def _signal_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGTERM)
    except ProcessLookupError:
        try:
            os.kill(pid, signal.SIGTERM)  # it has no session of its own yet
        except ProcessLookupError:
            pass


def _libc() -> Any:
    return ctypes.CDLL(None) if sys.platform.startswith("linux") else None


LIGHT = {"Command": run}


def __getattr__(name: str) -> Any:
    if name == "Command":
        from jobs.command_kind import Command

        return Command
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
