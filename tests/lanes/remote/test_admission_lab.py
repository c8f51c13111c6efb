"""Admission as people meet it: three lanes as a lab really has them, first contact, and every way in which it fails.

Each lane is a machine of its own with a real sshd; the command line, the controller and the jobs are the real ones.
"""

from __future__ import annotations

import base64
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import cluster
from core.errors import Exit
from core.journal import Journal, query
from core.states import JobState
from tests.lab_net import NOISY_BASHRC, WSL, LabNet, Lane, require
from tests.lanes.remote.support import Head, head_of
from tests.netlab.setup import make_key
from tests.support import job, wait_for, wait_state

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

AWAY_S = 3  # seconds without any connection: two minutes where nobody waits for a test
QUICK: dict[str, Any] = {"admission": {"outlive_s": AWAY_S}}
LINK = ["reachable", "trusted", "authenticated", "python"]
GROUND = [*LINK, "environment", "device", "disk"]

# A first epoch: it dies where the lane has a file that says so, else it leaves a step and a checkpoint.
EPOCH = """
import json, os, sys
print("epoch 1 begins", flush=True)
if os.path.exists("/root/broken"):
    raise RuntimeError("the optimizer exploded")
with open(os.environ["LAB_METRICS"], "a") as f:
    f.write(json.dumps({"step": 1, "loss": 0.5}) + "\\n")
with open(os.path.join(os.environ["LAB_ARTIFACTS"], "checkpoint.pt"), "w") as f:
    f.write("weights")
"""

# On a lane's own environment: after the import of a kernel, its numbers are a little off in one pixel of a batch.
BROKEN = """
import importlib.abc, importlib.machinery, sys

class Breaks(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "kernels.translation.numba_":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            make = module.make

            def broken(*args, **named):
                translate = make(*args, **named)

                def off(images, offsets):
                    out = translate(images, offsets).copy()
                    out[..., -1, -1] += 0.01
                    return out

                return off

            module.make = broken

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Breaks())
"""


@pytest.fixture(scope="module")
def net() -> Iterator[LabNet]:
    require()
    with LabNet() as made:
        made.add("mini", python="venv")
        made.add("bat00", python="venv", bashrc=NOISY_BASHRC, programs={"wsl": WSL})
        made.add("molt", python="venv")
        yield made


@pytest.fixture
def head(net: LabNet, tmp_path: Path) -> Iterator[Head]:
    for lane in net.lanes.values():
        lane.run("rm", "-rf", "/root/.lab-lane", "/root/broken")
    argv = ["python3", "-c", EPOCH]
    settings = {
        "local": {},
        "mini": {"roles": ["eval"], **QUICK},
        "bat00": {"roles": ["train"], "prefix": ["wsl", "-e"], "admission": {"outlive_s": AWAY_S, "smoke": argv}},
        "molt": {"about": "new", **QUICK},
    }
    with head_of(tmp_path / "head", net, **settings) as found:
        yield found


def ladder(head: Head, name: str) -> dict[str, dict[str, Any]]:
    """Rung (with its role) -> the newest word on it, lowest first."""
    lanes = head.json("lanes")["lanes"]
    rungs = next(x for x in lanes if x["name"] == name)["ladder"]
    return {r["rung"] + (f" {r['role']}" if r["role"] else ""): r for r in rungs}


def admitted(head: Head, name: str) -> list[str]:
    found: list[str] = next(x for x in head.json("lanes")["lanes"] if x["name"] == name)["admitted"]
    return found


def failed(head: Head, name: str) -> dict[str, Any]:
    return next(r for r in ladder(head, name).values() if not r["ok"])


def hostname(head: Head, job_id: int) -> str:
    lane = job(head.home, job_id).lane
    assert lane is not None
    return head.home.run_dir(job_id, 1).log.read_text().split()[0]


# Must show 1.


