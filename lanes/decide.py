"""What follows from the end of an attempt. Pure: journal rows in, events out; the controller writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.journal import Event
from core.journal.query import Attempt, Job
from core.states import DEFAULT_RETRIES, AttemptState, Cause, EventKind, JobState


@dataclass(frozen=True)
class Ended:
    """How an attempt ended, as found by the head.

    Attributes:
        state: SUCCEEDED, FAILED or LOST; REVOKED for one that the head stopped to start it again later.
        cause: the one word; `message` the sentence.
        parts: table parts to be listed by the same transaction.
    """

    state: AttemptState
    cause: Cause
    message: str = ""
    exit_code: int | None = None
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
    used = sum(1 for a in earlier if a.cause == end.cause and a.n != attempt.n)
    bound = retry_bound(spec, end.cause)
    if used < bound:
        reason = f"attempt {attempt.n}: {end.cause}" + (f" ({end.message})" if end.message else "")
        return [first, Event(EventKind.REQUEUED, job=job.id, data={"cause": end.cause, "reason": reason})]
    reason = end.message or str(end.cause)
    if bound:
        reason += f" (retried {bound} times)"
    return [first, _job_event(job, JobState.FAILED, end.cause, reason, undeclared=bool(end.undeclared))]


def retry_bound(spec: dict[str, Any], cause: Cause) -> int:
    """How often this cause may be retried: the user's word, else the default for that cause."""
    retries = spec.get("retries") or {}
    return int(retries.get(str(cause), DEFAULT_RETRIES.get(cause, 0)))


def skipped(job: Job, failed: Job) -> Event:
    """The end of a job whose dependency did not end as it needs."""
    reason = f"it needs job {failed.id} to succeed, which is {failed.state}"
    return _job_event(job, JobState.SKIPPED, Cause.DEPENDENCY, reason)


def cancelled_in_queue(job: Job) -> Event:
    return _job_event(job, JobState.CANCELLED, Cause.CANCELLED, "cancelled before it started")


def _attempt_event(
    attempt: Attempt, end: Ended, state: AttemptState, cause: Cause, *, parts: Sequence[dict[str, Any]]
) -> Event:
    data = {
        "state": state,
        "cause": cause,
        "message": end.message,
        "exit_code": end.exit_code,
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
