"""`make bench`: how long a sweep takes over lanes that are not alike.

200 CPU-bound cells, long and short, over ssh on three lanes with 0.8, 0.4 and 0.2 of a core (tests/lab_net.py makes
them; it needs root), against

- the bound: all work over all speed, or the longest cell on the fastest lane, whichever is more. What a lane is worth
  is measured with nothing else on it, before and after; lab is told nothing of it and has to learn it;
- plain Ray over the same lanes (each a Ray node with one CPU, its workers warm), one task a cell.

python -m benchmarks.makespan [--rounds 1] [--cells 200] [--unit 0.2] [--kind pooled|command] [--no-ray] [--local]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Timing, table
from core.errors import Exit
from core.home import Home
from core.journal import Journal, query
from core.states import EventKind, JobState

QUOTAS = {"quick": 0.8, "half": 0.4, "quarter": 0.2}
SIZES = (1, 2, 4, 16)  # units of work; as many cells of each
STEPS = 16_000_000  # of `burn` that are about a second of a whole core
_LAB = [sys.executable, "-P", "-m", "lab"]

_BURN = """
def burn(steps):
    x = 1
    for _ in range(steps):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
    return x
"""

_KIND = f'''
from core.kind import Kind, Params
{_BURN}
class BurnParams(Params):
    units: int
    steps: int
    rep: int

class Burn(Kind):
    """CPU-bound, and nothing else."""
    name = "burn"
    summary = "a cell for benchmarks"
    Params = BurnParams
    pooled = True

    def tables(self):
        import pyarrow as pa
        return {{"burn": pa.schema([("units", pa.int64()), ("value", pa.int64())])}}

    def run(self, ctx):
        p = ctx.params
        ctx.results("burn", [{{"units": p.units, "value": burn(p.units * p.steps)}}])
'''

_PROGRAM = f"""
import sys, time
{_BURN}
units, steps = int(sys.argv[1]), int(sys.argv[2])
began = time.perf_counter()
burn(units * steps)
print(time.perf_counter() - began)
"""

_RAY = f"""
import json, sys, time
import ray
{_BURN}
order = json.loads(sys.argv[2])
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error", configure_logging=False)
task = ray.remote(num_cpus=1, max_retries=0)(burn)
while len([n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]) < int(sys.argv[3]):
    time.sleep(0.2)
