"""Lanes that have nothing but sshd and a Python: provisioned without a network, then used."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.fsio import read_json
from core.states import JobState
from tests.lab_net import LabNet, other_minor, require
from tests.lanes.environment.bases import bare_python, other_python
from tests.lanes.remote.support import Head, head_of
from tests.support import wait_state

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

# What kind `kernel` needs for its numpy backend; torch and the like would only be large.
LOCK = ("annotated-types", "llvmlite", "numba", "numpy", "pyarrow", "pydantic", "pydantic-core", "typing-extensions",
        "typing-inspection")  # fmt: skip
# Too large for a warm worker: an attempt of its own.
KERNEL = ("--lane", "bare", "--set", "backend=numpy", "--set", "height=1024", "--set", "width=1024")
PURE = ("annotated-types", "typing-extensions")
# The head asks nobody either.
OFFLINE = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": ""}


def lock(folder: Path, names: tuple[str, ...]) -> str:
    path = folder / f"{names[-1]}.txt"
    path.write_text("".join(f"{name}=={importlib.metadata.version(name)}\n" for name in names))
    return str(path)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabNet]:
    require()
    bare = tmp_path_factory.mktemp("bare")
    python = bare_python(bare / "python")
    with LabNet() as lab:
        lab.add("bare", python=python, sees=(bare, Path(sys.base_prefix)))
        other = other_minor()
        if other is not None:
            lab.add("other", python=other)
        yield lab


@pytest.fixture
def head(net: LabNet, tmp_path: Path) -> Iterator[Head]:
    for lane in net.lanes.values():
        lane.run("rm", "-rf", "/root/.lab-lane")
    bare = {"environment": {"base": net.lanes["bare"].python}}
    with head_of(tmp_path / "head", net, local={}, bare=bare) as found:
        found.grant()
        yield found


@pytest.mark.long
def test_a_lane_with_nothing_is_provisioned_offline_and_works(head: Head, net: LabNet, tmp_path: Path) -> None:
    lane = net.lanes["bare"]
    for module in ("venv", "ensurepip", "pip"):
        assert lane.run(str(lane.python), "-c", f"import {module}", check=False).returncode != 0
    path = lock(tmp_path, LOCK)

    def provision(*more: str) -> dict[str, object]:
        done = head.lab("lane", "provision", "bare", "--lock", path, "--json", *more, env=OFFLINE, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    plan = provision("--plan")
    assert plan["schema"] == "lab.lane-provision/1"
    assert plan["to_send"]["count"] == len(LOCK) + 1  # type: ignore[index]
    assert not (lane.home / ".lab-lane/env").exists()
    made = provision()
    assert made["made"]
    python = str(made["python"])
    assert python.startswith("/root/.lab-lane/env/")

    # Nothing is sent or made twice.
    again = provision()
    assert again["there"]
    assert again["to_send"] == {"count": 0, "bytes": 0}

    words = ["--lane", "bare", "--code", "none"]
    program = head.submit("command", *words, "--", "sh", "-c", "hostname; test -d /root/.lab-lane")
    kernel = head.submit("kernel", *KERNEL)
    for number in (program, kernel):
        wait_state(head.home, number, JobState.SUCCEEDED, deadline_s=180)
    attempt = head.attempts(kernel)[-1]
    env = read_json(head.home.run_dir(kernel, attempt.n).env)
    assert env["prefix"] == str(Path(python).parent.parent)
    assert env["hostname"] == "bare"
    assert env["packages"]["numpy"] == importlib.metadata.version("numpy")
    assert env["packages"]["torch"] is None
    assert (head.home.run_dir(program, 1).log).read_text().startswith("bare")


@pytest.mark.long
def test_without_provisioning_the_same_kernel_job_fails_and_says_why(head: Head) -> None:
    """The negative: the interpreter itself has none of it."""
    kernel = head.submit("kernel", *KERNEL)
    done = wait_state(head.home, kernel, JobState.FAILED, deadline_s=180)
    assert "pydantic" in (done.reason or "")


@pytest.mark.long
def test_a_lane_with_another_minor_works_over_ssh(head: Head, net: LabNet, tmp_path: Path) -> None:
    if "other" not in net.lanes:
        pytest.skip("there is no Python of another minor version on this machine")
    lane = net.lanes["other"]
    about = lane.run(str(lane.python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout.strip()
    assert about != "{}.{}".format(*sys.version_info[:2])
    # The agent runs there as it is, and a program of the lane's own needs no more than that.
    program = head.submit("command", "--lane", "other", "--code", "none", "--", str(lane.python), "-V")
    if tuple(map(int, about.split("."))) >= (3, 11):
        wait_state(head.home, program, JobState.SUCCEEDED, deadline_s=180)
        assert f"Python {about}" in head.home.run_dir(program, 1).log.read_text()
        return
    # Too old for kinds: an environment is made from another interpreter, or it is said that there is none.
    done = wait_state(head.home, program, JobState.SUCCEEDED, JobState.FAILED, deadline_s=180)
    assert done.state is JobState.FAILED
    refused = head.lab("lane", "provision", "other", "--lock", lock(tmp_path, PURE), check=False, env=OFFLINE)
    text = refused.stdout + refused.stderr
    assert refused.returncode in (0, 1), text
    if refused.returncode == 1:
        assert "kinds need 3.11 or newer" in text


@pytest.mark.long
def test_an_environment_of_another_minor(net: LabNet, tmp_path: Path) -> None:
    """Pure wheels go everywhere; what is compiled for another minor is refused by name."""
    other = other_python("3.12" if sys.version_info[:2] == (3, 11) else "3.11")
    if "twelve" not in net.lanes:
        net.add("twelve", python=other)
    with head_of(tmp_path / "head", net, local={}, twelve={"environment": {"base": other}}) as head:
        head.grant()
        done = head.lab("lane", "provision", "twelve", "--lock", lock(tmp_path, LOCK), check=False, env=OFFLINE)
        assert done.returncode == 1
        assert "there is no wheel of llvmlite" in done.stdout
        head.lab("lane", "provision", "twelve", "--lock", lock(tmp_path, PURE), env=OFFLINE)
        code = "import sys; print('minor', sys.version_info[1], sys.prefix != sys.base_prefix)"
        found = read_json(head.home.lane_root("twelve") / "environment.json")
        program = head.submit("command", "--lane", "twelve", "--code", "none", "--", found["python"], "-c", code)
        wait_state(head.home, program, JobState.SUCCEEDED, deadline_s=180)
        minor = 12 if sys.version_info[:2] == (3, 11) else 11
        assert f"minor {minor} True" in head.home.run_dir(program, 1).log.read_text()
        env = read_json(head.home.run_dir(program, 1).env)
        assert env["executable"] == found["python"]
