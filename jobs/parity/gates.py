"""Is the judge any good? An examination that every run sits, and gates known to be bad that must fail it.

A gate says ok or not of a pair of arrays. The examination shows it right answers and wrong ones, made from
translated photographs: whatever the kernel, it is the same judge, and it is shown arrays and a number only. Ours must
make no mistake; those that misled the seed (a ratio that can be computed, a correlation, a look at the shape,
a look at the labels) must each be caught, or the examination itself proves nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from jobs.parity import taps, verdict, wiring
from jobs.parity.adapter import Adapter, Cell
from jobs.parity.kernels.translation import TOLERANCE, Case, batch, patches
from jobs.parity.kernels.translation_mutants import SPOILED
from jobs.parity.rows import identity, measures
from jobs.parity.settle import EXAMINATION
from jobs.parity.sides import Task
from jobs.parity.verdict import Judgement, Reference
from jobs.parity.words import Role, Verdict
from kernels.metrics import compare_statistics, errors, patch_statistics

if TYPE_CHECKING:
    from jobs.parity import Params

Array = npt.NDArray[Any]
Gate = Callable[[Reference, Array, float], bool]

# Batch and channels of the pictures that the examination uses; large enough to lose a batch dimension.
BATCH, CHANNELS = 16, 4
GATE_PATCH = 32  # where the kernel under test has no patches of its own


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


SUM_LIMIT = 1e-8
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
    moved = batch(patches(Case.MIXED, "complex64", BATCH, CHANNELS, patch), seed)
    still = batch(patches(Case.ZERO, "complex64", BATCH, CHANNELS, patch), seed)
    limit = TOLERANCE["complex64"]
    exact = moved.reference.values.astype(np.complex64)

    def wrong(about: str, candidate: Array) -> Question:
        return Question(about, moved.reference, candidate, False, limit)

    out = [
        Question("the oracle's own answer in single precision", moved.reference, exact, True, limit),
        Question("an image that did not move", still.reference, still.images.copy(), True, 0.0),
    ]
    out += [wrong(f"mutant {name}", spoil(moved.images, moved.offsets)) for name, spoil in SPOILED.items()]
    out += [
        wrong(BRIGHTER, (exact * np.float32(1.001)).astype(np.complex64)),
        _dim_pixels(moved.reference),
        wrong("one number that is none", _with(exact, np.nan)),
        wrong("one infinite number", _with(exact, np.inf)),
        wrong("each image its own mean", np.broadcast_to(exact.mean((-2, -1), keepdims=True), exact.shape).copy()),
        wrong("amplitudes without phase", np.abs(exact)),
        wrong("an empty array", exact[:0]),
        _one_pixel(moved.reference, 0.5, True),
        _one_pixel(moved.reference, 2.0, False),
        _sum(moved.reference, off=0.0),
        _sum(moved.reference, off=4 * SUM_LIMIT),
        _sign(still.images),
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


def sit(params: Params, adapter: Adapter, *, first: int) -> Iterator[dict[str, Any]]:
    """Rows: our judge must make no mistake; each gate known to be bad must be caught at what it is blind to."""
    patch = params.patch if adapter.name == "translation" else GATE_PATCH
    paper = questions(patch, params.seed)
    sitting: list[tuple[str, Role, Gate, str]] = [("judge", Role.GATE, judge_gate, "")]
    sitting += [(name, Role.MUTANT, bad.says, bad.blind_to) for name, bad in BAD_GATES.items()]
    for number, (name, role, gate, blind_to) in enumerate(sitting, start=first):
        begun = time.perf_counter()
        mistakes = examine(gate, paper)
        if role is Role.GATE:
            mistakes |= wiring.examine(adapter)
        told = mistakes.get(blind_to) if blind_to else next(iter(mistakes.values()), None)
        marks = f"{len(mistakes)} of {len(paper)} answers wrong"
        judgement = Judgement(Verdict.FAIL, f"{told} ({marks})") if told else Judgement(Verdict.PASS, marks)
        cell = patches(Case.MIXED, "complex64", BATCH, CHANNELS, patch)
        yield {
            **identity(adapter.name, Task(number, name, role, "", cell)),
            "case": EXAMINATION,
            **measures(judgement),
            "own_reason": bool(told) if role is Role.MUTANT else None,
            "tolerance": TOLERANCE["complex64"],
            "seconds": time.perf_counter() - begun,
        }


def sit_of_taps(adapter: Adapter, cell: Cell, number: int) -> dict[str, Any]:
    """A row: taps that are known to be constant must be caught at every field that has to move."""
    found = taps.constant_rows(adapter, cell)
    caught = [r for r in found if r["verdict"] == Verdict.FAIL]
    mistakes = wiring.examine_taps(adapter, cell)
    all_of_them = bool(found) and len(caught) == len(found) and not mistakes
    words = f"{len(caught)} of {len(found)} fields that have to move were seen to stand still"
    words = "; ".join((words, *mistakes))
    return {
        **identity(adapter.name, Task(number, taps.CONSTANT, Role.MUTANT, "", cell)),
        "case": EXAMINATION,
        "verdict": str(Verdict.FAIL if all_of_them else Verdict.PASS),
        "reason": words,
        "own_reason": all_of_them,
        "tolerance": 0.0,
    }


def _dim_pixels(reference: Reference) -> Question:
    """Every other group dim, and a hundredfold too bright in the candidate: the correlation hardly moves."""
    gain, error = np.ones((BATCH, 1, 1, 1)), np.ones((BATCH, 1, 1, 1))
    gain[::2], error[::2] = 1e-5, 100.0
    dim = Reference(reference.values * gain, reference.scale * gain)
    return Question(DIM, dim, (dim.values * error).astype(np.complex64), False, TOLERANCE["complex64"])


def _one_pixel(reference: Reference, times: float, right: bool) -> Question:
    """One pixel of all off by a part of its limit, or by a multiple of it: what the limit is, is what counts."""
    limit = TOLERANCE["complex64"]
    values = reference.values.copy()
    where = np.unravel_index(int(np.argmax(reference.scale)), values.shape)
    values[where] += times * limit * reference.scale[where]
    return Question(f"one pixel off by {times:g} of its limit", reference, values, right, limit)


def _sign(images: Array) -> Question:
    """A zero of the other sign, where bit for bit is asked."""
    right, wrong = images.copy(), images.copy()
    right[0, 0, 0, 0], wrong[0, 0, 0, 0] = complex(0.0, 0.0), complex(0.0, -0.0)
    reference = Reference(right.astype(np.complex128), np.abs(right.astype(np.complex128)))
    return Question("a zero of the other sign", reference, wrong, False, 0.0)


def _sum(reference: Reference, *, off: float) -> Question:
    """Every pixel within its tolerance, and the sum right, or off by more than it may be."""
    values = np.abs(reference.values)
    summed = Reference(values, values, sum_limit=SUM_LIMIT)
    about = f"a sum that is off by {off:g}, every pixel within its tolerance" if off else "a sum within its limit"
    return Question(about, summed, values * (1 + off), not off, TOLERANCE["complex64"])


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
