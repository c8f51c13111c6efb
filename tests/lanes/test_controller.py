"""The controller with real attempts: cancel at every moment, limits, slots, retries, the cache, dependencies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import Exit
from core.home import Home
from core.journal import Journal, Role, query
from core.states import Cause, EventKind, JobState
from lab.submission import Request, submit
from lanes.start import ensure_controller, wake
from tests.support import end_all, job, kill, lab, pids, processes, tail, wait_for, wait_state

CORES = len(os.sched_getaffinity(0))
PY = [sys.executable, "-S", "-c"]

# Ignores every polite word, and has grandchildren in sessions of their own that do the same, one with an empty
# environment; each writes its pid.
STUBBORN = """
import os, signal, sys, time
folder = sys.argv[1]
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for i in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        if i == 2:
            os.execve(sys.executable, [sys.executable, "-S", "-c", "import os,signal,sys,time\\n"
                "signal.signal(signal.SIGTERM, signal.SIG_IGN); open(sys.argv[1], 'w').close(); time.sleep(600)",
                folder + f"/{os.getpid()}"], {})
        open(f"{folder}/{os.getpid()}", "w").close()
        time.sleep(600)
open(f"{folder}/{os.getpid()}", "w").close()
time.sleep(600)
"""


def send(home: Home, argv: list[str], **more: Any) -> int:
    needs = more.pop("needs", {"cores": 1})
    limits = {"grace_s": 0.5, **more.pop("limits", {})}
    request = Request("command", {"argv": argv}, needs=needs, limits=limits, **more)
    project = home.path.parent / "project"
    project.mkdir(exist_ok=True)
    made = submit(home, [request], cwd=project)[0]
    ensure_controller(home)
    wake(home)
    return made.id


def ask(home: Home, kind: EventKind, job_id: int) -> None:
    with Journal.open(home, Role.CLIENT) as journal, journal.transaction() as tx:
        tx.append(kind, job=job_id)
    wake(home)


def ends(home: Home, job_id: int) -> list[Any]:
    with Journal.open(home) as journal:
        return [e for e in query.events(journal.conn, job_id=job_id) if e.kind == EventKind.JOB_ENDED]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# Cancel and limits.


def test_cancel_before_start(shared_home: Home) -> None:
    waiting = send(shared_home, ["/bin/true", "never"], held=True)
    ask(shared_home, EventKind.CANCEL_ASKED, waiting)
    assert wait_state(shared_home, waiting, JobState.CANCELLED).attempts == 0
    ask(shared_home, EventKind.CANCEL_ASKED, waiting)  # twice: no second end
    done = send(shared_home, ["/bin/echo", "after a cancel"])
    wait_state(shared_home, done, JobState.SUCCEEDED)
    assert len(ends(shared_home, waiting)) == 1


def test_cancel_at_every_moment_of_a_start_and_twice(shared_home: Home) -> None:
    """From the instant of the submit to well into the run: always cancelled once, and nothing is left."""
    for i in range(8):
        it = send(shared_home, ["/bin/sleep", f"6{i}"])
        time.sleep(0.04 * i)
        ask(shared_home, EventKind.CANCEL_ASKED, it)
        ask(shared_home, EventKind.CANCEL_ASKED, it)
        now = wait_state(shared_home, it, JobState.CANCELLED)
        assert len(ends(shared_home, it)) == 1
        assert not [p for p, text in processes(shared_home).items() if f"/attempts/{it}/" in text], now


def test_cancel_during_commit_ends_once_and_says_the_truth(shared_home: Home) -> None:
    for i in range(6):
        it = send(shared_home, ["/bin/echo", f"commit {i}"])
        run = shared_home.run_dir(it, 1)
        wait_for(run.manifest.exists, f"the seal of job {it}")
        ask(shared_home, EventKind.CANCEL_ASKED, it)
        end = wait_state(shared_home, it, JobState.CANCELLED, JobState.SUCCEEDED)
        record = ends(shared_home, it)
        assert len(record) == 1
        assert record[0].data["state"] == end.state


@pytest.mark.parametrize("how", ["cancel", "time limit"])
def test_nothing_is_left_and_only_then_is_the_slot_free(shared_home: Home, tmp_path: Path, how: str) -> None:
    limits = {"time_s": 1.5} if how == "time limit" else {}
    folder = tmp_path / "pids"
    folder.mkdir()
    stubborn = send(shared_home, [*PY, STUBBORN, str(folder)], needs={"cores": CORES}, limits=limits)
    behind = send(shared_home, ["/bin/echo", how], needs={"cores": CORES})
    wait_for(lambda: len(list(folder.iterdir())) == 4, f"four processes\n{tail(shared_home)}")
    mine = [int(p.name) for p in folder.iterdir()]
    assert all(alive(p) for p in mine)
    if how == "cancel":
        ask(shared_home, EventKind.CANCEL_ASKED, stubborn)
    placed_while_alive = []

    def over() -> bool:
        living = [p for p in mine if alive(p)]
        if job(shared_home, behind).attempts and living:
            placed_while_alive.append(living)
        return job(shared_home, stubborn).state.terminal

    wait_for(over, f"the stubborn job to end\n{tail(shared_home)}")
    end = job(shared_home, stubborn)
    assert (end.state, end.cause) == (
        (JobState.CANCELLED, Cause.CANCELLED) if how == "cancel" else (JobState.FAILED, Cause.TIME_LIMIT)
    )
    assert not [p for p in mine if alive(p)]
    wait_state(shared_home, behind, JobState.SUCCEEDED)
    assert not placed_while_alive


def test_the_warn_signal_gives_time_to_leave(shared_home: Home) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('warned', flush=True), sys.exit(3)))\n"
        "time.sleep(60)"
    )
    it = send(shared_home, [*PY, code], limits={"time_s": 0.8, "grace_s": 20})
    end = wait_state(shared_home, it, JobState.FAILED)
    assert end.cause == Cause.TIME_LIMIT
    assert "0.8 s" in (end.reason or "")
    assert "warned" in shared_home.run_dir(it, 1).log.read_text()


# Slots, order, dependencies.


def test_priority_then_age(shared_home: Home) -> None:
    blocker = send(shared_home, ["/bin/sleep", "1"], needs={"cores": CORES})
    wait_state(shared_home, blocker, JobState.RUNNING)
    low = send(shared_home, ["/bin/echo", "low"], needs={"cores": CORES}, priority=-1)
    first = send(shared_home, ["/bin/echo", "first"], needs={"cores": CORES})
    second = send(shared_home, ["/bin/echo", "second"], needs={"cores": CORES})
    high = send(shared_home, ["/bin/echo", "high"], needs={"cores": CORES}, priority=5)
    for it in (low, first, second, high):
        wait_state(shared_home, it, JobState.SUCCEEDED)
    with Journal.open(shared_home) as journal:
        order = [
            e.job
            for e in query.events(journal.conn)
            if e.kind == EventKind.PLACED and e.job in (low, first, second, high)
        ]
    assert order == [high, first, second, low]


def test_dependencies(shared_home: Home) -> None:
    bad = send(shared_home, ["/bin/false"])
    needs_ok = send(shared_home, ["/bin/echo", "ok"], after=[f"ok:{bad}"])
    needs_any = send(shared_home, ["/bin/echo", "any"], after=[f"any:{bad}"])
    chained = send(shared_home, ["/bin/echo", "chained"], after=[f"ok:{needs_ok}"])
    wait_state(shared_home, bad, JobState.FAILED)
    wait_state(shared_home, needs_any, JobState.SUCCEEDED)
    assert f"job {bad}" in str(wait_state(shared_home, needs_ok, JobState.SKIPPED).reason)
    assert wait_state(shared_home, chained, JobState.SKIPPED).cause == Cause.DEPENDENCY


def test_hold_and_release(shared_home: Home) -> None:
    it = send(shared_home, ["/bin/echo", "held"], held=True)
    other = send(shared_home, ["/bin/echo", "not held"])
    wait_state(shared_home, other, JobState.SUCCEEDED)
    assert job(shared_home, it).state is JobState.HELD
    ask(shared_home, EventKind.RELEASE_ASKED, it)
    wait_state(shared_home, it, JobState.SUCCEEDED)


def test_retries_are_bounded_by_cause(shared_home: Home) -> None:
    it = send(shared_home, [*PY, "import os; os.kill(os.getpid(), 9)"], retries={"signal": 2})
    end = wait_state(shared_home, it, JobState.FAILED)
    assert (end.attempts, end.cause) == (3, Cause.SIGNAL)
    once = send(shared_home, [*PY, "raise SystemExit(4)"])
    assert wait_state(shared_home, once, JobState.FAILED).attempts == 1


def test_what_somebody_kills_starts_again_a_little_later_and_others_go_first(shared_home: Home, tmp_path: Path) -> None:
    once = (
        "import os, pathlib, sys\n"
        "mark = pathlib.Path(sys.argv[1])\n"
        "if not mark.exists(): mark.touch(); os.kill(os.getpid(), 9)\n"
    )
    needs = {"cores": CORES}
    it = send(shared_home, [*PY, once, str(tmp_path / "mark")], needs=needs)
    wait_for(lambda: job(shared_home, it).attempts == 1 and job(shared_home, it).state is JobState.QUEUED, "its end")
    assert "starts again after 5 s" in str(job(shared_home, it).reason)
    other = send(shared_home, ["/bin/echo", "not later"], needs=needs)
    wait_state(shared_home, other, JobState.SUCCEEDED)
    assert job(shared_home, it).state is JobState.QUEUED
    assert wait_state(shared_home, it, JobState.SUCCEEDED).attempts == 2
    broken = send(shared_home, [*PY, "import os; os.kill(os.getpid(), 11)"], needs=needs)
    end = wait_state(shared_home, broken, JobState.FAILED)
    assert (end.attempts, end.cause) == (1, Cause.SIGNAL), "a program that is broken would break again"


# Success is more than exit 0.


def test_exit_0_without_what_was_planned_is_no_success(shared_home: Home) -> None:
    half = (
        "import json, os\n"
        "with open(os.environ['LAB_METRICS'], 'a') as f:\n"
        "    for i in range(5):\n"
        "        f.write(json.dumps({'step': i}) + '\\n')"
    )
    it = send(shared_home, [*PY, half], expect={"last_step": 9})
    end = wait_state(shared_home, it, JobState.FAILED)
    assert end.cause == Cause.INCOMPLETE
    assert "9" in str(end.reason)
    assert "4" in str(end.reason)
    # The twin: the same program with what it does promise.
    wait_state(shared_home, send(shared_home, [*PY, half], expect={"last_step": 4}), JobState.SUCCEEDED)


@pytest.fixture(scope="module")
def hurt_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One home for those that kill its controller. `points` beside it is where it looks for places to die."""
    folder = tmp_path_factory.mktemp("hurt")
    home = Home(folder / "home")
    (folder / "points").mkdir()
    try:
        lab(home, "up", env={"LAB_FAILPOINTS": str(folder / "points")})
        yield home
    finally:
        end_all(home)
        shutil.rmtree(home.runtime, ignore_errors=True)


