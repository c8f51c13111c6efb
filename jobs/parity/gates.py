"""Is the judge any good? An examination that every run sits, and gates known to be bad that must fail it.

A gate says ok or not of a pair of arrays. The examination shows it right answers and wrong ones. Ours must
make no mistake; those that misled the seed (a ratio that can be computed, a correlation, a look at the shape,
a look at the labels) must each be caught, or the examination itself proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.parity import mutants, verdict
from jobs.parity.cases import TOLERANCE, Case, Cell
from jobs.parity.inputs import batch
from jobs.parity.verdict import Reference
from jobs.parity.words import Verdict
from kernels.metrics import compare_statistics, errors, patch_statistics

Array = npt.NDArray[Any]
Gate = Callable[[Reference, Array, float], bool]

# Batch and channels of the pictures that the examination uses; large enough to lose a batch dimension.
BATCH, CHANNELS = 16, 4


def judge_gate(reference: Reference, candidate: Array, tolerance: float) -> bool:
    """Our own judge, as a gate."""
    return verdict.judge(reference, candidate, tolerance).verdict is Verdict.PASS


def ratio_is_computable(reference: Reference, candidate: Array, tolerance: float) -> bool:
    """Total collapse gives ratio 0.0, which is a number, so: ok, exit 0."""
    found = compare_statistics(patch_statistics(reference.values), patch_statistics(candidate))
    return all(math.isfinite(c.ratio) for c in found)


def correlates(reference: Reference, candidate: Array, tolerance: float) -> bool:
    """Correlation above 0.9999."""
    if candidate.shape != reference.values.shape:
        return False
    return errors(reference.values, candidate).correlation > 0.9999


def has_shape_and_content(reference: Reference, candidate: Array, tolerance: float) -> bool:
    """The right shape, and not all zero."""
    return candidate.shape == reference.values.shape and bool(np.any(candidate))


def reads_the_labels(reference: Reference, candidate: Array, tolerance: float) -> bool:
    """A good judge that is handed the labels where the predictions should be: it cannot fail."""
    return judge_gate(reference, reference.values, tolerance)


@dataclass(frozen=True)
class BadGate:
    """A gate that misled somebody: the row of the trap table, and the question that must give it away."""

    trap: int
    says: Gate
    blind_to: str


BRIGHTER = "everything 1e-3 too bright"
DIM = "dim pixels a hundredfold too bright"
BAD_GATES: dict[str, BadGate] = {
    "gate-ratio-is-computable": BadGate(8, ratio_is_computable, "mutant collapses"),
    "gate-correlates": BadGate(8, correlates, DIM),
    "gate-has-shape-and-content": BadGate(5, has_shape_and_content, "mutant falls-back"),
    "gate-reads-the-labels": BadGate(9, reads_the_labels, "mutant collapses"),
}


@dataclass(frozen=True)
class Question:
    """One pair of arrays to which the answer is known."""

    about: str
    reference: Reference
    candidate: Array
    right: bool
    tolerance: float


def questions(patch: int, seed: int) -> list[Question]:
    """Wrong answers, made from real pictures; and right ones, for a gate that refuses everything."""
    moved = batch(Cell(Case.MIXED, "complex64", BATCH, CHANNELS, patch), seed)
    still = batch(Cell(Case.ZERO, "complex64", BATCH, CHANNELS, patch), seed)
    limit = TOLERANCE["complex64"]
    exact = moved.reference.values.astype(np.complex64)

    def wrong(about: str, candidate: Array) -> Question:
        return Question(about, moved.reference, candidate, False, limit)

    out = [
        Question("the oracle's own answer in single precision", moved.reference, exact, True, limit),
        Question("an image that did not move", still.reference, still.images.copy(), True, 0.0),
    ]
    out += [wrong(f"mutant {m.name}", m.translate(moved.images, moved.offsets)) for m in mutants.MUTANTS.values()]
    out += [
        wrong(BRIGHTER, (exact * np.float32(1.001)).astype(np.complex64)),
        _dim_pixels(moved.reference),
        wrong("one number that is none", _with(exact, np.nan)),
        wrong("one infinite number", _with(exact, np.inf)),
        wrong("each image its own mean", np.broadcast_to(exact.mean((-2, -1), keepdims=True), exact.shape).copy()),
        wrong("amplitudes without phase", np.abs(exact)),
        wrong("an empty array", exact[:0]),
        Question("one unit in the last place of one pixel", still.reference, _nudged(still.images), False, 0.0),
    ]
    return out


def examine(gate: Gate, paper: list[Question]) -> dict[str, str]:
    """The mistakes of a gate: question -> phrase; empty for a good one. An exception is a mistake too."""
    mistakes = {}
    for q in paper:
        try:
            answer = bool(gate(q.reference, q.candidate, q.tolerance))
        except Exception as error:
            mistakes[q.about] = f"{type(error).__name__} at {q.about}: {error}"
            continue
        if answer != q.right:
            mistakes[q.about] = f"said {'ok' if answer else 'not ok'} to {q.about}"
    return mistakes


def _dim_pixels(reference: Reference) -> Question:
    """Every other group dim, and a hundredfold too bright in the candidate: the correlation hardly moves."""
    gain, error = np.ones((BATCH, 1, 1, 1)), np.ones((BATCH, 1, 1, 1))
    gain[::2], error[::2] = 1e-5, 100.0
    dim = Reference(reference.values * gain, reference.scale * gain)
    return Question(DIM, dim, (dim.values * error).astype(np.complex64), False, TOLERANCE["complex64"])


def _with(exact: Array, value: float) -> Array:
    out = exact.copy()
    out[-1, -1, 1, 1] = value
    return out


def _nudged(images: Array) -> Array:
    out = images.copy()
    flat = out.reshape(-1)
    where = int(np.abs(flat.real).argmax())
    flat[where] = complex(float(np.nextafter(flat[where].real, np.float32(2e9))), float(flat[where].imag))
    return out
