"""How busy a lane says it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.home import Home
from core.live import LiveWriter, read_lanes
from lanes.agent import usage
from lanes.agent.agent import Agent
from tests.support import wait_for


def test_a_busy_machine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "EVERY_S", 0.0)
    mine = usage.Usage(gpus=False)
    spin = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        found = wait_for(lambda: (u := mine.now()).get("cpu", 0) > 10 and u, "some load")
    finally:
        spin.kill()
        spin.wait()
    assert 0 < found["cpu"] <= 100
    assert found["memory_mb"] > 10
    assert "gpus" not in found


def test_what_a_driver_says_is_read_and_what_it_does_not_is_absent() -> None:
    text = "0, 37, 1024, 4096\n1, [N/A], [N/A], [N/A]\nFailed to initialise\n"
    assert usage.gpu_lines(text) == [{"index": 0, "busy": 37.0, "memory": 25.0}, {"index": 1}]


def test_every_frame_tells_it_and_the_live_view_keeps_it(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "lane", home_hash="test", socket_path=tmp_path / "s")
    frame = agent.poll({}, 0)
    assert frame["usage"]["memory_mb"] > 10
    home = Home(tmp_path / "home")
    home.create()
    live = LiveWriter(home)
    live.lane("local", {"cores": 2, "usage": frame["usage"]})
    live.close()
    assert read_lanes(home)["local"]["usage"] == frame["usage"]
