"""Helpers that many tests share: waiting with a deadline, and ending everything that a test started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from core.fsio import read_json
from core.home import Home
from core.journal import Journal, query
from core.journal.query import Job
from core.states import JobState
from lanes.ray_session import start_time
from tests.forked import run_lab

T = TypeVar("T")

# Generous: a slow machine must not fail a test; a hung program must.
DEADLINE_S = 90.0


def wait_for(condition: Callable[[], T], what: str, *, deadline_s: float = DEADLINE_S) -> T:
    """Poll until `condition` is truthy and return its value; fail with `what` at the deadline.

    What is dear to ask is asked less often: most conditions read the journal or all of /proc, and what they wait for
    needs the processor too.
    """
    end = time.monotonic() + deadline_s
    while True:
        began = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        if now > end:
            raise AssertionError(f"waited {deadline_s:g} s in vain: {what}")
        time.sleep(min(0.2, max(0.02, 5 * (now - began))))


def lab(
    home: Home, *args: str, check: bool = True, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would."""
    full = {**os.environ, "LAB_HOME": str(home.path), "NO_COLOR": "1", "COLUMNS": "100", **(env or {})}
    done = run_lab(args, env=full, cwd=cwd, timeout=240)
    if check and done.returncode != 0:
        raise AssertionError(
            f"lab {' '.join(args)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}\n{tail(home)}"
        )
    return done


def tail(home: Home, lines: int = 40) -> str:
    """The end of the controller's log, for messages of failed tests."""
    try:
        return "\n".join(home.controller_log.read_text().splitlines()[-lines:])
    except OSError:
        return "(no controller log)"


def job(home: Home, job_id: int) -> Job:
    with Journal.open(home) as journal:
        return query.job(journal.conn, job_id)


def wait_state(home: Home, job_id: int, *states: JobState, deadline_s: float = DEADLINE_S) -> Job:
    def reached() -> Job | None:
        now = job(home, job_id)
        if now.state in states:
            return now
        if now.state.terminal:
            raise AssertionError(f"job {job_id} is {now.state} ({now.cause}: {now.reason})\n{tail(home)}")
        return None

    try:
        return wait_for(reached, f"job {job_id} to be {' or '.join(states)}", deadline_s=deadline_s)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{job(home, job_id)}\n{tail(home)}") from None


# Everything that belongs to a home, found by what it was started with.


def processes(home: Home) -> dict[int, str]:
    """Living processes of this home by pid: guardian, controller, Ray, lane actors, attempts."""
    path, marks = (
        os.fsencode(str(home.path)),
        (f"RAY_LAB_HOME={home.hash}".encode(), f"LAB_ATTEMPT=lab:{home.hash}:".encode()),
    )
    # Ray's agents set their own title, over the environment that marked them.
    recorded = {pid for pid, started in read_json(home.path / "ray.json", []) if start_time(pid) == started}
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            argv = (entry / "cmdline").read_bytes().split(b"\0")
            if not argv[0] or (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                continue
            text = b" ".join(argv).decode(errors="replace").strip()
            environ = (entry / "environ").read_bytes()
            ours = path in argv or any(a.startswith(path + b"/") for a in argv) or int(entry.name) in recorded
            if ours or any(m in environ for m in marks):
                found[int(entry.name)] = text
    return found


def pids(home: Home, *words: str) -> list[int]:
    """Living processes of this home whose command line has all of `words`."""
    return [pid for pid, text in processes(home).items() if all(w in text for w in words)]


def controller_pid(home: Home) -> int:
    return wait_for(lambda: next(iter(pids(home, "lanes.controller")), 0), "a controller")


def guardian_pid(home: Home) -> int:
    return wait_for(lambda: next(iter(pids(home, "lanes.guardian")), 0), "a guardian")


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end_all(home: Home) -> None:
    """End everything of this home.

    Guardian and controller start each other again: both are stopped before either is killed. And as a process that is
    just being started can be missed once, nobody must be found twice in a row.
    """
    deadline = time.monotonic() + 30
    clean = 0
    while clean < 3:
        found = processes(home)
        for pid, text in found.items():
            if "lanes.guardian" in text or "lanes.controller" in text:
                kill(pid, signal.SIGSTOP)
        for pid in found:
            kill(pid)
        clean = 0 if found else clean + 1
        if time.monotonic() > deadline:
            raise AssertionError(f"these do not die: {found}")
        time.sleep(0.02)
