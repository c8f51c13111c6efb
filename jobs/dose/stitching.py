"""One object out of many patches, each at its place between pixels, weighted by the probe's intensity.

Diffraction does not change with a constant phase of the object, so a patch that was found from its own frame has an
arbitrary one. `constant_phases` finds those of all patches together, from where they overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.translation import translate

Array = npt.NDArray[Any]
SEEN = 0.1  # of the light of one probe's brightest pixel: with less a pixel is not covered
# How much the phase counts that a patch was found with, in parts of its light: next to nothing where patches overlap.
ANCHOR = 1e-3
_AT_ONCE = 64


class Canvas:
    """Collects patches of frames whose positions are known beforehand.

    Args:
        x, y: (n,), of pixel [N/2, N/2] of every patch that may come.
        weight: (N, N), not negative.
    """

    def __init__(self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], weight: Array) -> None:
        self.size = weight.shape[0]
        self.weight = np.asarray(weight, np.float64)
        top, left = np.floor(y).astype(int) - self.size // 2, np.floor(x).astype(int) - self.size // 2
        # One more on the far side: a patch between two pixels reaches there.
        self.origin = (int(top.min()), int(left.min()))
        height, width = int(np.ptp(top)) + self.size + 1, int(np.ptp(left)) + self.size + 1
        self._sum = np.zeros((height, width), np.complex128)
        self._weights = np.zeros((height, width))

    def add(self, patches: Array, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> None:
        """Patches (m, N, N), complex, at (m,) positions."""
        for start in range(0, len(patches), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            self._add(patches[part], x[part], y[part])

    def _add(self, patches: Array, x: Array, y: Array) -> None:
        column, row = np.floor(x), np.floor(y)
        offsets = np.stack([x - column, y - row], axis=-1)
        around = ((0, 0), (0, 1), (0, 1))
        shares = np.broadcast_to(self.weight, patches.shape)
        moved = translate(np.pad(patches.astype(np.complex128) * self.weight, around), offsets)
        weights = translate(np.pad(shares, around), offsets)
        for i in range(len(patches)):
            top = int(row[i]) - self.size // 2 - self.origin[0]
            left = int(column[i]) - self.size // 2 - self.origin[1]
            place = (slice(top, top + self.size + 1), slice(left, left + self.size + 1))
            self._sum[place] += moved[i]
            self._weights[place] += weights[i]

    def picture(self) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.bool_]]:
        """(object, covered): the weighted mean; 0 and False where there is hardly any light."""
        covered = self._weights >= SEEN * self.weight.max()
        mean = self._sum / np.where(covered, self._weights, 1.0)
        found: npt.NDArray[np.complex64] = np.where(covered, mean, 0).astype(np.complex64)
        return found, covered


def stitch_weight(probe: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """|P|² of a probe (N, N) in parts of its greatest."""
    power: npt.NDArray[np.float64] = np.abs(probe.astype(np.complex128)) ** 2
    relative: npt.NDArray[np.float64] = power / power.max()
    return relative


def stitched(
    patches: Array, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], probe: Array
) -> tuple[npt.NDArray[np.complex64], tuple[int, int], npt.NDArray[np.bool_]]:
    """(object, origin, covered) of patches (n, N, N), complex, at (n,) positions, less each one's constant phase.

    Every arm that answers in patches goes through here, trained or not.
    """
    weight = stitch_weight(probe)
    turned = patches * np.exp(-1j * constant_phases(patches, x, y, weight))[:, None, None]
    canvas = Canvas(x, y, weight)
    canvas.add(turned, x, y)
    picture, covered = canvas.picture()
    return picture, canvas.origin, covered


def constant_phases(
    patches: Array, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], weight: Array
) -> npt.NDArray[np.float64]:
    """Angles θ (n,) such that patches·exp(-iθ) agree best where they overlap.

    The phases of the leading eigenvector of H_ij = Σ w_i·w_j·p_i·conj(p_j) over the pixels that two patches share (at
    whole pixels), each row in parts of its light (angular synchronisation: Singer, 2011).

    Every patch overlaps a little with a flat object, too. Patches that hardly overlap with the rest, as groups of a
    sparse view, would otherwise get the angles of rounding errors: they keep the mean phase that they were found with.
    """
    size, count = weight.shape[0], len(patches)
    row, column = np.rint(y).astype(int), np.rint(x).astype(int)
    weighted = patches * np.asarray(weight, np.float64)
    shared = np.zeros((count + 1, count + 1), np.complex128)
    # The light of a probe is in the middle: patches half a frame apart share next to none.
    for i in range(count):
        near = np.nonzero((np.abs(row - row[i]) < size // 2) & (np.abs(column - column[i]) < size // 2))[0]
        for j in near[near > i]:
            own, other = _shared(row[j] - row[i], column[j] - column[i], size)
            shared[i, j] = np.vdot(weighted[j][other], weighted[i][own])
    shared[:count, count] = ANCHOR * np.tensordot(weighted, np.asarray(weight, np.float64), 2)
    shared += shared.conj().T
    light = np.abs(shared).sum(axis=1)
    root = np.sqrt(np.where(light > 0, light, 1.0))
    # Above 0 in the diagonal, so that the leading one is not the one of alternating signs.
    _, vectors = np.linalg.eigh(shared / root[:, None] / root[None, :] + np.eye(count + 1))
    leading = vectors[:count, -1]
    turn = leading.sum()
    angles: npt.NDArray[np.float64] = np.angle(leading * np.conj(turn if abs(turn) > 0 else 1))
    return angles


def _shared(down: int, right: int, size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The pixels of a patch, and of one that lies so far from it, that are the same of the object."""
    own = slice(max(0, down), size + min(0, down)), slice(max(0, right), size + min(0, right))
    other = slice(max(0, -down), size + min(0, -down)), slice(max(0, -right), size + min(0, -right))
    return own, other
