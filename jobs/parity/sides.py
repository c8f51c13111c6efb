"""Sides: what runs in which process, with which environment, and how its reports come back.

Each backend is a side of its own (TensorFlow and torch never meet in one process, and XLA on and off are two
environments), each outside candidate is one, and all mutants together are one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jobs
from jobs.parity import Params
from jobs.parity.cases import Cell, cells
from jobs.parity.mutants import MUTANTS
from jobs.parity.outside import registered
from jobs.parity.words import Role
from kernels.translation import BACKENDS

# In force before the first import of the side. XLA is switched off by name where it is not wanted: the
# default of a build is not a fact that a row could rely on.
XLA_OFF = {"TF_XLA_FLAGS": "--tf_xla_auto_jit=-1", "XLA_FLAGS": ""}
XLA_ON = {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit", "XLA_FLAGS": ""}
TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0", "KERAS_BACKEND": "tensorflow"}
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "torch": {},
    "tensorflow-eager": {**TENSORFLOW, **XLA_OFF},
    "tensorflow-graph": {**TENSORFLOW, **XLA_OFF},
    "tensorflow-xla": {**TENSORFLOW, **XLA_ON},
}
# The one that compiles takes longest, so it starts first.
SLOWEST_FIRST = ("tensorflow-xla", "tensorflow-graph", "tensorflow-eager", "torch")


@dataclass(frozen=True)
class Task:
    """One cell of one candidate: the place where a name, a role and a cell belong together."""

    id: int
    candidate: str
    role: Role
    target: str
    cell: Cell


@dataclass(frozen=True)
class Side:
    name: str
    library: str
    env: Mapping[str, str]
    tasks: tuple[Task, ...]
    path: tuple[Path, ...] = ()  # folders that its process needs besides ours


def plan(params: Params) -> list[Side]:
    """Every side of the run. The number of tasks is the number of rows."""
    number = iter(range(1 << 31))

    def tasks(name: str, role: Role, target: str, wanted: Iterator[Cell] | Sequence[Cell]) -> tuple[Task, ...]:
        return tuple(Task(next(number), name, role, target, cell) for cell in wanted)

    sides = [
        Side(
            name,
            BACKENDS[name].library,
            ENVIRONMENTS[name],
            tasks(name, Role.CANDIDATE, f"backend:{name}", cells(params)),
        )
        for name in sorted(params.backends, key=SLOWEST_FIRST.index)
    ]
    spoiled = [
        task for m in MUTANTS.values() for task in tasks(m.name, Role.MUTANT, f"mutant:{m.name}", m.cells(params.patch))
    ]
    sides.append(Side("mutants", "numpy", {}, tuple(spoiled)))
    for o in registered() if params.outside else ():
        sides.append(
            Side(
                f"{o.role}-{o.name}",
                "",
                TENSORFLOW,
                tasks(o.name, o.role, o.target, cells(params)),
                (o.folder,) if o.folder else (),
            )
        )
    return sides


@dataclass(frozen=True)
class Report:
    """What a side said about one task, or what became of it."""

    task: Task
    output: Path | None
    error: str | None
    reason: str
    raw: Mapping[str, Any] = field(default_factory=dict)


class SideProcess:
    """One running side. Single-threaded: `poll` is called from the run's own loop, so a debugger sees all."""

    def __init__(self, side: Side, folder: Path, requests: list[dict[str, Any]], *, threads: int, gpus: Sequence[int]):
        self.side, self.folder, self.threads = side, folder, threads
        self._waiting = {task.id: task for task in side.tasks}
        self._read = 0
        self._log = folder / "log.txt"
        (folder / "request.json").write_text(
            json.dumps({"library": side.library, "threads": threads, "tasks": requests})
        )
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "jobs.parity.candidate", str(folder), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment(side, threads=threads, gpus=gpus),
            )
        self._heard = time.monotonic()

    @property
    def done(self) -> bool:
        return not self._waiting

    def poll(self, *, patience_s: float) -> list[Report]:
        """New reports. A process that ended or fell silent blocks what it still owed."""
        code = self.process.poll()  # before reading: what it wrote before its end is there then
        reports = self._new()
        if reports:
            self._heard = time.monotonic()
        if code is not None:
            reports += self._owed(f"the side's process ended {_how(code)} before it answered")
        elif self._waiting and time.monotonic() - self._heard > patience_s:
            self.stop()
            reports += self._owed(f"no answer in {patience_s:g} s; the side's process was killed")
        return reports

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def tail(self, limit: int = 4000) -> str:
        return self._log.read_bytes()[-limit:].decode(errors="replace") if self._log.exists() else ""

    def _new(self) -> list[Report]:
        path = self.folder / "reports.jsonl"
        if not path.exists():
            return []
        with path.open("rb") as f:
            f.seek(self._read)
            data = f.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        found = []
        for line in whole.splitlines():
            raw = json.loads(line)
            task = self._waiting.pop(raw["id"])
            output = self.folder / f"{task.id}.npy"
            found.append(Report(task, output if output.exists() else None, raw["error"], raw.get("reason", ""), raw))
        return found

    def _owed(self, reason: str) -> list[Report]:
        owed, self._waiting = list(self._waiting.values()), {}
        return [Report(task, None, f"{reason}\n{self.tail()}", reason) for task in owed]


def environment(side: Side, *, threads: int, gpus: Sequence[int]) -> dict[str, str]:
    """All variables of a side's process."""
    root = str(Path(jobs.__file__).resolve().parents[1])  # the code of this run, not whatever is installed
    path = [root, *os.environ.get("PYTHONPATH", "").split(os.pathsep), *(str(p) for p in side.path)]
    count = str(threads)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(p for p in path if p)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "NUMEXPR_NUM_THREADS": count,
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "KMP_BLOCKTIME": "0",
        "CUDA_VISIBLE_DEVICES": ",".join(str(g) for g in gpus),
        # Not the user's: a keras.json with another default would change what is compared.
        "KERAS_HOME": str(Path(tempfile.gettempdir()) / "keras"),
        **side.env,
    }


def _how(code: int) -> str:
    if code < 0:
        return f"by signal {signal.Signals(-code).name}"
    return f"with exit code {code}"
