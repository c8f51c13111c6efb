"""Attempts on lanes whose links drop and whose machines die, under one head that lives through all of it: what runs
goes on, and what is told is told once."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.journal import Event, Journal, query
from core.states import AttemptState, Cause, EventKind, JobState
from tests.lab_net import LabNet, require, require_freezer
from tests.lanes.remote.stepping import FOREVER, PROGRAM, finish, lines_of, reach, submit, wrong_with
from tests.lanes.remote.support import Head, head_of
from tests.support import controller_pid, guardian_pid, job, kill, pids, wait_for, wait_state

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def net() -> Iterator[LabNet]:
    require()
    with LabNet() as lab:
        lab.add("mini", python="venv")
        lab.add("laptop", python="venv", clock=shutil.which("cc") is not None)
        lab.add("attic", python="venv")
        yield lab


@pytest.fixture(scope="module")
def living(net: LabNet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("weather") / "head"
    folder.mkdir()
    (folder / "program.py").write_text(PROGRAM)
    with head_of(folder, net, local={}) as found:
        found.grant()
        found.lab("up")
        for name in net.lanes:
            found.wait_lane(name, "up", deadline_s=180.0)
        yield found


@pytest.fixture
def head(living: Head) -> Iterator[Head]:
    """The same for all; a test that failed leaves no job that fills a lane."""
    yield living
    with Journal.open(living.home) as journal:
        left = [row.id for row in query.jobs(journal.conn) if not row.state.terminal]
    if left:
        living.say(*(Event(EventKind.CANCEL_ASKED, job=number) for number in left))


def test_the_checker_sees_a_gap_a_double_and_a_short_run() -> None:
    assert wrong_with([0, 1, 2], 2) == ""
    assert wrong_with([0, 2], 2)
    assert wrong_with([0, 1, 1, 2], 2)
    assert wrong_with([0, 1], 2)


def test_a_job_outlives_every_way_in_which_a_link_can_go(head: Head, net: LabNet) -> None:
    mini = net.lanes["mini"]
    number = submit(head, FOREVER)
    reach(head, number, 5)
    pid = head.attempts(number)[0].pid

    mini.cut()  # packets are lost, sockets stay
    head.wait_lane("mini", "unreachable")
    there = {shown["id"]: shown["state"] for shown in head.json("status")["jobs"]}
    assert there[number] == "running", "the state of a link is not the state of a job"
    shown = head.lab("lanes").stdout
    assert "unreachable" in shown
    seen = (head.steps(number, 1) or [0])[-1]
    mini.mend()
    head.wait_lane("mini", "up")
    reach(head, number, seen + 10)

    assert mini.reset() >= 1  # connections are reset
    seen = head.steps(number, 1)[-1]
    reach(head, number, seen + 10)

    mini.stall()  # connections stay and are acknowledged, nothing comes
    head.wait_lane("mini", "unreachable")
    mini.unstall()
    head.wait_lane("mini", "up")

    mini.cut("from")  # one way only
    head.wait_lane("mini", "unreachable")
    mini.mend()

    last = finish(head, number, mini)
    assert job(head.home, number).attempts == 1
    assert wrong_with(head.steps(number, 1), last) == ""
    assert wrong_with(lines_of(head, number), last) == ""
    assert head.attempts(number)[0].pid == pid
    assert [e.kind for e in head.events(number, EventKind.PLACED, EventKind.ATTEMPT_ENDED)] == [
        EventKind.PLACED,
        EventKind.ATTEMPT_ENDED,
    ]
    assert "every byte is what was committed" in head.lab("verify").stdout


def test_a_reboot_is_told_by_the_boot_id(head: Head, net: LabNet) -> None:
    mini = net.lanes["mini"]
    number = submit(head, 100)
    reach(head, number, 10)
    mini.reboot()
    done = wait_state(head.home, number, JobState.SUCCEEDED, deadline_s=180)
    first, second = head.attempts(number)
    assert (first.state, first.cause) == (AttemptState.LOST, Cause.LANE_REBOOTED)
    assert second.boot == mini.boot_id != first.boot
    assert done.attempts == 2
    assert wrong_with(head.steps(number, 2), 100) == ""


def test_a_runner_that_is_killed_on_the_lane_is_noticed(head: Head, net: LabNet) -> None:
    mini = net.lanes["mini"]
    number = submit(head, 100)
    reach(head, number, 5)
    pid = head.attempts(number)[0].pid
    supervisors = [p for p, text in mini.pids().items() if "lanes.agent.runner" in text]
    assert pid
    assert supervisors
    for supervisor in supervisors:
        kill(supervisor)
    done = wait_state(head.home, number, JobState.SUCCEEDED, deadline_s=180)
    first, _second = head.attempts(number)
    assert (first.state, first.cause) == (AttemptState.LOST, Cause.RUNNER_DIED)
    assert done.attempts == 2


def test_a_laptop_that_sleeps_loses_nothing(head: Head, net: LabNet) -> None:
    require_freezer()
    mini = net.lanes["mini"]
    number = submit(head, 80)
    reach(head, number, 5)
    mini.freeze()
    head.wait_lane("mini", "unreachable")
    seen = head.steps(number, 1)[-1]
    time.sleep(2.0)  # asleep for a while: that is the point, nothing is waited for
    assert head.steps(number, 1)[-1] == seen
    mini.thaw()
    done = wait_state(head.home, number, JobState.SUCCEEDED, deadline_s=120)
    assert done.attempts == 1
    assert wrong_with(head.steps(number, 1), 80) == ""


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_that_jumps_loses_nothing(head: Head, net: LabNet, seconds: int) -> None:
    if shutil.which("cc") is None:
        pytest.skip("the movable clock is compiled, and there is no `cc`")
    laptop = net.lanes["laptop"]
    number = submit(head, FOREVER, "--time-limit", "10m", "--on-unreachable", "requeue-after:10m", lane="laptop")
    reach(head, number, 5)
    before = int(laptop.run("date", "+%s").stdout)
    laptop.clock_jump(seconds)
    moved = int(laptop.run("date", "+%s").stdout) - before
    assert abs(moved - seconds) < 60, "the clock must really move, or this shows nothing"
    seen = head.steps(number, 1)[-1]
    reach(head, number, seen + 20)
    assert head.lane("laptop").state == "up"
    last = finish(head, number, laptop)
    laptop.clock_jump(0)
    assert job(head.home, number).attempts == 1
    assert wrong_with(head.steps(number, 1), last) == ""


def test_nothing_secret_is_readable_by_others_on_the_lane(head: Head, net: LabNet) -> None:
    number = submit(head, 3)
    wait_state(head.home, number, JobState.SUCCEEDED)
    root: Path = net.lanes["mini"].home / ".lab-lane"
    assert root.stat().st_mode & 0o777 == 0o700
    assert os.stat(head.home.known_hosts).st_mode & 0o777 == 0o600
    for found in [p for p in (root, *root.rglob("*")) if p.is_file() and p.name in ("owner.json", "agent.lock")]:
        assert found.stat().st_mode & 0o077 == 0, found


def test_a_head_that_is_killed_while_the_link_is_down_finds_its_attempt_again(head: Head, net: LabNet) -> None:
    mini = net.lanes["mini"]
    number = submit(head, FOREVER)
    reach(head, number, 5)
    mini.cut()
    head.wait_lane("mini", "unreachable")
    guardian, controller = guardian_pid(head.home), controller_pid(head.home)
    kill(guardian)
    kill(controller)
    wait_for(lambda: not pids(head.home, "lanes.controller"), "the controller to be dead")
    head.lab("up")
    assert controller_pid(head.home) != controller
    assert job(head.home, number).state is JobState.RUNNING
    mini.mend()
    last = finish(head, number, mini)
    assert job(head.home, number).attempts == 1
    assert wrong_with(head.steps(number, 1), last) == ""
    assert wrong_with(lines_of(head, number), last) == ""


def test_what_people_say_of_a_lane_is_taken_up_while_it_works(head: Head, net: LabNet) -> None:
    number = submit(head, FOREVER, lane="attic")
    reach(head, number, 3)
    seen = head.lane("attic")
    with Journal.open(head.home) as journal:
        (before,) = journal.conn.execute("SELECT max(seq) FROM event").fetchone()
    head.declare(attic={"about": "in the corner", "admission": {"outlive_s": 3}})
    assert head.lab("lane", "probe", "attic").returncode == 0
    assert seen.state == head.lane("attic").state == "up"
    with Journal.open(head.home) as journal:
        rows = journal.conn.execute(
            "SELECT data FROM event WHERE kind = 'lane' AND lane = 'attic' AND seq > ?", (before,)
        )
        said = [json.loads(r[0])["state"] for r in rows]
    assert "unreachable" not in said, "its link was never touched"
    finish(head, number, net.lanes["attic"])


def test_a_lane_that_was_taken_down_comes_back_only_by_a_climb(head: Head, net: LabNet) -> None:
    laptop = net.lanes["laptop"]
    number = submit(head, FOREVER, lane="laptop")
    reach(head, number, 3)
    head.lab("lane", "down", "laptop", "--reason", "moving house")
    laptop.refuse()
    begun = time.monotonic()
    done = head.lab("lane", "admit", "laptop", check=False)
    assert done.returncode == 1
    assert "reachable did not hold" in done.stdout
    assert "refused" in done.stdout
    assert time.monotonic() - begun < 25, "what the network is sure of is said at once"
    laptop.refuse(False)

    def holds() -> bool:
        lane = next(x for x in head.json("lanes")["lanes"] if x["name"] == "laptop")
        return bool(next(r for r in lane["ladder"] if r["rung"] == "reachable")["ok"])

    wait_for(holds, "the link to be back, which makes what was found before old")
    assert head.lane("laptop").state == "down"
    assert head.lab("lane", "probe", "laptop").returncode == 0
    assert (head.lane("laptop").state, head.lane("laptop").reason) == ("down", "moving house")
    assert job(head.home, number).state is JobState.QUEUED
    head.lab("cancel", str(number))
