"""What follows from the end of attempts, batches and sweeps. Pure: rows in, events out; the controller writes them."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.journal import Event
from core.journal.query import Attempt, Job
from core.states import DEFAULT_RETRIES, AttemptState, Cause, EventKind, JobState
from lanes.pool.types import BatchDone, CellEnd


@dataclass(frozen=True)
class Ended:
    """How an attempt ended, as found by the head.

    Attributes:
        state: SUCCEEDED, FAILED or LOST; REVOKED for one that the head stopped to start it again later.
        cause: the one word; `message` the sentence.
        signal: by which its process ended.
        idle_from: no attempt from this number on left a checkpoint that is newer than all before it.
        parts: table parts to be listed by the same transaction.
    """

    state: AttemptState
    cause: Cause
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    idle_from: int = 1
    seconds: float | None = None
    cpu_s: float | None = None
    max_rss_mb: float | None = None
    undeclared: tuple[str, ...] = ()
    manifest: str | None = None
    parts: tuple[dict[str, Any], ...] = ()


def conclude(job: Job, attempt: Attempt, earlier: Sequence[Attempt], spec: dict[str, Any], end: Ended) -> list[Event]:
    """The events for the end of `attempt`: its own, and either the job's end or its return to the queue.

    Args:
        earlier: all attempts of the job, `attempt` included.
    """
    if job.state is JobState.CANCELLING or job.wish == "cancel":
        # The person was told that it is being cancelled; a result that came in after that is not one.
        ended = [_attempt_event(attempt, end, AttemptState.CANCELLED, Cause.CANCELLED, parts=())]
        return [*ended, _job_event(job, JobState.CANCELLED, Cause.CANCELLED, "cancelled")]
    if end.state is AttemptState.SUCCEEDED:
        return [
            _attempt_event(attempt, end, AttemptState.SUCCEEDED, Cause.OK, parts=end.parts),
            _job_event(job, JobState.SUCCEEDED, Cause.OK, "", undeclared=bool(end.undeclared)),
        ]
    first = _attempt_event(attempt, end, end.state, end.cause, parts=())
    used = [a for a in earlier if a.cause == end.cause and a.n != attempt.n]
    wait_s = restart_after(end, attempt, used, spec)
    if wait_s is not None:
        reason = f"attempt {attempt.n}: {end.cause}" + (f" ({end.message})" if end.message else "")
        if wait_s:
            reason += f"; it starts again after {wait_s:g} s"
        again = Event(EventKind.REQUEUED, job=job.id, data={"cause": end.cause, "reason": reason, "wait_s": wait_s})
        return [first, again, *answered_in_queue(job.id, job.wish)]
    reason = end.message or str(end.cause)
    if used:
        reason += f" (retried {len(used)} time{'s' if len(used) != 1 else ''})"
    return [first, _job_event(job, JobState.FAILED, end.cause, reason, undeclared=bool(end.undeclared))]


# Signals that a program does not send itself: an operator, a machine that is shut down, a watchdog of its memory.
OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
SIGNAL_MOST = 20  # restarts of one job after signals, however far it gets between them
SIGNAL_WAITS_S = (0.0, 5.0, 60.0)  # by how many attempts in a row ended so with no newer checkpoint


def restart_after(end: Ended, attempt: Attempt, used: Sequence[Attempt], spec: dict[str, Any]) -> float | None:
    """Seconds after which the job may start again; None: it has failed.

    A bound that the user gave is a plain number of times, and so is every default but that of `signal`: a training of
    days that somebody kills goes on each time it got further, to a newer checkpoint, up to SIGNAL_MOST times. Without
    that it is tried again twice, later each time, if the signal came from outside; and not at all if it says that the
    program itself is broken (SIGSEGV, SIGABRT), for it would break at the same place.

    Args:
        used: earlier attempts that ended for the same cause.
    """
    if end.cause is not Cause.SIGNAL or str(Cause.SIGNAL) in (spec.get("retries") or {}):
        return 0.0 if len(used) < retry_bound(spec, end.cause) else None
    idle = sum(a.n >= end.idle_from for a in (*used, attempt))
    most = len(SIGNAL_WAITS_S) - 1 if end.signal in OUTSIDE else 0
    return SIGNAL_WAITS_S[idle] if idle <= most and len(used) < SIGNAL_MOST else None


def retry_bound(spec: dict[str, Any], cause: Cause) -> int:
    """How often this cause may be retried: the user's word, else the default for that cause."""
    retries = spec.get("retries") or {}
    return int(retries.get(str(cause), DEFAULT_RETRIES.get(cause, 0)))


