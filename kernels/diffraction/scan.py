"""Where the probe stands: a jittered raster."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Positions are multiples of 1/64 pixel: their bilinear weights, and products with them, are exact.
PHASES = 64


@dataclass(frozen=True)
class Geometry:
    """A raster whose points are moved by chance.

    Attributes:
        rows, cols: what the raster's points span along y and x, pixels.
        step: between neighbouring points, pixels; as many points as fit.
        jitter: by how much a point is moved along each axis at most, pixels.
        size: N, the side of a frame.
        margin: pixels of object around what the patches reach; at least 1, which a bilinear shift reads.
    """

    rows: float
    cols: float
    step: float
    jitter: float
    size: int
    margin: int = 2

    def __post_init__(self) -> None:
        numbers = (self.rows, self.cols, self.step, self.jitter)
        if not all(math.isfinite(v) for v in numbers) or self.rows < 0 or self.cols < 0:
            raise ValueError(f"a scan of {self.cols}×{self.rows} pixels is none")
        if not self.step > 0 or self.jitter < 0:
            raise ValueError(f"a raster has a positive step and no negative jitter, not {self.step} and {self.jitter}")
        if self.size < 2 or self.size % 2 or self.margin < 1:
            raise ValueError(f"a frame has an even side and a margin of 1 or more, not {self.size} and {self.margin}")

    @property
    def points(self) -> tuple[int, int]:
        """Of the raster, (along y, along x)."""
        down, across = (math.floor(extent / self.step + 1e-9) + 1 for extent in (self.rows, self.cols))
        return down, across

    @property
    def border(self) -> int:
        """Pixels from the edge of the object to the raster: half a frame, the jitter and the margin."""
        return self.size // 2 + math.ceil(self.jitter) + self.margin

    @property
    def object_size(self) -> int:
        """M, the side of the square object that holds every patch; even."""
        needed = math.ceil(max(self.rows, self.cols)) + 2 * self.border
        return needed + needed % 2


def scan_positions(
    geometry: Geometry, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(x, y), each (points,), row by row, in pixels of an object of side `geometry.object_size`.

    The raster lies in the middle of the object.
    """
    down, across = geometry.points
    row, column = (a.ravel() for a in np.mgrid[:down, :across])
    moved = rng.uniform(-geometry.jitter, geometry.jitter, (2, down * across))
    middle = geometry.object_size / 2
    x = middle + (column - (across - 1) / 2) * geometry.step + moved[0]
    y = middle + (row - (down - 1) / 2) * geometry.step + moved[1]
    return on_grid(x), on_grid(y)


def on_grid(positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rounded to 1/64 pixel."""
    rounded: npt.NDArray[np.float64] = np.rint(positions * PHASES) / PHASES
    return rounded
