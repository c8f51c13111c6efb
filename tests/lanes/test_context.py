"""The context of a kind: rows, results, checkpoints, plans; in a lane and inline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from core.errors import BadInput, CheckCannotFail, JobFailed
from core.fsio import read_json
from core.home import Home
from core.kind import Context, Kind, Params
from core.rundir import RunDir, verify_checkpoint, verify_manifest
from lanes.agent import FAILPOINTS
from lanes.context import RunContext
from lanes.inline import run_inline
from tests.lanes.support import Lane, wait_file
from tests.support import wait_for

THIS = "tests.lanes.test_context"


class ToyParams(Params):
    what: str = "ok"
    rows: int = 3
    folder: str = ""


class Toy(Kind):
    """A kind that does what its parameter says."""

    name: ClassVar[str] = "toy"
    summary: ClassVar[str] = "for tests"
    Params: ClassVar[type[Params]] = ToyParams

    def tables(self) -> dict[str, Any]:
        import pyarrow as pa

        fields = [pa.field("cell", pa.int64(), nullable=False), pa.field("error", pa.float64())]
        return {"cells": pa.schema(fields)}

    def run(self, ctx: Context) -> None:
        getattr(self, "do_" + ctx.params.what)(ctx)

    def do_ok(self, ctx: Context) -> None:
        ctx.expect(rows={"cells": 3}, last_step=2, artifacts=["model.bin"])
        for step in range(3):
            ctx.metrics(step, loss=1.0 / (step + 1))
            ctx.progress(step + 1, 3, "working")
        ctx.results("cells", [{"cell": i, "error": 0.5} for i in range(ctx.params.rows)])
        ctx.artifact("model.bin").write_bytes(b"weights")
        ctx.log("done")

    def do_raise(self, ctx: Context) -> None:
        raise ValueError("a plain mistake")

    def do_refuse(self, ctx: Context) -> None:
        raise JobFailed("the numbers do not agree")

    def do_blind(self, ctx: Context) -> None:
        raise CheckCannotFail("the mutant passed")

    def do_exit(self, ctx: Context) -> None:
        sys.exit(5)

    def do_die(self, ctx: Context) -> None:
        os.abort()

    def do_train(self, ctx: Context) -> None:
        """Counts to ten, one checkpoint a step, and leaves when asked."""
        found = ctx.load_checkpoint()
        begin = found.step + 1 if found else 0
        ctx.expect(last_step=9)
        for step in range(begin, 10):
            ctx.metrics(step)
            with ctx.save_checkpoint(step, seen=step) as folder:
                (folder / "state").write_text(str(step))
            while step == 4 and begin == 0 and not ctx.stopping:
                Path(ctx.params.folder, "at4").write_text("x")
            if ctx.stopping:
                ctx.leave()

    def do_keep(self, ctx: Context) -> None:
        """Six checkpoints, of which two stay. `folder`/picky: nothing is good enough to go on from above that step."""
        picky = Path(ctx.params.folder, "picky")
        most = int(picky.read_text()) if picky.exists() else 100
        begin = next((found.step for found in ctx.checkpoints() if found.step <= most), 0)
        ctx.log(f"begins at {begin}")
        for step in range(begin + 1, 7):
            ctx.metrics(step)
            with ctx.save_checkpoint(step, keep=2) as folder:
                for name in "abc":
                    (folder / name).write_text(f"{name}{step}")

    def do_fill(self, ctx: Context) -> None:
        with ctx.save_checkpoint(1) as folder:
            (folder / "state").write_text("small")
        with ctx.save_checkpoint(2) as folder:
            (folder / "state").write_bytes(bytes(9 << 20))


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Lane]:
    lane = Lane(tmp_path)
    yield lane
    lane.end()


def toy(lane: Lane, job: int, what: str, **changes: Any) -> dict[str, Any]:
    params = {"what": what, "rows": changes.pop("rows", 3), "folder": str(lane.folder)}
    return lane.spec(job, ["-"], entry=f"{THIS}:Toy", kind="toy", params=params, **changes)


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[RunContext]:
    run = RunDir(tmp_path / "run")
    run.create()
    ctx = RunContext(run, {"job": 1, "attempt": 1, "key": "k"}, None, Toy().tables)
    yield ctx
    ctx.finish()


# In a lane.


def test_a_kind_in_a_lane(lane: Lane) -> None:
    import pyarrow as pa

    outcome = lane.outcome(toy(lane, 1, "ok", packages={"pyarrow": "1"}, env={"DECLARED": "1"}))
    assert outcome["cause"] == "ok", lane.log(1)
    assert (outcome["rows"], outcome["last_step"]) == ({"cells": 3}, 2)
    run = lane.run_dir(1)
    with pa.OSFile(str(run.results / "cells.arrow")) as f:
        table = pa.ipc.open_file(f).read_all()
    assert table.column("cell").to_pylist() == [0, 1, 2]
    env = read_json(run.env)
    assert env["packages"]["pyarrow"] == pa.__version__
    assert env["env"]["DECLARED"] == "1"
    assert "HOME" not in env["env"]
    report = lane.report(1)
    assert report["progress"] == {"done": 3, "total": 3, "note": "working"}
    assert report["step"] == 2
    assert "done" in lane.log(1)


@pytest.mark.parametrize(
    ("what", "cause", "says"),
    [
        ("raise", "error", "ValueError: a plain mistake"),
        ("refuse", "error", "the numbers do not agree"),
        ("blind", "check-cannot-fail", "the mutant passed"),
        ("exit", "error", "exit 5"),
        ("die", "signal", "SIGABRT"),
    ],
)
def test_ends_of_a_kind(lane: Lane, what: str, cause: str, says: str) -> None:
    outcome = lane.outcome(toy(lane, 1, what))
    assert outcome["cause"] == cause
    assert says in outcome["message"]


def test_fewer_rows_than_planned(lane: Lane) -> None:
    outcome = lane.outcome(toy(lane, 1, "ok", rows=2))
    assert outcome["cause"] == "incomplete"
    assert "cells has 2 rows and 3 were planned" in outcome["message"]


def test_leave_and_go_on_from_the_checkpoint(lane: Lane) -> None:
    lane.start(toy(lane, 1, "train"))
    wait_file(lane.folder / "at4", "step 4")
    lane.agent.signal(1, 1, "stop", "preempted", 60.0)
    assert lane.wait_gone(1)["outcome"]["cause"] == "preempted"
    earlier = [str(lane.run_dir(1).checkpoints)]
    outcome = lane.outcome(toy(lane, 2, "train", key="key-1", checkpoints=earlier))
    assert outcome["cause"] == "ok"
    steps = [json.loads(x)["step"] for x in lane.run_dir(2).metrics.read_text().splitlines()]
    assert steps == [5, 6, 7, 8, 9]


def test_killed_inside_a_checkpoint_the_one_before_stands(
    lane: Lane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAILPOINTS, str(tmp_path))
    lane.start(toy(lane, 1, "train"))
    wait_file(lane.folder / "at4", "step 4")
    (tmp_path / "child.in_checkpoint").touch()
    lane.agent.signal(1, 1, "stop", "preempted", 60.0)
    lane.wait_gone(1)
    (tmp_path / "child.in_checkpoint").unlink(missing_ok=True)
    spec = toy(lane, 2, "train", key="key-1", checkpoints=[str(lane.run_dir(1).checkpoints)])
    (tmp_path / "child.in_checkpoint").touch()
    assert lane.outcome(spec)["cause"] == "signal"
    steps = [json.loads(x)["step"] for x in lane.run_dir(2).metrics.read_text().splitlines()]
    assert steps == [5]
    left = sorted(p.name for p in lane.run_dir(2).checkpoints.iterdir() if not p.name.startswith("."))
    assert left == []
    both = [str(lane.run_dir(n).checkpoints) for n in (2, 1)]
    outcome = lane.outcome(toy(lane, 3, "train", key="key-1", checkpoints=both))
    assert outcome["cause"] == "ok"
    first = json.loads(lane.run_dir(3).metrics.read_text().splitlines()[0])
    assert first["step"] == 5


@pytest.mark.root
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "lab-test", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no small tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    lane = Lane(disk)
    try:
        outcome = lane.outcome(toy(lane, 1, "fill"))
        assert outcome["cause"] == "disk-full"
        assert verify_manifest(lane.run_dir(1)) == []
        spec = {"job": 1, "attempt": 2, "key": "key-1", "checkpoints": [str(lane.run_dir(1).checkpoints)]}
        found = RunContext(RunDir(tmp_path / "next"), spec, None).load_checkpoint()
        assert found is not None
        assert (found.step, (found.path / "state").read_text()) == (1, "small")
    finally:
        lane.end()
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_command_loads_little(lane: Lane) -> None:
    """What the process around a program imports decides how long a short program takes."""
    code = (
        "import sys; sys.argv = ['x']; import lanes.child, jobs.command; jobs.command.LIGHT['Command']; "
        "print(sorted({'pydantic', 'pyarrow', 'numpy', 'ray', 'subprocess', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path.cwd(), check=True)
    assert done.stdout.strip() == "[]"


# The context by itself.


def test_rows_must_fit_the_schema(ctx: RunContext) -> None:
    good = {"cell": 1, "error": None}
    bad: list[tuple[Mapping[str, Any], str]] = [
        ({"cell": "one"}, "'cell'"),
        ({"cell": 1, "extra": 2}, "'extra'"),
        ({"error": 1.0}, "without a value"),
    ]
    for row, says in bad:
        with pytest.raises(BadInput, match=says):
            ctx.results("cells", [good, row])
    with pytest.raises(BadInput, match="no table"):
        ctx.results("other", [good])
    ctx.results("cells", [good])
    assert ctx.finish() == {"cells": 1}


def test_numpy_and_arrow_rows(ctx: RunContext) -> None:
    import numpy as np
    import pyarrow as pa

    ctx.results("cells", [{"cell": np.int32(1), "error": np.float32(0.5)}])
    ctx.results("cells", pa.table({"error": [1.0, 2.0], "cell": pa.array([2, 3], pa.int32())}))
    with pytest.raises(BadInput):
        ctx.results("cells", pa.table({"cell": ["x"]}))
    assert ctx.finish() == {"cells": 3}
    table = pa.ipc.open_file(str(ctx.dir.results / "cells.arrow")).read_all()
    assert table.column("cell").to_pylist() == [1, 2, 3]
    assert table.column("error").to_pylist() == [0.5, 1.0, 2.0]


def test_steps_never_go_backwards(ctx: RunContext) -> None:
    ctx.metrics(3, loss=1.0, note="x")
    ctx.metrics(3, accuracy=0.5)
    with pytest.raises(BadInput, match="backwards"):
        ctx.metrics(2, loss=1.0)
    with pytest.raises(BadInput, match="metric 'loss'"):
        ctx.metrics(4, loss=[1.0])  # type: ignore[arg-type]
    rows = [json.loads(x) for x in ctx.dir.metrics.read_text().splitlines()]
    assert [r["step"] for r in rows] == [3, 3]


def test_names_stay_inside(ctx: RunContext) -> None:
    with pytest.raises(BadInput, match="outside"):
        ctx.artifact("../x")
    with pytest.raises(BadInput, match="no input is called"):
        ctx.input("data")
    assert ctx.artifact("a/b.bin").parent.is_dir()


def test_the_same_step_twice_keeps_the_newer(ctx: RunContext) -> None:
    for text in ("old", "new"):
        with ctx.save_checkpoint(5) as folder:
            (folder / "state").write_text(text)
    found = ctx.load_checkpoint()
    assert found is not None
    assert (found.path / "state").read_text() == "new"
    assert [p.name for p in ctx.dir.checkpoints.iterdir()] == ["5"]


def test_a_checkpoint_that_fails_leaves_nothing(ctx: RunContext) -> None:
    with ctx.save_checkpoint(1) as folder:
        (folder / "state").write_text("one")
    with pytest.raises(RuntimeError), ctx.save_checkpoint(2):
        raise RuntimeError
    assert [p.name for p in ctx.dir.checkpoints.iterdir()] == ["1"]
    (ctx.dir.checkpoints / "1" / "state").write_text("rot")
    assert ctx.load_checkpoint() is None


def save(ctx: RunContext, *steps: int, keep: int | None = None) -> None:
    for step in steps:
        with ctx.save_checkpoint(step, keep=keep) as folder:
            (folder / "state").write_text(f"state of {step}")


def steps(run: RunDir) -> list[str]:
    return sorted(p.name for p in run.checkpoints.iterdir())


def test_checkpoints_are_offered_newest_first_and_each_is_verified_when_it_is_asked_for(
    ctx: RunContext, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(ctx, 1, 2, 3, 4, 5)
    (ctx.dir.checkpoints / "5" / "state").write_text("rot")
    (ctx.dir.checkpoints / "3" / "state").unlink()
    (ctx.dir.checkpoints / "2" / "manifest.json").write_text('{"key": "k", "files": ["state"]}')
    again = RunContext(RunDir(tmp_path / "next"), {**ctx.raw, "checkpoints": [str(ctx.dir.checkpoints)]}, None)
    found = again.checkpoints()
    assert next(found).step == 4
    said = capsys.readouterr().out
    assert "5/state: differs" in said
    assert "/3" not in said, "nobody asked for one that is older"
    assert [c.step for c in found] == [1]
    said = capsys.readouterr().out
    assert "3/state: differs" in said
    assert "2: its manifest is none of ours" in said
    assert next(again.checkpoints()) == again.load_checkpoint()
    (ctx.dir.checkpoints / "4" / "state").write_text("rot")
    (ctx.dir.checkpoints / "1" / "state").write_text("rot")
    assert list(again.checkpoints()) == []
    assert again.load_checkpoint() is None


def test_an_older_checkpoint_goes_only_when_so_many_newer_ones_verify(ctx: RunContext) -> None:
    save(ctx, 1, 2, 3)
    assert steps(ctx.dir) == ["1", "2", "3"], "nobody said how many to keep"
    (ctx.dir.checkpoints / "3" / "state").write_text("rot")
    save(ctx, 4, keep=2)
    assert steps(ctx.dir) == ["2", "3", "4"], "3 is none: 2 is what a damaged 4 falls back to"
    save(ctx, 5, keep=2)
    assert steps(ctx.dir) == ["4", "5"]
    save(ctx, 5, 5, keep=2)
    assert steps(ctx.dir) == ["4", "5"], "the same step again is one"
    with pytest.raises(RuntimeError), ctx.save_checkpoint(6, keep=2):
        raise RuntimeError
    assert steps(ctx.dir) == ["4", "5"], "what failed pushes nothing out"
    for few in (1, 0, -1):
        with pytest.raises(BadInput, match="checkpoints"), ctx.save_checkpoint(7, keep=few):
            pass
    assert steps(ctx.dir) == ["4", "5"]


@pytest.mark.parametrize(
    ("point", "left", "resumes"),
    [
        # At the first save: nothing is there. At the removal of 1: 2 and 3 are.
        ("child.in_checkpoint", [], 0),
        ("child.in_checkpoint_seal", [], 0),
        ("child.in_checkpoint_removal", ["2", "3"], 3),
    ],
)
def test_killed_in_the_middle_of_a_checkpoint_or_of_a_removal(
    lane: Lane, point: str, left: list[str], resumes: int
) -> None:
    (lane.folder / point).touch()
    outcome = lane.outcome(toy(lane, 1, "keep", env={FAILPOINTS: str(lane.folder)}))
    assert (outcome["cause"], outcome["signal"]) == ("signal", 9), lane.log(1)
    run = lane.run_dir(1)
    assert steps(run) == left, "and nothing half made or half removed, for the seal to cover"
    assert verify_manifest(run) == []
    assert all(verify_checkpoint(run.checkpoints / step, key="key-1")[0] for step in left)
    second = toy(lane, 1, "keep", attempt=2, checkpoints=[str(run.checkpoints)])
    lane.start(second)
    wait_for(lambda: lane.run_dir(1, 2).manifest.exists(), "the second attempt to end")
    assert f"begins at {resumes}" in lane.run_dir(1, 2).log.read_text()
    assert steps(lane.run_dir(1, 2)) == ["5", "6"]
    lane.wait(1, lambda r: r["clear"], "all to be gone")


def test_a_kind_may_refuse_a_checkpoint_and_go_on_from_one_before_it(lane: Lane) -> None:
    assert lane.outcome(toy(lane, 1, "keep"))["cause"] == "ok"
    (lane.folder / "picky").write_text("5")
    lane.start(toy(lane, 1, "keep", attempt=2, checkpoints=[str(lane.run_dir(1).checkpoints)]))
    wait_for(lambda: lane.run_dir(1, 2).manifest.exists(), "the second attempt to end")
    assert "begins at 5" in lane.run_dir(1, 2).log.read_text()
    lane.wait(1, lambda r: r["clear"], "all to be gone")


def test_a_checkpoint_of_another_job_is_not_taken(ctx: RunContext, tmp_path: Path) -> None:
    with ctx.save_checkpoint(1) as folder:
        (folder / "state").write_text("one")
    other = RunContext(ctx.dir, {"job": 2, "attempt": 1, "key": "other"}, None)
    assert other.load_checkpoint() is None


# Inline.


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_inline_is_the_same_without_processes(home: Home) -> None:
    before, here = dict(os.environ), Path.cwd()
    run, outcome = run_inline(Toy(), ToyParams(), home=home)
    assert outcome["cause"] == "ok"
    assert outcome["inline"] is True
    assert verify_manifest(run) == []
    assert read_json(run.manifest)["outcome"]["rows"] == {"cells": 3}
    assert (dict(os.environ), Path.cwd()) == (before, here)


def test_inline_is_judged_likewise(home: Home) -> None:
    assert run_inline(Toy(), ToyParams(rows=1), home=home)[1]["cause"] == "incomplete"
    assert run_inline(Toy(), ToyParams(what="blind"), home=home)[1]["cause"] == "check-cannot-fail"
    with pytest.raises(ValueError, match="a plain mistake"):
        run_inline(Toy(), ToyParams(what="raise"), home=home)
    sealed = [read_json(p)["outcome"]["cause"] for p in home.runs.glob("*/manifest.json")]
    assert sorted(sealed) == ["check-cannot-fail", "error", "incomplete"]


def test_a_debugger_stops_inside_a_kind(tmp_path: Path) -> None:
    code = (
        f"from {THIS} import Toy, ToyParams\nfrom lanes.inline import run_inline\nfrom core.home import Home\n"
        f"from pathlib import Path\nrun_inline(Toy(), ToyParams(), home=Home(Path({str(tmp_path)!r})))\n"
    )
    (tmp_path / "go.py").write_text(code)
    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "def do_ok" in text) + 1
    commands = f"import {THIS}\nbreak {Path(__file__)}:{line}\ncontinue\nprint('STOPPED', ctx.job)\nquit\n"
    done = subprocess.run(
        [sys.executable, "-m", "pdb", str(tmp_path / "go.py")],
        input=commands,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert "STOPPED 0" in done.stdout, done.stdout + done.stderr


def test_progress_is_written_at_most_ten_times_a_second(ctx: RunContext) -> None:
    path = ctx.dir.path / "progress.json"
    ctx.progress(1, 1000)
    first = path.stat().st_mtime_ns
    for done in range(2, 50):
        ctx.progress(done, 1000)
    assert path.stat().st_mtime_ns == first
    ctx.progress(1000, 1000)
    assert wait_for(lambda: read_json(path)["done"] == 1000, "the last step", deadline_s=5)
