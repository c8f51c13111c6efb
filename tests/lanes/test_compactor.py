"""Compaction: what is chosen, that nothing is lost or doubled, whoever writes, reads or dies meanwhile."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lab
from core.home import Home
from core.journal import Journal, Role
from core.journal.query import Part
from core.states import EventKind as K
from core.tables import query, read_table, stream
from lanes import compactor
from lanes.compactor import INLINE_BYTES, LARGE, MIB, MOST_BYTES, Compactor, Look, choose
from tests.core.pooled import batch, compact, end, sweep

ROOT = Path(lab.__file__).resolve().parent.parent


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def journal(home: Home) -> Iterator[Journal]:
    with Journal.open(home, Role.CONTROLLER, create=True) as journal:
        yield journal


def part(i: int, size: int = 100, *, path: str = "x", table: str = "t", last: int | None = None) -> Part:
    return Part(i, table, path, 1, size, "", i, i if last is None else last, None)


def chosen(looks: list[Look], *, idle: bool = False) -> list[int]:
    found = choose(looks, idle=idle)
    return [p.id for p in found[1]] if found else []


def test_inline_rows_are_chosen_when_it_is_time() -> None:
    young = [Look(part(i, path=""), age=1.0) for i in range(3)]
    assert chosen(young) == chosen(young, idle=True) == []
    quiet = [Look(part(i, path=""), age=6.0) for i in range(3)]
    assert chosen(quiet) == []
    assert chosen(quiet, idle=True) == [0, 1, 2]
    assert chosen([*quiet, *young], idle=True) == []  # something came in just now
    assert chosen([*young, Look(part(9, path=""), age=61.0)]) == [0, 1, 2, 9]
    large = [Look(part(i, INLINE_BYTES // 2, path="")) for i in range(3)]
    assert chosen(large) == [0, 1, 2]
    assert chosen(large[:2]) == []
    ended = [Look(part(i, MIB // 4, path=""), settled=i != 1) for i in range(3)]
    assert chosen(ended) == [0, 2]
    assert chosen(ended[:1]) == []


def test_small_files_are_chosen_when_there_are_many() -> None:
    files = [Look(part(i)) for i in range(70)]
    assert chosen(files) == list(range(70))
    assert chosen(files[:64]) == []
    assert chosen([*files[:64], Look(part(99, LARGE))]) == []
    assert chosen([Look(part(i, 2 * MIB)) for i in range(8)]) == list(range(8))
    assert chosen([Look(part(i, LARGE)) for i in range(1000)]) == []
    two = [Look(part(i, table="a" if i % 2 else "b")) for i in range(130)]
    assert choose(two, idle=False)[0] == "a"  # type: ignore[index]
    assert chosen(two) == list(range(1, 130, 2))


def test_a_merge_is_bounded_and_takes_neighbours() -> None:
    big = [Look(part(i, 60 * MIB)) for i in (5, 3, 1, 2, 4, 6, 8, 7)]
    assert chosen(big) == [1, 2, 3, 4]
    assert sum(60 * MIB for _ in chosen(big)) <= MOST_BYTES


def test_a_row_is_written_a_handful_of_times() -> None:
    """A year of small jobs: how often is each byte written again?"""
    looks: list[Look] = []
    written = total = 0
    size, next_id = 20_000, 0
    for _ in range(20_000):
        next_id += 1
        looks.append(Look(part(next_id, size)))
        total += size
        found = choose(looks, idle=False)
        if found:
            ids = {p.id for p in found[1]}
            merged = sum(p.bytes for p in found[1])
            next_id += 1
            looks = [x for x in looks if x.part.id not in ids] + [Look(part(next_id, merged))]
            written += merged
    assert written / total < 6
    assert len(looks) < 100


def fill(journal: Journal, sweeps: int, cells: int = 40, each: int = 8) -> int:
    """Finished sweeps of small batches. Returns how many rows there are."""
    for _ in range(sweeps):
        with journal.transaction() as tx:
            s = sweep(tx, {"a": list(range(cells))})
            for first in range(s + 1, s + cells + 1, each):
                batch(tx, first, first + each - 1, lambda j: {"v": j * 3})
            end(tx, s)
    return sweeps * cells


def truth(journal: Journal, home: Home) -> list[tuple[int, int]]:
    table = read_table(home, journal.conn)
    return list(zip(table["job"].to_pylist(), table["v"].to_pylist(), strict=True))


def test_compaction_changes_nothing_but_the_place(home: Home, journal: Journal) -> None:
    fill(journal, 3)
    before = truth(journal, home)
    assert compact(journal) == ["t"]
    assert truth(journal, home) == before
    (one,) = journal.conn.execute("SELECT path, rows FROM part").fetchall()
    assert one["rows"] == len(before)
    assert journal.conn.execute("SELECT count(*) FROM payload").fetchone()[0] == 0
    assert compact(journal) == []
    # What lab up does after a crash: the same state follows from the events.
    from core.journal import schema
    from core.journal.apply import replay

    journal.conn.execute("BEGIN")
    schema.drop_state(journal.conn)
    schema.create_state(journal.conn)
    replay(journal.conn)
    assert [tuple(r) for r in journal.conn.execute("SELECT path, rows FROM part")] == [tuple(one)]
    journal.conn.execute("ROLLBACK")


def test_many_plain_parts_become_one(home: Home, journal: Journal) -> None:
    from tests.core.test_tables import append, arrow
    from tests.core.test_tables import commit as commit_plain

    for job in range(1, 71):
        path = arrow(home.path / "run", [{"cell": f"c{job}", "err": float(job)}])
        commit_plain(journal, job, append(journal, job, path))
    before = read_table(home, journal.conn)
    assert compact(journal) == ["parity"]
    assert read_table(home, journal.conn).equals(before)
    assert len(list((home.tables / "parity").iterdir())) == 1


def test_commit_refuses_when_a_part_went_away(home: Home, journal: Journal) -> None:
    fill(journal, 1)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    made = Compactor(home, journal, inbox.put)
    made.maybe(1000.0, True)
    made.maybe(1100.0, True)
    _, _, body = inbox.get(timeout=20)
    gone = body.merged.replaces[0]
    with journal.transaction() as tx:
        tx.append(K.COMPACTED, data={"table": "t", "replaces": [gone.id], "parts": []})
    with journal.transaction() as tx:
        made.commit(tx, body)
    left = journal.conn.execute("SELECT count(*) FROM part WHERE path != ''").fetchone()[0]
    assert left == 0
    assert list((home.tables / "t").iterdir()) == []
    made.finish()


def test_an_uncommitted_merge_is_given_up(home: Home, journal: Journal) -> None:
    fill(journal, 1)
    before = truth(journal, home)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    made = Compactor(home, journal, inbox.put)
    made.maybe(1000.0, True)
    made.maybe(1100.0, True)
    _, _, body = inbox.get(timeout=20)
    assert len(list((home.tables / "t").iterdir())) == 1
    made.maybe(1300.0, True)
    with journal.transaction() as tx:
        made.commit(tx, body)  # too late: nothing is recorded
    assert journal.conn.execute("SELECT count(*) FROM part WHERE path != ''").fetchone()[0] == 0
    made.finish()
    assert truth(journal, home) == before


def test_writers_and_readers_go_on_meanwhile(home: Home, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old files vanish at once here: a reader with the old list must read the new one by itself."""
    monkeypatch.setattr(compactor, "_GRACE_S", 0.0)
    monkeypatch.setattr(compactor, "TIERS", ((LARGE, 2),))
    count, stop = 0, threading.Event()
    trouble: list[Any] = []
    floor = fill(journal, 1)

    def read() -> None:
        try:
            with Journal.open(home) as mine:
                while not stop.is_set():
                    least = floor
                    notes: list[str] = []
                    n = read_table(home, mine.conn, warnings=notes).num_rows
                    m = query(home, mine.conn, "SELECT count(*) n FROM t", warnings=notes)["n"][0].as_py()
                    with stream(home, mine.conn, "SELECT DISTINCT job FROM t", warnings=notes) as rows:
                        k = sum(b.num_rows for b in rows.batches)
                    if notes or min(n, m, k) < least or n % 40 or m % 40:
                        trouble.append((n, m, k, least, notes))
        except BaseException as error:
            trouble.append(repr(error))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    made = Compactor(home, journal, inbox.put)
    now = 0.0
    for _ in range(25):
        floor += fill(journal, 1)
        now += 100.0
        made.maybe(now, True)
        try:
            _, _, body = inbox.get(timeout=2)
        except queue.Empty:
            continue
        with journal.transaction() as tx:
            s = sweep(tx, {"a": [1]})  # another writer's commit comes between the work and its record
            end(tx, s)
        with journal.transaction() as tx:
            made.commit(tx, body)
        count += 1
        made.maybe(now + 10.0, True)
    stop.set()
    for reader in readers:
        reader.join()
    made.finish()
    assert trouble == []
    assert count > 10
    assert read_table(home, journal.conn).num_rows == floor
    assert len(set(truth(journal, home))) == floor
    listed = {r[0] for r in journal.conn.execute("SELECT path FROM part WHERE path != ''")}
    assert {f"t/{p.name}" for p in (home.tables / "t").iterdir()} == listed


