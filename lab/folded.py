"""A sweep as one thing: how far it is, how fast, and what went wrong first. Read for `lab status`, so nothing heavy."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass

from core.journal import query
from core.journal.query import Job, Sweep
from core.states import TERMINAL_JOB_STATES, JobState


@dataclass(frozen=True)
class Folded:
    """The state of a sweep's cells.

    Attributes:
        counts: all cells by state, those that other jobs answer too.
        own_ended: cells of its own that have ended.
        first: the cell that failed first.
        rate: its own cells a second so far; None before the first has ended.
        eta_s: seconds until the last ends at that rate; None where that is not known.
    """

    sweep: Sweep
    counts: Mapping[JobState, int]
    own_ended: int
    first: Job | None
    rate: float | None
    eta_s: float | None

    @property
    def total(self) -> int:
        return self.sweep.total

    @property
    def ended(self) -> int:
        return sum(self.counts.get(s, 0) for s in TERMINAL_JOB_STATES)

    def of(self, state: JobState) -> int:
        return self.counts.get(state, 0)


def fold(conn: sqlite3.Connection, job: Job, now: float | None = None) -> Folded:
    """What is known of the cells of `job`, which is a sweep."""
    sweep = query.sweep(conn, job.id)
    counts = query.sweep_counts(conn, job.id)
    own: dict[JobState, int] = dict(counts)
    if sweep.total > sweep.cells:
        members = conn.execute(_MEMBERS, (job.id,))
        for state, n in members:
            own[JobState(state)] -= int(n)
    ended = sum(own.get(s, 0) for s in TERMINAL_JOB_STATES)
    ran = own.get(JobState.SUCCEEDED, 0) + own.get(JobState.FAILED, 0)
    rate, eta = None, None
    if job.started is not None and ran:
        until = job.ended if job.ended is not None else (time.time() if now is None else now)
        rate = ran / max(until - job.started, 1e-3)
        if not job.state.terminal:
            eta = (sweep.cells - ended) / rate
    first = query.first_failure(conn, job.id) if counts.get(JobState.FAILED) else None
    return Folded(sweep, counts, ended, first, rate, eta)


_MEMBERS = "SELECT s.state, count(*) FROM member m JOIN job_state s ON s.id = m.job WHERE m.sweep = ? GROUP BY 1"


def cell_counts(conn: sqlite3.Connection) -> dict[JobState, int]:
    """How many cells of all sweeps are in each state."""
    out: dict[JobState, int] = {}
    # By sweep, as the index of cells has them: by state alone, every row of the table would be read.
    sql = "SELECT state, count(*) FROM job_state WHERE sweep IS NOT NULL GROUP BY sweep, state"
    for state, n in conn.execute(sql):
        out[JobState(state)] = out.get(JobState(state), 0) + int(n)
    return out


def cell_name(job: Job) -> str:
    """`17.3`: the third cell of sweep 17; of any other job its id."""
    return f"{job.sweep}.{job.id - job.sweep}" if job.sweep is not None else str(job.id)
