"""The compiled code of the fast backend: rows, tiles and whole layers around the inner loop of `simd`.

Addresses are in bytes; planes and lines are steps in float32 numbers. Rows are long enough for whole vectors,
so a row may end in numbers that mean nothing; no valid pixel ever reads them.
"""

# numba finds the types itself.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import types

from kernels.jit import exact
from kernels.postfilter.simd import block, machine

HOST = machine()
LANES, CHANNELS, WIDEST = HOST.lanes, HOST.channels, HOST.last_vectors

_hidden1, _hidden2, _hidden3 = (block(CHANNELS, n, LANES, fused=HOST.fused) for n in (1, 2, 3))
_last1, _last2, _last3, _last_widest = (block(3, n, LANES, fused=HOST.fused) for n in (1, 2, 3, WIDEST))

_PIXELS = types.Array(types.float32, 1, "C", readonly=True)
_LINE = types.Array(types.float32, 1, "C")
_LINES = types.Array(types.float32, 2, "C")
_FRAME = types.Array(types.float32, 3, "C", readonly=True)
_PLANES = types.Array(types.float32, 3, "C")
_WEIGHTS = types.Array(types.float32, 4, "C")
_INT = types.int64


@cache
def tile_code() -> Any:
    """tile(frame, out, y0, y1, x0, x1, h, w1, b1, w2, b2, w3, b3, ring0, ring1, ring2, residual)"""
    rings = (_PLANES, _PLANES, _PLANES, _LINES)
    return _compiled(_tile, _FRAME, _PLANES, *(_INT,) * 5, *(_WEIGHTS, _LINE) * 3, *rings)


@cache
def layer_code() -> tuple[Any, Any, Any]:
    """hidden(source, target, inputs, w, b, y0, y1, width), last(the same), finish(pixels, residual, out)"""
    layer = (_PLANES, _PLANES, _INT, _WEIGHTS, _LINE, _INT, _INT, _INT)
    hidden, last = _compiled(_hidden_layer, *layer), _compiled(_last_layer, *layer)
    return hidden, last, _compiled(_finish, _PIXELS, _LINE, _LINE)


def _compiled(function: Any, *signature: Any) -> Any:
    """For one signature only: frames may be read-only (Arrow, the object store), and neither compiles anew."""
    function.compile(signature)
    function.disable_compile()
    return function


@exact
def _hidden_row(dst, dst_plane, row0, row1, row2, plane, inputs, w, b, groups, vectors):
    """One row of a hidden layer, with its ReLU."""
    done = 0
    while done < vectors:
        n, x = min(vectors - done, 3), 4 * LANES * done
        # Pixels outside, channels inside: the pixels stay in the first cache, the weights pass by.
        for g in range(groups):
            d, k = dst + 4 * CHANNELS * g * dst_plane + x, w + 36 * CHANNELS * inputs * g
            bias = b + 4 * CHANNELS * g
            if n == 3:
                _hidden3(d, dst_plane, row0 + x, row1 + x, row2 + x, plane, inputs, k, bias, True)
            elif n == 2:
                _hidden2(d, dst_plane, row0 + x, row1 + x, row2 + x, plane, inputs, k, bias, True)
            else:
                _hidden1(d, dst_plane, row0 + x, row1 + x, row2 + x, plane, inputs, k, bias, True)
        done += n


@exact
def _last_row(dst, dst_plane, row0, row1, row2, plane, inputs, w, b, vectors):
    """One row of the residual: three channels, no ReLU. Fewer channels leave room for more pixels."""
    done = 0
    while done < vectors:
        left, x = vectors - done, 4 * LANES * done
        if left >= WIDEST:
            _last_widest(dst + x, dst_plane, row0 + x, row1 + x, row2 + x, plane, inputs, w, b, False)
            done += WIDEST
        elif left >= 3:
            _last3(dst + x, dst_plane, row0 + x, row1 + x, row2 + x, plane, inputs, w, b, False)
            done += 3
        elif left == 2:
            _last2(dst + x, dst_plane, row0 + x, row1 + x, row2 + x, plane, inputs, w, b, False)
            done += 2
        else:
            _last1(dst + x, dst_plane, row0 + x, row1 + x, row2 + x, plane, inputs, w, b, False)
            done += 1


# Whole slices and counts from 0: with a sum in the index numba tests for negative ones, and nothing is vectorised.


@exact
def _put(pixels, row):
    for x in range(row.size):
        row[x] = pixels[x]


@exact
def _finish(pixels, residual, out):
    """clamp(x + residual, 0, 255) for one row of one channel."""
    for x in range(out.size):
        value = pixels[x] + residual[x]
        value = value if value > np.float32(0) else np.float32(0)
        out[x] = value if value < np.float32(255) else np.float32(255)


@exact
def _blank(ring, slot, start, stop):
    """Zeros in the columns from start to stop of one slot; nothing where there are none."""
    for k in range(ring.shape[1]):
        for x in range(start, stop):
            ring[slot, k, x] = 0


