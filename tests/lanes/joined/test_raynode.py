"""The lane's side of joining: versions, reach, and a node that is ended by pid, never by name."""

from __future__ import annotations

import os
import platform
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.fsio import read_json
from lanes.agent import procs
from lanes.agent.raynode import RayNode
from tests.lanes.support import alive
from tests.support import wait_for

# In place of Ray: two processes that detach, one of which writes over its environment.
FAKE = """
import os, subprocess, sys, time
if "fail" in sys.argv:
    sys.exit("ConnectionError: no head there")
place = os.environ["FAKE_BIN"]
child = "import time; time.sleep(600)"
code = f"import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-I', '-c', {child!r}], env={{}}); "
code += f"print(p.pid, file=open({place!r} + '/child', 'w')); time.sleep(600)"
if os.path.exists(place + "/child"):
    os.unlink(place + "/child")
raylet = subprocess.Popen([place + "/raylet", "-I", "-c", code], start_new_session=True)
while not os.path.exists(place + "/child") or not open(place + "/child").read():
    time.sleep(0.01)
print(raylet.pid, open(place + "/child").read().strip(), *sys.argv, sep="\\n", file=open(place + "/started", "w"))
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RayNode]:
    made = RayNode(tmp_path / "root")
    yield made
    assert made.node_end()["ok"]
    assert not made._closed.exists()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An interpreter whose `-m ray.scripts.scripts start` starts two sleeping processes."""
    place = tmp_path / "bin"
    place.mkdir()
    (place / "fake.py").write_text(FAKE)
    (place / "raylet").symlink_to(os.path.realpath(sys.executable))
    script = place / "python"
    script.write_text(f'#!/bin/sh\nFAKE_BIN={place} exec {sys.executable} -I {place}/fake.py "$@"\n')
    script.chmod(0o755)
    return script


def _begin(node: RayNode, python: Path, *arguments: str, session: str = "one") -> dict[str, object]:
    order = {"session": session, "python": str(python), "arguments": list(arguments), "token": "ab" * 32}
    assert node.node_begin(order) == {"ok": True}

    def settled() -> dict[str, object] | None:
        status = node.node_status()
        return status if status["state"] != "starting" else None

    found = wait_for(settled, "the node to start")
    assert found is not None
    return found


def test_versions_of_an_interpreter(node: RayNode) -> None:
    found = node.node_versions(sys.executable)
    assert found["python"] == platform.python_version()
    assert found["ray"]
    assert "does not answer" in node.node_versions("/nowhere/python")["error"]


def test_reach(node: RayNode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert node.node_reach("127.0.0.1", port) == {"ok": True, "error": ""}
    assert node.node_reach("127.0.0.1", port)["error"] == "Connection refused"
    assert node.node_address("127.0.0.1", port) == "127.0.0.1"


def test_a_node_from_its_start_to_its_end(node: RayNode, fake: Path, tmp_path: Path) -> None:
    assert node.node_status()["state"] == "none"
    status = _begin(node, fake, "--address=h:1")
    assert (status["state"], status["session"]) == ("up", "one")
    said = (fake.parent / "started").read_text().splitlines()
    pids = [int(said[0])]
    assert "--address=h:1" in said
    assert f"--temp-dir={node._temp}" in said
    token = tmp_path / "root/ray/token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(node._closed.stat().st_mode) == 0o700
    assert len(os.fsencode(node._temp)) < 40
    record = (tmp_path / "root/ray/node.json").read_text()
    assert "ab" * 32 not in record, "no secret where it is not needed"
    # The next agent knows as much; a dead raylet is seen.
    after = RayNode(tmp_path / "root")
    assert after.node_status()["state"] == "up"
    procs.kill(procs.identify(pids[0]) or procs.Proc(0, 0))
    wait_for(lambda: after.node_status()["state"] == "dead", "the death to be seen")
    assert after.node_end() == {"ok": True, "left": []}
    assert after.node_status()["state"] == "none"
    assert not token.exists()


def test_everything_of_a_node_is_ended_and_nothing_else(node: RayNode, fake: Path) -> None:
    other = subprocess.Popen([sys.executable, "-I", "-c", "import time; time.sleep(600)"])
    try:
        _begin(node, fake)
        first, below = map(int, (fake.parent / "started").read_text().splitlines()[:2])
        assert alive(below)
        _begin(node, fake, session="two")  # the head's Ray is another one: this node is ended, not kept
        assert not alive(first)
        assert not alive(below), "its environment says nothing, our list does"
        second = int((fake.parent / "started").read_text().splitlines()[0])
        assert alive(second)
        assert node.node_status()["session"] == "two"
        node.node_end()
        assert not alive(second)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_node_that_does_not_start_says_why(node: RayNode, fake: Path) -> None:
    status = _begin(node, fake, "fail")
    assert status["state"] == "failed"
    assert "no head there" in str(status["error"])
    assert _begin(node, fake)["state"] == "up", "the twin"


def test_a_node_of_another_boot_is_dead(node: RayNode, fake: Path, tmp_path: Path) -> None:
    from core.fsio import write_json

    _begin(node, fake)
    place = tmp_path / "root/ray/node.json"
    write_json(place, {**read_json(place, {}), "boot_id": "another"})
    assert node.node_status()["state"] == "dead"
