"""The agent: starts once, loses nothing, and says that an attempt is gone only when nothing of it lives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.fsio import read_json, write_json
from core.rundir import RunDir, verify_manifest
from lanes.agent import FAILPOINTS, SHIPPED, agent, procs
from lanes.agent.attempt import BACKLOG, METRICS_CHUNK, Attempt, Report
from lanes.agent.supervisor import PROCS
from tests.lanes.support import REPO, STUBBORN, Lane, alive, kill9, wait_file
from tests.support import wait_for

STEPS = """
import json, os, sys, time
for step in range(int(sys.argv[1])):
    with open(os.environ["LAB_METRICS"], "a") as f:
        f.write(json.dumps({"step": step, "loss": 1.0}) + "\\n")
    while step == 3 and not os.path.exists(sys.argv[2]):
        time.sleep(0.01)
"""


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Lane]:
    lane = Lane(tmp_path)
    yield lane
    lane.end()


def test_a_program_runs_and_is_sealed(lane: Lane) -> None:
    spec = lane.spec(1, ["/bin/sh", "-c", "echo hello; echo trouble >&2"])
    outcome = lane.outcome(spec)
    assert outcome["cause"] == "ok"
    assert outcome["exit_code"] == 0
    lines = lane.log(1).splitlines()
    assert "hello" in lines
    assert "trouble" in lines
    assert lines[-1] == "lab: ended: ok"
    assert verify_manifest(lane.run_dir(1)) == []


def test_hello_says_what_the_lane_has(lane: Lane) -> None:
    hello = lane.agent.hello()
    assert hello["cores"] >= 1
    assert hello["memory_mb"] > 0
    assert hello["boot_id"] == procs.boot_id()
    json.dumps(hello)


def test_start_is_idempotent(lane: Lane, tmp_path: Path) -> None:
    spec = lane.python(1, STEPS, "6", str(tmp_path / "go"))
    run = lane.start(spec)
    for _ in range(4):
        lane.start(spec)
    first = lane.wait_running(1)
    lane.start(spec)
    (tmp_path / "go").touch()
    report = lane.wait_gone(1)
    assert report["pid"] == first["pid"]
    assert lane.start(spec).path == run.path  # after the end too
    steps = [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()]
    assert steps == list(range(6))


def test_many_supervisors_at_once_make_one_attempt(lane: Lane, tmp_path: Path) -> None:
    spec = lane.python(1, STEPS, "6", str(tmp_path / "go"))
    others = [lane.agent, lane.new_agent(), lane.new_agent()]
    threads = [threading.Thread(target=a.start, args=(spec, str(lane.run_dir(1).path))) for a in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lane.wait_running(1)
    (tmp_path / "go").touch()
    lane.wait_gone(1)
    assert len(lane.run_dir(1).metrics.read_text().splitlines()) == 6


def test_another_attempts_folder_is_refused(lane: Lane) -> None:
    lane.outcome(lane.spec(1, ["/bin/true"]))
    answer = lane.agent.start(lane.spec(1, ["/bin/true"]), str(lane.run_dir(1).path))
    assert not answer["ok"]
    assert "another attempt" in answer["reason"]


def test_a_killed_agent_is_replaced_and_the_attempt_goes_on(lane: Lane, tmp_path: Path) -> None:
    """Same process, same attempt, no gap in the step rows."""
    spec = lane.python(1, STEPS, "8", str(tmp_path / "go"))
    write_json(tmp_path / "spec.json", spec)
    code = """