@exact
def _tile(frame, out, y0, y1, x0, x1, h, w1, b1, w2, b2, w3, b3, ring0, ring1, ring2, residual):
    """One tile, all three layers: rows y0 to y1 and columns x0 to x1 of the frame, half-open.

    Row y of a layer lies in slot (y+3) mod 3 of its ring. Column 0 of a ring is x0-3 in the frame, x0-2 in the
    first hidden layer and x0-1 in the second, so a layer reads its taps from the column that it writes on.
    What lies outside the *frame* is zero in every layer, as padding makes it; what lies only outside the tile
    is computed like any other pixel.
    """
    height, width, across = frame.shape[1], frame.shape[2], x1 - x0
    plane, groups = ring0.shape[2], ring1.shape[1] // CHANNELS
    slot0, slot = 12 * plane, 4 * plane * ring1.shape[1]
    p0, p1, p2 = np.int64(ring0.ctypes.data), np.int64(ring1.ctypes.data), np.int64(ring2.ctypes.data)
    p3 = np.int64(residual.ctypes.data)
    k1, k2, k3 = np.int64(w1.ctypes.data), np.int64(w2.ctypes.data), np.int64(w3.ctypes.data)
    c1, c2, c3 = np.int64(b1.ctypes.data), np.int64(b2.ctypes.data), np.int64(b3.ctypes.data)
    from0, to0 = max(x0 - 3, 0), min(x1 + 3, width)
    for t in range(y0 - 3, y1 + 3):
        # After row t of the frame there is enough for row t-1, then t-2, then t-3 of the three layers; c, b and a
        # are their slots. The three newest rows, oldest first, lie in b, c, a of the frame's ring, in a, b, c of
        # the first layer's and in c, a, b of the second's.
        a, b, c = (t + 3) % 3, (t + 1) % 3, (t + 2) % 3
        if 0 <= t < height:
            for k in range(3):
                _put(frame[k, t, from0:to0], ring0[a, k, from0 - x0 + 3 : to0 - x0 + 3])
            _blank(ring0, a, 0, from0 - x0 + 3)
            _blank(ring0, a, to0 - x0 + 3, across + 6)
        else:
            _blank(ring0, a, 0, across + 6)
        if t - 1 >= y0 - 2:
            if 0 <= t - 1 < height:
                n = (across + 4 + LANES - 1) // LANES
                rows = (p0 + slot0 * b, p0 + slot0 * c, p0 + slot0 * a)
                _hidden_row(p1 + slot * c, plane, rows[0], rows[1], rows[2], plane, 3, k1, c1, groups, n)
                _blank(ring1, c, 0, 2 - x0)
                _blank(ring1, c, width - x0 + 2, across + 4)
            else:
                _blank(ring1, c, 0, across + 4)
        if t - 2 >= y0 - 1:
            if 0 <= t - 2 < height:
                n = (across + 2 + LANES - 1) // LANES
                rows = (p1 + slot * a, p1 + slot * b, p1 + slot * c)
                _hidden_row(p2 + slot * b, plane, rows[0], rows[1], rows[2], plane, h, k2, c2, groups, n)
                _blank(ring2, b, 0, 1 - x0)
                _blank(ring2, b, width - x0 + 1, across + 2)
            else:
                _blank(ring2, b, 0, across + 2)
        if t - 3 >= y0:
            n = (across + LANES - 1) // LANES
            rows = (p2 + slot * c, p2 + slot * a, p2 + slot * b)
            _last_row(p3, plane, rows[0], rows[1], rows[2], plane, h, k3, c3, n)
            for k in range(3):
                _finish(frame[k, t - 3, x0:x1], residual[k], out[k, t - 3, x0:x1])


@exact
def _hidden_layer(source, target, inputs, w, b, y0, y1, width):
    """Rows y0 to y1 of a hidden layer over the whole frame; both sides have a border of one zero pixel."""
    line, groups = source.shape[2], target.shape[0] // CHANNELS
    plane, vectors = source.shape[1] * line, (width + LANES - 1) // LANES
    p, q = np.int64(source.ctypes.data), np.int64(target.ctypes.data)
    k, c = np.int64(w.ctypes.data), np.int64(b.ctypes.data)
    for y in range(y0, y1):
        above, here, below = p + 4 * line * y, p + 4 * line * (y + 1), p + 4 * line * (y + 2)
        _hidden_row(q + 4 * (line * (y + 1) + 1), plane, above, here, below, plane, inputs, k, c, groups, vectors)
        target[:, y + 1, width + 1] = 0


@exact
def _last_layer(source, target, inputs, w, b, y0, y1, width):
    """Rows y0 to y1 of the residual over the whole frame; nothing reads past its border."""
    line = source.shape[2]
    plane, vectors = source.shape[1] * line, (width + LANES - 1) // LANES
    p, q = np.int64(source.ctypes.data), np.int64(target.ctypes.data)
    k, c = np.int64(w.ctypes.data), np.int64(b.ctypes.data)
    for y in range(y0, y1):
        above, here, below = p + 4 * line * y, p + 4 * line * (y + 1), p + 4 * line * (y + 2)
        _last_row(q + 4 * (line * (y + 1) + 1), plane, above, here, below, plane, inputs, k, c, vectors)