def skipped(job: Job, failed: Job) -> Event:
    """The end of a job whose dependency did not end as it needs."""
    reason = f"it needs job {failed.id} to succeed, which is {failed.state}"
    return _job_event(job, JobState.SKIPPED, Cause.DEPENDENCY, reason)


def cancelled_in_queue(job: Job, reason: str = "") -> Event:
    return _job_event(job, JobState.CANCELLED, Cause.CANCELLED, reason or "cancelled before it started")


def answered_in_queue(job: int, wish: str | None) -> list[Event]:
    """A wish that could not be answered while the job ran, now that it waits again."""
    if wish == "hold":
        return [Event(EventKind.HELD, job=job)]
    return [Event(EventKind.RELEASED, job=job)] if wish == "release" else []


@dataclass(frozen=True)
class Known:
    """What the journal says of the cells of a batch at its end.

    Attributes:
        seq: of the batch's placement.
        attempts: attempt number of each cell.
        unwanted: cells that are being cancelled.
        used: how often a cell that did not end well ended for that same cause before.
        wishes: what else is asked of cells and not answered.
    """

    seq: int
    lane: str
    attempts: Mapping[int, int]
    spec: dict[str, Any]
    unwanted: frozenset[int] = frozenset()
    used: Mapping[int, int] | None = None
    wishes: Mapping[int, str] | None = None


@dataclass(frozen=True)
class BatchVerdict:
    """What is to be recorded of a batch: each of its cells is in exactly one of `ok`, `ended` and `back`.

    Attributes:
        committed: cells whose rows count.
        answered: events to follow the batch's own.
    """

    ok: list[int]
    back: list[int]
    ended: list[Event]
    committed: frozenset[int]
    answered: list[Event]


def conclude_batch(done: BatchDone, known: Known) -> BatchVerdict:
    """Every cell of the batch gets one answer, whatever `done` says twice or forgets."""
    mine = known.attempts
    if not done.ends and not known.unwanted and set(done.ok) == mine.keys():
        return BatchVerdict(sorted(mine), [], [], frozenset(mine), [])
    ended: list[Event] = []
    odd: set[int] = set()
    again: list[int] = []
    committed: set[int] = set()
    for end in done.ends:
        if end.job not in mine or end.job in odd:
            continue
        if end.state is AttemptState.CANCELLED and end.job not in known.unwanted:
            continue  # nobody cancelled it: it comes back
        odd.add(end.job)
        event = _cell_event(end, known)
        ended.append(event)
        if event.data["to"] == JobState.QUEUED:
            again.append(end.job)
        elif event.data["to"] == JobState.SUCCEEDED:
            committed.add(end.job)
    for job in known.unwanted - odd:
        # The person was told that it is being cancelled; a result that came in after that is not one.
        stopped = CellEnd(job, mine[job], AttemptState.CANCELLED, Cause.CANCELLED, "", None, ())
        ended.append(_cell_event(stopped, known))
    done_well = set(done.ok)
    ok = [job for job in mine if job in done_well and job not in odd and job not in known.unwanted]
    committed.update(ok)
    if len(ok) + len(ended) == len(mine):
        back: list[int] = []
    else:
        back = [job for job in mine if job not in done_well and job not in odd and job not in known.unwanted]
    wishes = known.wishes or {}
    answered = [e for job in sorted([*back, *again]) for e in answered_in_queue(job, wishes.get(job))]
    return BatchVerdict(ok, back, ended, frozenset(committed), answered)