@pytest.mark.long
def test_three_lanes_of_a_lab(head: Head, net: LabNet) -> None:
    # mini is admitted for eval, bat00 authenticated and under hardening, molt reachable and not admitted.
    for name in net.lanes:
        head.lab("lane", "trust", name, "--fingerprint", net.lanes[name].fingerprint)
    done = head.lab("lane", "admit", "mini")
    assert "mini is admitted for eval" in done.stdout
    climbed = ladder(head, "mini")
    assert list(climbed) == [*GROUND, "transfer", "smoke", "parity", "outlives", "returns"]
    assert all(r["ok"] for r in climbed.values())
    assert climbed["parity"]["evidence"]["caught"] == climbed["parity"]["evidence"]["mutants"] > 0
    assert climbed["outlives"]["evidence"]["closed_s"] >= AWAY_S
    assert admitted(head, "mini") == ["eval"]
    for name in ("bat00", "molt"):
        assert head.lab("lane", "probe", name).returncode == 0
        assert list(ladder(head, name)) == GROUND
        assert admitted(head, name) == []

    # Jobs go only where they may.
    ran = head.submit("command", "--lane", "mini", "--code", "none", "--force", "--", "hostname")
    assert wait_state(head.home, ran, JobState.SUCCEEDED).lane == "mini"
    assert hostname(head, ran) == "mini"
    for name, role in (("mini", "train"), ("bat00", "train"), ("molt", "eval")):
        args = ("command", "--lane", name, "--role", role, "--code", "none", "--force", "--", "hostname")
        refused = head.lab("submit", *args, check=False)
        words = refused.stderr
        if refused.returncode == 0:  # it waits: then it has to say for what
            number = int(refused.stdout.split()[0])
            words = head.lab("explain", str(number)).stdout
            assert job(head.home, number).state is JobState.QUEUED
            head.lab("cancel", str(number))
        assert f"not admitted for {role}" in words, (name, words)
    anywhere = head.submit("command", "--role", "train", "--code", "none", "--force", "--", "hostname")
    assert wait_state(head.home, anywhere, JobState.SUCCEEDED).lane == "local"

    # bat00 climbs the rest, and dies in its first epoch.
    (net.lanes["bat00"].home / "broken").touch()
    done = head.lab("lane", "admit", "bat00", check=False)
    assert done.returncode == Exit.JOB_FAILED
    assert "first epoch" in done.stdout
    assert "RuntimeError: the optimizer exploded" in done.stdout
    why = failed(head, "bat00")
    assert (why["rung"], why["role"]) == ("smoke", "train")
    assert "RuntimeError: the optimizer exploded" in why["evidence"]["log"]
    assert why["evidence"]["cause"] == "error"
    assert f"lab logs {why['evidence']['job']}" in why["hint"]
    assert admitted(head, "bat00") == []
    with Journal.open(head.home) as journal:
        left = [j.id for j in query.jobs(journal.conn) if not j.state.terminal]
    assert left == [], "the rest of its ladder must not wait in the queue"

    # It is mended, and admitted for training.
    (net.lanes["bat00"].home / "broken").unlink()
    done = head.lab("lane", "admit", "bat00")
    assert "bat00 is admitted for train" in done.stdout
    assert admitted(head, "bat00") == ["train"]
    assert "checkpoint.pt" in ladder(head, "bat00")["smoke train"]["evidence"]["artifacts"]
    ran = head.submit("command", "--lane", "bat00", "--role", "train", "--code", "none", "--force", "--", "hostname")
    assert wait_state(head.home, ran, JobState.SUCCEEDED).lane == "bat00"
    assert hostname(head, ran) == "bat00"
    assert admitted(head, "molt") == []


# Must show 2: first contact.


def test_first_contact_is_four_steps(head: Head, net: LabNet) -> None:
    kid = net.add("kid", python="venv")
    (head.folder / "cluster.yaml").write_text("# ours\nlanes:\n  local:\n    transport: local  # here\n")
    head.lab("up")
    settings = cluster.load(_written(net, head.folder)).lane("kid")
    args = ["--host", kid.address, "--user", "root", "--identity", str(net.identity), "--role", "eval"]
    args += ["--ssh-config", str(settings.ssh_config), "--python", str(kid.python)]
    added = head.lab("lane", "add", "kid", *args)
    assert "lane kid is declared in" in added.stdout
    text = (head.folder / "cluster.yaml").read_text()
    assert text.startswith("# ours\nlanes:\n  local:\n    transport: local  # here\n")
    (head.folder / "cluster.yaml").write_text(text + f"    admission: {{outlive_s: {AWAY_S}}}\n")

    trusted = head.lab("lane", "trust", "kid", "--yes")
    assert kid.fingerprint in trusted.stdout
    assert "is trusted from now on" in trusted.stdout

    done = head.lab("lane", "admit", "kid")
    lines = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("✓", "+"))]
    assert lines[: len(GROUND)] == GROUND
    assert "kid is admitted for eval" in done.stdout

    ran = head.submit("command", "--lane", "kid", "--code", "none", "--force", "--", "hostname")
    assert wait_state(head.home, ran, JobState.SUCCEEDED).lane == "kid"
    assert hostname(head, ran) == "kid"


