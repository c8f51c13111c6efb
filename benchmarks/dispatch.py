"""`make bench`: what a cell costs. Ten thousand cells that do next to nothing, each with its row in the journal and a
result row that depends on its parameter, against bare Ray tasks and others in the same run, in turns.

python -m benchmarks.dispatch [rate] [single] [submit] [scale]
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import Timing, ratio, table
from benchmarks.peers import Peer
from core.home import Home
from core.journal import Journal, query
from core.states import JobState

if TYPE_CHECKING:
    from lab import Lab
    from lab.handles import Sweep

CELLS = 10_000
MANY = 100_000
ROUNDS = 5
SINGLES = 200

_KIND = '''
from core.kind import Kind, Params

class NoopParams(Params):
    n: int
    run: int = 0

class Noop(Kind):
    """Next to nothing, but its row depends on its parameter."""
    name = "noop"
    summary = "a cell for benchmarks"
    Params = NoopParams
    pooled = True

    def tables(self):
        import pyarrow as pa
        return {"noop": pa.schema([("n", pa.int64()), ("value", pa.int64())])}

    def run(self, ctx):
        n = ctx.params.n
        ctx.results("noop", [{"n": n, "value": 3 * n + 1}])
'''


def main(wanted: list[str]) -> int:
    parts: dict[str, Callable[[Lab, Home], None]] = {
        "rate": bench_rate,
        "single": bench_single,
        "submit": bench_submit,
        "scale": bench_scale,
    }
    unknown = [w for w in wanted if w not in parts]
    if unknown:
        print(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(parts)}", file=sys.stderr)
        return 2
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} at the start, Python {sys.version.split()[0]}")
    for name in wanted or parts:
        with a_lab() as (lab, home):
            parts[name](lab, home)
    return 0


# Many cells.


def bench_rate(lab: Lab, home: Home) -> None:
    """From the submit on (which is on disk) to the last cell's commit; and with the submit."""
    ours, whole = [], []
    others = ("bare Ray tasks", "Ray tasks of 512 cells")
    slow = {"Dask": 2_000, "HyperQueue (a process each)": 2_000}
    peers = {name: Peer(name) for name in (*others, *slow)}
    taken: dict[str, list[float]] = {name: [] for name in peers}
    try:
        sweep(lab, home, CELLS, run=-1)
        for turn in range(ROUNDS):
            submitted, dispatched = sweep(lab, home, CELLS, run=turn)
            ours.append(dispatched)
            whole.append(submitted + dispatched)
            for name in others:
                taken[name].append(peers[name].run(CELLS))
            for name, cells in slow.items():
                if turn < 2:
                    taken[name].append(peers[name].run(cells) * CELLS / cells)
    finally:
        for peer in peers.values():
            peer.close()
    bare = Timing("bare Ray tasks", tuple(taken["bare Ray tasks"]))
    rows = []
    for name, seconds in {"lab": ours, "lab, with the submit": whole, **taken}.items():
        t = Timing(name, tuple(seconds))
        pairs = Timing(name, t.seconds[: len(bare.seconds)])
        faster = ratio(Timing("", bare.seconds[: len(pairs.seconds)]), pairs)
        rows.append((name, f"{t.median * 1000:.0f}", t.spread, f"{CELLS / t.median:,.0f}/s, {faster:.1f} times"))
    table(f"{CELLS:,} cells; cells a second, and how many times the rate of bare Ray tasks", rows)
    print("  Dask and HyperQueue: 2,000 cells, scaled. Only lab writes down what it did.")


# One cell.


def bench_single(lab: Lab, home: Home) -> None:
    """One pooled job at a time, warm: seen by who submits it, and seen by the journal."""
    sweep(lab, home, 64, run=-1)
    peers = {name: Peer(name) for name in ("a bare Ray task", "a bare Ray actor call")}
    submitter = lab.submitter("noop")
    calls: dict[str, list[float]] = {name: [] for name in peers}
    seen = []
    try:
        for n in range(SINGLES + 20):
            for name, peer in peers.items():
                calls[name].append(peer.run(1))
            began = time.perf_counter()
            job = submitter.submit(n=n, run=77).wait()
            seen.append(time.perf_counter() - began)
            assert job.row.state is JobState.SUCCEEDED
    finally:
        submitter.close()
        for peer in peers.values():
            peer.close()
    mine = seen[20:]
    rows = []
    for name, all_of_it in {**calls, "lab: submit to result, in Python": seen}.items():
        s = all_of_it[20:]
        over = statistics.median(a - b for a, b in zip(mine, s, strict=True))
        added = f"lab adds {over * 1000:+.2f} ms" if s != mine else ""
        rows.append((name, f"{statistics.median(s) * 1000:.2f}", Timing(name, tuple(s)).spread, added))
    table(f"one pooled cell, warm, {SINGLES} times in turns", rows)


