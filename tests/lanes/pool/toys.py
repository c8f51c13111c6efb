"""A pooled kind that does whatever its parameters say, and a bench to run its cells on."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import queue
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.digests import Digests
from core.fsio import sha256_file
from core.home import Home
from core.kind import Kind
from core.kindcode import look_at_kind
from core.spec import CodeRef, JobSpec, Limits, Needs
from lanes.pool.pool import Pool
from lanes.pool.types import Batch, BatchDone, Cell, CellEnd

SOURCE = '''
import json, os, sys, time
from pathlib import Path
from core.errors import CheckCannotFail, JobFailed
from core.kind import Kind, Params

THREADS_AT_IMPORT = os.environ.get("OMP_NUM_THREADS")
WORD = "one"

class ToyParams(Params):
    do: str = "row"
    x: int = 0
    path: str = ""

class Toy(Kind):
    name = "pooltoy"
    summary = "does as it is told"
    Params = ToyParams
    pooled = True

    def tables(self):
        import pyarrow as pa
        return {
            "t": pa.schema([
                pa.field("x", pa.int32(), nullable=False), pa.field("word", pa.string()), pa.field("y", pa.float64()),
            ], metadata={"lab.headline": "x,word"}),
            "lists": pa.schema([pa.field("values", pa.list_(pa.float64()))]),
        }

    def run(self, ctx):
        p = ctx.params
        getattr(self, "do_" + p.do)(ctx, p)

    def row(self, ctx, word=None, **more):
        ctx.results("t", [{"x": ctx.params.x, "word": word, **more}])

    def do_row(self, ctx, p):
        self.row(ctx, f"w{p.x}", y=p.x / 3)

    def do_nothing(self, ctx, p):
        pass

    def do_error(self, ctx, p):
        raise ValueError(f"odd {p.x}")

    def do_failed(self, ctx, p):
        self.row(ctx)
        raise JobFailed("it is not good", hint="look again")

    def do_cannot_fail(self, ctx, p):
        raise CheckCannotFail("the control passed")

    def do_leave(self, ctx, p):
        ctx.leave()

    def do_quit(self, ctx, p):
        sys.exit(p.x)

    def do_print(self, ctx, p):
        print(f"hello {p.x}")
        os.write(1, b"from below\\n")
        ctx.log("logged")
        print("to stderr", file=sys.stderr)
        self.row(ctx)

    def do_wait(self, ctx, p):
        """Say who we are, then wait for a file."""
        Path(p.path + ".new").write_text(str(os.getpid()))
        os.rename(p.path + ".new", p.path + ".here")
        while not os.path.exists(p.path):
            time.sleep(0.005)
        self.row(ctx, "waited")

    def do_polite(self, ctx, p):
        Path(p.path).write_text("")
        while not ctx.stopping:
            time.sleep(0.005)
        self.row(ctx)

    def do_spin(self, ctx, p):
        Path(p.path).write_text("")
        while True:
            pass

    def do_slow(self, ctx, p):
        time.sleep(0.03)
        self.row(ctx)

    def do_exit(self, ctx, p):
        os._exit(3)

    def do_crash(self, ctx, p):
        import ctypes
        print("before", flush=True)
        ctypes.string_at(0)

    def do_eat(self, ctx, p):
        Path(p.path).write_text("")
        self.kept = bytearray(b"x") * (900 << 20)
        time.sleep(600)

    def do_text_for_number(self, ctx, p):
        self.row(ctx, "good")
        ctx.results("t", [{"x": "many"}])

    def do_no_value(self, ctx, p):
        ctx.results("lists", [{"values": [1.0]}])
        ctx.results("t", [{"word": "x is missing"}])

    def do_other_column(self, ctx, p):
        ctx.results("t", [{"x": 1, "z": 2}])

    def do_other_table(self, ctx, p):
        ctx.results("u", [{"x": 1}])

    def do_reuse(self, ctx, p):
        """One row and one array for everything, changed between calls."""
        import numpy as np
        row, values = {}, np.zeros(2)
        for i in range(3):
            row["x"] = np.int32(i)
            row["word"] = f"{i}"
            values[:] = i
            ctx.results("t", [row])
            ctx.results("lists", [{"values": values}])

    def do_arrow(self, ctx, p):
        import pyarrow as pa
        ctx.results("t", [{"x": 1}])
        ctx.results("t", pa.table({"x": [2, 3], "word": ["a", None]}))

    def do_read(self, ctx, p):
        self.row(ctx, Path(p.path).read_text())

    def do_input(self, ctx, p):
        self.row(ctx, ctx.input("data").read_text())

    def do_spoil_input(self, ctx, p):
        path = ctx.input("data")
        self.row(ctx, path.read_text())
        path.write_text("else")

    def do_scratch(self, ctx, p):
        there = sorted(os.listdir(".")) + sorted(os.listdir(ctx.work))
        (ctx.work / "left.txt").write_text("left")
        self.row(ctx, json.dumps([there, (ctx.work / "left.txt").read_text()]))

    def do_chdir(self, ctx, p):
        os.chdir("/")

    def do_child(self, ctx, p):
        import subprocess
        subprocess.run(["/bin/sh", "-c", "echo left > child.txt"], check=True)

    def do_in_c(self, ctx, p):
        import ctypes
        libc = ctypes.CDLL(None)
        libc.close(libc.creat(b"c.txt", 0o644))

    def do_fork(self, ctx, p):
        pid = os.fork()
        if pid == 0 and p.path:
            raise RuntimeError("in the child")
        if pid:
            os.waitpid(pid, 0)
            print(f"fork {p.x}")
        self.row(ctx)

    def do_planned(self, ctx, p):
        ctx.expect(rows={"t": 2})
        for _ in range(p.x):
            self.row(ctx)

    def do_steps(self, ctx, p):
        ctx.expect(last_step=3)
        for step in range(p.x + 1):
            ctx.progress(step, p.x)
            ctx.metrics(step, loss=1.0 / (step + 1))
        self.row(ctx)

    def do_artifact(self, ctx, p):
        ctx.artifact("picture.png")

    def do_checkpoint(self, ctx, p):
        with ctx.save_checkpoint(1):
            pass

    def do_close(self, ctx, p):
        self.row(ctx)
        sys.stdout.close()

    def do_tell(self, ctx, p):
        import core, lanes.pool.loop
        self.row(ctx, json.dumps({
            "word": WORD, "file": __file__, "core": core.__file__, "loop": lanes.pool.loop.__file__,
            "threads": THREADS_AT_IMPORT, "env": dict(os.environ), "path": sys.path, "cwd": os.getcwd(),
            "cores": ctx.cores, "gpus": ctx.gpus, "key": ctx.key, "attempt": ctx.attempt, "raw": ctx.raw["params"],
            "pid": os.getpid(),
        }, default=str))
'''

Put = Callable[..., Cell]


class Bench:
    """A home with a pool, and the inbox that the controller would have."""

    lane = "local"

    def __init__(self, home: Home, folder: Path) -> None:
        self.home = home
        self.folder = folder
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.pool: Any = self.make_pool()
        self._numbers = itertools.count(1)
        self._specs = itertools.count(1)

    def make_pool(self) -> Any:
        return Pool(self.home, self.inbox.put)

    def snapshot(self, source: str = SOURCE, module: str = "pooltoys", cls: str = "Toy") -> CodeRef:
        """Put the kind in `source` into the home's store. Its file stays importable here, as a user's would."""
        (self.folder / f"{module}.py").write_text(source)
        if str(self.folder) not in sys.path:
            sys.path.insert(0, str(self.folder))
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        kind: Kind = getattr(importlib.import_module(module), cls)()
        snapshot = look_at_kind(kind, Digests(None), entry=f"{module}:{cls}")
        snapshot.store(self.home)
        return snapshot.ref

    def spec(self, ref: CodeRef, entry: str = "pooltoys:Toy", **changes: Any) -> dict[str, Any]:
        needs, limits = changes.pop("needs", {}), changes.pop("limits", {})
        spec = JobSpec(
            kind="pooltoy",
            entry=entry,
            kind_code=ref,
            python=sys.executable,
            needs=Needs(**needs),
            limits=Limits(**{"grace_s": 0.3, **limits}),
            **changes,
        )
        return spec.model_dump(mode="json")

    def cells(self, *dos: Mapping[str, Any] | str, first: int = 0) -> tuple[Cell, ...]:
        """One cell per word (or parameters), with job ids of their own in a row."""
        start = first or next(self._numbers) * 1000
        out = []
        for i, do in enumerate(dos):
            params = {"do": do, "x": i} if isinstance(do, str) else dict(do)
            out.append(Cell(start + i, 1, f"{start + i:064x}", json.dumps(params)))
        return tuple(out)

    def start(
        self, spec: dict[str, Any], cells: tuple[Cell, ...], *, time_limit: float | None = None, ahead: bool = False
    ) -> Batch:
        nonce = f"{next(self._specs):08x}"
        cores = spec["needs"]["cores"]
        batch = Batch(
            nonce=nonce,
            dir=f"{cells[0].job}-{nonce}",
            lane=self.lane,
            spec_digest=sha(spec),
            spec=spec,
            grant={"cores": cores, "memory_mb": spec["needs"]["memory_mb"], "gpus": [], "resources": []},
            cells=cells,
        )
        self.pool.start(batch, time_limit=time_limit, ahead=ahead)
        return batch

    def wait(self, batch: Batch) -> BatchDone:
        """The end of a batch, which must be the next to end."""
        done = self.next()
        assert done.nonce == batch.nonce
        jobs = [*done.ok, *(e.job for e in done.ends), *done.back]
        assert sorted(jobs) == [c.job for c in batch.cells], "each cell exactly once"
        assert done.ok == sorted(done.ok)
        return done

    def next(self, *, deadline_s: float = 60.0) -> BatchDone:
        """The next end of a batch, ticking as the controller does."""
        until = time.monotonic() + deadline_s
        while time.monotonic() < until:
            self.pool.tick()
            with contextlib.suppress(queue.Empty):
                what, lane, done = self.inbox.get(timeout=0.05)
                assert (what, lane) == ("batch", self.lane), (what, lane, done)
                return done  # type: ignore[no-any-return]
        raise AssertionError(f"none of {sorted(self.pool.in_flight())} ended")

    def run(self, spec: dict[str, Any], *dos: Mapping[str, Any] | str, **options: Any) -> BatchDone:
        return self.wait(self.start(spec, self.cells(*dos), **options))

    def path(self, batch: Batch) -> Path:
        return self.home.batches / batch.dir


def rows(done: BatchDone, table: str = "t") -> list[dict[str, Any]]:
    if table not in done.tables:
        return []
    found = pa.ipc.open_stream(done.tables[table].data).read_all()
    assert found.num_rows == done.tables[table].rows
    jobs = found.column("job").to_pylist()
    assert (done.tables[table].first, done.tables[table].last) == (min(jobs), max(jobs))
    assert found.schema.field("job").type == pa.int64()
    assert found.schema.field("attempt").type == pa.int32()
    return found.to_pylist()  # type: ignore[no-any-return]


def ends(done: BatchDone) -> list[tuple[int, str, str, str]]:
    """What did not go plainly well: the cell's place in its thousand, state, cause, message."""
    return [(e.job % 1000, str(e.state), str(e.cause), e.message) for e in done.ends]


def only(done: BatchDone) -> CellEnd:
    assert (done.ok, done.back, len(done.ends)) == ([], [], 1), done
    return done.ends[0]


def sha(spec: Mapping[str, Any]) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def declared(path: Path) -> dict[str, Any]:
    return {"name": "data", "path": str(path), "sha256": sha256_file(path), "size": path.stat().st_size}
