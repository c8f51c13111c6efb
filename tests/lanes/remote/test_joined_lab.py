"""Pooled cells on machines of their own: over ssh, and in the workers of a lane that joined the head's Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from core.journal import Journal, query
from core.states import EventKind as K
from core.states import JobState
from lanes.start import ensure_controller, wake
from tests.lab_net import LabNet, other_minor, require
from tests.lanes.cells import Submitter, ask, check_cells, counts, grid, wait_end
from tests.lanes.remote.support import Head
from tests.support import controller_pid, end_all, job, kill, tail, wait_for

import toysweep  # isort: skip

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
S = JobState
PORT = 36431


class JoinedHead(Head):
    """A head whose Ray lanes may join."""

    def __init__(self, folder: Path, net: LabNet, *, port: int = PORT, **settings: dict[str, Any]) -> None:
        self.port = port
        super().__init__(folder, net, **settings)

    def declare(self, **settings: dict[str, Any]) -> None:
        super().declare(**settings)
        file = self.folder / "cluster.yaml"
        cluster = yaml.safe_load(file.read_text())
        cluster["ray"] = {"address": self.net.head, "port": self.port}
        file.write_text(yaml.safe_dump(cluster, sort_keys=False))

    def lanes_of(self, sweep: int) -> set[str]:
        """Where the batches of a sweep ran."""
        with Journal.open(self.home) as journal:
            n = query.sweep(journal.conn, sweep).cells
            placed = [e for e in query.events(journal.conn) if e.kind == K.BATCH_PLACED]
        return {str(e.lane) for e in placed if sweep < e.data["cells"][0][0] <= sweep + n}

    def restart(self) -> None:
        ensure_controller(self.home)
        wake(self.home)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JoinedHead]:
    require()
    with LabNet() as net:
        for name in ("far", "near"):
            net.add(name, python="venv")
        folder = tmp_path_factory.mktemp("joined")
        made = JoinedHead(folder, net, near={"transport": "joined", "cores": 2}, far={"cores": 2}, local={"cores": 2})
        made.grant()
        try:
            made.restart()
            for name in ("far", "near"):
                made.wait_lane(name, "up")
            yield made
        finally:
            end_all(made.home)


def on(head: JoinedHead, lane: str, **spec: Any) -> Submitter:
    return Submitter(head.home, toysweep.Toy(), needs={"lane": lane, "role": "sweep"}, **spec)


@pytest.mark.parametrize("lane", ["far", "near", "local"])
def test_pooled_cells_run_there(head: JoinedHead, lane: str) -> None:
    s = on(head, lane).sweep(grid(200, fail=[7]))
    end = wait_end(head.home, s)
    assert (end.state, end.reason) == (S.FAILED, "1 of 200 cells failed"), tail(head.home)
    check_cells(head.home, s, {7: S.FAILED})
    assert head.lanes_of(s) == {lane}
    with Journal.open(head.home) as journal:
        batch = query.batch_of(journal.conn, s + 1)
    assert batch is not None
    env = json.loads((head.home.batches / batch.dir / "env.json").read_text())
    assert (env["hostname"] == lane) == (lane != "local")
    assert head.lab("verify", str(s)).returncode == 0


@pytest.mark.long
def test_cells_that_die_and_cells_that_are_cancelled(head: JoinedHead, tmp_path: Path) -> None:
    """On the joined lane: Ray owns the process, and the lane's keeper still knows how it ended."""
    cells = grid(60, die=[30])
    s = on(head, "near").sweep(cells)
    wait_end(head.home, s)
    check_cells(head.home, s, {30: S.FAILED})
    assert job(head.home, s + 31).attempts == 4


@pytest.mark.long
def test_ray_owns_the_workers_of_a_joined_lane(head: JoinedHead, tmp_path: Path) -> None:
    near = head.net.lanes["near"]
    for lane in ("near", "far"):
        s = on(head, lane).sweep([{"i": i, "s": 0.05} for i in range(100)])
        wait_for(lambda s=s: counts(head.home, s).get("succeeded", 0) > 10, f"cells\n{tail(head.home)}")
        listed = head.net.lanes[lane].run("ps", "axo", "args").stdout
        assert ("ray::FarWorker" in listed) == (lane == "near"), listed
        assert ("lanes.pool.afar" in listed) == (lane == "far"), listed
        wait_end(head.home, s)
        check_cells(head.home, s)
    # Its node is ours alone: own token, closed folders.
    temp = near.run("sh", "-c", "stat -c %a /tmp/lab-0-*-ray").stdout.split()
    assert temp == ["700"]
    tokens = near.run("sh", "-c", "stat -c %a /root/.lab-lane/heads/*/near/ray/token").stdout.split()
    assert tokens == ["600"]


