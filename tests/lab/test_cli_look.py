"""`lab status`, `logs`, `explain`: what is shown, how wide, in what colours."""

from __future__ import annotations

import importlib
import signal
import sqlite3
import time

import pytest

from core.errors import Exit
from core.home import Home
from core.journal import Event, Journal, Role, query
from core.live import LiveAttempt, LiveWriter
from core.states import EventKind as K
from lab import main
from lab.output import human
from lab.output import job as look
from lab.output.page import Page, cells
from lab.output.table import Column, lay_out
from tests.lab.journals import many_jobs
from tests.lab.shell import Shell, shell  # noqa: F401
from tests.lab.toys import finish
from tests.support import wait_for


@pytest.fixture
def home(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Home:  # noqa: F811
    """Thirty jobs: 1 to 27 finished (10 and 20 failed), 28 runs, 29 and 30 queued."""
    many_jobs(shell.home, 30)
    monkeypatch.setenv("LAB_HOME", str(shell.home.path))
    monkeypatch.delenv("COLUMNS", raising=False)
    return shell.home


def end(home: Home, job: int, state: str = "succeeded") -> None:
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.append(K.JOB_ENDED, job=job, data={"state": state, "cause": "ok", "reason": ""})


def test_what_is_live_and_what_ended_last(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ID", "JOB", "STATE", "LANE", "AGE", "TIME", "NOTE"]
    assert [line.split()[0] for line in lines[1:12]] == [str(i) for i in range(20, 31)]
    assert "✗ failed" in lines[1]
    assert lines[1].endswith("the program ended with exit 3")
    assert "● running" in lines[9]
    assert "○ queued" in lines[10]
    assert lines[-2] == "30 jobs: 2 queued, 1 running, 25 succeeded, 2 failed"
    assert lines[-1] == "The controller is not running, so nothing starts: `lab up` starts it."


def test_filters(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    def ids(*args: str) -> list[str]:
        assert main.main(["status", "-q", *args]) == 0
        return capsys.readouterr().out.split()

    assert ids("--state", "failed") == ["10", "20"]
    assert ids("--state", "live") == ["28", "29", "30"]
    assert ids("--tag", "tenth", "--state", "queued") == ["30"]
    assert ids("--all") == [str(i) for i in range(1, 31)]
    assert ids("--all", "-n", "2") == ["29", "30"]
    assert ids("3", "5-7") == ["3", "5", "6", "7"]
    assert ids("--kind", "nothing") == []
    assert ids("-n", "2") == ["28", "29"]


def test_one_id_shows_everything(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["status", "10"]) == 0
    shown = capsys.readouterr().out
    for text in ("10  toy number 10  ✗ failed", "alpha=10", "time limit", "tenth", "ATTEMPT", "next: lab logs 10"):
        assert text in shown


def test_a_lane_out_of_reach_is_what_is_said_of_its_job(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    def lane(state: str) -> None:
        with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
            tx.append(K.LANE, lane="local", data={"state": state, "reason": ""})

    def said(*args: str) -> str:
        assert main.main(["status", *args]) == 0
        return " ".join(capsys.readouterr().out.split())

    report = {"job": 28, "attempt": 1, "phase": "running", "beat": 1, "step": 7}
    live = LiveWriter(home)
    live.write([report])
    live.link("local", {"age_s": 250.0, "error": "no answer"})
    with sqlite3.connect(home.live) as conn:
        conn.execute("UPDATE beat SET changed = changed - 300")
    lane("unreachable")
    away = "local unreachable for 4m10s, it may well run on; `lab lane down local` requeues it"
    for args in ((), ("28",)):
        words = said(*args)
        assert f"step 7; {away}" in words
        assert "no heartbeat" not in words
    lane("up")
    words = said()
    assert "step 7; no heartbeat for 5m" in words
    assert "unreachable" not in words
    silent = {"age_s": 250.0, "error": "silent until 18:20 for its admission", "on_purpose": True}
    live.link("local", {**silent, "silent_until": time.time() + 60})
    words = said()
    assert "step 7; local is silent until 18:20 for its admission" in words
    assert "no heartbeat" not in words, "it is not to be heard"
    live.link("local", {**silent, "silent_until": time.time() - 60})
    assert "no heartbeat for 5m" in said(), "nobody ended that"


def test_json_has_a_schema_and_whole_values(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert main.main(["status", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "lab.status/1"
    assert answer["counts"] == {"queued": 2, "running": 1, "succeeded": 25, "failed": 2}
    assert answer["controller"] == "not running"
    assert answer["jobs"][0]["params"] == {"alpha": 20.0}
    assert answer["jobs"][0]["submitted"].endswith("Z")
    assert main.main(["status", "10", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "lab.job/1"
    assert answer["job"]["attempt_list"][0]["exit_code"] is None


@pytest.mark.parametrize("width", [80, 60])
def test_it_fits_the_terminal(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main.main(["status"]) == 0
    shown = capsys.readouterr().out
    assert max(cells(line) for line in shown.splitlines()[:-2]) <= width
    assert width < 80 or "exit 3" in shown  # the reason is folded, not lost


def test_colours_only_for_eyes(home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main.main(["status"]) == 0
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main.main(["status"]) == 0
    assert "\x1b[1;31m✗ failed\x1b[0m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    assert main.main(["status"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_terminal_without_unicode(shell: Shell, home: Home) -> None:  # noqa: F811
    shown = shell.ok("status", PYTHONIOENCODING="ascii", PYTHONUTF8="0").out
    assert "x failed" in shown
    assert shown.isascii()


def test_no_name_can_steer_the_terminal(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        data = {"state": "failed", "cause": "error", "reason": "bad \x1b]0;title\x07 \x1b[2J thing"}
        tx.extend([Event(K.JOB_ENDED, job=29, data=data)])
    assert main.main(["status", "29"]) == 0
    assert main.main(["status"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_watch_ends_with_the_jobs_it_was_asked_about(shell: Shell, home: Home) -> None:  # noqa: F811
    process = shell.start("status", "29", "--watch")
    assert process.stdout is not None
    assert "queued" in process.stdout.readline()
    end(home, 29)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "✓ succeeded" in out


def test_watch_ends_with_ctrl_c(shell: Shell, home: Home) -> None:  # noqa: F811
    process = shell.start("status", "--watch")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")


LOG = b"one\n\x1b[31mred\x1b[0m \x1b]0;title\x07two\n 10%\r 50%\r100%\nbell\x07 and \xff\nlast"


def test_logs_without_escapes(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    run = home.run_dir(28, 1)
    run.path.mkdir(parents=True)
    run.log.write_bytes(LOG)
    assert main.main(["logs", "28"]) == 0
    assert capsys.readouterr().out == "one\nred two\n100%\nbell and �\nlast\n"
    assert main.main(["logs", "28", "-n", "2"]) == 0
    assert capsys.readouterr().out == "bell and �\nlast\n"
    assert main.main(["logs", "28", "--attempt", "2"]) == Exit.NOT_FOUND
    assert "job 28 has no attempt 2" in capsys.readouterr().err
    assert main.main(["logs", "29"]) == Exit.NOT_FOUND
    assert "it has not started (queued)" in capsys.readouterr().err


def test_logs_can_be_followed_to_the_end_of_the_job(shell: Shell, home: Home) -> None:  # noqa: F811
    run = home.run_dir(28, 1)
    run.path.mkdir(parents=True)
    run.log.write_text("one\ntwo\nthree\n")
    process = shell.start("logs", "28", "-f", "-n", "1")
    assert process.stdout is not None
    assert process.stdout.readline() == "three\n"
    with run.log.open("a") as f:
        f.write("four\nfi")
        f.flush()
        assert process.stdout.readline() == "four\n"
        f.write("ve")
    end(home, 28)
    out, err = process.communicate(timeout=20)
    assert out == "five\n"
    assert err == "-- job 28: succeeded --\n"
    assert process.returncode == 0


def test_ctrl_c_of_a_followed_log(shell: Shell, home: Home) -> None:  # noqa: F811
    process = shell.start("logs", "29", "-f")
    assert process.stderr is not None
    assert process.stderr.readline() == "job 29 has not started yet (queued)\n"
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=20)
    assert err == "stopped watching; job 29 goes on\n"
    assert process.returncode == 0


def test_explain_says_it_in_a_sentence(shell: Shell) -> None:  # noqa: F811
    shell.ok("submit", "toy")
    shown = shell.ok("explain", "1").out
    assert shown.startswith("○ Job 1 waits for the controller")
    answer = shell.ok("explain", "1", "--json").json
    assert answer["schema"] == "lab.explain/1"
    assert answer["state"] == "queued"


def test_waiting_says_once_that_no_controller_runs(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from lab import wait
    from lab.session import Session

    many_jobs(shell.home, 3)
    here = Session()
    here.home_given = shell.home.path
    said: list[str] = []
    monkeypatch.setattr(here.out, "remark", said.append)
    watch = wait._ControllerWatch(here)
    for now in (0.0, 4.0, 6.0, 8.0):
        watch.look(now)
    assert len(said) == 1
    assert "the controller does not run" in said[0]


def test_waiting_says_why_once_and_again_when_it_is_another_reason(
    shell: Shell,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lab import wait
    from lab.session import Session

    many_jobs(shell.home, 3)
    here = Session()
    here.home_given = shell.home.path
    said: list[str] = []
    why = "job 3 has 4 jobs before it"
    monkeypatch.setattr(here.out, "remark", said.append)
    for taker in ("lab.explain", "lab.explainsweep", "lab.tui.feed"):
        importlib.import_module(taker)  # imported later, it would take the bent one for good
    monkeypatch.setattr("lanes.start.controller_alive", lambda _: True)
    monkeypatch.setattr("lab.explain.why_waits", lambda *_: why)
    watch = wait._Reasons(here)
    with here.reading() as journal:
        waits = [query.job(journal.conn, 3)]
        watch.look(journal, waits, 0.0)
        assert not said
        for now in (2.0, 2.5, 5.0):
            watch.look(journal, waits, now)
        assert said == [why]
        why = "job 3 has 2 jobs before it"
        watch.look(journal, waits, 8.0)
        assert len(said) == 1
        why = "job 3 waits for a lane to come up"
        watch.look(journal, waits, 11.0)
        assert said[1:] == [why]
        watch.look(journal, [query.job(journal.conn, 1)], 20.0)  # one that has ended
        assert len(said) == 2


def test_a_step_of_an_expected_last_one_is_progress(shell: Shell) -> None:  # noqa: F811
    shell.ok("submit", "toy", "--expect-step", "60")
    shell.ok("submit", "toy", "--set", "alpha=2")
    with Journal.open(shell.home, Role.CONTROLLER) as journal:
        with journal.transaction() as tx:
            for i in (1, 2):
                tx.append(K.PLACED, job=i, attempt=1, lane="local", data={"nonce": "n", "grant": {"cores": 1}})
                tx.append(K.STARTED, job=i, attempt=1, lane="local", data={"pid": 1, "boot": "b"})
        live = LiveWriter(shell.home)
        live.write({"job": i, "attempt": 1, "phase": "running", "beat": 1, "step": 30} for i in (1, 2))
        live.close()
        job = query.with_attempts(journal.conn, [query.job(journal.conn, 1)])[0]
    lines = shell.ok("status").out.splitlines()
    assert "30/60 (50%)" in lines[1]
    assert "step 30" in lines[2]
    own = LiveAttempt("running", 1, 0.1, 30, 1.0, 4.0, "", None, 1, 0)
    assert look.with_goal(own, job) is own  # what a job says itself counts


def test_the_time_is_that_of_the_last_attempt_everywhere(shell: Shell) -> None:  # noqa: F811
    shell.ok("submit", "toy")
    with Journal.open(shell.home, Role.CONTROLLER) as journal:
        with journal.transaction() as tx:
            tx.append(K.PLACED, job=1, attempt=1, lane="local", data={"nonce": "n", "grant": {"cores": 1}})
            data = {"state": "lost", "cause": "unreachable", "message": "", "seconds": None, "parts": []}
            tx.append(K.ATTEMPT_ENDED, job=1, attempt=1, lane="local", data=data)
            tx.append(K.REQUEUED, job=1, data={"cause": "unreachable", "reason": "attempt 1: unreachable"})
        assert look.run_time(query.with_attempts(journal.conn, [query.job(journal.conn, 1)])[0], 9e9) is None
    finish(shell.home, 1, seconds=61.0)
    assert "1m01s" in shell.ok("status").out.splitlines()[1]
    assert "1m01s" in shell.ok("status", "1").out.splitlines()[0]
    assert "attempt 2 on local in 1m01s" in shell.ok("explain", "1").out


def page(width: int | None) -> Page:
    return Page(width, False, True, True)


def test_tables_shorten_and_fold() -> None:
    columns = (Column("ID", right=True), Column("JOB", shrink=True), Column("EMPTY"), Column("NOTE"))
    rows = [
        (
            "1",
            "a job with a rather long name",
            "",
            "a reason that is much too long to fit into what is left of the line",
        )
    ]
    lines = lay_out(page(50), columns, rows)
    assert lines[0].split() == ["ID", "JOB", "NOTE"]
    assert max(map(cells, lines)) <= 50
    assert "…" in lines[1]
    assert len(lines) == 3
    assert lay_out(page(None), columns, rows)[1].endswith("what is left of the line")


def test_wide_characters_are_counted() -> None:
    assert cells("日本") == 4
    assert cells("e\u0301") == 1
    assert cells("\x1b[1;31mred\x1b[0m") == 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (9.96, "10s"), (59.4, "59s"), (61, "1m01s"), (3700, "1h01m"), (90000, "1d01h")],
)
def test_spans(seconds: float, text: str) -> None:
    assert human.span(seconds) == text


def test_ages_and_sizes() -> None:
    now = time.time()
    assert [human.age(now - s, now) for s in (3, 125, 7300, 200_000)] == ["3s", "2m", "2h", "2d"]
    assert human.age(now + 5, now) == "0s"  # a clock that was set back
    assert [human.size(n) for n in (12, 2048, 1 << 22)] == ["12 B", "2.0 KiB", "4.0 MiB"]
    assert human.iso(0.0005) == "1970-01-01T00:00:00.000Z" or human.iso(0.0005) == "1970-01-01T00:00:00.001Z"
    assert wait_for(lambda: True, "nothing")
