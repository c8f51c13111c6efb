"""One parity run, from the plan to the settlement. Everything happens in this process's one thread; only the
sides run elsewhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.kind import Context
from jobs.parity import Params, gates, verdict
from jobs.parity.cases import TOLERANCE, Case, Cell
from jobs.parity.exchange import load, save
from jobs.parity.inputs import batch
from jobs.parity.schema import PARITY
from jobs.parity.settle import settle
from jobs.parity.sides import Report, Side, SideProcess, Task, plan
from jobs.parity.verdict import Judgement
from jobs.parity.words import Role, Verdict

FIGURE = "parity.png"
POLL_S = 0.02


def run(ctx: Context) -> None:
    """Fill the `parity` table, draw the figure, and say what it means."""
    params: Params = ctx.params
    sides = plan(params)
    total = sum(len(side.tasks) for side in sides) + 1 + len(gates.BAD_GATES)
    ctx.expect(rows={"parity": total}, artifacts=[FIGURE])
    ctx.log(f"{total} rows: {', '.join(f'{s.name} {len(s.tasks)}' for s in sides)}, gates {1 + len(gates.BAD_GATES)}")

    rows: list[dict[str, Any]] = []
    gallery = Gallery()
    for row in _rows(ctx, params, sides, gallery):
        rows.append(row)
        ctx.progress(len(rows), total, f"{row['candidate']} {row['case']} {row['batch']}×{row['channels']}")
        if row["verdict"] == Verdict.BLOCKED:
            ctx.log(f"{row['candidate']} {row['case']} {row['batch']}×{row['channels']} blocked: {row['error']}")

    rows.sort(key=lambda r: r["cell"])
    ctx.results("parity", rows)

    from jobs.parity.figure import draw  # matplotlib, only once the table is there

    draw(ctx.artifact(FIGURE), rows, gallery.best)
    settle(rows)


class Gallery:
    """Keeps the one picture that the figure shows: the worst of the cells that candidates were judged in."""

    def __init__(self) -> None:
        self.best: dict[str, Any] | None = None
        self._error = -1.0

    def consider(self, report: Report, judgement: Judgement, out: npt.NDArray[Any], seed: int) -> None:
        task, found = report.task, judgement.errors
        if task.role is not Role.CANDIDATE or task.cell.case is not Case.MIXED or found is None:
            return
        error = np.inf if np.isnan(found.max_rel) else found.max_rel
        if error <= self._error:
            return
        given = batch(task.cell, seed)
        frame = (-1, task.cell.patch, task.cell.patch)
        scale = given.reference.scale.reshape(frame)
        offsets = given.offsets.reshape(-1, 2)
        with np.errstate(all="ignore"):
            relative = np.abs(out - given.reference.values).reshape(frame) / scale
        relative = np.where(scale > 0, relative, 0.0)
        # A picture of nothing, or of no visible movement, shows little: of the rest the worst.
        telling = ((scale > 0).mean(axis=(1, 2)) > 0.6) & (offsets != np.floor(offsets)).any(axis=1)
        telling &= np.abs(offsets).max(axis=1) > (2 if len(offsets) > 4 else 0)
        if not telling.any():
            return
        which = int(np.where(telling, relative.max(axis=(1, 2)), -1).argmax())
        self._error = error
        self.best = {
            "title": f"{task.candidate}, {task.cell}, image {which}",
            "offset": tuple(float(v) for v in offsets[which]),
            "input": given.images.reshape(frame)[which],
            "oracle": given.reference.values.reshape(frame)[which],
            "candidate": out.reshape(frame)[which],
            "relative": relative[which],
            "tolerance": task.cell.tolerance(None),
        }


def _rows(ctx: Context, params: Params, sides: list[Side], gallery: Gallery) -> Iterator[dict[str, Any]]:
    """Run the sides, as many at once as there are cores, and yield a row as soon as it is judged."""
    slots = max(1, min(ctx.cores, len(sides)))
    threads = max(1, ctx.cores // slots)
    waiting, running = list(sides), list[SideProcess]()
    inputs = _Inputs(ctx.work / "inputs", params.seed)
    try:
        running += [_start(ctx, waiting.pop(0), inputs, params, threads) for _ in range(slots)]
        # While the first sides import their libraries there is time to examine the judge.
        yield from _gate_rows(params, first=sum(len(s.tasks) for s in sides))
        while running or waiting:
            if ctx.stopping:
                ctx.log("asked to stop: the sides are killed, nothing of this run is kept")
                for process in running:
                    process.stop()
                ctx.leave()
            for process in list(running):
                for report in process.poll(patience_s=params.side_time_s):
                    yield _row(params, report, threads, gallery)
                if process.done:
                    process.stop()
                    running.remove(process)
                    if waiting:
                        running.append(_start(ctx, waiting.pop(0), inputs, params, threads))
            time.sleep(POLL_S)
    finally:
        for process in running:
            process.stop()


class _Inputs:
    """Input files, one pair per distinct batch, shared by all sides."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed = folder, seed
        folder.mkdir()

    def paths(self, cell: Cell) -> list[str]:
        """Files of images and offsets, written on first use."""
        stem = f"{cell.case}-{cell.dtype}-{cell.batch}x{cell.channels}"
        paths = [self._folder / f"{stem}-{what}.npy" for what in ("images", "offsets")]
        if not paths[1].exists():
            given = batch(cell, self._seed)
            save(paths[0], given.images)
            save(paths[1], given.offsets)
        return [str(p) for p in paths]