ray.get([task.options(scheduling_strategy="SPREAD").remote(1000) for _ in range(12)])
time.sleep(5)
began = time.perf_counter()
ray.get([task.remote(steps) for steps in order])
print("took", time.perf_counter() - began)
"""


@dataclass(frozen=True)
class Work:
    """The sweep: as many cells of each size, in the order of the grid."""

    cells: int
    steps: int  # of a unit

    @property
    def reps(self) -> int:
        return max(1, self.cells // len(SIZES))

    @property
    def units(self) -> int:
        return self.reps * sum(SIZES)

    def order(self) -> list[int]:
        """Steps of each cell."""
        return [size * self.steps for size in SIZES for _ in range(self.reps)]


def main(argv: Sequence[str]) -> int:
    read = argparse.ArgumentParser(prog="benchmarks.makespan", description=__doc__.splitlines()[0])
    read.add_argument("--rounds", type=int, default=1)
    read.add_argument("--cells", type=int, default=200)
    read.add_argument("--unit", type=float, default=0.2, help="seconds of a whole core for the shortest cells")
    read.add_argument("--kind", choices=("pooled", "command"), default="pooled")
    read.add_argument("--no-ray", action="store_true")
    read.add_argument("--local", action="store_true", help="this machine alone: only tries whether all of it works")
    asked = read.parse_args(argv)
    work = Work(asked.cells, max(1, int(asked.unit * STEPS)))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} at the start, Python {sys.version.split()[0]}")
    if asked.local:
        return _locally(work, asked.kind)
    lab_net = importlib.import_module("tests.lab_net")
    if os.geteuid() != 0:
        print("the lanes of this benchmark need root; --local tries it without them", file=sys.stderr)
        return int(Exit.REFUSED)
    try:
        with lab_net.LabNet() as net:
            for name, quota in QUOTAS.items():
                net.add(name, python="venv", quota=quota)
            return _remotely(net, work, asked)
    except lab_net.LabNetError as error:
        print(f"no test lab here: {error}", file=sys.stderr)
        return int(Exit.REFUSED)


def _remotely(net: Any, work: Work, asked: argparse.Namespace) -> int:
    ours: list[float] = []
    rays: list[float] = []
    bounds: list[float] = []
    shares: list[dict[str, str]] = []
    for turn in range(asked.rounds):
        before = _speeds(net, work)
        seconds, share = _lab_round(net, work, asked.kind, turn)
        ours.append(seconds)
        shares.append(share)
        if not asked.no_ray:
            rays.append(_ray_round(net, work))
        after = _speeds(net, work)
        # What the lanes were worth meanwhile: the machine below them is nobody's alone.
        bounds.append(_bound(work, {n: (before[n] + after[n]) / 2 for n in before}))
        slow = ", ".join(f"{n} {before[n]:.3f} and {after[n]:.3f}" for n in before)
        print(f"  seconds a unit, before and after: {slow}")
    rows = [("the bound", f"{statistics.median(bounds) * 1000:.0f}", Timing("", tuple(bounds)).spread, "1")]
    for name, taken in (("lab over ssh", ours), ("plain Ray", rays)):
        if taken:
            t = Timing(name, tuple(taken))
            over = statistics.median(x / b for x, b in zip(taken, bounds, strict=True))
            rows.append((name, f"{t.median * 1000:.0f}", t.spread, f"{over:.3f} of the bound"))
    table(f"{len(work.order())} CPU-bound cells of {work.units} units over lanes of 0.8, 0.4 and 0.2 cores", rows)
    for share in shares:
        print("  lab: " + "; ".join(f"{lane} {said}" for lane, said in share.items()))
    return 0


# What the lanes are worth.


def _speeds(net: Any, work: Work) -> dict[str, float]:
    """Seconds that a unit takes on each lane, all lanes at once, as they will be."""
    units = 4 if work.steps > STEPS // 20 else 40
    argv = [_PROGRAM, str(units), str(work.steps)]
    running = {
        name: subprocess.Popen(
            [*net.ssh_argv(lane), _quoted([lane.python, "-c", *argv])], stdout=subprocess.PIPE, text=True
        )
        for name, lane in net.lanes.items()
    }
    found = {}
    for name, process in running.items():
        out, _ = process.communicate(timeout=600)
        found[name] = float(out.split()[-1]) / units
    return found


def _bound(work: Work, unit_s: dict[str, float]) -> float:
    power = sum(1 / s for s in unit_s.values())
    return max(work.units / power, max(SIZES) * min(unit_s.values()))


def _quoted(argv: Sequence[str]) -> str:
    return shlex.join(argv)


# Ours.


def _lab_round(net: Any, work: Work, kind: str, turn: int) -> tuple[float, dict[str, str]]:
    """A new home, that knows nothing: seconds from the submit to the last cell's commit."""
    head_of = importlib.import_module("tests.lanes.remote.support").head_of
    with tempfile.TemporaryDirectory(prefix="lab-makespan-") as folder, _site(Path(folder)):
        roles: dict[str, Any] = {"roles": ["promote"]}  # the head is no lane of this sweep
        lanes: dict[str, Any] = {name: {"cores": 1, "keepalive_s": 5} for name in net.lanes}
        with head_of(Path(folder) / "head", net, local=roles, **lanes) as head:
            head.grant()
            (head.folder / "burn.py").write_text(_PROGRAM)
            head.lab("up")
            for name in net.lanes:
                head.wait_lane(name, "up", deadline_s=120)
            return _sweep(head.home, work, kind, head.folder)


