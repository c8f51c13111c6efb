"""The process in which a kind runs: `python -P -c "from lanes.child import main; main()" RUN_DIR`.

It says how it ended in outcome.json and, for a disk on which even that does not fit, by its exit code. The supervisor
judges. Modules of ours stay light here: what a kind does not need is not loaded.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from core.errors import CheckCannotFail, LabError
from core.failpoint import failpoint
from core.fsio import no_space, write_json
from core.rundir import RunDir
from lanes.agent.verdict import EXIT_CANNOT_FAIL, EXIT_DISK_FULL, EXIT_ERROR, EXIT_LEFT
from lanes.context import Leaving, RunContext, load_spec

# Never values of variables that were not named: a token in an evidence file is a leak for ever.
RECORDED_ENV = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER",
    "LANG", "LC_ALL", "TZ", "PYTHONHASHSEED",
)  # fmt: skip


def main() -> None:
    """Run the attempt whose run directory is the last argument, and never return."""
    run = RunDir(Path(sys.argv[-1]))
    code = EXIT_ERROR
    try:
        code = run_child(run)
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass
    # Everything is on disk. Libraries that hang or crash while they are unloaded must not change the verdict.
    os._exit(code)


def run_child(run: RunDir) -> int:
    spec = load_spec(run)
    ctx: RunContext | None = None
    caught: BaseException | None = None
    rows: dict[str, int] = {}
    try:
        ctx, work = build(run, spec)
        ctx.listen()
        write_json(run.env, environment(spec), sync=False)
        failpoint("child.before_run")
        work(ctx)
    except BaseException as error:
        caught = error
    try:
        rows = ctx.finish() if ctx is not None else {}
    except BaseException as error:
        caught = caught or error
    outcome, code = outcome_of(caught)
    outcome["rows"] = rows
    if caught is not None and outcome["cause"] != "preempted" and not hasattr(caught, "program"):
        traceback.print_exception(caught)  # a program that failed has said so itself
    try:
        write_json(run.outcome, outcome, sync=False)
    except OSError as error:
        return EXIT_DISK_FULL if no_space(error) else code or EXIT_ERROR
    return code


def build(run: RunDir, spec: dict[str, Any]) -> tuple[RunContext, Callable[[Any], None]]:
    """The context, and what to call with it.

    A kind whose run needs no parsed parameters and no tables may offer, in its module, `LIGHT = {class: function}`:
    then the class, and pydantic with it, is not loaded (the parameters were checked at submit).
    """
    module_name, _, class_name = str(spec["entry"]).partition(":")
    module = importlib.import_module(module_name)
    light: Callable[[Any], None] | None = getattr(module, "LIGHT", {}).get(class_name)
    here = Path.cwd()
    if light is not None:
        return RunContext(run, spec, SimpleNamespace(**spec["params"]), work=here), light
    kind = getattr(module, class_name)()
    return RunContext(run, spec, kind.Params.model_validate(spec["params"]), kind.tables, work=here), kind.run


def outcome_of(error: BaseException | None) -> tuple[dict[str, Any], int]:
    """How an exception (or none) is told to the supervisor: outcome.json and exit code."""
    if error is None:
        return {"cause": "ok", "message": ""}, 0
    said: dict[str, Any] = {
        "error_type": type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
    }
    if isinstance(error, Leaving):
        return {"cause": "preempted", "message": "it left when asked to", "error_type": "Leaving"}, EXIT_LEFT
    if isinstance(error, CheckCannotFail):
        return {"cause": "check-cannot-fail", "message": str(error), **said}, EXIT_CANNOT_FAIL
    if no_space(error):
        return {"cause": "disk-full", "message": f"the disk is full: {error}", **said}, EXIT_DISK_FULL
    if isinstance(error, LabError):
        # A message meant for people. How a program of the user's ended travels on the exception.
        ended = getattr(error, "program", None) or {}
        # A kind may know a better word than `error` for its failure, one of core.states.Cause.
        cause = "signal" if ended.get("signal") else str(getattr(error, "cause", "error"))
        return {"cause": cause, "message": str(error), **said, **ended}, EXIT_ERROR
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return {"cause": "ok", "message": ""}, 0
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        message, code = f"exit {error.code}", error.code & 255 or EXIT_ERROR
        return {"cause": "error", "message": message, "exit_code": error.code, **said}, code
    last = traceback.format_exception_only(error)[-1].strip()
    return {"cause": "error", "message": last, **said}, EXIT_ERROR


def environment(spec: dict[str, Any]) -> dict[str, Any]:
    """What was realised: the other half of what the key declared."""
    system = os.uname()
    code = spec.get("code") or {}
    found: dict[str, Any] = {
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "prefix": sys.prefix,
        "hostname": system.nodename,
        "platform": f"{system.sysname} {system.release} {system.machine}",
        "packages": _versions(spec.get("packages") or {}),
        "grant": spec.get("grant"),
        "git": {name: code.get(name) for name in ("root", "commit", "dirty", "digest") if code.get(name) is not None},
        "kind_path": spec.get("kind_path"),
        "env": {n: os.environ[n] for n in (*RECORDED_ENV, *(spec.get("env") or {})) if n in os.environ},
        "time": time.time(),
    }
    if (spec.get("grant") or {}).get("gpus"):
        found["driver"] = _driver()
    return found


def _versions(declared: dict[str, str]) -> dict[str, str | None]:
    if not declared:
        return {}
    import importlib.metadata

    found: dict[str, str | None] = {}
    for name in declared:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _driver() -> str | None:
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        return None
