"""The jobs of a lane's ladder: ordinary jobs, of one lane only, run anew each time, and never retried.

They depend on one another, so that a lane which fails its first step is not asked for more; and they wait in the queue
until the controller, which climbs the rungs below them, lets them go.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.cluster import ROLES, LaneConfig
from core.errors import BadInput
from core.grid import Grid
from core.home import Home
from core.journal import Journal, query
from core.rungs import STEPS, step_title
from core.states import DEFAULT_RETRIES, Cause, Rung
from lab.asked import Request
from lab.submission import submit

ECHO_KIB = 512
CELLS = 12
_MARGIN_S = 10.0  # the background attempt goes on for so much longer than the time without a connection
_STEP_S, _PROGRAM_S, _PARITY_S = 600, 3600, 1800
# The backends that the probe holds against the oracle where the lane has their package.
_BACKENDS: Mapping[str, tuple[str, ...]] = {
    "numba": ("numba",),
    "torch": ("torch",),
    "tensorflow": ("tensorflow-graph",),
}
_PARITY: Mapping[str, Any] = {
    "sizes": [1, 4], "channels": [1], "patch": 32, "train": 4, "predict": 16, "repeats": 1, "batches": 0,
    "outside": False,
}  # fmt: skip


@dataclass(frozen=True)
class Submitted:
    """The jobs of one climb, by step, and what the controller has to know about them."""

    jobs: Mapping[str, int]
    data: Mapping[str, Any]


def roles_of(config: LaneConfig, asked: Sequence[str]) -> list[str]:
    """The roles to climb for: those asked for, else all that cluster.yaml declares. Raises BadInput."""
    for role in asked:
        if role not in ROLES:
            raise BadInput(f"there is no role {role!r}", hint=f"there are: {', '.join(ROLES)}")
        if role not in config.roles:
            raise BadInput(
                f"lane {config.name} is not meant for {role!r}: cluster.yaml gives it {', '.join(config.roles)}",
                hint="add it to `roles:` there, or ask for one of these",
            )
    return [r for r in config.roles if not asked or r in asked]


def versions_known(home: Home, name: str) -> dict[str, str | None]:
    """Packages on the lane as the last look at it found them; empty when there was none."""
    if not home.journal.exists():
        return {}
    with Journal.open(home) as journal:
        rows = [r for r in query.rungs(journal.conn, name) if r.rung == Rung.ENVIRONMENT]
    found = (rows[-1].data.get("evidence") or {}).get("versions") if rows else None
    return dict(found or {})


def submit_jobs(
    home: Home,
    config: LaneConfig,
    roles: Sequence[str],
    *,
    program: Sequence[str] = (),
    versions: Mapping[str, str | None] | None = None,
    cwd: Path,
) -> Submitted:
    """Put the ladder's jobs into the queue, all or none.

    Args:
        program: of `--smoke -- ARGV`; empty: the one in cluster.yaml, or the built-in training.
        versions: packages on the lane: what the parity probe can hold against the oracle.

    Raises:
        LabError: as any submit.
    """
    nonce = os.urandom(16).hex()
    named = requests(home, config, roles, nonce=nonce, program=program, versions=versions or {})
    answers = submit(home, list(named.values()), cwd=cwd)
    jobs = {step: answer.id for step, answer in zip(named, answers, strict=True)}
    echo = {"name": "echo.bin", "nonce": nonce, "kib": ECHO_KIB}
    return Submitted(jobs, {"roles": list(roles), "jobs": jobs, "pace_s": pace(config), "echo": echo})


def requests(
    home: Home,
    config: LaneConfig,
    roles: Sequence[str],
    *,
    nonce: str,
    program: Sequence[str] = (),
    versions: Mapping[str, str | None],
) -> dict[str, Request]:
    """Step -> its job, in the order in which they run."""
    trains = any(r in ("train", "promote") for r in roles)
    sweeps = any(r in ("sweep", "promote") for r in roles)
    gpus = min(1, config.gpus or 0)
    name = {step: f"{config.name}: {step_title(step)}" for step in STEPS}
    own = _program(home, config, program)

    def job(step: str, kind: str, params: Mapping[str, Any], after: Sequence[str] = (), **more: Any) -> Request:
        needs = {"cores": 1, "lane": config.name, "role": roles[0], **more.pop("needs", {})}
        return Request(
            kind,
            params,
            name=name[step],
            needs=needs,
            after=tuple(after),
            tags=("admission",),
            note=f"admission of lane {config.name}",
            force=True,
            literal=True,
            retries={str(cause): 0 for cause in (*DEFAULT_RETRIES, Cause.SIGNAL)},
            on_unreachable=f"requeue-after:{max(600, 3 * config.admission.outlive_s)}s",
            admission=True,
            **more,
        )

    def step_of(step: str, *, trained: bool, after: Sequence[str] = ()) -> Request:
        """The user's program where it is that step, else the built-in one."""
        needs = {"gpus": gpus}
        if own is not None and trained == trains:
            argv, code = own
            limits = {"time_s": _PROGRAM_S}
            return job(step, "command", {"argv": list(argv)}, after, needs=needs, limits=limits, code=code)
        params = {"nonce": f"{nonce}-{step}", "steps": 5 if trained else 1, "checkpoint": trained, "gpu": bool(gpus)}
        return job(step, "smoke", params, after, needs=needs, limits={"time_s": _STEP_S})

    out = {"smoke": step_of("smoke", trained=False)}
    before = [f"ok:{name['smoke']}"]
    # What only some roles need must not keep the others from being earned.
    only_train = set(roles) <= {"train", "promote"}
    if trains:
        out["train"] = step_of("train", trained=True, after=before)
        before = [*before, f"{'ok' if only_train else 'any'}:{name['train']}"]
    if sweeps:
        params = {"name": "translation", "backend": "numba", "batch": 1, "height": 16, "width": 16}
        grid = Grid.of({"seed": list(range(CELLS))}, base=params)
        out["cells"] = job("cells", "kernel", params, before, grid=grid, limits={"time_s": _STEP_S})
        before = [*before, f"any:{name['cells']}"]
    params, needs = parity_params(config, versions, gpus)
    out["parity"] = job("parity", "parity", params, before, needs=needs, limits={"time_s": _PARITY_S})
    speed = pace(config)
    params = {
        "nonce": nonce,
        "kib": ECHO_KIB,
        "pace_s": speed,
        "steps": math.ceil((config.admission.outlive_s + _MARGIN_S) / speed),
    }
    limit = config.admission.outlive_s + _STEP_S
    out["outlives"] = job("outlives", "smoke", params, [f"ok:{name['parity']}"], limits={"time_s": limit})
    return out


def pace(config: LaneConfig) -> float:
    """Seconds from one step of the background attempt to the next."""
    return min(1.0, max(0.05, config.admission.outlive_s / 20))


def parity_params(
    config: LaneConfig, versions: Mapping[str, str | None], gpus: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(parameters, needs) of the parity probe: small, and only for backends whose package is on the lane."""
    backends = [b for package, names in _BACKENDS.items() for b in names if versions.get(package)] or ["numba"]
    cuda = bool(gpus and versions.get("torch"))
    params = {**_PARITY, "backends": backends, "devices": ["cpu", "cuda"] if cuda else ["cpu"]}
    params.update(config.admission.parity)
    asked = params.get("devices") or ()
    return params, {"cores": max(1, min(2, config.cores or 1)), "gpus": 1 if "cuda" in asked else 0}


def _program(home: Home, config: LaneConfig, program: Sequence[str]) -> tuple[Sequence[str], str | None] | None:
    """(argv, code root) of the user's own first step; None: there is none."""
    if program:
        return program, None  # from the folder in which it was typed, as with `lab submit`
    if config.admission.smoke:
        return config.admission.smoke, str(home.cluster_file.parent) if home.cluster_file is not None else None
    return None