_WORK = """
import sys
from core.home import Home
from core.journal import Journal, Role
from tests.core.pooled import compact
from pathlib import Path
with Journal.open(Home(Path(sys.argv[1])), Role.CONTROLLER) as journal:
    compact(journal)
print("whole")
"""


@pytest.mark.parametrize(
    ("place", "new"),
    [
        ("compactor.writing", False),
        ("compactor.written", False),
        ("journal.before_commit.controller", False),
        ("journal.after_commit.controller", True),
        ("compactor.committed", True),
        ("", True),
    ],
)
def test_killed_anywhere_the_old_or_the_new_parts_live(home: Home, tmp_path: Path, place: str, new: bool) -> None:
    with Journal.open(home, Role.CONTROLLER, create=True) as journal:
        fill(journal, 2)
        before = truth(journal, home)
    points = tmp_path / "points"
    points.mkdir()
    if place:
        (points / place).touch()
    env = {**os.environ, "LAB_FAILPOINTS": str(points), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-P", "-c", _WORK, str(home.path)], env=env, capture_output=True, text=True)
    assert (done.returncode == -9) is bool(place), done.stderr
    assert not list(points.iterdir())
    with Journal.open(home, Role.CONTROLLER) as journal:
        notes: list[str] = []
        assert read_table(home, journal.conn, warnings=notes).num_rows == len(before)
        assert notes == []
        assert truth(journal, home) == before
        files = journal.conn.execute("SELECT count(*) FROM part WHERE path != ''").fetchone()[0]
        assert bool(files) is new
        compact(journal)
        assert truth(journal, home) == before
        assert journal.conn.execute("SELECT count(*) FROM payload").fetchone()[0] == 0


def test_a_damaged_file_is_left_alone_and_the_rest_merged(
    home: Home, journal: Journal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        fill(journal, 1)
        compact(journal)
    files = sorted((home.tables / "t").iterdir())
    assert len(files) == 3
    blob = bytearray(files[1].read_bytes())
    blob[len(blob) // 2] ^= 1
    files[1].write_bytes(blob)
    monkeypatch.setattr(compactor, "TIERS", ((LARGE, 2),))
    assert compact(journal) == ["t"]
    assert "is damaged" in capsys.readouterr().out
    assert files[1].exists()
    assert len(list((home.tables / "t").iterdir())) == 2
    notes: list[str] = []
    assert read_table(home, journal.conn, warnings=notes).num_rows == 80
    assert len(notes) == 1


def test_a_full_disk_is_tried_again_later(home: Home, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(journal, 1)
    before = truth(journal, home)
    import pyarrow.parquet as pq

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pq.ParquetWriter, "write_table", full)
        assert compact(journal, rounds=3) == []
    assert [p.name for p in (home.tables / "t").iterdir()] == []
    assert truth(journal, home) == before
    assert compact(journal) == ["t"]
