"""Attempts on lanes whose links drop and whose machines die: what runs goes on, and what is told is told once."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.journal import Event, Journal
from core.states import AttemptState, Cause, EventKind, JobState
from tests.lab_net import LabNet, Lane, require, require_freezer
from tests.lanes.remote.support import Head, head_of
from tests.support import controller_pid, guardian_pid, job, kill, pids, wait_for, wait_state

# A step and a line of its log every tenth of a second, up to a number, or until a file says that it is enough.
PROGRAM = r"""
import json, os, sys, time
from pathlib import Path
last, enough = int(sys.argv[1]), Path("/var/tmp") / sys.argv[2]
with open(os.environ["LAB_METRICS"], "a") as metrics:
    for step in range(last + 1):
        print(f"line {step}", flush=True)
        metrics.write(json.dumps({"step": step, "pid": os.getpid()}) + "\n")
        metrics.flush()
        if enough.exists():
            break
        time.sleep(0.1)
Path("result.txt").write_text(f"reached {step}\n")
"""
FOREVER = 1_000_000

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabNet]:
    require()
    with LabNet() as lab:
        lab.add("mini", python="venv")
        lab.add("bat00", python="venv")
        lab.add("laptop", python="venv", clock=shutil.which("cc") is not None)
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


def submit(head: Head, steps: int, *options: str, lane: str = "mini") -> int:
    """`steps`, or FOREVER: until `finish`."""
    expect = [] if steps == FOREVER else ["--expect-step", str(steps)]
    return head.submit(
        "command", "--lane", lane, "--output", "result.txt", *expect, "--allow-read", "/var/tmp/*", *options,
        "--", "python3", "program.py", str(steps), f"enough-{head.home.hash}",
    )  # fmt: skip


def finish(head: Head, number: int, lane: Lane) -> int:
    """Have the program end, wait for its job, and return the last step that it says it reached."""
    lane.run("touch", f"/var/tmp/enough-{head.home.hash}")
    wait_state(head.home, number, JobState.SUCCEEDED, deadline_s=120)
    out = head.folder / f"out-{number}"
    head.lab("fetch", str(number), "-o", str(out))
    return int(next(out.rglob("result.txt")).read_text().split()[1])


def wrong_with(steps: list[int], last: int) -> str:
    """Empty when every step is there once and in order."""
    return "" if steps == list(range(last + 1)) else f"steps are {steps[:3]}..{steps[-3:]}, {len(steps)} of {last + 1}"


def lines_of(head: Head, number: int) -> list[int]:
    text = head.lab("logs", str(number)).stdout
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("line ")]


def reach(head: Head, number: int, step: int, n: int = 1) -> None:
    wait_for(lambda: (head.steps(number, n) or [-1])[-1] >= step, f"step {step} of job {number} to be here")


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
    there = json.loads(head.lab("status", "--json").stdout)
    assert there["jobs"][0]["state"] == "running", "the state of a link is not the state of a job"
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


def test_a_lane_that_was_taken_down_comes_back_only_by_a_climb(head: Head, net: LabNet) -> None:
    mini = net.lanes["mini"]
    number = submit(head, FOREVER)
    reach(head, number, 3)
    head.lab("lane", "down", "mini", "--reason", "moving house")
    mini.refuse()
    begun = time.monotonic()
    done = head.lab("lane", "admit", "mini", check=False)
    assert done.returncode == 1
    assert "reachable did not hold" in done.stdout
    assert "refused" in done.stdout
    assert time.monotonic() - begun < 25, "what the network is sure of is said at once"
    mini.refuse(False)

    def holds() -> bool:
        lane = next(x for x in head.json("lanes")["lanes"] if x["name"] == "mini")
        return bool(next(r for r in lane["ladder"] if r["rung"] == "reachable")["ok"])

    wait_for(holds, "the link to be back, which makes what was found before old")
    assert head.lane("mini").state == "down"
    assert head.lab("lane", "probe", "mini").returncode == 0
    assert (head.lane("mini").state, head.lane("mini").reason) == ("down", "moving house")
    assert job(head.home, number).state is JobState.QUEUED
    head.lab("cancel", str(number))


def test_what_people_say_of_a_lane_is_taken_up_while_it_works(head: Head, net: LabNet) -> None:
    number = submit(head, FOREVER)
    reach(head, number, 3)
    seen = head.lane("mini")
    head.declare(mini={"about": "in the corner", "admission": {"outlive_s": 3}})
    assert head.lab("lane", "probe", "mini").returncode == 0
    assert seen.state == head.lane("mini").state == "up"
    with Journal.open(head.home) as journal:
        said = [
            json.loads(r[0])["state"]
            for r in journal.conn.execute("SELECT data FROM event WHERE kind = 'lane' AND lane = 'mini' ORDER BY seq")
        ]
    assert "unreachable" not in said[said.index("up") :], "its link was never touched"
    finish(head, number, net.lanes["mini"])


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


def test_nothing_secret_is_readable_by_others_on_the_lane(head: Head, net: LabNet) -> None:
    number = submit(head, 3)
    wait_state(head.home, number, JobState.SUCCEEDED)
    root: Path = net.lanes["mini"].home / ".lab-lane"
    assert root.stat().st_mode & 0o777 == 0o700
    assert os.stat(head.home.known_hosts).st_mode & 0o777 == 0o600
    for found in [p for p in (root, *root.rglob("*")) if p.is_file() and p.name in ("owner.json", "agent.lock")]:
        assert found.stat().st_mode & 0o077 == 0, found


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