def _sweep(home: Home, work: Work, kind: str, cwd: Path) -> tuple[float, dict[str, str]]:
    axes = ["--grid", f"units={','.join(map(str, SIZES))}", "--grid", f"rep=1..{work.reps}"]
    if kind == "pooled":
        words = ["burn", *axes, "--set", f"steps={work.steps}"]
    else:
        words = ["command", *axes, "--", "python3", "burn.py", "{units}", str(work.steps), "{rep}"]
    env = {**os.environ, "LAB_HOME": str(home.path), "NO_COLOR": "1"}
    began = time.perf_counter()
    done = subprocess.run(
        [*_LAB, "submit", "--quiet", "--wait", *words], env=env, cwd=cwd, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"the sweep ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    with Journal.open(home) as journal:
        sweep = query.sweeps(journal.conn)[-1]
        # A benchmark whose work was not done measures nothing.
        assert query.sweep_counts(journal.conn, sweep.id) == {JobState.SUCCEEDED: len(work.order())}
        return seconds, _shares(journal, sweep.id, seconds)


def _shares(journal: Journal, sweep: int, seconds: float) -> dict[str, str]:
    """Of each lane: its cells, for how much of the time it worked, and how long before the end it had nothing more."""
    sql = "SELECT lane, count(*) FROM job_state WHERE sweep = ? GROUP BY lane ORDER BY lane"
    cells = {str(r[0]): int(r[1]) for r in journal.conn.execute(sql, (sweep,))}
    ends = [e for e in query.events(journal.conn) if e.kind in (EventKind.BATCH_ENDED, EventKind.ATTEMPT_ENDED)]
    last = max(e.at for e in ends)
    out = {}
    for lane, n in cells.items():
        mine = [e for e in ends if e.lane == lane]
        worked = sum(float(e.data["seconds"] or 0.0) for e in mine) / seconds
        out[lane] = f"{n} cells in {len(mine)}, worked {worked:.0%}, done {last - max(e.at for e in mine):.1f} s early"
    return out


@contextlib.contextmanager
def _site(folder: Path) -> Iterator[None]:
    """A package beside lab that registers the kind `burn`, as somebody else's would."""
    site = folder / "site"
    info = site / "burnkind-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "burnkind.py").write_text(_KIND)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: burnkind\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lab.kinds]\nburn = burnkind:Burn\n")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(site) if before is None else f"{site}:{before}"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _locally(work: Work, kind: str) -> int:
    """One local lane: does the sweep run, and is its work done?"""
    with tempfile.TemporaryDirectory(prefix="lab-makespan-") as folder, _site(Path(folder)):
        home = Home(Path(folder) / "home")
        env = {**os.environ, "LAB_HOME": str(home.path)}
        (Path(folder) / "burn.py").write_text(_PROGRAM)
        subprocess.run([*_LAB, "up"], check=True, stdout=subprocess.DEVNULL, env=env)
        try:
            seconds, share = _sweep(home, work, kind, Path(folder))
        finally:
            subprocess.run([*_LAB, "down"], check=True, stdout=subprocess.DEVNULL, env=env)
    print(f"{len(work.order())} cells of {work.units} units on this machine alone: {seconds:.1f} s, {share}")
    return 0


# Plain Ray.


def _ray_round(net: Any, work: Work) -> float:
    """A Ray cluster of the same lanes, one CPU each; seconds of the same cells as tasks, in the order of the grid."""
    ray = str(Path(sys.executable).with_name("ray"))
    with socket.socket() as free:
        free.bind((net.head, 0))
        port = free.getsockname()[1]
    head_s = f"{net.head}:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    plain = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    env = {**os.environ, **plain}
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        common = ["--block", "--object-store-memory", str(100 << 20), "--disable-usage-stats"]
        head = [ray, "start", "--head", f"--node-ip-address={net.head}", f"--port={port}", "--num-cpus=0"]
        head += ["--include-dashboard=false", f"--temp-dir={folder}", *common]
        processes = [subprocess.Popen(head, env=env, start_new_session=True, **quiet)]  # type: ignore[call-overload]
        try:
            time.sleep(8)
            for lane in net.lanes.values():
                joins = [
                    "env",
                    *(f"{k}={v}" for k, v in plain.items()),
                    lane.python,
                    "-m",
                    "ray.scripts.scripts",
                    "start",
                    f"--address={head_s}",
                    "--num-cpus=1",
                ]
                joins += [f"--node-ip-address={lane.address}", *common]
                processes.append(
                    subprocess.Popen([*net.ssh_argv(lane, "-tt"), _quoted(joins)], stdin=subprocess.DEVNULL, **quiet)  # type: ignore[call-overload]
                )
            order = json.dumps(work.order())
            argv = [sys.executable, "-P", "-c", _RAY, head_s, order, str(len(net.lanes))]
            done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=3600)
            if "took" not in done.stdout:
                raise RuntimeError(f"plain Ray failed\n{done.stderr[-2000:]}")
            return float(done.stdout.split("took")[1])
        finally:
            for lane in net.lanes.values():
                lane.reboot()  # nothing of Ray's is left there
            _end(processes)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
