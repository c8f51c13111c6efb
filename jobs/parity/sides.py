"""Sides: what runs in which process, with which environment, and how its reports come back.

Each backend is a side of its own (TensorFlow and torch never meet in one process, and XLA on and off are two
environments), each outside candidate is one, an external program is one, and all mutants together are one. A side
has folders of its own and is watched: what it read beyond its inputs is known when it has ended, so nothing that it
said is looked at before.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import jobs
from jobs.parity import Params, watch
from jobs.parity.adapter import Adapter, Cell
from jobs.parity.candidate import ANSWERS
from jobs.parity.kernels import device_of
from jobs.parity.outside import registered
from jobs.parity.words import Role

# In force before the first import of the side. XLA is switched off by name where it is not wanted: the
# default of a build is not a fact that a row could rely on.
XLA_OFF = {"TF_XLA_FLAGS": "--tf_xla_auto_jit=-1", "XLA_FLAGS": ""}
XLA_ON = {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit", "XLA_FLAGS": ""}
TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0", "KERAS_BACKEND": "tensorflow"}
# The one that compiles takes longest, so it starts first.
SLOWEST_FIRST = ("tensorflow-xla", "tensorflow-graph", "tensorflow-eager", "tensorflow", "torch-cuda", "torch", "numba")
PROGRAM = "program"


@dataclass(frozen=True)
class Task:
    """One cell of one candidate: the place where a name, a role and a cell belong together."""

    id: int
    candidate: str
    role: Role
    target: str
    cell: Cell

    @property
    def device(self) -> str:
        return device_of(self.target)


@dataclass(frozen=True)
class Side:
    """What one process does: cells to compute, and cells to tap."""

    name: str
    library: str
    env: Mapping[str, str]
    tasks: tuple[Task, ...]
    taps: tuple[Task, ...] = ()
    path: tuple[Path, ...] = ()  # folders that its process needs besides ours
    program: bool = False

    @property
    def all(self) -> tuple[Task, ...]:
        return (*self.tasks, *self.taps)


def plan(params: Params, adapter: Adapter) -> list[Side]:
    """Every side of the run. The number of tasks is the number of rows."""
    number = iter(range(1 << 31))

    def tasks(name: str, role: Role, target: str, wanted: Sequence[Cell]) -> tuple[Task, ...]:
        return tuple(Task(next(number), name, role, target, cell) for cell in wanted)

    sides = []
    for name in sorted(params.candidates, key=_slowness):
        target = f"backend:{name}"
        sides.append(
            Side(name, library(name), environment_of(name), tasks(name, Role.CANDIDATE, target, adapter.cells(name)))
        )
    cells = adapter.cells()
    spoiled = [
        task for m in adapter.mutants().values() for task in tasks(m.name, Role.MUTANT, f"mutant:{m.name}", m.cells)
    ]
    sides.append(Side("mutants", "numpy", {}, tuple(spoiled)))
    for o in registered(params.kernel) if params.outside else ():
        path = (o.folder,) if o.folder else ()
        sides.append(Side(f"{o.role}-{o.name}", "", TENSORFLOW, tasks(o.name, o.role, o.target, cells), path=path))
    if params.program:
        sides.append(Side(PROGRAM, "", {}, tasks(PROGRAM, Role.CANDIDATE, PROGRAM, cells), program=True))
    # Last, so that the cells of the table are numbered without a gap.
    tapping = {*params.candidates, *([PROGRAM] if params.program_taps else [])}
    return [_with_taps(side, adapter.tapped(), number) if side.name in tapping else side for side in sides]


def library(backend: str) -> str:
    return backend.partition("-")[0]


def environment_of(backend: str) -> dict[str, str]:
    if library(backend) != "tensorflow":
        return {}
    return {**TENSORFLOW, **(XLA_ON if backend == "tensorflow-xla" else XLA_OFF)}


def _slowness(name: str) -> int:
    return SLOWEST_FIRST.index(name) if name in SLOWEST_FIRST else len(SLOWEST_FIRST)


def _with_taps(side: Side, cells: Sequence[Cell], number: Iterator[int]) -> Side:
    target = side.tasks[0].target if side.tasks else side.name
    return replace(side, taps=tuple(Task(next(number), side.name, Role.CANDIDATE, target, cell) for cell in cells))


@dataclass(frozen=True)
class Report:
    """What a side said about one task, or what became of it.

    Attributes:
        mismatch: why it did not work on what it was given, or "". Then nothing else of it counts.
        before: the answer of the first call, where there was one.
    """

    task: Task
    output: Path | None
    error: str | None
    reason: str
    raw: Mapping[str, Any] = field(default_factory=dict)
    mismatch: str = ""
    peer: Path | None = None
    before: Path | None = None
    seen: watch.Seen | None = None


class Running(Protocol):
    """A side at work. Single-threaded: it is polled from the run's own loop, so a debugger sees all."""

    @property
    def side(self) -> Side: ...
    @property
    def answered(self) -> int: ...
    def poll(self, *, patience_s: float) -> list[Report] | None:
        """Every report once the side has ended, else None. A process that fell silent is ended."""
        ...

    def stop(self) -> None: ...


