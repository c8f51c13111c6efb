"""`lab verify` and `lab fetch` of sweeps and of cells that ran in batches."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from core.errors import JobFailed, NotFound
from core.fsio import walk_files
from core.home import Home
from core.journal import Journal, Role
from core.tables import read_table
from lab.evidence import Verified, verify
from lab.fetching import Fetched, fetch
from tests.core.pooled import batch, compact, end, sweep
from tests.lab.batches import folder


@pytest.fixture
def swept(home: Home) -> int:
    """Six cells in two batches, each with what its cells printed."""
    with Journal.open(home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
        s = sweep(tx, {"a": [1, 2, 3], "b": ["x", "y"]})
        for name, first in (("one", s + 1), ("two", s + 4)):
            digest = folder(home, name, {j: f"cell {j} says\n" for j in range(first, first + 3)})
            batch(tx, first, first + 2, lambda j: [{"v": j}, {"v": -j}], folder=name, manifest=digest)
        end(tx, s)
    return s


def checked(home: Home, *ids: int) -> list[Verified]:
    with Journal.open(home) as journal:
        return verify(home, journal.conn, ids)


def fetched(home: Home, job: int, dest: Path, *, everything: bool = False) -> Fetched:
    with Journal.open(home) as journal:
        return fetch(home, journal.conn, job, dest, everything=everything)


def compacted(home: Home) -> None:
    with Journal.open(home, Role.CONTROLLER) as journal:
        compact(journal)


def test_verify_hashes_each_batch_and_part_once(home: Home, swept: int) -> None:
    assert checked(home, swept) == [Verified(swept, None, 6, 2, ())]
    assert checked(home, swept + 2) == [Verified(swept + 2, 1, 3, 1, ())]
    compacted(home)
    assert checked(home, swept, swept + 5) == [Verified(swept, None, 6, 1, ()), Verified(swept + 5, 1, 3, 1, ())]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("log.txt", "the bytes differ from what was sealed"),
        ("manifest.json", "not the one that was committed"),
        ("-log.txt", "log.txt: missing"),
        ("-manifest.json", "manifest.json is missing"),
    ],
)
def test_verify_finds_a_changed_byte_of_a_batch(home: Home, swept: int, damage: str, words: str) -> None:
    file = home.batches / "one" / damage.removeprefix("-")
    if damage.startswith("-"):
        file.unlink()
    else:
        file.write_text(file.read_text() + " ")
    whole, hit, spared = checked(home, swept, swept + 1, swept + 4)
    assert any(words in p for p in whole.problems)
    assert any(words in p for p in hit.problems)
    assert spared.ok


def test_verify_finds_damaged_rows(home: Home, swept: int) -> None:
    compacted(home)
    (file,) = (home.tables / "t").iterdir()
    blob = bytearray(file.read_bytes())
    blob[50] ^= 1
    file.write_bytes(blob)
    for found in checked(home, swept, swept + 1):
        assert any("is damaged" in p for p in found.problems)


def test_a_sweep_that_left_nothing_is_not_verified(home: Home, swept: int) -> None:
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        empty = sweep(tx, {"a": [7, 8]})
        end(tx, empty, "failed")
    (found,) = checked(home, empty)
    assert found.problems == (f"sweep {empty} failed: there is nothing sealed to verify",)
    with Journal.open(home) as journal, pytest.raises(NotFound, match=f"no committed results of sweep {empty} "):
        read_table(home, journal.conn, "t", [empty])
    assert checked(home, swept)[0].ok


def test_fetch_of_a_sweep(home: Home, swept: int, tmp_path: Path) -> None:
    got = fetched(home, swept, tmp_path / "out")
    names = {p.as_posix() for p in walk_files(got.folder)}
    assert names == {f"batches/{n}/{f}" for n in ("one", "two") for f in ("log.txt", "log.idx")} | {"results/t.parquet"}
    rows = pq.read_table(got.folder / "results" / "t.parquet")
    assert rows.column_names[:4] == ["a", "b", "job", "attempt"]
    assert rows.num_rows == 12
    assert rows["b"].to_pylist()[:4] == ["x", "x", "y", "y"]
    assert (got.job, got.attempt) == (swept, None)
    assert "batches/one/spec.json" in fetched(home, swept, tmp_path / "all", everything=True).files


def test_fetch_of_a_cell(home: Home, swept: int, tmp_path: Path) -> None:
    compacted(home)
    got = fetched(home, swept + 2, tmp_path / "out")
    assert (got.folder / "log.txt").read_text() == f"cell {swept + 2} says\n"
    rows = pq.read_table(got.folder / "results" / "t.parquet")
    assert rows["v"].to_pylist() == [swept + 2, -swept - 2]
    assert set(got.files) == {"log.txt", "results/t.parquet"}


def test_fetch_takes_nothing_damaged(home: Home, swept: int, tmp_path: Path) -> None:
    log = home.batches / "one" / "log.txt"
    log.write_text(log.read_text().replace("says", "lies"))
    for job in (swept, swept + 1):
        with pytest.raises(JobFailed, match="is not what was sealed"):
            fetched(home, job, tmp_path / "out")
    assert fetched(home, swept + 4, tmp_path / "fine").files
    compacted(home)
    (file,) = (home.tables / "t").iterdir()
    file.unlink()
    with pytest.raises((JobFailed, NotFound), match="missing"):
        fetched(home, swept + 4, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fetch_of_a_sweep_that_has_nothing(home: Home, tmp_path: Path) -> None:
    with Journal.open(home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
        s = sweep(tx, {"a": [1]})
    with pytest.raises(NotFound, match="has nothing to fetch: it is running"):
        fetched(home, s, tmp_path / "out")
    with pytest.raises(NotFound, match="has nothing to fetch: it is queued"):
        fetched(home, s + 1, tmp_path / "out")
    assert list(tmp_path.glob("*out*")) == []
