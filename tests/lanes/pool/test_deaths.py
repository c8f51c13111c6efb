"""Workers that die, cells that must be ended, and what is left of their batches."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

import lanes.pool.pool as module
from core.rundir import RunDir, verify_manifest
from core.spec import CodeRef
from core.states import Cause
from lanes.pool.spool import read_spool
from tests.lanes.pool.toys import Bench, ends, rows
from tests.support import wait_for


def _places(jobs: list[int]) -> list[int]:
    return [job % 1000 for job in jobs]


def _wait_held(bench: Bench, path: Path, folder: Path, done: int) -> int:
    """Until the waiting cell runs and those before it are on disk. Returns the worker's pid."""
    pid = wait_for(lambda: Path(f"{path}.here").exists() and Path(f"{path}.here").read_text(), "the cell to wait")
    spool = folder / "cells.spool"
    wait_for(lambda: sum(len(f.ok) for f in read_spool(spool)[0]) == done, "finished cells to be on disk")
    return int(pid)


def test_a_killed_worker_loses_only_what_it_had_not_finished(bench: Bench, toy: CodeRef, tmp_path: Path) -> None:
    spec, hold = bench.spec(toy), {"do": "wait", "path": str(tmp_path / "go"), "x": 3}
    cells = bench.cells("row", "row", "row", hold, "row", "row")
    batch = bench.start(spec, cells)
    pid = _wait_held(bench, tmp_path / "go", bench.path(batch), 3)
    os.kill(pid, signal.SIGKILL)
    done = bench.wait(batch)
    assert done.worker_died
    assert _places(done.ok) == [0, 1, 2]
    assert [r["word"] for r in rows(done)] == ["w0", "w1", "w2"]
    assert ends(done) == [(3, "lost", "runner-died", "its worker died while it ran")]
    assert _places(done.back) == [4, 5]
    assert verify_manifest(RunDir(bench.path(batch))) == []
    assert done.manifest is not None

    # Nobody kills: the same cells, given to the next worker, all succeed.
    (tmp_path / "go").write_text("")
    again = bench.run(spec, "row", "row", "row", hold, "row", "row")
    assert _places(again.ok) == [0, 1, 2, 3, 4, 5]
    assert not again.worker_died


def test_two_batches_on_one_worker_that_dies(bench: Bench, toy: CodeRef, tmp_path: Path) -> None:
    spec, path = bench.spec(toy), tmp_path / "go"
    for _ in range(3):
        bench.run(spec, *["row"] * 32)  # quick cells: the next batch may wait behind a busy worker
    first = bench.start(spec, bench.cells("row", {"do": "wait", "path": str(path)}))
    pid = _wait_held(bench, path, bench.path(first), 1)
    second = bench.start(spec, bench.cells("row", "row"))
    os.kill(pid, signal.SIGKILL)
    done = bench.wait(first)
    assert (_places(done.ok), len(done.ends)) == ([0], 1)
    done = bench.wait(second)
    assert done.ok or done.back, "either it had a worker of its own, or it is as if it had never been placed"
    assert not done.ends
    assert len(bench.run(spec, "row").ok) == 1


def test_what_waits_goes_to_whoever_is_free_first(bench: Bench, toy: CodeRef, tmp_path: Path) -> None:
    """Two workers, one of them with a long cell: nothing waits behind that."""
    spec, slow, quick = bench.spec(toy, env={"OWN": "two"}), tmp_path / "slow", tmp_path / "quick"
    first = bench.start(spec, bench.cells({"do": "wait", "path": str(slow)}))
    second = bench.start(spec, bench.cells({"do": "wait", "path": str(quick)}))
    for path in (slow, quick):
        wait_for(Path(f"{path}.here").exists, "both to run")
    waits = [bench.start(spec, bench.cells("row", "row"), ahead=True) for _ in range(2)]
    assert bench.pool.load(bench.pool.crew(first.spec_digest, spec)) == (2, 2)
    quick.write_text("")
    assert len(bench.wait(second).ok) == 1
    for batch in waits:
        assert len(bench.wait(batch).ok) == 2
    # One that was sent ahead and finds nobody comes back, and can be placed anew.
    slow_again = bench.start(spec, bench.cells({"do": "wait", "path": str(slow)}))
    wait_for(lambda: bench.pool.load(bench.pool.crew(first.spec_digest, spec)) == (2, 0), "both to be busy")
    third = bench.start(spec, bench.cells("row", "row"), ahead=True)
    done = bench.wait(third)
    assert (done.ok, done.ends, _places(done.back)) == ([], [], [0, 1])
    # One that was not has a worker made for it.
    assert len(bench.run(spec, "row").ok) == 1
    slow.write_text("")
    assert {bench.next().nonce, bench.next().nonce} == {first.nonce, slow_again.nonce}


