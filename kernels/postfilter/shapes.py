"""What may be filtered and how a frame is cut: checked once, in words, before any backend sees it."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from kernels.devices import KernelRefused

# The frame untiled, layer after layer.
WHOLE: Final = "whole"
# What a caller may ask for; None leaves the choice to the backend.
TileShape = tuple[int, int] | Literal["whole"] | None
Tile = tuple[int, int, int, int]

# Each output pixel sees 7×7 input pixels. A smaller tile would be more halo than tile.
RECEPTIVE = 7
# Widest of the backend's own tiles: for 64 channels its kept rows are 1 MB. Wider is some percent faster where a
# third-level cache is near, and far slower where there is none.
OWN_WIDTH = 600


class PostfilterRefused(KernelRefused):
    """The frames, weights or tiles cannot be used; nothing was computed."""


def check_frames(frames: npt.NDArray[Any]) -> None:
    """Refuse what is no batch of RGB frames.

    Args:
        frames: (n, 3, H, W) float32 with values from 0 to 255.

    Raises:
        PostfilterRefused: a wrong shape or dtype, a value that is not a number, or one outside the range.
    """
    if not isinstance(frames, np.ndarray):
        raise PostfilterRefused(f"frames must be a NumPy array, not {type(frames).__name__}")
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise PostfilterRefused(f"frames must be (n, 3, height, width), not {frames.shape}")
    if 0 in frames.shape:
        raise PostfilterRefused(f"nothing to filter: frames are {frames.shape}")
    if frames.dtype != np.float32:
        raise PostfilterRefused(f"frames must be float32 with values from 0 to 255, not {frames.dtype}: convert them")
    # The smallest and the largest value are NaN if any value is: two passes in all when nothing is wrong.
    if frames.min() >= 0 and frames.max() <= 255:
        return
    wrong = ~np.isfinite(frames)
    what = "is not finite" if wrong.any() else "is outside 0 to 255"
    where = np.argwhere(wrong if wrong.any() else (frames < 0) | (frames > 255))[0]
    n, c, y, x = (int(i) for i in where)
    raise PostfilterRefused(
        f"the value {frames[n, c, y, x]:g} of frame {n}, channel {'RGB'[c]}, row {y}, column {x} {what}: "
        "filter frames of plain pixel values"
    )


def check_tile(tile: object) -> TileShape:
    """The tile as (rows, columns), `WHOLE`, or None; one number means a square.

    Raises:
        PostfilterRefused: not a tile, or smaller than the 7×7 pixels that one output pixel sees.
    """
    if tile is None:
        return None
    if isinstance(tile, str) and tile == WHOLE:
        return WHOLE
    sides = tile if isinstance(tile, (tuple, list)) else (tile, tile)
    if len(sides) != 2 or not all(type(side) is int for side in sides):
        raise PostfilterRefused(f"a tile is one number of pixels, (rows, columns), or {WHOLE!r}, not {tile!r}")
    if min(sides) < RECEPTIVE:
        raise PostfilterRefused(
            f"a tile of {sides[0]}×{sides[1]} pixels is too small: one output pixel sees {RECEPTIVE}×{RECEPTIVE}, "
            f"so let both sides be {RECEPTIVE} or more"
        )
    return sides[0], sides[1]


def own_tile(height: int, width: int, threads: int) -> tuple[int, int]:
    """The tile that is used when none is asked for: narrow enough for the cache, and as many for each thread."""
    across = -(-width // OWN_WIDTH)
    # Several for each thread, so that one that is held up keeps the others waiting for one tile at most.
    down = 1
    while threads > 1 and (across * down < 4 * threads or across * down % threads):
        down += 1
    return max(-(-height // down), RECEPTIVE), max(-(-width // across), RECEPTIVE)


def cut(height: int, width: int, tile: tuple[int, int]) -> list[Tile]:
    """The tiles of a frame as (y0, y1, x0, x1), half-open, in reading order; the last ones may be smaller."""
    rows, columns = tile
    return [
        (y, min(y + rows, height), x, min(x + columns, width))
        for y in range(0, height, rows)
        for x in range(0, width, columns)
    ]
