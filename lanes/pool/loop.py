"""Cells, one after another, in a warm worker. This module comes from the snapshot that the kind comes from.

Everything that is the same for all cells of a batch is done once; what is left for each is a check of its parameters,
a small context, the kind's own `run`, and a note of how it ended. Notes and rows are written every few milliseconds.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import io
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.failpoint import failpoint
from core.fsio import read_json
from core.kind import Kind
from lanes.agent.safe import clean
from lanes.child import environment, outcome_of
from lanes.pool import words as w
from lanes.pool.columns import Columns
from lanes.pool.context import CellContext, Shared
from lanes.pool.folder import Spare
from lanes.pool.inputs import Inputs
from lanes.pool.keep import NOTHING, Ended, Keeper
from lanes.pool.opens import Watch
from lanes.pool.words import Words

BUDGET_S = 0.25  # after this no new cell is begun: counts and first errors are to be seen soon
FLUSH_S = 0.01  # what is finished is on disk after this at the latest
_QUICK_NS = 20_000  # a cell that took less has made no file
_TICK_NS = 20_000_000  # a folder's time of change is no finer than this

CellRow = tuple[int, int, str, str]  # job, attempt, key, parameters as JSON
Order = Mapping[str, Any]  # a batch as the pool sends it


class Loop:
    """What lives as long as the worker: the kind, loaded once, and what is known of files.

    Raises:
        BadInput: the kind is not the one that was snapshotted.
        Exception: whatever importing it raises.
    """

    def __init__(self, setup: Mapping[str, Any], words: Words) -> None:
        self.words = words
        self.folder = Path(setup["folder"])
        self.scratch = self.folder / "work"
        self.kind_path = Path(setup["kind_path"])
        self.watch = Watch(self.kind_path, self.folder, tuple(setup.get("extra") or ()))
        self.inputs = Inputs()
        self.spare = Spare(str(setup["spare"]))
        self._specs: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._envs: dict[str, bytes] = {}
        self._ruined = ""  # why this process can run no more cells
        os.chdir(self.scratch)
        self.scratch_fd = os.open(self.scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.scratch_at = os.fstat(self.scratch_fd).st_mtime_ns
        self.doubtful = 0  # until then the folder may have changed and its time not
        self.pid = os.getpid()
        _print_to_descriptors()
        self.watch.install()
        self.watch.on = True
        try:
            self.kind = self._load(str(setup["entry"]))
            self.columns = Columns(self.kind.tables())
        finally:
            self.watch.on = False
        faulthandler.enable(2, all_threads=False)  # a crash says in the batch's log where it happened
        self.late = _LateFlush()
        # What is loaded now stays: the collector need not look at it for every few hundred cells.
        gc.collect()
        gc.freeze()
        words.view[w.READY] = 1

    def run(self, order: Order) -> dict[str, Any]:
        """Run a batch. Returns plain values only: what unpickles them may have other code than we."""
        cells: Sequence[CellRow] = list(zip(*order["cells"], strict=True))
        digest = str(order["spec_digest"])
        if order.get("spec") is not None:
            self._specs[digest] = (json.loads(order["spec"]), order["spec"])
        spec, spec_blob = self._specs[digest]
        words = self.words.view
        if self._ruined:  # a batch that was sent before the pool knew
            return {**NOTHING, "back": [cell[0] for cell in cells], "broken": self._ruined}
        words[w.CELL], words[w.DONE] = -1, 0
        words[w.BATCH] = int(order["serial"])
        begun = time.monotonic()
        keeper = Keeper(order, cells, self.columns, lambda: self.inputs.stale(spec.get("inputs") or ()), self.spare)
        try:
            if keeper.begin(spec_blob, self._env(digest, order, spec)):
                failpoint("pool.begun")
                self.watch.ours = str(order["folder"]) + "/"
                _Batch(self, order, digest, spec, cells, keeper).run()
        except Exception as error:
            # What a cell did to the process (closed stdout, removed its folder) may only show after it.
            keeper.fail(words[w.CELL], error)
            self._ruined = keeper.broken
        finally:
            words[w.BATCH] = 0
        return keeper.end(time.monotonic() - begun)

    def prepare(self) -> None:
        """Do ahead what the next batch needs. What cannot be done now is done then, and complained of."""
        with contextlib.suppress(OSError):
            self.spare.make(next(reversed(self._envs.values()), None))

    def tidy(self) -> None:
        """A cell wrote files or went elsewhere: the next one finds an empty folder again."""
        self.watch.wrote = False
        os.chdir(self.scratch)
        with os.scandir(self.scratch) as entries:
            left = list(entries)
        for entry in left:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with contextlib.suppress(FileNotFoundError):  # a program that still runs tidied up as well
                    os.unlink(entry.path)
        found = os.fstat(self.scratch_fd).st_mtime_ns
        if left or found != self.scratch_at:
            self.scratch_at, self.doubtful = found, time.monotonic_ns() + _TICK_NS

    def _load(self, entry: str) -> Kind:
        module_name, _, class_name = entry.partition(":")
        module = importlib.import_module(module_name)
        cls = getattr(module, class_name)
        for name in {module_name, cls.__module__}:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if os.path.commonpath([os.path.realpath(file), os.path.realpath(self.kind_path)]) != os.path.realpath(
                self.kind_path
            ):
                raise BadInput(
                    f"the kind's module {name} comes from {file or 'nowhere'} and not from its snapshot "
                    f"({self.kind_path})",
                    hint="submit again, so that a new snapshot is made",
                )
        kind = cls()
        if not isinstance(kind, Kind):
            raise BadInput(f"{entry} is no core.kind.Kind", hint="repair the package that registers it")
        return kind

    def _env(self, digest: str, order: Order, spec: Mapping[str, Any]) -> bytes:
        """env.json: the same for all batches of a spec in this worker."""
        if digest not in self._envs:
            found = environment({**spec, "grant": dict(order["grant"]), "kind_path": str(self.kind_path)})
            found["pid"] = os.getpid()
            self._envs[digest] = (json.dumps(found, indent=1, sort_keys=True, default=str) + "\n").encode()
        return self._envs[digest]


class _Batch:
    """One batch while it runs."""

    def __init__(
        self,
        loop: Loop,
        order: Order,
        digest: str,
        spec: Mapping[str, Any],
        cells: Sequence[CellRow],
        keeper: Keeper,
    ) -> None:
        self.loop = loop
        self.digest = digest
        self.spec = spec
        self.cells = cells
        self.keeper = keeper
        self.nonce = str(order["nonce"])
        self.budget = float(order.get("budget_s") or BUDGET_S)
        self.demanded = spec.get("expect") or {}
        self.stops: dict[int, str] = {}
        self.stop_seen = 0
        self.tainted = loop.watch.undeclared(digest, spec)
        told = {**spec, "grant": order["grant"], "lane": order["lane"], "kind_path": str(loop.kind_path)}
        self.shared = Shared(told, order["grant"], loop.columns, loop.scratch, self.stopped)

    def run(self) -> None:
        if len(self.cells) > 1:
            self.loop.late.watch(self.keeper)
        try:
            self._run()
        finally:
            self.loop.late.watch(None)

    def _run(self) -> None:
        # Every line here runs up to 100,000 times a second: names are local, and nothing is done "to be safe".
        loop, keeper, shared = self.loop, self.keeper, self.shared
        watch, view, clock = loop.watch, loop.words.view, time.monotonic_ns
        work, validate = loop.kind.run, loop.kind.Params.model_validate
        given = json.loads(f"[{','.join([cell[3] for cell in self.cells])}]")  # at once: a third of the time
        flush_out, flush_err, seek, here = sys.stdout.flush, sys.stderr.flush, os.lseek, os.SEEK_CUR
        finished = keeper.finished.append
        demanded = bool(self.demanded.get("rows") or self.demanded.get("last_step") is not None)
        state, stop, cell_word, since = w.DONE, w.STOP, w.CELL, w.SINCE
        begun = clock()
        deadline, flush_at = begun + int(self.budget * 1e9), begun + int(FLUSH_S * 1e9)
        printed = 0
        mine, who, changed, scratch = loop.pid, os.getpid, os.fstat, loop.scratch_fd
        for index, (job, attempt, key, _) in enumerate(self.cells):
            now = clock()
            if now >= flush_at:
                keeper.flush()
                flush_at = now + int(FLUSH_S * 1e9)
            if (now >= deadline and index) or keeper.broken:
                break
            if view[stop] != self.stop_seen:
                self._read_stops()
            if job in self.stops:
                finished(Ended(job, attempt, *self._stopped(job, "cancelled before it began")))
                continue
            view[since] = now
            view[cell_word] = index
            error: BaseException | None = None
            ctx: CellContext | None = None
            watch.on = True
            try:
                ctx = CellContext(shared, job, attempt, key, validate(given[index]))
                work(ctx)
            except BaseException as caught:
                error = caught
            if who() != mine:
                os._exit(_exit_code(error))  # the child of a cell that forked: everything that follows is its parent's
            watch.on = False
            if watch.fresh:
                self.tainted = watch.undeclared(self.digest, self.spec)
            if error is not None or self.tainted or demanded or self.stops or view[stop] != self.stop_seen:
                ended = self._judge(index, ctx, error, clock() - now)
            elif ctx is not None and ctx.expected is not None:
                ended = self._judge(index, ctx, None, clock() - now)
            else:
                ended = Ended(job, attempt, None, ctx.rows, ctx.steps)  # type: ignore[union-attr]
            flush_out()
            flush_err()
            at = seek(1, 0, here)
            if at != printed:
                keeper.printed(job, printed, at)
                printed = at
            finished(ended)
            view[cell_word] = -1
            view[state] = index + 1
            # Programs and libraries in C write unseen; looking would take longer than the shortest cells do.
            if watch.wrote or (
                clock() - now > _QUICK_NS and (changed(scratch).st_mtime_ns != loop.scratch_at or now < loop.doubtful)
            ):
                loop.tidy()
        keeper.flush()

    def stopped(self, job: int) -> bool:
        if self.loop.words.view[w.STOP] != self.stop_seen:
            self._read_stops()
        return job in self.stops

    def _read_stops(self) -> None:
        self.stop_seen = self.loop.words.view[w.STOP]
        said = read_json(self.loop.folder / "stop.json", {})
        self.stops = {int(job): str(cause) for job, cause in (said.get(self.nonce) or {}).items()}

    def _stopped(self, job: int, message: str) -> tuple[tuple[Any, ...], None, None]:
        cause = self.stops[job]
        return ("cancelled", cause, message if cause == "cancelled" else "stopped as asked", None, ()), None, None

    def _judge(self, index: int, ctx: CellContext | None, error: BaseException | None, took: int) -> Ended:
        """How a cell ended about which there is something to say."""
        job, attempt = self.cells[index][:2]
        seconds = took / 1e9
        said, _code = outcome_of(error)
        cause, message = str(said["cause"]), clean(str(said["message"]))
        steps = ctx.steps if ctx is not None else None
        if error is not None and cause not in ("ok", "preempted") and not hasattr(error, "program"):
            print(f"--- job {job}, attempt {attempt}: {message}\n{said.get('traceback', '')}", file=sys.stderr, end="")
        if self.stopped(job):
            (state, cause, message, _, _), rows, _ = self._stopped(job, "cancelled")
            return Ended(job, attempt, (state, cause, message, seconds, self.tainted), rows, steps)
        if cause == "ok" and ctx is not None:
            missing = ctx.unmet(self.demanded)
            if not missing:
                end = ("succeeded", "ok", "", seconds, self.tainted) if self.tainted else None
                return Ended(job, attempt, end, ctx.rows, steps)
            cause, message = "incomplete", "exit 0, but " + "; ".join(missing)
        return Ended(job, attempt, ("failed", cause, message, seconds, self.tainted), None, steps)


def _exit_code(error: BaseException | None) -> int:
    """What whoever waits for a child that a cell forked should see."""
    if isinstance(error, SystemExit):
        return error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None)
    return int(error is not None)


class _LateFlush:
    """Writes down what is finished while a long cell runs; a thread that sleeps when there is no batch."""

    def __init__(self) -> None:
        self._keeper: Keeper | None = None
        self._wake = threading.Event()
        threading.Thread(target=self._run, name="late-flush", daemon=True).start()

    def watch(self, keeper: Keeper | None) -> None:
        self._keeper = keeper
        if keeper is None:
            self._wake.clear()
        else:
            self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(FLUSH_S)
            keeper = self._keeper
            if keeper is not None:
                keeper.flush_if_late(FLUSH_S)


def _print_to_descriptors() -> None:
    """Ray puts streams of its own in place of these; cells print into the batch's log, whatever 1 and 2 then are."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        raw = io.FileIO(number, "w", closefd=False)
        buffered = io.BufferedWriter(raw)
        stream = io.TextIOWrapper(buffered, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