def test_a_worker_that_dies_before_its_first_batch(bench: Bench, toy: CodeRef, tmp_path: Path) -> None:
    """One is made while another batch runs, is no longer needed, and dies idle: nobody notices."""
    spec, path = bench.spec(toy, env={"OWN": "early"}), tmp_path / "go"
    crew = bench.pool.crew("early", spec)
    bench.start(spec, bench.cells({"do": "wait", "path": str(path)}))
    wait_for(Path(f"{path}.here").exists, "the first to run")
    extra = bench.start(spec, bench.cells("row"))
    bench.pool.stop_cells({extra.cells[0].job}, Cause.CANCELLED)
    assert len(bench.wait(extra).ends) == 1
    wait_for(lambda: bench.pool.free(crew) == 1, "the worker that was made for it")
    (worker,) = bench.pool._crew(crew).idle
    assert worker.serial == 0
    assert worker.proc is not None
    os.kill(worker.proc.pid, signal.SIGKILL)
    wait_for(lambda: bench.pool.free(crew) == 0, "its end to be seen")
    assert len(bench.run(spec, "row").ok) == 1
    path.write_text("")
    assert len(bench.next().ok) == 1


def test_cells_that_end_the_process(bench: Bench, toy: CodeRef) -> None:
    batch = bench.start(bench.spec(toy), bench.cells("row", "exit", "row"))
    done = bench.wait(batch)
    assert ends(done) == [(1, "lost", "runner-died", "its worker died while it ran")]
    assert 2 in _places(done.back)

    batch = bench.start(bench.spec(toy), bench.cells("crash", "row"))
    done = bench.wait(batch)
    assert ends(done)[0][:3] == (0, "failed", "signal"), "the interpreter said why: trying again would not help"
    assert "Segmentation fault" in done.ends[0].message
    assert _places(done.back) == [1]
    folder = bench.path(batch)
    (entry,) = map(json.loads, (folder / "log.idx").read_text().splitlines())
    text = (folder / "log.txt").read_bytes()[entry["from"] : entry["to"]].decode()
    assert entry["job"] == done.ends[0].job
    assert text.startswith("before\n")
    assert "do_crash" in text


def test_a_cell_that_takes_too_long(bench: Bench, toy: CodeRef, tmp_path: Path) -> None:
    spin = {"do": "spin", "path": str(tmp_path / "spins")}
    done = bench.run(bench.spec(toy), "slow", spin, "row", time_limit=0.5)
    assert ends(done) == [(1, "failed", "time-limit", "it ran longer than its time limit of 0.5 s")]
    assert (_places(done.ok), _places(done.back)) == ([0], [2])
    assert done.ends[0].seconds is not None
    assert done.ends[0].seconds >= 0.5
    # The limit is each cell's own: many short ones take longer together.
    done = bench.run(bench.spec(toy), *["slow"] * 7, time_limit=0.15)
    assert done.ok
    assert not done.ends


def test_a_cell_that_takes_too_much_memory(bench: Bench, toy: CodeRef, tmp_path: Path) -> None:
    spec = bench.spec(toy, needs={"memory_mb": 700})
    done = bench.run(spec, "row", {"do": "eat", "path": str(tmp_path / "eats")}, "row")
    assert ends(done)[0][:3] == (1, "failed", "memory")
    assert "more than the 700 MiB that it was granted" in done.ends[0].message
    assert len(bench.run(spec, "row").ok) == 1


def test_cancel_of_a_batch_that_waits_behind_another(bench: Bench, toy: CodeRef, tmp_path: Path) -> None:
    spec, path = bench.spec(toy, env={"OWN": "queue"}), tmp_path / "go"
    for _ in range(3):
        bench.run(spec, *["row"] * 32)
    first = bench.start(spec, bench.cells("row", {"do": "wait", "path": str(path)}))
    _wait_held(bench, path, bench.path(first), 1)
    second = bench.start(spec, bench.cells("row", "row"))
    bench.pool.stop_cells({second.cells[0].job}, Cause.CANCELLED)
    done = bench.wait(second)
    assert ends(done) == [(0, "cancelled", "cancelled", "cancelled before it began")], "it need not wait for that"
    assert _places(done.back) == [1]
    path.write_text("")
    assert _places(bench.wait(first).ok) == [0, 1]


