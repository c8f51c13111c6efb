"""Far-field diffraction of a small mosaic crystal: one signature, several backends, chosen by name.

    pixel = r_e²·fluence/steps · polar · omega · Σ F_cell(h0, k0, l0)² · F_latt(h - h0, k - k0, l - l0)²

summed over sub-pixels, sources, spindle angles and mosaic domains. F_cell comes from a grid of structure
factors (`hkl.read_hkl`), by the nearest cell or tricubic, and every lookup is counted by what it met: a listed
cell, an unlisted one inside the grid, none because it was outside, or no grid at all. Nothing is kept from one
call to the next, and no file is read that was not passed: a stale cache of structure factors once cost 37
attempts to explain.

`numpy` is the oracle. A new backend is one module with `make(threads)`, which returns a function from `Plan` to
`Simulation`, and `probe(plan, slow, fast)`, and one line in `BACKENDS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kernels.fcell.hkl import HklRefused, read_hkl, write_hkl
from kernels.fcell.plan import Counts, Plan, Probe, Simulation, build_plan
from kernels.fcell.types import (
    Beam,
    Crystal,
    Detector,
    Experiment,
    FcellRefused,
    Goniometer,
    Grid,
    Roi,
    Shape,
    Source,
)

__all__ = [
    "BACKENDS",
    "Backend",
    "Beam",
    "Counts",
    "Crystal",
    "Detector",
    "Experiment",
    "FcellRefused",
    "Goniometer",
    "Grid",
    "HklRefused",
    "Kernel",
    "Plan",
    "Probe",
    "Roi",
    "Shape",
    "Simulation",
    "Source",
    "build",
    "build_plan",
    "probe",
    "read_hkl",
    "simulate",
    "write_hkl",
]


@dataclass(frozen=True)
class Backend:
    """Where a backend lives and what it needs; nothing is imported until `build`."""

    name: str
    library: str
    module: str
    options: Mapping[str, Any] = field(default_factory=dict)


BACKENDS: dict[str, Backend] = {
    b.name: b
    for b in (
        Backend("numpy", "numpy", "kernels.fcell.oracle"),
        Backend("numba", "numba", "kernels.fcell.numba_"),
        Backend("torch", "torch", "kernels.fcell.torch_", {"device": "cpu"}),
        Backend("torch-cuda", "torch", "kernels.fcell.torch_", {"device": "cuda"}),
    )
}


def build(backend: str, threads: int | None = None) -> Kernel:
    """Make one backend's kernel; it may be called with any plan, one after another.

    Args:
        threads: how many it may use; all cores if not given. The oracle uses one.

    Raises:
        FcellRefused: no such backend.
        KernelRefused: fewer threads than one.
        DeviceMissing: CUDA was asked for and there is none.
        ImportError: the backend's library is not installed here.
    """
    found = _find(backend)
    module = importlib.import_module(found.module)
    return Kernel(found, module.make(threads=threads, **found.options))


def simulate(
    experiment: Experiment,
    grid: Grid | None = None,
    *,
    backend: str = "numpy",
    threads: int | None = None,
    roi: Roi | None = None,
) -> Simulation:
    """The image of one experiment.

    Args:
        grid: structure factors; none means default_F for every lookup.
        backend: a name in `BACKENDS`.
        threads: as in `build`.
        roi: (slow0, slow1, fast0, fast1), half-open; the whole detector if not given.

    Returns:
        float32 image of the ROI, row-major along slow, and the counts of its lookups.

    Raises:
        FcellRefused: no such backend, the ROI is outside the detector, or a pixel is too bright for float32.
        DeviceMissing, ImportError: as in `build`.
    """
    plan = build_plan(experiment, grid, roi)
    return build(backend, threads)(plan)


def probe(experiment: Experiment, grid: Grid | None, slow: int, fast: int, *, backend: str = "numpy") -> Probe:
    """The intermediate numbers of one pixel, from the backend's own code.

    Raises:
        FcellRefused: no such backend, or the pixel is not on the detector.
        DeviceMissing, ImportError: as in `build`.
    """
    found = _find(backend)
    plan = build_plan(experiment, grid)
    told: Probe = importlib.import_module(found.module).probe(plan, slow, fast, **found.options)
    return told


class Kernel:
    """A backend behind the check that all of them share."""

    def __init__(self, backend: Backend, inner: Any) -> None:
        self.backend = backend
        self._inner = inner

    def __call__(self, plan: Plan) -> Simulation:
        """Simulate the ROI of a plan.

        Raises:
            FcellRefused: a pixel does not fit float32.
        """
        told: Simulation = self._inner(plan)
        if plan.brightest > float(np.finfo(np.float32).max):  # else there is nothing to look for
            bad = np.argwhere(~np.isfinite(told.image))
            if len(bad):
                slow, fast = int(bad[0, 0]) + plan.roi[0], int(bad[0, 1]) + plan.roi[2]
                raise FcellRefused(
                    f"pixel ({slow}, {fast}) is too bright for float32: lower the fluence or the structure factors"
                )
        return told

    def evidence(self) -> dict[str, Any]:
        """What the backend can tell of how it ran (CUDA: on which device, and whether it was fused)."""
        tell = getattr(self._inner, "evidence", None)
        return dict(tell()) if tell is not None else {}


def _find(backend: str) -> Backend:
    found = BACKENDS.get(backend)
    if found is None:
        raise FcellRefused(f"no F_cell backend is called {backend!r}: there are {', '.join(BACKENDS)}")
    return found