def _cell_event(end: CellEnd, known: Known) -> Event:
    state, cause, message, reason = end.state, end.cause, end.message, ""
    if end.job in known.unwanted:
        state, cause, to, reason = AttemptState.CANCELLED, Cause.CANCELLED, JobState.CANCELLED, "cancelled"
    elif state is AttemptState.SUCCEEDED:
        cause, to = Cause.OK, JobState.SUCCEEDED
    else:
        used, bound = (known.used or {}).get(end.job, 0), retry_bound(known.spec, cause)
        to = JobState.QUEUED if used < bound else JobState.FAILED
        reason = message or str(cause)
        if to is JobState.QUEUED:
            reason = f"attempt {known.attempts[end.job]}: {cause}" + (f" ({message})" if message else "")
        elif bound:
            reason += f" (retried {bound} time{'s' if bound != 1 else ''})"
    data = {
        "batch": known.seq,
        "state": str(state),
        "cause": str(cause),
        "message": message,
        "seconds": end.seconds,
        "to": str(to),
        "reason": reason,
        "undeclared": list(end.undeclared),
    }
    return Event(EventKind.CELL_ENDED, end.job, known.attempts[end.job], known.lane, data)


def sweep_ended(
    sweep: Job, counts: Mapping[JobState, int], first_cause: str | None, *, stopped_after: int | None = None
) -> Event:
    """The end of a sweep of which nothing is under way any more.

    Args:
        counts: its cells by state, borrowed ones too.
        first_cause: of the cell that failed first.
        stopped_after: more than this many failed, and the rest was skipped.
    """
    total = sum(counts.values())
    failed, lost = counts.get(JobState.FAILED, 0), total - counts.get(JobState.SUCCEEDED, 0)
    if sweep.state is JobState.CANCELLING:
        fine = counts.get(JobState.SUCCEEDED, 0)
        reason = f"cancelled; {fine:,} of {total:,} cells had succeeded" if fine else "cancelled"
        return _job_event(sweep, JobState.CANCELLED, Cause.CANCELLED, reason)
    if not lost:
        return _job_event(sweep, JobState.SUCCEEDED, Cause.OK, "")
    reason = tally(counts, total)
    if stopped_after is not None:
        reason += f" (it was to stop after more than {stopped_after:,} failures)"
    cause = Cause(first_cause) if failed and first_cause else Cause.CANCELLED if not failed else Cause.ERROR
    return _job_event(sweep, JobState.FAILED, cause, reason)


def tally(counts: Mapping[JobState, int], total: int) -> str:
    """For people: "12 of 1,000 cells failed, 3 were skipped"."""
    words: list[str] = []
    for state, verb in ((JobState.FAILED, ""), (JobState.SKIPPED, "skipped"), (JobState.CANCELLED, "cancelled")):
        n = counts.get(state, 0)
        if n:
            whole = f" of {total:,} cells" if not words else ""
            words.append(f"{n:,}{whole} " + (f"{'was' if n == 1 else 'were'} {verb}" if verb else "failed"))
    return ", ".join(words)


def cells_event(spans: Iterable[tuple[int, int]], state: JobState, cause: Cause, reason: str) -> Event:
    """Many cells that have not started end, or many that run are being cancelled."""
    data = {"cells": [list(s) for s in spans], "state": str(state), "cause": str(cause), "reason": reason}
    return Event(EventKind.CELLS, data=data)


def _attempt_event(
    attempt: Attempt, end: Ended, state: AttemptState, cause: Cause, *, parts: Sequence[dict[str, Any]]
) -> Event:
    data = {
        "state": state,
        "cause": cause,
        "message": end.message,
        "exit_code": end.exit_code,
        "signal": end.signal,
        "seconds": end.seconds,
        "cpu_s": end.cpu_s,
        "max_rss_mb": end.max_rss_mb,
        "undeclared": list(end.undeclared),
        "manifest": end.manifest,
        "parts": list(parts),
    }
    return Event(EventKind.ATTEMPT_ENDED, attempt.job, attempt.n, attempt.lane, json.loads(json.dumps(data)))


def _job_event(job: Job, state: JobState, cause: Cause, reason: str, *, undeclared: bool = False) -> Event:
    data = {"state": str(state), "cause": str(cause), "reason": reason, "undeclared": int(undeclared)}
    return Event(EventKind.JOB_ENDED, job=job.id, data=data)
