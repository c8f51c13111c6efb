"""Why a sweep, or a cell of one, waits; and how a sweep ended."""

from __future__ import annotations

import sqlite3

from core.home import Home
from core.journal import query
from core.journal.query import Job
from core.states import Cause, Cond, JobState
from lab.folded import Folded, cell_name, fold
from lab.output.job import became, only_counts
from lab.output.sweep import brief, failure, pace
from lanes.start import controller_alive


def why_sweep(home: Home, conn: sqlite3.Connection, job: Job) -> str:
    """One sentence about a sweep as it is now."""
    f = fold(conn, job)
    name = f"sweep {job.id}"
    if job.state is JobState.QUEUED:
        return f"{name} {_before_opening(home, conn, job)}"
    if job.state is JobState.HELD:
        runs = f", and {_cells(f.of(JobState.RUNNING))} that had started go on" if f.of(JobState.RUNNING) else ""
        return f"{name} is held: no further cell starts until `lab release {job.id}`{runs}"
    if job.state is JobState.RUNNING:
        left = pace(f)
        return f"{name} is running: {brief(f)}{f'; {left}' if left else ''}{_slowed(home, f)}"
    if job.state is JobState.CANCELLING:
        return f"{name} is cancelled and ends: {_cells(f.of(JobState.CANCELLING))} still have something alive"
    if job.state is JobState.SUCCEEDED:
        return f"{name} succeeded: all {f.total:,} cells did"
    first = f"; first: {failure(f.first)}" if f.first is not None else ""
    reason = f" ({job.reason})" if job.reason and not only_counts(job) else ""
    return f"{name} {became(job.state)}{reason}: {brief(f)}{first}"


def about_sweep(conn: sqlite3.Connection, job: Job) -> list[str]:
    """What else is worth knowing of a sweep: its limits, and where its answers come from."""
    sweep = query.sweep(conn, job.id)
    out = []
    skipped = conn.execute(
        "SELECT count(*) FROM job WHERE sweep = ? AND cause = ?", (job.id, str(Cause.MAX_FAILS))
    ).fetchone()[0]
    if skipped:
        out.append(f"{_cells(skipped)} did not start, for more than {sweep.max_fails} had failed (--max-fails)")
    others = sweep.total - sweep.cells
    if others:
        out.append(f"{_cells(others)} of {sweep.total:,} are answered by other jobs, and run nothing")
    if job.rerun_of is not None:
        out.append(f"it runs cells of sweep {job.rerun_of} again")
    return out


def why_cell(home: Home, conn: sqlite3.Connection, job: Job) -> str | None:
    """Why its sweep keeps a queued cell from starting; None where it does not."""
    assert job.sweep is not None
    sweep = query.job(conn, job.sweep)
    name = f"cell {cell_name(job)} (job {job.id})"
    if sweep.state is JobState.QUEUED:
        return f"{name} waits with its sweep: sweep {sweep.id} {_before_opening(home, conn, sweep)}"
    if sweep.state is JobState.HELD:
        return f"{name} waits, for its sweep is held: `lab release {sweep.id}` lets it go on"
    if sweep.wish == "cancel" or sweep.state is JobState.CANCELLING:
        return f"{name} is about to be cancelled with its sweep {sweep.id}"
    f = fold(conn, sweep)
    limit = f.sweep.at_once
    if limit is not None and _started(f) >= limit:
        return f"{name} waits: {_cells(_started(f))} of sweep {sweep.id} run, and --at-once allows {limit:,}"
    return None


def cells_ahead(conn: sqlite3.Connection, job: Job) -> int:
    """How many cells of the same sweep wait before this one."""
    sql = "SELECT count(*) FROM job_state WHERE sweep = ? AND state = 'queued' AND id < ?"
    return int(conn.execute(sql, (job.sweep, job.id)).fetchone()[0])


def _before_opening(home: Home, conn: sqlite3.Connection, sweep: Job) -> str:
    """Why a sweep has not been opened, the first reason that holds."""
    if sweep.wish == "cancel":
        return "was asked to end and will be cancelled as soon as the controller looks"
    if sweep.wish == "hold":
        return "was asked to be held and will be as soon as the controller looks"
    needs = query.dependencies(conn, sweep.id)
    never = [u for c, u in needs if c is Cond.OK and u.state.terminal and u.state is not JobState.SUCCEEDED]
    if never:
        return f"will be skipped: it needs job {never[0].id} to succeed, which {became(never[0].state)}"
    waits = [u for _, u in needs if not u.state.terminal]
    if waits:
        more = f" and {len(waits) - 1} more" if len(waits) > 1 else ""
        return f"waits for job {waits[0].id}{more}, which {became(waits[0].state)}"
    if not controller_alive(home):
        return "waits for the controller, which is down; `lab up` starts it"
    return "is about to be opened"


def _slowed(home: Home, f: Folded) -> str:
    limit = f.sweep.at_once
    if not controller_alive(home):
        return "; the controller is down, so no further cell starts: `lab up` starts it"
    if f.sweep.max_fails is not None and f.of(JobState.FAILED) > f.sweep.max_fails:
        return f"; no further cell starts, for more than {f.sweep.max_fails} have failed (--max-fails)"
    if limit is not None and _started(f) >= limit and f.of(JobState.QUEUED):
        return f"; --at-once allows {limit:,} at the same time"
    return ""


def _started(f: Folded) -> int:
    return f.of(JobState.RUNNING) + f.of(JobState.CANCELLING)


def _cells(n: int) -> str:
    return f"{n:,} cell{'' if n == 1 else 's'}"
