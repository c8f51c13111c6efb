"""What the journal says, as frozen dataclasses, and how rows become them."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from core.states import AttemptState, JobState, LaneState


@dataclass(frozen=True)
class Job:
    id: int
    spec: str
    kind: str
    name: str
    params: dict[str, Any]
    key: str
    state: JobState
    cause: str | None
    reason: str | None
    priority: int
    attempts: int
    lane: str | None
    wish: str | None
    idem: str | None
    tags: tuple[str, ...]
    note: str
    submitted: float
    started: float | None
    ended: float | None
    undeclared: bool
    rerun_of: int | None
    sweep: int | None = None  # of which it is a cell
    cells: int | None = None  # how many it has: it is a sweep
    pooled: bool = False
    # Only of what `with_attempts` returned: of the current or last attempt, and of the spec.
    begun: float | None = None
    seconds: float | None = None
    last_step: int | None = None

    @property
    def is_sweep(self) -> bool:
        return self.cells is not None


@dataclass(frozen=True)
class Sweep:
    """What a sweep is beyond its row among the jobs.

    Attributes:
        cells: of its own: the jobs id + 1 to id + cells.
        total: with those that other jobs answer (`members`).
        axes: (name, values) of each axis, for people.
        open: its dependencies are fulfilled: cells may be placed.
    """

    id: int
    cells: int
    total: int
    pooled: bool
    at_once: int | None
    max_fails: int | None
    axes: tuple[tuple[str, tuple[Any, ...]], ...]
    open: bool

    @property
    def own(self) -> range:
        return range(self.id + 1, self.id + self.cells + 1)


@dataclass(frozen=True)
class Batch:
    """Cells that were given to one warm worker at once. `cells` holds (first job, last job, attempt)."""

    seq: int
    lane: str
    dir: str
    nonce: str
    grant: dict[str, Any]
    cells: tuple[tuple[int, int, int], ...]
    placed: float


@dataclass(frozen=True)
class Attempt:
    job: int
    n: int
    lane: str
    state: AttemptState
    nonce: str
    grant: dict[str, Any]
    cause: str | None
    message: str | None
    exit_code: int | None
    pid: int | None
    boot: str | None
    seconds: float | None
    cpu_s: float | None
    max_rss_mb: float | None
    placed: float
    started: float | None
    ended: float | None
    undeclared: tuple[str, ...]
    manifest: str | None
    batch: str | None = None  # the folder, below Home.batches, of the batch in which it ran


@dataclass(frozen=True)
class Lane:
    name: str
    state: LaneState
    reason: str
    wish: str | None
    info: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Rows of one table, of the jobs `first` to `last` (not of each between). `attempt` None: of more than one."""

    id: int
    table: str
    path: str  # relative to tables/; empty: see `payload`
    rows: int
    bytes: int
    sha256: str
    first: int
    last: int
    attempt: int | None

    @property
    def inline(self) -> bool:
        """Are the rows in the journal itself, until they are compacted?"""
        return not self.path


@dataclass(frozen=True)
class EventRow:
    seq: int
    at: float
    kind: str
    job: int | None
    attempt: int | None
    lane: str | None
    data: dict[str, Any]


def job_of(r: sqlite3.Row) -> Job:
    return Job(
        id=r["id"],
        spec=r["spec"],
        kind=r["kind"],
        name=r["name"],
        params=json.loads(r["params"]),
        key=r["key"],
        state=JobState(r["state"]),
        cause=r["cause"],
        reason=r["reason"],
        priority=r["priority"],
        attempts=r["attempts"],
        lane=r["lane"],
        wish=r["wish"],
        idem=r["idem"],
        tags=tuple(json.loads(r["tags"])),
        note=r["note"],
        submitted=r["submitted"],
        started=r["started"],
        ended=r["ended"],
        undeclared=bool(r["undeclared"]),
        rerun_of=r["rerun_of"],
        sweep=r["sweep"],
        cells=r["cells"],
        pooled=bool(r["pooled"]),
    )


def sweep_of(r: sqlite3.Row) -> Sweep:
    axes = tuple((str(name), tuple(values)) for name, values in json.loads(r[6]))
    return Sweep(r[0], r[1], r[2], bool(r[3]), r[4], r[5], axes, bool(r[7]))


def batch_from(r: sqlite3.Row) -> Batch:
    data = json.loads(r[4])
    cells = tuple((int(a), int(b), int(n)) for a, b, n in data["cells"])
    return Batch(r[0], r[1], r[2], data["nonce"], data["grant"], cells, r[3])


def attempt_of(r: sqlite3.Row) -> Attempt:
    return Attempt(
        job=r["job"],
        n=r["n"],
        lane=r["lane"],
        state=AttemptState(r["state"]),
        nonce=r["nonce"],
        grant=json.loads(r["grant_"]),
        cause=r["cause"],
        message=r["message"],
        exit_code=r["exit_code"],
        pid=r["pid"],
        boot=r["boot"],
        seconds=r["seconds"],
        cpu_s=r["cpu_s"],
        max_rss_mb=r["max_rss_mb"],
        placed=r["placed"],
        started=r["started"],
        ended=r["ended"],
        undeclared=tuple(json.loads(r["undeclared"])),
        manifest=r["manifest"],
        batch=r["batch"],
    )