import json, sys, time
from pathlib import Path
from lanes.agent.agent import Agent
agent = Agent(Path(sys.argv[1]), home_hash="test", socket_path=None)
print(agent.start(json.loads(Path(sys.argv[2]).read_text()), sys.argv[3]), flush=True)
time.sleep(600)
"""
    argv = [sys.executable, "-c", code, str(lane.root), str(tmp_path / "spec.json"), str(lane.run_dir(1).path)]
    first = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(REPO)})
    try:
        lane.new_agent()
        wait_for(lambda: (lane.root / "active" / "1.1").exists(), "the other agent to start it", deadline_s=30)
        wait_for(lambda: lane.run_dir(1).metrics.exists(), "the first step", deadline_s=30)
    finally:
        first.kill()
        first.wait()
    pid = lane.started_pid(1)
    lane.new_agent()
    running = lane.wait(1, lambda r: r["step"] == 3, "step 3")
    assert running["pid"] == pid
    assert alive(pid)
    child = running["child"]
    (tmp_path / "go").touch()
    report = lane.wait_gone(1)
    assert (report["pid"], report["child"]) == (pid, child)
    assert report["outcome"]["cause"] == "ok"
    assert [json.loads(line)["step"] for line in report["metrics"]] == list(range(8))


def test_metrics_come_once_each_by_cursor(lane: Lane, tmp_path: Path) -> None:
    lane.start(lane.python(1, STEPS, "9", str(tmp_path / "go")))
    lane.wait(1, lambda r: r["step"] == 3, "step 3")
    frame = lane.agent.poll({}, 0)
    got = list(frame["reports"][0]["metrics"])
    assert len(got) == 4
    assert lane.agent.poll(frame["cursor"], 0)["reports"][0]["metrics"] == []
    (tmp_path / "go").touch()
    lane.wait_gone(1)
    got += lane.agent.poll(frame["cursor"], 0)["reports"][0]["metrics"]
    assert [json.loads(line)["step"] for line in got] == list(range(9))


def test_poll_returns_when_something_ends_and_waits_when_nothing_does(lane: Lane, tmp_path: Path) -> None:
    lane.start(lane.python(1, STEPS, "5", str(tmp_path / "go")))
    lane.wait(1, lambda r: r["step"] == 3 and r["phase"] == "running", "step 3")
    cursor = lane.agent.poll({}, 0)["cursor"]
    begun = time.monotonic()
    quiet = lane.agent.poll(cursor, 0.3)
    assert time.monotonic() - begun >= 0.3
    assert quiet["reports"][0]["phase"] == "running"
    (tmp_path / "go").touch()
    begun = time.monotonic()
    while not (frame := lane.agent.poll(cursor, 30))["reports"][0]["clear"]:
        cursor = frame["cursor"]
    assert time.monotonic() - begun < 20


def test_a_killed_runner_takes_everything_with_it(lane: Lane, tmp_path: Path) -> None:
    lane.start(lane.python(1, STUBBORN, str(tmp_path)))
    pids = [int(wait_file(tmp_path / name, "a stubborn process")) for name in ("child", "grandchild")]
    report = lane.wait_running(1)
    listed = lane.run_dir(1).path / PROCS
    wait_for(lambda: str(pids[1]) in listed.read_text(), "the list of processes to name it", deadline_s=20)
    assert all(alive(p) for p in pids)
    kill9(report["pid"])
    report = lane.wait_gone(1)
    assert (report["phase"], report["reason"], report["sealed"]) == ("lost", "runner-died", False)
    assert not any(alive(p) for p in [*pids, report["child"]])


def test_clear_is_not_said_while_something_lives(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative twin: were the killing to fail, the slot would stay taken."""
    lane.start(lane.spec(1, ["/bin/sleep", "600"]))
    report = lane.wait_running(1)
    survivor = procs.Proc(os.getpid(), procs.start_ticks(os.getpid()) or 0)
    monkeypatch.setattr(procs, "kill_strays", lambda *_a, **_k: [survivor])
    kill9(report["pid"])
    report = lane.wait(1, lambda r: r["phase"] == "lost", "the attempt to be lost")
    assert not report["clear"]
    assert not lane.agent.reap(1, 1)["ok"]
    monkeypatch.undo()
    lane.wait_gone(1)
    assert lane.agent.reap(1, 1)["ok"]
    assert lane.agent.poll({}, 0)["reports"] == []


def test_a_killed_child_is_told_apart(lane: Lane) -> None:
    lane.start(lane.spec(1, ["/bin/sleep", "600"]))
    kill9(lane.wait_running(1)["child"])
    outcome = lane.wait_gone(1)["outcome"]
    assert (outcome["cause"], outcome["signal"]) == ("signal", signal.SIGKILL)