def test_a_flipped_byte_after_the_seal_is_not_committed(hurt_home: Home) -> None:
    """The controller dies before the commit; the sealed file is changed; the next controller refuses it."""
    points = hurt_home.path.parent / "points"
    (points / "controller.before_commit").touch()
    it = send(
        hurt_home,
        [*PY, "import os; open('out.txt', 'w').write('precious')"],
        outputs=["out.txt"],
        retries={"bad-seal": 0},
    )
    run = hurt_home.run_dir(it, 1)
    wait_for(run.manifest.exists, f"the seal\n{tail(hurt_home)}")
    wait_for(lambda: not list(points.iterdir()), f"the failpoint\n{tail(hurt_home)}")
    (run.artifacts / "out.txt").write_text("pretious")
    end = wait_state(hurt_home, it, JobState.FAILED)
    assert end.cause == Cause.BAD_SEAL
    assert "out.txt" in str(end.reason)


# The cache, end to end.


def test_the_same_job_again_runs_nothing_and_each_change_is_named(shared_home: Home, tmp_path: Path) -> None:
    code = tmp_path / "project"
    code.mkdir()
    (code / "work.py").write_text("import sys\nprint(open('data.txt').read(), sys.argv)\n")
    (code / "data.txt").write_text("1")
    base = ["submit", "command", "--code", str(code), "--input", "data=data.txt", "--json"]

    def again(*argv: str) -> dict[str, Any]:
        done = lab(shared_home, *base, "--wait", "--", sys.executable, "-S", "work.py", *argv, cwd=code)
        return json.loads(done.stdout.splitlines()[-1])

    def ids() -> list[int]:
        with Journal.open(shared_home) as journal:
            return [j.id for j in query.jobs(journal.conn, newest_first=False)]

    before = ids()

    def new() -> list[int]:
        assert ids()[: len(before)] == before
        return ids()[len(before) :]

    again("a")
    assert len(new()) == 1
    again("a")
    assert len(new()) == 1, "nothing ran"
    again("b")
    assert len(new()) == 2
    assert "argv" in lab(shared_home, "explain", str(new()[1])).stdout
    (code / "data.txt").write_text("2")
    again("b")
    assert len(new()) == 3
    assert "data" in lab(shared_home, "explain", str(new()[2])).stdout
    (code / "work.py").write_text("import sys\nprint(open('data.txt').read(), sys.argv, 'changed')\n")
    again("b")
    assert len(new()) == 4
    assert "work.py" in lab(shared_home, "explain", str(new()[3])).stdout


