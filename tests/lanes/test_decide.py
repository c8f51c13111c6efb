"""What follows from the end of an attempt: retries by cause, bounds, cancellation, exactly one end."""

from __future__ import annotations

from typing import Any

import pytest

from core.journal.query import Attempt, Job
from core.states import DEFAULT_RETRIES, AttemptState, Cause, EventKind, JobState
from lanes.decide import Ended, conclude, retry_bound


def job(**more: Any) -> Job:
    known: dict[str, Any] = {
        "id": 7, "spec": "d", "kind": "command", "name": "n", "params": {}, "key": "k", "state": JobState.RUNNING,
        "cause": None, "reason": None, "priority": 0, "attempts": 1, "lane": "local", "wish": None, "idem": None,
        "tags": (), "note": "", "submitted": 0.0, "started": 0.0, "ended": None, "undeclared": False, "rerun_of": None,
    }  # fmt: skip
    return Job(**{**known, **more})


def attempt(n: int, cause: Cause | None = None) -> Attempt:
    return Attempt(
        job=7, n=n, lane="local", state=AttemptState.RUNNING, nonce="x", grant={}, cause=cause and str(cause),
        message=None, exit_code=None, pid=1, boot="b", seconds=None, cpu_s=None, max_rss_mb=None, placed=0.0,
        started=0.0, ended=None if cause is None else 1.0, undeclared=(), manifest=None,
    )  # fmt: skip


def kinds(events: list[Any]) -> list[EventKind]:
    return [e.kind for e in events]


def test_success_ends_attempt_and_job() -> None:
    end = Ended(AttemptState.SUCCEEDED, Cause.OK, undeclared=("/x",), parts=({"table": "t"},))
    events = conclude(job(), attempt(1), [attempt(1)], {}, end)
    assert kinds(events) == [EventKind.ATTEMPT_ENDED, EventKind.JOB_ENDED]
    assert events[0].data["parts"] == [{"table": "t"}]
    assert events[1].data["state"] == "succeeded"
    assert events[1].data["undeclared"] == 1


@pytest.mark.parametrize("state", ["cancelling", "wish"])
def test_a_result_that_comes_in_while_cancelling_is_not_one(state: str) -> None:
    mine = job(state=JobState.CANCELLING) if state == "cancelling" else job(wish="cancel")
    end = Ended(AttemptState.SUCCEEDED, Cause.OK, parts=({"table": "t"},))
    events = conclude(mine, attempt(1), [attempt(1)], {}, end)
    assert events[0].data["parts"] == []
    assert [e.data["state"] for e in events] == ["cancelled", "cancelled"]


def test_an_error_of_the_program_is_not_retried_unless_asked() -> None:
    end = Ended(AttemptState.FAILED, Cause.ERROR, "exit code 3")
    assert kinds(conclude(job(), attempt(1), [attempt(1)], {}, end))[-1] is EventKind.JOB_ENDED
    spec = {"retries": {"error": 1}}
    assert kinds(conclude(job(), attempt(1), [attempt(1)], spec, end))[-1] is EventKind.REQUEUED
    again = conclude(job(), attempt(2), [attempt(1, Cause.ERROR), attempt(2)], spec, end)
    assert kinds(again)[-1] is EventKind.JOB_ENDED
    assert "(retried 1 time)" in again[-1].data["reason"]


def test_each_cause_has_its_own_bound() -> None:
    end = Ended(AttemptState.LOST, Cause.RUNNER_DIED, "its supervisor was killed")
    earlier = [attempt(1, Cause.PREEMPTED), attempt(2, Cause.RUNNER_DIED), attempt(3)]
    assert kinds(conclude(job(), attempt(3), earlier, {}, end))[-1] is EventKind.REQUEUED
    bound = DEFAULT_RETRIES[Cause.RUNNER_DIED]
    spent = [attempt(n, Cause.RUNNER_DIED) for n in range(1, bound + 1)] + [attempt(bound + 1)]
    assert kinds(conclude(job(), attempt(bound + 1), spent, {}, end))[-1] is EventKind.JOB_ENDED


def test_every_bound_is_finite() -> None:
    for cause in Cause:
        assert 0 <= retry_bound({}, cause) <= 50
