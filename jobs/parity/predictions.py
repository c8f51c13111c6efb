"""Statistics of predictions, batch by batch, beside those of the oracle for the same batch.

Of what a candidate gave back, never of labels; of its first call (training) and of the one that is judged
(inference); up to a limit. Guards that do not depend on scale say whether a batch can be a picture of anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.parity.adapter import Adapter, Array
from jobs.parity.exchange import load
from jobs.parity.schema import COMPARED, PATCHES
from jobs.parity.sides import PROGRAM, Report, Task
from jobs.parity.words import Phase, Role, Verdict
from kernels.metrics import PatchStatistics, Status, compare_statistics, patch_statistics, worst_status

Row = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """One batch whose statistics are kept."""

    task: Task
    phase: Phase
    index: int


def planned(adapter: Adapter, tasks: Sequence[Task], limit: int) -> list[Batch]:
    """The first `limit` batches of each candidate and phase.

    Those of functions that were called before go first: a prediction after training is what once came back empty.
    Known-bad candidates of ours are judged elsewhere and have no place here.
    """
    asked = [t for t in tasks if t.role in (Role.CANDIDATE, Role.CONTROL)]
    # A program starts anew for every batch: it has no call that went before.
    trained = {t.id for t in asked if adapter.warm(t.cell) is not None and t.target != PROGRAM}
    counted: dict[tuple[str, Phase], int] = {}
    out = []
    for task in sorted(asked, key=lambda t: t.id not in trained):
        for phase in (Phase.TRAIN, Phase.INFERENCE) if task.id in trained else (Phase.INFERENCE,):
            index = counted.get((task.candidate, phase), 0)
            if index < limit:
                counted[task.candidate, phase] = index + 1
                out.append(Batch(task, phase, index))
    order = list(dict.fromkeys(t.candidate for t in asked))
    return sorted(out, key=lambda b: order.index(b.task.candidate))


def rows(adapter: Adapter, batches: Sequence[Batch], report: Report, values: Array | None) -> list[Row]:
    """The rows of one report. `values` is None where nothing was looked at; its batches are then `missing`."""
    return [_row(adapter, b, _prediction(report, b.phase, values)) for b in batches if b.task is report.task]


def _prediction(report: Report, phase: Phase, values: Array | None) -> Array | None:
    if values is None or phase is Phase.INFERENCE:
        return values
    return load(report.before) if report.before is not None else None


def _row(adapter: Adapter, batch: Batch, prediction: Array | None) -> Row:
    cell = batch.task.cell
    if batch.phase is Phase.TRAIN:
        cell = adapter.warm(cell) or cell
    found = _statistics(prediction)
    right = patch_statistics(adapter.given(cell).reference.values)
    compared = compare_statistics(right, found)
    status = worst_status(compared)
    reason = _reason(status, right, found)
    told: Row = {
        **dict.fromkeys(PATCHES.names),
        "kernel": adapter.name,
        "candidate": batch.task.candidate,
        "role": str(batch.task.role),
        "case": batch.task.cell.case,
        "dtype": cell.dtype,
        "device": batch.task.device,
        "batch": cell.batch,
        "channels": cell.channels,
        "height": cell.height,
        "width": cell.width,
        "phase": str(batch.phase),
        "batch_index": batch.index,
        "verdict": str(Verdict.FAIL if reason else Verdict.PASS),
        "reason": reason or "as the oracle's, and not empty",
        "status": str(status),
    }
    for c in compared:
        assert c.name in COMPARED
        told |= {f"{c.name}_delta": c.delta, f"{c.name}_ratio": c.ratio, f"{c.name}_status": str(c.status)}
    if found is not None:
        names = ("count", "mean", "std", "rms", "maximum", "var_zero_mean", "contrast", "level")
        told |= {name: getattr(found, name) for name in names}
        told |= {f"patch_{what}": getattr(found, f"patch_{what}").tolist() for what in ("mean", "std", "min", "max")}
    return told


def _statistics(prediction: Array | None) -> PatchStatistics | None:
    if prediction is None or prediction.ndim < 2 or prediction.size == 0:
        return None
    return patch_statistics(prediction)


def _reason(status: Status, right: PatchStatistics, found: PatchStatistics | None) -> str:
    if status is not Status.OK:
        return f"{status} beside the oracle's batch"
    ill = found.unhealthy() if found is not None else "missing"
    return f"the batch is no picture: {ill}" if ill and not right.unhealthy() else ""
