"""What it costs to leave `lab top` open: per cent of a core, and bytes sent to the terminal.

    python -m benchmarks.top [SECONDS]

A real terminal (pty) of 80x24 and of 200x50; a home of 200 jobs and a sweep of 1,000 folded cells; another process
changes several rows of the journal, live.db and a log in each second, as the controller would. CPU is utime + stime of
the whole process from /proc, after its start. Named peers in the same run: the same rows in a Textual DataTable that is
cleared and filled each second (the plain way to do it), and `top -d 1` where there is one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.home import Home
from core.journal import Event, Journal, Role, query
from core.live import LiveWriter, read_attempts
from core.states import EventKind as K

JOBS, CELLS = 200, 1000
_RUNNING = 6
_WARM_S = 8.0
_LIMIT = 5.0  # per cent of a core


def main(argv: list[str]) -> int:
    if argv[:1] == ["change"]:
        return change(Home(Path(argv[1])))
    if argv[:1] == ["plain"]:
        return plain(Home(Path(argv[1])))
    seconds = float(argv[0]) if argv else 30.0
    cores, load = os.cpu_count(), os.getloadavg()[0]
    print(f"{cores} cores, load {load:.2f} at the start, Python {sys.version.split()[0]}")
    print(f"{JOBS} jobs and a sweep of {CELLS:,} cells, several rows changed each second, {seconds:g} s each\n")
    print(f"  {'what':<34}  {'terminal':>8}  {'% of a core':>11}  {'bytes/s':>8}  {'start, CPU s':>12}")
    cost: dict[tuple[str, str], float] = {}
    lab, this = [sys.executable, "-P", "-m", "lab", "top"], [sys.executable, "-m", "benchmarks.top"]
    for name, words in (
        ("lab top", lab),
        ("DataTable filled anew each second", [*this, "plain"]),
        ("top -d 1", ["top", "-d", "1"]),
    ):
        if name.startswith("top") and shutil.which("top") is None:
            print(f"  {name:<34}  not installed here")
            continue
        for columns, lines in ((80, 24), (200, 50)):
            with tempfile.TemporaryDirectory(prefix="lab-bench-") as folder:
                home = Home(Path(folder) / "home")
                fill(home)
                argv = [*words, str(home.path)] if words[-1] == "plain" else words
                changer = subprocess.Popen([*this, "change", str(home.path)])
                try:
                    found = measure(argv, {"LAB_HOME": str(home.path)}, columns, lines, seconds)
                finally:
                    changer.send_signal(signal.SIGKILL)
                    changer.wait()
            size = f"{columns}x{lines}"
            cost[(name, size)] = found.percent
            print(f"  {name:<34}  {size:>8}  {found.percent:>11.2f}  {found.bytes_s:>8,.0f}  {found.start_s:>12.2f}")
    print()
    for size in ("80x24", "200x50"):
        ours, theirs = cost[("lab top", size)], cost[("DataTable filled anew each second", size)]
        print(f"  {size}: filling a table anew costs {theirs / max(ours, 0.01):.1f} times as much")
    worst = max(v for (name, _), v in cost.items() if name == "lab top")
    print(f"  lab top: at most {worst:.2f} % of a core (limit {_LIMIT:g} %): {'ok' if worst <= _LIMIT else 'MISSED'}")
    return 0 if worst <= _LIMIT else 1


@dataclass(frozen=True)
class Cost:
    percent: float
    bytes_s: float
    start_s: float


def measure(argv: list[str], env: dict[str, str], columns: int, lines: int, seconds: float) -> Cost:
    """Run a program on a terminal of its own and take its CPU time between two moments."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = subprocess.Popen(
        argv,
        env={**os.environ, "TERM": "xterm-256color", **env},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    taken = Drain(master)
    taken.start()
    try:
        time.sleep(_WARM_S)
        began, cpu, sent = time.monotonic(), cpu_seconds(process.pid), taken.bytes
        time.sleep(seconds)
        span = time.monotonic() - began
        used = cpu_seconds(process.pid) - cpu
        return Cost(100 * used / span, (taken.bytes - sent) / span, cpu)
    finally:
        process.kill()
        process.wait()
        taken.stop()
        os.close(master)


