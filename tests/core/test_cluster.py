"""cluster.yaml: what it may say of a lane, and that what must not reach a shell is refused where it stands."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from core import cluster
from core.errors import BadInput

GOOD = """
ray: {address: 10.0.0.1, port: 40001}
lanes:
  local: {}
  bat00:
    transport: joined
    host: bat00.lab.example
    user: ann
    port: 2222
    prefix: [wsl, -e]
    python: ~/venvs/lab/bin/python
    root: ~/.lab-lane
    jump: gate.example
    password_env: BAT00_PASSWORD
    keepalive_s: 2
    environment: {lock: requirements.lock, base: /usr/bin/python3.11}
    admission: {outlive_s: 30, smoke: [python3, first.py], parity: {sizes: [1]}}
    ray: {min_worker_port: 40100, max_worker_port: 40110}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return path


def test_everything_that_can_be_said_of_a_lane(tmp_path: Path) -> None:
    found = cluster.load(write(tmp_path, GOOD))
    lane = found.lane("bat00")
    assert (found.ray.address, found.ray.port) == ("10.0.0.1", 40001)
    assert lane.remote
    assert not found.lane("local").remote
    assert lane.admission == cluster.AdmissionConfig(30, ("python3", "first.py"), {"sizes": [1]})
    assert (lane.environment.lock, lane.environment.wheels) == ("requirements.lock", None)
    assert (lane.ray.min_worker_port, lane.ray.node_manager_port) == (40100, cluster.RayPorts().node_manager_port)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("host: -oProxyCommand=evil", "no name of a machine"),
        ('host: "a;reboot"', "no name of a machine"),
        ('host: "a\\nb"', "no name of a machine"),
        ("host: ann@mini", "no name of a machine"),
        ('user: "-l root"', "no name of an account"),
        ('user: "ann\\0"', "no name of an account"),
        ("root: ../elsewhere", "without `..`"),
        ('root: "a\\nb"', "no path"),
        ('python: "py\\nthon"', "no path"),
        ('jump: "-x"', "no name of a machine"),
        ("prefix: [-e]", "no command"),
        ('password_env: "SECRET=1"', "password_env"),
        ("port: 70000", "does not exist"),
        ("password_file: ~/secret", "did you mean `password_env`?"),
        ("environment: {locks: x}", "did you mean `lock`?"),
        ("admission: {outlive_s: -1}", "positive"),
        ("ray: {node_manager_port: 0}", "no port"),
        ("ray: [1]", "must be a mapping"),
    ],
)
def test_what_must_not_be_said_is_refused_with_its_place(tmp_path: Path, setting: str, said: str) -> None:
    host = "" if setting.startswith("host") else "    host: mini\n"
    path = write(tmp_path, f"lanes:\n  mini:\n    transport: ssh\n{host}    {setting}\n")
    with pytest.raises(BadInput) as caught:
        cluster.load(path)
    text = f"{caught.value.message}; {caught.value.hint}"
    assert said in text
    assert f"{path}:{4 if not host else 5}:" in text
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["-rf", '"a/b"', '".."', '"a b"', '"a;b"', "x" * 80])
def test_a_lane_whose_name_could_be_something_else_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="lane"):
        cluster.load(write(tmp_path, f"lanes:\n  {name}:\n    transport: ssh\n    host: mini\n"))


def test_every_setting_of_a_lane_can_be_set_and_is_documented() -> None:
    settings = {f.name for f in fields(cluster.LaneConfig)} - {"name"}
    assert settings == set(cluster._FIELDS) | set(cluster._GROUPS)
    text = (Path(__file__).parents[2] / "docs" / "lanes.md").read_text()
    missing = [name for name in settings if f"`{name}" not in text]
    assert not missing
    assert "`password_file" not in text, "it can be told"
