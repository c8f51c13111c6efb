"""Known-bad postfilters, each wrong in a way of its own. NumPy, float64, rounded at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from jobs.parity import verdict
from jobs.parity.adapter import Array, Cell, Given, Mutant
from jobs.parity.kernels.postfilter import reference, weights_of
from jobs.parity.words import Verdict
from kernels.postfilter import Weights

TILE = 24
HALO = 3


def repeats_the_border(weights: Weights, frames: Array) -> Array:
    """Padding repeats the outermost pixels where the operator has zeros."""
    return _clamped(frames + _layers(weights, frames, pad="edge"))


def tiles_without_halo(weights: Weights, frames: Array) -> Array:
    """Every tile is filtered as if it were a frame of its own."""
    out = np.empty_like(frames)
    for y in range(0, frames.shape[2], TILE):
        for x in range(0, frames.shape[3], TILE):
            part = frames[:, :, y : y + TILE, x : x + TILE]
            out[:, :, y : y + TILE, x : x + TILE] = _clamped(part + _layers(weights, part))
    return out


def forgets_the_residual(weights: Weights, frames: Array) -> Array:
    """The correction without what it corrects."""
    return _clamped(_layers(weights, frames))


def swaps_red_and_blue(weights: Weights, frames: Array) -> Array:
    """BGR in, BGR out."""
    turned = frames[:, ::-1]
    return _clamped(turned + _layers(weights, turned))[:, ::-1]


def never_clamps(weights: Weights, frames: Array) -> Array:
    """Values below 0 and above 255 are let through."""
    return (frames + _layers(weights, frames)).astype(np.float32)


def all_zero(weights: Weights, frames: Array) -> Array:
    """Nothing, of the right shape."""
    return np.zeros_like(frames)


SPOILED: dict[str, Callable[[Weights, Array], Array]] = {
    "repeats-the-border": repeats_the_border,
    "tiles-without-halo": tiles_without_halo,
    "forgets-the-residual": forgets_the_residual,
    "swaps-red-and-blue": swaps_red_and_blue,
    "never-clamps": never_clamps,
    "all-zero": all_zero,
}


def mutants(cell: Cell) -> Mapping[str, Mutant]:
    """All of them, at one cell of whole frames that are larger than a tile."""
    found = (
        Mutant("repeats-the-border", 0, "wrong only near the border", _border, (cell,)),
        Mutant("tiles-without-halo", 0, "wrong only near the seams of tiles", _seams, (cell,)),
        Mutant("forgets-the-residual", 0, "right once the frame is added", _residual, (cell,)),
        Mutant("swaps-red-and-blue", 0, "right for the colours in reverse", _swapped, (cell,)),
        Mutant("never-clamps", 0, "wrong only beyond 0 and 255", _unclamped, (cell,)),
        Mutant("all-zero", 0, "nothing but zeros", _nothing, (cell,)),
    )
    return {m.name: m for m in found}


# What each bug does to a result.


def _border(given: Given, values: Array, tolerance: float) -> bool:
    wrong = _wrong(given, values, tolerance)
    return bool(wrong.any()) and not wrong[..., HALO:-HALO, HALO:-HALO].any()


def _seams(given: Given, values: Array, tolerance: float) -> bool:
    wrong = _wrong(given, values, tolerance)
    near = np.zeros(wrong.shape[-2:], dtype=bool)
    lengths: tuple[int, ...] = near.shape
    for axis, length in enumerate(lengths):
        for seam in range(TILE, length, TILE):
            lines = slice(seam - HALO, seam + HALO)
            near[(lines, slice(None)) if axis == 0 else (slice(None), lines)] = True
    return bool(wrong.any()) and not wrong[..., ~near].any()


def _residual(given: Given, values: Array, tolerance: float) -> bool:
    # The correction was clamped to 0 and above: where it was negative nothing can be said.
    positive = values > 0
    whole = np.where(positive, _clamped(values + given.inputs.arrays["frames"]), given.reference.values)
    return not _wrong(given, whole, 4 * tolerance).any() and bool(_wrong(given, values, tolerance).any())


def _swapped(given: Given, values: Array, tolerance: float) -> bool:
    frames = np.ascontiguousarray(given.inputs.arrays["frames"][:, ::-1])
    other = reference(frames, weights_of(given.inputs))
    return verdict.judge(other, np.ascontiguousarray(values[:, ::-1]), tolerance).verdict is Verdict.PASS


def _unclamped(given: Given, values: Array, tolerance: float) -> bool:
    beyond = (values < 0) | (values > 255)
    wrong = _wrong(given, values, tolerance)
    return bool(wrong.any()) and not wrong[~beyond].any()


def _nothing(given: Given, values: Array, tolerance: float) -> bool:
    return values.shape == given.reference.values.shape and not np.any(values)


def _wrong(given: Given, values: Array, tolerance: float) -> Array:
    error = np.abs(values.astype(np.float64) - given.reference.values)
    return np.asarray(~(error <= tolerance * given.reference.scale))


def _clamped(frames: Array) -> Array:
    return np.clip(frames, 0, 255).astype(np.float32)


def _layers(weights: Weights, frames: Array, pad: str = "constant") -> Array:
    """conv3(relu(conv2(relu(conv1)))), without residual and clamp."""
    values = np.asarray(frames, dtype=np.float64)
    for number, (w, b) in enumerate(((weights.w1, weights.b1), (weights.w2, weights.b2), (weights.w3, weights.b3))):
        padded = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)), mode=pad)  # type: ignore[call-overload]
        windows = sliding_window_view(padded, (3, 3), axis=(2, 3))
        values = np.einsum("nihwyx,oiyx->nohw", windows, w.astype(np.float64), optimize=True) + b[:, None, None]
        values = np.maximum(values, 0) if number < 2 else values
    return values
