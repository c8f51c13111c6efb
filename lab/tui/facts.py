"""What was read for one refresh, as frozen values. The model makes rows of it; nothing here knows a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.journal.query import Attempt, Job, Sweep
from core.live import LiveAttempt
from core.states import JobState, LaneState


@dataclass(frozen=True)
class Want:
    """What the screen asks of its readers.

    Attributes:
        text: the filter, for looking among jobs that ended long ago.
        states, kinds, tags: the parts of the filter that the journal can answer.
        unfolded: (sweep, how many of its cells), for each that is open.
        cell_states: only cells in these; empty: all.
        selected: the job of which everything is shown.
        whole_log: as much of its log as one would scroll through, not only what the pane shows.
    """

    text: tuple[str, ...] = ()
    states: tuple[JobState, ...] = ()
    kinds: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    unfolded: tuple[tuple[int, int], ...] = ()
    cell_states: tuple[JobState, ...] = ()
    selected: int | None = None
    whole_log: bool = False

    @property
    def filtered(self) -> bool:
        return bool(self.text or self.states or self.kinds or self.tags)


@dataclass(frozen=True)
class SweepFact:
    """A sweep, how its cells are, and the reason of the first that failed."""

    sweep: Sweep
    counts: Mapping[JobState, int]
    first_error: str = ""
    first_failed: int | None = None

    @property
    def total(self) -> int:
        return self.sweep.total or sum(self.counts.values())

    @property
    def ended(self) -> int:
        return sum(n for s, n in self.counts.items() if s.terminal)

    def of(self, *states: JobState) -> int:
        return sum(self.counts.get(s, 0) for s in states)


@dataclass(frozen=True)
class Holding:
    """What occupies a lane: an attempt, or a batch of cells."""

    lane: str
    job: int  # a batch: its first cell
    attempt: int
    cores: int
    gpus: int
    cells: int = 0  # 0: an attempt of its own


@dataclass(frozen=True)
class JournalFacts:
    """One consistent look into the journal.

    Attributes:
        jobs: top-level rows: those that live (the first of the queue only, if it is long), and some that ended.
        waits: job -> unfinished jobs that it comes after.
        cells: sweep -> those of its cells that are shown.
        counts: of all top-level rows, by state.
        unread: queued rows beyond those in `jobs`.
        done: lane -> (second, how many jobs or cells ended in it), of the last minute.
        controller: what the last controller said of itself, and why it is down.
    """

    jobs: tuple[Job, ...] = ()
    waits: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    sweeps: Mapping[int, SweepFact] = field(default_factory=dict)
    cells: Mapping[int, tuple[Job, ...]] = field(default_factory=dict)
    counts: Mapping[JobState, int] = field(default_factory=dict)
    unread: int = 0
    lanes: tuple[tuple[str, LaneState, str, str | None, Mapping[str, Any]], ...] = ()
    holdings: tuple[Holding, ...] = ()
    done: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    controller: tuple[Mapping[str, Any], str | None] | None = None


@dataclass(frozen=True)
class Usage:
    """How busy a machine is. None where nobody said."""

    cpu: float | None = None  # per cent of all its cores
    memory_mb: float | None = None
    memory_total_mb: float | None = None
    gpu: float | None = None  # per cent, the mean of its GPUs
    gpu_memory: float | None = None  # per cent


@dataclass(frozen=True)
class LaneFact:
    """A lane as declared, as the controller knows it, as it was last heard of."""

    name: str
    state: LaneState
    reason: str = ""
    wish: str | None = None
    transport: str = "local"
    about: str = ""
    cores: int | None = None
    memory_mb: int | None = None
    gpus: tuple[str, ...] = ()
    device: str = ""
    heard_s: float | None = None  # since it was last heard of
    usage: Usage = field(default_factory=Usage)
    silent: str = ""  # until when, and what for, nothing is to be heard of it


@dataclass(frozen=True)
class Series:
    """One cell of a sweep, for curves beside each other.

    Attributes:
        curves: metric -> (steps, values), over all its attempts.
    """

    job: int
    label: str
    state: JobState
    curves: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Detail:
    """All about the selected row.

    Attributes:
        explained: why it waits, or how it went, the most telling sentence first.
        curves: metric -> (steps, values), as far as the head has them, over all attempts.
        log: the last lines of its log, harmless already; `log_note` says why there are none, or whose they are.
        series: of a sweep: some of its cells that have curves, before all those that run.
    """

    job: Job
    attempts: tuple[Attempt, ...] = ()
    sweep: SweepFact | None = None
    explained: tuple[str, ...] = ()
    curves: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)
    log: tuple[str, ...] = ()
    log_note: str = ""
    batch: str = ""
    series: tuple[Series, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of all curves there are, of this job or of its cells."""
        return tuple(sorted({*self.curves, *(name for one in self.series for name in one.curves)}))


@dataclass(frozen=True)
class Snapshot:
    """Everything for one refresh.

    Attributes:
        at: wall clock of this machine, for ages of what the journal holds.
        paces: job or sweep -> progress per second, observed lately.
        trouble: one sentence about what could not be read; what is shown is then older.
    """

    home: str
    at: float
    journal: JournalFacts = field(default_factory=JournalFacts)
    live: Mapping[tuple[int, int], LiveAttempt] = field(default_factory=dict)
    lanes: tuple[LaneFact, ...] = ()
    paces: Mapping[int, float] = field(default_factory=dict)
    detail: Detail | None = None
    controller_alive: bool = False
    trouble: str = ""
