"""A sweep over two lanes under a real controller: the longest cells first, each cell once, and what was learned."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.home import Home
from core.journal import Journal, query
from core.states import EventKind as K
from core.states import JobState, LaneState
from lanes.ends import read_ends
from lanes.start import ensure_controller
from tests.lanes.cells import Submitter, ask, check_cells, counts, wait_end
from tests.support import controller_pid, end_all, kill, tail, wait_for

import toysweep  # isort: skip

CLUSTER = "lanes:\n  left: {transport: local, cores: 1}\n  right: {transport: local, cores: 1}\n"


@contextlib.contextmanager
def living(folder: Path, cluster: str) -> Iterator[Home]:
    (folder / "cluster.yaml").write_text(cluster)
    home = Home(folder / "home", folder / "cluster.yaml")
    home.create()
    ensure_controller(home)
    try:
        wait_for(lambda: all_up(home), f"both lanes\n{tail(home)}")
        yield home
    finally:
        end_all(home)


def all_up(home: Home) -> bool:
    if not home.journal.exists():
        return False
    with Journal.open(home) as journal:
        return [lane.state for lane in query.lanes(journal.conn)] == [LaneState.UP, LaneState.UP]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with living(tmp_path, CLUSTER) as home:
        yield home


def overtakings(order: list[int], seconds: list[float]) -> int:
    """Pairs of a long cell and a short one that stands before it in the grid and begins after it."""
    short = {i for i in order if seconds[i] < 0.2}
    return sum(j < i and j in short for at, i in enumerate(order) if i not in short for j in order[at + 1 :])


def test_long_cells_go_first_and_both_lanes_work(home: Home) -> None:
    seconds = [(0.05, 0.05, 0.05, 0.4)[i % 4] for i in range(120)]
    sub = Submitter(home, toysweep.Toy())
    sweep = sub.sweep([{"i": i, "s": s} for i, s in enumerate(seconds)])
    assert wait_end(home, sweep).state is JobState.SUCCEEDED
    check_cells(home, sweep)
    assert counts(home, sweep) == {"succeeded": 120}
    with Journal.open(home) as journal:
        placed = [e for e in query.events(journal.conn) if e.kind == K.BATCH_PLACED]
        speeds = read_ends(journal.conn)
    order = [i - sweep - 1 for e in placed for a, b, _ in e.data["cells"] for i in range(a, b + 1)]
    assert {e.lane for e in placed} == {"left", "right"}
    # Once it is known which are the long ones, they do not wait behind the short ones: a long one begins before short
    # ones that stand before it in the grid. (When all begin at once depends on how alike the lanes turn out to be.)
    assert overtakings(order, seconds) > 30, order
    assert overtakings(sorted(order), seconds) == 0  # in the grid's order
    assert speeds.known_from("left", "toy-pooled")
    # What is alike comes out alike.
    ratio = speeds.slowness("left", "toy-pooled").log - speeds.slowness("right", "toy-pooled").log
    assert abs(ratio) < 1.0


def stuck(home: Home, tmp_path: Path, **more: Any) -> tuple[int, int, Path]:
    """A sweep whose last cell is stuck where it runs first. Returns sweep, that cell, and the file that lets it go."""
    mark = tmp_path / "go"
    sub = Submitter(home, toysweep.Toy(), **more)
    cells = [{"i": i, "s": 0.05} for i in range(40)]
    sweep = sub.sweep([*cells, {"i": 40, "s": 0.05, "do": "stuck-once", "mark": str(mark)}])
    return sweep, sweep + 41, mark


def batches_of(home: Home, cell: int) -> list[tuple[str, str, str]]:
    """(what, lane, reason) of each batch event that speaks of this cell, in order."""
    out = []
    with Journal.open(home) as journal:
        for e in query.events(journal.conn):
            if e.kind == K.BATCH_PLACED:
                what = "placed" if has(e.data["cells"], cell) else ""
            elif e.kind == K.BATCH_ENDED:
                what = "ok" if has(e.data["ok"], cell) else "back" if has(e.data["back"], cell) else ""
            else:
                continue
            if what:
                out.append((what, str(e.lane), str(e.data.get("reason", ""))))
    return out


def has(runs: list[list[int]], cell: int) -> bool:
    return any(a <= cell <= b for a, b, _ in runs)


def test_what_holds_up_the_end_is_started_once_more(home: Home, tmp_path: Path) -> None:
    """A cell is stuck on its lane; the other lane is free, runs it again, and the sweep ends. It counts once."""
    sweep, cell, mark = stuck(home, tmp_path)
    assert wait_end(home, sweep).state is JobState.SUCCEEDED
    assert not mark.exists()
    check_cells(home, sweep)
    assert counts(home, sweep) == {"succeeded": 41}
    said = batches_of(home, cell)
    assert [what for what, _, _ in said] == ["placed", "back", "placed", "ok"], said
    first, second = said[0][1], said[2][1]
    assert {first, second} == {"left", "right"}
    assert said[1] == ("back", first, f"a second copy on lane {second} ended first")
    assert said[3][1] == second
    with Journal.open(home) as journal:
        attempts = query.attempts(journal.conn, cell)
    assert [(a.n, a.lane, a.state) for a in attempts] == [(1, second, "succeeded")]
    # The loser is stopped, and both lanes take the next sweep.
    again = Submitter(home, toysweep.Toy()).sweep([{"i": i, "s": 0.05} for i in range(100, 140)])
    assert wait_end(home, again).state is JobState.SUCCEEDED
    with Journal.open(home) as journal:
        late = [e for e in query.events(journal.conn) if e.kind == K.BATCH_PLACED and e.data["cells"][0][0] > again]
    assert {e.lane for e in late} == {"left", "right"}


@pytest.mark.long  # test_twins has it with a clock that is set by hand
def test_a_batch_of_several_cells_is_overtaken_too(home: Home, tmp_path: Path) -> None:
    """A worker begins no new cell after a while: the copy brings back part of its cells, and that part counts."""
    mark = tmp_path / "go"
    cells: list[dict[str, Any]] = [{"i": i, "s": 0.06} for i in range(120)]
    cells[40] |= {"do": "stuck-once", "mark": str(mark)}
    sweep = Submitter(home, toysweep.Toy()).sweep(cells)
    assert wait_end(home, sweep).state is JobState.SUCCEEDED
    assert not mark.exists()
    check_cells(home, sweep)
    assert counts(home, sweep) == {"succeeded": 120}


def test_a_cell_that_may_only_go_to_one_lane_runs_once(tmp_path: Path) -> None:
    """The negative twin: nothing is doubled where it may not go. Beside it another sweep gets its second copy, so
    there was time for it, and room."""
    with living(tmp_path, CLUSTER.replace("cores: 1", "cores: 2")) as home:
        pinned, cell, mark = stuck(home, tmp_path, needs={"lane": "left"})
        wait_for((tmp_path / "go.40").exists, "the cell to be stuck")
        (tmp_path / "other").mkdir()
        other, _, _ = stuck(home, tmp_path / "other")
        assert wait_end(home, other).state is JobState.SUCCEEDED
        assert batches_of(home, cell) == [("placed", "left", "")]
        mark.touch()
        assert wait_end(home, pinned).state is JobState.SUCCEEDED
        assert batches_of(home, cell) == [("placed", "left", ""), ("ok", "left", "")]


def test_a_cell_with_a_second_copy_can_be_cancelled(home: Home, tmp_path: Path) -> None:
    """Both copies are stuck: the cell is cancelled once, both are stopped, and both lanes are free again."""
    mark = tmp_path / "go"
    sub = Submitter(home, toysweep.Toy(), limits={"grace_s": 0.2})
    cells: list[dict[str, Any]] = [{"i": i, "s": 0.05} for i in range(40)]
    sweep = sub.sweep([*cells, {"i": 40, "s": 0.05, "do": "wait", "mark": str(mark)}])
    wait_for(lambda: "a second copy of it begins" in tail(home), "a second copy")
    ask(home, K.CANCEL_ASKED, sweep)
    assert wait_end(home, sweep).state is JobState.CANCELLED
    found = counts(home, sweep)  # a cell that waited behind the stuck one in its batch is cancelled with it
    assert found["succeeded"] + found["cancelled"] == 41
    assert found["cancelled"] <= 4
    assert [what for what, _, _ in batches_of(home, sweep + 41)] == ["placed"]
    again = Submitter(home, toysweep.Toy()).sweep([{"i": i, "s": 0.05} for i in range(100, 140)])
    assert wait_end(home, again).state is JobState.SUCCEEDED
    check_cells(home, again)


def test_a_controller_that_dies_with_two_copies_leaves_one_result(home: Home, tmp_path: Path) -> None:
    mark = tmp_path / "go"
    sub = Submitter(home, toysweep.Toy())
    cells: list[dict[str, Any]] = [{"i": i, "s": 0.05} for i in range(40)]
    sweep = sub.sweep([*cells, {"i": 40, "s": 0.05, "do": "wait", "mark": str(mark)}])
    wait_for(lambda: "a second copy of it begins" in tail(home), "a second copy")
    kill(controller_pid(home))
    mark.touch()
    assert wait_end(home, sweep).state is JobState.SUCCEEDED
    check_cells(home, sweep)
    assert counts(home, sweep) == {"succeeded": 41}
