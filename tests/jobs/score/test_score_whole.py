"""Scorings through a real controller: what is tabled and what is not, one at a time on a lane, and what may promote."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core.errors import NotFound
from core.home import Home
from core.journal import Journal, query
from core.journal.query import Job
from core.states import JobState
from core.tables import read_table
from jobs.score.evaluator import PREFIX
from jobs.score.formula import Score
from lab.asked import Request
from lab.explain import explain
from lab.submission import submit
from tests.jobs.score import fake
from tests.support import end_all, kill, lab, processes, wait_for, wait_state

# `plain` was not admitted to promote, and `none` has no scorer.
CLUSTER = """lanes:
  local: {transport: local, cores: 2, resources: [scorer]}
  plain: {transport: local, cores: 1, resources: [scorer], roles: [eval, train]}
  none: {transport: local, cores: 1}
"""
WAITS = "print('waiting', flush=True); import time; time.sleep(600)"
ENDED = (JobState.SUCCEEDED, JobState.FAILED)


@dataclass
class Scorer:
    """A running lab with a made checkout and submissions."""

    home: Home
    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.checkout = fake.make_checkout(self.folder / "challenge")

    def submission(self, step: int) -> Path:
        folder = self.folder / f"mine{step}"
        return folder if folder.exists() else fake.make_submission(folder, step=step)

    def submit(self, step: int, *, lane: str = "local", request: dict[str, Any] | None = None, **more: Any) -> int:
        mine = self.submission(step)
        params = {
            "archive": str(mine / "archive.zip"),
            "decoder": str(mine),
            "checkout": str(self.checkout),
            "samples": fake.PAIRS,
            "batch": fake.BATCH,
            "height": fake.HEIGHT,
            "width": fake.WIDTH,
            "limit_s": 120,
            **more,
        }
        asked = Request("score", params, needs={"lane": lane}, literal=True, **(request or {}))
        return self.ask(asked)

    def ask(self, request: Request) -> int:
        (answer,) = submit(self.home, [request], cwd=self.folder)
        return answer.id

    def ends(self, job: int) -> Job:
        return wait_state(self.home, job, *ENDED)

    def rows(self, job: int, table: str = "score") -> list[dict[str, Any]]:
        with Journal.open(self.home) as journal:
            try:
                return list(read_table(self.home, journal.conn, table, [job]).to_pylist())
            except NotFound:
                return []

    def explain(self, job: int) -> str:
        with Journal.open(self.home) as journal:
            return explain(self.home, journal.conn, job).sentence

    def says(self, job: int, words: str) -> None:
        log = self.home.attempts / str(job) / "1" / "log.txt"
        wait_for(lambda: log.is_file() and words in log.read_text(errors="replace"), f"{words!r} in {log}")

    def liar(self, name: str, lie: str) -> str:
        folder = self.folder / name
        return str(folder if folder.exists() else fake.make_checkout(folder, lie=lie, git=False))

    def frames(self) -> list[Path]:
        """Of scorings, wherever they are below the home."""
        return sorted(self.home.path.rglob(f"{PREFIX}*"))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="lab-score-tests-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def scorer(shared_home: Home, folder: Path) -> Scorer:
    """Without a cluster.yaml: the lane `local` alone."""
    return Scorer(shared_home, folder)


def floor(scorer: Scorer, job: int) -> dict[str, Any]:
    """Under the contract of this job's score."""
    contract = scorer.rows(job)[0]["contract_sha256"]
    return dict(json.loads(lab(scorer.home, "floor", "--contract", contract, "--json").stdout))


def verdicts(told: dict[str, Any]) -> dict[int, tuple[str, list[str]]]:
    return {c["jobs"][-1]: (c["verdict"], c["ranks_only"]) for c in told["candidates"]}


def test_what_may_promote_is_the_floor_and_a_proxy_is_not(scorer: Scorer) -> None:
    first, better = scorer.submit(16), scorer.submit(28)
    again = scorer.submit(16, request={"force": True})
    proxy = scorer.submit(32, pairs=4)
    jobs = [first, better, again, proxy]
    for job in jobs:
        assert scorer.ends(job).state is JobState.SUCCEEDED
    (row,) = scorer.rows(first)
    size, whole = (scorer.submission(16) / "archive.zip").stat().st_size, fake.video().nbytes
    assert row["score"] == Score(row["pose"], row["seg"], size, whole).value
    assert row["seg"] == pytest.approx(fake.distortions(16)[1], abs=0.5e-8)
    assert row["authority"] == "scorer"
    assert "numpy" in json.loads(row["evaluator_packages"])
    assert {f["name"] for f in scorer.rows(first, "score_files")} >= {"archive.zip", "inflate.sh", "weights.q"}
    values = {job: scorer.rows(job)[0]["value"] for job in jobs}
    assert values[better] < values[first], "as the verdicts below need it"
    told = floor(scorer, first)
    assert told["floor"]["jobs"] == [better]
    assert told["noise"] == {"spread": 0.0, "submissions_scored_again": 1}
    found = verdicts(told)
    assert found[better] == found[again] == ("promote", [])
    assert found[proxy] == ("unranked", ["a proxy value (the first 4 pairs only)"])
    ranked = json.loads(lab(scorer.home, "compare", *map(str, jobs), "--json").stdout)["ranking"]
    assert [[e["jobs"] for e in g["entries"]] for g in ranked["groups"]] == [[[proxy]], [[better], [first, again]]]


