"""`lab results` of a study by its name, and of a tag: the tables of what they lead to, and any other that is named."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from core.errors import Exit
from core.home import Home
from core.journal import Journal, query
from lab import main
from lab.named import members
from tests.lab.shell import Shell, shell  # noqa: F401
from tests.lab.test_cli_words import complete
from tests.lab.toys import finish, register


@pytest.fixture
def home(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:  # noqa: F811
    """Two submits of the study `doses` that have ended; the newer one is two parts larger than that before."""
    register(tmp_path, monkeypatch)
    monkeypatch.setenv("LAB_HOME", str(shell.home.path))
    monkeypatch.setenv("LAB_NO_START", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(shell.cwd)
    for seeds, tag in ((1, "first"), (3, "second")):
        assert main.main(["submit", "doses", "--set", f"seeds={seeds}", "--tag", tag, "--quiet"]) == 0
        end_all(shell.home)
    return shell.home


def end_all(home: Home) -> None:
    with Journal.open(home) as journal:
        jobs = query.jobs(journal.conn, newest_first=False)
    for job in jobs:
        if job.state.terminal:
            continue
        name = job.name.partition("/")[2]
        if name == "data":
            finish(home, job.id, artifacts={"truth.npz": "t"}, more={"made": [{"n": 1}]})
        elif name == "end":
            finish(home, job.id, rows=[{"cell": "all", "err": 0.5}], more={"said": [{"text": "well"}]})
        else:
            finish(home, job.id, artifacts={"a": name}, more={"part": [{"name": name}]})


def out(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main.main(list(args)) == code, capsys.readouterr().err
    return capsys.readouterr().out


def test_a_study_by_name_shows_what_it_leads_to(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main.main(["results", "doses"]) == 0
    said = capsys.readouterr()
    assert [line for line in said.out.splitlines() if line.endswith(" row")] == ["said  1 row", "toys  1 row"]
    assert "also: made, part (--table NAME)" in said.err

    whole = json.loads(out(capsys, "results", "doses", "--json"))
    assert {t["table"]: len(t["rows"]) for t in whole["tables"]} == {"made": 1, "part": 3, "said": 1, "toys": 1}


def test_after_a_submit_it_is_the_same(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main.main(["submit", "doses", "--set", "seeds=3", "--wait", "--results"]) == 0
    said = capsys.readouterr()
    assert [line for line in said.out.splitlines() if line.endswith(" row")] == ["said  1 row", "toys  1 row"]
    assert "also: made, part (--table NAME)" in said.err
    # By their numbers it is all of them.
    with Journal.open(home) as journal:
        ids = [str(i) for i in members(journal.conn, "doses")]
    assert out(capsys, "results", *ids).count("  3 rows\n") == 1, "of table part"


def test_its_other_tables_are_those_of_its_newest_submit(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    def parts(*args: str) -> list[str]:
        found = csv.DictReader(io.StringIO(out(capsys, "results", *args, "--format", "csv")))
        return [row["name"] for row in found]

    assert parts("doses", "--table", "part") == ["part1", "part2", "part3"]
    assert parts("part", "doses") == ["part1", "part2", "part3"]
    assert parts("part", "--tag", "first") == ["part1"]
    assert parts("--tag", "second", "--table", "part") == ["part2", "part3"], "the first was there already"
    (row,) = csv.DictReader(
        io.StringIO(out(capsys, "results", "doses", "--table", "toys", "--where", "err > 0", "--format", "csv"))
    )
    assert row["cell"] == "all"


def test_a_question_and_a_figure_are_of_its_end(home: Home, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert out(capsys, "results", "doses", "--ask", "worst", "--format", "csv").splitlines()[1] == '"all",0.5'
    figure = tmp_path / "f.png"
    out(capsys, "results", "doses", "--table", "toys", "--x", "cell", "--y", "err", "--plot", str(figure))
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_what_is_neither_is_said(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*args: str, code: int = Exit.BAD_INPUT) -> str:
        capsys.readouterr()
        assert main.main(["results", *args]) == code
        return capsys.readouterr().err

    assert "there is no table 'dose'" in refused("dose", code=Exit.NOT_FOUND)
    assert "no study of that name was submitted" in refused("dose-sweep")
    assert "the tables dose and part were both named" in refused("dose", "--table", "part")
    assert "both jobs and --tag were given" in refused("doses", "--tag", "first")
    assert "no job has the tag 'third'" in refused("--tag", "third", code=Exit.NOT_FOUND)
    assert "--sql was given together with --tag" in refused("--sql", "select 1", "--tag", "first")
    assert "there are several tables: said, toys" in refused("doses", "--where", "true")


def test_a_table_comes_before_a_study_of_its_name(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["submit", "toy", "--set", "alpha=7", "--quiet"]) == 0
    with Journal.open(home) as journal:
        newest = query.jobs(journal.conn)[0].id
    finish(home, newest, more={"doses": [{"n": 7}]})
    assert out(capsys, "results", "doses").startswith("doses  1 row")
    assert out(capsys, "results", "doses", "--table", "toys").startswith("toys  1 row"), "named so, it is the study"


def test_names_of_studies_are_completed(home: Home, shell: Shell) -> None:  # noqa: F811
    for command in ("status", "results", "rerun"):
        assert complete(shell, f"lab {command} do") == ["doses"]
        assert complete(shell, f"lab {command} ")[-1] == "doses"
        assert "doses" not in complete(shell, f"lab {command} 1")
    assert complete(shell, "lab logs do") == [], "one job is wanted"