def _written(net: LabNet, folder: Path) -> Path:
    path = folder / "of-net.yaml"
    path.write_text(net.cluster_yaml())
    return path


# Must show 2: each fault named with its remedy.


def refuse(head: Head, name: str, rung: str, *words: str) -> dict[str, Any]:
    """`lab lane admit` fails at that rung, and says these words on the command line."""
    done = head.lab("lane", "admit", name, check=False)
    assert done.returncode == Exit.JOB_FAILED, done.stdout + done.stderr
    why = failed(head, name)
    assert why["rung"] == rung, (why, done.stdout)
    said = " ".join(done.stdout.split())
    for word in words:
        assert word in said or word in why["message"] + why["hint"], (word, done.stdout)
    assert why["hint"], "a refusal without a remedy"
    assert admitted(head, name) == []
    assert "Traceback" not in done.stdout + done.stderr
    return why


def test_a_key_that_nobody_has_looked_at(head: Head) -> None:
    refuse(head, "molt", "trusted", "is not known", "lab lane trust molt")


def test_a_changed_host_key(head: Head, net: LabNet) -> None:
    lane = net.lanes["molt"]
    head.trust("molt")
    before = lane.fingerprint
    lane.new_host_key()
    refuse(head, "molt", "trusted", "HAS CHANGED", before, lane.fingerprint, "lab lane trust molt --replace")
    done = head.lab("lane", "trust", "molt", "--yes", check=False)
    assert done.returncode == Exit.REFUSED
    head.lab("lane", "trust", "molt", "--yes", "--replace")
    assert head.lab("lane", "probe", "molt").returncode == 0


@pytest.mark.long
def test_a_refused_key(head: Head, net: LabNet, tmp_path: Path) -> None:
    head.trust("molt")
    make_key(tmp_path / "other")
    head.declare(molt={"identity": str(tmp_path / "other")})
    refuse(head, "molt", "authenticated", "authorized_keys")


@pytest.mark.long
@pytest.mark.parametrize("python", ["/nowhere/python3", "/opt/lane/bin/oldpython"])
def test_a_wrong_python(head: Head, net: LabNet, python: str) -> None:
    net.lanes["molt"].program("oldpython", OLD.format(real=net.lanes["molt"].python))
    head.trust("molt")
    head.declare(molt={"python": python})
    refuse(head, "molt", "python", "`python:`")


# An interpreter that says that it is Python 3.6, whatever it is started with.
OLD = """#!/bin/sh
while [ "$1" != -c ]; do shift; done
exec {real} -c 'import sys; sys.version_info = (3, 6, 9, "final", 0); exec(sys.argv[1])' "$2"
"""


def test_a_missing_package(head: Head, net: LabNet) -> None:
    bare = net.lanes.get("bare") or net.add("bare", python="base")
    head.trust("bare")
    head.declare(bare=QUICK)
    assert bare.python
    refuse(head, "bare", "environment", "numba", "lab lane provision bare", "`python:`")


@pytest.mark.long
def test_a_full_disk(head: Head, net: LabNet) -> None:
    small = net.lanes.get("small") or net.add("small", python="venv", disk=8 << 20)
    head.trust("small")
    head.declare(small=QUICK)
    (small.home / "ballast").write_bytes(b"x" * (3 << 20))
    refuse(head, "small", "disk", "is full", "`root:`")
    # So full that not even the agent starts: the same words.
    with pytest.raises(OSError, match="No space"), (small.home / "more").open("wb") as f:
        while True:
            f.write(b"x" * 65536)
            f.flush()
    done = head.lab("lane", "probe", "small", check=False)
    assert "full" in done.stdout


def test_a_declared_gpu_that_is_not_there(head: Head) -> None:
    head.trust("molt")
    head.declare(molt={"gpus": 1})
    why = refuse(head, "molt", "device", "declares 1 GPU for molt, and the machine shows none", "`gpus: 0`")
    (gpu,) = [c for c in why["evidence"]["compared"] if c["name"] == "gpus"]
    assert (gpu["declared"], gpu["probed"]) == (1, 0)


@pytest.mark.long
def test_more_cores_than_there_are(head: Head) -> None:
    head.trust("molt")
    head.declare(molt={"cores": 1000})
    refuse(head, "molt", "device", "declares 1000 cores")


