"""One parity run, from the plan to the settlement. Everything happens in this process's one thread; only the
sides run elsewhere.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BadInput
from core.kind import Context
from jobs.parity import Params, dump, gates, predictions, taps, watch
from jobs.parity import rows as table
from jobs.parity.adapter import Adapter, Array, Cell, Inputs, Picture
from jobs.parity.exchange import put
from jobs.parity.external import ExternalSide
from jobs.parity.kernels import adapter as adapter_of
from jobs.parity.kernels import device_of
from jobs.parity.program import files_of
from jobs.parity.settle import settle
from jobs.parity.sides import Report, Running, Side, SideProcess, Task, plan
from jobs.parity.words import Role, Verdict
from kernels.devices import KernelRefused

FIGURE = "parity.png"
GRID = "patches.png"
POLL_S = 0.02
SHOWN = 8  # patches in the picture of predictions
PIXELS = 512  # of a patch's edge there
ORACLE = "oracle"
Row = dict[str, Any]


def run(ctx: Context) -> None:
    """Fill the tables, draw the figures, and say what they mean."""
    params: Params = ctx.params
    _refuse_what_is_known(ctx, params)
    study = _Study(ctx, params)
    ctx.expect(rows=study.expected, artifacts=study.artifacts)
    sides = ", ".join(f"{s.name} {len(s.tasks)}" for s in study.sides)
    ctx.log(f"{study.expected['parity']} rows: {sides}, the rest gates")
    try:
        study.work()
    except KernelRefused as error:
        raise BadInput(str(error)) from error
    study.keep()
    settle(study.rows, study.taps, study.batches)


class _Study:
    """All that one run has found so far."""

    def __init__(self, ctx: Context, params: Params) -> None:
        self.ctx, self.params = ctx, params
        folder = ctx.work / "kernel"
        folder.mkdir()
        files = {"hkl": ctx.input("hkl")} if params.hkl is not None else {}
        try:
            self.adapter: Adapter = adapter_of(params.kernel)(params, folder, files)
            self.mutants = self.adapter.mutants()
            self.sides = plan(params, self.adapter)
            self.tapped = self.adapter.tapped()
            tapping = [task for side in self.sides for task in side.taps]
            tap_rows = taps.planned(self.adapter, tapping, self.tapped)
        except KernelRefused as error:
            raise BadInput(str(error)) from error
        self.tasks = [task for side in self.sides for task in side.tasks]
        self.logged = predictions.planned(self.adapter, self.tasks, params.batches)
        self.expected = {"parity": len(self.tasks) + 1 + len(gates.BAD_GATES) + bool(self.tapped)}
        if tap_rows:
            self.expected["taps"] = tap_rows
        if self.logged:
            self.expected["patches"] = len(self.logged)
        self.artifacts = [FIGURE, *([GRID] if self.logged else []), *(["taps.json"] if tap_rows else [])]
        # What the user declared besides: a candidate may read it, where it lies and where it was copied to.
        inputs = list(ctx.raw.get("inputs") or ())
        self.declared = [p for i in inputs for p in (Path(i["path"]), ctx.input(i["name"]))]
        self.put = {str(i["dest"]): ctx.input(i["name"]) for i in inputs if i.get("dest")}
        self.dumped = self.adapter.dumped() if params.dump else None
        if self.dumped is not None:
            self.artifacts += dump.names(self.adapter, self.dumped)
        self.answers: dict[str, Array] = {}
        self.inputs = _Files(ctx.work / "inputs")
        self.rows: list[Row] = []
        self.taps: list[Row] = []
        self.batches: list[Row] = []
        self.gallery = Gallery(self.adapter, self.tasks)
        self._tapping = {task.id for task in tapping}
        self._documents: list[dict[str, Any]] = []

    def work(self) -> None:
        """Run the sides, as many at once as there are cores, and judge each as soon as it has ended."""
        total = self.expected["parity"]
        slots = max(1, min(self.ctx.cores, len(self.sides)))
        self.threads = max(1, self.ctx.cores // slots)
        waiting, running = list(self.sides), list[Running]()
        try:
            running += [self._start(waiting.pop(0)) for _ in range(slots)]
            # While the first sides import their libraries there is time to examine the judge.
            for row in gates.sit(self.params, self.adapter, first=len(self.tasks)):
                self._add(row)
            if self.tapped:
                self._add(gates.sit_of_taps(self.adapter, self.tapped[0], total - 1))
                self.taps += taps.oracle_rows(self.adapter, self.tapped)
            while running or waiting:
                if self.ctx.stopping:
                    self.ctx.log("asked to stop: the sides are killed, nothing of this run is kept")
                    for side in running:
                        side.stop()
                    self.ctx.leave()
                for side in list(running):
                    reports = side.poll(patience_s=self.params.side_time_s)
                    if reports is None:
                        continue
                    running.remove(side)
                    if waiting:
                        running.append(self._start(waiting.pop(0)))
                    for report in reports:
                        self._judge(report)
                done = len(self.rows) + sum(side.answered for side in running)
                self.ctx.progress(min(done, total), total, ", ".join(side.side.name for side in running))
                time.sleep(POLL_S)
        finally:
            for side in running:
                side.stop()

    def keep(self) -> None:
        """Tables, figures, taps as JSON."""
        self.rows.sort(key=lambda r: r["cell"])
        self.ctx.results("parity", self.rows)
        if self.taps:
            self.ctx.results("taps", self.taps)
        if self.batches:
            place = {(b.task.candidate, b.phase, b.index): i for i, b in enumerate(self.logged)}
            self.batches.sort(key=lambda r: place[r["candidate"], r["phase"], r["batch_index"]])
            self.ctx.results("patches", self.batches)
        if "taps.json" in self.artifacts:
            told = {"records": [*self._oracles(), *self._documents], "edge_and_centre": taps.summary(self.taps)}
            self.ctx.artifact("taps.json").write_text(json.dumps(told, indent=1))

        from jobs.parity.figure import draw, draw_grid  # matplotlib, only once the tables are there

        draw(self.ctx.artifact(FIGURE), self.rows, self.gallery.best)
        if self.dumped is not None:
            paths = {name: self.ctx.artifact(name) for name in dump.names(self.adapter, self.dumped)}
            dump.write(paths, self.adapter, self.dumped, self.answers)
        if GRID in self.artifacts:
            draw_grid(self.ctx.artifact(GRID), self.gallery.grids, self.adapter.quantity)

    def _oracles(self) -> list[dict[str, Any]]:
        return [
            {"candidate": taps.ORACLE, "cell": str(c), "records": dict(self.adapter.tapping(c).records)}
            for c in self.tapped
        ]

    def _judge(self, report: Report) -> None:
        """The judge gets arrays and a number; name and role are joined to its answer afterwards."""
        if report.task.id in self._tapping:
            self.taps += taps.rows(self.adapter, report)
            self._documents.append(taps.document(self.adapter, report))
            return
        row, values = table.row(self.adapter, self.mutants, report, self.threads)
        self._add(row)
        self.batches += predictions.rows(self.adapter, self.logged, report, values)
        if values is not None:
            self.gallery.consider(report, row, values)
            if report.task.cell == self.dumped and row["max_rel"] is not None and report.task.role is Role.CANDIDATE:
                self.answers[report.task.candidate] = np.array(values)
        for path in (report.output, report.peer, report.before):
            if path is not None:
                path.unlink()  # megabytes, and of no more use

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        if row["verdict"] in (Verdict.BLOCKED, Verdict.INPUT_MISMATCH):
            words = row["error"] if row["verdict"] == Verdict.BLOCKED and row["error"] else row["reason"]
            self.ctx.log(f"{row['candidate']} {row['case']} {row['batch']}×{row['channels']} {row['verdict']}: {words}")
        left = json.loads(row["left"] or "[]")
        if left:
            self.ctx.log(f"{row['candidate']} left in its working folder: {', '.join(left)}")

    def _start(self, side: Side) -> Running:
        folder = self.ctx.work / "sides" / side.name
        if side.program:
            argv, gpus = self._command(), _gpus(self.ctx, self.params)
            place = self.inputs.of
            return ExternalSide(
                *(side, folder, self.params, self.adapter, argv, place),
                threads=self.threads,
                gpus=gpus,
                declared=self.declared,
                put=self.put,
            )
        request = {
            "kernel": self.params.kernel,
            "tasks": [*(self._request(t) for t in side.tasks), *(self._tap_request(t) for t in side.taps)],
        }
        return SideProcess(
            side,
            folder,
            request,
            threads=self.threads,
            gpus=_gpus(self.ctx, self.params),
            declared=(self.inputs.folder, self.adapter.folder, *self.adapter.files.values(), *self.declared),
            how=watch.How(self.params.watch),
        )

    def _command(self) -> list[str]:
        """The program's words, with the files that they name as they were declared and hashed."""
        words = list(self.params.command)
        for name, path in files_of(words).items():
            place = str(self.ctx.input(name))
            words = [_replaced(word, str(path), place) for word in words]
        return words

    def _request(self, task: Task) -> dict[str, Any]:
        warm = self.adapter.warm(task.cell)
        return {
            "id": task.id,
            "target": task.target,
            "pixels": None,
            "inputs": self.inputs.of(task.cell, self.adapter.given(task.cell).inputs),
            "before": self.inputs.of(warm, self.adapter.given(warm).inputs) if warm else None,
            "repeats": self.params.repeats,
        }

    def _tap_request(self, task: Task) -> dict[str, Any]:
        tapping = self.adapter.tapping(task.cell)
        places = {"": self.inputs.of((task.cell, ""), tapping.inputs)}
        for name, p in tapping.perturbations.items():
            places[name] = self.inputs.of((task.cell, name), p.inputs)
        return {"id": task.id, "target": task.target, "pixels": dict(tapping.pixels), "inputs": places}


