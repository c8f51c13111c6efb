"""The context in which a kind works: inputs, progress, step rows, results, checkpoints, the wish to stop.

Everything it writes lies in the run directory and is whole or absent. It imports neither pydantic nor Arrow until a
kind needs them: a command that runs for a moment should not wait for them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from core.errors import BadInput
from core.failpoint import failpoint
from core.fsio import fsync_dir, read_json, safe_join, write_atomic, write_json
from core.rundir import (
    KEEP_LEAST,
    Checkpoint,
    RunDir,
    look_at_checkpoints,
    seal_checkpoint,
    superseded_checkpoints,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from lanes.rows import Tables

PROGRESS = "progress.json"
_PROGRESS_EVERY_S = 0.1


class Leaving(BaseException):
    """`ctx.leave()`: not an Exception, so that no kind's `except Exception` swallows it."""


class RunContext:
    """What core.kind.Context promises, on one run directory.

    Args:
        run: the attempt's folder.
        spec: its frozen spec.
        params: the kind's parameters, parsed.
        schemas: the kind's result tables; called when the first row comes.
    """

    def __init__(
        self,
        run: RunDir,
        spec: Mapping[str, Any],
        params: Any,
        schemas: Callable[[], Mapping[str, pa.Schema]] = dict,
        *,
        work: Path | None = None,
    ) -> None:
        self.dir = run
        self.raw = spec
        self.params = params
        self.job = int(spec["job"])
        self.attempt = int(spec["attempt"])
        self.key = str(spec.get("key") or "")
        grant = spec.get("grant") or {}
        self.cores = int(grant.get("cores") or 1)
        self.gpus = tuple(int(g) for g in grant.get("gpus") or ())
        self.work = work or run.work
        self.artifacts = run.artifacts
        self._inputs = {str(i["name"]) for i in spec.get("inputs") or ()}
        self._absent = {str(i["name"]): i for i in spec.get("absent") or ()}
        self._schemas = schemas
        self._tables: Tables | None = None
        self._plan: dict[str, Any] = {"rows": {}, "last_step": None, "artifacts": []}
        self._metrics_fd = -1
        self._last_step: int | None = None
        self._begun = time.monotonic()
        self._progress_at = -1.0
        self._progress_waits: dict[str, Any] | None = None
        self._stopping = False

    def input(self, name: str) -> Path:
        if name in self._absent:
            maker = (self._absent[name].get("made") or {}).get("label")
            said = f"the job that makes it{f' ({maker})' if maker else ''} did not succeed"
            raise BadInput(f"the input {name!r} is absent: {said}", hint="ask ctx.has_input before")
        if name not in self._inputs:
            known = ", ".join(sorted(self._inputs)) or "none"
            raise BadInput(f"no input is called {name!r}", hint=f"declared are: {known}")
        return self.dir.inputs / name

    def has_input(self, name: str) -> bool:
        return name in self._inputs

    def expect(
        self, *, rows: Mapping[str, int] | None = None, last_step: int | None = None, artifacts: Sequence[str] = ()
    ) -> None:
        self._plan["rows"].update({str(k): int(v) for k, v in (rows or {}).items()})
        if last_step is not None:
            self._plan["last_step"] = int(last_step)
        for name in artifacts:
            self._artifact(name)
            if name not in self._plan["artifacts"]:
                self._plan["artifacts"].append(name)
        write_json(self.dir.plan, self._plan, sync=False)

    def log(self, message: str) -> None:
        print(message, flush=True)

    def progress(self, done: float, total: float, note: str = "") -> None:
        self._progress_waits = {"done": done, "total": total, "note": note}
        now = time.monotonic()
        # The last step is always shown; those between at most ten times a second.
        if now - self._progress_at >= _PROGRESS_EVERY_S or done >= total:
            self._progress_at = now
            self._write_progress()

    def metrics(self, step: int, **values: float | int | str) -> None:
        step = int(step)
        if self._last_step is not None and step < self._last_step:
            raise BadInput(f"step {step} came after step {self._last_step}", hint="steps never go backwards")
        row: dict[str, float | int | str] = {"step": step, "t": round(time.monotonic() - self._begun, 4)}
        for name, value in values.items():
            row[name] = _plain(name, value)
        if self._metrics_fd < 0:
            self._metrics_fd = os.open(self.dir.metrics, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.write(self._metrics_fd, (json.dumps(row) + "\n").encode())
        self._last_step = step

    def results(self, table: str, rows: Sequence[Mapping[str, Any]] | pa.Table) -> None:
        if self._tables is None:
            from lanes.rows import Tables

            self._tables = Tables(self.dir.results, self._schemas())
        self._tables.append(table, rows)

    def artifact(self, name: str) -> Path:
        path = self._artifact(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def save_checkpoint(self, step: int, *, keep: int | None = None, **meta: Any) -> Iterator[Path]:
        if keep is not None and keep < KEEP_LEAST:
            raise BadInput(f"keep={keep} checkpoints", hint=f"keep {KEEP_LEAST} or more: the newest may be damaged")
        step = int(step)
        tmp = self._aside(step, "tmp")
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir(parents=True)
        try:
            yield tmp
            failpoint("child.in_checkpoint")
            seal_checkpoint(
                tmp,
                self.dir.checkpoints / str(step),
                step=step,
                key=self.key,
                attempt=self.attempt,
                meta=meta,
                old=self._aside(step, "old"),
                written=lambda: failpoint("child.in_checkpoint_seal"),
            )
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
        if keep is not None:
            # Only now, and only what is older than so many that verify, the one just written among them.
            for path in superseded_checkpoints(self.dir.checkpoints, keep=keep, key=self.key):
                self._remove_checkpoint(path)

    def load_checkpoint(self) -> Checkpoint | None:
        return next(self.checkpoints(), None)

    def checkpoints(self) -> Iterator[Checkpoint]:
        earlier = [Path(p) for p in self.raw.get("checkpoints") or ()]
        for found, why in look_at_checkpoints([self.dir.checkpoints, *earlier], key=self.key):
            if found is None:
                self.log(f"lab: a checkpoint was passed over: {why}")
            else:
                yield found

    @property
    def stopping(self) -> bool:
        return self._stopping

    def leave(self) -> NoReturn:
        raise Leaving

    # For the process around the kind, not for kinds.

    def stop(self, *_: object) -> None:
        """The warn signal came."""
        self._stopping = True

    def listen(self) -> None:
        """Let SIGTERM set `stopping`."""
        signal.signal(signal.SIGTERM, self.stop)

    def finish(self) -> dict[str, int]:
        """Close what is open. Returns the number of result rows by table."""
        if self._progress_waits is not None:
            with contextlib.suppress(OSError):
                self._write_progress()
        if self._metrics_fd >= 0:
            os.close(self._metrics_fd)
            self._metrics_fd = -1
        sys.stdout.flush()
        return self._tables.close() if self._tables is not None else {}

    def _write_progress(self) -> None:
        write_atomic(self.dir.path / PROGRESS, json.dumps(self._progress_waits), sync=False)
        self._progress_waits = None

    def _remove_checkpoint(self, path: Path) -> None:
        """By its name first, so that wherever this ends, what is still called a checkpoint is a whole one."""
        old = self._aside(int(path.name), "old")
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
        fsync_dir(path.parent)
        failpoint("child.in_checkpoint_removal")
        shutil.rmtree(old, ignore_errors=True)

    def _aside(self, step: int, what: str) -> Path:
        """Where a checkpoint lies while it is made or removed: nothing reads there."""
        return self.dir.checkpoints / f".{step}.{os.getpid()}.{what}"

    def _artifact(self, name: str) -> Path:
        try:
            return safe_join(self.dir.artifacts, name)
        except ValueError as error:
            raise BadInput(f"artifact: {error}") from error


def load_spec(run: RunDir) -> dict[str, Any]:
    spec = read_json(run.spec)
    if not isinstance(spec, dict):
        raise BadInput(f"{run.spec}: no readable spec")
    return spec


def _plain(name: str, value: Any) -> float | int | str:
    """A number or text as JSON knows it: NumPy and torch scalars become Python's."""
    if isinstance(value, str | bool | int | float):
        return value
    item = getattr(value, "item", None)
    plain = item() if callable(item) else value
    if not isinstance(plain, str | bool | int | float):
        raise BadInput(f"the metric {name!r} is a {type(value).__name__}", hint="pass numbers or text")
    return plain
