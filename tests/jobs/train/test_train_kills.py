"""Whole trainings through a controller and a lane: killed at random moments, diverging, cut short, out of memory."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from core.home import Home
from core.journal import Journal, Role, query
from core.journal.query import Attempt as Row
from core.journal.query import Job
from core.rundir import latest_checkpoint, verify_checkpoint
from core.states import Cause, JobState
from lab.submission import Request, submit
from lanes.start import ensure_controller, wake
from tests.jobs.train.data_context import encoder
from tests.jobs.train.test_train_kind import SMALL, Attempt
from tests.lanes.cells import Submitter
from tests.support import end_all, job, processes, tail, wait_for, wait_state

sys.path.append(str(Path(__file__).parent))  # as a package of somebody else's would be found

import toytrain  # isort: skip

pytestmark = [encoder, pytest.mark.kill, pytest.mark.timeout(240)]

# Kills inside the writing of a checkpoint (between its files, before its seal, before its rename), while an older one
# is removed, while a candidate is measured, and while an earlier checkpoint is read.
POINTS = (
    "train.in_state",
    "child.in_checkpoint",
    "child.in_checkpoint_seal",
    "child.in_checkpoint_removal",
    "train.measuring",
    "train.loading",
)


@dataclass
class World:
    home: Home
    folder: Path
    points: Path

    def params(self, **changed: Any) -> dict[str, Any]:
        return {**SMALL, "cache": str(self.folder / "cache"), **changed}

    def train(self, retries: dict[str, int] | None = None, **params: Any) -> int:
        asked = Request("train", self.params(**params), needs={"cores": 1}, retries=retries or {}, literal=True)
        return self.begin(submit(self.home, [asked], cwd=self.folder)[0].id)

    def toy(self, kind: Any, *, spec: dict[str, Any] | None = None, **params: Any) -> int:
        given = kind.Params(**self.params(**params)).model_dump(mode="json")
        return self.begin(Submitter(self.home, kind, needs={"cores": 1}, **(spec or {})).job(given))

    def begin(self, number: int) -> int:
        ensure_controller(self.home)
        wake(self.home)
        return number

    def ended(self, number: int) -> Job:
        wait_for(lambda: job(self.home, number).state.terminal, f"the end of job {number}")
        return job(self.home, number)

    def rows(self, number: int, n: int) -> list[dict[str, Any]]:
        """Of the steps of an attempt, as far as they are written."""
        try:
            lines = self.home.run_dir(number, n).metrics.read_text().splitlines()
        except OSError:
            return []
        return [row for row in (json.loads(x) for x in lines if x.endswith("}")) if "training_value" in row]

    def attempts(self, number: int) -> list[Row]:
        with Journal.open(self.home) as journal:
            return query.attempts(journal.conn, number)

    def log(self, number: int, n: int) -> str:
        return self.home.run_dir(number, n).log.read_text()

    def child(self, number: int, n: int) -> int:
        end = f"/attempts/{number}/{n}"
        found = processes(self.home).items()
        return next((pid for pid, text in found if "lanes.child" in text and text.endswith(end)), 0)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="lab-train-"))
    home = Home(folder / "home")
    world = World(home, folder, folder / "points")
    for made in (world.points, folder / "cache"):
        made.mkdir()
    os.environ["LAB_FAILPOINTS"] = str(world.points)
    try:
        home.create()
        Journal.open(home, Role.CLIENT, create=True).close()
        yield world
    finally:
        del os.environ["LAB_FAILPOINTS"]
        end_all(home)
        shutil.rmtree(home.runtime, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_point_left(world: World) -> Iterator[None]:
    yield
    for point in world.points.iterdir():
        point.unlink(missing_ok=True)


def uninterrupted(world: World, **params: Any) -> Attempt:
    found = Attempt(world.folder / "uninterrupted" / str(len(list(world.folder.rglob("plan.json")))), 1, **params).go()
    assert found.cause == "ok", found.message
    return found


# Kills.


def soon(condition: Callable[[], Any], what: str) -> None:
    """`wait_for` with no pause worth speaking of: what is waited for lasts a moment."""
    until = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.001)


def kill_at(world: World, number: int, n: int, moment: int | str, *, runner: bool = False) -> None:
    """Kill attempt n: by a point that it reaches, or from outside once it has made so many steps."""
    wait_for(lambda: world.child(number, n) or job(world.home, number).state.terminal, f"attempt {n}")
    child = world.child(number, n)
    assert child, f"it ended before kill {n}: {job(world.home, number)}\n{tail(world.home)}"
    if isinstance(moment, str):
        (world.points / moment).touch()
    else:
        soon(lambda: len(world.rows(number, n)) >= moment, f"{moment} steps of attempt {n}")
        if runner:
            started = json.loads(world.home.run_dir(number, n).started.read_text())
            os.kill(int(started["pid"]), signal.SIGKILL)
        os.killpg(os.getpgid(child), signal.SIGKILL)
    wait_for(lambda: world.attempts(number)[n - 1].ended, f"attempt {n} to die at {moment}\n{tail(world.home)}")
    assert not list(world.points.iterdir()), f"{moment} was never reached"


def check(world: World, number: int, kills: int, interval: int, plain: Attempt) -> int:
    """What must hold of a training that was killed so often. Returns how many steps were made more than once."""
    home, steps = world.home, plain.params.recipe().steps
    causes = [a.cause for a in world.attempts(number)]
    assert len(causes) == kills + 1
    assert causes[-1] == Cause.OK
    assert set(causes[:-1]) <= {Cause.SIGNAL, Cause.RUNNER_DIED}
    key = job(home, number).key
    made: list[int] = []
    values: dict[int, Any] = {}
    for n in range(1, kills + 2):
        earlier = [home.run_dir(number, k).checkpoints for k in range(n - 1, 0, -1)]
        best, notes = latest_checkpoint(earlier, key=key)
        assert notes == [], "a kill leaves nothing that is called a checkpoint and is none"
        went_on = re.findall(r"going on from the checkpoint of step (\d+) of", world.log(number, n))
        rows = world.rows(number, n)
        if rows or went_on:  # else it died before it said anything
            assert went_on == ([] if best is None else [str(best.step)])
        own = [row["step"] for row in rows]
        begin = best.step if best else 0
        assert own == list(range(begin + 1, begin + 1 + len(own)))
        made += own
        for row in rows:
            pure = {k: v for k, v in row.items() if k not in ("t", "seconds")}
            assert values.setdefault(row["step"], pure) == pure, "the same step again is the same"
        kept = home.run_dir(number, n).checkpoints.iterdir()
        assert all(verify_checkpoint(p, key=key)[0] for p in kept if not p.name.startswith("."))
    assert sorted(values) == list(range(1, steps + 1))
    repeated = len(made) - len(values)
    assert repeated <= interval * kills
    assert values == {r["step"]: {k: v for k, v in r.items() if k not in ("t", "seconds")} for r in plain_rows(plain)}
    return repeated


def plain_rows(plain: Attempt) -> list[dict[str, Any]]:
    return [row for row in plain.lines() if "training_value" in row]


def same_end(world: World, number: int, plain: Attempt) -> bool:
    last = Attempt.__new__(Attempt)
    last.run = world.home.run_dir(number, job(world.home, number).attempts)
    keys = ("weights_sha256", "average_sha256", "shipped_sha256", "chosen_epoch")
    tables = last.table("candidates") == plain.table("candidates")
    return tables and all(last.whole[k] == plain.whole[k] for k in keys)


def killed(
    world: World, moments: Sequence[int | str], plain: Attempt, *, runners: Sequence[int] = (), **params: Any
) -> tuple[int, int]:
    """(a training that was killed at these moments, steps that it repeated)."""
    retries = params.pop("retries", None)
    number = world.train(retries, **params)
    for n, moment in enumerate(moments, 1):
        kill_at(world, number, n, moment, runner=n in runners)
    wait_state(world.home, number, JobState.SUCCEEDED, deadline_s=600)
    interval = plain.params.checkpoint_epochs * plain.params.recipe().steps_per_epoch
    repeated = check(world, number, len(moments), interval, plain)
    assert same_end(world, number, plain)
    return number, repeated


def test_killed_it_goes_on_by_itself_and_ends_as_if_nothing_had_happened(world: World) -> None:
    """Nobody asked for retries: who gets further each time is started again at once, who does not a little later."""
    params: dict[str, Any] = {"epochs": 60, "candidate_epochs": 20, "checkpoint_epochs": 2, "keep_checkpoints": 2}
    plain = uninterrupted(world, **params)
    number, _ = killed(world, [9, "child.in_checkpoint_seal", "child.in_checkpoint_removal"], plain, **params)
    tries = world.attempts(number)
    again = [after.placed - (before.ended or 0.0) for before, after in pairwise(tries)]
    assert again[1] >= 5, "the kill inside the first checkpoint that it wrote left it where it was"
    other = uninterrupted(world, **params, seed=1)
    assert not same_end(world, number, other), "the digest can differ"
    with pytest.raises(AssertionError):
        check(world, number, 3, 4, other)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_killed_at_twenty_random_moments(world: World) -> None:
    rng = random.Random(20)
    params: dict[str, Any] = {
        "epochs": 200, "h": 4, "width": 96, "height": 64, "candidate_epochs": 12, "checkpoint_epochs": 4,
        "keep_checkpoints": 2,
    }  # fmt: skip
    plain = uninterrupted(world, **params)
    moments: list[int | str] = [*POINTS, *(rng.randint(0, 20) for _ in range(20 - len(POINTS)))]
    rng.shuffle(moments)
    if moments[0] == "train.loading":  # there is nothing to load yet
        moments[0], moments[1] = moments[1], moments[0]
    outside = [n for n, moment in enumerate(moments, 1) if isinstance(moment, int)]
    begun = time.monotonic()
    bounds = {"signal": 20, "runner-died": 20}
    number, repeated = killed(world, moments, plain, runners=outside[::4], retries=bounds, **params)
    print(f"{moments}: {repeated} of {plain.params.recipe().steps} steps twice, {time.monotonic() - begun:.0f} s")
    assert {a.cause for a in world.attempts(number)} == {Cause.SIGNAL, Cause.RUNNER_DIED, Cause.OK}


# Other ends.


@pytest.mark.long
def test_a_training_that_diverges_is_not_tried_again_and_its_last_good_checkpoint_can_be_gone_on_from(
    world: World,
) -> None:
    number = world.toy(toytrain.Diverges(), checkpoint_seconds=0, keep_checkpoints=2)
    end = world.ended(number)
    assert (end.state, end.cause, end.attempts) == (JobState.FAILED, Cause.NOT_FINITE, 1), end.reason
    assert "step 5" in str(end.reason) or "state of step" in str(end.reason)
    run = world.home.run_dir(number, 1)
    assert not list(run.artifacts.rglob("*.*"))
    best, notes = latest_checkpoint([run.checkpoints], key=end.key)
    assert best is not None
    assert (best.step, notes) == (4, [])
    assert [row["step"] for row in world.rows(number, 1)] == [1, 2, 3, 4]
    lower = world.train(start=str(best.path), mode="reset-rate", rate=1e-4)
    exact = world.train(start=str(best.path))
    assert wait_state(world.home, lower, JobState.SUCCEEDED).attempts == 1
    assert [row["step"] for row in world.rows(lower, 1)] == list(range(1, 9)), "the recipe from its first step"
    wait_state(world.home, exact, JobState.SUCCEEDED)
    assert [row["step"] for row in world.rows(exact, 1)] == [5, 6, 7, 8]
    assert same_end(world, exact, uninterrupted(world)), "all but the rate was good"


@pytest.mark.long
def test_half_the_epochs_and_exit_0_are_no_success(world: World) -> None:
    number = world.toy(toytrain.StopsHalfway())
    end = world.ended(number)
    assert (end.state, end.cause, end.attempts) == (JobState.FAILED, Cause.INCOMPLETE, 1), end.reason
    assert "the step rows end at 4 and step 8 was planned" in str(end.reason)
    (only,) = world.attempts(number)
    assert only.exit_code == 0
    with Journal.open(world.home) as journal:
        assert query.parts(journal.conn, job_id=number) == [], "none of its rows are results"


@pytest.mark.long
def test_a_machine_without_memory_is_a_cause_of_its_own_and_tried_once_more(world: World) -> None:
    """A real limit of the address space, met by a real allocation; the second attempt has none."""
    number = world.toy(toytrain.Greedy(), checkpoint_seconds=0)
    world.ended(number)
    tries = world.attempts(number)
    assert [a.cause for a in tries] == [Cause.HOST_MEMORY, Cause.OK], world.log(number, 1)
    assert "out of memory" in str(tries[0].message)
    assert "going on from the checkpoint of step" in world.log(number, 2)