def test_cancel_while_a_batch_runs(bench: Bench, toy: CodeRef, tmp_path: Path) -> None:
    polite = {"do": "polite", "path": str(tmp_path / "polite")}
    cells = bench.cells("row", polite, "row", "row")
    batch = bench.start(bench.spec(toy), cells)
    wait_for((tmp_path / "polite").exists, "the cell to run")
    bench.pool.stop_cells({cells[1].job, cells[2].job, 77}, Cause.CANCELLED)
    done = bench.wait(batch)
    assert [(p, s, c) for p, s, c, _ in ends(done)] == [(1, "cancelled", "cancelled"), (2, "cancelled", "cancelled")]
    assert (_places(done.ok), _places(done.back)) == ([0], [3]) or _places(done.ok) == [0, 3]
    assert not done.worker_died
    assert 1 not in [r["job"] % 1000 for r in rows(done)]

    # One that does not listen is ended after its grace, and takes nobody with it.
    cells = bench.cells("row", {"do": "spin", "path": str(tmp_path / "spin")}, "row")
    batch = bench.start(bench.spec(toy), cells)
    wait_for((tmp_path / "spin").exists, "the cell to spin")
    bench.pool.stop_cells({cells[1].job}, Cause.CANCELLED)
    done = bench.wait(batch)
    assert [(p, s, c) for p, s, c, _ in ends(done)] == [(1, "cancelled", "cancelled")]
    assert (_places(done.ok), _places(done.back)) == ([0], [2])
    assert done.worker_died


def test_after_the_controllers_death_the_spool_tells(bench: Bench, toy: CodeRef, tmp_path: Path) -> None:
    cells = bench.cells("row", "error", {"do": "wait", "path": str(tmp_path / "go")}, "row")
    batch = bench.start(bench.spec(toy), cells)
    pid = wait_for(lambda: (tmp_path / "go.here").exists() and (tmp_path / "go.here").read_text(), "the cell to wait")
    folder = bench.path(batch)
    wait_for(lambda: sum(len(f.ok) + len(f.ends) for f in read_spool(folder / "cells.spool")[0]) == 2, "the spool")
    copy = tmp_path / batch.dir
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    with open(copy / "cells.spool", "ab") as f:
        f.write(b'0000abcd {"ok":[1')  # torn
    found = bench.pool.collect(copy, cells)
    assert (found.nonce, _places(found.ok), _places(found.back)) == (batch.nonce, [0], [2, 3])
    assert ends(found) == [(1, "failed", "error", "ValueError: odd 1")]
    assert [r["x"] for r in rows(found)] == [0]
    assert verify_manifest(RunDir(copy)) == []
    os.kill(int(pid), signal.SIGKILL)
    bench.wait(batch)
    # A batch that was sealed before its controller died is whole; one that never began is not there.
    batch = bench.start(bench.spec(toy), bench.cells("row", "error"))
    done = bench.wait(batch)
    found = bench.pool.collect(bench.path(batch), batch.cells)
    assert (found.ok, found.ends, found.back, found.tables) == (done.ok, done.ends, done.back, done.tables)
    assert found.manifest == done.manifest
    nothing = bench.pool.collect(tmp_path / "5000-00000000", bench.cells("row"))
    assert (nothing.ok, nothing.ends, len(nothing.back), nothing.manifest) == ([], [], 1, None)


def test_a_folder_that_cannot_be_made_fails_a_cell_and_not_the_pool(bench: Bench, toy: CodeRef) -> None:
    bench.home.batches.rename(bench.home.path / "away")
    try:
        done = bench.run(bench.spec(toy), "row", "row")
        assert ends(done)[0][:3] == (0, "failed", "setup")
        assert _places(done.back) == [1]
    finally:
        (bench.home.path / "away").rename(bench.home.batches)
    assert len(bench.run(bench.spec(toy), "row").ok) == 1


def test_idle_workers_are_ended(bench: Bench, toy: CodeRef, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = bench.spec(toy, env={"OWN": "crew"})
    bench.run(spec, "row")
    crew = bench.pool.crew("idle", spec)
    bench.pool.tick()
    assert bench.pool.free(crew) == 1
    with monkeypatch.context() as patch:
        patch.setattr(module, "IDLE_S", -1.0)
        bench.pool.tick()
    assert bench.pool.free(crew) == 0
    assert len(bench.run(spec, "row").ok) == 1
