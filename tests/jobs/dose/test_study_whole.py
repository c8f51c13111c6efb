"""The whole study through a real controller: a small tree, each node an ordinary job."""

from __future__ import annotations

import json

import pytest

from core.home import Home
from core.journal import Journal, query
from core.states import JobState
from tests.support import lab

TINY = ("size=tiny", "views=[dense]", "lsqml_epochs=3")


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
