"""The command line over a running controller: what a user does on a first day."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import Exit
from core.home import Home
from core.journal import Journal, query
from core.states import JobState
from tests.support import controller_pid, lab, wait_for, wait_state

SLOW = "import time\nfor i in range(600):\n    print(i, flush=True)\n    time.sleep(0.1)\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(SLOW)
    return tmp_path


def test_submit_and_wait_to_the_end(shared_home: Home, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    typed = [
        "submit",
        "command",
        "--output",
        "out.txt",
        "--wait",
        "--",
        sys.executable,
        "-c",
        "open('out.txt','w').write('x')",
    ]
    done = lab(shared_home, *typed, cwd=folder)
    job_id = done.stdout.split()[0]
    assert "✓ succeeded" in done.stdout
    assert re.search(r"^job \d+ \S.*  running on local$", done.stderr, re.M), "in a log, a number alone says nothing"
    fetched = tmp_path_factory.mktemp("fetched") / "mine"  # not in the code root: that would change the code
    lab(shared_home, "fetch", job_id, "-o", str(fetched))
    assert (fetched / "artifacts" / "out.txt").read_text() == "x"
    assert "every byte is what was committed" in lab(shared_home, "verify", job_id).stdout
    again = lab(shared_home, *typed, cwd=folder)
    assert f"{job_id}  command" in again.stdout
    assert f"nothing runs; see `lab fetch {job_id}`" in again.stdout


def test_a_failure_shows_the_last_lines_and_ends_with_1(shared_home: Home, folder: Path) -> None:
    program = "print('about to fail'); raise SystemExit(7)"
    done = lab(shared_home, "submit", "command", "--wait", "--", sys.executable, "-c", program, cwd=folder, check=False)
    assert done.returncode == Exit.JOB_FAILED
    assert "exit 7" in done.stdout
    assert "| about to fail" in done.stdout


def test_cancel_what_runs_and_follow_its_log(shared_home: Home, folder: Path) -> None:
    job_id = int(lab(shared_home, "submit", "command", "-q", "--", sys.executable, "slow.py", cwd=folder).stdout)
    wait_state(shared_home, job_id, JobState.RUNNING)
    follow = subprocess.Popen(
        [sys.executable, "-P", "-m", "lab", "--home", str(shared_home.path), "logs", str(job_id), "-f"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert follow.stdout is not None
    assert follow.stdout.readline() == "0\n"
    status = json.loads(lab(shared_home, "status", str(job_id), "--json").stdout)
    assert status["controller"] == "running"
    assert status["job"]["lane"] == "local"
    lanes = json.loads(lab(shared_home, "lanes", "--json").stdout)["lanes"]
    assert job_id in [a["job"] for a in lanes[0]["attempts"]]
    assert "cancel asked (was running on local)" in lab(shared_home, "cancel", str(job_id)).stdout
    wait_state(shared_home, job_id, JobState.CANCELLED)
    out, err = follow.communicate(timeout=30)
    assert follow.returncode == 0
    assert "ended: cancelled" in out
    assert f"-- job {job_id}: cancelled --" in err
    assert "− cancelled" in lab(shared_home, "status", str(job_id)).stdout


def test_hold_then_release(shared_home: Home, folder: Path) -> None:
    typed = ["submit", "command", "--hold", "-q", "--", sys.executable, "-c", "print('held')"]
    job_id = lab(shared_home, *typed, cwd=folder).stdout.strip()
    assert "is held" in lab(shared_home, "explain", job_id).stdout
    lab(shared_home, "release", job_id)
    wait_state(shared_home, int(job_id), JobState.SUCCEEDED)
    assert "held\n" in lab(shared_home, "logs", job_id).stdout
    assert "was up already" in lab(shared_home, "up").stdout


def reads(pid: int, home: Home) -> bool:
    """Has that process the journal open?"""
    try:
        files = [str(f.readlink()) for f in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return any(f.startswith(str(home.journal)) for f in files)


def test_an_up_that_comes_after_a_down_wins(lab_home: Home) -> None:
    """The controller does not get to what was asked before both are there."""
    lab(lab_home, "up")
    first = controller_pid(lab_home)
    os.kill(first, signal.SIGSTOP)
    try:
        down = lab(lab_home, "down", "--timeout", "0.3s", check=False)
        assert down.returncode == Exit.UNAVAILABLE
        environment = {**os.environ, "LAB_HOME": str(lab_home.path)}
        up = subprocess.Popen([sys.executable, "-P", "-m", "lab", "up", "-q"], env=environment)
        wait_for(lambda: reads(up.pid, lab_home) or up.poll() is not None, "`lab up` to look")
    finally:
        os.kill(first, signal.SIGCONT)
    assert up.wait(120) == 0
    assert controller_pid(lab_home) != first
    with Journal.open(lab_home) as journal:
        said = query.controller(journal.conn)
        assert said is not None
        assert said[1] is None
        assert query.down_wish(journal.conn) is None
