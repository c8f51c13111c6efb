"""The parts that need no worker: batch sizes, the spool, which specs can be pooled."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from core.home import Home
from lanes.pool.crew import crew_key, why_not
from lanes.pool.sizer import FIRST, GROWTH, MOST, TARGET_S, Sizer
from lanes.pool.spool import Frame, SpoolWriter, end_of, end_row, read_spool
from lanes.pool.types import CellEnd, TableBytes
from lanes.pool.words import CELL, PROTOCOL, SINCE, Words


def test_batches_grow_towards_their_target_and_no_faster() -> None:
    sizer = Sizer()
    assert sizer.next() == FIRST
    sizes, n = [], sizer.next()
    for _ in range(6):
        sizer.measured(n, n * 1e-6)
        n = sizer.next()
        sizes.append(n)
    assert sizes[:2] == [FIRST * GROWTH, min(MOST, FIRST * GROWTH**2)]
    assert sizes[-1] == min(MOST, int(TARGET_S / 1e-6))


@pytest.mark.parametrize(("per_cell", "size"), [(1.0, 1), (0.01, 3), (1e-9, MOST), (0.0, MOST)])
def test_the_size_follows_what_cells_take(per_cell: float, size: int) -> None:
    sizer = Sizer()
    for _ in range(20):
        n = sizer.next()
        sizer.measured(n, n * per_cell)
    assert sizer.next() == pytest.approx(size, abs=1)


def test_slower_cells_are_believed_at_once() -> None:
    sizer = Sizer()
    for _ in range(5):
        sizer.measured(sizer.next(), sizer.next() * 1e-5)
    sizer.measured(4, 4.0)
    assert sizer.next() == 1
    sizer.measured(0, 0.0)
    assert sizer.next() == 1


def _frame(first: int) -> Frame:
    end = CellEnd(first + 2, 1, *_states(), "it broke\nbadly", 0.5, ("/a",))
    tables = {"t": TableBytes(b"\n{}binary\0" * 3, 2, first, first + 1)}
    return Frame([first, first + 1], [end_row(end)], tables, 0.25)


def _states() -> tuple[object, object]:
    from core.states import AttemptState, Cause

    return AttemptState.FAILED, Cause.ERROR


def test_a_torn_spool_tells_all_that_came_before(tmp_path: Path) -> None:
    path = tmp_path / "s"
    spool = SpoolWriter(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    spool.append(_frame(1))
    one = spool.size
    spool.append(_frame(11))
    listed = spool.close()
    whole = path.read_bytes()
    assert listed[1] == len(whole)
    frames, size = read_spool(path)
    assert (frames, size) == ([_frame(1), _frame(11)], len(whole))
    assert end_of(frames[0].ends[0]).undeclared == ("/a",)
    for cut in range(one, len(whole)):
        path.write_bytes(whole[:cut])
        assert read_spool(path) == ([_frame(1)], one)
    path.write_bytes(whole[: one + 40] + b"X" + whole[one + 41 :])
    assert read_spool(path) == ([_frame(1)], one)
    assert read_spool(tmp_path / "none") == ([], 0)


def test_words_are_shared_through_the_file(tmp_path: Path) -> None:
    mine = Words(tmp_path / "w", create=True)
    theirs = Words(tmp_path / "w")
    assert mine.running(0) is None
    theirs.view[2], theirs.view[SINCE], theirs.view[CELL] = 5, 123, 7
    assert mine.running(5) == (7, 123)
    assert mine.running(4) is None
    theirs.close()
    assert mine.running(5) == (7, 123), "it can be read after the worker's death"
    mine.close()


def _spec(**changes: object) -> dict[str, object]:
    return {
        "kind": "k",
        "entry": "m:K",
        "version": 1,
        "python": sys.executable,
        "env": {},
        "packages": {},
        "needs": {"cores": 1, "gpus": 0},
        "code": None,
        "kind_code": {"store": "s1", "digest": "d"},
        "inputs": [],
        "outputs": [],
        "expect": {},
        **changes,
    }


def test_what_can_be_pooled(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert "no warm workers" in why_not(home, _spec())
    words = home.code / "s1" / "lanes" / "pool" / "words.py"
    words.parent.mkdir(parents=True)
    words.write_text(f"\nPROTOCOL = {PROTOCOL + 1}\n")
    assert "another version" in why_not(home, _spec())
    words.write_text("\nPROTOCOL = 2\n")
    assert "another version" in why_not(home, _spec()), "its worker knows no spare folders and no socket"
    words.write_text(f"\nPROTOCOL = {PROTOCOL}\n")
    assert why_not(home, _spec()) == ""
    assert "interpreter" in why_not(home, _spec(python="/usr/bin/python3"))
    assert "GPU" in why_not(home, _spec(needs={"cores": 1, "gpus": 1}))
    assert "output" in why_not(home, _spec(outputs=["a"]))
    assert "code" in why_not(home, _spec(code={"store": "x"}))
    assert "artifacts" in why_not(home, _spec(expect={"artifacts": ["a"]}))
    assert "100 MiB" in why_not(home, _spec(needs={"cores": 1, "gpus": 0, "memory_mb": 100}))
    folder = {"name": "d", "path": "/x", "sha256": "", "tree": True}
    assert "'d'" in why_not(home, _spec(inputs=[folder]))


def test_who_shares_a_crew() -> None:
    assert crew_key(_spec()) == crew_key(_spec(inputs=[{"name": "other"}], limits={"time_s": 3}))
    changes: list[dict[str, object]] = [{"kind_code": {"store": "s2", "digest": "d"}}, {"env": {"A": "1"}}]
    changes += [{"needs": {"cores": 2, "gpus": 0}}, {"entry": "m:L"}, {"packages": {"numpy": "1"}}]
    for change in changes:
        assert crew_key(_spec(**change)) != crew_key(_spec())