def _start(ctx: Context, side: Side, inputs: _Inputs, params: Params, threads: int) -> SideProcess:
    folder = ctx.work / "sides" / side.name
    folder.mkdir(parents=True)
    requests = []
    for task in side.tasks:
        images, offsets = inputs.paths(task.cell)
        warm = task.cell.warm()
        requests.append(
            {
                "id": task.id,
                "target": task.target,
                "images": images,
                "offsets": offsets,
                "before": inputs.paths(warm) if warm else None,
                "repeats": params.repeats,
            }
        )
    return SideProcess(side, folder, requests, threads=threads, gpus=ctx.gpus)


def _row(params: Params, report: Report, threads: int, gallery: Gallery) -> dict[str, Any]:
    """Judge one report. The judge gets arrays and a number; name and role are joined to its answer afterwards."""
    task = report.task
    given = batch(task.cell, params.seed)
    tolerance = task.cell.tolerance(params.tolerance)
    if report.error is not None or report.output is None:
        judgement = Judgement(Verdict.BLOCKED, report.reason or "it left no output")
    elif _mismatch(report, task.cell, params.seed):
        judgement = Judgement(Verdict.INPUT_MISMATCH, _mismatch(report, task.cell, params.seed))
    else:
        out = load(report.output)
        judgement = verdict.judge(given.reference, out, tolerance)
        gallery.consider(report, judgement, out, params.seed)
    if report.output is not None:
        report.output.unlink()  # megabytes, and of no more use

    raw = report.raw
    return {
        **_identity(task),
        **_measures(judgement),
        "tolerance": tolerance,
        "device": raw.get("device"),
        "seconds": raw.get("seconds"),
        "first_seconds": raw.get("first_seconds"),
        "peak_mb": raw.get("peak_mb"),
        "threads": threads,
        "input_digest": given.digest,
        "candidate_digest": raw.get("digest"),
        "env": json.dumps({**raw.get("env", {}), **{f"ran:{k}": v for k, v in (raw.get("evidence") or {}).items()}}),
        "versions": json.dumps(raw.get("versions", {})),
        "error": report.error,
    }


def _mismatch(report: Report, cell: Cell, seed: int) -> str:
    """Why the side did not work on our inputs, or ""."""
    pairs = [("input", batch(cell, seed).digest, report.raw.get("digest"))]
    warm = cell.warm()
    if warm is not None:
        pairs.append(("first input", batch(warm, seed).digest, report.raw.get("before_digest")))
    for what, ours, theirs in pairs:
        if ours != theirs:
            return f"the {what} is {ours[:12]} here and {str(theirs)[:12]} in the side's process"
    return ""


def _gate_rows(params: Params, *, first: int) -> Iterator[dict[str, Any]]:
    """Our judge must make no mistake; each gate known to be bad must be caught at what it is blind to."""
    paper = gates.questions(params.patch, params.seed)
    sitting: list[tuple[str, Role, gates.Gate, str]] = [("judge", Role.GATE, gates.judge_gate, "")]
    sitting += [(name, Role.MUTANT, bad.says, bad.blind_to) for name, bad in gates.BAD_GATES.items()]
    for number, (name, role, gate, blind_to) in enumerate(sitting, start=first):
        begun = time.perf_counter()
        mistakes = gates.examine(gate, paper)
        told = mistakes.get(blind_to) if blind_to else next(iter(mistakes.values()), None)
        marks = f"{len(mistakes)} of {len(paper)} answers wrong"
        judgement = Judgement(Verdict.FAIL, f"{told} ({marks})") if told else Judgement(Verdict.PASS, marks)
        cell = Cell(Case.MIXED, "complex64", gates.BATCH, gates.CHANNELS, params.patch)
        yield {
            **_identity(Task(number, name, role, "", cell)),
            "case": "examination",
            **_measures(judgement),
            "tolerance": TOLERANCE["complex64"],
            "seconds": time.perf_counter() - begun,
        }


def _identity(task: Task) -> dict[str, Any]:
    cell = task.cell
    return {
        **dict.fromkeys(PARITY.names),
        "cell": task.id,
        "kernel": "translation",
        "candidate": task.candidate,
        "role": str(task.role),
        "case": str(cell.case),
        "dtype": cell.dtype,
        "batch": cell.batch,
        "channels": cell.channels,
        "size": cell.size,
        "patch": cell.patch,
    }


def _measures(judgement: Judgement) -> dict[str, Any]:
    found, patches = judgement.errors, judgement.patches
    told: dict[str, Any] = {"verdict": str(judgement.verdict), "reason": judgement.reason}
    if judgement.statistics is not None:
        told["statistics"] = str(judgement.statistics)
    if patches is not None:
        told |= {"contrast": patches.contrast, "level": patches.level}
    if found is not None:
        names = ("max_abs", "max_rel", "rmse", "correlation", "sum_ratio", "edge_error", "centre_error")
        told |= {name: getattr(found, name) for name in names}
        told |= dict(zip(("worst_image", "worst_y", "worst_x"), found.worst, strict=True))
    return told