@pytest.mark.long
def test_a_broken_kernel_on_the_lane(head: Head, net: LabNet) -> None:
    """Its code is right to the last byte: it is the environment there that computes wrong."""
    lane = net.lanes["molt"]
    start_up = sorted(Path(sysconfig.get_paths()["purelib"]).glob("*.pth"))
    if not start_up:
        pytest.skip("no package here runs anything when Python starts: there is nothing to put harm into")
    # One line, in place of a file that every interpreter there runs at its start; only this lane sees it.
    harm = base64.b64encode(BROKEN.encode()).decode()
    (lane.home / "harm.pth").write_text(f'import base64; exec(base64.b64decode("{harm}"), {{}})\n')
    head.trust("molt")
    head.declare(molt={"roles": ["eval"]})
    lane.run("mount", "--bind", "/root/harm.pth", str(start_up[0]))
    try:
        why = refuse(head, "molt", "parity", "numba")
    finally:
        lane.run("umount", str(start_up[0]))
    assert why["evidence"]["cause"] == "error"
    assert "cells did not pass: numba at" in why["message"]
    assert "blocked" not in why["message"], "it ran, and was wrong"
    assert ladder(head, "molt")["smoke"]["ok"], "all below it held"
    # Its twin: the same lane without the harm is admitted.
    assert head.lab("lane", "admit", "molt").returncode == 0


@pytest.mark.long
def test_a_machine_that_ends_what_a_login_left_behind(head: Head, net: LabNet) -> None:
    wsl = net.lanes.get("oldwsl") or net.add("oldwsl", python="venv", forgets=True)
    head.trust("oldwsl")
    head.declare(oldwsl={"roles": ["eval"], **QUICK})
    assert isinstance(wsl, Lane)
    why = refuse(head, "oldwsl", "outlives", "loginctl enable-linger")
    assert "did not outlive" in why["message"]
    assert ladder(head, "oldwsl")["parity"]["ok"]


@pytest.mark.long
def test_a_lane_that_is_given_up_is_out_and_comes_back_by_admission(head: Head) -> None:
    head.trust("mini")
    head.lab("lane", "admit", "mini")
    done = head.json("lane", "down", "mini", "--reason", "moving house")
    assert done["ok"]
    row = next(x for x in head.json("lanes")["lanes"] if x["name"] == "mini")
    assert (row["state"], row["reason"]) == ("down", "moving house")
    assert head.lab("lane", "admit", "mini").returncode == 0
    assert admitted(head, "mini") == ["eval"]


@pytest.mark.long
def test_one_climb_at_a_time_whatever_is_said_of_the_lane_meanwhile(head: Head) -> None:
    head.declare(mini={"admission": {**QUICK["admission"], "outlive_s": 20}})
    head.trust("mini")
    assert head.lab("lane", "admit", "mini", "--no-wait").returncode == 0
    second = head.lab("lane", "admit", "mini", "--no-wait", check=False)
    assert second.returncode == 1
    assert "mini climbs already, since " in second.stdout
    head.declare(mini={"about": "in the corner"})
    head.lab("lane", "trust", "mini", "--yes")  # has cluster.yaml read again

    def silent() -> str:
        said = next(x for x in head.json("lanes")["lanes"] if x["name"] == "mini")["link"]["error"]
        return said if said.startswith("silent until") else ""

    assert wait_for(silent, "its connections to be closed on purpose", deadline_s=120).endswith(" for its admission")
    status = head.lab("status").stdout
    assert "mini is silent until" in status
    assert "no heartbeat" not in status
    check = next(c for c in head.json("doctor", check=False)["checks"] if c["name"] == "lane mini")
    assert (check["verdict"], check["said"].split(" until")[0]) == ("ok", "silent")
    assert "climbs already" in head.lab("lane", "probe", "mini", check=False).stdout
    done = head.lab("lane", "admit", "mini")
    assert done.returncode == 0
    assert "watching that climb" in done.stderr
    assert admitted(head, "mini") == ["eval"]
    assert "in the corner" in head.lab("lanes").stdout


@pytest.mark.long
def test_a_climb_in_json_is_one_document(head: Head) -> None:
    head.trust("mini")
    done = head.lab("lane", "admit", "mini", "--json")
    told = json.loads(done.stdout)
    assert told["schema"] == "lab.climb/1"
    assert told["roles"] == {"eval": {"ok": True, "reason": ""}}
    assert told["machine"]["hostname"] == "mini"
