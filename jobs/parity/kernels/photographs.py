"""Real pictures to compute on: photographs that lie in scikit-image's wheel, so nothing is downloaded.

Its own loaders would copy them to a cache and may ask the network, so the files are read as they lie.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import JobFailed

GREY = np.array([0.2125, 0.7154, 0.0721])  # luminance of linear RGB, ITU-R BT.709


@functools.cache
def photograph(name: str) -> npt.NDArray[Any]:
    """One photograph (H, W) as grey values from 0 to 1."""
    pixels = _read(name)
    grey: npt.NDArray[Any] = pixels[..., :3] @ GREY if pixels.ndim == 3 else pixels
    return grey


@functools.cache
def coloured(name: str) -> npt.NDArray[Any]:
    """One photograph (H, W, 3) as values from 0 to 1."""
    pixels = _read(name)
    if pixels.ndim != 3:
        raise JobFailed(f"the photograph {name} has no colours", hint="name another one")
    return pixels[..., :3]


def cut(picture: npt.NDArray[Any], height: int, width: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    """A random window of a picture (H, W, ...)."""
    y, x = (
        int(rng.integers(0, length - side + 1)) for length, side in zip(picture.shape[:2], (height, width), strict=True)
    )
    return picture[y : y + height, x : x + width]


def _read(name: str) -> npt.NDArray[Any]:
    import skimage
    from skimage.io import imread

    path = Path(skimage.__file__).parent / "data" / name
    if not path.is_file():
        raise JobFailed(f"this scikit-image has no photograph {path}", hint="install scikit-image from its wheel")
    return np.asarray(imread(path), dtype=np.float64) / 255.0
