"""What `dose-lsqml` does: frames of a view, a look at the scan's axes, epochs with checkpoints, a reconstruction."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from core.errors import BadInput, JobFailed
from core.kind import Context
from jobs.dose.axes import Axes, AxesFound, find_axes
from jobs.dose.dataset import Dataset
from jobs.dose.engines import Engine, Found, Request, finished, lean, reconstruct
from jobs.dose.npz import read_npz, write_npz
from jobs.dose.reconstruction import Reconstruction
from jobs.dose.starts import check_start
from jobs.dose.views_run import Groups
from jobs.dose_kinds.lsqml import DATA, RECONSTRUCTION, VIEWS, DoseLsqmlParams
from kernels.diffraction.lsqml import COVERED, Lsqml, Settings

DOSE_LSQML = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("engine", pa.string(), nullable=False),
        pa.field("device", pa.string(), nullable=False),
        pa.field("frames", pa.int32(), nullable=False),
        pa.field("epochs", pa.int32(), nullable=False),
        pa.field("batch", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        # sqrt(Σ(|Ψ|-√I)²/ΣI) of the object and probe in the file.
        pa.field("error", pa.float64(), nullable=False),
        pa.field("covered_pixels", pa.int64(), nullable=False),
        pa.field("axes", pa.string(), nullable=False),  # right, swapped, undecided
        pa.field("axes_given", pa.float64()),  # error of a short reconstruction; null: not enough frames
        pa.field("axes_swapped", pa.float64()),
        pa.field("start_correlation", pa.float64()),  # with the true object; null: nobody knows it
    ],
    metadata={"lab.headline": "split,engine,frames,epochs,error,axes"},
)
# Apart from the others, which the same seed makes equal on any lane.
DOSE_LSQML_TIME = pa.schema(
    [
        pa.field("engine", pa.string(), nullable=False),
        pa.field("device", pa.string(), nullable=False),
        pa.field("threads", pa.int32(), nullable=False),
        pa.field("epochs", pa.int32(), nullable=False),  # of this attempt
        pa.field("seconds", pa.float64(), nullable=False),  # of them
    ],
    metadata={"lab.headline": "engine,device,threads,epochs,seconds"},
)
_STATE = "state.npz"
_MOST = 512  # frames of a minibatch: what lies in memory at once


def run(ctx: Context) -> None:
    """Reconstruct.

    Raises:
        BadInput: no such data, a start that knows the truth, or no interpreter with ptychi.
        JobFailed: the scan's axes are swapped, or the engine failed.
    """
    p: DoseLsqmlParams = ctx.params
    ctx.expect(rows={"dose_lsqml": 1, "dose_lsqml_time": 1}, last_step=p.epochs, artifacts=[RECONSTRUCTION])
    # Threads are the engine's own.
    torch.set_num_threads(1)
    data = frames_of(ctx, p)
    axes = find_axes(data.diffraction, data.x, data.y, data.probe_guess)
    ctx.log(axes.sentence())
    if axes.answer is Axes.SWAPPED and p.axes == "check":
        raise JobFailed(
            f"x and y of the scan are swapped: {axes.sentence()}",
            hint="read them the other way (scan_order, of the study or of dose-data), or give axes=allow",
        )
    request = Request(
        data.diffraction,
        data.x,
        data.y,
        data.probe_guess,
        p.epochs,
        Settings(batch=p.batch or a_third(data.count), seed=p.seed, refine_probe=p.refine_probe),
        device=p.device,
        threads=max(1, ctx.cores),
    )
    request, known = started(request, data, ctx.input(DATA) / "truth.npz", p.start)
    began = time.perf_counter()
    if p.engine == Engine.LEAN.value:
        found, done = _lean(ctx, p, request)
    else:
        found, done = _ptychi(ctx, p, request), p.epochs
    seconds = time.perf_counter() - began
    made(found, request, p, axes).save(ctx.artifact(RECONSTRUCTION))
    ctx.results("dose_lsqml", [row_of(found, request, p, axes, known)])
    time_row = {"engine": p.engine, "device": p.device, "threads": request.threads, "epochs": done, "seconds": seconds}
    ctx.results("dose_lsqml_time", [time_row])


def a_third(frames: int) -> int:
    """The minibatch unless one is asked for.

    A pixel has to be lit by several frames of a minibatch, or the object takes on the noise of the last one: with 8 of
    the 516 measured frames of a star (half a frame a pixel) nothing was found at 1e3 photons, whose star 172 show. All
    frames at once are as good with few photons and have not arrived after 100 epochs with many. A third left the
    smallest error at full dose, within a hundredth, and costs the same.
    """
    return min(-(-frames // 3), _MOST)


def frames_of(ctx: Context, p: DoseLsqmlParams) -> Dataset:
    """Those frames of the split that are a member of one of the view's groups; every one without a view."""
    folder = ctx.input(DATA)
    path = folder / f"{p.split}.npz"
    if not path.is_file():
        there = ", ".join(sorted(f.stem for f in folder.glob("*.npz") if f.stem != "truth"))
        raise BadInput(f"{folder} has no split {p.split}: there are {there or 'none'}", hint="set split=")
    data = Dataset.load(path)
    if not ctx.has_input(VIEWS):
        return data
    groups = Groups.load(ctx.input(VIEWS) / f"{p.split}_groups.npz", data.count)
    return data.select(groups.frames)


