"""The drift studies through a real queue, controller and lane: one that loses a training, one that loses nothing."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core.home import Home
from core.journal import Journal, query
from core.states import Cause, JobState
from tests.support import lab, wait_state

pytestmark = pytest.mark.timeout(900)

# As little as can be evaluated.
TINY = ("profile=proxy", "reference=100", "held=100", "n=40")
# Where a training is killed, in the order in which it comes there: at its first step, and while it writes a checkpoint.
POINTS = ("drift.step", "drift.in_state")


@dataclass(frozen=True)
class Planned:
    """A study as its plan has it.

    Attributes:
        jobs: name -> id.
        waits: name -> what it waits for; the value is whether that must succeed.
    """

    home: Home
    study: str
    jobs: Mapping[str, int]
    waits: Mapping[str, Mapping[str, bool]]

    @staticmethod
    def of(home: Home, study: str, *sets: str, more: Iterable[str] = ()) -> Planned:
        """What a plan says, and the submit of the same, held."""
        words = (study, *(word for each in (*TINY, *sets) for word in ("--set", each)), *more)
        waits: dict[str, dict[str, bool]] = {}
        for node in asked(home, "submit", *words, "--plan")["jobs"]:
            found = waits.setdefault(node["name"].removeprefix(f"{study}/"), {})
            for one in (*node["after"], *node["takes"]):
                maker = one["job"].removeprefix(f"{study}/")
                must = one["must"] != "end" if "must" in one else not one["optional"]
                found[maker] = found.get(maker, False) or must
        return Planned(home, study, named(asked(home, "submit", *words, "--hold"), study), waits)

    def release(self, names: Iterable[str]) -> None:
        lab(self.home, "release", *(str(self.jobs[name]) for name in sorted(names)))

    def lost_with(self, name: str) -> set[str]:
        """This one, and all that cannot run when it fails."""
        found = {name}
        while more := {o for o, waits in self.waits.items() if any(waits.get(n) for n in found)} - found:
            found |= more
        return found

    def attempts(self) -> dict[str, int]:
        return {name: job.attempts for name, job in found(self.home, self.jobs).items()}


def asked(home: Home, *words: str) -> Any:
    return json.loads(lab(home, *words, "--json").stdout)


def named(said: Any, study: str) -> dict[str, int]:
    return {job["name"].removeprefix(f"{study}/"): job["id"] for job in said["jobs"]}


def found(home: Home, jobs: Mapping[str, int]) -> dict[str, query.Job]:
    with Journal.open(home) as journal:
        return {name: query.job(journal.conn, number) for name, number in jobs.items()}


def rows(home: Home, job: int, table: str) -> list[dict[str, Any]]:
    tables = {one["table"]: one["rows"] for one in asked(home, "results", str(job))["tables"]}
    return list(tables.get(table, []))


def texts(home: Home, job: query.Job) -> list[str]:
    """What the page and the Markdown of a summary say."""
    artifacts: Path = home.run_dir(job.id, job.attempts).artifacts
    return [html.unescape((artifacts / name).read_text()) for name in ("index.html", "summary.md")]


@pytest.mark.long
def test_a_training_that_is_killed_for_good_is_listed_with_all_it_takes_along_and_runs_again_alone(
    shared_home: Home, tmp_path: Path
) -> None:
    for point in POINTS:
        (tmp_path / point).touch()
    # One retry only: the second of two kills is the last.
    tree = Planned.of(
        shared_home,
        "drift-ablation",
        "variants=[raw,attraction-only]",
        "seeds=[0]",
        "steps=4",
        more=("--retries", f"signal={len(POINTS) - 1}", "--env", f"LAB_FAILPOINTS={tmp_path}"),
    )
    killed = "train-attraction-only-s0"
    lost = tree.lost_with(killed)
    assert lost < tree.jobs.keys() - {"summary"}

    tree.release({killed, *tree.waits[killed]})
    ended = wait_state(shared_home, tree.jobs[killed], JobState.FAILED, deadline_s=240)
    assert (ended.cause, ended.attempts) == (Cause.SIGNAL, len(POINTS))
    assert not list(tmp_path.iterdir())
    tree.release(tree.jobs.keys() - {killed, *tree.waits[killed]})
    summary = wait_state(shared_home, tree.jobs["summary"], JobState.SUCCEEDED, deadline_s=600)

    jobs = found(shared_home, tree.jobs)
    assert {name for name, job in jobs.items() if job.state is not JobState.SUCCEEDED} == lost
    assert {name for name in lost if jobs[name].state is JobState.SKIPPED} == lost - {killed}
    said = rows(shared_home, summary.id, "drift_summary")
    assert {row["node"] for row in said} == tree.jobs.keys() - {"summary"}, "no node is dropped"
    missing = {row["node"]: row for row in said if row["state"] != "succeeded"}
    assert {name: row["state"] for name, row in missing.items()} == {name: str(jobs[name].state) for name in lost}
    assert "SIGKILL" in missing[killed]["reason"]
    ids = {f"job {tree.jobs[name]} " for name in lost}
    assert all(any(one in row["reason"] for one in ids) for name, row in missing.items() if name != killed), missing
    verdicts = {
        (v["question"], v["subject"], v["metric"]): v["answer"] for v in rows(shared_home, summary.id, "drift_verdicts")
    }
    assert verdicts["worse", "attraction-only", "fid"] == "missing"
    assert verdicts["floor", "raw", "fid"] == "not enough seeds"
    nodes = len(tree.jobs) - 1
    for text in texts(shared_home, summary):
        assert f"{nodes - len(lost)} of {nodes} nodes succeeded" in text
        for row in missing.values():
            assert all(row[word] in text for word in ("node", "state", "reason"))

    # Exactly that training runs again, and what waits for it.
    before = tree.attempts()
    again = named(asked(shared_home, "rerun", "--failed", "drift-ablation"), tree.study)
    assert again.keys() == lost | {"summary"}
    whole = wait_state(shared_home, again["summary"], JobState.SUCCEEDED, deadline_s=600)
    assert {job.state for job in found(shared_home, again).values()} == {JobState.SUCCEEDED}
    assert tree.attempts() == before, "no other ran again"
    assert {row["state"] for row in rows(shared_home, whole.id, "drift_summary")} == {"succeeded"}
    for text in texts(shared_home, whole):
        assert f"{nodes} of {nodes} nodes succeeded" in text


def test_a_package_with_a_random_extractor_passes_all_its_audits(shared_home: Home) -> None:
    # A checkpoint each 100 steps: this training leaves two.
    tree = Planned.of(shared_home, "drift-package", "seeds=[0]", "alphas=[1.5]", "steps=101", "last=2")
    assert "eval-step100" in tree.jobs
    tree.release(tree.jobs)
    summary = wait_state(shared_home, tree.jobs["summary"], JobState.SUCCEEDED, deadline_s=600)
    assert {job.state for job in found(shared_home, tree.jobs).values()} == {JobState.SUCCEEDED}
    audits = {name for name in tree.jobs if name.startswith(("audit", "contract"))}
    assert audits == {"audit", "contract"}
    said = [row for row in rows(shared_home, summary.id, "drift_summary") if row["node"] in audits]
    counted = {(row["node"], row["metric"]): row["value"] for row in said}
    for name, table in (("audit", "audit"), ("contract", "drift_contract")):
        checks = rows(shared_home, tree.jobs[name], table)
        assert len(checks) == counted[name, "checks"] > 0
        assert counted[name, "checks_failed"] == 0
        assert all(check["passed"] for check in checks)
    for text in texts(shared_home, summary):
        assert "smoke test" in text
        assert "reported, not chosen" in text
