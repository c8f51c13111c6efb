"""What frames come from: one clip is one sequence, goes through the encoder in one call, and is of one size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]  # (H, W, 3), RGB, C order


class Clip(Protocol):
    """A sequence of original frames.

    Attributes:
        name: of its source, for people.
        width, height: of its frames, in pixels; both even.
    """

    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    def identity(self) -> dict[str, Any]:
        """All that decides the frames, as JSON can hold it: digests of the source's bytes and every setting."""
        ...

    def frames(self) -> Iterator[Frame]:
        """The frames in order, the same at every call; the caller may keep what it is given."""
        ...