def test_an_undeclared_file_is_named_and_never_answers_the_cache(shared_home: Home, tmp_path: Path) -> None:
    secret = tmp_path / "stale.bin"
    secret.write_text("left here last week")
    argv = ["/bin/cat", str(secret)]
    first = send(shared_home, argv)
    assert wait_state(shared_home, first, JobState.SUCCEEDED).undeclared
    assert str(secret) in lab(shared_home, "explain", str(first)).stdout
    second = send(shared_home, argv)
    assert second != first, "an undeclared job answered the cache"
    wait_state(shared_home, second, JobState.SUCCEEDED)
    # The twin: declared, it is the same job the second time.
    declared = send(shared_home, argv, allow_undeclared=[str(secret)])
    assert not wait_state(shared_home, declared, JobState.SUCCEEDED).undeclared
    assert send(shared_home, argv, allow_undeclared=[str(secret)]) == declared


def test_an_input_that_changed_after_the_submit_is_stale(shared_home: Home, tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("as submitted")
    it = send(shared_home, ["/bin/cat", "data.txt"], inputs=[f"data={data}:data.txt"], held=True)
    data.write_text("changed since")
    ask(shared_home, EventKind.RELEASE_ASKED, it)
    assert wait_state(shared_home, it, JobState.FAILED).cause == Cause.STALE_INPUT


# One controller a home.


def test_a_second_controller_is_refused(shared_home: Home) -> None:
    argv = [sys.executable, "-m", "lanes.controller", str(shared_home.path), ""]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == Exit.REFUSED
    assert "another controller" in done.stdout


def test_of_ray_runs_what_is_asked_and_nothing_else(shared_home: Home) -> None:
    job_id = send(shared_home, ["/bin/echo", "asked of ray"])
    wait_state(shared_home, job_id, JobState.SUCCEEDED)
    for asked in ("gcs_server", "raylet/raylet", "ray::LaneActor"):
        assert pids(shared_home, asked), asked
    for unasked in ("autoscaler/_private/monitor.py", "log_monitor.py", "dashboard/dashboard.py"):
        assert not pids(shared_home, unasked), unasked


def test_an_unknown_attempt_on_the_lane_is_revoked(hurt_home: Home) -> None:
    """A lane back from the dead with an attempt that the journal has ended: it may not commit, and it is ended."""
    it = send(hurt_home, ["/bin/sleep", "600"])
    wait_for(lambda: pids(hurt_home, "lanes.child"), "the attempt")
    guardian, controller = pids(hurt_home, "lanes.guardian"), pids(hurt_home, "lanes.controller")
    for pid in [*guardian, *controller]:
        kill(pid)
    wait_for(lambda: not pids(hurt_home, "lanes.controller"), "the controller to be gone")
    with Journal.open(hurt_home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        ended = {"state": "revoked", "cause": "runner-died", "message": "given up", "parts": []}
        tx.append(EventKind.ATTEMPT_ENDED, job=it, attempt=1, lane="local", data=ended)
        tx.append(EventKind.JOB_ENDED, job=it, data={"state": "failed", "cause": "runner-died", "reason": "given up"})
    assert pids(hurt_home, "lanes.child")
    ensure_controller(hurt_home)
    wait_for(lambda: not pids(hurt_home, "lanes.child"), f"the revoked attempt to be ended\n{tail(hurt_home)}")
    wait_for(lambda: not list((hurt_home.lane_root("local") / "active").iterdir()), "the lane to forget it")
    assert not hurt_home.run_dir(it, 1).manifest.exists()
    assert len(ends(hurt_home, it)) == 1


# One odd job must not take the others with it.


def test_an_undecodable_name_is_recorded_and_stops_nothing(shared_home: Home, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    Path(os.fsdecode(odd)).write_text("read me")
    code = f"print(open({odd!r}).read()); open(b'kept-\\xe9', 'w').write('x')"
    it = send(shared_home, [*PY, code])
    end = wait_state(shared_home, it, JobState.SUCCEEDED)
    assert end.undeclared
    assert wait_state(shared_home, send(shared_home, ["/bin/echo", "next"]), JobState.SUCCEEDED)


def test_a_job_behind_many_that_nobody_can_take_is_placed(lab_home: Home) -> None:
    """Three hundred jobs wait for a lane that is not admitted; the one behind them runs."""
    lab_home.path.mkdir(parents=True)
    (lab_home.path / "cluster.yaml").write_text("lanes:\n  local:\n  far:\n    transport: ssh\n    host: far\n")
    home = Home.find(lab_home.path)
    requests = [
        Request("command", {"argv": ["/bin/echo", str(i)]}, needs={"lane": "far"}, code="none") for i in range(300)
    ]
    submit(home, requests, cwd=home.path.parent)
    behind = submit(home, [Request("command", {"argv": ["/bin/true"]}, code="none")], cwd=home.path.parent)[0].id
    ensure_controller(home)
    wait_state(home, behind, JobState.SUCCEEDED)
    assert job(home, 1).state is JobState.QUEUED


def test_a_run_directory_that_outlived_its_row_is_not_taken_for_a_new_attempt(shared_home: Home) -> None:
    it = send(shared_home, ["/bin/echo", "recovered"], held=True)
    old = shared_home.run_dir(it, 1)
    old.create()
    old.spec.write_text(json.dumps({"job": it, "attempt": 1, "nonce": "of a life before"}))
    ask(shared_home, EventKind.RELEASE_ASKED, it)
    assert wait_state(shared_home, it, JobState.SUCCEEDED).attempts == 2
    assert json.loads(old.spec.read_text())["nonce"] == "of a life before"


def test_a_lane_that_left_the_cluster_is_drained_not_forgotten(lab_home: Home) -> None:
    lab_home.path.mkdir(parents=True)
    cluster = lab_home.path / "cluster.yaml"
    cluster.write_text("lanes:\n  old:\n")
    home = Home.find(lab_home.path)
    go = lab_home.path.parent / "go"
    code = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.02)"
    it = send(home, [*PY, code, str(go)])
    wait_state(home, it, JobState.RUNNING)
    wait_for(lambda: pids(home, "lanes.child"), "the attempt")
    lab(home, "down")
    cluster.write_text("lanes:\n  new:\n")
    lab(home, "up")
    go.touch()
    assert wait_state(home, it, JobState.SUCCEEDED).attempts == 1
    after = send(home, ["/bin/echo", "on the new one"])
    assert wait_state(home, after, JobState.SUCCEEDED).lane == "new"


def test_sigterm_is_a_graceful_end(hurt_home: Home) -> None:
    lab(hurt_home, "up")
    kill(pids(hurt_home, "lanes.controller")[0], signal.SIGTERM)

    def said() -> bool:
        with Journal.open(hurt_home) as journal:
            return any(
                e.kind == EventKind.CONTROLLER_DOWN and e.data["why"] == "SIGTERM" for e in query.events(journal.conn)
            )

    wait_for(said, f"the controller to say goodbye\n{tail(hurt_home)}")


# A full disk.


@pytest.mark.root
def test_disk_full_during_a_run_and_its_commit(tmp_path: Path) -> None:
    """A program fills the disk of its home: its end is recorded all the same, and with room again work goes on."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    point = tmp_path / "small"
    point.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(point)], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    home = Home(point / "home")
    try:
        home.create()
        filler = point / "filler"
        fill = f"f = open({str(filler)!r}, 'wb', 0)\nwhile True:\n  f.write(bytes(1 << 16))"
        it = send(home, [*PY, fill], retries={"disk-full": 0, "error": 0})
        end = wait_state(home, it, JobState.FAILED)
        assert end.cause in (Cause.DISK_FULL, Cause.ERROR)
        assert len(ends(home, it)) == 1
        filler.unlink()
        after = send(home, ["/bin/echo", "room again"])
        wait_state(home, after, JobState.SUCCEEDED)
    finally:
        end_all(home)
        subprocess.run(["umount", "-l", str(point)], check=True)
