"""The iterative engines behind one small interface: `lean`, our own, and `ptychi`, the field's, in its own process.

Both take the same request, start from the same arrays and hand back the same kind of result; what differs is said in
`Found.words`. Both work on the object that the positions cover, not a pixel more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from kernels.diffraction.lsqml import Frame, Lsqml, LsqmlRefused, Settings

Array = npt.NDArray[Any]


class Engine(StrEnum):
    """Which one. Their seeds order the positions differently."""

    LEAN = "lean"
    PTYCHI = "ptychi"


@dataclass(frozen=True)
class Request:
    """What is to be reconstructed, and how.

    Attributes:
        amplitude: float32 (n, N, N), fftshifted, any common scale.
        x, y: float64 (n,), pixels.
        probe: complex64 (N, N) to start from; its power is set to that of a mean frame.
        start: object to start from, of `Frame.of(x, y, N).shape`; None: ones.
        device: cpu or cuda.
        keep: epochs after which the object is kept in `Found.kept`.
    """

    amplitude: Array
    x: Array
    y: Array
    probe: Array
    epochs: int = 100
    settings: Settings = field(default_factory=Settings)
    start: Array | None = None
    device: str = "cpu"
    threads: int = 1
    keep: tuple[int, ...] = ()

    @property
    def frame(self) -> Frame:
        return Frame.of(self.x, self.y, self.amplitude.shape[-1])


@dataclass(frozen=True)
class Found:
    """A reconstruction.

    Attributes:
        object: complex64 (H, W); origin: (row, column) of its first pixel.
        covered: bool (H, W), pixels that were lit enough.
        probe: complex64 (N, N).
        error: relative amplitude error of this object and probe, sqrt(Σ(|Ψ|-√I)²/ΣI).
        errors: of each epoch, while it went on; empty where the engine has no such number.
        seconds: of each epoch, by the clock; cpu: of all threads together.
        kept: objects by epoch.
        words: engine, versions.
    """

    object: npt.NDArray[np.complex64]
    origin: tuple[int, int]
    covered: npt.NDArray[np.bool_]
    probe: npt.NDArray[np.complex64]
    error: float
    errors: tuple[float, ...]
    seconds: tuple[float, ...]
    cpu: tuple[float, ...]
    kept: Mapping[int, npt.NDArray[np.complex64]]
    words: Mapping[str, Any]


def reconstruct(
    request: Request,
    engine: Engine = Engine.LEAN,
    *,
    python: Path | None = None,
    on_epoch: Callable[[int, float | None], None] | None = None,
) -> Found:
    """Reconstruct from the start to the end.

    Args:
        python: the interpreter that has ptychi; only for that engine.
        on_epoch: called after each with its number and error.

    Raises:
        BadInput: the request, the interpreter or the engine's answer is of no use.
    """
    if engine is Engine.PTYCHI:
        from jobs.dose.ptychi_engine import run_ptychi

        return run_ptychi(request, python, on_epoch)
    running = lean(request)
    errors, seconds, cpu, kept = [], [], [], {}
    try:
        for epoch in range(1, request.epochs + 1):
            began, used = time.perf_counter(), time.process_time()
            errors.append(running.epoch())
            seconds.append(time.perf_counter() - began)
            cpu.append(time.process_time() - used)
            if epoch in request.keep:
                kept[epoch] = running.object
            if on_epoch is not None:
                on_epoch(epoch, errors[-1])
        return finished(request, running, tuple(errors), tuple(seconds), tuple(cpu), kept)
    finally:
        running.close()


def lean(request: Request) -> Lsqml:
    """Our own engine, ready to begin.

    Raises:
        BadInput: it refuses the arrays.
        DeviceMissing: CUDA was asked for, and there is none.
    """
    try:
        return Lsqml(
            request.amplitude,
            request.x,
            request.y,
            request.probe,
            request.settings,
            start=request.start,
            device=request.device,
            threads=request.threads,
        )
    except LsqmlRefused as error:
        raise BadInput(str(error), hint="correct the data set or the parameters") from None


def finished(
    request: Request,
    running: Lsqml,
    errors: tuple[float, ...],
    seconds: tuple[float, ...] = (),
    cpu: tuple[float, ...] = (),
    kept: Mapping[int, Array] | None = None,
) -> Found:
    """What a run of our own engine found.

    Raises:
        BadInput: numbers that are not finite came out.
    """
    object_, probe = running.object, running.probe
    return Found(
        checked(object_, "object"),
        running.frame.origin,
        running.covered(),
        checked(probe, "probe"),
        amplitude_error(request, object_, probe),
        errors,
        seconds,
        cpu,
        kept or {},
        {"engine": Engine.LEAN.value},
    )


def checked(array: Array, what: str) -> Array:
    """The same, if every number of it is finite."""
    if not np.isfinite(array).all():
        raise BadInput(
            f"the reconstruction's {what} has numbers that are not finite",
            hint="look at the amplitudes and the start probe of the data set",
        )
    return array


def amplitude_error(request: Request, object_: Array, probe: Array) -> float:
    """sqrt(Σ(|Ψ|-√I)²/ΣI) of all frames: the same for any engine."""
    frame, n = request.frame, request.amplitude.shape[-1]
    spectrum = np.fft.fft2(probe)
    at = -2j * np.pi * np.fft.fftfreq(n)
    apart = total = 0.0
    for row, column, (down, across), measured in zip(
        frame.rows, frame.columns, frame.fraction, request.amplitude, strict=True
    ):
        moved = np.fft.ifft2(spectrum * (np.exp(down * at)[:, None] * np.exp(across * at)))
        modulus = np.abs(np.fft.fft2(moved * object_[row : row + n, column : column + n], norm="ortho"))
        wanted = np.fft.ifftshift(measured).astype(np.float64)
        apart += float(np.sum((modulus - wanted) ** 2))
        total += float(np.sum(wanted**2))
    return float(np.sqrt(apart / total))
