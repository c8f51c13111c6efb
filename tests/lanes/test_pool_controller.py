"""Pooled cells under a real controller: limits, cancel, recovery; each cell ends once and has one row."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.home import Home
from core.journal import Journal, Role, query
from core.states import Cause, JobState
from core.states import EventKind as K
from lanes.start import controller_alive, ensure_controller, wake
from tests.lanes.cells import Submitter, ask, check_cells, counts, grid, rows, wait_end
from tests.support import controller_pid, end_all, guardian_pid, job, kill, lab, pids, tail, wait_for

import toysweep  # isort: skip

S = JobState


@pytest.fixture
def sub(shared_home: Home) -> Submitter:
    return Submitter(shared_home, toysweep.Toy())


def test_many_cells_with_failures_and_deaths(shared_home: Home, sub: Submitter, tmp_path: Path) -> None:
    cells = grid(400, fail=[10, 200, 399], die=[300], die_once=[3, 4])
    for i in (3, 4):
        cells[i]["mark"] = str(tmp_path / f"died-{i}")
    s = sub.sweep(cells)
    end = wait_end(shared_home, s)
    assert (end.state, end.reason) == (S.FAILED, "4 of 400 cells failed")
    check_cells(shared_home, s, dict.fromkeys((10, 200, 399, 300), S.FAILED))
    assert counts(shared_home, s) == {"succeeded": 396, "failed": 4}
    once, for_ever = job(shared_home, s + 4), job(shared_home, s + 301)
    assert (once.state, once.attempts) == (S.SUCCEEDED, 2)
    assert (for_ever.attempts, for_ever.cause) == (4, Cause.RUNNER_DIED)
    assert "retried 3 times" in str(for_ever.reason)
    assert job(shared_home, s + 11).attempts == 1
    with Journal.open(shared_home) as journal:
        placed = [e for e in query.events(journal.conn) if e.kind == K.BATCH_PLACED and s < e.data["cells"][0][0]]
    assert len(placed) < 80, "cells ran in batches"


def test_max_fails(shared_home: Home, sub: Submitter) -> None:
    cells = grid(400, fail=range(400))
    s = sub.sweep(cells, max_fails=3)
    end = wait_end(shared_home, s)
    states = check_cells(shared_home, s)
    assert states[S.FAILED] > 3
    assert states[S.SKIPPED] > 0, "what had not begun did not begin"
    assert (end.state, end.cause) == (S.FAILED, Cause.ERROR)
    assert "more than 3 failures" in str(end.reason)
    with Journal.open(shared_home) as journal:
        skipped = query.cells(journal.conn, s, states=(S.SKIPPED,), limit=1)[0]
    assert skipped.cause == Cause.MAX_FAILS
    # The twins: as many as are allowed stop nothing, and without a bound all of them run.
    exact = sub.sweep(grid(40, fail=range(3)), max_fails=3)
    wait_end(shared_home, exact)
    assert check_cells(shared_home, exact) == {S.SUCCEEDED: 37, S.FAILED: 3}
    free = sub.sweep(grid(40, fail=range(40)))
    wait_end(shared_home, free)
    assert check_cells(shared_home, free) == {S.FAILED: 40}


def test_nothing_is_sent_once_too_many_failed(shared_home: Home, sub: Submitter) -> None:
    """One cell at a time: the bound is met exactly."""
    cells = [{"i": i, "do": "fail", "s": 0.0} for i in range(64)]
    s = sub.sweep(cells, max_fails=0, at_once=1)
    wait_end(shared_home, s)
    with Journal.open(shared_home) as journal:
        batches = [
            e for e in query.events(journal.conn) if e.kind == K.BATCH_PLACED and s < e.data["cells"][0][0] <= s + 64
        ]
    assert len(batches) == 1
    check_cells(shared_home, s)


def test_cancel_of_one_cell_leaves_the_others(shared_home: Home, sub: Submitter, tmp_path: Path) -> None:
    go = tmp_path / "go"
    cells = [{"i": i, "do": "wait", "mark": str(go)} for i in range(4)]
    s = sub.sweep(cells, at_once=1)
    wait_for(lambda: list(tmp_path.glob("go.*")), f"a cell to run\n{tail(shared_home)}")
    running = s + 1 + int(next(iter(tmp_path.glob("go.*"))).suffix[1:])
    ask(shared_home, K.CANCEL_ASKED, running)
    wait_for(lambda: job(shared_home, running).state is S.CANCELLED, f"the cancel\n{tail(shared_home)}")
    go.touch()
    end = wait_end(shared_home, s)
    assert (end.state, end.reason) == (S.FAILED, "1 of 4 cells was cancelled")
    assert check_cells(shared_home, s, {running - s - 1: S.CANCELLED})[S.SUCCEEDED] == 3


def test_pooled_jobs_that_belong_to_no_sweep(shared_home: Home, sub: Submitter) -> None:
    made = [sub.job({"i": i, "do": "fail" if i == 5 else "fine"}) for i in range(20)]
    for i, j in enumerate(made):
        assert wait_end(shared_home, j).state is (S.FAILED if i == 5 else S.SUCCEEDED)
    found = rows(shared_home, "toy", made[0], made[-1])
    assert sorted(r["i"] for r in found) == [i for i in range(20) if i != 5]
    held = sub.job({"i": 1}, held=True)
    after = sub.job({"i": 2}, after=[["ok", held]])
    ask(shared_home, K.RELEASE_ASKED, held)
    assert wait_end(shared_home, after).state is S.SUCCEEDED


def test_pooled_jobs_that_come_one_after_the_other(shared_home: Home, sub: Submitter) -> None:
    """Each is submitted while those before it are being placed: none is placed twice, a cancel finds its own."""
    made = []
    for i in range(60):
        made.append(sub.job({"i": i}))
        wake(shared_home)
        if i % 20 == 7:
            ask(shared_home, K.CANCEL_ASKED, made[-1])
    states = [wait_end(shared_home, j).state for j in made]
    assert [s for i, s in enumerate(states) if i % 20 != 7] == [S.SUCCEEDED] * 57
    assert {states[i] for i in (7, 27, 47)} <= {S.SUCCEEDED, S.CANCELLED}
    with Journal.open(shared_home) as journal:
        events = list(query.events(journal.conn))
    spans = [c for e in events if e.kind == K.BATCH_PLACED for c in e.data["cells"]]
    # What a slow worker had not begun when the time of its batch was up went back, and was placed again: that is right.
    back = [c for e in events if e.kind == K.BATCH_ENDED for c in e.data["back"]]
    times = {j: sum(a <= j <= b for a, b, _ in spans) - sum(a <= j <= b for a, b, _ in back) for j in made}
    assert {j: n for j, n in times.items() if n > 1} == {}
    assert "a bug of ours" not in tail(shared_home)


def test_what_the_pool_refuses_runs_by_itself(shared_home: Home, tmp_path: Path) -> None:
    from core.fsio import sha256_file

    data = tmp_path / "data.txt"
    data.write_text("x")
    item = {"name": "d", "path": str(data), "dest": "d.txt", "sha256": sha256_file(data), "size": 1}
    s = Submitter(shared_home, toysweep.Toy(), inputs=[item]).sweep(grid(2))
    assert wait_end(shared_home, s).state is S.SUCCEEDED
    check_cells(shared_home, s)
    assert shared_home.run_dir(s + 1, 1).path.is_dir()
    with Journal.open(shared_home) as journal:
        assert [e.kind for e in query.events(journal.conn, job_id=s + 1)].count(K.PLACED) == 1


def test_time_limit_of_a_cell(shared_home: Home) -> None:
    sub = Submitter(shared_home, toysweep.Toy(), limits={"time_s": 0.5})
    s = sub.sweep([{"i": 0}, {"i": 1, "s": 60.0}, {"i": 2}])
    wait_end(shared_home, s)
    check_cells(shared_home, s, {1: S.FAILED})
    assert job(shared_home, s + 2).cause == Cause.TIME_LIMIT


# Kill -9 in the middle.

pytestmark = [pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Home, Path, Submitter]]:
    folder = Path(tempfile.mkdtemp(prefix="lab-pool-kills-"))
    home, points = Home(folder / "home"), folder / "points"
    points.mkdir()
    os.environ["LAB_FAILPOINTS"] = str(points)
    try:
        home.create()
        Journal.open(home, Role.CLIENT, create=True).close()
        yield home, points, Submitter(home, toysweep.Toy())
    finally:
        del os.environ["LAB_FAILPOINTS"]
        end_all(home)
        shutil.rmtree(home.runtime, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def victims(home: Home, who: str) -> list[int]:
    if who == "controller":
        return [controller_pid(home)]
    if who == "both":
        return [guardian_pid(home), controller_pid(home)]
    words = {"raylet": "raylet/raylet", "gcs": "gcs_server", "worker": "ray::PoolWorker"}[who]
    return wait_for(lambda: pids(home, words), f"a {who}\n{tail(home)}")


def under_way(home: Home, sweep: int, at_least: int) -> None:
    wait_for(lambda: counts(home, sweep).get("succeeded", 0) >= at_least, f"{at_least} cells\n{tail(home)}")


# Each death costs a start of Ray: that the next one after it is survived too is shown with one of them, and for the
# controller a dead gcs is what a dead raylet is.
DEATHS = [("controller", 2), ("both", 1), ("raylet", 1), ("worker", 2)]
MORE_DEATHS = [pytest.param(who, 2, marks=pytest.mark.long) for who in ("both", "raylet", "gcs")]


@pytest.mark.kill
@pytest.mark.parametrize(("who", "times"), [*DEATHS, *MORE_DEATHS])
def test_killed_in_the_middle(world: tuple[Home, Path, Submitter], who: str, times: int) -> None:
    home, _, sub = world
    rng = random.Random(who)
    n = 600
    cells = grid(n, fail=[5, n - 5])
    for c in cells:
        c["s"] = 0.002
    s = sub.sweep(cells)
    ensure_controller(home)
    wake(home)
    for _ in range(times):
        seen = counts(home, s).get("succeeded", 0)
        under_way(home, s, min(n - 100, seen + rng.randint(20, 150)))
        for pid in victims(home, who)[: 1 if who == "worker" else None]:
            kill(pid)
        if who == "both":
            wait_for(lambda: not controller_alive(home), "the controller to be gone")
            ensure_controller(home)
    end = wait_end(home, s)
    assert (end.state, end.reason) == (S.FAILED, "2 of 600 cells failed")
    check_cells(home, s, {5: S.FAILED, n - 5: S.FAILED})


POINTS = [
    "controller.after_batches",
    "journal.before_commit.controller",
    "journal.after_commit.controller",
    # For the journal the same as before a commit, and a moment like any other.
    *(pytest.param(point, marks=pytest.mark.long) for point in ("controller.before_batches", "controller.tick")),
]


@pytest.mark.kill
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_known_place(world: tuple[Home, Path, Submitter], point: str) -> None:
    home, points, sub = world
    cells = [{"i": i, "s": 0.002} for i in range(200)]
    s = sub.sweep(cells)
    ensure_controller(home)
    wake(home)
    under_way(home, s, 5)
    (points / point).touch()
    wait_for(lambda: not (points / point).exists(), f"{point} to be reached\n{tail(home)}")
    assert wait_end(home, s).state is S.SUCCEEDED
    check_cells(home, s)


@pytest.mark.kill
def test_down_and_up_in_the_middle(world: tuple[Home, Path, Submitter]) -> None:
    home, _, sub = world
    s = sub.sweep([{"i": i, "s": 0.005} for i in range(300)])
    ensure_controller(home)
    wake(home)
    under_way(home, s, 20)
    with Journal.open(home, Role.CLIENT) as journal, journal.transaction() as tx:
        tx.append(K.DOWN_ASKED, data={"kill": False})
    wake(home)
    wait_for(lambda: not controller_alive(home), f"the controller to go down\n{tail(home)}")
    assert not pids(home, "raylet")
    with Journal.open(home) as journal:
        assert query.open_batches(journal.conn) == [], "nothing is left half done"
    ensure_controller(home)
    wait_end(home, s)
    check_cells(home, s)


@pytest.mark.kill
def test_cancelled_and_killed(world: tuple[Home, Path, Submitter]) -> None:
    home, _, sub = world
    s = sub.sweep([{"i": i, "s": 0.01} for i in range(400)])
    ensure_controller(home)
    wake(home)
    under_way(home, s, 10)
    ask(home, K.CANCEL_ASKED, s)
    time.sleep(random.Random(1).uniform(0, 0.01))
    kill(controller_pid(home))
    assert wait_end(home, s).state is S.CANCELLED
    states = check_cells(home, s)
    assert set(states) == {S.SUCCEEDED, S.CANCELLED}


@pytest.mark.kill
def test_the_check_can_fail(world: tuple[Home, Path, Submitter], tmp_path: Path) -> None:
    """The twin: a row too few, a row too many, and a second terminal record are each noticed."""
    home, _, sub = world
    s = sub.sweep(grid(30))
    ensure_controller(home)
    wake(home)
    wait_end(home, s)
    check_cells(home, s)
    harms = [
        f"DELETE FROM part WHERE first > {s} AND id = (SELECT max(id) FROM part)",
        f"""INSERT INTO part SELECT id + 77, tbl, path, rows, bytes, sha256, first, last, attempt FROM part
            WHERE id = (SELECT max(id) FROM part); INSERT INTO payload SELECT id + 77, data FROM payload
            WHERE id = (SELECT max(id) FROM payload WHERE {s})""",
        f"""INSERT INTO event SELECT max(seq) + 1, 0, 'job-ended', {s + 3}, NULL, NULL, '{{"state": "succeeded"}}'
            FROM event""",
    ]
    for n, harm in enumerate(harms):
        other = Home(tmp_path / str(n))
        other.create()
        source, copy = sqlite3.connect(home.journal), sqlite3.connect(other.journal)
        source.backup(copy)
        copy.executescript(harm)
        copy.close()
        source.close()
        other.tables.rmdir()
        other.tables.symlink_to(home.tables)
        shutil.copy(home.witness, other.witness)
        with pytest.raises(AssertionError):
            check_cells(other, s)


def test_lab_up_knows_nothing_of_all_this(shared_home: Home) -> None:
    """After everything above the shared controller still answers."""
    assert lab(shared_home, "status").returncode == 0
