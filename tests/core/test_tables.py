"""Tables: parts in the journal and nothing else, checked before their numbers are served."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import core.tables
from core.errors import BadInput, DiskFull, NotFound
from core.home import Home
from core.journal import Event, Journal, Role
from core.states import EventKind as K
from core.tables import BadTable, append_part, query, read_table, table_names

SCHEMA = pa.schema([("cell", pa.string()), ("err", pa.float64())])


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(Home(tmp_path / "home"), Role.CONTROLLER, create=True) as journal:
        yield journal


def arrow(folder: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = SCHEMA, *, stream: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"t{len(list(folder.iterdir()))}.arrow"
    table = pa.Table.from_pylist(rows, schema=schema)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as f, make(f, table.schema) as writer:
        writer.write_table(table)
    return path


def append(journal: Journal, job: int, path: Path, table: str = "parity", **more: Any) -> core.tables.PartInfo:
    options: dict[str, Any] = {"schema": SCHEMA, **more}
    return append_part(
        journal.home,
        job=job,
        attempt=1,
        lane="local",
        key=f"k{job}",
        kind="toy",
        table=table,
        arrow_path=path,
        **options,
    )


def commit(journal: Journal, job: int, *parts: core.tables.PartInfo) -> None:
    """As the controller does."""
    spec = {"kind": "toy", "name": "", "params": {}, "key": f"k{job}", "priority": 0, "spec": "s", "held": False}
    data = {"state": "succeeded", "cause": "ok", "parts": [p.data() for p in parts]}
    with journal.transaction() as tx:
        tx.extend(
            [
                Event(K.SUBMITTED, job=job, data={**spec, "idem": None, "tags": [], "note": "", "after": []}),
                Event(K.PLACED, job, 1, "local", {"nonce": "n", "grant": {}}),
                Event(K.ATTEMPT_ENDED, job, 1, "local", data),
                Event(K.JOB_ENDED, job=job, data={"state": "succeeded", "cause": "ok", "reason": ""}),
            ]
        )


def fill(journal: Journal, jobs: int = 3) -> list[core.tables.PartInfo]:
    parts = []
    for job in range(1, jobs + 1):
        path = arrow(journal.home.path / "run", [{"cell": f"c{job}", "err": job / 8}], stream=job % 2 == 0)
        parts.append(append(journal, job, path))
        commit(journal, job, parts[-1])
    return parts


def test_rows_say_where_they_come_from(journal: Journal) -> None:
    fill(journal, 2)
    table = read_table(journal.home, journal.conn)
    assert table.column_names == ["job", "attempt", "lane", "key", "cell", "err"]
    assert [str(t) for t in table.schema.types[:4]] == ["int64", "int32", "string", "string"]
    assert table.to_pylist()[1] == {
        "job": 2,
        "attempt": 1,
        "lane": "local",
        "key": "k2",
        "cell": "c2",
        "err": 0.25,
    }


def test_only_what_the_journal_lists_is_live(journal: Journal) -> None:
    fill(journal, 1)
    append(journal, 9, arrow(journal.home.path / "run", [{"cell": "never", "err": 0.0}]))
    assert read_table(journal.home, journal.conn, "parity").num_rows == 1
    assert query(journal.home, journal.conn, "SELECT count(*) n FROM parity").to_pylist() == [{"n": 1}]
    assert table_names(journal.conn) == {"parity": 1}


def test_appending_again_gives_the_same_part(journal: Journal) -> None:
    path = arrow(journal.home.path / "run", [{"cell": "a", "err": 1.0}])
    assert append(journal, 1, path) == append(journal, 1, path)
    assert [p.name for p in (journal.home.tables / "parity").iterdir()] == ["1-1.parquet"]


def test_several_files_and_no_rows(journal: Journal) -> None:
    paths = [arrow(journal.home.path / "run", [{"cell": "a", "err": float(i)}]) for i in range(2)]
    part = append_part(
        journal.home, job=1, attempt=1, lane="l", key="k", kind="toy", table="parity", arrow_path=paths, schema=SCHEMA
    )
    assert part.rows == 2
    assert append(journal, 2, arrow(journal.home.path / "run", [])).rows == 0


def test_columns_are_united_by_name(journal: Journal) -> None:
    one = append(journal, 1, arrow(journal.home.path / "run", [{"a": 1}], None), schema=None)
    two = append(journal, 2, arrow(journal.home.path / "run", [{"b": "x", "a": 2}], None), schema=None)
    commit(journal, 1, one)
    commit(journal, 2, two)
    assert read_table(journal.home, journal.conn).select(["a", "b"]).to_pylist() == [
        {"a": 1, "b": None},
        {"a": 2, "b": "x"},
    ]
    sql = "SELECT sum(a) s, count(b) n FROM parity"
    assert query(journal.home, journal.conn, sql).to_pylist() == [{"s": 3, "n": 1}]


@pytest.mark.parametrize(
    ("rows", "schema", "words"),
    [
        ([{"cell": "a"}], None, "lacks err"),
        ([{"cell": "a", "err": 1.0, "more": 1}], None, "has more beyond"),
        ([{"cell": "a", "err": "much"}], None, "does not fit"),
    ],
)
def test_the_declared_schema_is_enforced(
    journal: Journal, rows: list[dict[str, Any]], schema: pa.Schema | None, words: str
) -> None:
    with pytest.raises(BadTable, match=words):
        append(journal, 1, arrow(journal.home.path / "run", rows, schema))
    assert not (journal.home.tables / "parity").exists()


def test_our_columns_are_ours(journal: Journal) -> None:
    path = arrow(journal.home.path / "run", [{"job": 1}], None)
    with pytest.raises(BadTable, match="'job', which lab adds"):
        append(journal, 1, path, schema=None)


@pytest.mark.parametrize("name", ["../x", "a b", "", "x;drop", '"'])
def test_names_that_would_leave_the_folder(journal: Journal, name: str) -> None:
    with pytest.raises(BadTable, match="cannot be used"):
        append(journal, 1, arrow(journal.home.path / "run", []), name)


@pytest.mark.parametrize("size", [0, 3, 40, -9])
def test_torn_arrow_data_is_refused(journal: Journal, size: int) -> None:
    path = arrow(journal.home.path / "run", [{"cell": "a" * 1000, "err": 1.0}])
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    with pytest.raises(BadTable, match="cannot be read"):
        append(journal, 1, path)


def test_a_full_disk_leaves_nothing(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    path = arrow(journal.home.path / "run", [{"cell": "a", "err": 1.0}])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(DiskFull):
        append(journal, 1, path)
    assert list((journal.home.tables / "parity").iterdir()) == []


def damage(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "short":
        os.truncate(path, path.stat().st_size - 1)
    else:
        blob = bytearray(path.read_bytes())
        blob[len(blob) // 3] ^= 1
        path.write_bytes(blob)


@pytest.mark.parametrize("how", ["missing", "short", "flipped"])
def test_a_damaged_part_is_named_and_the_rest_is_served(journal: Journal, how: str) -> None:
    parts = fill(journal)
    damage(journal.home.tables / parts[1].path, how)
    asks: tuple[Callable[[list[str]], pa.Table], ...] = (
        lambda notes: read_table(journal.home, journal.conn, "parity", warnings=notes),
        lambda notes: query(journal.home, journal.conn, "SELECT * FROM Parity ORDER BY job", warnings=notes),
    )
    for ask in asks:
        notes: list[str] = []
        assert ask(notes)["job"].to_pylist() == [1, 3]
        assert len(notes) == 1
        assert "from job 2 (parity/2-1.parquet)" in notes[0]
        notes.clear()
    undamaged: list[str] = []
    read_table(journal.home, journal.conn, "parity", [1, 3], warnings=undamaged)
    assert undamaged == []


def test_all_parts_gone(journal: Journal) -> None:
    damage(journal.home.tables / fill(journal, 1)[0].path, "missing")
    with pytest.raises(NotFound, match=r"no part of table 'parity' can be read: .* is missing"):
        read_table(journal.home, journal.conn)
    with pytest.raises(NotFound, match="no part of table"):
        query(journal.home, journal.conn, "SELECT * FROM parity")


def test_which_table_is_meant(journal: Journal) -> None:
    with pytest.raises(NotFound, match="no results; no job has written"):
        read_table(journal.home, journal.conn)
    fill(journal, 1)
    with pytest.raises(NotFound, match="no table 'score'; there are: parity"):
        read_table(journal.home, journal.conn, "score")
    with pytest.raises(NotFound, match="no committed results of job 7"):
        read_table(journal.home, journal.conn, None, [7])
    extra = append(journal, 5, arrow(journal.home.path / "run", []), "other")
    commit(journal, 5, extra)
    with pytest.raises(BadInput, match="several tables: other, parity"):
        read_table(journal.home, journal.conn)
    assert read_table(journal.home, journal.conn, None, [5]).num_rows == 0


def test_sql(journal: Journal) -> None:
    fill(journal)
    sql = "SELECT j.state, max(p.err) AS worst FROM parity p JOIN jobs j ON j.job = p.job GROUP BY j.state"
    assert query(journal.home, journal.conn, sql).to_pylist() == [{"state": "succeeded", "worst": 0.375}]
    with pytest.raises(NotFound, match="there are: parity, jobs"):
        query(journal.home, journal.conn, "SELECT * FROM nothing")
    with pytest.raises(BadInput, match="cannot be run"):
        query(journal.home, journal.conn, "SELEC 1")
    with pytest.raises(BadInput, match="gives no rows"):
        query(journal.home, journal.conn, "")
