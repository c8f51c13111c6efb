"""Sub-pixel translation of image batches: one signature, several backends, chosen by name.

    out[y, x] = bilinear(in, y - ty, x - tx),  0 outside the image

Content moves by +t, and the last axis of an offset is [x, y]. A neighbour outside the image contributes 0
(partial weights at the border). Zero shift returns the image bit for bit; an integer shift is an exact copy.
Every backend takes NumPy arrays and returns one; below that, each module has the same function on its own
tensors (`torch_.translate`, `torch_.translate_bchw`, `tensorflow_.translate_nhwc`) for use inside a model, and
`numba_.translate_into` writes into an array that is there already. `groups` cuts patches out of a canvas and
puts them together again.

A new backend is one module with a function that makes a `Translate`, and one line in `BACKENDS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from kernels.translation.shapes import ShapeMismatch, TranslationRefused, check_arrays, check_finite

__all__ = ["BACKENDS", "Backend", "ShapeMismatch", "Translate", "TranslationRefused", "build", "translate"]

# (images (..., H, W), offsets (..., 2)) -> images of the same shape. The NumPy oracle returns double precision.
Translate = Callable[[npt.NDArray[Any], npt.NDArray[Any]], npt.NDArray[Any]]


@dataclass(frozen=True)
class Backend:
    """Where a backend lives and what it needs; nothing is imported until `build`."""

    name: str
    library: str
    module: str
    maker: str = "make"
    options: Mapping[str, Any] | None = None


BACKENDS: dict[str, Backend] = {
    b.name: b
    for b in (
        Backend("numpy", "numpy", "kernels.translation.oracle"),
        Backend("numba", "numba", "kernels.translation.numba_"),
        Backend("torch", "torch", "kernels.translation.torch_"),
        Backend("torch-cuda", "torch", "kernels.translation.torch_", options={"device": "cuda"}),
        Backend("tensorflow-eager", "tensorflow", "kernels.translation.tensorflow_", options={"mode": "eager"}),
        Backend("tensorflow-graph", "tensorflow", "kernels.translation.tensorflow_", options={"mode": "graph"}),
        Backend("tensorflow-xla", "tensorflow", "kernels.translation.tensorflow_", options={"mode": "xla"}),
    )
}


def build(backend: str, *, threads: int = 1, finite: bool = True) -> Translate:
    """Make the translation function of one backend; it may be called with any batch, one after another.

    Args:
        threads: of the numba backend. Torch and TensorFlow have a number for the whole process; set it there.
        finite: read the images once and refuse those that hold NaN or inf. Without it they are let through:
            copied by shifts of whole pixels, and by others mixed into their surroundings.

    Raises:
        TranslationRefused: no such backend.
        DeviceMissing: CUDA was asked for where there is none.
        ImportError: the backend's library is not installed here.
    """
    found = BACKENDS.get(backend)
    if found is None:
        raise TranslationRefused(f"no translation backend is called {backend!r}: there are {', '.join(BACKENDS)}")
    options = dict(found.options or {})
    if found.library == "numba":
        options["threads"] = threads
    maker = getattr(importlib.import_module(found.module), found.maker)
    inner: Translate = maker(**options)
    return _Checked(inner, finite)


def translate(images: npt.NDArray[Any], offsets: npt.NDArray[Any], *, backend: str = "numpy") -> npt.NDArray[Any]:
    """Move the content of each image by its own offset.

    Args:
        images: (..., H, W), float or complex, finite; leading axes are (n,) or (B, C) with flat index b·C+c.
        offsets: (..., 2), real, [x, y] in pixels.
        backend: a name in `BACKENDS`.

    Raises:
        ShapeMismatch: images and offsets differ in their leading axes; they are never tiled or repeated.
        TranslationRefused: a dtype that is not translated, a pixel or an offset that is not finite.
        DeviceMissing: CUDA was asked for where there is none.
    """
    return build(backend)(images, offsets)


class _Checked:
    """A backend behind the checks that all of them share."""

    def __init__(self, inner: Translate, finite: bool) -> None:
        self._inner = inner
        self._finite = finite

    def __call__(self, images: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> npt.NDArray[Any]:
        check_arrays(images, offsets)
        if self._finite:
            check_finite(images)
        return self._inner(images, offsets)

    def evidence(self) -> dict[str, Any]:
        """What the backend can prove about how it ran (XLA: that it really compiled)."""
        tell = getattr(self._inner, "evidence", None)
        return dict(tell()) if tell is not None else {}
