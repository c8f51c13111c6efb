"""Queues of real samples: one for each class, and one for all. First in, first out; drawn without replacement.

Source: Deng et al. (2026), A.8. A queue holds rows of the train split, not images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]


class Queues:
    """Queues that are fed from the train split in an order that is drawn anew each time it has gone through.

    Args:
        labels: (n,), the class of each row, from 0 to classes - 1.
        size: rows of a class's queue. whole: of the queue for all classes. push: rows that come in at each step.
        chance: whose draws make the order.
    """

    def __init__(
        self, labels: Index, classes: int, *, size: int, whole: int, push: int, chance: np.random.Generator
    ) -> None:
        self.labels, self.classes, self.push, self.chance = labels, classes, push, chance
        self.order = chance.permutation(len(labels))
        self.place = 0
        rows = [np.flatnonzero(labels == c) for c in range(classes)]
        self.of_class = [chance.permutation(r)[:size].astype(np.int64) for r in rows]
        self.of_all = chance.permutation(len(labels))[:whole].astype(np.int64)
        self.size, self.whole = size, whole

    def feed(self) -> None:
        """Push the next rows; those that have been there longest leave."""
        for _ in range(self.push):
            if self.place == len(self.order):
                self.order, self.place = self.chance.permutation(len(self.labels)), 0
            row = int(self.order[self.place])
            self.place += 1
            own = int(self.labels[row])
            self.of_class[own] = _pushed(self.of_class[own], row, self.size)
            self.of_all = _pushed(self.of_all, row, self.whole)

    def draw(self, label: int, count: int) -> Index:
        """Rows of a class; with replacement only where the queue has fewer."""
        return self._drawn(self.of_class[label], count)

    def draw_all(self, count: int) -> Index:
        """Rows of any class."""
        return self._drawn(self.of_all, count)

    def _drawn(self, queue: Index, count: int) -> Index:
        found: Index = self.chance.choice(queue, count, replace=len(queue) < count)
        return found

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What they hold, for a checkpoint."""
        return {
            "order": self.order.astype(np.int64),
            "place": np.asarray(self.place),
            "all": self.of_all,
            **{f"class.{number:04d}": rows for number, rows in enumerate(self.of_class)},
        }

    def take(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """The other way round.

        Raises:
            KeyError: something is missing.
        """
        self.order, self.place, self.of_all = arrays["order"], int(arrays["place"]), arrays["all"]
        self.of_class = [arrays[f"class.{number:04d}"] for number in range(self.classes)]


def _pushed(queue: Index, row: int, size: int) -> Index:
    kept = queue[queue != row]  # a row stands in a queue once, or it would be drawn twice as often
    return np.append(kept[-(size - 1) :] if size > 1 else kept[:0], row)
