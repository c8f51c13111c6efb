"""`make bench`: start-up of `lab status`, one job from terminal to result, and replay, each against a named peer.

python -m benchmarks.spine [status] [job] [replay]
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Timing, in_turn, process, ratio, table
from core.home import Home
from core.journal import Event, Journal, Role, query, schema
from core.journal.apply import replay
from core.states import EventKind as K

JOBS = 100_000

_EMPTY_TYPER = """
import typer
app = typer.Typer()
@app.command()
def status() -> None:
    pass
app()
"""


def main(wanted: list[str]) -> int:
    parts: dict[str, Callable[[Path], None]] = {"status": bench_status, "job": bench_job, "replay": bench_replay}
    unknown = [w for w in wanted if w not in parts]
    if unknown:
        print(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(parts)}", file=sys.stderr)
        return 2
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.2f} at the start, Python {sys.version.split()[0]}")
    for name in wanted or parts:
        with tempfile.TemporaryDirectory(prefix="lab-bench-") as folder:
            parts[name](Path(folder))
    return 0


# `lab status` with a hundred thousand jobs, against a Typer program that does nothing.


def bench_status(folder: Path) -> None:
    home = Home(folder / "home")
    fill(home, JOBS)
    empty = folder / "empty.py"
    empty.write_text(_EMPTY_TYPER)
    env = {"LAB_HOME": str(home.path)}
    times = in_turn(
        15,
        status=process([sys.executable, "-P", "-m", "lab", "status"], env),
        empty=process([sys.executable, "-P", str(empty)]),
    )
    show(f"lab status, {JOBS:,} jobs in the journal, against an empty Typer command", times, "empty")


# One job, warm, from the terminal to its result.


def bench_job(folder: Path) -> None:
    home = Home(folder / "home")
    env = {"LAB_HOME": str(home.path)}
    lab = [sys.executable, "-P", "-m", "lab"]
    count = 0

    def through_lab() -> object:
        nonlocal count
        count += 1
        argv = [*lab, "submit", "command", "--wait", "--", "/bin/echo", str(count)]
        return process(argv, env)()

    def through_api() -> object:
        nonlocal count
        count += 1
        return api.submit("command", argv=["/bin/echo", str(count)]).wait()

    def through_submitit() -> object:
        import submitit

        executor = submitit.LocalExecutor(folder=folder / "submitit")
        executor.update_parameters(timeout_min=1)
        function = submitit.helpers.CommandFunction(["/bin/echo", "1"], verbose=False)
        return executor.submit(function).result()

    subprocess.run([*lab, "up"], env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL)
    try:
        os.environ["LAB_HOME"] = str(home.path)
        from lab import Lab

        api = Lab()
        with contextlib.chdir(folder):
            times = in_turn(
                9,
                **{
                    "lab submit --wait (a process)": through_lab,
                    "Lab().submit().wait() (in Python)": through_api,
                    "submitit LocalExecutor (in Python)": through_submitit,
                    "fork+exec": process(["/bin/echo", "1"]),
                },
            )
        show("one job, warm, from terminal to result: /bin/echo", times, "submitit LocalExecutor (in Python)")
    finally:
        subprocess.run([*lab, "down"], env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL)


# Replay: from the events alone to the state of a hundred thousand jobs.


def bench_replay(folder: Path) -> None:
    """Against the floor of the same machine: SQLite inserting as many finished rows directly, no events at all."""
    home = Home(folder / "home")
    fill(home, JOBS)
    with Journal.open(home, Role.CONTROLLER) as journal:
        conn = journal.conn

        def replayed() -> object:
            conn.execute("BEGIN")
            schema.drop_state(conn)
            schema.create_state(conn)
            began = time.perf_counter()
            replay(conn)
            taken.append(time.perf_counter() - began)
            assert sum(query.counts(conn).values()) == JOBS
            return conn.execute("ROLLBACK")

        def inserted() -> object:
            conn.execute("BEGIN")
            conn.execute("CREATE TEMP TABLE floor AS SELECT * FROM job_state")
            conn.execute("CREATE TEMP TABLE floor2 AS SELECT * FROM attempt_state")
            return conn.execute("ROLLBACK")

        taken: list[float] = []
        times = in_turn(5, replay=replayed, copy=inserted)
        events = journal.last_seq()
    times["replay"] = Timing("replay", tuple(taken[1:]))
    show(f"replay of {events:,} events of {JOBS:,} jobs, against SQLite copying the finished rows", times, "copy")


def fill(home: Home, jobs: int) -> None:
    """A journal of `jobs` finished jobs: submitted, placed, started, ended."""
    with Journal.open(home, Role.CONTROLLER, create=True) as journal:
        with journal.transaction() as tx:
            tx.append(K.SPEC, data={"digest": "d", "data": "{}"})
        for first in range(1, jobs + 1, 10_000):
            batch = range(first, min(first + 10_000, jobs + 1))
            with journal.transaction() as tx:
                tx.extend(_submitted(job) for job in batch)
            with journal.transaction() as tx:
                tx.extend(event for job in batch for event in _lived(job))


def _submitted(job: int) -> Event:
    data = {
        "spec": "d",
        "kind": "command",
        "name": f"train.py --seed {job}",
        "params": {"argv": ["python", "train.py", "--seed", str(job)]},
        "key": f"{job:064x}",
        "priority": 0,
        "idem": None,
        "tags": [],
        "note": "",
        "held": False,
        "after": [],
    }
    return Event(K.SUBMITTED, job=job, data=data)


def _lived(job: int) -> list[Event]:
    placed = {"nonce": f"{job:016x}", "grant": {"cores": 1, "memory_mb": None, "gpus": [], "resources": []}}
    ended = {"state": "succeeded", "cause": "ok", "message": "", "exit_code": 0, "seconds": 1.0, "parts": []}
    return [
        Event(K.PLACED, job=job, attempt=1, lane="local", data=placed),
        Event(K.STARTED, job=job, attempt=1, lane="local", data={"pid": job, "boot": "b"}),
        Event(K.ATTEMPT_ENDED, job=job, attempt=1, lane="local", data=ended),
        Event(K.JOB_ENDED, job=job, data={"state": "succeeded", "cause": "ok", "reason": ""}),
    ]


def show(title: str, times: dict[str, Timing], peer: str) -> None:
    rows = [
        (name, f"{t.median * 1000:.1f}", t.spread, "1" if name == peer else f"{ratio(t, times[peer]):.2f}")
        for name, t in times.items()
    ]
    table(title, rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