@pytest.mark.long
def test_lanes_without_the_role_or_the_scorer(folder: Path) -> None:
    """The best of all, on a lane that was not admitted to promote: it ranks. And a lane with no scorer takes none."""
    home = Home(folder / "home", folder / "home" / "cluster.yaml")
    assert home.cluster_file is not None
    home.path.mkdir()
    home.cluster_file.write_text(CLUSTER)
    scorer = Scorer(home, folder / "own")
    try:
        lab(home, "up")
        first, again = scorer.submit(16), scorer.submit(16, request={"force": True})
        held = scorer.submit(16, checkout=scorer.liar("hangs", WAITS), request={"retries": {"signal": 0}})
        for job in (first, again):
            assert scorer.ends(job).state is JobState.SUCCEEDED
        scorer.says(held, "waiting")
        best = scorer.submit(32, lane="plain")
        assert scorer.ends(best).state is JobState.SUCCEEDED, "another lane has a scorer of its own"
        assert scorer.rows(best)[0]["value"] < scorer.rows(first)[0]["value"]
        barred = ("close miss", ["lane plain had not the role promote"])
        told = floor(scorer, first)
        assert told["floor"]["jobs"] == [first, again]
        assert verdicts(told)[best] == barred
        # Roles are those of the time: what a lane is given later promotes nothing that was.
        home.cluster_file.write_text(CLUSTER.replace(", roles: [eval, train]", ""))
        assert verdicts(floor(scorer, first))[best] == barred
        mine = scorer.submission(16)
        sets = {"archive": mine / "archive.zip", "decoder": mine, "checkout": scorer.checkout}
        words = [w for name, value in sets.items() for w in ("--set", f"{name}={value}")]
        done = lab(home, "submit", "score", "--lane", "none", *words, check=False)
        assert done.returncode == 5
        said = " ".join(done.stderr.split())
        assert f"none does not offer scorer; write `resources: [scorer]` under `none:` in {home.cluster_file}" in said
    finally:
        end_all(home)
        shutil.rmtree(home.runtime, ignore_errors=True)


def test_one_scoring_at_a_time_on_a_lane_and_nothing_is_left_of_a_killed_one(scorer: Scorer) -> None:
    held = scorer.submit(16, checkout=scorer.liar("hangs", WAITS), request={"retries": {"signal": 0}})
    scorer.says(held, "waiting")
    waits = scorer.submit(8)
    program = [sys.executable, "-c", "print('beside it')"]
    beside = scorer.ask(Request("command", {"argv": program}, needs={"lane": "local"}, code="none", literal=True))
    assert scorer.ends(beside).state is JobState.SUCCEEDED, "the lane has room for anything else"
    with Journal.open(scorer.home) as journal:
        assert query.job(journal.conn, waits).state is JobState.QUEUED
    assert "scorer in use" in scorer.explain(waits)

    (frames,) = scorer.frames()
    assert (frames / "checkout/submissions/candidate/inflated/0.raw").stat().st_size == fake.video().nbytes
    evaluators = [pid for pid, text in processes(scorer.home).items() if str(frames) in text]
    assert evaluators
    runners = [pid for pid, text in processes(scorer.home).items() if "lanes.child" in text and _is_of(pid, held)]
    assert runners
    for pid in runners:
        kill(pid)
    ended = scorer.ends(held)
    assert (ended.state, ended.cause) == (JobState.FAILED, "signal")
    assert scorer.ends(waits).state is JobState.SUCCEEDED
    assert scorer.frames() == []
    assert not [pid for pid, text in processes(scorer.home).items() if pid in evaluators]
    assert scorer.rows(held) == []


def _is_of(pid: int, job: int) -> bool:
    try:
        return f"\0LAB_JOB={job}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def test_what_cannot_be_believed_fails_with_its_cause_and_is_not_tabled(scorer: Scorer) -> None:
    stale = scorer.submission(128)
    held = scorer.submit(128, request={"held": True})
    with (stale / "archive.zip").open("ab") as file:
        file.write(b"\0")
    lab(scorer.home, "release", str(held))
    full = shutil.disk_usage(scorer.folder).free + (1 << 40)
    jobs = {
        scorer.submit(16, checkout=scorer.liar("lies", "score -= 0.02")): ("error", "contradicts itself"),
        scorer.submit(16, checkout=scorer.liar("dies", "os.kill(os.getpid(), 9)")): ("error", "ended by SIGKILL"),
        scorer.submit(16, disk_bytes=full, request={"retries": {"disk-full": 0}}): ("disk-full", "GB free"),
        held: ("stale-input", "is not what it was when the job was submitted"),
    }
    for job, (cause, said) in jobs.items():
        ended = scorer.ends(job)
        assert (ended.state, ended.cause) == (JobState.FAILED, cause), ended.reason
        assert said in (ended.reason or "")
        assert scorer.rows(job) == scorer.rows(job, "score_files") == []
    assert scorer.frames() == []
    told = json.loads(lab(scorer.home, "floor", "--json").stdout)
    assert not {j for c in told["candidates"] for j in c["jobs"]} & set(jobs)
