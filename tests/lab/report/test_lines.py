"""The line that makes a job: pasted, it makes the job of the same key."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from core.journal import Journal, query
from core.journal.query import Job
from lab.report import lines
from tests.lab.shell import Shell, shell  # noqa: F401

PLAIN = {"toy": {"alpha": 1.0, "sizes": [1, 4], "label": "x", "mode": "fast", "data": None}}
ASKED = [
    ["toy"],
    ["toy", "--set", "alpha=3", "--set", "label=a b'c", "--set", "sizes=[2,3]", "--set", "mode=slow"],
    ["toy", "--set", "label='7'", "--cores", "2", "--memory", "64M", "--time-limit", "90s"],
    ["toy", "--input", "raw=data.csv:in/data.csv", "--set", "data=data.csv"],
    ["command", "--output", "w.txt", "--expect-step", "3", "--", "python3", "train.py", "--alpha", "it's $HOME `x`"],
    ["command", "--env", "SEEN=1", "--", "sh", "-c", 'echo "$SEEN" | wc'],
]


def read(shell: Shell, job: int) -> tuple[Job, dict[str, Any]]:  # noqa: F811
    with Journal.open(shell.home) as journal:
        found = query.job(journal.conn, job)
        return found, query.spec_of(journal.conn, found.spec)


@pytest.mark.parametrize("asked", ASKED, ids=range(len(ASKED)))
@pytest.mark.parametrize("typed", [True, False])
def test_the_same_job_again(shell: Shell, asked: list[str], typed: bool) -> None:  # noqa: F811
    (shell.cwd / "data.csv").write_text("1,2\n")
    (shell.cwd / "train.py").write_text("print(1)\n")
    shell.ok("submit", *asked)
    job, spec = read(shell, 1)
    line = lines.own(job, spec if typed else {**spec, "argv": []}, {})
    assert line.startswith("lab submit ")
    shell.ok(*_forced(line), SEEN="1")  # a variable is named, and not its value
    assert read(shell, 2)[0].key == job.key


def _forced(line: str) -> list[str]:
    words = shlex.split(line)[1:]
    at = words.index("--") if "--" in words else len(words)
    return [*words[:at], "--force", *words[at:]]


def test_what_no_line_can_say_is_run_again(shell: Shell) -> None:  # noqa: F811
    shell.ok("submit", "doses")
    shell.ok("submit", "toy", "--grid", "alpha=1,2")
    end, _ = read(shell, 4), None
    assert end[0].name == "doses/end"
    assert lines.own(*end, {}, study="doses@1") == "lab rerun 4"
    data = read(shell, 1)
    assert lines.own(*data, PLAIN, study="doses@1") == "lab submit toy --set label=data"
    sweep, cell = read(shell, 5), read(shell, 6)
    assert lines.own(*sweep, {}) == "lab submit toy --grid alpha=1,2"
    assert lines.own(sweep[0], {**sweep[1], "argv": []}, {}) == "lab rerun 5"
    assert lines.own(*cell, PLAIN) == "lab submit toy"
    assert lines.own(*read(shell, 7), PLAIN) == "lab submit toy --set alpha=2.0"
    assert lines.typed(cell[1]) == "lab submit toy --grid alpha=1,2"


@pytest.mark.parametrize("words", [["a b"], ["it's"], ['say "it\'s"'], ["$HOME's"], ["`x`'"], ["a\nb'"], ["x!'"], [""]])
def test_quoting(words: list[str]) -> None:
    assert shlex.split(lines.joined(words)) == words
