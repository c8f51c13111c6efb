"""The torch backend, CPU and CUDA: float64 throughout, in chunks, so that memory is bounded by the chunk.

On CUDA `torch.compile` fuses a sample (`torch_sample`) into a few kernels, which saves the traffic of some eighty
intermediate arrays. Where it cannot be compiled (no Triton, or no C compiler, which Triton asks for) it runs
eagerly on the device, and `evidence` says why. Nothing is synchronised before the whole image is done.

On a CPU h, k and l are the oracle's bit for bit. A CUDA compiler contracts multiplications and additions, so there
they may differ in the last bit, and a lookup that close to a tie may be rounded the other way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import SubprocessError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels.devices import thread_count, torch_device
from kernels.fcell import geometry
from kernels.fcell.plan import Counts, Plan, Probe, Simulation, one_pixel
from kernels.fcell.torch_sample import Met, Place, Static, Tables, fused, place, sample
from kernels.fcell.types import Grid, Roi

# Pixels of one chunk. On a CPU what stays in the cache of a core; on a GPU enough to fill it, at some 0.5 GiB.
CPU_CHUNK = 1 << 16
CUDA_CHUNK = 1 << 21

# Lookups of one image from which compiling is worth the seconds it takes: those of 4096² pixels.
FUSE_FROM = 1 << 24


def make(threads: int | None = None, device: str = "cpu") -> TorchKernel:
    """The backend on one device.

    Raises:
        DeviceMissing: CUDA was asked for and there is none.
    """
    return TorchKernel(torch_device(device), thread_count(threads))


def probe(plan: Plan, slow: int, fast: int, device: str = "cpu") -> Probe:
    """The intermediate numbers of one pixel, through the same functions as the image.

    Raises:
        FcellRefused: the pixel is not on the detector.
    """
    return make(1, device).probe(plan, slow, fast)


class TorchKernel:
    """Plan in, NumPy out."""

    def __init__(self, device: torch.device, threads: int) -> None:
        self.device = device
        self._threads = threads
        self._chunk = CUDA_CHUNK if device.type == "cuda" else CPU_CHUNK * threads
        # Compiling for a CPU needs a C++ compiler, and gains a factor of 1.5: not asked for.
        self._why_eager = "" if device.type == "cuda" else "not compiled for the CPU"
        self._first_calls: dict[Static, float] = {}

    def __call__(self, plan: Plan) -> Simulation:
        image = torch.empty((plan.rows, plan.columns), dtype=torch.float32, device=self.device)
        with torch.no_grad(), _threads(self._threads, self.device):
            tables = _tables(plan, self.device)
            tally = _Tally(self.device)
            for roi in _chunks(plan.roi, self._chunk):
                total = self._accumulate(plan, tables, roi, tally)
                rows, columns = (
                    slice(roi[0] - plan.roi[0], roi[1] - plan.roi[0]),
                    slice(roi[2] - plan.roi[2], roi[3] - plan.roi[2]),
                )
                image[rows, columns] = _finish(plan, roi, total)
            counts = tally.counts(plan)
        return Simulation(image.cpu().numpy(), counts)

    def probe(self, plan: Plan, slow: int, fast: int) -> Probe:
        """`probe` of this module."""
        roi = one_pixel(plan, slow, fast)
        size = plan.oversample
        with torch.no_grad(), _threads(1, self.device):
            tables = _tables(plan, self.device)
            tally = _Tally(self.device)
            total = self._accumulate(plan, tables, roi, tally)
            omegas = [[float(place(plan, roi, s, f, self.device).omega) for f in range(size)] for s in range(size)]
            first = place(plan, roi, 0, 0, self.device)
            polar, omega = float(_polar(plan, first)), float(first.omega)
            final = float(_finish(plan, roi, total))
            counts = tally.counts(plan)
        intensity = float(total)
        return Probe(
            omegas=np.array(omegas),
            counts=counts,
            intensity=intensity,
            steps=plan.steps,
            polar=polar,
            omega=omega,
            normalised=intensity / plan.steps * polar * omega,
            physical=intensity * plan.scale * polar * omega,
            final=final,
        )

    def evidence(self) -> dict[str, Any]:
        """How it ran: on what, and whether it was fused."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {
            "device": str(self.device),
            "name": name,
            "fused": bool(self._first_calls) and not self._why_eager,
            "why_eager": self._why_eager or ("" if self._first_calls else "too small an image, or tricubic"),
            # Seconds of the first call of each variant: compiling it, where no call before had done so.
            "first_calls_s": round(sum(self._first_calls.values()), 3),
        }

    def _accumulate(self, plan: Plan, tables: Tables, roi: Roi, tally: _Tally) -> Tensor:
        total = torch.zeros((roi[1] - roi[0], roi[3] - roi[2]), dtype=torch.float64, device=self.device)
        for i_s in range(plan.oversample):
            for i_f in range(plan.oversample):
                at = place(plan, roi, i_s, i_f, self.device)
                for source, wavelength in zip(tables.sources, tables.wavelengths, strict=True):
                    for vectors in tables.orientations:
                        part, met = self._sample(plan, tables, at, source, wavelength, vectors)
                        total += part
                        tally.add(met, total.numel())
        return total

    def _sample(self, plan: Plan, *rest: Any) -> tuple[Tensor, Met]:
        interpolate = plan.interpolate and plan.grid is not None and min(plan.grid.values.shape) >= 5
        static = (plan.shape, plan.grid is not None, interpolate)
        # The 64 gathers of the tricubic lookup take minutes to compile, and a chunk that is one pixel wide or high
        # would be compiled for itself.
        large = plan.steps * plan.rows * plan.columns >= FUSE_FROM and min(rest[1].omega.shape) > 1
        if not self._why_eager and not interpolate and large:
            start = time.perf_counter()
            try:
                part, met = fused(static)(*static, *rest)
            # Errors of dynamo and Inductor are RuntimeErrors, Triton's launcher may fail as a child process.
            except (RuntimeError, OSError, ImportError, SubprocessError) as error:
                words = str(error).strip() or type(error).__name__
                self._why_eager = f"torch.compile failed: {words.splitlines()[0]}"
            else:
                self._first_calls.setdefault(static, time.perf_counter() - start)
                return part, met
        return sample(*static, *rest)


