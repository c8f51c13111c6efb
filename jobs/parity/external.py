"""An external program as a side: one run of it a cell, and where it writes taps, one for every perturbation too."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.parity import Params
from jobs.parity.adapter import Adapter, Inputs, sha256
from jobs.parity.kernels import adapter as adapter_of
from jobs.parity.program import Format, Image, Program, ProgramReport, check, files_of
from jobs.parity.sides import Report, Side, Task
from jobs.parity.watch import How, NotStarted, Seen
from kernels.devices import KernelRefused

TAPS = "taps"


def refuse(params: Params) -> dict[str, Path]:
    """Check a command before anything starts. Returns the files that it names, to be declared.

    Raises:
        BadInput: one sentence about what is wrong with it.
    """
    check(params.command, names(adapter_of(params.kernel)), Image(Format(params.program_format), (1,)))
    return files_of(params.command)


def names(adapter: type[Adapter]) -> tuple[str, ...]:
    """The placeholders of a kernel, besides {output} and {digest}."""
    return ("params", *adapter.placeholders, *(("pixels", TAPS) if adapter.has_taps else ()))


@dataclass(frozen=True)
class _Run:
    """One start of the program: for a cell, or for one label of its taps."""

    task: Task
    inputs: Inputs
    folder: str
    label: str | None = None


class ExternalSide:
    """The runs of one command, one after another; polled as any side is.

    Args:
        argv: the command, with the files that it names as they were declared.
        place: inputs -> the folder that holds them, written on first use.
        declared: what it may read besides; put: what it finds in its working folder.
    """

    def __init__(
        self,
        side: Side,
        folder: Path,
        params: Params,
        adapter: Adapter,
        argv: Sequence[str],
        place: Any,
        *,
        threads: int,
        gpus: str | None,
        declared: Sequence[Path] = (),
        put: Mapping[str, Path] | None = None,
    ) -> None:
        self.side = side
        self._declared, self._put = declared, put or {}
        self._folder, self._params, self._adapter, self._argv = folder, params, adapter, argv
        self._threads, self._gpus = threads, gpus
        self._runs = self._planned(place)
        self._found: list[Report] = []
        self._taps: dict[int, dict[str, Any]] = {}
        self._number = 0
        self._now: tuple[_Run, Program] | None = None

    @property
    def answered(self) -> int:
        return len(self._found)

    def poll(self, *, patience_s: float) -> list[Report] | None:
        if self._now is None:
            run = next(self._runs, None)
            if run is None:
                return self._found
            self._start(run)
        elif (told := self._now[1].poll()) is not None:
            run, self._now = self._now[0], None
            self._take(run, told)
        return None

    def stop(self) -> None:
        if self._now is not None:
            self._now[1].stop()

    def _planned(self, place: Any) -> Iterator[_Run]:
        for task in self.side.tasks:
            inputs = self._adapter.given(task.cell).inputs
            yield _Run(task, inputs, place(task.cell, inputs))
        for task in self.side.taps:
            tapping = self._adapter.tapping(task.cell)
            labels = {"": tapping.inputs, **{name: p.inputs for name, p in tapping.perturbations.items()}}
            for label, inputs in labels.items():
                yield _Run(task, inputs, place((task.cell, label), inputs), label)

    def _start(self, run: _Run) -> None:
        base = self._folder / str(self._number)
        base.mkdir(parents=True)
        self._number += 1
        cell = run.task.cell
        try:
            program = Program(
                self._argv,
                base,
                files=self._files(run, base),
                image=Image(Format(self._params.program_format), self._adapter.program_shape(cell)),
                declared=(*run.inputs.files.values(), *self._declared),
                put=self._put,
                outputs=("taps.json",),
                threads=self._threads,
                gpus=self._gpus,
                time_s=self._params.program_time_s,
                how=How(self._params.watch),
            )
        except NotStarted as error:
            self._found.append(Report(run.task, None, str(error), str(error)))
            return
        self._now = run, program

    def _files(self, run: _Run, base: Path) -> dict[str, Path]:
        """Placeholder -> file. What this cell does not have is an empty file."""
        folder = Path(run.folder)
        files = dict.fromkeys(names(type(self._adapter)), Path(os.devnull))
        files["params"] = folder / "inputs.json"
        files |= {name: folder / f"{name}.npy" for name in run.inputs.arrays if name in files}
        files |= {name: path for name, path in run.inputs.files.items() if name in files}
        if self._adapter.has_taps:
            pixels = base / "pixels.json"
            pixels.write_text(json.dumps(dict(self._pixels(run)) if run.label is not None else {}))
            files |= {"pixels": pixels, TAPS: base / "work" / "taps.json"}
        return files

    def _take(self, run: _Run, told: ProgramReport) -> None:
        effective = self._adapter.effective(run.inputs)
        why = told.mismatch(sha256(effective), effective)
        error = f"{told.error}\n{told.tail}" if told.error else None
        seen = Seen(How.AUTO, told.watch, told.undeclared, told.left)
        raw: dict[str, Any] = {"digest": told.told_digest, "seconds": told.seconds, "first_seconds": told.seconds}
        raw["device"] = "cpu"
        if run.label is None:
            self._found.append(Report(run.task, told.output, error, told.error, raw, mismatch=why, seen=seen))
            return
        kept = self._taps.setdefault(run.task.id, {})
        if not kept.get("ended"):
            place = self._folder / str(self._number - 1) / "work" / "taps.json"
            try:
                records = [] if why or error else self._adapter.told_taps(place, self._pixels(run))
            except KernelRefused as refused:
                records, error = [], str(refused)
            kept[run.label] = records
            last = run.label == list(self._adapter.tapping(run.task.cell).perturbations)[-1]
            if why or error or last:
                kept["ended"] = True
                taps = {label: r for label, r in kept.items() if label != "ended"}
                raw = {"taps": taps} if not error else {}
                reason = (error or "").partition("\n")[0]
                self._found.append(Report(run.task, None, error, reason, raw, mismatch=why, seen=seen))

    def _pixels(self, run: _Run) -> Mapping[str, tuple[int, int]]:
        return self._adapter.tapping(run.task.cell).pixels