def test_everything_killed_at_once(lane: Lane, tmp_path: Path) -> None:
    spec = lane.python(1, STUBBORN, str(tmp_path))
    lane.start(spec)
    wait_file(tmp_path / "grandchild", "the grandchild")
    for proc in procs.marked(spec["marker"]):
        kill9(proc.pid)
    lane.new_agent()
    report = lane.wait_gone(1)
    assert (report["phase"], report["reason"]) == ("lost", "runner-died")
    # It cleared its environment and left its session, but still prints into the attempt's log.
    grandchild = int((tmp_path / "grandchild").read_text())
    assert procs.identify(grandchild) is None


@pytest.mark.parametrize("point", ["runner.after_lock", "agent.before_launch"])
def test_a_lost_start_is_found_and_fenced(lane: Lane, tmp_path: Path, point: str) -> None:
    points = tmp_path / "points"
    points.mkdir()
    (points / point).touch()
    spec = lane.spec(1, ["/bin/sh", "-c", "echo ran > ran"])
    write_json(tmp_path / "spec.json", spec)
    code = (
        "import json, sys; from pathlib import Path; from lanes.agent.agent import Agent\n"
        "agent = Agent(Path(sys.argv[1]), home_hash='test', socket_path=None)\n"
        "agent.start(json.loads(Path(sys.argv[2]).read_text()), sys.argv[3])"
    )
    argv = [sys.executable, "-c", code, str(lane.root), str(tmp_path / "spec.json"), str(lane.run_dir(1).path)]
    subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(REPO), FAILPOINTS: str(points)}, timeout=30, check=False)
    wait_for(lambda: not (points / point).exists(), "the failpoint to be hit", deadline_s=20)
    lane.new_agent(start_grace_s=0.2)
    report = lane.wait_gone(1)
    assert (report["phase"], report["reason"]) == ("lost", "start-lost")
    # Whoever comes late finds the door shut.
    lane.agent.start(spec, str(lane.run_dir(1).path))
    assert lane.wait_gone(1)["reason"] == "start-lost"
    assert not (lane.run_dir(1).work / "ran").exists()


