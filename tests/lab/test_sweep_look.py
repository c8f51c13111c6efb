"""Sweeps on the command line: submitted, folded, unfolded, waited for, explained, held, cancelled, run again."""

from __future__ import annotations

import json
import re

import pytest

from core.errors import Exit
from core.journal import Journal, Role, query
from core.states import EventKind as K
from core.states import JobState
from lab import main
from lab.output import human
from lab.output.page import cells as width_of
from lanes.start import controller_alive
from tests.lab.shell import Shell, shell  # noqa: F401
from tests.lab.test_cli_terminal import Terminal
from tests.lab.test_cli_words import complete
from tests.lab.toys import batch, end_sweep, finish, open_sweep, place
from tests.support import wait_for

Said = pytest.CaptureFixture[str]


@pytest.fixture
def swept(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:  # noqa: F811
    """Job 1; sweep 2 of six cells (3 to 8): two succeeded, one failed, one runs, two are queued; and job 9."""
    shell.ok("submit", "toy", "--set", "alpha=99")
    shell.ok(
        "submit", "toy", "--grid", "alpha=1,2,3", "--grid", "mode=fast,slow%3", "--max-fails", "1", "--tag", "night"
    )
    shell.ok("submit", "toy", "--set", "alpha=98", "--after", "ok:2")
    open_sweep(shell.home, 2)
    finish(shell.home, 3)
    finish(shell.home, 4)
    finish(shell.home, 5, state="failed", cause="error")
    place(shell.home, 6)
    # A program that a thread of an earlier test starts just now has our lock until it is another one.
    wait_for(lambda: not controller_alive(shell.home), "the lock to be nobody's")
    monkeypatch.setenv("LAB_HOME", str(shell.home.path))
    monkeypatch.setenv("LAB_NO_START", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(shell.cwd)
    return shell


def end_all(shell: Shell) -> None:  # noqa: F811
    with Journal.open(shell.home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        end = {"state": "succeeded", "cause": "ok", "message": "", "seconds": 1.0, "manifest": None}
        tx.append(K.ATTEMPT_ENDED, job=6, attempt=1, lane="local", data={**end, "undeclared": [], "parts": []})
        tx.append(K.JOB_ENDED, job=6, data={"state": "succeeded", "cause": "ok", "reason": ""})
    for job in (7, 8):
        finish(shell.home, job)
    end_sweep(shell.home, 2)


def text(out: str) -> str:
    """What was said, whatever the width: one line."""
    return " ".join(out.split())


# Submitting.


def test_what_a_submit_says(shell: Shell) -> None:  # noqa: F811
    done = shell.ok("submit", "toy", "--grid", "alpha=1,2,3", "--grid", "mode=fast,slow", "--exclude", "alpha=3")
    with Journal.open(shell.home) as journal:
        key = query.job(journal.conn, 1).key[:10]
    assert done.out == f"1  toy alpha×mode 3×2  ○ queued  4 cells  key {key}\n"
    again = shell.ok("submit", "toy", "-g", "alpha=1,2", "-g", "mode=fast,slow")
    assert (
        again.out
        == "1  toy alpha×mode 2×2  ○ queued, the same sweep is under way: nothing new was submitted\n".replace(
            "2×2", "3×2"
        )
    )
    open_sweep(shell.home, 1)
    for job in range(2, 6):
        finish(shell.home, job, rows=[{"cell": "a", "err": 0.5}])
    end_sweep(shell.home, 1)
    events = shell.events()
    done = shell.ok("submit", "toy", "--grid", "alpha=1,2", "--grid", "mode=fast,slow")
    assert "✓ all 4 cells are there already: nothing runs; see `lab results 1`" in done.out
    assert shell.events() == events
    more = shell.ok("submit", "toy", "--grid", "alpha=2,3", "--grid", "mode=fast,slow")
    assert "4 cells, 2 there already, 2 to run" in more.out
    answer = shell.ok("submit", "toy", "--grid", "alpha=3,4", "--json").json["jobs"][0]
    assert answer["cells"] == {"total": 2, "own": 1, "done": 0, "live": 1}
    assert shell.ok("submit", "toy", "--grid", "alpha=7..8", "-q").out == "11\n"
    unmatched = shell.ok("submit", "toy", "--grid", "alpha=1,2", "--exclude", "alpha=9", "--hold", "--force").out
    assert "the exclude alpha=9 matches no cell" in unmatched


def test_plan_counts_and_writes_nothing(shell: Shell) -> None:  # noqa: F811
    typed = ("submit", "toy", "--grid", "alpha=1..4%2", "--plan")
    done = shell.ok(*typed)
    assert "4 cells; local, once the controller is up" in done.out
    assert "Nothing was submitted" in done.out
    assert not shell.home.journal.exists()
    shell.ok("submit", "toy", "--set", "alpha=2")
    finish(shell.home, 1, seconds=3.0)
    done = shell.ok(*typed)
    assert "4 cells, 1 answered already" in done.out
    plan = shell.ok(*typed, "--json").json["jobs"][0]
    assert (plan["cells"], plan["done"], plan["live"]) == (4, 1, 0)
    assert 9.0 <= plan["expected_s"] <= 18.0, "three cells as long as the one that is known, and the doubt of that"
    assert f"about {human.span(plan['expected_s'])} of work" in done.out


FILE = """\
kind: toy
set: {label: z}
grid:
  alpha: [1, 2, 3]
  mode: fast,slow
  sizes: [[1], [1, 4]]
zip: [mode, sizes]
exclude: [{alpha: 2, mode: slow}]
at_once: 2
max_fails: 3
tags: [night]
"""


def test_a_sweep_file(shell: Shell) -> None:  # noqa: F811
    (shell.cwd / "sweep.yaml").write_text(FILE)
    assert shell.ok("submit", "--sweep", "sweep.yaml", "-q").out == "1\n"
    with Journal.open(shell.home) as journal:
        sweep, cells = query.sweep(journal.conn, 1), query.cells(journal.conn, 1)
    assert (sweep.cells, sweep.at_once, sweep.max_fails) == (5, 2, 3)
    assert [(c.params["alpha"], c.params["mode"], c.params["sizes"]) for c in cells][:3] == [
        (1, "fast", [1]),
        (1, "slow", [1, 4]),
        (2, "fast", [1]),
    ]
    assert {c.params["label"] for c in cells} == {"z"}


def test_a_file_of_jobs_and_sweeps_is_a_dag(shell: Shell) -> None:  # noqa: F811
    (shell.cwd / "jobs.yaml").write_text(
        "- {name: last, kind: toy, after: [many]}\n"
        "- {name: many, kind: toy, grid: {alpha: 1..3%2, mode: [slow]}, after: [first]}\n"
        "- {name: first, kind: toy, set: {alpha: 9.0}}\n"
    )
    assert shell.ok("submit", "--file", "jobs.yaml", "-q").out == "6\n2\n1\n"
    with Journal.open(shell.home) as journal:
        assert [(c, j.id) for c, j in query.dependencies(journal.conn, 6)] == [("ok", 2)]
        assert [(c, j.id) for c, j in query.dependencies(journal.conn, 2)] == [("ok", 1)]
        assert query.sweep(journal.conn, 2).at_once == 2


def test_a_study_kind_is_its_dag(shell: Shell) -> None:  # noqa: F811
    done = shell.ok("submit", "dag", "--set", "seeds=3", "--tag", "t")
    assert [line.split("  ")[:2] for line in done.out.splitlines()] == [
        ["1", "toy dag/base"],
        ["2", "toy dag/many"],
        ["6", "toy dag/end"],
    ]
    with Journal.open(shell.home) as journal:
        assert [(c, j.id) for c, j in query.dependencies(journal.conn, 6)] == [("any", 2)]
        assert [(c, j.id) for c, j in query.dependencies(journal.conn, 2)] == [("ok", 1)]
        assert query.job(journal.conn, 6).tags == ("t",)
        assert query.sweep(journal.conn, 2).at_once == 2


# Folded.


def test_a_sweep_is_one_row(swept: Shell, capsys: Said) -> None:
    assert main.main(["status"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:4]] == ["1", "2", "9"]
    assert "2/6, 1 failed, 1 running" in out
    assert "first: 2.3 alpha=2.0 mode=fast: it broke" in text(out)
    assert "3 jobs: 2 queued, 1 running; 6 cells: 2 queued, 1 running, 2 succeeded, 1 failed" in out
    assert main.main(["status", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["counts"] == {"queued": 2, "running": 1}
    assert answer["cells"] == {"queued": 2, "running": 1, "succeeded": 2, "failed": 1}
    [row] = [j for j in answer["jobs"] if j["id"] == 2]
    assert row["cells"]["counts"] == {"queued": 2, "running": 1, "succeeded": 2, "failed": 1}
    assert row["cells"]["first_failure"]["id"] == 5
    assert row["cells"]["eta_s"] > 0


def test_tags_and_states_choose_sweeps_not_cells(swept: Shell, capsys: Said) -> None:
    def ids(*args: str) -> list[str]:
        assert main.main(["status", "-q", *args]) == 0
        return capsys.readouterr().out.split()

    assert ids("--tag", "night") == ["2"]
    assert ids("--state", "succeeded") == []
    assert ids("--all") == ["1", "2", "9"]
    assert ids("2", "2.3", "1") == ["1", "2", "5"]
    assert ids("2", "--cells") == ["3", "4", "5", "6", "7", "8"]
    assert ids("2", "--cells", "--state", "failed") == ["5"]
    assert ids("2", "--cells", "-n", "2") == ["3", "4"]
    assert ids("2.2-4", "1") == ["1", "4", "5", "6"]


@pytest.mark.parametrize("width", [80, 60])
def test_it_fits(swept: Shell, capsys: Said, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for args in (["status"], ["status", "2", "--cells"], ["status", "2"]):
        assert main.main(args) == 0
        lines = [
            line
            for line in capsys.readouterr().out.splitlines()
            if not line.startswith(("next", "The contr", "3 jobs"))
        ]
        assert max(map(width_of, lines)) <= width


def test_the_card_of_a_sweep(swept: Shell, capsys: Said) -> None:
    assert main.main(["status", "2"]) == 0
    out = text(capsys.readouterr().out)
    for said in (
        "2 toy alpha×mode 3×2 ● running",
        "alpha 1, 2, 3",
        "cells 6: jobs 3 to 8",
        "at once 3 cells",
        "max fails 1:",
        "2.3 5 alpha=2.0 mode=fast it broke",
        "before 9 (queued)",
        "tags night",
        "next: lab logs 5, lab status 2 --cells --state failed",
    ):
        assert said in out
    assert main.main(["status", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "lab.sweep/1"
    assert answer["sweep"]["axes"][1] == {"name": "mode", "values": ["fast", "slow"]}
    assert [f["cell"] for f in answer["sweep"]["failures"]] == ["2.3"]
    assert main.main(["status", "5"]) == 0
    assert "sweep 2, cell 2.3" in text(capsys.readouterr().out)


def test_a_count_is_said_once(swept: Shell, capsys: Said) -> None:
    end_all(swept)
    assert main.main(["status", "2"]) == 0
    out = capsys.readouterr().out
    assert "5/6, 1 failed" in out
    assert "of 6 cells failed" not in out
    assert main.main(["explain", "2"]) == 0
    assert "of 6 cells failed" not in text(capsys.readouterr().out)


def test_cells_one_by_one(swept: Shell, capsys: Said) -> None:
    assert main.main(["status", "2", "--cells", "--state", "failed,running"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["2.3", "5"], ["2.4", "6"]]
    assert lines[1].endswith("it broke")
    assert main.main(["status", "2", "--cells", "--json", "-n", "1"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["omitted"], answer["cells"][0]["cell"]) == ("lab.cells/1", 5, "2.1")
    for args, code in (
        (["status", "--cells"], Exit.BAD_INPUT),
        (["status", "1", "--cells"], Exit.NOT_FOUND),
        (["status", "1", "2", "--cells"], Exit.BAD_INPUT),
        (["status", "2.7"], Exit.NOT_FOUND),
        (["status", "2.0"], Exit.NOT_FOUND),
        (["status", "1.1"], Exit.NOT_FOUND),
    ):
        assert main.main(args) == code
        assert capsys.readouterr().err.count("\n") == 1


def test_members_are_told_apart(swept: Shell, capsys: Said) -> None:
    swept.ok("submit", "toy", "--grid", "alpha=2..5", "--set", "mode=slow")
    assert main.main(["status", "10", "--cells"]) == 0
    lines = capsys.readouterr().out.splitlines()
    # 6 (alpha=2) runs as a cell of sweep 2 and has no number in this one; 8 (alpha=3) may yet be stopped there.
    assert [line.split()[0] for line in lines[1:5]] == ["6", "10.1", "10.2", "10.3"]
    assert main.main(["status", "10"]) == 0
    assert "1 cell answered by other jobs: 6" in text(capsys.readouterr().out)


# Changed.


def test_cancel_hold_and_release(swept: Shell, capsys: Said) -> None:
    def wishes() -> dict[int, str | None]:
        with Journal.open(swept.home) as journal:
            return {j.id: j.wish for j in query.wishes(journal.conn)}

    assert main.main(["hold", "2"]) == 0
    assert wishes() == {2: "hold"}
    assert main.main(["release", "2"]) == 0
    assert wishes() == {2: "release"}
    assert main.main(["cancel", "2.5"]) == 0
    assert "7  toy alpha=3.0 mode=fast  cancel asked" in capsys.readouterr().out
    assert main.main(["cancel", "--tag", "night"]) == 0
    assert wishes() == {2: "cancel", 7: "cancel"}
    assert main.main(["hold", "2"]) == 0
    assert "is being cancelled" in capsys.readouterr().out
    assert main.main(["hold", "6"]) == 0
    assert "runs already" in capsys.readouterr().out


def test_rerun_of_what_failed(swept: Shell) -> None:
    done = swept("rerun", "--failed")
    assert done.code == Exit.BAD_INPUT
    assert "the newest that has failed cells is 2 (toy): `lab rerun 2 --failed`" in done.err
    end_all(swept)
    assert "1 cell  key" in swept.ok("rerun", "2", "--failed").out
    with Journal.open(swept.home) as journal:
        assert [c.params["alpha"] for c in query.cells(journal.conn, 10)] == [2.0]
    assert "is under way" in swept.ok("rerun", "2", "--failed").out
    assert swept("rerun", "1", "--failed").code == Exit.BAD_INPUT
    assert swept.ok("rerun", "2.3", "--force", "-q").out == "12\n"
    finish(swept.home, 11)
    end_sweep(swept.home, 10)
    # Of job 6 nothing is left (it was ended by hand): its evidence is gone, and it alone runs.
    assert "6 cells, 5 there already, 1 to run" in swept.ok("rerun", "2").out
    assert "no cell of sweep 10 has failed" in swept("rerun", "10", "--failed").err


# What they printed, and why they wait.


def test_logs_of_a_sweep_are_those_of_its_first_failure(swept: Shell) -> None:
    done = swept.ok("logs", "2")
    assert done.out == "log of 5\n"
    assert "cell 2.3 alpha=2.0 mode=fast: it broke" in done.err
    assert swept.ok("logs", "2.1").out == "log of 3\n"
    assert swept("logs", "2.1-3").code == Exit.BAD_INPUT
    swept.ok("submit", "toy", "--grid", "alpha=50,51")
    done = swept("logs", "10")
    assert done.code == Exit.BAD_INPUT
    assert "none of its cells has failed; name a cell, such as 10.1" in done.err


def test_logs_of_pooled_cells_are_slices(shell: Shell) -> None:  # noqa: F811
    shell.ok("submit", "quick", "--grid", "alpha=1..4")
    open_sweep(shell.home, 1)
    batch(shell.home, 2, 4, failed={3: "it broke"}, log="cell {job} says\n\x1b[31mé\n")
    assert shell.ok("logs", "1.1").out == "cell 2 says\né\n"
    assert shell.ok("logs", "1").out == "cell 3 says\né\n"
    assert shell.ok("logs", "4", "-n", "1").out == "é\n"
    assert shell.ok("logs", "4", "-f").out == "cell 4 says\né\n"
    done = shell("logs", "5")
    assert done.code == Exit.NOT_FOUND
    assert "it has not started" in done.err
    assert "3/4, 1 failed" not in shell.ok("status").out
    assert "2/4, 1 failed" in shell.ok("status").out


def test_explain(swept: Shell, capsys: Said) -> None:
    def said(*args: str) -> str:
        assert main.main(["explain", *args]) == 0
        return text(capsys.readouterr().out)

    assert said("2").startswith("● Sweep 2 is running: 2/6, 1 failed, 1 running;")
    assert "the controller is down" in said("2")
    assert said("2.5").startswith("○ Cell 2.5 (job 7) waits for the controller")
    assert said("9").startswith("○ Job 9 waits for job 2, which is running")
    # Its own sisters are no news: the nearest is the job before the sweep.
    assert "The nearest earlier run is job 1 " in said("2.5")
    place(swept.home, 7)
    place(swept.home, 8)
    swept.ok("submit", "toy", "--grid", "alpha=60,61", "--after", "any:2", "--hold")
    assert said("10").startswith("‖ Sweep 10 is held")
    assert said("10.1").startswith("○ Cell 10.1 (job 11) waits, for its sweep is held")
    swept.ok("submit", "toy", "--grid", "alpha=70,71", "--after", "ok:2")
    assert said("13").startswith("○ Sweep 13 waits for job 2, which is running")
    assert "cell 13.1: the nearest earlier run is job" in said("13").replace("Cell", "cell")
    assert said("13.2").startswith("○ Cell 13.2 (job 15) waits with its sweep: sweep 13 waits for job 2")


def test_explain_says_when_the_limit_is_reached(shell: Shell) -> None:  # noqa: F811
    shell.ok("submit", "toy", "--grid", "alpha=1..3", "--at-once", "1")
    open_sweep(shell.home, 1)
    place(shell.home, 2)
    assert "Cell 1.2 (job 3) waits: 1 cell of sweep 1 run, and --at-once allows 1" in text(
        shell.ok("explain", "1.2").out
    )


# Waited for.


def test_waiting_says_the_first_error_at_once_and_ends_with_1(shell: Shell) -> None:  # noqa: F811
    process = shell.start("submit", "toy", "--grid", "alpha=1..3", "--wait")
    wait_for(lambda: shell.jobs(), "the submit")
    assert process.stderr is not None
    assert "queued" in process.stderr.readline()
    open_sweep(shell.home, 1)
    assert "running" in process.stderr.readline()
    finish(shell.home, 3, state="failed", cause="error")
    assert process.stderr.readline() == "first failure of sweep 1: 1.2 alpha=2.0: it broke (`lab logs 3`)\n"
    finish(shell.home, 2)
    finish(shell.home, 4)
    end_sweep(shell.home, 1)
    out, _err = process.communicate(timeout=30)
    assert process.returncode == Exit.JOB_FAILED
    said = text(out)
    assert "✗ failed" in said
    assert "2/3, 1 failed" in said
    assert "1.2 alpha=2.0: it broke" in said
    assert "| log of 3" in said
    assert "lab rerun 1 --failed" in said


def test_waiting_for_a_sweep_that_succeeds(shell: Shell) -> None:  # noqa: F811
    process = shell.start("submit", "toy", "--grid", "alpha=1..2", "--wait", "--json")
    wait_for(lambda: shell.jobs(), "the submit")
    open_sweep(shell.home, 1)
    finish(shell.home, 2)
    finish(shell.home, 3)
    end_sweep(shell.home, 1)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    ended = json.loads(out.splitlines()[1])
    assert ended["succeeded"] is True
    assert ended["jobs"][0]["cells"]["counts"] == {"succeeded": 2}
    assert ended["jobs"][0]["failures"] == []


def test_a_bar_with_counts(shell: Shell) -> None:  # noqa: F811
    terminal = Terminal(shell, "submit", "toy", "--grid", "alpha=1..3", "--wait")
    terminal.see("0/3")
    open_sweep(shell.home, 1)
    finish(shell.home, 2)
    terminal.see("1/3")
    finish(shell.home, 3, state="failed", cause="error")
    terminal.see("first failure of sweep 1")
    finish(shell.home, 4)
    end_sweep(shell.home, 1)
    assert terminal.end() == Exit.JOB_FAILED


# Words.


def test_completion_of_axes_and_sweeps(swept: Shell) -> None:
    assert complete(swept, "lab submit toy --grid al") == ["alpha="]
    assert complete(swept, "lab submit toy --grid alpha=1 --grid ") == ["sizes=", "label=", "mode=", "data="]
    assert complete(swept, "lab submit toy --set mo") == ["mode="]
    assert complete(swept, "lab submit tooy --grid ") == []
    assert complete(swept, "lab status ") == ["9", "2", "1"]
    assert complete(swept, "lab status 2.")[:2] == ["2.1", "2.2"]
    assert complete(swept, "lab logs 2.3") == ["2.3"]


def test_help_tells_of_sweeps(shell: Shell) -> None:  # noqa: F811
    out = shell.ok("submit", "--help").out
    for word in (
        "--grid",
        "--zip",
        "--exclude",
        "--at-once",
        "--max-fails",
        "--sweep",
        "%8",
        "last axis moves fastest",
    ):
        assert word in out
    assert re.search(r"status 17\.3", shell.ok("status", "--help").out)


def test_states_are_what_the_journal_says(swept: Shell) -> None:
    end_all(swept)
    with Journal.open(swept.home) as journal:
        assert query.job(journal.conn, 2).state is JobState.FAILED
    done = swept.ok("status", "2")
    assert "next: lab logs 5, lab status 2 --cells --state failed, lab rerun 2 --failed" in done.out
