"""Pooled cells on a lane that is reached over a link: the link, the agent, workers and the controller each die."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.home import Home
from core.rundir import RunDir, verify_manifest
from core.spec import CodeRef
from core.states import Cause
from lanes.pool import remote as module
from lanes.pool.bring import Unfit, bring
from lanes.pool.spool import read_spool
from lanes.transport import LinkDown
from tests.lanes.pool.afar import FarBench
from tests.lanes.pool.toys import declared, ends, rows
from tests.lanes.support import alive
from tests.support import wait_for

pytestmark = [pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def far() -> Iterator[FarBench]:
    folder = Path(tempfile.mkdtemp(prefix="lab-far-"))
    home = Home(folder / "home")
    home.create()
    (folder / "user").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder / "user"))
        patch.setattr(module, "POLL_S", 0.3)
        patch.setattr(module, "PAUSE_S", 0.02)
        patch.setattr(module, "UNSENT_S", 1.5)
        bench = FarBench(home, folder / "user", folder / "lane")
        try:
            yield bench
        finally:
            bench.pool.close()
            bench.far.cut = False
            bench.far.end()
            shutil.rmtree(home.runtime, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def whole_link(far: FarBench) -> Iterator[None]:
    yield
    far.heal()
    far.far.before = far.far.after = lambda _: None


@pytest.fixture(scope="module")
def far_toy(far: FarBench) -> CodeRef:
    return far.snapshot()


def _places(jobs: list[int]) -> list[int]:
    return [job % 1000 for job in jobs]


def _held(far: FarBench, path: Path) -> int:
    return int(wait_for(lambda: Path(f"{path}.here").exists() and Path(f"{path}.here").read_text(), "a cell to wait"))


def test_cells_run_there_and_everything_comes_back(far: FarBench, far_toy: CodeRef) -> None:
    spec = far.spec(far_toy)
    batch = far.start(spec, far.cells("row", "print", "error", "tell", "steps"))
    done = far.wait(batch)
    assert _places(done.ok) == [0, 1, 3, 4], (done, far.can(spec))
    assert ends(done) == [(2, "failed", "error", "ValueError: odd 2")]
    assert not done.worker_died
    folder = far.path(batch)
    assert verify_manifest(RunDir(folder)) == []
    assert done.manifest is not None
    assert "hello 1" in (folder / "log.txt").read_text()
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["job"] == batch.cells[4].job
    told = next(json.loads(r["word"]) for r in rows(done) if r["job"] == batch.cells[3].job)
    lane = str(far.far.folder)
    assert told["file"].startswith(lane)
    assert told["core"].startswith(lane)
    assert told["loop"].startswith(lane)
    assert told["env"]["PYTHONPATH"] == ""
    assert told["env"]["CUDA_VISIBLE_DEVICES"] == ""
    assert told["threads"] == "1"
    assert told["env"]["LAB_ATTEMPT"].startswith(f"lab:{far.home.hash}:crew:")
    assert "A_SECRET_OF_THE_CONTROLLER" not in told["env"]
    found = json.loads((folder / "spec.json").read_text())
    assert (found["dir"], found["lane"], found["nonce"]) == (batch.dir, "far", batch.nonce)
    wait_for(lambda: not (far.far.root / "ends" / batch.nonce).exists(), "what the head has to be forgotten there")
    assert not (far.far.root / "batches" / batch.dir).exists()


def test_the_next_batch_meets_a_warm_worker(far: FarBench, far_toy: CodeRef) -> None:
    spec = far.spec(far_toy)
    first = json.loads(rows(far.run(spec, "tell"))[0]["word"])["pid"]
    second = json.loads(rows(far.run(spec, "tell"))[0]["word"])["pid"]
    assert first == second
    assert far.pool.seconds(_crew(far, spec), 10) < 10


def _crew(far: FarBench, spec: dict[str, object]) -> str:
    from lanes.pool.crew import crew_key

    return crew_key(spec)


def test_declared_inputs_are_sent(far: FarBench, far_toy: CodeRef, tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("what was declared")
    spec = far.spec(far_toy, env={"OWN": "input"}, inputs=[declared(data)])
    done = far.run(spec, "input")
    assert [r["word"] for r in rows(done)] == ["what was declared"]
    assert not done.ends
    elsewhere = {**declared(data), "lane": "other"}
    assert "lies on lane other" in far.can(far.spec(far_toy, inputs=[elsewhere]))
    assert far.can(spec) == ""


def test_what_was_not_declared_is_seen(far: FarBench, far_toy: CodeRef, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("unseen")
    spec = far.spec(far_toy, env={"OWN": "taint"})
    done = far.run(spec, "row", {"do": "read", "path": str(tmp_path / "secret.txt")})
    assert [(e.job % 1000, e.state, e.undeclared) for e in done.ends] == [
        (1, "succeeded", (str(tmp_path / "secret.txt"),))
    ]
    again = far.run(spec, "row")
    assert again.ok, "another process does what comes next, which depends on none of it"


def test_a_killed_worker_loses_only_what_it_had_not_finished(far: FarBench, far_toy: CodeRef, tmp_path: Path) -> None:
    spec, hold = far.spec(far_toy), {"do": "wait", "path": str(tmp_path / "go"), "x": 3}
    batch = far.start(spec, far.cells("row", "row", "row", hold, "row", "row"))
    pid = _held(far, tmp_path / "go")
    spool = far.far.root / "batches" / batch.dir / "cells.spool"
    wait_for(lambda: sum(len(f.ok) for f in read_spool(spool)[0]) == 3, "finished cells to be on disk")
    os.kill(pid, signal.SIGKILL)
    done = far.wait(batch)
    assert done.worker_died
    assert _places(done.ok) == [0, 1, 2]
    assert [r["word"] for r in rows(done)] == ["w0", "w1", "w2"]
    assert ends(done) == [(3, "lost", "runner-died", "its worker died while it ran")]
    assert _places(done.back) == [4, 5]
    assert verify_manifest(RunDir(far.path(batch))) == []
    (tmp_path / "go").write_text("")
    again = far.run(spec, "row", "row", "row", hold, "row", "row")
    assert _places(again.ok) == [0, 1, 2, 3, 4, 5], "the twin: nobody kills"


def test_a_killed_keeper_takes_its_worker_with_it(far: FarBench, far_toy: CodeRef, tmp_path: Path) -> None:
    spec = far.spec(far_toy, env={"OWN": "keeper"})
    batch = far.start(spec, far.cells("row", {"do": "wait", "path": str(tmp_path / "go")}))
    pid = _held(far, tmp_path / "go")
    keeper = next(
        p for p in far.far.keeper_pids() if Path(f"/proc/{p}/task/{p}/children").read_text().split() == [str(pid)]
    )
    os.kill(keeper, signal.SIGKILL)
    done = far.wait(batch)
    assert _places(done.ok) == [0]
    assert [e[1:3] for e in ends(done)] == [("lost", "runner-died")]
    assert not alive(pid)


def test_a_killed_agent_is_not_noticed(far: FarBench, far_toy: CodeRef, tmp_path: Path) -> None:
    spec = far.spec(far_toy)
    batch = far.start(spec, far.cells("row", {"do": "wait", "path": str(tmp_path / "go")}, "row"))
    pid = _held(far, tmp_path / "go")
    far.far.restart_agent()
    assert pid in far.far.worker_pids()
    (tmp_path / "go").write_text("")
    assert _places(far.wait(batch).ok) == [0, 1, 2]
    far.far.restart_agent()
    assert far.run(spec, "row").ok


def test_a_cut_link_stops_nothing(far: FarBench, far_toy: CodeRef, tmp_path: Path) -> None:
    """Two batches in flight on two workers; both end while nobody can hear of it."""
    spec = far.spec(far_toy)
    batches = [far.start(spec, far.cells("row", {"do": "wait", "path": str(tmp_path / n)})) for n in "ab"]
    for n in "ab":
        _held(far, tmp_path / n)
    far.far.break_off()
    for n in "ab":
        (tmp_path / n).write_text("")
    wait_for(lambda: all((far.far.root / "ends" / b.nonce).exists() for b in batches), "both to end")
    far.pool.tick()
    assert far.inbox.empty()
    assert len(far.pool.in_flight()) == 2
    far.far.restart_agent()
    far.heal()
    done = {d.nonce: d for d in (far.next(), far.next())}
    assert all(_places(done[b.nonce].ok) == [0, 1] for b in batches)


@pytest.mark.parametrize("method", ["ensure_code", "crew_begin", "crew_send", "crew_poll"])
@pytest.mark.parametrize("arrived", [False, True])
def test_each_call_may_be_lost_or_its_answer(
    far: FarBench, far_toy: CodeRef, tmp_path: Path, method: str, arrived: bool
) -> None:
    """Cells append to a file: each of them ran once, and each has one row."""
    spec = far.spec(far_toy, env={"OWN": f"{method}{arrived}"})
    left = [3]

    def cut(called: str) -> None:
        if called == method and left[0]:
            left[0] -= 1
            raise LinkDown("here")

    if arrived:
        far.far.after = cut
    else:
        far.far.before = cut
    batch = far.start(spec, far.cells(*["row"] * 20))
    done = far.wait(batch)
    assert _places(done.ok) == list(range(20))
    assert [r["x"] for r in rows(done)] == list(range(20))
    far.far.before = far.far.after = lambda _: None
    assert far.run(spec, "row").ok
    assert far.inbox.empty(), "nothing was told twice"
    assert left[0] < 3, "nothing was cut"


def test_what_was_given_up_is_refused_when_it_comes_back(far: FarBench, far_toy: CodeRef, tmp_path: Path) -> None:
    spec = far.spec(far_toy, env={"OWN": "zombie"})
    batch = far.start(spec, far.cells("row", {"do": "wait", "path": str(tmp_path / "go")}))
    pid = _held(far, tmp_path / "go")
    far.far.break_off()
    far.pool.give_up()
    done = far.wait(batch)
    assert (done.ok, done.ends, _places(done.back)) == ([], [], [0, 1])
    far.heal()
    again = far.start(spec, far.cells("row"))
    assert far.wait(again).ok
    wait_for(lambda: not alive(pid), "the worker that nobody wants to be ended")
    (tmp_path / "go").write_text("")
    wait_for(lambda: not (far.far.root / "ends" / batch.nonce).exists(), "its end to be forgotten")
    assert far.inbox.empty()


def test_a_lane_out_of_reach_for_too_long_gives_its_cells_back(far: FarBench, far_toy: CodeRef, tmp_path: Path) -> None:
    hold = {"do": "wait", "path": str(tmp_path / "go")}
    waits = far.start(far.spec(far_toy, env={"OWN": "w"}), far.cells(hold))
    _held(far, tmp_path / "go")
    (tmp_path / "go.here").unlink()
    leaves = far.start(far.spec(far_toy, env={"OWN": "l"}, on_unreachable="requeue-after:0.2"), far.cells(hold))
    _held(far, tmp_path / "go")
    far.far.break_off()
    done = far.wait(leaves)
    assert _places(done.back) == [0]
    assert list(far.pool.in_flight()) == [waits.nonce], "the other waits for as long as it takes"
    unsent = far.start(far.spec(far_toy), far.cells("row"))
    assert _places(far.wait(unsent).back) == [0], "what never left is free to go elsewhere at once"
    far.heal()
    (tmp_path / "go").write_text("")
    assert far.wait(waits).ok


def test_the_next_controller_asks_the_lane(far: FarBench, far_toy: CodeRef, tmp_path: Path) -> None:
    spec = far.spec(far_toy, env={"OWN": "next"})
    runs = far.start(spec, far.cells("row", {"do": "wait", "path": str(tmp_path / "go")}))
    _held(far, tmp_path / "go")
    ended = far.start(spec, far.cells("row", "error"))
    assert far.wait(ended).ok
    far.far.break_off()  # it is killed before the lane hears that it has it
    nowhere = far.start(spec, far.cells("row", "row"))
    time.sleep(0)
    far.new_controller(runs, ended, nowhere)
    far.pool.tick()
    assert far.inbox.empty(), "it does not guess"
    assert set(far.pool.in_flight()) == {runs.nonce, ended.nonce, nowhere.nonce}
    far.heal()
    done = {d.nonce: d for d in (far.next(), far.next())}
    assert _places(done[ended.nonce].ok) == [0], "its folder was here already"
    assert [e.job % 1000 for e in done[ended.nonce].ends] == [1]
    assert _places(done[nowhere.nonce].back) == [0, 1]
    (tmp_path / "go").write_text("")
    assert _places(far.wait(runs).ok) == [0, 1]


def test_a_batch_that_no_journal_knows_is_dropped(far: FarBench, far_toy: CodeRef, tmp_path: Path) -> None:
    """It was sent and never recorded: the controller died in between."""
    spec = far.spec(far_toy, env={"OWN": "unknown"})
    batch = far.start(spec, far.cells({"do": "wait", "path": str(tmp_path / "go")}))
    pid = _held(far, tmp_path / "go")
    far.new_controller()
    wait_for(lambda: not alive(pid), "its worker to be ended")
    wait_for(lambda: batch.nonce not in far.far.crews._known(), "it to be forgotten")
    assert far.run(spec, "row").ok
    assert far.inbox.empty()


def test_a_lane_that_was_started_anew(far: FarBench, far_toy: CodeRef, tmp_path: Path) -> None:
    spec = far.spec(far_toy, env={"OWN": "boot"})
    batch = far.start(spec, far.cells("row", {"do": "wait", "path": str(tmp_path / "go")}, "row"))
    pid = _held(far, tmp_path / "go")
    spool = far.far.root / "batches" / batch.dir / "cells.spool"
    wait_for(lambda: sum(len(f.ok) for f in read_spool(spool)[0]) == 1, "the first to be on disk")
    far.far.break_off()
    for keeper in far.far.keeper_pids():
        if str(pid) in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split():
            os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: not alive(pid), "the machine to be off")
    far.far.restart_agent()
    far.far.crews._boot = "another boot"
    far.heal()
    done = far.wait(batch)
    assert (_places(done.ok), _places(done.back)) == ([0], [2])
    assert ends(done) == [(1, "lost", "lane-rebooted", "the lane was started anew while it ran")]
    # Back to the true boot: one that has not begun by then would be waited for as long as a start may take.
    wait_for(lambda: len(far.far.worker_pids()) == len(far.far.workers()), "workers that start to have begun")
    far.far.restart_agent()
    assert far.run(spec, "row").ok


def test_cells_that_must_be_ended(far: FarBench, far_toy: CodeRef, tmp_path: Path) -> None:
    spin = {"do": "spin", "path": str(tmp_path / "spins")}
    done = far.run(far.spec(far_toy), "slow", spin, "row", time_limit=0.5)
    assert ends(done) == [(1, "failed", "time-limit", "it ran longer than its time limit of 0.5 s")]
    assert (_places(done.ok), _places(done.back)) == ([0], [2])
    done = far.run(far.spec(far_toy), *["slow"] * 7, time_limit=0.15)
    assert done.ok
    assert not done.ends, "the twin: the limit is each cell's own"
    done = far.run(far.spec(far_toy, needs={"memory_mb": 700}), "row", {"do": "eat", "path": str(tmp_path / "eats")})
    assert ends(done)[0][:3] == (1, "failed", "memory")
    batch = far.start(far.spec(far_toy), far.cells("crash", "row"))
    done = far.wait(batch)
    assert ends(done)[0][:3] == (0, "failed", "signal")
    assert "Segmentation fault" in done.ends[0].message
    assert "before" in (far.path(batch) / "log.txt").read_text()


def test_cancel(far: FarBench, far_toy: CodeRef, tmp_path: Path) -> None:
    spec = far.spec(far_toy, env={"OWN": "cancel"})
    polite = {"do": "polite", "path": str(tmp_path / "polite")}
    cells = far.cells("row", polite, "row", "row")
    batch = far.start(spec, cells)
    wait_for((tmp_path / "polite").exists, "the cell to run")
    far.pool.stop_cells({cells[1].job, cells[2].job, 77}, Cause.CANCELLED)
    done = far.wait(batch)
    assert [(p, s, c) for p, s, c, _ in ends(done)] == [(1, "cancelled", "cancelled"), (2, "cancelled", "cancelled")]
    assert (_places(done.ok), _places(done.back)) == ([0], [3]) or _places(done.ok) == [0, 3]
    cells = far.cells("row", {"do": "spin", "path": str(tmp_path / "spin")}, "row")
    batch = far.start(spec, cells)
    wait_for((tmp_path / "spin").exists, "the cell to spin")
    far.pool.stop_cells({cells[1].job}, Cause.CANCELLED)
    done = far.wait(batch)
    assert [(p, s, c) for p, s, c, _ in ends(done)] == [(1, "cancelled", "cancelled")]
    assert (_places(done.ok), _places(done.back)) == ([0], [2])


def test_cancel_of_what_waits(far: FarBench, far_toy: CodeRef, tmp_path: Path) -> None:
    spec = far.spec(far_toy, env={"OWN": "waits"})
    first = far.start(spec, far.cells({"do": "wait", "path": str(tmp_path / "go")}))
    _held(far, tmp_path / "go")
    second = far.start(spec, far.cells("row", "row"), ahead=True)
    wait_for(lambda: second.nonce in far.far.crews._known(), "it to wait there")
    far.pool.stop_cells({second.cells[0].job}, Cause.CANCELLED)
    done = far.wait(second)
    assert ends(done) == [(0, "cancelled", "cancelled", "cancelled before it began")]
    assert _places(done.back) == [1]
    (tmp_path / "go").write_text("")
    assert far.wait(first).ok


def test_what_was_sent_ahead_is_taken_at_once_or_comes_back(
    far: FarBench, far_toy: CodeRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lanes.agent import crews

    spec = far.spec(far_toy, env={"OWN": "ahead"})
    first = far.start(spec, far.cells({"do": "wait", "path": str(tmp_path / "go")}))
    _held(far, tmp_path / "go")
    second = far.start(spec, far.cells("row", "row"), ahead=True)
    wait_for(lambda: second.nonce in far.far.crews._known(), "it to wait there")
    assert far.pool.load(_crew(far, spec)) == (1, 1)
    far.far.break_off()  # the worker needs nobody to go on with it
    (tmp_path / "go").write_text("")
    wait_for(lambda: (far.far.root / "ends" / second.nonce).exists(), "it to be done")
    far.heal()
    assert {far.next().nonce, far.next().nonce} == {first.nonce, second.nonce}
    monkeypatch.setattr(crews, "AHEAD_S", 0.1)
    (tmp_path / "go").unlink()
    (tmp_path / "go.here").unlink()
    first = far.start(spec, far.cells({"do": "wait", "path": str(tmp_path / "go")}))
    _held(far, tmp_path / "go")
    second = far.start(spec, far.cells("row", "row"), ahead=True)
    done = far.wait(second)
    assert (done.ok, done.ends, _places(done.back)) == ([], [], [0, 1])
    (tmp_path / "go").write_text("")
    assert far.wait(first).ok


def test_a_kind_that_cannot_be_loaded_there(far: FarBench, far_toy: CodeRef) -> None:
    """Its cells go back, for another lane may be able to; nothing more is sent for a while, and it is said why."""
    ref = far.snapshot(_BROKEN_THERE, "brokenthere")
    spec = far.spec(ref, "brokenthere:Toy")
    assert far.can(spec) == ""
    done = far.run(spec, "row", "row")
    assert (done.ok, done.ends, _places(done.back)) == ([], [], [0, 1])
    assert "No module named 'module_of_nobody'" in far.can(spec)
    assert far.can(far.spec(far_toy)) == "", "the twin: another kind is none the worse"


_BROKEN_THERE = """
import os
if os.environ.get("LAB_ATTEMPT"):
    import module_of_nobody
