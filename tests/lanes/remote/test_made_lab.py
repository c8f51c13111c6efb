"""A study over ssh: what one job made on a lane comes back, and goes as an input to the job that takes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.states import Cause, JobState
from core.study import Study
from lab.api import Lab
from tests.lab_net import LabNet, require
from tests.lanes.remote.support import Head, head_of
from tests.support import wait_state

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabNet]:
    require()
    with LabNet() as lab:
        lab.add("mini", python="venv")
        yield lab


@pytest.fixture
def head(net: LabNet, tmp_path: Path) -> Iterator[Head]:
    (tmp_path / "head").mkdir()
    with head_of(tmp_path / "head", net, local={}) as found:
        found.grant()
        yield found


def test_files_of_a_job_go_to_the_lane_of_the_one_that_takes_them(head: Head, tmp_path: Path) -> None:
    def bash(program: str) -> dict[str, list[str]]:
        return {"argv": ["/bin/bash", "-c", program]}

    s = Study("far")
    made = "mkdir $LAB_ARTIFACTS/d; head -c 3000000 /dev/zero > $LAB_ARTIFACTS/d/zeros; echo 7 > $LAB_ARTIFACTS/y"
    data = s.job("command", bash(made), name="data")
    bad = s.job("command", bash("exit 3"), name="bad")
    took = "cat y; wc -c < all/d/zeros; test ! -e $LAB_INPUTS/bad"
    s.job("command", bash(took), takes={"y": (data, "y"), "all": data, "bad": s.any(bad)}, name="end")
    lab = Lab(head.home)
    first = lab.submit_study(s, cwd=tmp_path, code="none", needs={"cores": 1, "lane": "mini"})
    done = wait_state(head.home, first[2].id, JobState.SUCCEEDED, deadline_s=240)
    assert done.lane == "mini"
    assert "7\n3000000" in lab.job(done.id).logs()
    sealed = json.loads(head.home.run_dir(done.id, 1).spec.read_text())
    assert [i["made"]["job"] for i in sealed["inputs"]] == [first[0].id, first[0].id]
    assert [i["name"] for i in sealed["absent"]] == ["bad"]
    # A byte of it is another one now, here at the head, and the lane has kept nothing of it: it is not sent.
    s = Study("farther")
    more = s.job("command", bash(made + "; echo more > $LAB_ARTIFACTS/z"), name="data")
    s.job("command", bash("cat z"), takes={"z": (more, "z")}, name="end")
    second = lab.submit_study(s, cwd=tmp_path, code="none", needs={"cores": 1, "lane": "mini"}, held=True)
    second[0].release()
    wait_state(head.home, second[0].id, JobState.SUCCEEDED, deadline_s=240)
    hurt = head.home.run_dir(second[0].id, 1).artifacts / "z"
    hurt.write_text("less\n")
    second[1].release()
    stale = wait_state(head.home, second[1].id, JobState.FAILED, deadline_s=240)
    assert stale.cause == Cause.STALE_INPUT
    assert f"since job {second[0].id} made it" in str(stale.reason)
