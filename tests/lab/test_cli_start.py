"""Starting: what is imported, what the help says, and how a command ends whatever happens."""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import Exit
from core.home import Home
from core.journal import Journal, Role
from core.states import EventKind as K
from lab import cli, main
from lab.commands import claim
from tests.lab.journals import many_jobs
from tests.lab.shell import Shell, shell  # noqa: F401

HEAVY = ("ray", "torch", "tensorflow", "pyarrow", "paramiko", "duckdb", "textual", "pydantic", "numpy", "rich", "yaml")
TABLES = (cli.COMMANDS, cli.LANE_COMMANDS, claim.COMMANDS)
MODULES = "import sys, json; from lab.main import main; c = main(sys.argv[1:]); print(json.dumps([c, *sys.modules]))"


def loaded(shell: Shell, *args: str) -> set[str]:  # noqa: F811
    """The modules that a command has loaded."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", MODULES, *args],
        env=shell.env,
        cwd=shell.cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )
    code, *modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    return set(modules)


@pytest.mark.parametrize("typed", ["status", "status 1", "status --all --json", "logs 1", "cancel 1", "hold 2"])
def test_reading_and_asking_load_nothing_heavy(shell: Shell, typed: str) -> None:  # noqa: F811
    many_jobs(shell.home, 5)
    log = shell.home.run_dir(1, 1).log
    log.parent.mkdir(parents=True)
    log.write_text("hello\n")
    heavy = loaded(shell, *typed.split()) & set(HEAVY)
    assert not heavy


def test_help_of_all_imports_no_command(shell: Shell) -> None:  # noqa: F811
    modules = loaded(shell, "--help")
    assert not [m for m in modules if m.startswith("lab.commands.")]
    assert not modules & set(HEAVY)


@pytest.mark.parametrize(("table", "name"), [(t, n) for t in TABLES for n in t])
def test_the_table_says_what_the_module_says(table: dict[str, cli.Entry], name: str) -> None:
    entry = table[name]
    module = importlib.import_module(entry.module)
    if entry.group:
        assert module.group().help == entry.help
    else:
        first = getattr(module, f"{name}_").__doc__.strip().splitlines()[0]
        said, _, _rest = entry.help.partition(";") if ";" not in first else (entry.help, "", "")
        assert first.startswith(said.rstrip(".").split(", for ")[0]), (first, entry.help)


def test_every_command_file_is_in_the_table() -> None:
    folder = Path(cli.__file__).parent / "commands"
    files = {f"lab.commands.{p.stem}" for p in folder.glob("*.py") if not p.stem.startswith("_")}
    assert files == {e.module for t in TABLES for e in t.values()}


def test_every_help_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    words = [[n] for n in cli.COMMANDS] + [["lane", n] for n in cli.LANE_COMMANDS]
    words += [["claim", n] for n in claim.COMMANDS]
    for word in words:
        assert main.main([*word, "--help"]) == 0, word
        shown = capsys.readouterr().out
        assert "--json" in shown
        assert "--home" in shown
        assert "<" not in shown.split("Examples")[0], shown  # no types in angle brackets


def test_help_documents_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for code in Exit:
        assert f"\n  {int(code)} " in shown
    for name in cli.COMMANDS:
        assert f"\n  {name} " in shown


def test_no_words_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([]) == 0
    assert "Usage: lab" in capsys.readouterr().out


def test_version(shell: Shell) -> None:  # noqa: F811
    assert shell.ok("--version").out.startswith("lab ")
    assert shell.ok("--json", "--version").json["schema"] == "lab.version/1"


def test_home_may_be_given_before_or_after_the_command(shell: Shell, tmp_path: Path) -> None:  # noqa: F811
    other = tmp_path / "other"
    shell.ok("submit", "toy", "--hold", "--home", str(other))
    assert shell("status").code == Exit.NOT_FOUND
    assert shell.ok("--home", str(other), "status", "-q").out == "1\n"
    assert shell.ok("status", "-q", "--home", str(other)).out == "1\n"


@pytest.fixture
def home_with_a_job(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Home:  # noqa: F811
    """For commands that run in this very process."""
    many_jobs(shell.home, 1)
    monkeypatch.setenv("LAB_HOME", str(shell.home.path))
    return shell.home


def test_our_own_bug_has_a_traceback_and_says_so(
    home_with_a_job: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("oh")

    monkeypatch.setattr("lab.commands.status.look_up", broken)
    assert main.main(["status"]) == Exit.INTERNAL
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.splitlines()[-1].startswith("lab: this is a bug of lab, not of yours (RuntimeError)")


def test_an_up_gives_way_to_a_down_that_was_asked_after_it(
    home_with_a_job: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    def asked(home: Home) -> bool:
        with Journal.open(home, Role.CLIENT) as journal, journal.transaction() as tx:
            tx.append(K.DOWN_ASKED, data={"kill": False})
        return True

    monkeypatch.setattr("lanes.start.ensure_controller", asked)
    assert main.main(["up", "--timeout", "60s"]) == Exit.UNAVAILABLE
    assert "was asked to go down meanwhile" in capsys.readouterr().err


def test_a_down_is_content_with_the_controller_that_it_was_about(
    home_with_a_job: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is up again before anybody saw it away is there because somebody asked for it after that."""

    def obey(home: Home) -> None:
        with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
            tx.append(K.CONTROLLER_DOWN, data={"why": "asked"})
            tx.append(K.CONTROLLER_UP, data={"pid": 2})

    for taker in ("lab.explain", "lab.explainsweep", "lab.tui.feed"):
        importlib.import_module(taker)  # imported later, it would take the bent one for good
    monkeypatch.setattr("lanes.start.controller_alive", lambda _: True)
    monkeypatch.setattr("lanes.start.wake", obey)
    assert main.main(["down", "--timeout", "5s"]) == 0
    said = capsys.readouterr().out
    assert "the controller is down" in said
    assert "another one is up, for which somebody asked after that" in said
    # The twin: one that has only forgotten, for it was just starting, is asked again.
    forgot: list[int] = []

    def forget(home: Home) -> None:
        forgot.append(1)
        with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
            tx.append(K.CONTROLLER_UP, data={"pid": 3})
        if len(forgot) == 3:
            obey(home)

    monkeypatch.setattr("lanes.start.wake", forget)
    assert main.main(["down", "--timeout", "30s"]) == 0
    assert len(forgot) == 3


