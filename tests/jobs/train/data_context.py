"""What the tests of the training's data share: small frames, and whether there is an encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from core.errors import JobFailed
from jobs.train.data import av1
from jobs.train.data.clip import Frame


def _missing() -> str:
    try:
        av1.library()
    except JobFailed as error:
        return str(error)
    return ""


_why = _missing()
encoder = pytest.mark.skipif(bool(_why), reason=_why)


@dataclass(frozen=True)
class Noise:
    """A clip of frames of noise: nothing that an encoder could be fast or good at, but each one is its own."""

    name: str
    seed: int
    count: int = 4
    width: int = 32
    height: int = 24

    def identity(self) -> dict[str, Any]:
        return {"noise": self.name, "seed": self.seed, "count": self.count, "size": [self.width, self.height]}

    def frames(self) -> Iterator[Frame]:
        rng = np.random.default_rng(self.seed)
        for _ in range(self.count):
            yield rng.integers(0, 256, (self.height, self.width, 3), dtype=np.uint8)
