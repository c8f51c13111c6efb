"""What may be translated: checked once, in words, before any backend sees it.

A batch of images and a batch of offsets that differ in length are refused. Tiling or repeating one of them
to fit is how 4 images once met 128 offsets and nobody noticed (`jobs.parity.mutants` keeps that alive).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.devices import KernelRefused

# What every backend translates, each in its own precision.
DTYPES = tuple(np.dtype(name) for name in ("float32", "float64", "complex64", "complex128"))
OFFSETS = tuple(np.dtype(name) for name in ("float16", "float32", "float64"))

_PIECE = 1 << 17  # numbers that are looked at together: the answers stay in the cache


class TranslationRefused(KernelRefused):
    """The arrays cannot be translated; nothing was computed."""


class ShapeMismatch(TranslationRefused):
    """Images and offsets do not belong together."""


def check_shapes(images: Sequence[int | None], offsets: Sequence[int | None]) -> None:
    """Refuse shapes that do not belong together.

    Args:
        images: (..., height, width), at least one leading axis.
        offsets: the same leading axes, then 2: [x, y].

    Raises:
        ShapeMismatch: with the one sentence that says which rule is broken.
    """
    images, offsets = tuple(images), tuple(offsets)
    if None in images or None in offsets:
        raise ShapeMismatch(f"static shapes only: images are {images} and offsets {offsets}")
    if len(images) < 3:
        raise ShapeMismatch(f"images must be (..., height, width) with a batch axis, not {images}")
    if not offsets or offsets[-1] != 2:
        raise ShapeMismatch(f"the last axis of the offsets must be [x, y], so 2 long, not {offsets}")
    if images[:-2] != offsets[:-1]:
        raise ShapeMismatch(
            f"{_count(images[:-2])} images of batch shape {images[:-2]} met {_count(offsets[:-1])} offsets of "
            f"batch shape {offsets[:-1]}: one offset per image, never tiled or repeated"
        )
    if 0 in images:
        raise ShapeMismatch(f"nothing to translate: images are {images}")


def check_arrays(images: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> None:
    """`check_shapes` for arrays on the host, and what only values can tell.

    Raises:
        TranslationRefused: no NumPy array, a wrong shape, a wrong dtype, or an offset that is not a number.
    """
    for name, array in (("images", images), ("offsets", offsets)):
        check_is_array(name, array)
    check_shapes(images.shape, offsets.shape)
    if images.dtype not in DTYPES:
        raise TranslationRefused(f"images must be float or complex ({', '.join(map(str, DTYPES))}), not {images.dtype}")
    # Of this machine's byte order too, as torch has no other.
    if offsets.dtype not in OFFSETS:
        raise TranslationRefused(f"offsets must be real numbers ({', '.join(map(str, OFFSETS))}), not {offsets.dtype}")
    if not np.isfinite(offsets).all():
        where = np.argwhere(~np.isfinite(offsets).all(axis=-1))[0]
        raise TranslationRefused(f"the offset of image {tuple(int(i) for i in where)} is not finite")


def check_is_array(name: str, array: object) -> None:
    """Raises: TranslationRefused: not a NumPy array."""
    if not isinstance(array, np.ndarray):
        raise TranslationRefused(f"{name} must be a NumPy array, not {type(array).__name__}: convert with numpy.array")


def check_finite(images: npt.NDArray[Any]) -> None:
    """Refuse NaN and inf, and say where the first one is. One pass, and a little memory.

    Raises:
        TranslationRefused: a pixel is not finite.
    """
    flat = np.ascontiguousarray(images).view(images.real.dtype).reshape(-1)
    for start in range(0, flat.size, _PIECE):
        fine = np.isfinite(flat[start : start + _PIECE])
        if fine.all():
            continue
        per_pixel = 2 if np.iscomplexobj(images) else 1
        first = (start + int(np.argmin(fine))) // per_pixel
        *image, y, x = (int(i) for i in np.unravel_index(first, images.shape))
        raise TranslationRefused(
            f"image {tuple(image)} is not finite at y {y}, x {x}: a NaN or inf would spread into its neighbours, "
            "so mask it first"
        )


def _count(shape: Sequence[int | None]) -> int:
    return int(np.prod([int(n or 0) for n in shape], dtype=np.int64))
