"""The fast backend on a CPU: three layers fused row by row, so that activations never leave the cache.

A tile is walked from top to bottom. Of the frame and of both hidden layers only the last three rows are kept;
each new row of the frame makes one row of each layer. Memory is therefore bounded by the *width* of a tile,
and nothing is computed twice but two columns on each side. `simd` has the inner loop and the reason why the
cut into tiles cannot change a bit.

`tile=WHOLE` computes the frame untiled, the plain way: layer after layer over the whole frame, with every
activation in memory. It is what tiles are held against.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.postfilter.rows import HOST, layer_code, tile_code
from kernels.postfilter.shapes import WHOLE, TileShape, cut, own_tile
from kernels.postfilter.weights import Weights

Array = npt.NDArray[np.float32]
HALO = 3


def make(weights: Weights, *, tile: TileShape, threads: int) -> Any:
    """The backend: (n, 3, H, W) float32 in, the same out."""
    return _Filter(_Packed(weights), tile, threads)


def warm(tile: TileShape = None) -> None:
    """Compile what a filter with such a tile needs; otherwise its first call does (a few seconds)."""
    make(Weights.zeros(1), tile=tile, threads=1)(np.zeros((1, 3, 8, 8), dtype=np.float32))


class _Packed:
    """The weights in the order in which the inner loop reads them: (groups, inputs, taps, channels of a group).

    Channels that fill up the last group have zero weights; their activations are zero and nobody reads them.
    """

    def __init__(self, weights: Weights) -> None:
        self.h = weights.h
        self.planes = -(-weights.h // HOST.channels) * HOST.channels
        self.w1, self.b1 = _pack(weights.w1, weights.b1, HOST.channels)
        self.w2, self.b2 = _pack(weights.w2, weights.b2, HOST.channels)
        self.w3, self.b3 = _pack(weights.w3, weights.b3, 3)

    def arrays(self) -> tuple[Array, ...]:
        return self.w1, self.b1, self.w2, self.b2, self.w3, self.b3


class _Filter:
    """One built postfilter."""

    def __init__(self, packed: _Packed, tile: TileShape, threads: int) -> None:
        self.packed, self.threads = packed, threads
        self.whole, self.tile = tile == WHOLE, tile if tile != WHOLE else None

    def __call__(self, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        frames = np.require(frames, requirements=["C", "A"])
        out = np.empty(frames.shape, dtype=np.float32)
        if self.whole:
            for frame, filtered in zip(frames, out, strict=True):
                self._whole(frame, filtered)
        else:
            self._tiled(frames, out)
        return out

    def evidence(self) -> dict[str, Any]:
        """The vectors that the inner loop is made of."""
        return {"lanes": HOST.lanes, "fused": HOST.fused, "threads": self.threads}

    def _tiled(self, frames: Array, out: Array) -> None:
        height, width = frames.shape[2:]
        tiles = cut(height, width, self.tile or own_tile(height, width, self.threads))
        jobs = [(n, place) for n in range(len(frames)) for place in tiles]
        line = _row_length(max(x1 - x0 for _, _, x0, x1 in tiles) + 2 * HALO)
        compiled, packed = tile_code(), self.packed

        def worker() -> Callable[[int], None]:
            rings = [np.zeros((3, n, line), dtype=np.float32) for n in (3, packed.planes, packed.planes)]
            residual = np.zeros((3, line), dtype=np.float32)

            def run(k: int) -> None:
                n, place = jobs[k]
                compiled(frames[n], out[n], *place, packed.h, *packed.arrays(), *rings, residual)

            return run

        _share(len(jobs), min(self.threads, len(jobs)), worker)

    def _whole(self, frame: Array, out: Array) -> None:
        """Layer by layer. The rows of a layer are shared between threads; a layer waits for the one before."""
        (hidden, last, finish), packed, (_, height, width) = layer_code(), self.packed, frame.shape
        line = _row_length(width + 2)
        layers = [np.zeros((n, height + 2, line), dtype=np.float32) for n in (3, packed.planes, packed.planes, 3)]
        layers[0][:, 1:-1, 1 : width + 1] = frame
        edges = [height * k // (4 * self.threads) for k in range(4 * self.threads + 1)]

        def run_layer(run: Any, source: Array, target: Array, inputs: int, w: Array, b: Array) -> None:
            def rows(k: int) -> None:
                run(source, target, inputs, w, b, edges[k], edges[k + 1], width)

            _share(len(edges) - 1, self.threads, lambda: rows)

        run_layer(hidden, layers[0], layers[1], 3, packed.w1, packed.b1)
        run_layer(hidden, layers[1], layers[2], packed.h, packed.w2, packed.b2)
        run_layer(last, layers[2], layers[3], packed.h, packed.w3, packed.b3)
        for c, y in itertools.product(range(3), range(height)):
            finish(frame[c, y], layers[3][c, y + 1, 1:], out[c, y])


def _share(count: int, threads: int, worker: Callable[[], Callable[[int], None]]) -> None:
    """Do jobs 0 to count-1 on so many threads, each taking the next one when it is free.

    Threads of Python, because the compiled code holds no lock; numba's own pool may not be entered by two
    callers at once.
    """
    following, failed = itertools.count(), []

    def loop() -> None:
        try:
            run = worker()
            while (k := next(following)) < count:
                run(k)
        except BaseException as error:
            failed.append(error)

    others = [threading.Thread(target=loop) for _ in range(threads - 1)]
    for other in others:
        other.start()
    loop()
    for other in others:
        other.join()
    if failed:
        raise failed[0]


def _row_length(pixels: int) -> int:
    """Numbers in one stored row: whole vectors, room for the last one's taps, and an odd count of cache lines.

    An odd count spreads the rows of the channels over all sets of the cache.
    """
    whole = -(-pixels // HOST.lanes) * HOST.lanes + 16
    return (-(-whole // 16) | 1) * 16


def _pack(w: Array, b: Array, group: int) -> tuple[Array, Array]:
    outputs, inputs = w.shape[:2]
    groups = -(-outputs // group)
    packed = np.zeros((groups * group, inputs, 9), dtype=np.float32)
    packed[:outputs] = w.reshape(outputs, inputs, 9)
    biases = np.zeros(groups * group, dtype=np.float32)
    biases[:outputs] = b
    return np.ascontiguousarray(packed.reshape(groups, group, inputs, 9).transpose(0, 2, 3, 1)), biases
