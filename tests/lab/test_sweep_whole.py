"""A sweep of a thousand cells as a person lives through it: counts, the first error, a controller and a Ray that are
killed in the middle, what failed run again, and the same submitted once more."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.home import Home
from core.journal import Journal, query
from core.states import JobState
from tests.support import controller_pid, end_all, kill, lab, pids, wait_for

CELLS = 1000
_KIND = '''
import os, signal, time
from core.kind import Kind, Params

class MoodyParams(Params):
    n: int
    run: int = 0
    flags: str

class Moody(Kind):
    """Fails on purpose at some cells, until told otherwise; its process is killed at others, once."""
    name = "moody"
    summary = "fails on purpose"
    Params = MoodyParams
    pooled = True

    def tables(self):
        import pyarrow as pa
        return {"moody": pa.schema([("n", pa.int64()), ("value", pa.int64())])}

    def run(self, ctx):
        n, flags = ctx.params.n, ctx.params.flags
        if n % 100 == 7 and not os.path.exists(flags + "/mended"):
            raise ValueError(f"cell {n} fails on purpose")
        if n % 300 == 11 and not os.path.exists(f"{flags}/killed-{n}"):
            os.mkdir(f"{flags}/killed-{n}")
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.004)
        ctx.results("moody", [{"n": n, "value": 7 * n + 1}])
'''
FAILING = [n for n in range(CELLS) if n % 100 == 7]


class World:
    """A home of its own, and what a person types."""

    def __init__(self, folder: Path) -> None:
        site = folder / "site"
        info = site / "moodykind-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "moodykind.py").write_text(_KIND)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moodykind\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[lab.kinds]\nmoody = moodykind:Moody\n")
        self.flags = folder / "flags"
        self.flags.mkdir()
        self.home = Home(folder / "home")
        self.env = {"PYTHONPATH": str(site)}

    def lab(self, *args: str, check: bool = True) -> Any:
        return lab(self.home, *args, check=check, env=self.env)

    def ask(self, *args: str) -> dict[str, Any]:
        return dict(json.loads(self.lab("--json", *args).stdout))

    def submit(self, *args: str, run: int = 0) -> dict[str, Any]:
        sets = ("--set", f"flags={self.flags}", "--set", f"run={run}")
        return self.ask("submit", "moody", "--grid", f"n=0:{CELLS - 1}:1", *sets, *args)

    def counts(self, sweep: int) -> dict[JobState, int]:
        with Journal.open(self.home) as journal:
            return query.sweep_counts(journal.conn, sweep)

    def wait(self, sweep: int) -> query.Job:
        def ended() -> query.Job | None:
            with Journal.open(self.home) as journal:
                row = query.job(journal.conn, sweep)
            return row if row.state.terminal else None

        found = wait_for(ended, f"the end of sweep {sweep}: {self.counts(sweep)}", deadline_s=180)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    mine = World(tmp_path_factory.mktemp("moody"))
    try:
        yield mine
    finally:
        end_all(mine.home)


def test_a_thousand_cells(world: World) -> None:
    answer = world.submit()
    s = int(answer["jobs"][0]["id"])
    # Live: some are done and some are not, and the first error is told while the rest goes on.
    wait_for(lambda: 20 < world.counts(s).get(JobState.SUCCEEDED, 0) < CELLS, "some of the cells")
    kill(controller_pid(world.home))
    wait_for(lambda: world.counts(s).get(JobState.FAILED, 0), "the first failure")
    shown = world.lab("status").stdout
    assert "fails on purpose" in shown
    for pid in pids(world.home, "gcs_server"):
        kill(pid, signal.SIGKILL)
    end = world.wait(s)
    assert end.state is JobState.FAILED
    assert f"{len(FAILING)} of 1,000 cells failed" in (end.reason or "")
    assert world.counts(s) == {JobState.SUCCEEDED: CELLS - len(FAILING), JobState.FAILED: len(FAILING)}
    _one_record_and_one_row_each(world, s, [n for n in range(CELLS) if n not in FAILING])
    with Journal.open(world.home) as journal:
        failed = query.cells(journal.conn, s, states=(JobState.FAILED,))
    assert [j.params["n"] for j in failed] == FAILING
    assert {p.name for p in world.flags.iterdir()} == {f"killed-{n}" for n in range(11, CELLS, 300)}

    # What failed runs again, that and nothing else.
    (world.flags / "mended").touch()
    again = int(world.ask("rerun", str(s), "--failed")["jobs"][0]["id"])
    assert world.wait(again).state is JobState.SUCCEEDED
    with Journal.open(world.home) as journal:
        assert [j.params["n"] for j in query.cells(journal.conn, again)] == FAILING
    _one_record_and_one_row_each(world, again, FAILING)

    # The same once more: nothing runs, and it says so.
    last = _last_job(world)
    said = world.lab(
        "submit", "moody", "--grid", f"n=0:{CELLS - 1}:1", "--set", f"flags={world.flags}", "--set", "run=0"
    )
    assert "1,000 there already, nothing new runs" in said.stdout
    assert _last_job(world) <= last + 1, "at most the row that names them all"
    whole = int(said.stdout.split()[0])
    assert world.wait(whole).state is JobState.SUCCEEDED
    assert world.counts(whole) == {JobState.SUCCEEDED: CELLS}
    sql = f"select count(*) c, sum(value) v, count(distinct n) d from moody where job between {s} and {again + 20}"
    row = world.ask("results", "--sql", sql)["tables"][0]["rows"][0]
    assert row == {"c": CELLS, "v": sum(7 * n + 1 for n in range(CELLS)), "d": CELLS}


def test_too_many_failures_stop_it(world: World) -> None:
    (world.flags / "mended").unlink(missing_ok=True)
    s = int(world.submit("--max-fails", "2", run=1)["jobs"][0]["id"])
    end = world.wait(s)
    counts = world.counts(s)
    assert end.state is JobState.FAILED
    # More than two failed; of the rest nothing new began, and what had begun was let go on.
    assert 3 <= counts[JobState.FAILED] < len(FAILING)
    assert counts[JobState.SKIPPED] > 0
    assert sum(counts.values()) == CELLS
    with Journal.open(world.home) as journal:
        skipped = query.cells(journal.conn, s, states=(JobState.SKIPPED,))
    assert {j.cause for j in skipped} == {"max-fails"}
    assert all(j.attempts == 0 for j in skipped)
    # The twin: without the bound all of them are tried (see the test above), with a wide one too.
    wide = int(world.submit("--max-fails", str(len(FAILING)), run=2)["jobs"][0]["id"])
    assert world.wait(wide).state is JobState.FAILED
    assert world.counts(wide)[JobState.FAILED] == len(FAILING)


def _last_job(world: World) -> int:
    with Journal.open(world.home) as journal:
        return int(journal.conn.execute("SELECT max(id) FROM job").fetchone()[0])


def _one_record_and_one_row_each(world: World, sweep: int, good: list[int]) -> None:
    """Counted from the events, not from the state that follows from them; and from the rows themselves."""
    with Journal.open(world.home) as journal:
        ends: Counter[int] = Counter()
        for row in query.events(journal.conn):
            if row.kind == "batch-ended":
                for first, last, _n in row.data["ok"]:
                    ends.update(range(first, last + 1))
            elif row.kind == "cell-ended" and JobState(row.data["to"]).terminal:
                ends[int(row.job or 0)] += 1
        cells = query.cells(journal.conn, sweep)
    assert all(ends[j.id] == 1 for j in cells), [j.id for j in cells if ends[j.id] != 1][:10]
    found = world.ask("results", str(sweep), "--table", "moody", "--columns", "job,n,value")["tables"][0]["rows"]
    assert [r["n"] for r in found] == good
    assert all(r["value"] == 7 * r["n"] + 1 for r in found)
    by_job = {j.id: j.params["n"] for j in cells}
    assert all(by_job[r["job"]] == r["n"] for r in found)
