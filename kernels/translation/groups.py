"""Around the kernel: patches out of a group's canvas, a group put together again, all patches in one picture.

A group is C patches that were taken close together; o_c is where patch c lies, [x, y] in pixels.

    r_c        = -(o_c - mean_C o)
    extract    = crop_N(T(canvas, +r_c))
    reassemble = Σ_c T(pad(patch_c), -r_c) / Σ_c T(pad(weight), -r_c)          one canvas for each group
    a_i        = o_i - mean o
    stitch     = Σ_i T(pad(crop_i), +a_i) / Σ_i T(pad(1), +a_i)                 one canvas for all

`pad` is on every side: the largest offset, rounded up and made even, so nothing is moved out of the canvas, and
`crop_N` takes the middle. Where no patch lies the canvas is 0.

| | patches | positions | canvas |
|---|---|---|---|
| here | (B, C, N, N) | (B, C, 2) | (B, M, M) |
| `groups_torch` | (B, C, N, N) | (B, C, 1, 2) | (B, 1, M, M) |
| `groups_tensorflow` | (B, N, N, C) | (B, 1, 2, C) | (B, M, M, 1) |

Here T is any backend by name: `numpy` is the oracle in double precision, `numba` the fast one. Frames need not
be square. The batch axis is never lost, tiled or repeated; what does not fit together is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.translation import Translate, build
from kernels.translation.shapes import (
    ShapeMismatch,
    TranslationRefused,
    check_arrays,
    check_finite,
    check_is_array,
    check_shapes,
)

Array = npt.NDArray[Any]

# Padded patches that are in memory at a time, in bytes; one at least.
HELD_BYTES = 32 << 20

# A canvas with this much on every side is more than any memory: a position is in other units, or wrong.
MAX_PAD = 1 << 16


def extract(canvas: Array, positions: Array, frame: tuple[int, int], *, backend: str = "numpy") -> Array:
    """The patches of each group: crop(T(canvas, +r_c)).

    Args:
        canvas: (B, H, W), real or complex.
        positions: (B, C, 2), [x, y].
        frame: rows and columns of a patch; what a canvas has more has to be even.

    Returns:
        (B, C, rows, columns); in double precision from the oracle, else in that of the canvas.
    """
    _check_are_arrays(canvas=canvas, positions=positions)
    check_extract(canvas.shape, positions.shape, frame)
    check_finite(canvas)
    run = build(backend, finite=False)
    wide = canvas[:, None]
    moves = relative(positions)
    found = [crop(run(np.ascontiguousarray(wide), moves[:, [c]]), frame) for c in range(positions.shape[1])]
    return np.concatenate(found, axis=1)


def reassemble(
    patches: Array, positions: Array, *, weight: Array | None = None, pad: int | None = None, backend: str = "numpy"
) -> Array:
    """The canvas of each group: the weighted mean of its patches, each moved back to its place by -r_c.

    Args:
        patches: (B, C, N, N).
        positions: (B, C, 2), [x, y].
        weight: (N, N), real, not negative; 1 everywhere if left out.
        pad: pixels on every side; `even_pad` of all r_c if left out.

    Returns:
        (B, N + 2·pad, N + 2·pad).
    """
    _check_are_arrays(patches=patches, positions=positions, weight=weight)
    check_group(patches.shape, positions.shape)
    moves = -relative(positions)
    pad = checked_pad(pad, moves)
    check_arrays(patches, moves)
    check_finite(patches)
    run, patches = build(backend, finite=False), _widened(patches, backend)
    weight = checked_weight(weight, patches.shape[-2:], patches.real.dtype)
    groups = [_mean(group, weight, at, pad, run) for group, at in zip(patches, moves, strict=True)]
    return np.stack(groups)


def stitch(crops: Array, positions: Array, *, pad: int | None = None, backend: str = "numpy") -> Array:
    """One picture of everything: the mean of all crops, each moved to its place by a_i.

    Args:
        crops: (n, m, m).
        positions: (n, 2), [x, y].
        pad: pixels on every side; `even_pad` of all a_i if left out.

    Returns:
        (m + 2·pad, m + 2·pad).
    """
    _check_are_arrays(crops=crops, positions=positions)
    check_shapes(crops.shape, positions.shape)
    moves = centred(positions)
    pad = checked_pad(pad, moves)
    check_arrays(crops, moves)
    check_finite(crops)
    crops = _widened(crops, backend)
    weight = checked_weight(None, crops.shape[-2:], crops.real.dtype)
    return _mean(crops, weight, moves, pad, build(backend, finite=False))


def relative(positions: Array) -> npt.NDArray[np.float64]:
    """r_c = -(o_c - mean_C o), for (B, C, 2), in double precision: positions are large, their differences not."""
    wide = np.asarray(positions, dtype=np.float64)
    apart: npt.NDArray[np.float64] = wide.mean(axis=1, keepdims=True) - wide
    return apart


def centred(positions: Array) -> npt.NDArray[np.float64]:
    """a_i = o_i - mean o, for (n, 2), in double precision."""
    wide = np.asarray(positions, dtype=np.float64)
    apart: npt.NDArray[np.float64] = wide - wide.mean(axis=0)
    return apart


def even_pad(moves: Array) -> int:
    """The largest offset, rounded up and made even."""
    far = math.ceil(float(np.abs(moves).max()))
    return far + far % 2


def crop(images: Any, frame: tuple[int, int]) -> Any:
    """The middle of (..., H, W)."""
    top, left = ((have - want) // 2 for have, want in zip(images.shape[-2:], frame, strict=True))
    return images[..., top : top + frame[0], left : left + frame[1]]


# What is refused, for every library: shapes here are (B, C, N, N), (B, C, 2) and (B, H, W).


def check_group(patches: Sequence[int | None], positions: Sequence[int | None]) -> None:
    """Raises: ShapeMismatch: patches and positions do not belong together."""
    if len(patches) != 4 or len(positions) != 3 or positions[-1] != 2 or tuple(patches[:2]) != tuple(positions[:2]):
        raise ShapeMismatch(
            f"patches (B, C, N, N) are {tuple(patches)} and positions (B, C, 2) are {tuple(positions)}: "
            "one position per patch, never tiled or repeated"
        )
    if None in patches or 0 in patches:
        raise ShapeMismatch(f"a group needs patches, of a shape that is known: they are {tuple(patches)}")


def check_extract(canvas: Sequence[int | None], positions: Sequence[int | None], frame: tuple[int, int]) -> None:
    """Raises: ShapeMismatch: another number of canvases than groups, or a frame that has no place in the middle."""
    if len(canvas) != 3 or len(positions) != 3 or positions[-1] != 2 or canvas[0] != positions[0]:
        raise ShapeMismatch(
            f"canvases (B, H, W) are {tuple(canvas)} and positions (B, C, 2) are {tuple(positions)}: "
            "one canvas per group, never tiled or repeated"
        )
    if None in canvas or None in positions or 0 in canvas or 0 in positions:
        raise ShapeMismatch(f"nothing to extract: canvases are {tuple(canvas)} and positions {tuple(positions)}")
    if len(frame) != 2 or not all(isinstance(n, (int, np.integer)) for n in frame):
        raise ShapeMismatch(f"the frame of a patch is (rows, columns), two whole numbers, not {frame}")
    for have, want in zip(canvas[1:], frame, strict=True):
        if have is None or want < 1 or have < want or (have - want) % 2:
            raise ShapeMismatch(
                f"a patch of {want} has no place in the middle of a canvas of {have}: "
                "it has to fit, and what the canvas has more has to be even"
            )


def checked_pad(pad: int | None, moves: Array) -> int:
    """The pad asked for, or the one that the offsets need.

    Raises:
        TranslationRefused: an offset that is not finite or too far for any canvas, or a pad over which patches
            would be moved out.
    """
    if not np.isfinite(moves).all():
        raise TranslationRefused("a position is not finite: a patch without a place cannot be put together")
    needed = even_pad(moves)
    if needed > MAX_PAD:
        raise TranslationRefused(
            f"a position is {np.abs(moves).max():g} pixels from the mean of its group, and a canvas reaches {MAX_PAD} "
            "at most: give positions in pixels"
        )
    if pad is None:
        return needed
    if isinstance(pad, bool) or not isinstance(pad, (int, np.integer)) or pad > MAX_PAD:
        raise TranslationRefused(f"a pad is a whole number of pixels, {MAX_PAD} at most, not {pad!r}")
    if pad < 0 or pad < np.abs(moves).max():
        raise TranslationRefused(f"a pad of {pad} is less than the largest offset: it has to be {needed} or more")
    return pad


def checked_weight(weight: Array | None, frame: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The weight of each pixel of a patch, real; 1 if left out.

    Raises:
        TranslationRefused: not of the patch's frame, or not a real number that is at least 0.
    """
    if weight is None:
        return np.ones(frame, dtype)
    if weight.shape != tuple(frame):
        raise ShapeMismatch(f"the weight is {weight.shape}, but a patch is {tuple(frame)}")
    if np.iscomplexobj(weight) or not np.isfinite(weight).all() or (weight < 0).any() or not (weight > 0).any():
        raise TranslationRefused("a weight has to be real, finite and not negative, and not 0 everywhere")
    return weight.astype(dtype)


def _check_are_arrays(**arrays: Array | None) -> None:
    for name, array in arrays.items():
        if array is not None:
            check_is_array(name, array)


def _widened(images: Array, backend: str) -> Array:
    """In double precision for the oracle, so that weighing the patches rounds no more than moving them."""
    if backend != "numpy":
        return images
    return images.astype(np.complex128 if np.iscomplexobj(images) else np.float64)


def _mean(images: Array, weight: Array, moves: Array, pad: int, run: Translate) -> Array:
    """Σ T(pad(weight·image)) / Σ T(pad(weight)), a few images at a time."""
    around = ((0, 0), (pad, pad), (pad, pad))
    height, width = (n + 2 * pad for n in images.shape[1:])
    count = max(1, HELD_BYTES // (height * width * images.itemsize))
    total: Any = 0
    weights: Any = 0
    for start in range(0, len(images), count):
        part, at = images[start : start + count], moves[start : start + count]
        shares = np.broadcast_to(weight, part.shape)
        total = total + run(np.pad(part * shares, around), at).sum(axis=0)
        weights = weights + run(np.pad(shares, around), at).sum(axis=0)
    return np.asarray(np.divide(total, weights, out=np.zeros_like(total), where=weights > 0))