def test_ctrl_c_is_130(
    home_with_a_job: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lab.commands.status.look_up", interrupted)
    assert main.main(["status"]) == Exit.INTERRUPTED
    assert capsys.readouterr().err == "lab: interrupted\n"


def test_a_reader_that_goes_away_is_no_error(shell: Shell) -> None:  # noqa: F811
    many_jobs(shell.home, 3000)
    process = shell.start("status", "--all")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr.read() == ""


def test_status_reads_without_locks_and_leaves_no_trace(shell: Shell) -> None:  # noqa: F811
    many_jobs(shell.home, 3)
    before = {p.name for p in shell.home.path.iterdir()}
    shell.ok("status")
    shell.ok("status", "1")
    assert {p.name for p in shell.home.path.iterdir()} - {"journal.db-wal", "journal.db-shm"} == before


EMPTY = "import typer\napp = typer.Typer()\n@app.command()\ndef main() -> None:\n    pass\napp()\n"


@pytest.mark.long
def test_status_with_100_000_jobs_costs_no_more_than_an_empty_command(shell: Shell, tmp_path: Path) -> None:  # noqa: F811
    many_jobs(shell.home, 100_000)
    (tmp_path / "empty.py").write_text(EMPTY)

    def seconds(argv: list[str]) -> float:
        begun = time.perf_counter()
        subprocess.run(argv, env=shell.env, cwd=shell.cwd, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - begun

    empty, status = [], []
    for _ in range(15):  # in turn, so that a busy machine is busy for both
        empty.append(seconds([sys.executable, str(tmp_path / "empty.py")]))
        status.append(seconds(shell.argv("status")))
    assert statistics.median(status) <= 1.5 * statistics.median(empty), (empty, status)
    assert os.path.getsize(shell.home.journal) > 1 << 24
