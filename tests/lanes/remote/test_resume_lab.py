"""A lane dies in the midst of a training: another one goes on from the newest checkpoint that is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.states import AttemptState, Cause, EventKind, JobState
from tests.lab_net import LabNet, require
from tests.lanes.remote.support import Head, head_of
from tests.support import wait_for, wait_state

# A kind of an outside package: counts, adds up, saves what it has every ten steps.
KIND = """
import json, time
from core.kind import Kind, Params

class ClimbParams(Params):
    steps: int = 10
    pace_s: float = 0.1

class Climb(Kind):
    name = "climb"
    summary = "adds up its steps"
    Params = ClimbParams

    def run(self, ctx):
        p = ctx.params
        ctx.expect(last_step=p.steps)
        found = ctx.load_checkpoint()
        first = found.step + 1 if found is not None else 1
        total = json.loads((found.path / "total.json").read_text()) if found is not None else 0
        ctx.log(f"begins at step {first}")
        for step in range(first, p.steps + 1):
            total += step
            ctx.metrics(step, total=total, began=first)
            if step % 10 == 0:
                with ctx.save_checkpoint(step) as folder:
                    (folder / "total.json").write_text(json.dumps(total))
            time.sleep(p.pace_s)
        ctx.artifact("total.txt").write_text(str(total))
"""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def net() -> Iterator[LabNet]:
    require()
    with LabNet() as lab:
        lab.add("mini", python="venv")
        lab.add("bat00", python="venv")
        yield lab


@pytest.fixture
def head(net: LabNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    for lane in net.lanes.values():
        lane.run("rm", "-rf", "/root/.lab-lane")
    site = tmp_path / "site"
    (site / "climb-1.dist-info").mkdir(parents=True)
    (site / "climb.py").write_text(KIND)
    (site / "climb-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: climb\nVersion: 1\n")
    (site / "climb-1.dist-info" / "entry_points.txt").write_text("[lab.kinds]\nclimb = climb:Climb\n")
    (site / "climb-1.dist-info" / "RECORD").write_text("climb.py,,\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    with head_of(tmp_path / "head", net) as found:
        found.grant()
        # Only the remote ones may train here: what dies there must not end up on this machine.
        found.declare(local={"roles": ["eval"]})
        yield found


def checkpoints(head: Head, job: int, n: int) -> list[int]:
    folder = head.home.run_dir(job, n).checkpoints
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []


def begun_at(head: Head, job: int, n: int) -> int:
    rows = head.home.run_dir(job, n).metrics.read_text().splitlines()
    return int(json.loads(rows[0])["began"])


def test_another_lane_goes_on_from_the_newest_whole_checkpoint(head: Head, net: LabNet) -> None:
    last = 150
    number = head.submit("climb", "--set", f"steps={last}", "--role", "train", "--on-unreachable", "requeue-after:3s")
    wait_for(lambda: checkpoints(head, number, 1), "a checkpoint of the first attempt on the head", deadline_s=120)
    first = head.attempts(number)[0]
    dying = net.lanes[first.lane]
    wait_for(lambda: len(checkpoints(head, number, 1)) >= 2, "two of them")
    dying.kill_init()  # the power goes
    wait_for(lambda: len(head.attempts(number)) > 1, "a second attempt")
    done = wait_state(head.home, number, JobState.SUCCEEDED, deadline_s=180)
    one, two = head.attempts(number)
    assert done.attempts == 2
    assert (one.state, one.cause) == (AttemptState.LOST, Cause.UNREACHABLE)
    assert two.lane != one.lane
    began = begun_at(head, number, 2)
    assert began == max(checkpoints(head, number, 1)) + 1
    assert began > 10
    total = head.home.run_dir(number, 2).artifacts / "total.txt"
    assert int(total.read_text()) == last * (last + 1) // 2
    assert head.steps(number, 2) == list(range(began, last + 1))

    dying.boot()  # it comes back with its disk and what it had of the old attempt
    head.wait_lane(dying.name, "up")
    assert head.attempts(number)[0].state is AttemptState.LOST
    assert len(head.events(number, EventKind.JOB_ENDED)) == 1
    gone = Path("heads") / head.home.hash / dying.name / "active" / f"{number}.1"
    wait_for(lambda: not (dying.home / ".lab-lane" / gone).exists(), "the old attempt to be forgotten there")


def test_a_torn_checkpoint_is_passed_over(head: Head, net: LabNet) -> None:
    number = head.submit("climb", "--set", "steps=120", "--role", "train", "--on-unreachable", "requeue-after:3s")
    wait_for(lambda: len(checkpoints(head, number, 1)) >= 3, "three checkpoints on the head", deadline_s=120)
    dying = net.lanes[head.attempts(number)[0].lane]
    head.lab("hold", str(number))  # it may not start again before its newest checkpoint was damaged
    dying.kill_init()
    wait_for(lambda: head.attempts(number)[0].ended, "the first attempt to be given up")
    have = checkpoints(head, number, 1)
    (head.home.run_dir(number, 1).checkpoints / str(have[-1]) / "total.json").write_text("0")
    head.lab("release", str(number))
    wait_state(head.home, number, JobState.SUCCEEDED, deadline_s=180)
    dying.boot()
    assert begun_at(head, number, 2) == have[-2] + 1
    total = head.home.run_dir(number, 2).artifacts / "total.txt"
    assert int(total.read_text()) == 120 * 121 // 2