def started(request: Request, data: Dataset, truth: Path, start: str) -> tuple[Request, float | None]:
    """The request with its start, and the start's correlation with the true object (None: nobody knows it).

    Raises:
        BadInput: the start correlates with the truth.
    """
    frame = request.frame
    if start == "flat":
        begin = np.ones(frame.shape, np.complex64)
    else:
        # The guess lies with its first pixel at (0, 0).
        row, column = frame.origin
        begin = data.object_guess[row : row + frame.shape[0], column : column + frame.shape[1]]
    known = check_start(begin, frame.origin, Reconstruction.load(truth)) if truth.is_file() else None
    return replace(request, start=np.ascontiguousarray(begin)), known


def made(found: Found, request: Request, p: DoseLsqmlParams, axes: AxesFound) -> Reconstruction:
    """What is handed over. Nothing in it depends on the time that it took."""
    words = {k: v for k, v in found.words.items() if k != "seconds_to_start"}
    meta = {
        "arm": "lsqml",
        "engine": words,
        "split": p.split,
        "frames": len(request.x),
        "epochs": p.epochs,
        "settings": asdict(request.settings),
        "start": p.start,
        "device": p.device,
        "error": found.error,
        "axes": axes.sentence(),
        "covered": f"illumination above {COVERED} of the greatest",
    }
    return Reconstruction(found.object, found.origin, found.covered, found.probe, meta)


def row_of(found: Found, request: Request, p: DoseLsqmlParams, axes: AxesFound, known: float | None) -> dict[str, Any]:
    """Of the table dose_lsqml."""
    sides = [None if np.isnan(v) else v for v in (axes.given, axes.swapped)]
    return {
        "split": p.split,
        "engine": p.engine,
        "device": p.device,
        "frames": len(request.x),
        "epochs": p.epochs,
        "batch": request.settings.batch,
        "seed": p.seed,
        "error": found.error,
        "covered_pixels": int(found.covered.sum()),
        "axes": axes.answer.value,
        "axes_given": sides[0],
        "axes_swapped": sides[1],
        "start_correlation": known,
    }


def _lean(ctx: Context, p: DoseLsqmlParams, request: Request) -> tuple[Found, int]:
    running = lean(request)
    try:
        errors = _resumed(ctx, running)
        first = running.epochs_done
        while running.epochs_done < p.epochs:
            errors.append(running.epoch())
            done = running.epochs_done
            if not np.isfinite(errors[-1]):
                raise JobFailed(f"the error of epoch {done} is not finite", hint="look at the data set's amplitudes")
            ctx.metrics(done, amplitude_error=errors[-1])
            ctx.progress(done, p.epochs, f"error {errors[-1]:.4f}")
            last = done == p.epochs
            if not last and (done % p.checkpoint_epochs == 0 or ctx.stopping):
                with ctx.save_checkpoint(done, keep=2) as folder:
                    _save(folder / _STATE, running, errors)
                if ctx.stopping:
                    ctx.leave()
        if first == p.epochs:
            ctx.metrics(p.epochs, amplitude_error=errors[-1])
        return finished(request, running, tuple(errors)), running.epochs_done - first
    finally:
        running.close()


def _ptychi(ctx: Context, p: DoseLsqmlParams, request: Request) -> Found:
    def told(epoch: int, _error: float | None) -> None:
        ctx.progress(epoch, p.epochs)
        if epoch < p.epochs:
            ctx.metrics(epoch, engine=p.engine)

    found = reconstruct(request, Engine.PTYCHI, python=None if p.python is None else Path(p.python), on_epoch=told)
    ctx.metrics(p.epochs, engine=p.engine, amplitude_error=found.error)
    return found


def _save(path: Path, running: Lsqml, errors: list[float]) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {
        "object": running.object,
        "probe": running.probe,
        "errors": np.asarray(errors, np.float64),
    }
    write_npz(path, arrays)


def _resumed(ctx: Context, running: Lsqml) -> list[float]:
    """Put the run where an earlier attempt's newest good checkpoint left it. Returns the errors until there."""
    for found in ctx.checkpoints():
        try:
            state = read_npz(found.path / _STATE)
            errors = [float(e) for e in state["errors"]]
            if len(errors) != found.step:
                raise BadInput(f"it has {len(errors)} epochs and is of step {found.step}", hint="")
            running.restore(state["object"], state["probe"], found.step)
        except (BadInput, KeyError, ValueError) as error:
            ctx.log(f"a checkpoint was passed over: step {found.step} of attempt {found.attempt}: {error}")
            continue
        ctx.log(f"going on from the checkpoint of epoch {found.step}, of attempt {found.attempt}")
        return errors
    return []
