"""What follows from the end of an attempt: retries by cause, bounds, cancellation, exactly one end."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from core.home import Home
from core.journal.query import Attempt, Job
from core.states import DEFAULT_RETRIES, AttemptState, Cause, EventKind, JobState
from lanes.decide import Ended, conclude, retry_bound
from lanes.harvest import idle_from


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


def killed(number: int = 9, idle_from: int = 1) -> Ended:
    return Ended(AttemptState.FAILED, Cause.SIGNAL, "ended by a signal", signal=number, idle_from=idle_from)


def restarts(end: Ended, *before: Cause, spec: dict[str, Any] | None = None) -> float | None:
    """After how many seconds it starts again, if it does, when attempts before it ended so."""
    n = len(before) + 1
    earlier = [attempt(k, cause) for k, cause in enumerate(before, 1)]
    event = conclude(job(), attempt(n), [*earlier, attempt(n)], spec or {}, end)[-1]
    assert event.kind in (EventKind.REQUEUED, EventKind.JOB_ENDED)
    if event.kind is EventKind.JOB_ENDED:
        return None
    assert (event.data["wait_s"] > 0) == ("starts again after" in event.data["reason"])
    return float(event.data["wait_s"])


S = Cause.SIGNAL


def test_a_kill_from_outside_is_tried_again_later_each_time_and_not_for_ever() -> None:
    assert restarts(killed()) == 5
    assert restarts(killed(), S) == 60
    assert restarts(killed(), S, S) is None
    assert restarts(killed(), Cause.PREEMPTED, S, Cause.RUNNER_DIED) == 60, "each cause has its own count"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGBUS, signal.SIGILL])
def test_a_program_that_is_broken_is_not_tried_again_at_the_same_place(number: int) -> None:
    assert restarts(killed(number)) is None
    assert restarts(Ended(AttemptState.FAILED, Cause.SIGNAL)) is None, "a signal that nobody wrote down"
    # It left a newer checkpoint (the attempt itself made progress): once more, for the place may not be the same.
    assert restarts(killed(number, idle_from=2)) == 0
    assert restarts(killed(number, idle_from=2), S) is None, "it died where it died before"


def test_who_gets_further_each_time_goes_on_at_once_up_to_a_bound() -> None:
    for n in range(1, 21):
        assert restarts(killed(idle_from=n + 1), *[S] * (n - 1)) == 0
    assert restarts(killed(idle_from=22), *[S] * 20) is None
    # Far, then three times nowhere.
    assert restarts(killed(idle_from=6), *[S] * 5) == 5
    assert restarts(killed(idle_from=6), *[S] * 6) == 60
    assert restarts(killed(idle_from=6), *[S] * 7) is None


def test_the_users_own_bound_is_a_plain_number() -> None:
    asked = {"retries": {"signal": 2}}
    for number in (signal.SIGKILL, signal.SIGSEGV):
        assert [restarts(killed(number), *[S] * n, spec=asked) for n in range(4)] == [0, 0, None, None]
        assert restarts(killed(number, idle_from=2), spec={"retries": {"signal": 0}}) is None


def test_every_bound_is_finite() -> None:
    for cause in Cause:
        assert 0 <= retry_bound({}, cause) <= 50


def test_idle_are_the_attempts_since_the_last_that_left_a_newer_checkpoint(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    def left(n: int, *steps: int) -> int:
        for step in steps:
            (home.run_dir(7, n).checkpoints / str(step)).mkdir(parents=True)
        return idle_from(home, 7, n)

    assert left(1) == 1, "it left none"
    assert left(2, 0, 10) == 3
    assert left(3) == 3
    assert left(4, 10) == 3, "as far as one before it is not further"
    assert left(5, 11) == 6
    assert left(7) == 6, "of attempt 6 nothing is left"
    (home.run_dir(7, 7).checkpoints).mkdir(parents=True)
    (home.run_dir(7, 7).checkpoints / ".99.1.tmp").mkdir()
    assert idle_from(home, 7, 7) == 6, "one that is not sealed is none"
