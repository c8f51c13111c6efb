"""Rows of many cells: in the journal until they are compacted, read, queried and checked as any others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.errors import BadInput, NotFound
from core.home import Home
from core.journal import Journal, Role
from core.states import EventKind as K
from core.tables import Choice, Jobs, query, read_table, stream, table_names
from tests.core.pooled import batch, compact, sweep


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    # No character of a path means anything else.
    with Journal.open(Home(tmp_path / "a=1" / "h[o]*me"), Role.CONTROLLER, create=True) as journal:
        yield journal


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> None:
    (tmp_path / "a=1").mkdir()


def fill(journal: Journal, cells: int = 12) -> int:
    """Three batches: in the last a column was added, whole numbers became fractions, and there are two rows a cell."""
    third = cells // 3
    with journal.transaction() as tx:
        s = sweep(tx, {"a": list(range(cells))})
        batch(tx, s + 1, s + third, lambda j: {"v": j})
        batch(tx, s + 2 * third + 1, s + cells, lambda j: [{"v": j / 2, "w": "p"}, {"v": 0.25, "w": "q"}])
        batch(tx, s + third + 1, s + 2 * third, lambda j: {"v": j})
    return s


def rows(choice: Choice, journal: Journal, notes: list[str] | None = None) -> pa.Table:
    with stream(journal.home, journal.conn, choice, warnings=notes) as found:
        return pa.Table.from_batches(list(found.batches), found.schema)


@pytest.mark.parametrize("compacted", [False, True])
def test_rows_know_their_lane_and_key_and_come_by_job(journal: Journal, compacted: bool) -> None:
    s = fill(journal)
    if compacted:
        assert compact(journal)
    table = read_table(journal.home, journal.conn)
    assert table.column_names == ["job", "attempt", "lane", "key", "v", "w"]
    assert [str(t) for t in table.schema.types] == ["int64", "int32", "string", "string", "double", "string"]
    jobs = [*range(s + 1, s + 9), *(j for j in range(s + 9, s + 13) for _ in "pq")]
    assert table["job"].to_pylist() == jobs
    assert table["w"].to_pylist() == [None] * 8 + ["p", "q"] * 4
    assert table["v"].to_pylist()[:2] == [s + 1, s + 2]
    keys = {r["id"]: r["key"] for r in journal.conn.execute("SELECT id, key FROM job_state")}
    assert table["key"].to_pylist() == [keys[j] for j in jobs]
    assert set(table["lane"].to_pylist()) == {"local"}
    assert rows(Choice("t"), journal).to_pydict() == table.to_pydict()
    assert table_names(journal.conn) == {"t": 16}


@pytest.mark.parametrize("compacted", [False, True])
def test_a_sweep_and_single_jobs_are_chosen(journal: Journal, compacted: bool) -> None:
    s = fill(journal)
    with journal.transaction() as tx:
        other = sweep(tx, {"a": [50]}, members=[s + 2, s + 9])
        batch(tx, other + 1, other + 1, lambda j: {"v": -1.0, "w": "o"})
    if compacted:
        compact(journal)
    for ids, want in (
        ([s + 3], [s + 3]),
        ([s + 9, s + 1], [s + 1, s + 9, s + 9]),
        ([other], [s + 2, s + 9, s + 9, other + 1]),
    ):
        assert read_table(journal.home, journal.conn, "t", ids)["job"].to_pylist() == want
    assert read_table(journal.home, journal.conn, "t", [s]).num_rows == 16
    with pytest.raises(NotFound, match="no committed results of job 99"):
        read_table(journal.home, journal.conn, "t", [99])
    # Too many ranges to be written out are chosen all the same.
    odd = Jobs.of(range(1, 400, 2))
    want = [j for j in read_table(journal.home, journal.conn)["job"].to_pylist() if j % 2]
    assert rows(Choice("t", odd), journal)["job"].to_pylist() == want
    assert read_table(journal.home, journal.conn, "t", odd)["job"].to_pylist() == want


def test_choices(journal: Journal) -> None:
    s = fill(journal)
    some = rows(Choice("t", where="w = 'p' OR v < 4", columns=("v", "job"), sort=("-v",), limit=3), journal)
    assert some.to_pydict() == {"v": [(s + 12) / 2, (s + 11) / 2, (s + 10) / 2], "job": [s + 12, s + 11, s + 10]}
    assert rows(Choice("t", tail=3), journal)["w"].to_pylist() == ["q", "p", "q"]
    assert rows(Choice("t", limit=0), journal).num_rows == 0
    beside = pa.table({"job": [s + 1, s + 9], "a": ["x", "y"], "v": [7, 8]})
    joined = rows(Choice("t", Jobs.of([s + 1, s + 9]), beside), journal)
    assert joined.column_names == ["a", "job", "attempt", "lane", "key", "v", "w"]
    assert joined["a"].to_pylist() == ["x", "y", "y"]
    again = rows(Choice("t", Jobs.of([s + 1]), beside, again=True, where="param_v = 7"), journal)
    assert again.select(["param_v", "v"]).to_pylist() == [{"param_v": 7, "v": s + 1}]
    with pytest.raises(BadInput, match=r"has no column 'vv'; did you mean 'v'"):
        rows(Choice("t", columns=("vv",)), journal)
    with pytest.raises(BadInput, match="--where cannot be run"):
        rows(Choice("t", where="nonsense >"), journal)
    with pytest.raises(BadInput, match="cannot be run"):
        rows(Choice("t", where="CAST(w AS INTEGER) = 1"), journal)


def test_sql_sees_rows_wherever_they_are(journal: Journal) -> None:
    s = fill(journal)
    sql = "SELECT count(*) n, sum(v) v, count(w) w, max(state) state FROM t JOIN jobs USING (job)"
    before = query(journal.home, journal.conn, sql).to_pylist()
    assert before[0]["n"] == 16
    compact(journal)
    assert query(journal.home, journal.conn, sql).to_pylist() == before
    with journal.transaction() as tx:  # and in both places
        more = sweep(tx, {"a": [1]})
        batch(tx, more + 1, more + 1, lambda j: {"v": 1.5, "extra": True})
    both = query(journal.home, journal.conn, "SELECT count(*) n, count(extra) e FROM t").to_pylist()
    assert both == [{"n": 17, "e": 1}]
    assert query(journal.home, journal.conn, f"SELECT sweep FROM jobs WHERE job = {s + 1}").to_pylist() == [
        {"sweep": s}
    ]
    notes = ["a Python variable"]
    with pytest.raises(NotFound, match="names something unknown"):
        query(journal.home, journal.conn, "SELECT * FROM notes", warnings=notes)


def flip(journal: Journal, part_id: int) -> None:
    blob = bytearray(journal.conn.execute("SELECT data FROM payload WHERE id = ?", (part_id,)).fetchone()[0])
    blob[len(blob) // 2] ^= 1
    journal.conn.execute("UPDATE payload SET data = ? WHERE id = ?", (bytes(blob), part_id))


@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_a_damaged_payload_is_named_and_the_rest_served(journal: Journal, how: str) -> None:
    s = fill(journal)
    notes: list[str] = []
    read_table(journal.home, journal.conn, warnings=notes)
    assert notes == []
    bad = journal.conn.execute("SELECT id FROM part WHERE first = ?", (s + 5,)).fetchone()[0]
    if how == "flipped":
        flip(journal, bad)
    else:
        journal.conn.execute("DELETE FROM payload WHERE id = ?", (bad,))
    asks: tuple[Callable[[], int], ...] = (
        lambda: read_table(journal.home, journal.conn, warnings=notes).num_rows,
        lambda: query(journal.home, journal.conn, "SELECT * FROM t", warnings=notes).num_rows,
        lambda: rows(Choice("t"), journal, notes).num_rows,
    )
    for ask in asks:
        notes.clear()
        assert ask() == 12
        assert len(notes) == 1
        assert f"from jobs {s + 5} to {s + 8} (in the journal)" in notes[0]
    # Compaction leaves it alone, and loses nothing of the rest.
    compact(journal)
    left = [r[0] for r in journal.conn.execute("SELECT id FROM part WHERE path = ''")]
    assert left == [bad]
    assert read_table(journal.home, journal.conn).num_rows == 12


def test_columns_that_cannot_be_united_are_named(journal: Journal) -> None:
    with journal.transaction() as tx:
        s = sweep(tx, {"a": [1, 2]})
        batch(tx, s + 1, s + 1, lambda j: {"v": 1})
        batch(tx, s + 2, s + 2, lambda j: {"v": "text"})
    with pytest.raises(BadInput, match=r"column 'v' of table 't' is int64 in the part .* and string in the part"):
        read_table(journal.home, journal.conn)
    compact(journal)  # keeps them apart
    assert read_table(journal.home, journal.conn, "t", [s + 2])["v"].to_pylist() == ["text"]
    assert read_table(journal.home, journal.conn, "t", [s + 1])["v"].to_pylist() == [1]


def test_discarded_rows_are_hidden_and_then_go(journal: Journal) -> None:
    s = fill(journal)
    compact(journal)
    with journal.transaction() as tx:
        for job in range(s + 1, s + 7):
            tx.append(K.DISCARDED, job=job, data={"what": ["results"], "bytes": 0})
    for n in (
        read_table(journal.home, journal.conn).num_rows,
        query(journal.home, journal.conn, "FROM t").num_rows,
        rows(Choice("t"), journal).num_rows,
    ):
        assert n == 10
    before = {p.name for p in (journal.home.tables / "t").iterdir()}
    assert compact(journal) == ["t"]
    after = {p.name for p in (journal.home.tables / "t").iterdir()}
    assert before - after
    assert sum(r[0] for r in journal.conn.execute("SELECT rows FROM part")) == 10
    assert read_table(journal.home, journal.conn)["job"].to_pylist()[0] == s + 7
    assert compact(journal) == []  # once is enough


def test_row_groups_without_the_job_are_not_needed(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.tables.merge.ROW_GROUP", 4)
    s = fill(journal)
    compact(journal)
    import pyarrow.parquet as pq

    read: list[Any] = []
    real = pq.ParquetFile.read_row_groups

    def noted(self: pq.ParquetFile, groups: list[int], **more: Any) -> pa.Table:
        read.append(groups)
        return real(self, groups, **more)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", noted)
    assert read_table(journal.home, journal.conn, "t", [s + 6])["job"].to_pylist() == [s + 6]
    assert read == [[1]]
