"""The debug dump, on request: what one batch looked like from every side, for whoever has to find out why.

Metadata and statistics as JSON, amplitudes raw and normalised as arrays, and where a kernel's patches belong together
the canvas that they make: one picture per side, with the mean difference and the structural similarity of each pair.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jobs.parity.adapter import Adapter, Array, Cell
from kernels.metrics import PatchStatistics, patch_statistics

NAMES = ("dump.json", "dump.npz")
CANVAS = "canvas.png"
ORACLE = "oracle"


def names(adapter: Adapter, cell: Cell) -> tuple[str, ...]:
    """The artifacts that a dump of this cell writes."""
    return (*NAMES, CANVAS) if adapter.has_canvas(cell) else NAMES


def write(paths: Mapping[str, Path], adapter: Adapter, cell: Cell, answers: Mapping[str, Array]) -> None:
    """Write the dump of one cell.

    Args:
        paths: where each of `names` goes.
        answers: predictions by candidate; the oracle's are added.
    """
    given = adapter.given(cell)
    whole = {ORACLE: given.reference.values, **answers}
    arrays: dict[str, Array] = {}
    told: dict[str, Any] = {
        "cell": str(cell),
        "shape": cell.shape,
        "settings": dict(given.inputs.settings),
        "effective_input": given.effective.splitlines(),
        "inputs": {name: described(a) for name, a in given.inputs.arrays.items()},
        **adapter.notes(cell),
        "statistics": {},
    }
    canvases = {}
    for name, values in whole.items():
        amplitude = adapter.amplitudes(values)
        arrays[f"{name}-raw"], arrays[f"{name}-normalised"] = amplitude, normalised(amplitude)
        told["statistics"][name] = _statistics(patch_statistics(values))
        if adapter.has_canvas(cell):
            canvases[name] = arrays[f"{name}-canvas"] = adapter.canvas(cell, values)
    if canvases:
        told["canvas"] = {"shape": list(canvases[ORACLE].shape), "pairs": compared(canvases)}
        from jobs.parity.figure import draw_grid

        shown = {name: [canvas] for name, canvas in canvases.items()}
        draw_grid(paths[CANVAS], shown, f"canvas of {len(given.reference.values)} patches, {adapter.quantity}")
    np.savez_compressed(paths["dump.npz"], **arrays)  # type: ignore[arg-type]
    paths["dump.json"].write_text(json.dumps(told, indent=1, default=str))


def normalised(amplitude: Array) -> Array:
    """Each patch (..., H, W) from its own least value, 0, to its own greatest, 1; an even one is 0."""
    low, high = (f(axis=(-2, -1), keepdims=True) for f in (amplitude.min, amplitude.max))
    span = np.where(high > low, high - low, 1.0)
    return np.asarray((amplitude - low) / span)


def compared(canvases: Mapping[str, Array]) -> list[dict[str, Any]]:
    """Mean absolute difference and structural similarity (SSIM, over the first one's range) of each pair."""
    from skimage.metrics import structural_similarity

    out = []
    for (a, first), (b, second) in itertools.combinations(canvases.items(), 2):
        pair: dict[str, Any] = {"first": a, "second": b, "mae": None, "ssim": None}
        if first.shape == second.shape and np.isfinite(first).all() and np.isfinite(second).all():
            span = float(np.ptp(first)) or 1.0
            window = min(7, min(first.shape) // 2 * 2 - 1)
            pair["mae"] = float(np.abs(first - second).mean())
            if window >= 3:
                pair["ssim"] = float(structural_similarity(first, second, data_range=span, win_size=window))
        out.append(pair)
    return out


def described(array: Array) -> dict[str, Any]:
    """Shape, type and range of an input."""
    least, greatest = (float(np.abs(array).min()), float(np.abs(array).max())) if array.size else (None, None)
    told: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype), "least": least}
    return {**told, "greatest": greatest}


def _statistics(found: PatchStatistics) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(found).items()}
