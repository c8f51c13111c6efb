"""`lab compare`, `lab verify`, `lab fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.errors import BadInput, JobFailed, NotFound
from core.fsio import walk_files
from core.home import Home
from core.journal import Journal
from lab.compare import Comparison, compare, table_difference
from lab.evidence import Verified, verify
from lab.fetching import Fetched, fetch
from tests.lab.conftest import Submit
from tests.lab.toys import finish

ROWS = [{"cell": "a", "err": 0.5}, {"cell": "b", "err": 2.0}]


@pytest.fixture
def job(home: Home, ask: Submit) -> int:
    made = ask().id
    finish(home, made, rows=ROWS, artifacts={"model.pt": "weights", "sub/fig.png": "png"})
    return made


def checked(home: Home, job: int) -> Verified:
    with Journal.open(home) as journal:
        return verify(home, journal.conn, [job])[0]


def fetched(home: Home, job: int, dest: Path, **more: Any) -> Fetched:
    with Journal.open(home) as journal:
        return fetch(home, journal.conn, job, dest, **more)


def test_verify_counts_what_it_hashed(home: Home, job: int) -> None:
    assert checked(home, job) == Verified(job, 1, 5, 1, ())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("artifacts/model.pt", "the bytes differ from what was sealed"),
        ("log.txt", "the bytes differ"),
        ("manifest.json", "not the one that was committed"),
        ("artifacts/new.txt", "appeared after the seal"),
    ],
)
def test_verify_finds_a_changed_byte(home: Home, job: int, name: str, words: str) -> None:
    file = home.run_dir(job, 1).path / name
    file.write_text((file.read_text() if file.exists() else "") + " ")
    found = checked(home, job)
    assert not found.ok
    assert any(words in p for p in found.problems)


def test_verify_finds_what_is_gone(home: Home, job: int) -> None:
    (home.run_dir(job, 1).artifacts / "model.pt").unlink()
    (home.tables / "toys" / f"{job}-1.parquet").unlink()
    problems = checked(home, job).problems
    assert any("model.pt: missing" in p for p in problems)
    assert any("part of table 'toys'" in p and "is missing" in p for p in problems)
    home.run_dir(job, 1).manifest.unlink()
    assert any("manifest.json is missing" in p for p in checked(home, job).problems)


def test_verify_of_what_never_ran(home: Home, ask: Submit) -> None:
    assert "nothing sealed" in checked(home, ask().id).problems[0]


def test_fetch(home: Home, job: int, tmp_path: Path) -> None:
    got = fetched(home, job, tmp_path / "out" / "here")
    names = [p.as_posix() for p in walk_files(got.folder)]
    assert names == ["manifest.json", "artifacts/model.pt", "artifacts/sub/fig.png", "results/toys.arrow"]
    assert (got.folder / "artifacts" / "model.pt").read_text() == "weights"
    assert "log.txt" in fetched(home, job, tmp_path / "all", everything=True).files


def test_fetch_overwrites_nothing(home: Home, job: int, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("mine", "file", "link"):
        with pytest.raises(BadInput, match="is there already"):
            fetched(home, job, tmp_path / name)
    (tmp_path / "empty").mkdir()
    assert fetched(home, job, tmp_path / "empty").bytes > 0


def test_fetch_takes_no_damaged_file(home: Home, job: int, tmp_path: Path, ask: Submit) -> None:
    (home.run_dir(job, 1).artifacts / "model.pt").write_text("forged!")
    with pytest.raises(JobFailed, match="is not what was sealed"):
        fetched(home, job, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    home.run_dir(job, 1).manifest.write_text("{}")
    with pytest.raises(JobFailed, match="not the one that was committed"):
        fetched(home, job, tmp_path / "out")
    with pytest.raises(NotFound, match="nothing to fetch: it is queued"):
        fetched(home, ask(alpha=9).id, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir() if "out" in p.name] == []


def compared(home: Home, a: int, b: int) -> Comparison:
    with Journal.open(home) as journal:
        return compare(home, journal.conn, a, b)


def test_compare_joins_rows_by_what_names_them(home: Home, job: int, ask: Submit) -> None:
    other = ask(alpha=2).id
    finish(home, other, rows=[{"cell": "b", "err": 2.5}, {"cell": "a", "err": 0.5}, {"cell": "c", "err": 1.0}])
    found = compared(home, job, other)
    assert found.key_parts == ["parameter alpha: 1.0 here, 2.0 there"]
    table = found.tables[0]
    assert (table.joined_on, table.rows, table.matched) == (("cell",), (2, 3), 2)
    assert (table.rows_only_first, table.rows_only_second) == (0, 1)
    err = table.columns[0]
    assert (err.differing, err.max_abs, err.max_rel, err.where, err.example) == (1, 0.5, 0.2, "cell=b", (2.0, 2.5))
    assert not found.same_results


def test_compare_equal_jobs(home: Home, job: int, ask: Submit) -> None:
    again = ask(request={"force": True}).id
    finish(home, again, rows=list(reversed(ROWS)))
    assert compared(home, job, again).equal


def test_compare_when_one_has_no_table(home: Home, job: int, ask: Submit) -> None:
    other = ask(alpha=2).id
    finish(home, other)
    assert compared(home, job, other).tables[0].rows == (2, 0)
    assert not compared(home, job, other).same_results


def test_columns_of_all_sorts() -> None:
    nan = float("nan")
    left = pa.table({"x": [1.0, nan, nan, 4.0], "s": ["a", "a", None, "b"], "n": [1, 2, 3, 4], "l": [0, 0, 0, 0]})
    right = pa.table({"x": [1.0, nan, 3.0, 0.0], "s": ["a", "a", None, "c"], "n": [1, 2, 3, 4], "r": [0, 0, 0, 0]})
    found = table_difference("t", left.select(["x", "s", "l"]), right.select(["x", "s", "r"]))
    assert (found.joined_on, found.only_first, found.only_second) == ((), ("l",), ("r",))
    by_name = {c.column: c for c in found.columns}
    assert (by_name["x"].differing, by_name["x"].max_abs, by_name["x"].where) == (2, 4.0, "row 3")
    assert by_name["x"].max_rel == float("inf")
    assert (by_name["s"].differing, by_name["s"].example) == (1, ("b", "c"))
    assert table_difference("t", left, right).joined_on == ("s", "n")
    assert table_difference("t", left.slice(0, 0), right).matched == 0
    only_nan = table_difference("t", pa.table({"x": [nan]}), pa.table({"x": [1.0]})).columns[0]
    assert (only_nan.differing, only_nan.max_abs) == (1, None)
