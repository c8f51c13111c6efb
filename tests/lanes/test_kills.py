"""Kill -9 everywhere, and every graceful end: each job ends exactly once, and what ran is taken up, not restarted.

One home lives through all of these, one after the other, as a real one would. Each case submits a job that fills the
lane and counts steps until it is let go, and one that waits behind it; something dies at a seeded moment; then both
must end as if nothing had happened.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from core.home import Home
from core.journal import Journal, Role, query
from core.states import Cause, EventKind, JobState
from lab.submission import Request, submit
from lanes.start import controller_alive, ensure_controller, wake
from tests.support import controller_pid, end_all, guardian_pid, job, kill, pids, processes, tail, wait_for, wait_state

pytestmark = [pytest.mark.kill, pytest.mark.timeout(150)]

CORES = len(os.sched_getaffinity(0))

# Counts steps until the file named by its argument exists. `exists` opens nothing, so nothing is undeclared.
STEPPER = """
import json, os, sys, time
n = 0
with open(os.environ["LAB_METRICS"], "a", buffering=1) as f:
    while True:
        f.write(json.dumps({"step": n, "pid": os.getpid(), "n": int(os.environ["LAB_ATTEMPT_NUMBER"])}) + "\\n")
        if os.path.exists(sys.argv[1]):
            break
        n += 1
        time.sleep(0.01)
