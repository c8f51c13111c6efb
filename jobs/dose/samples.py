"""What a training sees: groups of frames as arrays, batches that follow from the step's number, photons held back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from jobs.dose.dataset import Dataset
from jobs.dose.views_run import Groups
from kernels.diffraction.seeds import generator
from kernels.translation.groups import even_pad, relative

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """Groups in the layout of the network, float32.

    Attributes:
        diffraction: (B, N, N, C). positions: (B, 1, 2, C), about the group's mean, so that float32 holds them.
        target: what the loss holds the answer against: photons (B, C, N, N) for a PINN, else two patches
            (2, B, N, N, C), amplitude and phase.
        constant: the mean over pixels of log(photons!), which is no function of the network; 0 for the supervised.
    """

    diffraction: npt.NDArray[np.float32]
    positions: npt.NDArray[np.float32]
    target: npt.NDArray[np.float32]
    constant: np.float32

    @property
    def tensors(self) -> tuple[Any, ...]:
        return self.diffraction, self.positions, self.target, self.constant


@dataclass(frozen=True)
class Samples:
    """Frames of one split, and which of them are together."""

    data: Dataset
    members: npt.NDArray[np.int32]

    @classmethod
    def of(cls, data: Dataset, groups: Groups) -> Samples:
        return cls(data, groups.members)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def positions(self) -> npt.NDArray[np.float64]:
        """(g, C, 2), [x, y]."""
        return np.stack([self.data.x, self.data.y], axis=-1)[self.members]

    @property
    def pad(self) -> int:
        """Pixels that a group's canvas needs on every side."""
        return even_pad(relative(self.positions))

    def digest(self) -> str:
        """SHA-256 of all that a training sees."""
        whole = hashlib.sha256()
        data = self.data
        for array in (data.diffraction, data.probe_guess, data.x, data.y, data.patches, self.members):
            if array is not None:
                whole.update(f"{array.dtype.str} {array.shape}\n".encode() + np.ascontiguousarray(array).tobytes())
        whole.update(repr(data.meta.get("scale")).encode())
        return whole.hexdigest()

    def photons(self, which: Array, *, held_back: float, chance: np.random.Generator | None) -> Batch:
        """Groups for a PINN.

        Args:
            held_back: this part of the photons, drawn by `chance`, is the target, and only the rest is shown; 0: all
                are both. A network that is judged by photons that it has not seen cannot fit their noise.
        """
        data, index = self.data, self.members[which]
        counts = _counts(data, index)
        if held_back > 0:
            assert chance is not None
            target = chance.binomial(counts, held_back)
            shown = np.sqrt((counts - target) / (1 - held_back)) / data.scale
        else:
            target, shown = counts, np.sqrt(counts.astype(np.float64)) / data.scale
        return Batch(
            _last(shown), self._spots(which), target.astype(np.float32), np.float32(log_factorial(target).mean())
        )

    def truths(self, which: Array) -> Batch:
        """Groups for the supervised arm.

        Raises:
            BadInput: the data has no true patches.
        """
        data, index = self.data, self.members[which]
        if data.patches is None:
            raise BadInput(
                "the supervised arm needs true patches (Y), and this data has none",
                hint="measured data has no truth: use arm=pinn",
            )
        true = _last(data.patches[index])
        target = np.stack([np.abs(true), np.angle(true)]).astype(np.float32)
        return Batch(_last(data.diffraction[index]), self._spots(which), target, np.float32(0))

    def shown(self, count: int) -> Iterator[tuple[Array, Array, Array]]:
        """(groups, diffraction, positions), all groups in order, `count` at a time; the last filled up by repeating."""
        for start in range(0, len(self), count):
            which = np.minimum(np.arange(start, start + count), len(self) - 1)
            yield which, _last(self.data.diffraction[self.members[which]]), self._spots(which)

    def _spots(self, which: Array) -> npt.NDArray[np.float32]:
        return np.moveaxis(-relative(self.positions[which]), 1, -1)[:, None].astype(np.float32)


def groups_of(step: int, *, groups: int, batch: int, seed: int) -> npt.NDArray[np.int64]:
    """Which groups the step (from 0) takes: an endless row of permutations, `batch` at a time. Follows from its words.

    With fewer groups than a batch one may be in it twice.
    """
    wanted = np.arange(step * batch, (step + 1) * batch)
    turns = {t: generator("dose-train", "order", seed, t).permutation(groups) for t in np.unique(wanted // groups)}
    return np.array([turns[w // groups][w % groups] for w in wanted], np.int64)


def log_factorial(counts: Array) -> npt.NDArray[np.float64]:
    """log(k!), double precision."""
    from scipy.special import gammaln

    found: npt.NDArray[np.float64] = gammaln(counts.astype(np.float64) + 1)
    return found


def _counts(data: Dataset, index: Array) -> npt.NDArray[np.int64]:
    wide = data.diffraction[index].astype(np.float64) * data.scale
    return np.rint(wide**2).astype(np.int64)


def _last(frames: Array) -> Array:
    """(B, C, N, N) as (B, N, N, C), in single precision."""
    kind = np.complex64 if np.iscomplexobj(frames) else np.float32
    return np.ascontiguousarray(np.moveaxis(frames, 1, -1)).astype(kind)
