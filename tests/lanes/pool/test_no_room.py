"""A batch whose run directory cannot be made, and one that was written down twice: what becomes of its cells."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from lanes import decide
from lanes.dispatch import Dispatch, Flight
from lanes.pool import keep
from lanes.pool.columns import Columns
from lanes.pool.ends import done_of
from lanes.pool.folder import Spare
from lanes.pool.recover import recover
from lanes.pool.spool import Frame, SpoolWriter
from lanes.pool.types import Batch, BatchDone, Cell, TableBytes

CELLS = tuple(Cell(job, 1, f"{job:064x}", "{}") for job in (1, 2, 3))


def _batch() -> Batch:
    return Batch("0" * 8, "1-00000000", "local", "d", {"kind": "toy"}, {}, CELLS)


def _begun(folder: Path, spare: Spare) -> tuple[bool, BatchDone]:
    """What a worker answers for a batch that it could not begin."""
    order = {"nonce": "0" * 8, "dir": "1-00000000", "lane": "local", "spec_digest": "d", "grant": {}}
    keeper = keep.Keeper({**order, "folder": str(folder)}, CELLS, Columns({}), lambda: "", spare)
    return keeper.begin(b"{}", b"{}"), done_of(_batch(), keeper.end(0.0))


def _full(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_no_cell_fails_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare = Spare(str(tmp_path / ".spare" / "1"))
    monkeypatch.setattr(spare, "take", _full)
    began, done = _begun(tmp_path / "1-00000000", spare)
    assert (began, done.ok, done.ends, done.back, done.no_room) == (False, [], [], [1, 2, 3], True)
    # Later, when there was room for the folder and none for what is in it: nothing is left of it.
    spare = Spare(str(tmp_path / ".spare" / "2"))
    monkeypatch.setattr(keep, "fill", lambda fd, _blob: os.close(fd) or _full())
    began, done = _begun(tmp_path / "1-00000000", spare)
    assert (began, done.ends, done.back, done.no_room) == (False, [], [1, 2, 3], True)
    assert not (tmp_path / "1-00000000").exists()


def test_another_reason_is_said_by_one_cell(tmp_path: Path) -> None:
    (tmp_path / "1-00000000").mkdir()
    began, done = _begun(tmp_path / "1-00000000", Spare(str(tmp_path / ".spare" / "1")))
    assert (began, [e.job for e in done.ends], done.back, done.no_room) == (False, [1], [2, 3], False)


@pytest.mark.parametrize("full", [True, False])
def test_nothing_is_placed_until_there_is_room(full: bool) -> None:
    released: list[bool] = []
    mirror = SimpleNamespace(
        listeners=[],
        books={},
        crowded=False,
        home=SimpleNamespace(path="/home"),
        journal=SimpleNamespace(release_reserve=lambda: released.append(True)),
    )
    dispatch = Dispatch(mirror, SimpleNamespace())  # type: ignore[arg-type]
    dispatch.flights["0" * 8] = Flight(_batch(), None, [[1, 3, 1]])
    done = BatchDone("0" * 8, [], [], [1, 2, 3], {}, 0.0, None, no_room=full)
    dispatch.take(done)
    assert mirror.crowded is full
    assert released == [True] * full, "room is only there again when the reserve fits as well"
    verdict = decide.conclude_batch(done, decide.Known(1, "local", {1: 1, 2: 1, 3: 1}, {}))
    assert (verdict.back, verdict.ended, verdict.ok) == ([1, 2, 3], [], [])


def _rows(*jobs: int) -> dict[str, TableBytes]:
    table = pa.table({"job": pa.array(jobs, pa.int64()), "attempt": pa.array([1] * len(jobs), pa.int32())})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return {"t": TableBytes(sink.getvalue().to_pybytes(), len(jobs), min(jobs), max(jobs))}


def test_what_a_spool_says_twice_counts_once(tmp_path: Path) -> None:
    failed = [3, 1, "failed", "error", "odd", 0.1, []]
    fd = os.open(tmp_path / "cells.spool", os.O_CREAT | os.O_WRONLY)
    spool = SpoolWriter(fd)
    spool.append(Frame([1], [], _rows(1), 0.1))
    spool.append(Frame([1, 2], [], _rows(1, 2), 0.2))
    spool.append(Frame([2], [failed], _rows(2), 0.3))
    spool.append(Frame([3], [failed], _rows(3), 0.4))
    spool.close()
    done = recover(tmp_path, "0" * 8, CELLS)
    assert (done.ok, [e.job for e in done.ends], done.back) == ([1, 2], [3], [])
    table = done.tables["t"]
    assert pa.ipc.open_stream(table.data).read_all().column("job").to_pylist() == [1, 2]
    assert (table.rows, table.first, table.last) == (2, 1, 2)