"""


@dataclass
class World:
    home: Home
    points: Path
    folder: Path
    count: int = 0
    pairs: list[Pair] = field(default_factory=list)


@pytest.fixture(autouse=True)
def let_go(world: World) -> Iterator[None]:
    """A failed case must not fill the lane for those after it."""
    yield
    for pair in world.pairs:
        pair.go.touch()
    world.pairs.clear()
    for point in world.points.iterdir():
        point.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="lab-kills-"))
    home = Home(folder / "home")
    points = folder / "points"
    points.mkdir()
    os.environ["LAB_FAILPOINTS"] = str(points)
    try:
        home.create()
        Journal.open(home, Role.CLIENT, create=True).close()
        yield World(home, points, folder)
    finally:
        del os.environ["LAB_FAILPOINTS"]
        end_all(home)
        shutil.rmtree(home.runtime, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


class Pair:
    """The job that runs and the one that waits behind it."""

    def __init__(self, world: World, *, retries: dict[str, int] | None = None) -> None:
        self.home = world.home
        world.count += 1
        world.pairs.append(self)
        self.go = world.folder / f"go-{world.count}"
        argv = [sys.executable, "-S", "-c", STEPPER, str(self.go)]
        needs, limits = {"cores": CORES}, {"grace_s": 1.0}
        self.first = submit(
            world.home,
            [Request("command", {"argv": argv}, needs=needs, limits=limits, retries=retries or {})],
            cwd=world.folder,
        )[0].id
        behind = [sys.executable, "-S", "-c", f"print({world.count})"]
        self.second = submit(world.home, [Request("command", {"argv": behind}, needs=needs)], cwd=world.folder)[0].id
        ensure_controller(world.home)
        wake(world.home)

    def steps(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for n in range(1, job(self.home, self.first).attempts + 1):
            path = self.home.run_dir(self.first, n).metrics
            if path.exists():
                rows += [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        return rows

    def running(self, at_least: int = 3) -> None:
        wait_for(lambda: len(self.steps()) >= at_least, f"{at_least} steps of job {self.first}\n{tail(self.home)}")

    def finish(self) -> None:
        if not self.go.exists():
            self.running()
        self.go.touch()
        for which in (self.first, self.second):
            wait_state(self.home, which, JobState.SUCCEEDED)


def check(world: World, pair: Pair, *, attempts: int = 1) -> None:
    """Exactly one end each, no attempt more than needed, no gap and no repetition, and nothing left running."""
    home = world.home
    with Journal.open(home) as journal:
        for which, want in ((pair.first, attempts), (pair.second, 1)):
            events = query.events(journal.conn, job_id=which)
            ends = [e for e in events if e.kind == EventKind.JOB_ENDED]
            placed = [e for e in events if e.kind == EventKind.PLACED]
            over = [e for e in events if e.kind == EventKind.ATTEMPT_ENDED]
            assert len(ends) == 1, events
            assert len(placed) == len(over) == want, [(e.kind, e.attempt, e.data) for e in events]
    rows = [r for r in pair.steps() if r["n"] == attempts]
    assert [r["step"] for r in rows] == list(range(len(rows))), "a gap or a repetition in the step rows"
    assert len({r["pid"] for r in rows}) == 1, "the process was started anew"
    marks = f"LAB_ATTEMPT=lab:{home.hash}:"
    wait_for(lambda: not attempts_alive(home), f"nothing with {marks} to be left: {processes(home)}", deadline_s=20)
    assert not list(world.points.iterdir()), "the failpoint was never reached"


def attempts_alive(home: Home) -> list[int]:
    mark = f"LAB_ATTEMPT=lab:{home.hash}:".encode()
    found = []
    for pid in processes(home):
        try:
            if mark in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


# Who dies. Each returns the pids to kill; waits for them to exist.


def victims(home: Home, who: str, job_id: int) -> list[int]:
    words = {
        "gcs": ("gcs_server",),
        "raylet": ("raylet/raylet",),
        "lane-actor": ("ray::LaneActor",),
        "ray-agent": ("ray::DashboardAgent",),
    }
    if who == "controller":
        return [controller_pid(home)]
    if who == "guardian":
        return [guardian_pid(home)]
    if who == "both":
        return [guardian_pid(home), controller_pid(home)]
    if who == "runner":
        return [wait_for(lambda: _started(home, job_id, "pid"), f"a supervisor of job {job_id}")]
    if who == "child":
        return [wait_for(lambda: _child(home, job_id), f"a child of job {job_id}")]
    return wait_for(lambda: pids(home, *words[who]), f"a {who}\n{tail(home)}")


def _started(home: Home, job_id: int, field: str) -> int:
    n = job(home, job_id).attempts
    try:
        return int(json.loads(home.run_dir(job_id, n).started.read_text()).get(field) or 0)
    except (OSError, ValueError):
        return 0


def _child(home: Home, job_id: int) -> int:
    n = job(home, job_id).attempts
    want = f"/attempts/{job_id}/{n}"
    return next((pid for pid, text in processes(home).items() if "lanes.child" in text and text.endswith(want)), 0)


OUTSIDE = ["controller", "guardian", "both", "gcs", "raylet", "lane-actor", "ray-agent"]
INSIDE = ["runner", "child"]
WHEN = ["queued", "running", "ending"]
# Each death but the guardian's costs a start of Ray. At every moment the controller dies; those that end with it, and
# it with them, die while a job runs, which is the moment that counts.
OUTSIDE_WHEN = [
    pytest.param(who, when, marks=[pytest.mark.long] if who in OUTSIDE[2:] and when != "running" else [])
    for who in OUTSIDE
    for when in WHEN
]


@pytest.mark.parametrize(("who", "when"), OUTSIDE_WHEN)
def test_killed_from_outside(world: World, who: str, when: str) -> None:
    rng = random.Random(f"{who} {when}")
    found = [] if when == "queued" and not controller_alive(world.home) else victims(world.home, who, 0)
    pair = Pair(world)
    if when == "queued":
        time.sleep(rng.uniform(0, 0.15))
    else:
        pair.running(rng.randint(1, 20))
        found = victims(world.home, who, pair.first)
        if when == "ending":
            pair.go.touch()
            time.sleep(rng.uniform(0, 0.08))
    for pid in found:
        kill(pid)
    if who == "both":
        # Nobody is left to start anything; the next command of a person does.
        wait_for(lambda: not controller_alive(world.home), "the controller to be gone")
        ensure_controller(world.home)
    if when == "running":
        # It goes on while nobody looks after it.
        pair.running(len(pair.steps()) + 10)
    pair.finish()
    check(world, pair)


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("who", INSIDE)
def test_the_attempt_itself_is_killed(world: World, who: str, when: str) -> None:
    rng = random.Random(f"{who} {when}")
    pair = Pair(world, retries={"signal": 1})
    if when == "running":
        pair.running(rng.randint(1, 20))
    found = victims(world.home, who, pair.first)
    if when == "ending":
        pair.running()
        pair.go.touch()
        time.sleep(rng.uniform(0, 0.01))
    for pid in found:
        kill(pid)
    pair.finish()
    with Journal.open(world.home) as journal:
        attempts = query.attempts(journal.conn, pair.first)
    if when != "ending":
        assert [a.cause for a in attempts] == [Cause.RUNNER_DIED if who == "runner" else Cause.SIGNAL, Cause.OK]
    check(world, pair, attempts=len(attempts))


# At exactly known places. The number of attempts that each must cost.
POINTS = {
    "controller.before_placed": 1,
    "controller.after_placed": 1,
    "controller.before_started": 1,
    "controller.after_started": 1,
    "controller.before_commit": 1,
    "controller.after_commit": 1,
    "controller.tick": 1,
    "journal.before_commit.controller": 1,
    "journal.after_commit.controller": 1,
    "agent.before_launch": 1,
    "agent.after_launch": 1,
    "runner.after_lock": 2,
    "runner.after_started": 2,
    "runner.before_child": 2,
    "runner.before_seal": 2,
    "runner.after_seal": 1,
    "child.before_run": 2,
}


# For the journal the same as a moment before or after a commit, which are in the list.
ALIKE = ("controller.before_placed", "controller.before_started", "controller.tick")


@pytest.mark.parametrize("point", [pytest.param(p, marks=[pytest.mark.long] if p in ALIKE else []) for p in POINTS])
def test_killed_at_a_known_place(world: World, point: str) -> None:
    ensure_controller(world.home)
    wait_for(lambda: controller_alive(world.home), "a controller")
    late = point.endswith(("commit", "seal"))
    if not late:
        (world.points / point).touch()
    pair = Pair(world, retries={"signal": 1})
    if late:
        pair.running()
        (world.points / point).touch()
    wait_for(lambda: late or not (world.points / point).exists(), f"{point} to be reached\n{tail(world.home)}")
    if not late:
        pair.running()
    pair.finish()
    check(world, pair, attempts=POINTS[point])


@pytest.mark.parametrize("point", ["controller.before_cancelling", "controller.after_cancelling"])
def test_killed_while_cancelling(world: World, point: str) -> None:
    pair = Pair(world)
    pair.running()
    (world.points / point).touch()
    with Journal.open(world.home, Role.CLIENT) as journal, journal.transaction() as tx:
        tx.append(EventKind.CANCEL_ASKED, job=pair.first)
    wake(world.home)
    wait_state(world.home, pair.first, JobState.CANCELLED)
    wait_state(world.home, pair.second, JobState.SUCCEEDED)
    check(world, pair)


# Graceful ends. The lanes' work is nobody's business but its own.

_RAY_KILL = """
import os, sys
import ray
ray.init(address=sys.argv[1], namespace="lab", log_to_driver=False, logging_level="error")
names = [n for n in ray.util.list_named_actors() if n.startswith("lane:")]
assert names, "no lane actor"
for name in names:
    ray.kill(ray.get_actor(name))
