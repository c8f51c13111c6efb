"""A small residual network over RGB frames: one signature, several backends, chosen by name.

    out = clamp(x + conv3(relu(conv2(relu(conv1(x))))), 0, 255)

conv1 is 3→h, conv2 h→h, conv3 h→3; all are 3×3 with a bias and zero padding of 1, so one output pixel sees 7×7
input pixels. Frames are RGB float32 (n, 3, H, W) with values from 0 to 255, each filtered by itself. With the
last layer zero the filter is the identity, which is where training starts (`Weights.initial`).

`numba` works by tiles, and any tiling equals the untiled frame bit for bit. The libraries' convolutions choose
their order of sums by the shape of the frame, so tiles of theirs would differ in the last bit: the other
backends take whole frames only, and say so.

A new backend is one module with a function that makes a `Filter`, and one line in `BACKENDS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.devices import thread_count
from kernels.postfilter.shapes import WHOLE, PostfilterRefused, check_frames, check_tile
from kernels.postfilter.weights import Weights, WeightsRefused

__all__ = ["BACKENDS", "WHOLE", "Backend", "Filter", "PostfilterRefused", "Weights", "WeightsRefused", "apply", "build"]

# Frames (n, 3, H, W) float32 -> filtered frames of the same shape. The NumPy oracle returns double precision.
Filter = Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]


@dataclass(frozen=True)
class Backend:
    """Where a backend lives and what it needs; nothing is imported until `build`.

    Attributes:
        tiles: it can work by tiles of any size, with the same bits.
    """

    name: str
    library: str
    module: str
    maker: str = "make"
    tiles: bool = False
    options: Mapping[str, Any] | None = None


BACKENDS: dict[str, Backend] = {
    b.name: b
    for b in (
        Backend("numpy", "numpy", "kernels.postfilter.oracle"),
        Backend("numba", "numba", "kernels.postfilter.numba_", tiles=True),
        Backend("torch", "torch", "kernels.postfilter.torch_", options={"device": "cpu"}),
        Backend("torch-cuda", "torch", "kernels.postfilter.torch_", options={"device": "cuda"}),
        Backend("tensorflow", "tensorflow", "kernels.postfilter.tensorflow_"),
    )
}


def build(backend: str, weights: Weights, *, tile: Any = None, threads: int | None = None) -> Filter:
    """Make the filter of one backend; it may be called with any frames, one batch after another.

    Args:
        backend: a name in `BACKENDS`.
        weights: finite float32 weights.
        tile: pixels as one number, (rows, columns), or `WHOLE` for the untiled frame, layer after layer. None
            leaves the choice to the backend. The result is the same, bit for bit; memory is bounded by the tile.
        threads: of `numba`, and of `torch` on the CPU; None is every core that this process may use. The
            result of `numba` does not depend on it.

    Raises:
        PostfilterRefused: no such backend, weights of another kind, or a tile that cannot be used.
        DeviceMissing: CUDA was asked for, and there is none.
        ImportError: the backend's library is not installed here.
    """
    found = BACKENDS.get(backend)
    if found is None:
        raise PostfilterRefused(f"no postfilter backend is called {backend!r}: there are {', '.join(BACKENDS)}")
    if not isinstance(weights, Weights):
        raise WeightsRefused(f"weights must be a kernels.postfilter.Weights, not {type(weights).__name__}")
    tile = check_tile(tile)
    if tile not in (None, WHOLE) and not found.tiles:
        raise PostfilterRefused(
            f"the {backend} backend filters whole frames only, because its library's sums depend on the shape of the "
            f"frame: leave the tile out, or use {', '.join(b.name for b in BACKENDS.values() if b.tiles)}"
        )
    maker = getattr(importlib.import_module(found.module), found.maker)
    more = {"tile": tile} if found.tiles else {}
    return _Checked(maker(weights, threads=thread_count(threads), **more, **(found.options or {})))


def apply(
    frames: npt.NDArray[np.float32],
    weights: Weights,
    *,
    backend: str = "numpy",
    tile: Any = None,
    threads: int | None = None,
) -> npt.NDArray[Any]:
    """Filter frames (n, 3, H, W), float32 from 0 to 255; see `build` for the arguments and what is refused.

    Raises:
        PostfilterRefused: also for frames of a wrong shape or dtype, not finite, or out of range.
    """
    return build(backend, weights, tile=tile, threads=threads)(frames)


class _Checked:
    """A backend behind the checks that all of them share."""

    def __init__(self, inner: Filter) -> None:
        self._inner = inner

    def __call__(self, frames: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        check_frames(frames)
        return self._inner(frames)

    def evidence(self) -> dict[str, Any]:
        """What the backend can tell about how it runs: vector width, device, precision."""
        tell = getattr(self._inner, "evidence", None)
        return dict(tell()) if tell is not None else {}
