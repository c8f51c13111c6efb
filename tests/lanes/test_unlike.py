"""A sweep over two lanes under a real controller: the longest cells first, each cell once, and what was learned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.home import Home
from core.journal import Journal, query
from core.states import EventKind as K
from core.states import JobState
from lanes.ends import read_ends
from lanes.start import ensure_controller
from tests.lanes.cells import Submitter, check_cells, counts, wait_end
from tests.support import end_all

import toysweep  # isort: skip

CLUSTER = "lanes:\n  left: {transport: local, cores: 1}\n  right: {transport: local, cores: 1}\n"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    home = Home(tmp_path / "home", tmp_path / "cluster.yaml")
    home.create()
    ensure_controller(home)
    yield home
    end_all(home)


def test_long_cells_go_first_and_both_lanes_work(home: Home) -> None:
    seconds = [(0.05, 0.05, 0.05, 0.8)[i % 4] for i in range(60)]
    sub = Submitter(home, toysweep.Toy())
    sweep = sub.sweep([{"i": i, "s": s} for i, s in enumerate(seconds)])
    assert wait_end(home, sweep).state is JobState.SUCCEEDED
    check_cells(home, sweep)
    assert counts(home, sweep) == {"succeeded": 60}
    with Journal.open(home) as journal:
        placed = [e for e in query.events(journal.conn) if e.kind == K.BATCH_PLACED]
        speeds = read_ends(journal.conn)
    order = [i - sweep - 1 for e in placed for a, b, _ in e.data["cells"] for i in range(a, b + 1)]
    assert {e.lane for e in placed} == {"left", "right"}
    # Once it is known which are the long ones, they do not wait behind the short ones.
    late = [i for i in order[2 * len(order) // 3 :] if seconds[i] > 0.5]
    assert len(late) <= 1, order
    assert speeds.known_from("left", "toy-pooled")
    # What is alike comes out alike.
    ratio = speeds.slowness("left", "toy-pooled").log - speeds.slowness("right", "toy-pooled").log
    assert abs(ratio) < 0.5
