"""Small frames and recipes for the tests of the training, and hooks that remember."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from jobs.train.loop import StepRow
from jobs.train.model import Model
from jobs.train.passes import Pair
from jobs.train.recipe import Recipe


@dataclass(frozen=True)
class Pictures:
    """(n, 2, H, W, 3) uint8 each."""

    original: npt.NDArray[np.uint8]
    decoded: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.original)


def pictures(pairs: int, height: int, width: int, seed: int = 0) -> Pictures:
    """Smooth waves; the decoded ones are noisy and coarse."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    phases = rng.uniform(0, 6, (pairs, 2, 1, 1, 3))
    waves = np.sin(0.31 * x[..., None] + phases) * np.cos(0.17 * y[..., None] - phases)
    exact = 127 + 135 * waves  # some of it is beyond 0 and 255
    decoded = exact + rng.normal(0, 9, exact.shape)
    return Pictures(*(np.clip(np.rint(part), 0, 255).astype(np.uint8) for part in (exact, decoded)))


def tensors(frames: Pictures, *, both: bool = False, seed: int = 0) -> list[Pair]:
    """The pairs with a saliency of any numbers."""
    rng = np.random.default_rng(seed)
    count, height, width = 2 if both else 1, *frames.original.shape[2:4]
    return [
        Pair(
            torch.from_numpy(frames.original[k]),
            torch.from_numpy(frames.decoded[k]),
            torch.from_numpy(rng.integers(0, 256, (count, height, width), dtype=np.uint8)),
        )
        for k in range(len(frames))
    ]


def recipe(**changed: Any) -> Recipe:
    return Recipe(**{"epochs": 4, "h": 4, "pairs": 5, "pairs_per_epoch": 5, "group": 2, **changed})


@dataclass
class Remembered:
    """Hooks: every row, the model after every step of `due_at`, and a stop wish after `stop_at` steps."""

    due_at: frozenset[int] = frozenset()
    stop_at: int | None = None
    seen: list[StepRow] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    save: Any = None
    made: int = 0

    def rows(self, rows: Sequence[StepRow]) -> None:
        self.seen.extend(rows)

    def due(self, step: int) -> bool:
        self.made = step
        return step in self.due_at

    def checkpoint(self, model: Model) -> None:
        self.kept.append(model.steps)
        if self.save is not None:
            self.save(model)

    def stopping(self) -> bool:
        return self.made == self.stop_at


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
