"""`lab results`, `compare`, `fetch`, `verify` and `gc` on sweeps, as a user types them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import Exit
from core.home import Home
from core.journal import Journal, Role
from lab import main
from tests.core.pooled import batch, compact, end, sweep

SWEEP = 1


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Sweep 1 over two axes, with 2 x 3 cells and two rows a cell; sweep 8 of 150 cells with one."""
    home = Home(tmp_path / "home")
    monkeypatch.setenv("LAB_HOME", str(home.path))
    monkeypatch.setenv("LAB_NO_START", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(tmp_path)
    with Journal.open(home, Role.CONTROLLER, create=True) as journal:
        with journal.transaction() as tx:
            s = sweep(tx, {"size": [8, 16], "backend": ["a", "b", "c"]})
            batch(tx, s + 1, s + 6, lambda j: [{"k": "p", "err": j / 4, "note": [j]}, {"k": "q", "err": j / 8}])
            end(tx, s)
            t = sweep(tx, {"n": list(range(150))})
            batch(tx, t + 1, t + 150, lambda j: {"k": str(j), "err": float(j), "n": -1})
            end(tx, t)
        compact(journal)
    return home


def out(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    ended = main.main(list(args))
    seen = capsys.readouterr()
    assert ended == code, seen.err
    return seen.out


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main.main(list(args)) in (Exit.BAD_INPUT, Exit.NOT_FOUND)
    return capsys.readouterr().err


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_axes_of_a_sweep_come_first(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(out(capsys, "results", "1", "--format", "csv"))
    assert list(found[0])[:4] == ["size", "backend", "job", "attempt"]
    assert len(found) == 12
    assert [(r["size"], r["backend"]) for r in found[::2]] == [(s, b) for s in ("8", "16") for b in "abc"]
    assert found[0]["note"] == "[2]"  # CSV knows no lists
    lines = out(capsys, "results", "1").splitlines()
    assert lines[0] == "t  12 rows"
    assert lines[1].split()[:2] == ["size", "backend"]
    one = rows(out(capsys, "results", "1.2", "--format", "csv"))
    assert [r["job"] for r in one] == ["3", "3"]
    assert "size" not in one[0]


def test_where_columns_sort_and_ends(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    found = out(
        capsys, *("results", "1", "--where", "k = 'q' and size = 16", "--columns", "backend,err", "--sort", "-err"),
        *("--format", "csv"),
    )  # fmt: skip
    assert rows(found) == [{"backend": b, "err": e} for b, e in (("c", "0.875"), ("b", "0.75"), ("a", "0.625"))]
    head = rows(out(capsys, "results", "8", "--limit", "2", "--columns", "k", "--format", "csv"))
    tail = rows(out(capsys, "results", "8", "--tail", "2", "--columns", "k", "--format", "csv"))
    assert ([r["k"] for r in head], [r["k"] for r in tail]) == (["9", "10"], ["157", "158"])


def test_parameters_beside_rows(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    # An axis that the table has as a column of its own is not put there twice, unless asked for.
    plain = rows(out(capsys, "results", "8", "--format", "csv"))
    assert list(plain[0]) == ["job", "attempt", "lane", "key", "k", "err", "note", "n"]
    asked = rows(out(capsys, "results", "8", "--params", "--limit", "3", "--format", "csv"))
    assert [(r["param_n"], r["n"]) for r in asked] == [("0", "-1"), ("1", "-1"), ("2", "-1")]
    mixed = rows(out(capsys, "results", "1,9", "--params", "--format", "csv"))
    assert mixed[0]["size"] == "8"
    assert (mixed[-1]["size"], mixed[-1]["param_n"]) == ("", "0")


def test_long_tables_show_their_beginning(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    lines = out(capsys, "results", "8").splitlines()
    assert lines[0] == "t  150 rows"
    assert len(lines) == 103
    assert lines[-1].startswith("50 more rows: choose with --where or --sql")
    assert len(json.loads(out(capsys, "results", "8", "--json"))["tables"][0]["rows"]) == 150


def test_exports_are_whole(home: Home, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "162 rows written to" in out(capsys, "results", "-o", "all.parquet")
    assert pq.read_table("all.parquet").num_rows == 162
    out(capsys, "results", "8", "-o", "some.jsonl")
    assert json.loads(Path("some.jsonl").read_text().splitlines()[0])["k"] == "9"
    out(capsys, "results", "--sql", "select 1 as one", "-o", "one.arrow")
    with pa.ipc.open_file("one.arrow") as reader:
        assert reader.read_all().to_pydict() == {"one": [1]}
    assert "cannot be written" in refused(capsys, "results", "-o", "nowhere/x.csv")
    assert main.main(["results", "--sql", "select cast(k as integer) from t", "-o", "bad.csv"]) == Exit.BAD_INPUT
    assert not [p.name for p in tmp_path.iterdir() if "bad" in p.name or ".tmp" in p.name]


def test_refusals(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no column 'er'; did you mean 'err'" in refused(capsys, "results", "1", "--columns", "er")
    assert "--where cannot be run" in refused(capsys, "results", "1", "--where", "err >")
    assert "both given" in refused(capsys, "results", "--limit", "1", "--tail", "1")
    assert "is negative" in refused(capsys, "results", "--limit", "-1")
    assert "together with --where" in refused(capsys, "results", "--sql", "select 1", "--where", "true")
    assert "there is no job 999" in refused(capsys, "results", "999")
    assert "has no cell 7" in refused(capsys, "results", "1.7")


def test_compare_of_sweeps(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        other = sweep(tx, {"size": [8, 32], "backend": ["a", "b", "c"]})
        s = other - 1
        batch(tx, other + 1, other + 6, lambda j: [{"k": k, "err": (j - s) / d} for k, d in (("p", 2), ("q", 8))])
        end(tx, other)
    said = out(capsys, "compare", "1", str(other))
    assert "3 cells in both" in said
    assert 'only A has 3 cells: size=16 backend="a"' in said
    assert "matched by size, backend, k" in said
    assert "MEAN" in said
    answer = json.loads(out(capsys, "compare", "1", str(other), "--json"))
    assert answer["schema"] == "lab.compare/2"
    err = next(c for c in answer["tables"][0]["columns"] if c["column"] == "err")
    assert err["differing"] == 3
    assert err["spread"]["n"] == 6
    assert err["worst"][0]["where"] == "size=8, backend=c, k=p"
    assert json.loads(out(capsys, "compare", "1", "1", "--json"))["equal"] is True


def test_verify_and_fetch(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("2-00000000", "9-00000000"):
        assert not (home.batches / name).exists()
    assert main.main(["verify"]) == Exit.JOB_FAILED  # the batches' folders were never made here
    capsys.readouterr()
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        s = sweep(tx, {"a": [1]})
        batch(tx, s + 1, s + 1, lambda j: {"v": 1}, manifest=None)
        end(tx, s)
    assert "every byte is what was committed" in out(capsys, "verify", str(s))
    assert "in " in out(capsys, "fetch", f"{s}.1")
    assert Path(f"job-{s + 1}/results/t.parquet").exists()


def test_gc_asks_first_and_does_what_it_said(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    for first in (2, 9):
        (home.batches / f"{first}-00000000").mkdir(parents=True)
        (home.batches / f"{first}-00000000" / "log.txt").write_text("x" * 2048)
    assert "nothing to remove" in out(capsys, "gc", "--dry-run")
    assert "--yes" in refused(capsys, "gc", "--older-than", "0s")
    said = json.loads(out(capsys, "gc", "--older-than", "0s", "--dry-run", "--json"))
    assert (said["schema"], said["removed"]) == ("lab.gc/1", False)
    assert said["classes"] == [{"class": "batch folders", "count": 2, "bytes": 4096}]
    assert (home.batches / "2-00000000").exists()
    done = json.loads(out(capsys, "gc", "--older-than", "0s", "--yes", "--json"))
    assert done == {**said, "removed": True}
    assert not (home.batches / "2-00000000").exists()
    assert "12 rows" in out(capsys, "results", "1")
    shown = out(capsys, "gc", "--results-older-than", "0s", "--yes")
    assert "results" in shown
    assert "the results of sweep 1 were discarded by `lab gc`" in refused(capsys, "results", "1")
    assert "has no unit" in refused(capsys, "gc", "--older-than", "30")