ray.shutdown()
"""


def ray_kill_lane_actors(home: Home) -> None:
    """As any Ray client could: attach to the session and kill the lane's actor."""
    text = next(t for t in processes(home).values() if "raylet/raylet" in t)
    address = next(w.partition("=")[2] for w in text.split() if w.startswith("--gcs-address="))
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(home.path / "ray.token")}
    done = subprocess.run(
        [sys.executable, "-c", _RAY_KILL, address], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def ask_down(home: Home, *, how_hard: bool) -> None:
    with Journal.open(home, Role.CLIENT) as journal, journal.transaction() as tx:
        tx.append(EventKind.DOWN_ASKED, data={"kill": how_hard})
    wake(home)
    wait_for(lambda: not controller_alive(home), f"the controller to go down\n{tail(home)}")


# The controller sees that they are gone, not how they went: with SIGKILL they are in test_killed_from_outside.
RAYS = [pytest.param(f"SIGTERM {who}", marks=pytest.mark.long) for who in ("raylet", "gcs")]


@pytest.mark.parametrize("how", ["ray.kill", "SIGTERM controller", "SIGTERM guardian", "down", *RAYS])
def test_graceful_ends(world: World, how: str) -> None:
    pair = Pair(world)
    pair.running()
    if how == "ray.kill":
        before = victims(world.home, "lane-actor", 0)
        ray_kill_lane_actors(world.home)
        wait_for(lambda: not set(before) & set(processes(world.home)), "the actor to be gone")
    elif how == "down":
        ask_down(world.home, how_hard=False)
        wait_for(lambda: not pids(world.home, "lanes.guardian"), "the guardian to be gone")
        assert not pids(world.home, "raylet"), "Ray is gone with it"
        pair.running(len(pair.steps()) + 10)
        ensure_controller(world.home)
    else:
        number, who = how.split()
        for pid in victims(world.home, who, 0):
            kill(pid, signal.Signals[number])
        pair.running(len(pair.steps()) + 10)
    pair.finish()
    check(world, pair)


def test_down_kill_puts_what_ran_back_into_the_queue(world: World) -> None:
    pair = Pair(world)
    pair.running()
    ask_down(world.home, how_hard=True)
    assert not attempts_alive(world.home)
    assert job(world.home, pair.first).state is JobState.QUEUED
    ensure_controller(world.home)
    wake(world.home)
    pair.finish()
    check(world, pair, attempts=2)


def test_the_check_can_fail(world: World) -> None:
    """The twin: an attempt that was restarted is noticed by its rows, its attempts and its pid."""
    pair = Pair(world, retries={"signal": 1})
    pair.running()
    for pid in victims(world.home, "child", pair.first):
        kill(pid)
    pair.finish()
    with pytest.raises(AssertionError):
        check(world, pair, attempts=1)
    check(world, pair, attempts=2)
