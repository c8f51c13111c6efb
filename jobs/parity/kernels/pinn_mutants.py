"""Known-bad networks, each wrong in a way of its own. NumPy, float64, rounded at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jobs.dose import network_oracle
from jobs.dose.architecture import Architecture
from jobs.parity import verdict
from jobs.parity.adapter import Array, Cell, Given, Mutant
from jobs.parity.kernels.pinn import unpacked
from jobs.parity.words import Verdict

Weights = dict[str, Array]


def pads_before(a: Architecture, w: Weights, probe: Array, seen: Array, at: Array, pad: int) -> Array:
    """Strided layers begin one pixel early: the other convention of "same" padding."""
    return network_oracle.patches(a, w, probe, seen, at, pad, before=1).astype(np.complex64)


def shifts_nothing(a: Architecture, w: Weights, probe: Array, seen: Array, at: Array, pad: int) -> Array:
    """DC is taken to be in the corner."""
    return _right(a, w, probe, np.fft.fftshift(seen, axes=(-2, -1)), at, pad)


def turns_positions(a: Architecture, w: Weights, probe: Array, seen: Array, at: Array, pad: int) -> Array:
    """The sign of the offsets is the other one."""
    return _right(a, w, probe, seen, -at, pad)


def swaps_axes(a: Architecture, w: Weights, probe: Array, seen: Array, at: Array, pad: int) -> Array:
    """x is taken for y."""
    return _right(a, w, probe, seen, np.ascontiguousarray(at[..., ::-1]), pad)


def forgets_biases(a: Architecture, w: Weights, probe: Array, seen: Array, at: Array, pad: int) -> Array:
    """Only the kernels were taken over."""
    bare = {name: np.zeros_like(v) if name.endswith(".bias") else v for name, v in w.items()}
    return _right(a, bare, probe, seen, at, pad)


def swaps_decoders(a: Architecture, w: Weights, probe: Array, seen: Array, at: Array, pad: int) -> Array:
    """The phase comes out of the amplitude's decoder, and the other way round."""
    return _right(a, _swapped(w), probe, seen, at, pad)


def all_zero(a: Architecture, w: Weights, probe: Array, seen: Array, at: Array, pad: int) -> Array:
    """Nothing, of the right shape."""
    return np.zeros(seen.shape, np.complex64)


SPOILED: dict[str, Callable[..., Array]] = {
    "pads-before": pads_before,
    "shifts-nothing": shifts_nothing,
    "turns-positions": turns_positions,
    "swaps-axes": swaps_axes,
    "forgets-biases": forgets_biases,
    "swaps-decoders": swaps_decoders,
    "all-zero": all_zero,
}


def mutants(cell: Cell) -> Mapping[str, Mutant]:
    """All of them, at one cell of groups."""
    found = (
        Mutant("pads-before", 0, "right for layers that begin one pixel early", _pads, (cell,)),
        Mutant("shifts-nothing", 0, "right for diffraction that is turned by half a frame", _unshifted, (cell,)),
        Mutant("turns-positions", 0, "right for positions of the other sign", _turned, (cell,)),
        Mutant("swaps-axes", 0, "right for x and y exchanged", _exchanged, (cell,)),
        Mutant("forgets-biases", 0, "right for biases of 0", _unbiased, (cell,)),
        Mutant("swaps-decoders", 0, "right for the decoders exchanged", _crossed, (cell,)),
        Mutant("all-zero", 0, "nothing but zeros", _nothing, (cell,)),
    )
    return {m.name: m for m in found}


# What each bug does to a result: it is what the oracle says of inputs that are wrong in just this way.


def _pads(given: Given, values: Array, tolerance: float) -> bool:
    return _is(given, values, tolerance, network_oracle.patches(*unpacked(given.inputs), before=1))


def _unshifted(given: Given, values: Array, tolerance: float) -> bool:
    a, w, probe, seen, at, pad = unpacked(given.inputs)
    return _is(given, values, tolerance, _wide(a, w, probe, np.fft.fftshift(seen, axes=(-2, -1)), at, pad))


def _turned(given: Given, values: Array, tolerance: float) -> bool:
    a, w, probe, seen, at, pad = unpacked(given.inputs)
    return _is(given, values, tolerance, _wide(a, w, probe, seen, -at, pad))


def _exchanged(given: Given, values: Array, tolerance: float) -> bool:
    a, w, probe, seen, at, pad = unpacked(given.inputs)
    return _is(given, values, tolerance, _wide(a, w, probe, seen, np.ascontiguousarray(at[..., ::-1]), pad))


def _unbiased(given: Given, values: Array, tolerance: float) -> bool:
    a, w, probe, seen, at, pad = unpacked(given.inputs)
    bare = {name: np.zeros_like(v) if name.endswith(".bias") else v for name, v in w.items()}
    return _is(given, values, tolerance, _wide(a, bare, probe, seen, at, pad))


def _crossed(given: Given, values: Array, tolerance: float) -> bool:
    a, w, probe, seen, at, pad = unpacked(given.inputs)
    return _is(given, values, tolerance, _wide(a, _swapped(w), probe, seen, at, pad))


def _nothing(given: Given, values: Array, tolerance: float) -> bool:
    return values.shape == given.reference.values.shape and not np.any(values)


def _is(given: Given, values: Array, tolerance: float, other: Array) -> bool:
    reference = verdict.Reference(other, given.reference.scale)
    return verdict.judge(reference, values, tolerance).verdict is Verdict.PASS


def _swapped(weights: Weights) -> Weights:
    names = {"amplitude": "phase", "phase": "amplitude"}
    return {
        name: weights["_".join([names.get(name.split("_")[0], name.split("_")[0]), name.split("_", 1)[1]])]
        for name in weights
    }


def _wide(*given: Any) -> Array:
    found: Array = network_oracle.patches(*given)
    return found


def _right(*given: Any) -> Array:
    return _wide(*given).astype(np.complex64)
