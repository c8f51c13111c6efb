"""`lab results`, `compare`, `fetch`, `verify`: tables in every form, and bytes that are what was committed."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import Exit
from core.home import Home
from core.tables import Stream
from lab import exports, main
from lab.output.data import table_lines
from lab.output.page import Page, cells
from lab.submission import Request, submit
from tests.lab.shell import Shell, shell  # noqa: F401
from tests.lab.toys import finish, register


@pytest.fixture
def home(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:  # noqa: F811
    """Two finished jobs with a table and an artifact, and a failed one."""
    register(tmp_path, monkeypatch)
    monkeypatch.setenv("LAB_HOME", str(shell.home.path))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(shell.cwd)
    requests = [Request("toy", {"alpha": a}) for a in (1.0, 2.0, 3.0)]
    submit(shell.home, requests, cwd=shell.cwd)
    finish(
        shell.home, 1, rows=[{"cell": "a", "err": 0.5}, {"cell": "b", "err": 0.25}], artifacts={"sub/model.txt": "m"}
    )
    finish(shell.home, 2, rows=[{"cell": "a", "err": 0.5}, {"cell": "b", "err": float("nan")}])
    finish(shell.home, 3, state="failed", cause="error")
    return shell.home


def out(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    assert main.main(list(args)) == code, capsys.readouterr().err
    return capsys.readouterr().out


def test_tables_for_people(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    lines = out(capsys, "results", "1").splitlines()
    assert lines[0] == "toys  2 rows"
    assert lines[1].split() == ["job", "attempt", "lane", "key", "cell", "err"]
    assert lines[2].split()[:3] == ["1", "1", "local"]
    assert lines[2].split()[-2:] == ["a", "0.5"]


def test_of_several_tables_the_kinds_own_is_shown(
    home: Home, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    submit(home, [Request("toy", {"alpha": 4.0})], cwd=tmp_path)
    finish(home, 4, more={"toy": [{"n": 7}], "aside": [{"text": "x"}]})
    assert main.main(["results", "4"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "toy  1 row"
    assert "aside" not in said.out
    assert "also: aside (--table NAME)" in said.err
    assert "7" in out(capsys, "results", "4", "--where", "n = 7", "--columns", "n")
    assert out(capsys, "results", "4", "--table", "aside").startswith("aside  1 row")
    assert out(capsys, "results", "aside", "4") == out(capsys, "results", "--table", "aside", "4")
    answer = json.loads(out(capsys, "results", "4", "--json"))
    assert sorted(t["table"] for t in answer["tables"]) == ["aside", "toy"], "a program gets all of them"
    assert main.main(["results", "aside", "4", "--table", "toy"]) == Exit.BAD_INPUT


def test_questions_that_a_kind_answers(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["results", "toys", "1", "--ask", "worst"]) == Exit.BAD_INPUT  # a table, and no kind
    assert "toys" in capsys.readouterr().err
    lines = out(capsys, "results", "1", "--ask", "worst").splitlines()
    assert sorted(line.split() for line in lines if line[:1] in "ab") == [["a", "0.5"], ["b", "0.25"]]
    assert out(capsys, "results", "toy", "--ask", "worst", "--format", "csv").startswith('"cell","worst"')
    rows = list(csv.DictReader(io.StringIO(out(capsys, "results", "1", "2", "--ask", "moved", "--format", "csv"))))
    assert float({r["cell"]: r["moved"] for r in rows}["a"]) == 0

    def refused(*args: str) -> str:
        assert main.main(["results", *args]) == Exit.BAD_INPUT
        said = capsys.readouterr().err.strip()
        assert "\n" not in said
        return said

    assert "worst (the worst of each cell)" in refused("1", "--ask", "best")
    assert "compares 2 jobs, not 1" in refused("1", "--ask", "moved")
    assert "no kind was named" in refused("--ask", "worst")
    assert "together with --where" in refused("1", "--ask", "worst", "--where", "err > 0")


def test_bytes_and_lists_have_a_form_in_every_text_format() -> None:
    table = pa.table({"data": pa.array([b"\x00\xff", None]), "dims": pa.array([[1, 2], [3]]), "deep": [[b"a"], [b"b"]]})
    for form, want in (("csv", b'"AP8="'), ("json", b'"AP8="')):
        out = io.BytesIO()
        assert exports.write(Stream(table.schema, iter(table.to_batches())), form, out) == 2
        assert want in out.getvalue()
        assert b"YQ==" in out.getvalue()


def test_csv_json_parquet_and_arrow(home: Home, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(out(capsys, "results", "--format", "csv"))))
    assert [(r["job"], r["cell"]) for r in rows] == [("1", "a"), ("1", "b"), ("2", "a"), ("2", "b")]
    lines = [json.loads(line) for line in out(capsys, "results", "--table", "toys", "--format", "json").splitlines()]
    assert lines[3]["err"] is None  # NaN is no JSON
    answer = json.loads(out(capsys, "results", "2", "--json"))
    assert answer["schema"] == "lab.results/1"
    assert answer["tables"][0]["rows"][0]["err"] == 0.5
    parquet, arrow = tmp_path / "all.parquet", tmp_path / "all.arrow"
    assert "4 rows written to" in out(capsys, "results", "-o", str(parquet))
    assert pq.read_table(parquet).num_rows == 4
    out(capsys, "results", "-o", str(arrow))
    with pa.ipc.open_file(str(arrow)) as reader:
        assert reader.read_all().column("cell").to_pylist() == ["a", "b", "a", "b"]


def test_binary_formats_to_a_pipe(shell: Shell, home: Home) -> None:  # noqa: F811
    import subprocess

    done = subprocess.run(
        shell.argv("results", "--format", "parquet"), env=shell.env, cwd=shell.cwd, capture_output=True, check=True
    )
    assert pq.read_table(io.BytesIO(done.stdout)).num_rows == 4


def test_sql_over_tables_and_jobs(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "select kind, count(*) as n from toys join jobs using (job) where cell = 'a' group by kind"
    assert out(capsys, "results", "--sql", sql, "--format", "csv") == '"kind","n"\n"toy",2\n'
    assert main.main(["results", "--sql", "select * from moon"]) == Exit.NOT_FOUND
    assert "there are: toys" in capsys.readouterr().err
    assert main.main(["results", "--sql", "slect"]) == Exit.BAD_INPUT
    assert main.main(["results", "1", "--sql", "select 1"]) == Exit.BAD_INPUT


def test_results_that_are_not_there(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["results", "3"]) == Exit.NOT_FOUND
    assert "no committed results of job 3" in capsys.readouterr().err
    assert main.main(["results", "--table", "moon"]) == Exit.NOT_FOUND
    assert "there is no table 'moon'" in capsys.readouterr().err
    assert main.main(["results", "-o", "x.xlsx"]) == Exit.BAD_INPUT


def test_a_damaged_part_is_named_and_the_rest_served(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    part = home.tables / "toys" / "2-1.parquet"
    blob = bytearray(part.read_bytes())
    blob[len(blob) // 2] ^= 1
    part.write_bytes(blob)
    assert main.main(["results", "--format", "csv"]) == 0
    seen = capsys.readouterr()
    assert len(seen.out.splitlines()) == 3
    assert "warning" in seen.err
    assert "toys" in seen.err
    assert main.main(["verify"]) == Exit.JOB_FAILED
    seen = capsys.readouterr()
    assert "✗ job 2" in seen.out
    assert "1 of 3 jobs cannot be believed" in seen.out  # one that failed has a seal too


def test_verify_finds_everything_equal_or_names_the_file(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert "every byte is what was committed" in out(capsys, "verify")
    log = home.run_dir(1, 1).log
    log.write_text("forged\n")
    shown = out(capsys, "verify", "1", code=Exit.JOB_FAILED)
    assert str(log) in shown
    answer = json.loads(out(capsys, "verify", "1", "2", "--json", code=Exit.JOB_FAILED))
    assert [(j["job"], j["ok"]) for j in answer["jobs"]] == [(1, False), (2, True)]
    assert answer["equal"] is False


def test_fetch_copies_checks_and_never_overwrites(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    shown = out(capsys, "fetch", "1")
    assert Path("job-1/artifacts/sub/model.txt").read_text() == "m"
    assert "artifacts/sub/model.txt" in shown
    assert main.main(["fetch", "1"]) == Exit.BAD_INPUT
    assert "is there already" in capsys.readouterr().err
    assert out(capsys, "fetch", "1", "-o", "elsewhere", "--all", "-q").strip().endswith("/elsewhere")
    assert Path("elsewhere/log.txt").exists()
    (home.run_dir(1, 1).artifacts / "sub" / "model.txt").write_text("forged")
    assert main.main(["fetch", "1", "-o", "third"]) == Exit.JOB_FAILED
    assert "is not what was sealed" in capsys.readouterr().err
    assert not Path("third").exists()
    assert not [n for n in os.listdir() if n.startswith(".")]


def test_compare_names_parts_of_the_key_and_values(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    shown = out(capsys, "compare", "1", "2")
    assert "parameter alpha: 1.0 in A, 2.0 in B" in shown
    assert "err" in shown
    answer = json.loads(out(capsys, "compare", "1", "2", "--json"))
    assert answer["schema"] == "lab.compare/2"
    assert answer["equal"] is False
    assert answer["tables"][0]["columns"][-1]["column"] == "err"
    same = json.loads(out(capsys, "compare", "1", "1", "--json"))
    assert same["equal"] is True


def test_wide_tables_say_what_has_no_room() -> None:
    rows = {
        "a": [1, 2, 3],
        "same": ["x"] * 3,
        "wide": ["w" * 39] * 2 + ["v"],
        "b": [1.5, 2.5, 3.5],
        "x_digest": ["f" * 39, "e", "d"],
    }
    table = pa.table(rows)
    lines = table_lines(Page(40, False, True, True), table)
    assert lines[0].split() == ["a", "b"]
    assert "in every row: same x" in lines
    assert "no room here for: wide, x_digest" in lines
    assert max(map(cells, lines)) <= 40
    first = table.replace_schema_metadata({"lab.headline": "b,same"})
    assert table_lines(Page(40, False, True, True), first)[0].split() == ["b", "a"]
    assert table_lines(Page(None, False, True, False), table)[0].split() == list(rows)
    # What it came to keeps its place, and others give way.
    judged = table.append_column("verdict", pa.array(["good", "good", "bad"]))
    assert table_lines(Page(20, False, True, True), judged)[0].split() == ["a", "b", "verdict"]


def test_a_job_without_tables_or_files_says_so_and_no_folder_is_made(
    shell: Shell,  # noqa: F811
) -> None:
    for alpha in (1, 2, 3):
        shell.ok("submit", "toy", "--set", f"alpha={alpha}")
    finish(shell.home, 1)
    finish(shell.home, 2, state="failed", cause="error")
    finish(shell.home, 3, state="failed", cause="error", artifacts={"half.txt": "h"})
    done = shell("results", "1")
    assert done.code == Exit.NOT_FOUND
    assert "job 1 (toy) has no tables" in done.err
    assert "no committed results of job 2" in shell("results", "2").err
    done = shell("fetch", "1")
    assert done.code == Exit.NOT_FOUND
    assert "job 1 has nothing to fetch: it kept no artifacts and no tables" in done.err
    assert "job 2 has nothing to fetch: it failed" in shell("fetch", "2").err
    assert not list(shell.cwd.glob("job-*"))
    shown = shell.ok("fetch", "3").out
    assert "artifacts/half.txt" in shown
    assert "job 3 failed: this is what attempt 1 left" in shown
    shell.ok("fetch", "1", "--all")
    assert (shell.cwd / "job-1" / "log.txt").exists()