class SideProcess:
    """One Python process that works through the tasks of a side."""

    def __init__(
        self,
        side: Side,
        folder: Path,
        request: Mapping[str, Any],
        *,
        threads: int,
        gpus: str | None,
        declared: Sequence[Path],
        how: watch.How,
    ) -> None:
        self.side = side
        self._answers = folder / ANSWERS
        self._answers.mkdir(parents=True)
        self._waiting = {task.id: task for task in side.all}
        self._read = 0
        self._found: list[Report] = []
        asked = folder / "request.json"
        asked.write_text(json.dumps({**request, "library": side.library, "threads": threads}))
        place = watch.Place.make(folder)
        self._watched = watch.Watched(
            [sys.executable, "-P", "-m", "jobs.parity.candidate", str(folder), str(os.getpid())],
            place,
            env=environment(side, threads=threads, gpus=gpus),
            log=folder / "log.txt",
            declared=(*declared, asked),
            code=(*side.path, *_python_path()),
            own=(self._answers,),
            python=True,
            how=how,
        )
        self._heard = time.monotonic()

    @property
    def answered(self) -> int:
        return len(self._found)

    def poll(self, *, patience_s: float) -> list[Report] | None:
        code = self._watched.poll()  # before reading: what it wrote before its end is there then
        reports = self._new()
        if reports:
            self._heard = time.monotonic()
            self._found += reports
        silent = time.monotonic() - self._heard
        if code is not None:
            self._owed(f"the side's process ended {_how(code)} before it answered")
        elif not self._waiting:
            self.stop()  # all is answered; how long its libraries take to end is of no interest
        elif self._waiting and silent > patience_s:
            self.stop()
            self._owed(f"no answer in {patience_s:g} s; the side's process was killed")
        else:
            return None
        seen = self._watched.seen()
        why = watch.mismatch(seen.undeclared)
        return [Report(**{**vars(r), "mismatch": why, "seen": seen}) for r in self._found]

    def stop(self) -> None:
        self._watched.stop()

    def _new(self) -> list[Report]:
        path = self._answers / "reports.jsonl"
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
            arrays = (self._answers / f"{task.id}{end}.npy" for end in ("", "-peer", "-before"))
            output, peer, before = (path if path.exists() else None for path in arrays)
            found.append(Report(task, output, raw["error"], raw.get("reason", ""), raw, peer=peer, before=before))
        return found

    def _owed(self, reason: str) -> None:
        owed, self._waiting = list(self._waiting.values()), {}
        if owed:
            tail = self._watched.tail()
            self._found += [Report(task, None, f"{reason}\n{tail}", reason) for task in owed]


def environment(side: Side, *, threads: int, gpus: str | None) -> dict[str, str]:
    """All variables of a side's process. The folders among them are made private where it is started."""
    root = str(Path(jobs.__file__).resolve().parents[1])  # the code of this run, not whatever is installed
    path = [root, *(str(p) for p in (*_python_path(), *side.path))]
    count = str(threads)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "NUMEXPR_NUM_THREADS": count,
        "NUMBA_NUM_THREADS": count,
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "KMP_BLOCKTIME": "0",
        **({} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus}),
        **side.env,
    }


def _python_path() -> list[Path]:
    """Folders of code that were given to this very run; what is no code there is an undeclared file all the same."""
    return [Path(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]


def _how(code: int) -> str:
    if code < 0:
        return f"by signal {signal.Signals(-code).name}"
    return f"with exit code {code}"