# The submit.


def bench_submit(lab: Lab, home: Home) -> None:
    rows = []
    for cells in (CELLS, MANY):
        taken = []
        for turn in range(3):
            began = time.perf_counter()
            held = lab.sweep("noop", grid={"n": range(cells)}, params={"run": 1000 + turn}, held=True)
            taken.append(time.perf_counter() - began)
            held.cancel()
        t = Timing("", tuple(taken))
        rows.append((f"in Python, {cells:,}", f"{t.median * 1000:.0f}", t.spread, f"{t.median / cells * 1e6:.1f} us"))
    taken = []
    for turn in range(3):
        argv = [*_LAB, "submit", "noop", "--grid", f"n=0:{CELLS - 1}:1", "--set", f"run={2000 + turn}", "--hold"]
        began = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - began)
    t = Timing("", tuple(taken))
    rows.append(
        (f"`lab submit`, {CELLS:,}, a process", f"{t.median * 1000:.0f}", t.spread, f"{t.median / CELLS * 1e6:.1f} us")
    )
    table("submit of a sweep, until it is on disk; per cell", rows)


# Does a cell cost more when there are more of them?


def bench_scale(lab: Lab, home: Home) -> None:
    rows = []
    sweep(lab, home, 1000, run=-1)
    for cells in (CELLS, MANY):
        before = _size(home)
        submitted, dispatched = sweep(lab, home, cells, run=cells)
        grown = _size(home) - before
        each = (submitted + dispatched) / cells * 1e6
        said = f"{each:.1f} us, {grown / cells:.0f} bytes of journal, controller {_rss_mb(home):.0f} MB"
        rows.append((f"{cells:,} cells", f"{dispatched * 1000:.0f}", f"{cells / dispatched:,.0f} cells/s", said))
    table("ten times as many cells; microseconds and bytes a cell", rows)


# What all of them use.

_LAB = [sys.executable, "-P", "-m", "lab"]


@contextlib.contextmanager
def a_lab() -> Iterator[tuple[Lab, Home]]:
    """A home of its own with a running controller, and a package beside it that registers the kind `noop`."""
    with tempfile.TemporaryDirectory(prefix="lab-bench-") as folder:
        site = Path(folder) / "site"
        info = site / "noopkind-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "noopkind.py").write_text(_KIND)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noopkind\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[lab.kinds]\nnoop = noopkind:Noop\n")
        home = Home(Path(folder) / "home")
        os.environ["LAB_HOME"] = str(home.path)
        os.environ["PYTHONPATH"] = str(site)
        sys.path.insert(0, str(site))
        subprocess.run([*_LAB, "up"], check=True, stdout=subprocess.DEVNULL)
        try:
            from lab import Lab

            with Lab(home.path) as lab:
                yield lab, home
        finally:
            subprocess.run([*_LAB, "down"], check=True, stdout=subprocess.DEVNULL)
            sys.path.remove(str(site))
            sys.modules.pop("noopkind", None)  # the next lab has a file of its own


def sweep(lab: Lab, home: Home, cells: int, *, run: int) -> tuple[float, float]:
    """Run one sweep and check every row of it. Returns the seconds of the submit and of the rest."""
    began = time.perf_counter()
    swept = lab.sweep("noop", grid={"n": range(cells)}, params={"run": run})
    submitted = time.perf_counter()
    swept.wait()
    ended = time.perf_counter()
    _check(home, swept, cells)
    return submitted - began, ended - submitted


def _check(home: Home, swept: Sweep, cells: int) -> None:
    """A benchmark whose work was not done measures nothing."""
    with Journal.open(home) as journal:
        assert query.sweep_counts(journal.conn, swept.id) == {JobState.SUCCEEDED: cells}
        rows = swept.results("noop")
        assert rows.num_rows == cells
        found: dict[str, list[Any]] = rows.select(["job", "n", "value"]).to_pydict()
        assert found["n"] == list(range(cells))
        assert all(v == 3 * n + 1 for n, v in zip(found["n"], found["value"], strict=True))
        assert found["job"] == [swept.id + 1 + n for n in range(cells)]


def _size(home: Home) -> int:
    """Bytes of the journal that are in use, whether in the file or still in its log."""
    with Journal.open(home) as journal:
        pages, free, size = (
            int(journal.conn.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
    return (pages - free) * size


def _rss_mb(home: Home) -> float:
    with Journal.open(home) as journal:
        said = query.controller(journal.conn)
    assert said is not None
    for line in Path(f"/proc/{said[0]['pid']}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
