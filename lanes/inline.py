"""`lab run`: a kind in this very process, so that a debugger just works.

The same run directory, context and seal as in a lane, but no Ray, no controller, no fork, no working folder made by a
supervisor. Such a run never answers the cache and never supports a claim: its seal says `inline`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import LabError
from core.fsio import digest, no_space, read_json, write_json
from core.home import Home
from core.kind import Kind
from core.rundir import RunDir, seal
from lanes.agent.setup import hash_path
from lanes.agent.verdict import Ended, Found, last_step, unmet, verdict
from lanes.child import environment, outcome_of
from lanes.context import Leaving, RunContext


def run_inline(
    kind: Kind,
    params: Any,
    *,
    home: Home,
    inputs: Mapping[str, Path] | None = None,
    env: Mapping[str, str] | None = None,
    outputs: tuple[str, ...] = (),
    expect: Mapping[str, Any] | None = None,
    cores: int | None = None,
) -> tuple[RunDir, dict[str, Any]]:
    """Run `kind` here and now.

    Args:
        params: an instance of the kind's own Params.
        home: its `runs` folder takes the run directory.
        inputs: declared inputs, name -> path; the kind's own are added.

    Returns:
        the sealed run directory and its outcome. An exception of the kind's that is no LabError comes through, after
        the seal, with its traceback: that is what a debugger wants.
    """
    run = _new_run(home)
    named = {**kind.inputs(params), **(inputs or {})}
    spec = _spec(run, kind, params, named, env or {}, outputs, expect or {}, cores or os.cpu_count() or 1)
    write_json(run.spec, spec)
    for name, path in named.items():
        place = run.inputs / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path.absolute())
    ctx = RunContext(run, spec, params, kind.tables)
    write_json(run.env, environment(spec))
    begun = time.monotonic()
    caught: BaseException | None = None
    with _inside(run, ctx, spec):
        try:
            kind.run(ctx)
        except BaseException as error:
            caught = error
        try:
            rows = ctx.finish()
        except BaseException as error:
            rows, caught = {}, caught or error
    said, code = outcome_of(caught)
    said["rows"] = rows
    write_json(run.outcome, said)
    outcome = _judge(run, spec, said, code, rows, time.monotonic() - begun)
    seal(run, outcome=outcome)
    if caught is not None and not isinstance(caught, LabError | Leaving) and not no_space(caught):
        raise caught
    return run, outcome


def _new_run(home: Home) -> RunDir:
    home.runs.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    run = RunDir(home.runs / f"{stamp}-{os.urandom(3).hex()}")
    run.create()
    return run


def _spec(
    run: RunDir,
    kind: Kind,
    params: Any,
    inputs: Mapping[str, Path],
    env: Mapping[str, str],
    outputs: tuple[str, ...],
    expect: Mapping[str, Any],
    cores: int,
) -> dict[str, Any]:
    listed = [
        {
            "name": name,
            "path": str(path.absolute()),
            "dest": None,
            "sha256": hash_path(path),
            "size": path.stat().st_size,
            "tree": path.is_dir(),
        }
        for name, path in sorted(inputs.items())
    ]
    values = params.model_dump(mode="json")
    identity = {"kind": kind.name, "params": values, "inputs": [[i["name"], i["sha256"]] for i in listed]}
    return {
        "version": 1,
        "job": 0,
        "attempt": 1,
        "nonce": run.path.name,
        "kind": kind.name,
        "entry": f"{type(kind).__module__}:{type(kind).__qualname__}",
        "params": values,
        "key": "inline:" + digest(identity),  # never equal to a key of the queue
        "inputs": listed,
        "code": {"digest": None, "path": None, "subdir": ""},
        "packages": dict.fromkeys(kind.packages, ""),
        "python": sys.executable,
        "grant": {"cores": cores, "memory_mb": None, "gpus": [], "resources": []},
        "limits": {"time_s": None, "grace_s": 0.0, "setup_s": 600.0},
        "env": dict(env),
        "outputs": list(outputs),
        "expect": dict(expect),
        "checkpoints": [],
        "inline": True,
    }


@contextlib.contextmanager
def _inside(run: RunDir, ctx: RunContext, spec: Mapping[str, Any]) -> Iterator[None]:
    """In the run's working folder, with its environment; everything as before afterwards."""
    here = Path.cwd()
    before = dict(os.environ)
    handler: Any = None
    main = threading.current_thread() is threading.main_thread()
    os.environ.update({str(k): str(v) for k, v in spec["env"].items()})
    os.environ["OMP_NUM_THREADS"] = str(ctx.cores)
    os.chdir(run.work)
    if main:
        handler = signal.signal(signal.SIGTERM, ctx.stop)
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, handler)
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)


def _judge(
    run: RunDir, spec: dict[str, Any], said: dict[str, Any], code: int, rows: dict[str, int], seconds: float
) -> dict[str, Any]:
    step = last_step(run.metrics)
    missing = [f"the declared output {o} was not written" for o in spec["outputs"] if not _keep(run, o)]
    missing += unmet(spec, read_json(run.plan, {}), run, rows, step)
    judged = verdict(Found(ended=Ended(exit_code=code), child=said, missing=missing))
    return {
        **judged,
        "seconds": round(seconds, 3),
        "rows": rows,
        "last_step": step,
        "undeclared": [],
        "left": [],
        "traced": "none",
        "inline": True,
    }


def _keep(run: RunDir, name: str) -> bool:
    source, kept = run.work / name, run.artifacts / name
    if source.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        source.rename(kept)
    return kept.exists()
