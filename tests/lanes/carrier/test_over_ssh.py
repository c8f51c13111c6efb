"""The same over a real sshd, with the real code at the far end: sent, run, cut in the middle, and brought back."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from core.cluster import LaneConfig
from core.digests import Digests
from core.kindcode import look_at_kind
from core.rundir import verify_manifest
from jobs.command import Command
from lanes.agent import procs
from lanes.carrier import Carrier, data
from lanes.ssh.transport import SshTransport
from lanes.transport import LinkDown
from tests.lanes.carrier.support import World, entry
from tests.lanes.ssh.servers import Sshd
from tests.support import wait_for

PROGRAM = """
import os, sys, time
print("begins", flush=True)
with open("big.bin", "wb") as f:
    f.write(open("given.bin", "rb").read())
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
for n in range(1000):
    print("line", n)
"""


def patient(call: Any) -> Any:
    """Again until the link holds."""

    def once() -> Any:
        try:
            return [call()]
        except LinkDown:
            return None

    return wait_for(once, "the link to hold")[0]


def test_a_real_attempt_over_a_real_link(world: World, sshd: Sshd, tmp_path: Path) -> None:
    settings = sshd.settings(tmp_path / "far", home_hash=world.home.hash)
    transport = SshTransport(settings)
    carrier = Carrier(world.home, LaneConfig("mini", transport="ssh"), transport, say=world.said.append)
    try:
        with Digests(None) as digests:
            snapshot = look_at_kind(Command(), digests, entry="jobs.command:Command")
        assert snapshot.store(world.home)
        given = world.file("given.bin", os.urandom(9 << 20))
        frozen = world.frozen(
            1,
            [sys.executable, "main.py", str(tmp_path / "go")],
            kind_path=str(world.home.code / snapshot.ref.store),
            code={"digest": "c", "path": world.code({"main.py": PROGRAM}), "subdir": ""},
            inputs=[entry(given, "given", "given.bin")],
            outputs=["big.bin"],
        )
        cuts = []

        def progress(done: int, total: int, what: str) -> None:
            if done > 4 << 20 and not cuts:
                cuts.append(done)
                transport.drop()

        answer = patient(lambda: carrier.begin({"frozen": frozen, "lane_python": sys.executable}, progress))
        assert answer["ok"], answer
        assert cuts
        here = world.head_run(1)

        def poll() -> dict[str, Any]:
            frame = patient(lambda: transport.call("poll", {}, 0.2, timeout_s=30))
            carrier.saw(frame)
            return dict(frame["reports"][0])

        wait_for(lambda: poll() and here.log.exists() and "begins" in here.log.read_text(), "its log on the head")
        transport.drop()
        (tmp_path / "go").touch()
        wait_for(lambda: (r := poll())["sealed"] and r["clear"], "its seal")
        patient(lambda: carrier.fetch(1, 1))
        assert verify_manifest(here) == []
        assert (here.artifacts / "big.bin").read_bytes() == given.read_bytes()
        lines = [line for line in here.log.read_text().splitlines() if line.startswith("line ")]
        assert lines == [f"line {n}" for n in range(1000)]

        class Access:
            name = "mini"

            def call(self, method: str, *args: Any, timeout_s: float = 60, **named: Any) -> Any:
                return transport.call(method, *args, timeout_s=timeout_s, **named)

        assert data(Access(), {"path": str(given)})["data"]["sha256"] == frozen["inputs"][0]["sha256"]
        assert patient(lambda: carrier.forget(1, 1)) == {"ok": True}
        check_versions(Path(settings.root), transport, carrier)
    finally:
        carrier.close()
        transport.close()
        assert procs.kill_strays(frozen["marker"]) == []


def check_versions(root: Path, transport: SshTransport, carrier: Carrier) -> None:
    """Of the agent's versions on the lane the one that serves us stays, however long ago it was sent."""
    (own,) = (root / "agent").iterdir()
    for place in (own, *(own.parent / f"{n:016x}" for n in range(5))):
        place.mkdir(exist_ok=True)
        os.utime(place, (1000, 1000))
    patient(lambda: carrier.tidy([]))
    assert own.is_dir(), "it serves"
    assert len(list(own.parent.iterdir())) <= 4
    transport.drop()
    assert patient(lambda: transport.call("hello", timeout_s=30))
    assert time.time() - own.stat().st_mtime < 3600, "whoever is started from it says so"
    patient(lambda: carrier.tidy([]))
    assert own.is_dir()
    assert len(list(own.parent.iterdir())) == 3
