"""`lab cancel`, `hold`, `release`, `lane drain`, `lane resume`, `init`, `down`, `doctor`: requests and their words."""

from __future__ import annotations

import pytest

from core.errors import Exit
from core.home import Home
from core.journal import Journal, query
from lab import main
from tests.lab.journals import many_jobs
from tests.lab.shell import Shell, shell  # noqa: F401

NO_CONTROLLER = "Recorded. The controller is not running: it will be done once `lab up` has started it."


@pytest.fixture
def home(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Home:  # noqa: F811
    """Ten jobs: 7 is the last finished one, 8 runs, 9 and 10 are queued."""
    many_jobs(shell.home, 10)
    monkeypatch.setenv("LAB_HOME", str(shell.home.path))
    monkeypatch.setenv("LAB_NO_START", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(shell.cwd)
    return shell.home


def wishes(home: Home) -> dict[int, str | None]:
    with Journal.open(home) as journal:
        return {j.id: j.wish for j in query.wishes(journal.conn)}


def test_cancel_writes_a_wish_and_twice_is_harmless(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["cancel", "8", "9", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "8  toy number 8  cancel asked (was running on local)"
    assert lines[1] == "9  toy number 9  cancel asked (was queued)"
    assert lines[2] == "1  toy number 1  nothing to cancel: it has already succeeded"
    assert lines[3] == NO_CONTROLLER
    assert wishes(home) == {8: "cancel", 9: "cancel"}
    assert main.main(["cancel", "8-9"]) == 0
    assert "is being cancelled already" in capsys.readouterr().out


def test_hold_and_release(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["hold", "8", "9", "10"]) == 0
    assert "8  toy number 8  runs already" in capsys.readouterr().out
    assert wishes(home) == {9: "hold", 10: "hold"}
    assert main.main(["release", "9", "1", "-q"]) == 0
    assert capsys.readouterr().out == "9\n"
    assert wishes(home) == {9: "release", 10: "hold"}
    assert main.main(["cancel", "10"]) == 0
    assert main.main(["hold", "10"]) == 0
    assert "10  toy number 10  is being cancelled" in capsys.readouterr().out


def test_by_tag_only_jobs_that_it_can_mean(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["cancel", "--tag", "tenth", "--json"]) == 0
    assert '"id": 10' in capsys.readouterr().out
    assert main.main(["cancel", "--tag", "nothing"]) == Exit.NOT_FOUND
    assert main.main(["cancel", "10", "--tag", "tenth"]) == Exit.BAD_INPUT


def test_drain_and_resume(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["lane", "drain", "local", "--reason", "the disk is full"]) == 0
    assert "local  drain asked: the disk is full" in capsys.readouterr().out
    assert main.main(["lane", "drain", "local", "-r", "again"]) == 0
    assert "is drained already (the disk is full)" in capsys.readouterr().out
    assert main.main(["lanes"]) == 0
    assert "drain asked; the disk is full" in capsys.readouterr().out
    assert main.main(["lane", "resume", "local"]) == 0
    assert main.main(["lane", "resume", "local"]) == 0
    assert "is not drained" in capsys.readouterr().out


def test_lanes_shows_what_is_declared_before_anything_started(shell: Shell) -> None:  # noqa: F811
    (shell.cwd / "cluster.yaml").write_text("lanes:\n  local:\n  box: {transport: ssh, host: box, gpus: 1}\n")
    del shell.env["LAB_HOME"]
    done = shell.ok("lanes", "--json")
    assert [(x["name"], x["state"], x["transport"]) for x in done.json["lanes"]] == [
        ("local", "declared", "local"),
        ("box", "declared", "ssh"),
    ]
    assert "box" in shell.ok("lanes", "-v").out
    assert not (shell.cwd / ".lab").exists()


def test_down_without_a_controller(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["down"]) == 0
    shown = capsys.readouterr().out
    assert "The controller was not running." in shown
    assert "1 attempt goes on: job 8" in shown


def test_init_makes_a_file_that_works_and_keeps_one_that_is_there(shell: Shell) -> None:  # noqa: F811
    del shell.env["LAB_HOME"]
    done = shell.ok("init")
    assert (shell.cwd / "cluster.yaml").exists()
    assert (shell.cwd / ".lab" / "journal.db").exists()
    assert "next: lab submit" in done.out
    assert shell.ok("lanes", "-q").out == "local\n"
    below = shell.cwd / "a" / "b"
    below.mkdir(parents=True)
    shell.cwd = below
    assert shell("submit", "toy", "-q").out == "1\n"
    shell.cwd = below.parent.parent
    assert "1  toy" in shell.ok("status").out.replace(" 1  ", "1  ")
    (shell.cwd / "cluster.yaml").write_text("lanes: {mine: {}}\n")
    assert "was there and is kept" in shell.ok("init").out
    assert shell.ok("lanes", "-q").out == "mine\n"
    shell.ok("init", "--force")
    assert shell.ok("lanes", "-q").out == "local\n"


def test_doctor_finds_nothing_wrong_here_but_the_broken_kind(shell: Shell) -> None:  # noqa: F811
    many_jobs(shell.home, 3)
    done = shell("doctor", "--json")
    checks = {c["name"]: c for c in done.json["checks"]}
    assert done.code == Exit.JOB_FAILED
    assert {n for n, c in checks.items() if c["verdict"] == "fail"} == {"kinds"}
    assert "broken" in checks["kinds"]["said"]
    assert checks["controller"]["verdict"] == "warn"
    assert "3 jobs" in checks["journal"]["said"]


def test_doctor_names_a_damaged_journal_and_recovers_it(shell: Shell) -> None:  # noqa: F811
    many_jobs(shell.home, 20)
    shell.home.witness.unlink()
    done = shell("status")
    assert done.code == Exit.REFUSED
    assert "the witness" in done.err
    assert done.err.count("\n") == 1
    assert "lab doctor --recover" in done.err
    assert "✗ fail  journal" in shell("doctor").out
    recovered = shell("doctor", "--recover")
    assert recovered.code == 0, recovered.err
    assert "the damaged files are kept in" in recovered.out.replace("\n", " ")
    assert shell("status").code == 0