@pytest.mark.long
def test_a_dead_ray_node_is_followed_by_another(head: JoinedHead) -> None:
    near = head.net.lanes["near"]
    s = on(head, "near").sweep([{"i": i, "s": 0.02} for i in range(200)])
    wait_for(lambda: counts(head.home, s).get("succeeded", 0) > 10, f"cells\n{tail(head.home)}")
    near.run("pkill", "-9", "-x", "raylet")
    wait_end(head.home, s)
    check_cells(head.home, s)


@pytest.mark.long
def test_the_controller_killed_in_the_middle(head: JoinedHead) -> None:
    """Over ssh what was sent runs on, and its end waits; the joined node is started afresh for the new Ray."""
    for lane in ("far", "near"):
        s = on(head, lane).sweep([{"i": i, "s": 0.02} for i in range(300)])
        wait_for(lambda s=s: counts(head.home, s).get("succeeded", 0) > 10, f"cells\n{tail(head.home)}")
        kill(controller_pid(head.home))
        wait_end(head.home, s)
        check_cells(head.home, s)


COMMAND = "import hashlib, os; open('out.bin', 'wb').write(hashlib.sha256(b'the same').digest() * 1000); print('done')"


def _results(head: JoinedHead, lane: str) -> dict[str, Any]:
    """What the same jobs gave on this lane, without times and names of machines."""
    common = ("--lane", lane, "--force")
    kernel = head.submit(
        "kernel", "--set", "name=fcell", "--set", "backend=numba", "--set", "height=16", "--set", "width=16",
        "--set", "keep=true", *common, "--role", "sweep",
    )  # fmt: skip
    parity = head.submit(
        "parity", "--set", "backends=numba", "--set", "sizes=[1]", *common,
    )  # fmt: skip
    command = head.submit("command", *common, "--output", "out.bin", "--", "python3", "-c", COMMAND)
    found: dict[str, Any] = {}
    for number in (kernel, parity, command):
        end = wait_end(head.home, number, 180.0)
        assert end.state is S.SUCCEEDED, (lane, end.reason, tail(head.home))
    columns = "candidate,role,case,dtype,verdict,max_rel,input_digest,output_digest"
    for name, number, said in (
        ("kernel", kernel, "input_digest,verdict,max_rel,max_abs,checksum"),
        ("arrays", kernel, "array,dtype,shape,values"),
        ("parity", parity, columns),
    ):
        file = head.folder / f"{lane}-{name}.parquet"
        head.lab("results", str(number), "-t", name, "--columns", said, "-o", str(file))
        found[name] = sorted(str(row) for row in pq.read_table(file).to_pylist())
        assert found[name]
    (attempt,) = head.attempts(command)
    manifest = json.loads(head.home.run_dir(command, attempt.n).manifest.read_text())
    found["command"] = {name: row for name, row in manifest["files"].items() if name.startswith("artifacts/")}
    assert found["command"]
    assert {attempt.lane} == {lane}
    return found


@pytest.mark.long
def test_the_same_jobs_give_the_same_results_everywhere(head: JoinedHead) -> None:
    here = _results(head, "local")
    assert _results(head, "far") == here
    assert _results(head, "near") == here


@pytest.mark.long
def test_another_python_is_refused_with_the_reason(head: JoinedHead, tmp_path: Path) -> None:
    """Over ssh it works; to join it would need the same Python and the same Ray."""
    python = other_minor()
    if python is None:
        pytest.skip("there is no Python of another minor version here")
    head.net.add("odd", python=python)
    second = JoinedHead(tmp_path, head.net, odd={"transport": "joined"}, port=PORT + 1)
    second.grant("odd")
    try:
        second.restart()
        second.wait_lane("odd", "up")
        s = on(second, "odd").sweep(grid(2))
        wait_for(lambda: "lane odd cannot join: it has Python 3." in tail(second.home), "the reason to be said")
        assert "Ray wants the same patch version" in tail(second.home)
        assert "`transport: ssh`, which needs neither" in tail(second.home)
        ask(second.home, K.CANCEL_ASKED, s)
    finally:
        end_all(second.home)


@pytest.mark.long
def test_cells_go_on_while_the_link_is_down(head: JoinedHead) -> None:
    """Cut for seconds in the middle: nothing is lost, nothing is there twice."""
    far = head.net.lanes["far"]
    s = on(head, "far").sweep([{"i": i, "s": 0.02} for i in range(300)])
    wait_for(lambda: counts(head.home, s).get("succeeded", 0) > 10, f"cells\n{tail(head.home)}")
    far.cut()
    head.wait_lane("far", "unreachable")
    far.mend()
    wait_end(head.home, s)
    check_cells(head.home, s)


@pytest.mark.long
def test_a_lane_that_is_started_anew_in_the_middle(head: JoinedHead) -> None:
    for name in ("far", "near"):
        lane = head.net.lanes[name]
        s = on(head, name).sweep([{"i": i, "s": 0.02} for i in range(300)])
        wait_for(lambda s=s: counts(head.home, s).get("succeeded", 0) > 10, f"cells\n{tail(head.home)}")
        lane.reboot()
        wait_end(head.home, s, 150.0)
        check_cells(head.home, s)
