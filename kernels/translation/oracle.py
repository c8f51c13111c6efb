"""The oracle: NumPy, float64 and complex128, the definition written down term by term.

Slow and plain on purpose. Everything else is judged against it, and it is itself held against a per-pixel
loop and `scipy.ndimage.shift(mode="grid-constant")` in the tests.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt


def translate(images: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Translate (..., H, W) by (..., 2) in double precision, whatever the input's precision."""
    complex_in = np.iscomplexobj(images)
    planes = np.ascontiguousarray(images, dtype=np.complex128 if complex_in else np.float64)
    height, width = planes.shape[-2:]
    flat = planes.reshape(-1, height, width)
    shifts = np.asarray(offsets, dtype=np.float64).reshape(-1, 2)
    out = np.empty_like(flat)
    for image, moved, (tx, ty) in zip(flat, out, shifts, strict=True):
        # Real and imaginary part separately: a complex product would mix 0·inf and the sign of zero in.
        if complex_in:
            moved.real = _shift(image.real, float(tx), float(ty))
            moved.imag = _shift(image.imag, float(tx), float(ty))
        else:
            moved[...] = _shift(image, float(tx), float(ty))
    return out.reshape(planes.shape)


def make() -> Any:
    """The oracle as a backend."""
    return translate


def _shift(image: npt.NDArray[Any], tx: float, ty: float) -> npt.NDArray[np.float64]:
    """out = (1-wx)(1-wy)·I00 + wx(1-wy)·I10 + (1-wx)wy·I01 + wx·wy·I11, terms of weight 0 left out.

    Leaving them out is what makes an integer shift an exact copy, the sign of zero and NaN included.
    """
    height, width = image.shape
    x0, y0 = math.floor(-tx), math.floor(-ty)
    # Each weight by a subtraction of its own: the small one of 1 - w would keep few digits.
    right, left = -tx - x0, (tx - math.floor(tx)) or 1.0
    below, above = -ty - y0, (ty - math.floor(ty)) or 1.0
    terms = [
        (weight, dx, dy)
        for dx, dy, weight in (
            (0, 0, left * above),
            (1, 0, right * above),
            (0, 1, left * below),
            (1, 1, right * below),
        )
        if (right != 0 or dx == 0) and (below != 0 or dy == 0)
    ]
    window = _window(image, x0, y0)
    parts = [weight * window[dy : dy + height, dx : dx + width] for weight, dx, dy in terms]
    out = parts[0]
    for part in parts[1:]:
        out = out + part
    return out


def _window(image: npt.NDArray[Any], x0: int, y0: int) -> npt.NDArray[np.float64]:
    """The (H+1, W+1) pixels from (x0, y0) on, 0 where the image has none."""
    height, width = image.shape
    window = np.zeros((height + 1, width + 1))
    top, bottom = max(y0, 0), min(y0 + height + 1, height)
    left, right = max(x0, 0), min(x0 + width + 1, width)
    if top < bottom and left < right:
        window[top - y0 : bottom - y0, left - x0 : right - x0] = image[top:bottom, left:right]
    return window
