"""The whole study through a real controller: a small tree, each node a job, and what is left when some fail."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.home import Home
from core.journal import Journal, query
from core.states import AttemptState, Cause, JobState
from tests.lab_net import LabNet, require
from tests.lanes.remote.support import Head, head_of
from tests.support import kill, lab, processes, wait_for, wait_state

TINY = ("size=tiny", "views=[dense]", "lsqml_epochs=3")
LOST = (JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED)


def submitted(home: Home, *sets: str) -> dict[str, int]:
    """Node -> job id of a study that has ended."""
    words = [word for each in sets for word in ("--set", each)]
    done = lab(home, "submit", "dose", *words, "--wait", "--json")
    said = json.loads(done.stdout.splitlines()[0])
    return {job["name"].removeprefix("dose/"): job["id"] for job in said["jobs"]}


def states(home: Home, jobs: dict[str, int]) -> dict[str, JobState]:
    with Journal.open(home) as journal:
        return {name: query.job(journal.conn, number).state for name, number in jobs.items()}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_whole_study_succeeds_is_cached_and_another_seed_is_another(shared_home: Home) -> None:
    arms = "arms=[lsqml]"
    jobs = submitted(shared_home, *TINY, arms)
    assert set(states(shared_home, jobs).values()) == {JobState.SUCCEEDED}
    with Journal.open(shared_home) as journal:
        done = query.job(journal.conn, jobs["summary"])
    artifacts = shared_home.run_dir(done.id, done.attempts).artifacts
    text = (artifacts / "summary.md").read_text()
    assert "2 of 2 planned conditions were compared" in text
    assert (artifacts / "index.html").read_text().count("<img") == 2

    again = submitted(shared_home, *TINY, arms)
    assert again == jobs, "the same study is answered by its own jobs"
    other = submitted(shared_home, *TINY, arms, "seeds=[43]")
    assert not set(other.values()) & set(jobs.values())

    def bytes_of(job: int) -> bytes:
        with Journal.open(shared_home) as journal:
            found = query.job(journal.conn, job)
            return (shared_home.run_dir(job, found.attempts).artifacts / "train.npz").read_bytes()

    assert bytes_of(jobs["data_d1000_s42"]) != bytes_of(other["data_d1000_s43"])


@pytest.fixture
def net() -> Iterator[LabNet]:
    """One lane far away: it belongs to the first head that comes."""
    require()
    with LabNet() as found:
        found.add("mini", python="venv")
        yield found


@pytest.fixture
def head(net: LabNet, tmp_path: Path) -> Iterator[Head]:
    """This machine and a lane far away, a core each."""
    with head_of(tmp_path / "head", net, local={"cores": 1}, mini={"cores": 1}) as found:
        found.grant("mini")
        yield found


@dataclass(frozen=True)
class Planned:
    """The study as its plan has it.

    Attributes:
        jobs: name -> id.
        waits: name -> what it waits for; the value is whether that must succeed.
    """

    jobs: Mapping[str, int]
    waits: Mapping[str, Mapping[str, bool]]

    @staticmethod
    def of(head: Head, *sets: str, more: tuple[str, ...]) -> Planned:
        """What a plan says, and the submit of the same, held."""
        words = ("dose", *(word for each in sets for word in ("--set", each)), *more)
        planned = {node["name"].removeprefix("dose/"): node for node in head.json("submit", *words, "--plan")["jobs"]}
        waits: dict[str, dict[str, bool]] = {}
        for name, node in planned.items():
            found = waits.setdefault(name, {})
            for one in node["after"]:
                found[one["job"].removeprefix("dose/")] = one["must"] != "end"
            for one in node["takes"]:
                maker = one["job"].removeprefix("dose/")
                found[maker] = found.get(maker, False) or not one["optional"]
        said = head.json("submit", *words, "--hold")
        return Planned({job["name"].removeprefix("dose/"): job["id"] for job in said["jobs"]}, waits)

    def takers(self, name: str) -> set[str]:
        """Jobs that run only when this one succeeded."""
        return {other for other, waits in self.waits.items() if waits.get(name)}

    def with_all_that_wait(self, names: Iterable[str]) -> set[str]:
        """These, and all that wait for them, and so on."""
        found = set(names)
        while more := {o for o, waits in self.waits.items() if found & waits.keys()} - found:
            found |= more
        return found

    def states(self, head: Head) -> dict[str, JobState]:
        return states(head.home, dict(self.jobs))

    def ended(self, head: Head) -> dict[str, query.Job]:
        """Those that ended without success."""
        with Journal.open(head.home) as journal:
            found = {name: query.job(journal.conn, job) for name, job in self.jobs.items()}
        return {name: job for name, job in found.items() if job.state in LOST}

    def release(self, head: Head, names: Iterable[str]) -> None:
        head.lab("release", *(str(self.jobs[name]) for name in sorted(names)))


def running(head: Head, job: int, n: int, lane: str) -> query.Attempt:
    """Attempt n of a job, once its process runs on the lane."""

    def there() -> query.Attempt | None:
        found = head.attempts(job)
        return found[-1] if len(found) == n and found[-1].pid and found[-1].lane == lane else None

    return wait_for(there, f"attempt {n} of job {job} to run on {lane}", deadline_s=180)


def child(head: Head, job: int, n: int) -> int:
    """The process that does the work of an attempt here; 0: there is none."""
    end = f"/attempts/{job}/{n}"
    found = processes(head.home).items()
    return next((pid for pid, text in found if "lanes.child" in text and text.endswith(end)), 0)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("arm", "killed", "lost"),
    [
        ("supervised", "supervised", "untrained"),
        pytest.param("pinn", "pinn", "untrained", marks=pytest.mark.long),
    ],
)
def test_one_is_killed_a_lane_is_lost_a_condition_fails_and_the_rest_completes(
    head: Head, net: LabNet, arm: str, killed: str, lost: str
) -> None:
    mini = net.lanes["mini"]
    tree = Planned.of(
        head,
        "size=tiny",
        "views=[baseline]",
        f"arms=[{arm}]",
        more=("--retries", "signal=1", "--on-unreachable", "requeue-after:3s"),
    )
    good, bad = (name.removeprefix("compare_") for name in tree.jobs if name.startswith("compare_"))
    killed, lost = f"{killed}_{good}", f"{lost}_{good}"
    first = {name for name in tree.jobs if name.startswith(("data_", "views_"))}

    # A byte of what the views of one condition made is another before anybody takes it: nothing of it can run.
    tree.release(head, first)
    for name in first:
        wait_state(head.home, tree.jobs[name], JobState.SUCCEEDED, deadline_s=240)
    views = tree.jobs[f"views_{bad}"]
    hurt = max(head.home.run_dir(views, len(head.attempts(views))).artifacts.rglob("*.npz"))
    before = hurt.read_bytes()
    hurt.write_bytes(bytes([*before[:-1], before[-1] ^ 1]))

    # A job can only run far away, and does when that lane's link goes. It is given up after a while and runs here.
    head.wait_lane("mini", "up", deadline_s=240)
    head.lab("lane", "drain", "local", "--reason", "the test wants it there")
    tree.release(head, [lost])
    running(head, tree.jobs[lost], 1, "mini")
    mini.cut()
    head.lab("lane", "resume", "local")

    # One more is killed as often as it is started.
    tree.release(head, tree.jobs.keys() - first - {lost})
    for n in (1, 2):
        running(head, tree.jobs[killed], n, "local")
        kill(wait_for(partial(child, head, tree.jobs[killed], n), f"the process of attempt {n}"))
    done = wait_state(head.home, tree.jobs[killed], JobState.FAILED, deadline_s=120)
    assert (done.cause, done.attempts) == (Cause.SIGNAL, 2)

    # All else is done: one summary, with what is missing in it.
    wait_state(head.home, tree.jobs["summary"], JobState.SUCCEEDED, deadline_s=600)
    failed = {killed} | tree.takers(f"views_{bad}")
    assert tree.ended(head).keys() == failed, "\n".join(
        f"{name}: {job.reason}" for name, job in tree.ended(head).items()
    )
    assert {state for name, state in tree.states(head).items() if name not in failed} == {JobState.SUCCEEDED}
    assert {job.cause for name, job in tree.ended(head).items() if name != killed} == {Cause.STALE_INPUT}
    one, two = head.attempts(tree.jobs[lost])
    assert (one.state, one.cause, one.lane) == (AttemptState.LOST, Cause.UNREACHABLE, "mini")
    assert (two.state, two.lane) == (AttemptState.SUCCEEDED, "local")
    assert without_number(head) == {(good, arm), (bad, "")}
    text = summary_text(head, tree.jobs["summary"])
    assert "1 of 2 planned conditions were compared" in text
    assert bad in text
    assert all(row["status"] == "failed" for row in table(head, "dose_trainings") if row["condition"] == bad)
    assert {row["photons"] for row in table(head, "dose_summary")} == {1000.0}, "of the other there is no number"

    # The byte is put back: exactly what failed runs again, and what waits for that.
    hurt.write_bytes(before)
    attempts = {name: len(head.attempts(job)) for name, job in tree.jobs.items()}
    again = {job["name"].removeprefix("dose/"): job["id"] for job in head.json("rerun", "--failed", "dose")["jobs"]}
    assert set(again) == tree.with_all_that_wait(failed) < set(tree.jobs)
    assert set(again).isdisjoint(first | {lost})
    wait_state(head.home, again["summary"], JobState.SUCCEEDED, deadline_s=600)
    assert set(states(head.home, again).values()) == {JobState.SUCCEEDED}
    assert {name: len(head.attempts(job)) for name, job in tree.jobs.items()} == attempts, "no other ran again"
    assert without_number(head) == set()
    assert "2 of 2 planned conditions were compared" in summary_text(head, again["summary"])
    assert head.json("status", "dose")["studies"] == [{"study": "dose", "counts": {"succeeded": len(tree.jobs)}}]
    # What the lost lane has of it is not wanted any more.
    mini.mend()
    head.wait_lane("mini", "up", deadline_s=120)
    assert "every byte is what was committed" in head.lab("verify", *map(str, [*tree.jobs.values()])).stdout
    assert len(head.attempts(tree.jobs[lost])) == 2


def table(head: Head, name: str) -> list[dict[str, Any]]:
    """Rows of a table of the study's newest summary; none where it is not there."""
    found = [one for one in head.json("results", "dose")["tables"] if one["table"] == name]
    return list(found[0]["rows"]) if found else []


def without_number(head: Head) -> set[tuple[str, str]]:
    """(condition, arm) of which the newest summary says that there is none; an empty arm: of none of them."""
    rows = table(head, "dose_skips")
    return {(row["condition"], row["arm"]) for row in rows if row["state"] != "flagged"}


def summary_text(head: Head, job: int) -> str:
    run = head.home.run_dir(job, len(head.attempts(job)))
    return (run.artifacts / "summary.md").read_text()