class _Tally:
    """The sum of all `Met`, kept on the device until it is asked for."""

    def __init__(self, device: torch.device) -> None:
        self._whole = torch.zeros(3, dtype=torch.int64, device=device)
        self._sum_f = torch.zeros((), dtype=torch.float64, device=device)
        self._lows = torch.full((3,), math.inf, dtype=torch.float64, device=device)
        self._highs = torch.full((3,), -math.inf, dtype=torch.float64, device=device)
        self._lookups = 0

    def add(self, met: Met, lookups: int) -> None:
        self._whole += torch.stack([met.listed, met.inside, met.zero])
        self._sum_f += met.sum_f
        self._lows = torch.minimum(self._lows, met.lows)
        self._highs = torch.maximum(self._highs, met.highs)
        self._lookups += lookups

    def counts(self, plan: Plan) -> Counts:
        listed, inside, zero = (int(n) for n in self._whole.tolist())
        h, k, l = (  # noqa: E741
            (int(a), int(b)) for a, b in zip(self._lows.tolist(), self._highs.tolist(), strict=True)
        )
        return Counts(
            lookups=self._lookups,
            listed=listed,
            unlisted=inside - listed,
            out_of_grid=0 if plan.grid is None else self._lookups - inside,
            no_grid=self._lookups if plan.grid is None else 0,
            zero_f=zero,
            sum_f=float(self._sum_f),
            bounds=(h, k, l),
        )


def _polar(plan: Plan, at: Place) -> Tensor:
    """½(1 + cos²2θ - K·cos2ψ·sin²2θ) for source 0; see `oracle.polar`."""
    along, across = geometry.polar_basis(plan.sources[0], plan.polar_axis)
    cosine, electric, magnetic = (
        at.x * float(v[0]) + at.y * float(v[1]) + at.z * float(v[2]) for v in (plan.sources[0], along, across)
    )
    return 0.5 * (1.0 + cosine * cosine - plan.polarisation * (electric * electric - magnetic * magnetic))


def _finish(plan: Plan, roi: Roi, total: Tensor) -> Tensor:
    """From I to pixels, float32."""
    first = place(plan, roi, 0, 0, total.device)
    return (total * plan.scale * _polar(plan, first) * first.omega).to(torch.float32)


def _tables(plan: Plan, device: torch.device) -> Tables:
    def put(numbers: Any) -> Tensor:
        return torch.tensor(np.asarray(numbers), dtype=torch.float64, device=device)

    low, high, strides, values, listed = _bordered(plan.grid, plan.default_f)
    return Tables(
        sources=put(plan.sources),
        wavelengths=put(plan.wavelengths_m),
        orientations=put(plan.orientations),
        reciprocal=put(plan.reciprocal),
        cells=put(plan.cells),
        fudge=put(plan.fudge),
        default_f=put(plan.default_f),
        low=put(low),
        high=put(high),
        strides=put(strides),
        values=put(values),
        listed=torch.tensor(listed, device=device),
    )


def _bordered(grid: Grid | None, default_f: float) -> tuple[Any, Any, Any, Any, Any]:
    """Extents, strides, and two flat tables with a border: F, and 0 outside, 1 unlisted, 2 listed."""
    if grid is None:
        return [0] * 3, [0] * 3, [0] * 3, np.zeros(1), np.zeros(1, dtype=np.uint8)
    values = np.pad(grid.values, 1, constant_values=default_f)
    listed = np.pad(grid.listed.astype(np.uint8) + np.uint8(1), 1)
    _, nk, nl = values.shape
    low, high = ([b[n] for b in grid.bounds] for n in (0, 1))
    return low, high, [nk * nl, nl, 1], values.reshape(-1), listed.reshape(-1)


def _chunks(roi: Roi, size: int) -> Iterator[Roi]:
    """Bands of rows, or parts of a row where one is longer than a chunk."""
    slow0, slow1, fast0, fast1 = roi
    width = min(fast1 - fast0, size)
    height = max(1, size // width)
    for s in range(slow0, slow1, height):
        for f in range(fast0, fast1, width):
            yield (s, min(s + height, slow1), f, min(f + width, fast1))


@contextmanager
def _threads(count: int, device: torch.device) -> Iterator[None]:
    """Torch's threads are a setting of the process: it is put back as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(count if device.type == "cpu" else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
