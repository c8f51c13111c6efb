"""The translation kernel under test: batches of complex patches cut from photographs, each image with its own offset.

Amplitude comes from one photograph, phase from another; the astronaut's black background gives dim and empty pixels.
One seed gives the same batch everywhere. Offsets of every kind meet in one batch, because it is their mixture that
broke things: sub-pixel, negative, large, whole, zero, beyond the edge.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.parity.adapter import Adapter, Answer, Array, Cell, Function, Given, Inputs, Mutant, Picture, described
from jobs.parity.kernels.photographs import cut, photograph
from jobs.parity.verdict import Reference
from kernels.translation import build, oracle
from kernels.translation.groups import centred, crop, even_pad, stitch

if TYPE_CHECKING:
    from jobs.parity import Params

# (amplitude, phase) pairs; all 512×512.
PHOTOGRAPHS = (("camera.png", "moon.png"), ("astronaut.png", "gravel.png"), ("brick.png", "camera.png"))
PHASE_SPAN = 0.9 * np.pi  # black is -0.9π, white +0.9π


class Case(StrEnum):
    MIXED = "mixed"  # sub-pixel, negative, large, integer, zero and beyond-the-edge offsets in one batch
    ZERO = "zero"  # every offset 0: bit for bit
    INTEGER = "integer"  # whole pixels: an exact copy
    PREDICT = "predict"  # MIXED, by a function whose first call was a training batch of another size
    SCAN = "scan"  # overlapping patches of one photograph, which make a canvas; in a dump only


EXACT = frozenset({Case.ZERO, Case.INTEGER})
EXACT_SIZE = 16
SCANNED = 16  # patches of a scan, in a square

# 8 unit roundoffs of float32. A sum of four products with rounded weights is off by at most 7, relative to
# the same sum of absolute values; the sides measured here reach 4. In double the oracle rounds as well.
TOLERANCE = {"complex64": 8 * 2.0**-24, "complex128": 16 * 2.0**-53}


def reference(images: Array, offsets: Array) -> Reference:
    """The oracle's answer, and per pixel the size that rounding errors there are relative to."""
    parts = np.abs(images.real) + 1j * np.abs(images.imag)
    return Reference(values=oracle.translate(images, offsets), scale=np.abs(oracle.translate(parts, offsets)))


def patches(case: str, dtype: str, batch: int, channels: int, patch: int, before: int = 0) -> Cell:
    """A cell of square patches."""
    return Cell(case, dtype, batch, channels, patch, patch, before)