class Drain(threading.Thread):
    """The far end of the terminal: takes what comes and counts it."""

    def __init__(self, fd: int) -> None:
        super().__init__(daemon=True)
        self._fd = fd
        self._on = True
        self.bytes = 0

    def run(self) -> None:
        while self._on:
            if select.select([self._fd], [], [], 0.2)[0]:
                try:
                    self.bytes += len(os.read(self._fd, 1 << 16))
                except OSError:
                    return

    def stop(self) -> None:
        self._on = False
        self.join()


def cpu_seconds(pid: int) -> float:
    """utime + stime of a process, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# A home in the middle of its work, and what happens there in a second.


def fill(home: Home) -> None:
    spec: dict[str, Any] = {"kind": "train", "inputs": [], "code": None, "needs": {"cores": 1}, "limits": {}}
    lane = {"cores": 16, "memory_mb": 64_000, "gpus": [{"name": "RTX 4090"}], "platform": "Linux-x86_64"}
    events = [
        Event(K.SPEC, data={"digest": "d", "data": json.dumps(spec)}),
        Event(K.LANE, lane="local", data={"state": "up", "info": {k: v for k, v in lane.items() if k != "gpus"}}),
        Event(K.LANE, lane="bat00", data={"state": "up", "info": lane}),
    ]
    common: dict[str, Any] = {"priority": 0, "idem": None, "note": "", "held": False, "rerun_of": None, "after": []}
    with Journal.open(home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
        for i in range(1, JOBS + 1):
            more = {"spec": "d", "kind": "train", "name": f"run-{i:03d}", "params": {"seed": i}, "key": f"{i:064x}"}
            events.append(Event(K.SUBMITTED, job=i, data={**common, **more, "tags": ["night"] if i % 7 == 0 else []}))
        tx.extend(events)
        for i in range(1, JOBS // 2):
            start(tx, i)
            end(tx, i)
        for i in range(JOBS // 2, JOBS // 2 + _RUNNING):
            start(tx, i)
        sweep = JOBS + 1
        tx.add_cells(
            (sweep + i, sweep, f"{sweep + i:064x}", f"seed={i}", json.dumps({"seed": i}), None)
            for i in range(1, CELLS + 1)
        )
        swept = {
            "spec": "d", "kind": "kernel", "name": "grid", "params": {}, "key": f"{sweep:064x}", "tags": [],
            "cells": CELLS, "pooled": 1, "at_once": None, "max_fails": None, "axes": [["seed", list(range(CELLS))]],
            "members": [],
        }  # fmt: skip
        tx.append(K.SWEPT, job=sweep, data={**common, **swept})
        tx.append(K.SWEEP_OPENED, job=sweep)


def start(tx: Any, job: int) -> None:
    tx.append(K.PLACED, job=job, attempt=1, lane="local", data={"nonce": "n", "grant": {"cores": 1}})
    tx.append(K.STARTED, job=job, attempt=1, lane="local", data={"pid": 1, "boot": "b"})


def end(tx: Any, job: int) -> None:
    state, cause = ("failed", "error") if job % 10 == 0 else ("succeeded", "ok")
    reason = "the program ended with exit 3" if state == "failed" else ""
    ended = {"state": state, "cause": cause, "message": reason, "seconds": 9.0, "manifest": "m", "undeclared": []}
    tx.append(K.ATTEMPT_ENDED, job=job, attempt=1, lane="local", data={**ended, "parts": []})
    tx.append(K.JOB_ENDED, job=job, data={"state": state, "cause": cause, "reason": reason, "undeclared": 0})


def change(home: Home) -> int:
    """Each second: a batch of cells ends and another is placed, a job ends, one starts; all that runs goes on."""
    live = LiveWriter(home)
    first, running = JOBS // 2, list(range(JOBS // 2, JOBS // 2 + _RUNNING))
    cell, size, tick = JOBS + 2, 8, 0
    last_cell = JOBS + 1 + CELLS
    batch = 0
    run = home.run_dir(running[0], 1)
    run.path.mkdir(parents=True, exist_ok=True)
    with Journal.open(home, Role.CONTROLLER) as journal:
        while True:
            tick += 1
            with journal.transaction() as tx:
                if batch:
                    old = [cell - size, cell - 1, 1]
                    tx.append(
                        K.BATCH_ENDED, lane="bat00",
                        data={"batch": batch, "seconds": 0.9, "cause": "ok", "reason": "", "manifest": "m",
                              "ok": [old], "back": [], "parts": []},
                    )  # fmt: skip
                    batch = 0
                if cell + size - 1 <= last_cell:
                    cells = [[cell, cell + size - 1, 1]]
                    data = {"dir": f"{cell}-x", "nonce": "x", "grant": {"cores": 1}, "cells": cells}
                    batch = tx.append(K.BATCH_PLACED, lane="bat00", data=data)
                    cell += size
                if tick % 2 == 0 and running[-1] < JOBS - 1:
                    end(tx, running.pop(1))  # the first stays: its log and curve are what one looks at
                    running.append(max(*running, first) + 1)
                    start(tx, running[-1])
            reports = []
            for i, job in enumerate(running):
                step = 50 * tick + i
                reports.append(
                    {
                        "job": job, "attempt": 1, "phase": "running", "beat": tick, "step": step, "rss_mb": 800.0,
                        "progress": {"done": step, "total": 20_000, "note": f"epoch {tick}"}, "pid": 1,
                        "metrics": [json.dumps({"step": step, "loss": 1.0 / (1 + tick), "lr": 0.001})],
                        "metrics_from": 100 * tick,
                    }
                )  # fmt: skip
            live.write(reports)
            for name in ("local", "bat00"):
                live.lane(name, {"cores": 16, "memory_mb": 64_000})
            with run.log.open("a") as f:
                f.write(f"epoch {tick}: loss {1.0 / (1 + tick):.4f}\n\x1b[31mand a coloured line\x1b[0m\n")
            time.sleep(1.0)


def plain(home: Home) -> int:
    """The peer: the same rows and the same log in widgets that come with Textual, filled anew each second."""
    from textual.app import App, ComposeResult
    from textual.widgets import DataTable, Log

    class Plain(App[None]):
        CSS = "#lanes { height: 4; } #jobs { height: 1fr; } Log { height: 8; }"

        def compose(self) -> ComposeResult:
            yield DataTable(id="lanes")
            yield DataTable(id="jobs")
            yield Log()

        def on_mount(self) -> None:
            self.query_one("#lanes", DataTable).add_columns("LANE", "STATE", "CORES")
            self.query_one("#jobs", DataTable).add_columns("ID", "JOB", "STATE", "PROGRESS", "TIME", "NOTE")
            self.set_interval(1.0, self.fill)

        def fill(self) -> None:
            jobs, lanes = self.query_one("#jobs", DataTable), self.query_one("#lanes", DataTable)
            jobs.clear()
            lanes.clear()
            now, live = time.time(), read_attempts(home)
            with Journal.open(home) as journal:
                for lane in query.lanes(journal.conn):
                    lanes.add_row(lane.name, str(lane.state), str(lane.info.get("cores", "")))
                for job in query.jobs(journal.conn, top=True):
                    news = live.get((job.id, job.attempts))
                    said = f"{news.done:g}/{news.total:g}" if news is not None and news.total else ""
                    if job.is_sweep:
                        counts = query.sweep_counts(journal.conn, job.id)
                        said = f"{sum(n for s, n in counts.items() if s.terminal)}/{sum(counts.values())}"
                    took = f"{(job.ended or now) - job.started:.0f}s" if job.started else ""
                    jobs.add_row(str(job.id), job.name, str(job.state), said, took, job.reason or "")
            log = self.query_one(Log)
            log.clear()
            with contextlib.suppress(OSError):
                log.write_lines(home.run_dir(JOBS // 2, 1).log.read_text().splitlines()[-8:])

    Plain().run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