class _Files:
    """Input folders, one per distinct input, shared by all sides."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[object, str] = {}
        folder.mkdir()

    def of(self, what: object, inputs: Inputs) -> str:
        """The folder of these inputs, written on first use."""
        found = self._known.get(what)
        if found is None:
            path = self.folder / str(len(self._known))
            put(path, inputs)
            found = self._known[what] = str(path)
        return found


class Gallery:
    """Keeps the pictures that the figures show: the worst cell, and real predictions of every candidate."""

    def __init__(self, adapter: Adapter, tasks: Sequence[Task]) -> None:
        self._adapter = adapter
        cells = list(dict.fromkeys(t.cell for t in tasks if t.role is Role.CANDIDATE))
        # The batch of a prediction that came after training is the one that once was empty.
        batches = [c for c in cells if adapter.warm(c)] or cells
        alike = [c for c in batches if (c.height, c.width) == (batches[0].height, batches[0].width)]
        self._cells = alike[: 1 if alike and alike[0].batch > 1 else SHOWN]
        self._error = -1.0
        self._shown: dict[str, dict[Cell, list[Array]]] = {}
        self.best: Picture | None = None

    @property
    def grids(self) -> dict[str, list[Array]]:
        """Patches (H, W) by candidate, in one order; where one gave nothing, there is nothing to see."""
        oracle = self._shown.get(ORACLE, {})
        return {
            name: [
                p for cell, right in oracle.items() for p in shown.get(cell, [np.full_like(q, np.nan) for q in right])
            ]
            for name, shown in self._shown.items()
        }

    def consider(self, report: Report, row: Row, values: Array) -> None:
        task, error = report.task, row["max_rel"]
        if task.role is not Role.CANDIDATE or error is None:
            return
        if task.cell in self._cells:
            right = self._adapter.given(task.cell).reference.values
            for name, batch in ((ORACLE, right), (task.candidate, values)):
                self._shown.setdefault(name, {})[task.cell] = self._few(batch)
        error = np.inf if np.isnan(error) else error
        picture = self._adapter.picture(task.cell, values) if error > self._error else None
        if picture is not None:
            self._error = error
            self.best = replace(picture, title=f"{task.candidate}, {task.cell}, {picture.title}")

    def _few(self, batch: Array) -> list[Array]:
        """The first patches; of large frames every nth pixel, which is all that a page can show."""
        patches = self._adapter.amplitudes(batch)[:SHOWN]
        step = max(1, max(patches.shape[1:]) // PIXELS)
        return [p[::step, ::step].copy() for p in patches]


def _replaced(word: str, path: str, place: str) -> str:
    """`PATH` and `--table=PATH` with another path."""
    head, equals, tail = word.rpartition("=")
    return place if word == path else f"{head}{equals}{place}" if equals and tail == path else word


def _gpus(ctx: Context, params: Params) -> str | None:
    """What CUDA may see: the granted GPUs. `lab run` grants nothing, so there it is what the shell lets it see."""
    if ctx.raw.get("inline") and any(device_of(c) == "cuda" for c in params.candidates):
        return os.environ.get("CUDA_VISIBLE_DEVICES")
    return ",".join(str(g) for g in ctx.gpus)


def _refuse_what_is_known(ctx: Context, params: Params) -> None:
    """Nothing has to start to know that a run of CUDA cells alone needs a GPU."""
    only = all(device_of(c) == "cuda" for c in params.candidates)
    if only and not ctx.gpus and not ctx.raw.get("inline"):
        raise BadInput(
            f"{', '.join(params.candidates)} need a GPU and this job was given none",
            hint="submit with --gpus 1, or leave out devices=cuda",
        )
