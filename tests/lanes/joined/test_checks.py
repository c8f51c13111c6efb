"""Who may join the head's Ray, and what is said to those who may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.cluster import HeadRay, LaneConfig, RayPorts, load
from lanes.joined import look, refusal
from lanes.joined.checks import arguments, here, resource

HEAD = {"python": "3.11.7", "ray": "2.60.0"}
FINE = {"python": "3.11.7", "ray": "2.60.0", "executable": "/opt/py/bin/python"}


def test_the_same_versions_may_join() -> None:
    assert refusal("mini", FINE, HEAD) is None
    assert refusal("mini", here(), here()) is None


@pytest.mark.parametrize(
    ("found", "said", "fix"),
    [
        ({**FINE, "python": "3.11.8"}, "has Python 3.11.8 (/opt/py/bin/python) and the head has 3.11.7", "3.11.7"),
        ({**FINE, "python": "3.12.7"}, "Ray wants the same patch version", "install Python 3.11.7 there"),
        ({**FINE, "ray": None}, "its Python (/opt/py/bin/python) has no Ray", "install ray==2.60.0"),
        ({**FINE, "ray": "2.59.1"}, "it has Ray 2.59.1 and the head has 2.60.0", "`lab lane provision mini`"),
        ({"error": "the interpreter x does not answer: no"}, "the interpreter x does not answer", "another `python`"),
    ],
)
def test_what_is_refused_is_named_with_its_remedy(found: dict[str, Any], said: str, fix: str) -> None:
    why = refusal("mini", found, HEAD)
    assert why is not None
    assert said in why.message
    assert why.message.startswith("lane mini cannot join: ")
    assert fix in why.hint
    assert "transport: ssh" in why.hint


def test_the_lane_is_asked_for_its_versions_then_whether_it_gets_through() -> None:
    asked: list[tuple[Any, ...]] = []

    def ask(method: str, *args: Any, timeout_s: float) -> Any:
        asked.append((method, *args))
        if method == "node_versions":
            return {**here(), "executable": "python3"}
        return {"ok": False, "error": "Connection refused"}

    assert look("mini", ask, "/env/bin/python") is None
    why = look("mini", ask, None, ("10.0.0.1", 36001))
    assert why is not None
    assert "does not reach the head's Ray at 10.0.0.1:36001 (Connection refused)" in why.message
    assert "cluster.yaml" in why.hint
    assert asked == [("node_versions", "/env/bin/python"), ("node_versions", None), ("node_reach", "10.0.0.1", 36001)]


def test_the_node_is_started_with_fixed_ports_and_its_own_resource(tmp_path: Path) -> None:
    config = LaneConfig(
        "mini", transport="joined", host="h", ray=RayPorts(min_worker_port=40000, max_worker_port=40010)
    )
    given = arguments(config, head="10.0.0.1", port=36001, address="10.0.0.7", cores=0)
    assert "--address=10.0.0.1:36001" in given
    assert "--node-ip-address=10.0.0.7" in given
    assert "--num-cpus=1" in given
    assert "--min-worker-port=40000" in given
    assert "--max-worker-port=40010" in given
    (resources,) = (a.partition("=")[2] for a in given if a.startswith("--resources="))
    assert json.loads(resources) == {"lane:mini": 1}
    assert resource("mini") == "lane:mini"
    assert not any("6379" in a or "10001" in a for a in given), "no default port of Ray's"
    file = tmp_path / "cluster.yaml"
    file.write_text("ray: {address: 10.0.0.1, port: 40500}\nlanes:\n  m: {transport: joined, host: h}\n")
    assert load(file).ray == HeadRay("10.0.0.1", 40500)
