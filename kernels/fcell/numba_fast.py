"""The fused loop for SQUARE crystals and the nearest cell: chunks of 512 sub-pixels along a row.

Per chunk and row of sub-pixels: 1/R by a short series, then for each source and orientation one loop from h, k, l to
the sum (`numba_lookup`). Along a row a·P is affine, so h = (a·P/λ)·(1/R) - a·i/λ is two multiplications and additions.
Everything is float64; the image is the only thing of its size.

What the loop cannot promise it does not keep, but marks in `redo` for `numba_exact`:
- a chunk in which some h is a rounding error away from a tie, which the oracle may have rounded the other way;
- a pixel so near a zero of F_latt that the rounding error of h shows in the sixth digit.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from kernels.fcell.numba_lookup import UNLISTED, add_any, add_small
from kernels.jit import fused, greater, lookup, part, peek, poke

Doubles = npt.NDArray[np.float64]

SAMPLES = 512
"""Sub-pixels of a chunk along a row: what the innermost loop runs over."""

BLOCK, DEGREE = 128, 6
"""Pixels and degree of one series of 1/R. Its error is (half a block/R)^7: `series_holds`."""

VALUE_AGAIN, ALL_AGAIN = 1, 2
"""What `redo` says of a pixel: only its intensity is to be computed again, or its counts besides."""

NOTHING = 2.0**-400
"""Stands for a structure factor of 0, which with the bits of an outcome would be a denormal number, and slow."""

NONE_AT_ALL = 1e-200
"""An intensity below this is 0: only `NOTHING` gives one."""


def series_holds(pixel: float, close_distance: float) -> bool:
    """Whether the series of 1/R is exact to the last digit on a block."""
    return math.pow((BLOCK / 2 + 1) * pixel / close_distance, DEGREE + 1) < 1e-15


@part
def chunk(oversample: int) -> int:
    """Pixels of a chunk: a power of two, and no more samples than `SAMPLES`."""
    width = SAMPLES
    while width * oversample > SAMPLES:
        width //= 2
    return width


@fused
def band(
    first_row: int,
    last_row: int,
    fast0: int,
    fast1: int,
    oversample: int,
    pixel: float,
    close_distance: float,
    series: bool,
    origin: Doubles,
    fast_axis: Doubles,
    slow_axis: Doubles,
    polar_lines: Doubles,
    polarisation: float,
    scale: float,
    lines: Doubles,
    table: Doubles,
    strides: Doubles,
    small: bool,
    shape: Doubles,
    tie: float,
    dim: float,
    margins: Doubles,
    bounds: Doubles,
    outcomes: npt.NDArray[np.int64],
    image: npt.NDArray[np.float32],
    redo: npt.NDArray[np.uint8],
    detail: Doubles,
) -> tuple[int, float]:
    """Rows first_row..last_row of the detector, columns fast0..fast1, into `image` and `redo` (rows, columns).

    Args:
        lines: (sources·orientations, 12): for each axis (a·origin, a·fast, a·slow, a·source), over the wavelength.
        polar_lines: (3, 3): the same first three of the source, of E and across it, as unit vectors.
        table: flat F with outcomes in its low bits; cell (h, k, l) is at h·strides[0] + k·strides[1] + l + strides[2].
        shape: `small`: for each axis the coefficients of F_latt in cos²(πδ); otherwise the cells along it.
        tie: a chunk with δ² above this is left to `numba_exact`; dim: so is a pixel with F_latt² below this.
        margins: how far h, k, l may be beyond their values at the ends of a chunk.
        bounds, outcomes: least and greatest h, k, l so far, and lookups (listed, unlisted); both are added to.
        detail: empty, or for one pixel (intensity, polar, omega, omega of each sub-pixel).

    Returns:
        How many pixels are marked in `redo`, and the sum of F over what is not.
    """
    sub = pixel / oversample
    width, span = chunk(oversample), min(chunk(oversample), BLOCK)
    block0, blocks = fast0 // span, (fast1 - 1) // span + 1 - fast0 // span
    # Arrays of their own: within one, LLVM minds the distance between two places, and takes shorter steps.
    place, radius, total, last = np.empty(SAMPLES), np.empty(SAMPLES), np.empty(SAMPLES), np.empty(SAMPLES)
    weight = np.empty(SAMPLES)
    terms = np.empty(oversample * (DEGREE + 1) * blocks)
    marked, sum_f = 0, 0.0
    for row in range(first_row, last_row):
        out, marks = image[row - first_row], redo[row - first_row]
        if series:
            for i_s in range(oversample):
                along = sub * (row * oversample + i_s + 0.5)
                _series(terms, i_s * (DEGREE + 1), block0, blocks, span, along, pixel, origin, fast_axis, slow_axis)
        for piece in range(fast0 // width, (fast1 - 1) // width + 1):
            start, stop = max(fast0, piece * width), min(fast1, (piece + 1) * width)
            middle, columns = piece * width + width // 2, stop - start
            count = columns * oversample
            _places(place, oversample, start - middle, columns)
            for n in range(count):
                poke(total, n, 0.0)
            nearest_tie, listed, unlisted, part_f, wide = 0.0, 0, 0, 0.0, False
            for i_s in range(oversample):
                along = sub * (row * oversample + i_s + 0.5)
                if series:
                    _inverse_series(radius, terms, i_s * (DEGREE + 1), block0, blocks, span, start, stop, oversample)
                else:
                    _inverse(radius, place, count, pixel, middle, along, origin, fast_axis, slow_axis)
                if i_s == 0:
                    _weights(
                        weight,
                        radius,
                        place,
                        columns,
                        pixel,
                        middle,
                        along,
                        close_distance,
                        polar_lines,
                        polarisation,
                        detail,
                    )
                if detail.size:
                    for i_f in range(oversample):
                        detail[3 + i_s * oversample + i_f] = pixel * pixel * close_distance * radius[i_f] ** 3
                for n in range(lines.shape[0]):
                    wide |= _outside(radius, place, count, pixel, middle, along, lines[n], margins, bounds)
                    if small:
                        packed, f, worst = add_small(
                            total, last, radius, place, count, table, strides, pixel, middle, along, lines[n], shape
                        )
                    else:
                        packed, f, worst = add_any(
                            total, last, radius, place, count, table, strides, pixel, middle, along, lines[n], shape
                        )
                    listed += packed & (UNLISTED - 1)
                    unlisted += packed // UNLISTED
                    part_f += f
                    nearest_tie = max(nearest_tie, worst)
            left = start - fast0
            if nearest_tie > tie:
                for p in range(columns):
                    marks[left + p] = ALL_AGAIN
                marked += columns
                continue
            outcomes[0] += listed
            outcomes[1] += unlisted
            sum_f += part_f
            if wide:
                for i_s in range(oversample):
                    along = sub * (row * oversample + i_s + 0.5)
                    _inverse(radius, place, count, pixel, middle, along, origin, fast_axis, slow_axis)
                    for n in range(lines.shape[0]):
                        _extend(radius, place, count, pixel, middle, along, lines[n], bounds)
            marked += _finish(total, last, weight, out, marks, left, columns, oversample, scale, dim)
            if detail.size:
                detail[0] = total[0]
    return marked, sum_f


@part
def _places(place: Doubles, oversample: int, start: int, columns: int) -> None:
    """Samples of a chunk along a row, in pixels from its middle: all first sub-pixels, then all second ones."""
    for i_f in range(oversample):
        first = start + (i_f + 0.5) / oversample
        for p in range(columns):
            poke(place, i_f * columns + p, first + p)


@part
def _series(
    terms: Doubles,
    at: int,
    block0: int,
    blocks: int,
    span: int,
    along: float,
    pixel: float,
    origin: Doubles,
    fast_axis: Doubles,
    slow_axis: Doubles,
) -> None:
    """Coefficients of 1/R in pixels from the middle of each block: Legendre, 1/√(1 - 2xt + t²) = Σ P_n(x) t^n."""
    o0, o1, o2 = origin[0] + along * slow_axis[0], origin[1] + along * slow_axis[1], origin[2] + along * slow_axis[2]
    f0, f1, f2 = fast_axis[0], fast_axis[1], fast_axis[2]
    at *= blocks
    for b in range(blocks):
        middle = ((block0 + b) * span + span // 2) * pixel
        x0, x1, x2 = o0 + middle * f0, o1 + middle * f1, o2 + middle * f2
        g = 1.0 / math.sqrt(x0 * x0 + x1 * x1 + x2 * x2)
        x, t = -(x0 * f0 + x1 * f1 + x2 * f2) * g, g * pixel
        p2 = 1.5 * x * x - 0.5
        p3 = (5.0 * x * p2 - 2.0 * x) * (1.0 / 3.0)
        p4 = (7.0 * x * p3 - 3.0 * p2) * 0.25
        p5 = (9.0 * x * p4 - 4.0 * p3) * 0.2
        p6 = (11.0 * x * p5 - 5.0 * p4) * (1.0 / 6.0)
        t2, t4 = t * t, t * t * t * t
        poke(terms, at + b, g)
        poke(terms, at + b + blocks, g * t * x)
        poke(terms, at + b + 2 * blocks, g * t2 * p2)
        poke(terms, at + b + 3 * blocks, g * t2 * t * p3)
        poke(terms, at + b + 4 * blocks, g * t4 * p4)
        poke(terms, at + b + 5 * blocks, g * t4 * t * p5)
        poke(terms, at + b + 6 * blocks, g * t4 * t2 * p6)


@part
def _inverse_series(
    radius: Doubles,
    terms: Doubles,
    at: int,
    block0: int,
    blocks: int,
    span: int,
    start: int,
    stop: int,
    oversample: int,
) -> None:
    for b in range(start // span, (stop - 1) // span + 1):
        begin, end = max(start, b * span), min(stop, (b + 1) * span)
        c = at * blocks + b - block0
        c0, c1, c2, c3 = terms[c], terms[c + blocks], terms[c + 2 * blocks], terms[c + 3 * blocks]
        c4, c5, c6 = terms[c + 4 * blocks], terms[c + 5 * blocks], terms[c + 6 * blocks]
        for i_f in range(oversample):
            u0 = begin - (b * span + span // 2) + (i_f + 0.5) / oversample
            first = i_f * (stop - start) + begin - start
            for p in range(end - begin):
                u = u0 + p
                poke(radius, first + p, (((((c6 * u + c5) * u + c4) * u + c3) * u + c2) * u + c1) * u + c0)


@part
def _inverse(
    radius: Doubles,
    place: Doubles,
    count: int,
    pixel: float,
    middle: float,
    along: float,
    origin: Doubles,
    fast_axis: Doubles,
    slow_axis: Doubles,
) -> None:
    f0, f1, f2 = fast_axis[0] * pixel, fast_axis[1] * pixel, fast_axis[2] * pixel
    x0 = origin[0] + along * slow_axis[0] + middle * f0
    x1 = origin[1] + along * slow_axis[1] + middle * f1
    x2 = origin[2] + along * slow_axis[2] + middle * f2
    for n in range(count):
        u = lookup(place, n)
        y0, y1, y2 = x0 + f0 * u, x1 + f1 * u, x2 + f2 * u
        poke(radius, n, 1.0 / math.sqrt(y0 * y0 + y1 * y1 + y2 * y2))


@part
def _weights(
    weight: Doubles,
    radius: Doubles,
    place: Doubles,
    columns: int,
    pixel: float,
    middle: float,
    along: float,
    close_distance: float,
    polar_lines: Doubles,
    polarisation: float,
    detail: Doubles,
) -> None:
    """polar · omega of the first sub-pixel of each pixel."""
    i1, e1, b1 = polar_lines[0, 1] * pixel, polar_lines[1, 1] * pixel, polar_lines[2, 1] * pixel
    i0 = polar_lines[0, 0] + middle * i1 + along * polar_lines[0, 2]
    e0 = polar_lines[1, 0] + middle * e1 + along * polar_lines[1, 2]
    b0 = polar_lines[2, 0] + middle * b1 + along * polar_lines[2, 2]
    area = pixel * pixel * close_distance
    for p in range(columns):
        u, g = lookup(place, p), lookup(radius, p)
        c, e, b = (i0 + i1 * u) * g, (e0 + e1 * u) * g, (b0 + b1 * u) * g
        poke(weight, p, 0.5 * (1.0 + c * c - polarisation * (e * e - b * b)) * (area * (g * g * g)))
    if detail.size:
        detail[2] = area * (radius[0] * radius[0] * radius[0])
        detail[1] = weight[0] / detail[2]


@part
def _outside(
    radius: Doubles,
    place: Doubles,
    count: int,
    pixel: float,
    middle: float,
    along: float,
    line: Doubles,
    margins: Doubles,
    bounds: Doubles,
) -> bool:
    """Whether h, k or l may leave the bounds known so far: their values at both ends, and how far they may bend."""
    u0, u1, g0, g1 = place[0], place[count - 1], radius[0], radius[count - 1]
    found = False
    for n in range(3):
        b, c = line[4 * n + 1] * pixel, line[4 * n + 3]
        a = line[4 * n] + along * line[4 * n + 2] + middle * b
        first, final = (a + b * u0) * g0 - c, (a + b * u1) * g1 - c
        low, high = min(first, final) - margins[n], max(first, final) + margins[n]
        found |= low <= bounds[2 * n] - 0.5 or high >= bounds[2 * n + 1] + 0.5
    return found


@part
def _extend(
    radius: Doubles,
    place: Doubles,
    count: int,
    pixel: float,
    middle: float,
    along: float,
    line: Doubles,
    bounds: Doubles,
) -> None:
    """Take the cells of one chunk into the bounds. No tie is among them: those chunks are left out."""
    for n in range(3):
        b, c = line[4 * n + 1] * pixel, line[4 * n + 3]
        a = line[4 * n] + along * line[4 * n + 2] + middle * b
        least, most = -np.inf, -np.inf
        for p in range(count):
            x = (a + b * lookup(place, p)) * lookup(radius, p) - c
            least, most = greater(least, -x), greater(most, x)
        bounds[2 * n] = min(bounds[2 * n], np.rint(-least))
        bounds[2 * n + 1] = max(bounds[2 * n + 1], np.rint(most))


@part
def _finish(
    total: Doubles,
    last: Doubles,
    weight: Doubles,
    out: npt.NDArray[np.float32],
    marks: npt.NDArray[np.uint8],
    left: int,
    columns: int,
    oversample: int,
    scale: float,
    dim: float,
) -> int:
    """Add up sub-pixels, write the pixels of a chunk, and mark those that are too dim to be believed."""
    for i_f in range(1, oversample):
        for p in range(columns):
            # What is read here is written nowhere in this loop, so `lookup` may be said of it.
            poke(total, p, peek(total, p) + lookup(total, i_f * columns + p))
    found = 0
    for p in range(columns):
        value, f = peek(total, p), peek(last, p)
        found += int(value < dim * (f * f))
        kept = value if value > NONE_AT_ALL else 0.0
        poke(total, p, kept)
        poke(out, left + p, np.float32(kept * scale * peek(weight, p)))
    if found:
        for p in range(columns):
            if total[p] < dim * last[p] ** 2:
                marks[left + p] = VALUE_AGAIN
    return found