class Translation(Adapter):
    """Images (B, C, N, N) complex and offsets (B, C, 2) real, [x, y] in pixels; an answer has the images' shape."""

    name = "translation"

    def cells(self, candidate: str = "") -> Sequence[Cell]:
        found = cells(self.params)
        return [*found, self.dumped()] if self.params.dump else found

    def given(self, cell: Cell) -> Given:
        tolerance = 0.0 if cell.case in EXACT else self.params.tolerance or TOLERANCE[cell.dtype]
        return batch(cell, self.params.seed).given(tolerance)

    def mutants(self) -> Mapping[str, Mutant]:
        from jobs.parity.kernels.translation_mutants import mutants

        return mutants(self.params.patch)

    def warm(self, cell: Cell) -> Cell | None:
        if not cell.before:
            return None
        return patches(Case.MIXED, cell.dtype, cell.before // cell.channels, cell.channels, cell.height)

    def picture(self, cell: Cell, values: Array) -> Picture | None:
        if cell.case != Case.MIXED:
            return None
        filled = batch(cell, self.params.seed)
        frame = (-1, cell.height, cell.width)
        scale = filled.reference.scale.reshape(frame)
        offsets = filled.offsets.reshape(-1, 2)
        with np.errstate(all="ignore"):
            relative = np.abs(values - filled.reference.values).reshape(frame) / scale
        relative = np.where(scale > 0, relative, 0.0)
        # A picture of nothing, or of no visible movement, shows little: of the rest the worst.
        telling = ((scale > 0).mean(axis=(1, 2)) > 0.6) & (offsets != np.floor(offsets)).any(axis=1)
        telling &= np.abs(offsets).max(axis=1) > (2 if len(offsets) > 4 else 0)
        if not telling.any():
            return None
        which = int(np.where(telling, relative.max(axis=(1, 2)), -1).argmax())
        tx, ty = (float(v) for v in offsets[which])
        return Picture(
            f"image {which}, content moved by [{tx:+.3f}, {ty:+.3f}] px",
            "amplitude",
            np.abs(filled.images.reshape(frame)[which]),
            np.abs(filled.reference.values.reshape(frame)[which]),
            np.abs(values.reshape(frame)[which]),
            relative[which],
            TOLERANCE[cell.dtype],
        )

    def dumped(self) -> Cell:
        return patches(Case.SCAN, self.params.dtypes[0], SCANNED, 1, self.params.patch)

    def notes(self, cell: Cell) -> dict[str, Any]:
        offsets = batch(cell, self.params.seed).offsets.reshape(-1, 2)
        places = _scanned(cell.height) - offsets
        return {
            "offsets": offsets.tolist(),
            "positions": places.tolist(),
            "pad": even_pad(centred(places)),
        }

    def has_canvas(self, cell: Cell) -> bool:
        return cell.case == Case.SCAN

    def canvas(self, cell: Cell, values: Array) -> Array:
        # Content moved by +t, so a patch shows what lies at its place minus t.
        places = _scanned(cell.height) - batch(cell, self.params.seed).offsets.reshape(-1, 2).astype(np.float64)
        # The outermost line of a moved patch is half of nothing, and would be a seam.
        inner = crop(values.reshape(-1, cell.height, cell.width), (cell.height - 2, cell.width - 2))
        return np.abs(stitch(np.ascontiguousarray(inner, dtype=np.complex128), places))

    placeholders = ("images", "offsets")

    def program_shape(self, cell: Cell) -> tuple[int, ...]:
        return (cell.batch, cell.channels, cell.height, cell.width, 2)  # real, imaginary

    def from_program(self, cell: Cell, floats: Array) -> Array:
        return np.asarray(floats[..., 0] + 1j * floats[..., 1])

    @staticmethod
    def effective(inputs: Inputs) -> str:
        return described(inputs.arrays)

    @staticmethod
    def load(target: str, threads: int) -> Function:
        return _Call(build(target, threads=threads))

    @staticmethod
    def spoiled(name: str) -> Function:
        from jobs.parity.kernels.translation_mutants import SPOILED

        return _Call(SPOILED[name])

    @staticmethod
    def wrapped(function: Callable[..., Any]) -> Function:
        """(images (B, C, H, W) complex, offsets (B, C, 2) real) -> images."""
        return _Call(function)


class _Call:
    """A translation in its own signature, behind the one that sides use."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, inputs: Inputs) -> Answer:
        return Answer(np.asarray(self._function(inputs.arrays["images"], inputs.arrays["offsets"])))

    def evidence(self) -> dict[str, Any]:
        tell = getattr(self._function, "evidence", None)
        return dict(tell()) if callable(tell) else {}


def cells(params: Params) -> list[Cell]:
    """The cells of one candidate, small batches first."""
    out = []
    for dtype in params.dtypes:
        for size in sorted(params.sizes):
            out += [patches(Case.MIXED, dtype, size // c, c, params.patch) for c in params.channels if size % c == 0]
        for c in params.channels:
            exact = _exact_size(params.sizes, c)
            if exact:
                out += [patches(case, dtype, exact // c, c, params.patch) for case in (Case.ZERO, Case.INTEGER)]
        out += [
            patches(Case.PREDICT, dtype, params.predict // c, c, params.patch, before=params.train)
            for c in params.channels
            if params.train % c == 0 and params.predict % c == 0
        ]
    return out


@dataclass(frozen=True)
class Batch:
    """What a candidate is given (images (B, C, N, N), offsets (B, C, 2)) and what it should give back."""

    images: Array
    offsets: Array
    reference: Reference
    effective: str

    def given(self, tolerance: float) -> Given:
        inputs = Inputs({"images": self.images, "offsets": self.offsets})
        return Given(inputs, self.effective, self.reference, tolerance)


@functools.lru_cache(maxsize=8)
def batch(cell: Cell, seed: int) -> Batch:
    """The batch of one cell with its float64 reference."""
    rng = np.random.default_rng([seed, list(Case).index(Case(cell.case)), cell.size, cell.channels])
    lead = (cell.batch, cell.channels)
    found = _scan(cell.height) if cell.case == Case.SCAN else _patches(cell.size, cell.height, rng)
    images = found.reshape(*lead, cell.height, cell.width).astype(cell.dtype)
    real = np.float32 if cell.dtype == "complex64" else np.float64
    # Rounded first: the oracle widens the very numbers that the candidate gets.
    offsets = _offsets(Case(cell.case), cell.size, cell.height, rng).reshape(*lead, 2).astype(real)
    for array in (images, offsets):
        array.setflags(write=False)
    words = described({"images": images, "offsets": offsets})
    return Batch(images, offsets, reference(images, offsets), words)


def _exact_size(sizes: Sequence[int], channels: int) -> int:
    """A batch size of the matrix for the exact cells, so that nothing more has to be compiled for them."""
    fitting = sorted(s for s in sizes if s % channels == 0)
    return next((s for s in fitting if s >= EXACT_SIZE), fitting[-1] if fitting else 0)


def _patches(count: int, patch: int, rng: np.random.Generator) -> Array:
    out = np.empty((count, patch, patch), dtype=np.complex128)
    for i in range(count):
        amplitude, phase = (photograph(name) for name in PHOTOGRAPHS[i % len(PHOTOGRAPHS)])
        turned = PHASE_SPAN * (2 * cut(phase, patch, patch, rng) - 1)
        out[i] = cut(amplitude, patch, patch, rng) * np.exp(1j * turned)
    return out


def _scan(patch: int) -> Array:
    """Patches of one photograph at the places of `_scanned`."""
    amplitude, phase = (photograph(name) for name in PHOTOGRAPHS[0])
    whole = amplitude * np.exp(1j * PHASE_SPAN * (2 * phase - 1))
    corner = 128 - patch // 4  # the head of the man with the camera
    starts = (_scanned(patch) + corner).astype(int)
    return np.stack([whole[y : y + patch, x : x + patch] for x, y in starts])


def _scanned(patch: int) -> Array:
    """(n, 2) [x, y]: places that overlap by more than half."""
    edge = math.isqrt(SCANNED)
    return np.array([[x, y] for y in range(edge) for x in range(edge)], dtype=np.float64) * (patch // 3)


def _offsets(case: Case, count: int, patch: int, rng: np.random.Generator) -> Array:
    if case is Case.ZERO:
        return np.zeros((count, 2))
    if case is Case.SCAN:
        return np.asarray(rng.uniform(-0.5, 0.5, size=(count, 2)))
    if case is Case.INTEGER:
        whole = rng.integers(-patch // 2, patch // 2 + 1, size=(count, 2)).astype(np.float64)
        whole[0] = (1, -2)
        whole[-1] = (patch + 3, -1) if count > 4 else whole[-1]
        return whole
    ways = (_small, _large, _small_negative, _whole, _one_axis, _nothing, _beyond, _almost_out)
    return np.array([ways[i % len(ways)](patch, rng) for i in range(count)])


def _small(_patch: int, rng: np.random.Generator) -> Array:
    return np.asarray(rng.uniform(0.05, 0.95, size=2) * rng.choice((-1, 1), size=2))


def _large(_patch: int, rng: np.random.Generator) -> Array:
    return np.asarray(rng.uniform(1.05, 8.95, size=2) * rng.choice((-1, 1), size=2))


def _small_negative(_patch: int, rng: np.random.Generator) -> Array:
    return -(10.0 ** rng.uniform(-4, -0.5, size=2))


def _whole(_patch: int, rng: np.random.Generator) -> Array:
    return np.asarray(rng.integers(1, 10, size=2) * rng.choice((-1.0, 1.0), size=2))


def _one_axis(_patch: int, rng: np.random.Generator) -> Array:
    return np.array([rng.uniform(-3, 3), rng.integers(-3, 4)])


def _nothing(_patch: int, _rng: np.random.Generator) -> Array:
    return np.zeros(2)


def _beyond(patch: int, rng: np.random.Generator) -> Array:
    return np.array([rng.uniform(patch, 2 * patch), rng.uniform(-3, 3)])


def _almost_out(patch: int, rng: np.random.Generator) -> Array:
    return np.array([rng.uniform(-3, 3), -(patch - rng.uniform(0.1, 0.9))])
