"""The innermost loops of the fused kernel: from 1/R to F²·F_latt² of one row of sub-pixels, eight at once.

Two loops for SQUARE crystals: a polynomial where there are 1, 3 or 5 cells along every axis, and one for any number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels.jit import bits, gather_sum, greater, lookup, part, peek, poke

Doubles = npt.NDArray[np.float64]

# The outcome of a lookup is written into two bits of the table's float64. A sum over a chunk fits 10 bits.
LISTED, UNLISTED = 1, 1 << 10

# cos(π√t) for 0 ≤ t ≤ ¼ to 1.3e-12. It is exact at t = 1/25, 1/9 and 4/25, the zeros of F_latt for N = 3 and 5, so
# that F_latt keeps its relative error (2e-11) beside them, where the error of a least-squares fit would be all of it.
C0, C1, C2, C3, C4, C5, C6 = (
    0.9999999999987859,
    -4.934802200157943,
    4.0587121055541315,
    -1.3352623085965913,
    0.23532553611215426,
    -0.025777069880980837,
    0.0018414017336415352,
)

# sin(π√t)/√t for 0 ≤ t ≤ ¼, relative error 3e-11.
S0, S1, S2, S3, S4, S5 = (
    3.14159265353629,
    -5.167712764624501,
    2.5501633189461272,
    -0.5992521978136744,
    0.0820504017611588,
    -0.007028386330581221,
)

# Added to δ so that sin(Nπδ)/sin(πδ) has its limit at 0; the product of three is still no denormal.
TINY = 1e-60


def small_counts(cells: tuple[int, int, int]) -> bool:
    """Whether F_latt is a polynomial of degree 2 in cos²(πδ) along every axis."""
    return all(count in (1, 3, 5) for count in cells)


@part
def add_small(
    total: Doubles,
    last: Doubles,
    radius: Doubles,
    place: Doubles,
    count: int,
    table: Doubles,
    strides: Doubles,
    pixel: float,
    middle: float,
    along: float,
    line: Doubles,
    shape: Doubles,
) -> tuple[int, float, float]:
    """Add F²·F_latt² of one row of sub-pixels, source and orientation; 1, 3 or 5 cells along each axis.

    F_latt = U_{N-1}(cos πδ) is a polynomial in cos²(πδ), and cos(πδ) one in δ². `np.rint` may round a tie the wrong
    way: the greatest δ² is handed back, so that such a chunk is not kept.

    Returns:
        Outcomes (listed + UNLISTED·unlisted), sum of F, greatest δ².
    """
    ha, ka, la = _starts(line, pixel, middle, along)
    hb, kb, lb = line[1] * pixel, line[5] * pixel, line[9] * pixel
    hc, kc, lc = line[3], line[7], line[11]
    sh, sk, s0 = strides[0], strides[1], strides[2]
    h0, h1, h2 = shape[0], shape[1], shape[2]
    k0, k1, k2 = shape[3], shape[4], shape[5]
    l0, l1, l2 = shape[6], shape[7], shape[8]
    packed, sum_f, worst = 0, 0.0, 0.0
    for n in range(count):
        u, g = lookup(place, n), lookup(radius, n)
        h, k, l = (hb * u + ha) * g - hc, (kb * u + ka) * g - kc, (lb * u + la) * g - lc  # noqa: E741
        nh, nk, nl = np.rint(h), np.rint(k), np.rint(l)
        f = lookup(table, np.int32(nh * sh + (nk * sk + (nl + s0))))
        dh, dk, dl = h - nh, k - nk, l - nl
        th, tk, tl = dh * dh, dk * dk, dl * dl
        worst = greater(worst, greater(th, greater(tk, tl)))
        zh = (((((C6 * th + C5) * th + C4) * th + C3) * th + C2) * th + C1) * th + C0
        zk = (((((C6 * tk + C5) * tk + C4) * tk + C3) * tk + C2) * tk + C1) * tk + C0
        zl = (((((C6 * tl + C5) * tl + C4) * tl + C3) * tl + C2) * tl + C1) * tl + C0
        yh, yk, yl = zh * zh, zk * zk, zl * zl
        value = ((h2 * yh + h1) * yh + h0) * ((k2 * yk + k1) * yk + k0) * ((l2 * yl + l1) * yl + l0) * f
        packed += bits(f) & (LISTED | UNLISTED)
        sum_f = gather_sum(sum_f, f)
        poke(last, n, f)
        poke(total, n, peek(total, n) + value * value)
    return packed, sum_f, worst


@part
def add_any(
    total: Doubles,
    last: Doubles,
    radius: Doubles,
    place: Doubles,
    count: int,
    table: Doubles,
    strides: Doubles,
    pixel: float,
    middle: float,
    along: float,
    line: Doubles,
    shape: Doubles,
) -> tuple[int, float, float]:
    """The same for any number of cells: sin(Nπδ) = ±sin(πf) with f = Nδ - rint(Nδ), and one division for three axes."""
    ha, ka, la = _starts(line, pixel, middle, along)
    hb, kb, lb = line[1] * pixel, line[5] * pixel, line[9] * pixel
    hc, kc, lc = line[3], line[7], line[11]
    sh, sk, s0 = strides[0], strides[1], strides[2]
    hn, kn, ln = shape[0], shape[1], shape[2]
    packed, sum_f, worst = 0, 0.0, 0.0
    for n in range(count):
        u, g = lookup(place, n), lookup(radius, n)
        h, k, l = (hb * u + ha) * g - hc, (kb * u + ka) * g - kc, (lb * u + la) * g - lc  # noqa: E741
        nh, nk, nl = np.rint(h), np.rint(k), np.rint(l)
        f = lookup(table, np.int32(nh * sh + (nk * sk + (nl + s0))))
        dh, dk, dl = (h - nh) + TINY, (k - nk) + TINY, (l - nl) + TINY
        th, tk, tl = dh * dh, dk * dk, dl * dl
        worst = greater(worst, greater(th, greater(tk, tl)))
        fh, fk, fl = hn * dh - np.rint(hn * dh), kn * dk - np.rint(kn * dk), ln * dl - np.rint(ln * dl)
        over = _sine(fh) * _sine(fk) * _sine(fl)
        under = _sine(dh) * _sine(dk) * _sine(dl)
        value = over / under * f
        packed += bits(f) & (LISTED | UNLISTED)
        sum_f = gather_sum(sum_f, f)
        poke(last, n, f)
        poke(total, n, peek(total, n) + value * value)
    return packed, sum_f, worst


@part
def _starts(line: Doubles, pixel: float, middle: float, along: float) -> tuple[float, float, float]:
    return (
        line[0] + along * line[2] + middle * (line[1] * pixel),
        line[4] + along * line[6] + middle * (line[5] * pixel),
        line[8] + along * line[10] + middle * (line[9] * pixel),
    )


@part
def _sine(x: float) -> float:
    t = x * x
    return x * (((((S5 * t + S4) * t + S3) * t + S2) * t + S1) * t + S0)
