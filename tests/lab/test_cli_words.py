"""Words of the command line: durations, memory, ids; and completion through the shell's own protocol."""

from __future__ import annotations

import pytest

from core.errors import BadInput
from lab import arguments
from tests.lab.journals import many_jobs
from tests.lab.shell import Shell, shell  # noqa: F401


@pytest.mark.parametrize(
    ("word", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("1.5h", 5400),
        ("2h30m", 9000),
        ("250ms", 0.25),
        ("1d", 86400),
        ("1w", 604800),
        ("2:30", 150),  # Slurm: minutes and seconds
        ("2:30:00", 9000),
        ("3-12", 302400),  # Slurm: days and hours
        ("3-12:00:00", 302400),
    ],
)
def test_durations(word: str, seconds: float) -> None:
    assert arguments.duration(word, "--time-limit") == seconds


@pytest.mark.parametrize("word", ["", "10", "soon", "-5s", "10 m m", "1:2:3:4", "h", "5x", "1-"])
def test_what_is_no_duration(word: str) -> None:
    with pytest.raises(BadInput, match="--time-limit"):
        arguments.duration(word, "--time-limit")


@pytest.mark.parametrize(
    ("word", "mib"),
    [("2G", 2048), ("512M", 512), ("512", 512), ("1.5GiB", 1536), ("2 gb", 2048), ("1T", 1048576), ("1k", 1)],
)
def test_memory(word: str, mib: int) -> None:
    assert arguments.memory_mb(word, "--memory") == mib


def test_ids_and_ranges() -> None:
    assert arguments.job_ids(["3", "5-7", "6,9"]) == (3, 5, 6, 7, 9)
    for word in ("x", "1-", "3-1", "0x3", "1-999999999", "3.2", "3.", ".2"):
        with pytest.raises(BadInput):
            arguments.job_ids([word])


def test_retries() -> None:
    assert arguments.retry_bounds(["2", "time-limit=1"]) == {"error": 2, "time-limit": 1}


def complete(shell: Shell, line: str, kind: str = "bash", **env: str) -> list[str]:  # noqa: F811
    words = line.split(" ")
    asked = {"_LAB_COMPLETE": f"complete_{kind}", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = shell(**asked, _TYPER_COMPLETE_ARGS=line, **env)
    assert done.err == ""
    return done.out.split("\n")[:-1] if done.out.strip() else []


def test_completion_of_commands_and_options(shell: Shell) -> None:  # noqa: F811
    assert complete(shell, "lab re") == ["release", "rerun", "results", "report"]
    assert complete(shell, "lab lane d") == ["drain", "down"]
    assert complete(shell, "lab status --st") == ["--state"]
    assert "--home" in complete(shell, "lab status --")


def test_completion_of_job_ids(shell: Shell) -> None:  # noqa: F811
    assert complete(shell, "lab status ") == []  # no home yet: nothing, and no complaint
    assert not shell.home.path.exists()
    many_jobs(shell.home, 12)
    assert complete(shell, "lab status ")[:2] == ["12", "11"]
    assert complete(shell, "lab logs 1") == ["12", "11", "10", "1"]
    assert complete(shell, "lab cancel ") == ["12", "11", "10"]
    assert complete(shell, "lab results 1") == ["1"]
    assert complete(shell, "lab release ") == []
    assert complete(shell, "lab submit toy --after ok:1") == ["ok:12", "ok:11", "ok:10", "ok:1"]
    assert '"12":"toy number 12, queued"' in complete(shell, "lab status 12", "zsh")[0]


def test_completion_of_a_home_given_by_option(shell: Shell) -> None:  # noqa: F811
    many_jobs(shell.home, 2)
    home = str(shell.home.path)
    del shell.env["LAB_HOME"]
    assert complete(shell, f"lab status --home {home} ", HOME=str(shell.cwd)) == ["2", "1"]


def test_completion_of_kinds_lanes_states_tags(shell: Shell) -> None:  # noqa: F811
    many_jobs(shell.home, 12)
    (shell.home.path / "cluster.yaml").write_text("lanes:\n  local:\n  lunar: {about: far away}\n")
    assert complete(shell, "lab submit to") == ["toy"]
    assert complete(shell, "lab submit toy --lane l") == ["local", "lunar"]
    assert complete(shell, "lab lane drain lu") == ["lunar"]
    assert complete(shell, "lab status --state can") == ["cancelling", "cancelled"]
    assert complete(shell, "lab status --tag ") == ["tenth"]
    assert complete(shell, "lab submit toy --retries time") == ["time-limit="]


def test_the_shell_is_told_how(shell: Shell) -> None:  # noqa: F811
    for kind in ("bash", "zsh", "fish"):
        done = shell(_LAB_COMPLETE=f"source_{kind}")
        assert done.code == 0
        assert "_LAB_COMPLETE" in done.out
