"""The matrix: which batches are translated, and by what. Pure: no arrays, no processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.parity import Params


class Case(StrEnum):
    MIXED = "mixed"  # sub-pixel, negative, large, integer, zero and beyond-the-edge offsets in one batch
    ZERO = "zero"  # every offset 0: bit for bit
    INTEGER = "integer"  # whole pixels: an exact copy
    PREDICT = "predict"  # MIXED, by a function whose first call was a training batch of another size


EXACT = frozenset({Case.ZERO, Case.INTEGER})
EXACT_SIZE = 16

# 8 unit roundoffs of float32. A sum of four products with rounded weights is off by at most 7, relative to
# the same sum of absolute values; the sides measured here reach 4. In double the oracle rounds as well.
TOLERANCE = {"complex64": 8 * 2.0**-24, "complex128": 16 * 2.0**-53}


@dataclass(frozen=True)
class Cell:
    """One batch that a candidate has to translate."""

    case: Case
    dtype: str
    batch: int
    channels: int
    patch: int
    before: int = 0  # PREDICT: B·C of the call that the same function answers first

    @property
    def size(self) -> int:
        return self.batch * self.channels

    def warm(self) -> Cell | None:
        """The training batch that goes first."""
        if not self.before:
            return None
        return Cell(Case.MIXED, self.dtype, self.before // self.channels, self.channels, self.patch)

    def tolerance(self, asked: float | None) -> float:
        if self.case in EXACT:
            return 0.0
        return TOLERANCE[self.dtype] if asked is None else asked

    def __str__(self) -> str:
        return f"{self.case} {self.dtype} {self.batch}×{self.channels}"


def cells(params: Params) -> Iterator[Cell]:
    """The cells of one candidate, small batches first."""
    for dtype in params.dtypes:
        for size in sorted(params.sizes):
            for c in params.channels:
                if size % c == 0:
                    yield Cell(Case.MIXED, dtype, size // c, c, params.patch)
        for c in params.channels:
            exact = _exact_size(params.sizes, c)
            if exact:
                for case in (Case.ZERO, Case.INTEGER):
                    yield Cell(case, dtype, exact // c, c, params.patch)
        for c in params.channels:
            if params.train % c == 0 and params.predict % c == 0:
                yield Cell(Case.PREDICT, dtype, params.predict // c, c, params.patch, before=params.train)


def _exact_size(sizes: Sequence[int], channels: int) -> int:
    """A batch size of the matrix for the exact cells, so that nothing more has to be compiled for them."""
    fitting = sorted(s for s in sizes if s % channels == 0)
    return next((s for s in fitting if s >= EXACT_SIZE), fitting[-1] if fitting else 0)
