"""How batches end that their worker did not end, and when a worker must be ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from core.states import AttemptState, Cause
from lanes.pool.crew import Running, Worker
from lanes.pool.recover import last_words
from lanes.pool.spool import end_of
from lanes.pool.types import Batch, BatchDone, CellEnd, TableBytes

_START_DEATHS = 3  # so many workers of a crew may die in a row before their kind was loaded

Why = tuple[AttemptState, Cause, str]


def over(run: Running, now: float) -> Why | None:
    """Why this batch's worker must be ended, if it must."""
    worker, spec = run.worker, run.batch.spec
    assert worker is not None
    found = worker.words.running(run.serial)
    if found is None or found[0] >= len(run.batch.cells):
        return None
    job = run.batch.cells[found[0]].job
    if job in run.stops:
        asked, cause = run.stops[job]
        since = max(asked, found[1] / 1e9)
        if now - since > float((spec.get("limits") or {}).get("grace_s") or 0.0):
            message = "cancelled" if cause == Cause.CANCELLED else "stopped as asked"
            return AttemptState.CANCELLED, Cause(cause), message
    if run.time_limit is not None and time.monotonic() - found[1] / 1e9 > run.time_limit:
        sentence = f"it ran longer than its time limit of {run.time_limit:g} s"
        return AttemptState.FAILED, Cause.TIME_LIMIT, sentence
    most = (spec.get("needs") or {}).get("memory_mb")
    if most and (used := worker.rss_mb()) > most:
        sentence = f"its worker held {used:.0f} MiB of memory, more than the {most} MiB that it was granted"
        return AttemptState.FAILED, Cause.MEMORY, sentence
    return None


def running_end(run: Running, worker: Worker, death: Callable[[], Why]) -> CellEnd | None:
    """How the cell ended that ran when the worker died; None when none did."""
    found = worker.words.running(run.serial)
    if found is None or found[0] >= len(run.batch.cells):
        return None
    cell = run.batch.cells[found[0]]
    state, cause, message = run.killed or death()
    return CellEnd(cell.job, cell.attempt, state, cause, message, time.monotonic() - found[1] / 1e9)


def death(folder: Path, *, oom: bool) -> Why:
    """What can be said of a worker that nobody ended."""
    if oom:
        sentence = "killed by the machine's out-of-memory killer: it has too little memory for what runs on it"
        return AttemptState.FAILED, Cause.HOST_MEMORY, sentence
    fatal = last_words(folder)
    if fatal:
        return AttemptState.FAILED, Cause.SIGNAL, f"it ended its worker: {fatal}; see the log"
    return AttemptState.LOST, Cause.RUNNER_DIED, "its worker died while it ran"


def never_ready(batch: Batch, deaths: int, error: BaseException | None, *, late: bool) -> BatchDone:
    """Its worker ended before it had loaded the kind."""
    if late:
        return whole(batch, Cause.SETUP, "its worker was not ready within the limit of time for setup", died=True)
    if deaths >= _START_DEATHS:
        said = str(error or "").strip().splitlines()
        why = f"the worker died {deaths} times while it loaded the kind {batch.spec['entry']}"
        return whole(batch, Cause.SETUP, f"{why}: {said[0]}" if said else why, died=True)
    back = [c.job for c in batch.cells]
    return BatchDone(batch.nonce, [], [], back, {}, 0.0, None, worker_died=True)


class Asked(Protocol):
    """A batch that was given to a pool, and which of its cells are to stop: job -> (when it was asked, cause)."""

    @property
    def batch(self) -> Batch: ...

    @property
    def stops(self) -> Mapping[int, tuple[float, str]]: ...


def not_begun(run: Asked) -> BatchDone:
    """No worker has seen it."""
    ends = [
        CellEnd(c.job, c.attempt, AttemptState.CANCELLED, Cause(run.stops[c.job][1]), _stopped(run.stops[c.job][1]))
        for c in run.batch.cells
        if c.job in run.stops
    ]
    back = [c.job for c in run.batch.cells if c.job not in run.stops]
    return BatchDone(run.batch.nonce, [], ends, back, {}, 0.0, None)


def whole(batch: Batch, cause: Cause, message: str, *, died: bool = False) -> BatchDone:
    """Every cell ended in the same way, without having run."""
    state = AttemptState.LOST if cause is Cause.START_LOST else AttemptState.FAILED
    ends = [CellEnd(c.job, c.attempt, state, cause, message, None, ()) for c in batch.cells]
    return BatchDone(batch.nonce, [], ends, [], {}, 0.0, None, worker_died=died)


def done_of(batch: Batch, answer: Mapping[str, Any]) -> BatchDone:
    """What a worker said."""
    return BatchDone(
        nonce=batch.nonce,
        ok=answer["ok"],
        ends=[end_of(row) for row in answer["ends"]],
        back=answer["back"],
        tables={name: TableBytes(*parts) for name, parts in answer["tables"].items()},
        seconds=answer["seconds"],
        manifest=answer["manifest"],
        no_room=bool(answer.get("no_room")),
    )


def _stopped(cause: str) -> str:
    return "cancelled before it began" if cause == Cause.CANCELLED else "stopped as asked"