def test_a_lost_start_may_be_sent_again_in_time(lane: Lane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runner.after_lock").touch()
    monkeypatch.setenv(FAILPOINTS, str(tmp_path))
    spec = lane.spec(1, ["/bin/true"])
    lane.start(spec)
    wait_for(lambda: not (tmp_path / "runner.after_lock").exists(), "the first supervisor to die", deadline_s=20)
    lane.start(spec)
    assert lane.wait_gone(1)["outcome"]["cause"] == "ok"


@pytest.mark.parametrize(
    ("point", "phase"),
    [
        ("runner.after_started", "lost"),
        ("runner.before_child", "lost"),
        ("runner.before_seal", "lost"),
        ("runner.after_seal", "ended"),
        ("child.before_run", "ended"),
    ],
)
def test_killed_at_every_step(
    lane: Lane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, phase: str
) -> None:
    (tmp_path / point).touch()
    monkeypatch.setenv(FAILPOINTS, str(tmp_path))
    lane.start(lane.spec(1, ["/bin/true"]))
    report = lane.wait_gone(1)
    assert not (tmp_path / point).exists()
    assert report["phase"] == phase
    assert report["sealed"] is (phase == "ended")
    if point == "runner.after_seal":
        assert report["outcome"]["cause"] == "ok"
        assert verify_manifest(lane.run_dir(1)) == []
    if point == "child.before_run":
        assert report["outcome"]["cause"] == "signal"


def test_failpoints_reach_nobody_unless_asked(lane: Lane) -> None:
    spec = lane.spec(1, ["/usr/bin/env"])
    lane.outcome(spec)
    assert FAILPOINTS not in lane.log(1)


def test_a_reboot_is_told_by_the_boot_id(lane: Lane) -> None:
    lane.start(lane.spec(1, ["/bin/sleep", "600"]))
    report = lane.wait_running(1)
    started = read_json(lane.run_dir(1).started)
    kill9(report["pid"])
    write_json(lane.run_dir(1).started, {**started, "boot_id": "another boot"})
    assert lane.wait_gone(1)["reason"] == "lane-rebooted"


def test_pids_of_before_a_reboot_are_left_alone(lane: Lane) -> None:
    bystander = subprocess.Popen(["/bin/sleep", "600"])
    try:
        lane.start(lane.spec(1, ["/bin/sleep", "600"]))
        report = lane.wait_running(1)
        kill9(report["pid"])
        ticks = procs.start_ticks(bystander.pid) or 0
        procs.write_list(str(lane.run_dir(1).path / PROCS), [procs.Proc(bystander.pid, ticks + 1)])
        lane.wait_gone(1)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_process_is_found_in_the_midst_of_exec() -> None:
    """For an instant it has no environment to be known by; whoever looked then said clear too early."""
    if not procs.has_proc():
        pytest.skip("needs /proc")
    env = {procs.MARKER: f"lab:test:exec:{os.getpid()}:0"}
    for _ in range(300):
        with subprocess.Popen(["/bin/sleep", "600"], env=env) as process:
            try:
                assert [p.pid for p in procs.marked(env[procs.MARKER])] == [process.pid]
            finally:
                process.kill()
    with subprocess.Popen(["/bin/sleep", "600"], env={}) as process:  # the negative twin: it has none
        try:
            begun = time.monotonic()
            assert procs.marked(env[procs.MARKER]) == []
            assert time.monotonic() - begun < 5
        finally:
            process.kill()


def test_revoked_attempts_never_seal(lane: Lane, tmp_path: Path) -> None:
    lane.start(lane.python(1, STUBBORN, str(tmp_path)))
    wait_file(tmp_path / "grandchild", "the grandchild")
    lane.wait_running(1)
    lane.agent.signal(1, 1, "revoke", "cancelled", 0.0)
    lane.agent.signal(1, 1, "stop", "cancelled", 60.0)  # cannot take it back
    report = lane.wait_gone(1)
    assert (report["phase"], report["reason"], report["sealed"]) == ("lost", "revoked", False)


def test_revoked_before_it_starts(lane: Lane) -> None:
    spec = lane.spec(1, ["/bin/sh", "-c", "echo ran > ran"])
    run = lane.run_dir(1)
    lane.agent.adopt([(1, 1, str(run.path))])
    lane.agent.signal(1, 1, "revoke", "cancelled", 0.0)
    lane.start(spec)
    assert lane.wait_gone(1)["reason"] == "revoked"
    assert not (run.work / "ran").exists()


def test_a_supervisor_that_hangs_is_killed_when_revoked(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lanes.agent.attempt.REVOKE_GRACE_S", 0.2)
    lane.start(lane.spec(1, ["/bin/sleep", "600"]))
    report = lane.wait_running(1)
    os.kill(report["pid"], signal.SIGSTOP)
    lane.agent.signal(1, 1, "revoke", "cancelled", 0.0)
    assert lane.wait_gone(1)["reason"] == "revoked"


def test_the_beat_is_a_counter(lane: Lane) -> None:
    lane.start(lane.spec(1, ["/bin/sleep", "600"]))
    first = lane.wait_running(1)["beat"]
    report = lane.wait(1, lambda r: r["beat"] > first, "another beat")
    os.kill(report["pid"], signal.SIGSTOP)
    stopped = lane.wait_running(1)["beat"]
    os.kill(report["pid"], signal.SIGCONT)
    lane.wait(1, lambda r: r["beat"] > stopped, "the beat to go on")


def test_files_and_reads_stay_in_known_run_directories(lane: Lane, tmp_path: Path) -> None:
    lane.outcome(lane.spec(1, ["/bin/sh", "-c", "echo 12345 > out.txt; ln -s /etc/passwd pw"], outputs=["out.txt"]))
    run = lane.run_dir(1)
    names = {f["name"] for f in lane.agent.files(str(run.path))}
    assert {"artifacts/out.txt", "manifest.json", "log.txt"} <= names
    assert lane.agent.read(str(run.artifacts / "out.txt"), 1, 3) == b"234"
    (tmp_path / "secret").write_text("x")
    for path in (tmp_path / "secret", run.work / "pw", run.path / ".." / ".." / ".." / "secret"):
        with pytest.raises(PermissionError):
            lane.agent.read(str(path), 0, 10)


def test_put_keeps_to_its_folder(lane: Lane) -> None:
    assert Path(lane.agent.put("a/b.bin", b"123")).read_bytes() == b"123"
    with pytest.raises(ValueError, match="outside"):
        lane.agent.put("../b.bin", b"123")


# Run directories in which odd things lie.


def _nested(run: RunDir) -> None:
    run.metrics.write_bytes(b'{"a":' * 10_000 + b"\n")


def _number_too_large(run: RunDir) -> None:
    (run.path / "progress.json").write_text('{"done": 1' + "0" * 400 + ', "total": 2}')


ODD: list[Callable[[RunDir], object]] = [
    _nested,
    _number_too_large,
    lambda run: (run.path / "progress.json").mkdir(),
    lambda run: (run.path / "progress.json").write_text("[1]"),
    lambda run: (run.path / "progress.json").write_text('{"done": "x", "total": {}, "note": 7}'),
    lambda run: (run.path / "progress.json").write_text("[" * 100_000),
    lambda run: os.mkfifo(run.path / "progress.json"),
    lambda run: os.mkfifo(run.metrics),
    lambda run: run.metrics.mkdir(),
    lambda run: run.started.write_text("[1]"),
    lambda run: run.stop.write_text("[1]"),
    lambda run: run.manifest.mkdir(),
    lambda run: run.heartbeat.write_bytes(b"\xff" * 200),
    lambda run: (run.path / PROCS).write_bytes(b"\xff\xfe 1\n"),
]


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_run_directory_hides_no_other(lane: Lane, odd: Callable[[RunDir], object]) -> None:
    lane.start(lane.spec(1, ["/bin/sleep", "600"]))
    lane.start(lane.spec(2, ["/bin/true"]))
    lane.wait_running(1)
    odd(lane.run_dir(1))
    assert lane.wait_gone(2)["outcome"]["cause"] == "ok"
    report = lane.report(1)
    assert (report["progress"], report["clear"]) == (None, False)
    json.dumps(report)
    assert lane.agent.signal(1, 1, "kill")["known"]


def test_what_cannot_be_read_is_said_as_it_was_last(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    lane.start(lane.spec(1, ["/bin/sleep", "600"]))
    lane.start(lane.spec(2, ["/bin/sleep", "600"]))
    before = lane.wait_running(1)
    lane.wait_running(2)
    cursor = lane.agent.poll({}, 0)["cursor"]
    look = Attempt._look

    def broken(self: Attempt, offset: int | None, boot: str) -> tuple[Report, int]:
        if self.job == 1:
            raise OSError(5, "Input/output error")
        return look(self, offset, boot)

    monkeypatch.setattr(Attempt, "_look", broken)
    kill9(before["pid"])
    kill9(before["child"])
    frame = lane.agent.poll(cursor, 0)
    one, two = frame["reports"]
    assert one["reason"] == "unreadable: OSError: [Errno 5] Input/output error"
    assert (one["phase"], one["pid"], one["clear"]) == ("running", before["pid"], False)
    assert (two["phase"], two["reason"]) == ("running", "")
    assert not lane.agent.reap(1, 1)["ok"]
    fresh = lane.new_agent().poll({}, 0)["reports"][0]
    assert (fresh["phase"], fresh["clear"], fresh["sealed"]) == ("starting", False, False)
    monkeypatch.undo()
    assert lane.wait_gone(1)["reason"] == "runner-died"


def test_an_active_file_that_was_cut_short_is_passed_over(lane: Lane) -> None:
    lane.start(lane.spec(1, ["/bin/true"]))
    (lane.root / "active" / "2.1").touch()
    (lane.root / "active" / "odd").write_text("/tmp")
    (lane.root / "active" / "3.1").mkdir()
    lane.new_agent()
    assert [r["job"] for r in lane.agent.poll({}, 0)["reports"]] == [1]
    lane.wait_gone(1)


def test_reports_name_the_boot(lane: Lane) -> None:
    lane.start(lane.spec(1, ["/bin/sleep", "600"]))
    assert lane.wait_running(1)["boot_id"] == procs.boot_id()
    started = read_json(lane.run_dir(1).started)
    write_json(lane.run_dir(1).started, {**started, "boot_id": "another boot"})
    assert lane.report(1)["boot_id"] == "another boot"
    write_json(lane.run_dir(1).started, started)


def test_a_runner_can_be_told_from_its_first_instant(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who clears up after Ray knows by these words what is not Ray's."""
    if not procs.has_proc():
        pytest.skip("needs /proc")
    seen: list[bytes] = []

    class Seen(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            seen.append(Path(f"/proc/{self.pid}/cmdline").read_bytes())

    monkeypatch.setattr(agent.subprocess, "Popen", Seen)
    lane.start(lane.spec(1, ["/bin/sleep", "600"]))
    pid = lane.wait_running(1)["pid"]
    seen.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    assert all(b"lanes.agent.runner" in argv for argv in seen[1:])
    # The first process leaves as soon as it has forked: met too late, it has no words at all.
    assert seen[0] == b"" or b"lanes.agent.runner" in seen[0]


# Step rows.


def _rows(attempt: Attempt, offset: int) -> tuple[Report, int]:
    return attempt._metrics(offset, METRICS_CHUNK)


def _row(step: int, **more: Any) -> bytes:
    return json.dumps({"step": step, **more}).encode() + b"\n"


def test_every_step_row_is_told_with_its_place(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    attempt = Attempt("1.1", run, 0)
    text = b"".join([_row(0), b"no row\n", b"\n", b"{\n", _row(1, note="\xe9"), b"x" * (3 * METRICS_CHUNK) + b"\n"])
    text += b"".join(_row(n, pad="p" * (n % 97)) for n in range(2, 5000))
    run.metrics.write_bytes(text + b'{"step": 5000')
    got: list[tuple[int, int]] = []
    offset, looks = 0, 0
    while looks < 100:
        found, end = _rows(attempt, offset)
        assert (found["metrics_skipped"], len(found["metrics"])) == (0, len(found["metrics_at"]))
        for at, line in zip(found["metrics_at"], found["metrics"], strict=True):
            assert text[at:].startswith(line.encode() + b"\n")
            got.append((at, json.loads(line)["step"]))
        if end == offset:
            break
        offset, looks = end, looks + 1
    assert [step for _at, step in got] == list(range(5000))
    assert offset == len(text)
    with run.metrics.open("ab") as f:
        f.write(b"}\n")
    found, _end = _rows(attempt, offset)
    assert (found["metrics"], found["metrics_at"]) == (['{"step": 5000}'], [len(text)])


def test_from_the_middle_of_a_line_nothing_false_is_told(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.metrics.write_bytes(b'{"a": {"step": 7}\n' + _row(1))
    found, _end = _rows(Attempt("1.1", run, 0), 6)
    assert found["metrics"] == ['{"step": 1}']


def test_a_backlog_is_passed_over_and_said(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    line = _row(1, pad="p" * 85)
    run.metrics.write_bytes(line * (3 * BACKLOG // len(line)))
    size = run.metrics.stat().st_size
    found, end = _rows(Attempt("1.1", run, 0), 0)
    assert found["metrics_skipped"] == size - BACKLOG
    assert all(at % len(line) == 0 and at >= size - BACKLOG for at in found["metrics_at"])
    assert size - BACKLOG < end <= size - BACKLOG + METRICS_CHUNK
    # The negative twin: no more than that behind, and nothing is passed over.
    assert _rows(Attempt("1.1", run, 0), size - BACKLOG)[0]["metrics_skipped"] == 0


def test_a_file_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.metrics.write_bytes(_row(1) * 10)
    _found, end = _rows(Attempt("1.1", run, 0), 0)
    run.metrics.write_bytes(_row(5))
    found, end = _rows(Attempt("1.1", run, 0), end)
    assert (found["metrics"], end) == (['{"step": 5}'], len(_row(5)))


def test_the_last_report_has_all_rows(lane: Lane, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    lane.start(lane.python(1, STEPS, "9000", str(tmp_path / "go")))
    report = lane.wait_gone(1)
    assert lane.run_dir(1).metrics.stat().st_size > 2 * METRICS_CHUNK
    assert [json.loads(line)["step"] for line in report["metrics"]] == list(range(9000))


CHATTY = """
import os, time
fd = os.open(os.environ["LAB_METRICS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
step = 0
while True:
    os.write(fd, b'{"step": %d}\\n' % step)
    step += 1
    time.sleep(0.001)
"""


def test_step_rows_alone_do_not_keep_a_poll_busy(lane: Lane) -> None:
    lane.start(lane.python(1, CHATTY))
    lane.wait(1, lambda r: r["phase"] == "running" and r["step"], "the first steps")
    cursor: dict[str, Any] = lane.agent.poll({}, 0)["cursor"]
    until, polls, rows = time.monotonic() + 2.0, 0, 0
    while time.monotonic() < until:
        frame = lane.agent.poll(cursor, 2.0)
        cursor, polls, rows = frame["cursor"], polls + 1, rows + len(frame["reports"][0]["metrics"])
    assert rows > 0
    assert polls <= 2.0 / agent.METRICS_EVERY_S + 3


# What is carried to a lane.

BLOCKER = """
import sys
allowed = set(sys.stdlib_module_names) if hasattr(sys, "stdlib_module_names") else None
class Block:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if allowed is not None and top not in allowed and top not in ("core", "lanes", "__main__"):
            raise ImportError("not standard library: " + name)
sys.meta_path.insert(0, Block())
sys.path.append(sys.argv[1])
import lanes.agent.agent, lanes.agent.runner, lanes.agent.probe
print(sorted(m for m in sys.modules if m.split(".")[0] in ("core", "lanes")))
"""


def _carried(folder: Path) -> Path:
    import shutil

    for name in SHIPPED:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPO / name, target)
    return folder


def _pythons() -> list[str]:
    import shutil

    old = [*Path.home().glob(".pyenv/versions/3.9.*/bin/python3.9"), shutil.which("python3.9") or ""]
    works = [p for p in map(str, old) if p and subprocess.run([p, "-c", ""], capture_output=True).returncode == 0]
    return [sys.executable, *works[:1]]


def test_the_agent_runs_on_the_standard_library_alone(tmp_path: Path) -> None:
    """Also on the oldest Python that is promised, where this machine has it."""
    code = _carried(tmp_path)
    for python in _pythons():
        done = subprocess.run(
            [python, "-I", "-S", "-c", BLOCKER, str(code)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{python}: {done.stderr}"
        assert "'core.kind'" not in done.stdout
    (tmp_path / "lanes/agent/agent.py").write_text("import pydantic\n")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", BLOCKER, str(code)], capture_output=True, text=True)
    assert "not standard library: pydantic" in done.stderr


def test_an_attempt_on_carried_code_and_the_oldest_python(lane: Lane, tmp_path: Path) -> None:
    code = _carried(tmp_path / "carried")
    spec = lane.spec(1, ["/bin/echo", "hello"])
    write_json(tmp_path / "spec.json", spec)
    python = _pythons()[-1]
    go = (
        "import json, sys; sys.path.append(sys.argv[1]); from pathlib import Path\n"
        "from lanes.agent.agent import Agent\n"
        "agent = Agent(Path(sys.argv[2]), home_hash='test', socket_path=None)\n"
        "spec = json.loads(Path(sys.argv[3]).read_text())\n"
        "print(agent.start(spec, sys.argv[4]))"
    )
    argv = [python, "-I", "-S", "-c", go, str(code), str(lane.root), str(tmp_path / "spec.json")]
    done = subprocess.run([*argv, str(lane.run_dir(1).path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lane.new_agent()
    assert lane.wait_gone(1)["outcome"]["cause"] == "ok"
    if "3.9" in python:
        assert read_json(lane.run_dir(1).started)["python"].startswith("3.9")
