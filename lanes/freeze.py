"""From the journal's rows to spec.json: the only thing that an attempt is ever told."""

from __future__ import annotations

import os
from typing import Any

from core.home import Home
from core.journal.query import Attempt, Job
from core.rundir import SPEC_VERSION


def freeze(home: Home, job: Job, attempt: Attempt, spec: dict[str, Any], *, wake: str) -> dict[str, Any]:
    """The frozen spec of one attempt. The same rows give the same spec: a start may be sent twice.

    Args:
        spec: as `lanes.taken` has it, when other jobs make inputs of it.
    """
    code, kind_code = spec["code"], spec["kind_code"]
    # Of this job only: a rerun is another job and starts from nothing.
    checkpoints = [str(home.run_dir(job.id, n).checkpoints) for n in range(attempt.n - 1, 0, -1)]
    return {
        "version": SPEC_VERSION,
        "job": job.id,
        "attempt": attempt.n,
        "nonce": attempt.nonce,
        "kind": job.kind,
        "name": job.name,
        "entry": spec["entry"],
        "params": job.params,
        "key": job.key,
        "lane": attempt.lane,
        "inputs": spec["inputs"],
        "absent": spec.get("absent", []),
        "code": {
            "digest": code["digest"],
            "path": str(home.code / code["store"]),
            "subdir": code["subdir"],
            "root": code["root"],
            "commit": code["commit"],
            "dirty": code["dirty"],
        }
        if code
        else {"digest": None, "path": None, "subdir": ""},
        "kind_path": str(home.code / kind_code["store"]),
        "kind_digest": kind_code["digest"],
        "packages": spec["packages"],
        "python": spec["python"],
        "grant": attempt.grant,
        "limits": spec["limits"],
        "env": spec["env"],
        "marker": f"lab:{home.hash}:{job.id}:{attempt.n}:{attempt.nonce}",
        "outputs": spec["outputs"],
        "expect": spec["expect"],
        "checkpoints": checkpoints,
        "allow_undeclared": spec["allow_undeclared"],
        "wake": wake,
        "base_env": _base_env(spec),
    }


def _base_env(spec: dict[str, Any]) -> dict[str, str]:
    """What every program expects; nothing else of the submitter's environment is passed on."""
    names = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ")
    env = {name: os.environ[name] for name in names if name in os.environ}
    return {**env, "PATH": spec.get("path") or os.environ.get("PATH", os.defpath)}