from core.kind import Kind, Params

class Toy(Kind):
    name = "brokenthere"
    summary = "loads on the head only"
    Params = Params
    pooled = True

    def run(self, ctx):
        pass
"""


def test_an_interpreter_that_is_not_there(far: FarBench, far_toy: CodeRef) -> None:
    far.far.interpreter = "/nowhere/python"
    try:
        spec = far.spec(far_toy, env={"OWN": "python"})
        done = far.run(spec, "row")
        assert _places(done.back) == [0]
        assert "/nowhere/python cannot be started" in far.can(spec)
    finally:
        far.far.interpreter = None


def test_idle_workers_end_by_themselves(far: FarBench, far_toy: CodeRef, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lanes.pool.far.IDLE_S", 0.3)
    spec = far.spec(far_toy, env={"OWN": "idle"})
    done = far.run(spec, "tell")
    pid = json.loads(rows(done)[0]["word"])["pid"]
    far.far.break_off()  # whether or not anybody is there to tell them
    wait_for(lambda: not alive(pid), "it to end")
    far.heal()
    assert far.run(spec, "row").ok


def test_a_full_lane_gives_back(far: FarBench, far_toy: CodeRef, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    spec = far.spec(far_toy)
    with monkeypatch.context() as patch:
        patch.setattr("lanes.agent.crews.post.order_name", full)
        done = far.run(spec, "row")
    assert (_places(done.back), done.no_room) == ([0], False)
    assert "disk of lane far is full" in far.can(spec)
    far.pool._barred.clear()
    assert far.run(spec, "row").ok


def test_large_files_come_in_pieces(far: FarBench, far_toy: CodeRef, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lanes.agent.crewbooks.INLINE", 100)
    monkeypatch.setattr("lanes.pool.bring.CHUNK", 333)
    batch = far.start(far.spec(far_toy), far.cells(*["print"] * 40))
    assert len(far.wait(batch).ok) == 40
    assert verify_manifest(RunDir(far.path(batch))) == []
    assert any(m == "crew_read" for m, _ in far.far.calls)


def test_files_that_are_not_what_was_announced(far: FarBench, far_toy: CodeRef) -> None:
    """One wrong byte, once: it is fetched again. Always: its cells fail, for nothing of it can be believed."""
    real, bad = far.far.ask, [1]

    def spoil(method: str, *args: object, **named: object) -> object:
        answer = real(method, *args, **named)  # type: ignore[arg-type]
        if method == "crew_poll" and answer["ends"] and bad[0]:
            bad[0] -= 1
            at = answer["data"].index(b"cells.spool")
            answer["data"] = answer["data"][: at - 1] + b"X" + answer["data"][at:]
        return answer

    far.far.ask = spoil  # type: ignore[method-assign, assignment]
    try:
        assert far.run(far.spec(far_toy), "row").ok
        bad[0] = 10
        done = far.run(far.spec(far_toy), "row")
    finally:
        far.far.ask = real  # type: ignore[method-assign]
    assert [e[1:3] for e in ends(done)] == [("failed", "bad-seal")]
    assert not done.tables


def test_a_foreign_manifest_is_refused(far: FarBench, far_toy: CodeRef, tmp_path: Path) -> None:
    batch = far.start(far.spec(far_toy), far.cells("row"))
    done = far.wait(batch)
    other = far.start(far.spec(far_toy), far.cells("row"))
    far.wait(other)
    files = {f.name: f.read_bytes() for f in far.path(other).iterdir()}
    listed = [[name, len(blob), True] for name, blob in files.items()]
    end = {"how": "answer", "dir": batch.dir, "manifest": done.manifest, "files": listed, "ends": [], "seconds": 1.0}
    with pytest.raises(Unfit, match="that of batch"):
        bring(tmp_path, batch, end, files, lambda *_: b"")
    assert list(tmp_path.iterdir()) == []


def test_names_from_the_head_are_checked(far: FarBench) -> None:
    crews = far.far.crews
    for bad in ("../x", "", "0123456789abcdeg", "a" * 17):
        with pytest.raises(ValueError, match="names no crew"):
            crews.crew_begin(bad, {})
    for bad in ("../../x", "zzzzzzzz", "a"):
        with pytest.raises(ValueError, match="names no batch"):
            crews.crew_read(bad, "x", 0, 1)
        with pytest.raises(ValueError, match="names no batch"):
            crews.crew_poll([bad])


def test_the_agents_part_is_python_39() -> None:
    """It is carried to lanes whose Python we do not choose."""
    import ast

    import lanes.agent.crewbooks
    import lanes.agent.crews
    import lanes.agent.keeper
    import lanes.agent.raynode
    import lanes.pool.post
    import lanes.pool.words

    parts = (lanes.agent.crews, lanes.agent.crewbooks, lanes.agent.keeper, lanes.agent.raynode)
    for one in (*parts, lanes.pool.post, lanes.pool.words):
        tree = ast.parse(Path(str(one.__file__)).read_text(), feature_version=(3, 9))
        assert any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body)
        tops = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        tops |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        foreign = {t.split(".")[0] for t in tops} - set(sys.stdlib_module_names) - {"core", "lanes"}
        assert not foreign, foreign
