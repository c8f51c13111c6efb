"""Attempts on lanes whose links drop and whose machines die: what runs goes on, and what is told is told once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.journal import Event
from core.states import AttemptState, Cause, EventKind, JobState
from tests.lab_net import LabNet, require
from tests.lanes.remote.stepping import FOREVER, PROGRAM, finish, lines_of, reach, submit, wrong_with
from tests.lanes.remote.support import Head, head_of
from tests.support import job, kill, wait_for, wait_state

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabNet]:
    require()
    with LabNet() as lab:
        lab.add("mini", python="venv")
        lab.add("bat00", python="venv")
        yield lab


@pytest.fixture
def head(net: LabNet, tmp_path: Path) -> Iterator[Head]:
    for lane in net.lanes.values():
        lane.run("rm", "-rf", "/root/.lab-lane")
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "program.py").write_text(PROGRAM)
    with head_of(tmp_path / "head", net, local={}) as found:
        found.grant()
        yield found


def test_a_job_may_say_how_long_it_waits_and_the_zombie_is_refused(head: Head, net: LabNet) -> None:
    number = head.submit(
        "command", "--on-unreachable", "requeue-after:4s", "--output", "result.txt", "--expect-step", "150",
        "--role", "train", "--", "python3", "program.py", "150", "nothing",
    )  # fmt: skip
    wait_for(lambda: head.attempts(number) and head.attempts(number)[0].started, "it to start")
    first = head.attempts(number)[0]
    lane = net.lanes.get(first.lane)
    if lane is None:  # this machine took it
        pytest.skip("the job went to the local lane")
    lane.cut()
    wait_for(lambda: len(head.attempts(number)) > 1, "a second attempt")
    lost = head.attempts(number)[0]
    assert (lost.state, lost.cause) == (AttemptState.LOST, Cause.UNREACHABLE)
    done = wait_state(head.home, number, JobState.SUCCEEDED, deadline_s=120)
    assert done.attempts == 2
    assert head.attempts(number)[1].lane != first.lane
    running = [p for p, text in lane.pids().items() if "program.py" in text]
    lane.mend()
    head.wait_lane(lane.name, "up")
    wait_for(lambda: not set(running) & set(lane.pids()), "the zombie to be ended")
    assert head.attempts(number)[0].state is AttemptState.LOST
    assert len(head.events(number, EventKind.JOB_ENDED)) == 1


def test_an_interpreter_below_the_lane_users_home(head: Head, net: LabNet) -> None:
    """`~` is the lane's, and nobody's here."""
    mini = net.lanes["mini"]
    mini.run("mkdir", "-p", "/root/tools")
    mini.run("ln", "-sfn", str(Path(str(mini.python)).parent.parent), "/root/tools/venv")
    head.declare(mini={"python": "~/tools/venv/bin/python"})
    number = submit(head, 2)
    wait_state(head.home, number, JobState.SUCCEEDED)


def test_two_heads_do_not_share_a_lane(head: Head, net: LabNet, tmp_path: Path) -> None:
    number = submit(head, FOREVER)
    reach(head, number, 3)
    with head_of(tmp_path / "other", net) as other:
        (tmp_path / "other" / "program.py").write_text(PROGRAM)
        other.grant()
        mine = other.submit("command", "--lane", "mini", "--", "true")
        wait_for(lambda: "belongs to" in other.lane("mini").reason, "the lane to say whose it is")
        assert job(other.home, mine).state is JobState.QUEUED
        reach(head, number, head.steps(number, 1)[-1] + 20)
        assert head.lane("mini").state == "up"
        head.lab("cancel", str(number))
        wait_state(head.home, number, JobState.CANCELLED)
        head.lab("lane", "down", "mini", "--reason", "the others want it")
        other.say(Event(EventKind.LANE_ASKED, lane="mini", data={"what": "trusted"}))
        wait_state(other.home, mine, JobState.SUCCEEDED)


@pytest.mark.long
@pytest.mark.parametrize("way", ["both", "to", "from"])
def test_a_link_that_is_gone_for_minutes(head: Head, net: LabNet, way: str) -> None:
    mini = net.lanes["mini"]
    number = submit(head, FOREVER)
    reach(head, number, 5)
    mini.cut(way)
    head.wait_lane("mini", "unreachable")
    time.sleep(180)  # longer than any limit of ours, or of TCP's that matters here
    shown = head.json("status")["jobs"][0]
    assert shown["state"] == "running"
    mini.mend()
    last = finish(head, number, mini)
    assert last > 1500
    assert job(head.home, number).attempts == 1
    assert wrong_with(head.steps(number, 1), last) == ""
    assert wrong_with(lines_of(head, number), last) == ""


def test_a_password_is_used_and_kept_nowhere(
    head: Head, net: LabNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "open-sesame-4711"
    net.add("locked", python="venv", password=secret, keys=False)
    monkeypatch.setenv("LOCKED_PASSWORD", secret)
    other = {"identity": None, "password_env": "LOCKED_PASSWORD"}
    with head_of(tmp_path / "second", net, locked=other) as here:
        here.grant("locked")
        number = here.submit("command", "--lane", "locked", "--", "sh", "-c", "env; true")
        wait_state(here.home, number, JobState.SUCCEEDED)
        # A wrong one is refused, and the refusal does not quote it either.
        monkeypatch.setenv("LOCKED_PASSWORD", "wrong-" + secret)
        here.lab("down")
        here.lab("up")
        told = wait_for(
            lambda: said if "password" in (said := here.lane("locked").reason) else "",
            "the lane to say what is refused",
        )
        assert here.lane("locked").state == "unreachable"
        shown = here.lab("lanes", "-v").stdout + here.lab("logs", str(number)).stdout + told
        assert secret not in shown
        places = [here.folder, here.home.runtime, net.lanes["locked"].home]
        files = [p for place in places for p in place.rglob("*") if p.is_file() and not p.is_symlink()]
        assert len(files) > 20
        assert [p for p in files if secret.encode() in p.read_bytes()] == []


def test_a_lane_that_is_given_up_loses_what_runs_there(head: Head, net: LabNet) -> None:
    number = submit(head, FOREVER)
    reach(head, number, 3)
    running = [p for p, text in net.lanes["mini"].pids().items() if "program.py" in text]
    assert running
    answer = head.lab("lane", "down", "mini", "--reason", "it smells of smoke").stdout
    assert "mini" in answer
    wait_for(lambda: not set(running) & set(net.lanes["mini"].pids()), "it to be ended there")
    lost = wait_for(lambda: head.attempts(number)[0] if head.attempts(number)[0].ended else None, "its end")
    assert (lost.state, lost.cause) == (AttemptState.LOST, Cause.UNREACHABLE)
    assert head.lane("mini").state == "down"
    assert job(head.home, number).state is JobState.QUEUED, "it may run on mini only, and mini is down"
    owner = net.lanes["mini"].home / ".lab-lane" / "owner.json"
    wait_for(lambda: json.loads(owner.read_text())["home"] == "", "the lane to be nobody's")
    assert "it smells of smoke" in head.lab("lanes").stdout
    time.sleep(3.0)  # whoever would take it again after all does so at the next word
    assert json.loads(owner.read_text())["home"] == ""


def test_a_lane_that_kills_what_runs_in_the_background_is_quarantined(head: Head, net: LabNet) -> None:
    mini = net.lanes["mini"]
    number = submit(head, FOREVER, "--retries", "runner-died=9")
    for n in (1, 2, 3):
        reach(head, number, 2, n)
        for pid, text in mini.pids().items():
            if "lanes.agent.runner" in text:
                kill(pid)
        wait_for(lambda n=n: head.attempts(number)[n - 1].ended, f"attempt {n} to be noticed as gone")  # type: ignore[misc]
    row = head.wait_lane("mini", "quarantined")
    assert "kills background processes" in row.reason
    assert job(head.home, number).state is JobState.QUEUED, "nothing is placed there any more"
    assert "quarantined" in head.lab("explain", str(number)).stdout
