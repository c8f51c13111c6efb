"""The shape transform of the crystal, F_latt, for its four outer shapes, in float64.

Arguments are distances from the nearest cell, (h - h0, k - k0, l - l0): F_latt² has the period of the lattice,
and the small difference keeps the digits that the sine of a large index would lose.
"""

from __future__ import annotations

import math

import numpy as np

from kernels.fcell.types import FloatArray, Shape

ROUND_SCALE = 0.723601254558268
"""Makes the spots of ROUND as strong as those of SQUARE, volume for volume."""

GAUSS_WIDTH = 0.63
TOPHAT_LIMIT = 0.3969  # 0.63²

# 3·j1(x)/x = Σ (-1)^n 3 x^2n / (2^n n! (2n+3)!!): below 1 these nine terms are exact to the last digit, where
# the closed form takes the difference of two nearly equal numbers.
SINC3_SERIES = [3.0 / (2**n * math.factorial(n) * math.prod(range(1, 2 * n + 4, 2))) * (-1) ** n for n in range(9)]


def squared(
    shape: Shape,
    cells: tuple[int, int, int],
    fudge: float,
    reciprocal: FloatArray,
    dh: FloatArray,
    dk: FloatArray,
    dl: FloatArray,
) -> FloatArray:
    """F_latt² of arrays of one shape; arguments as in `Plan`."""
    if shape is Shape.SQUARE:
        product = sincg(dh, cells[0]) * sincg(dk, cells[1]) * sincg(dl, cells[2])
        return np.asarray(product * product)
    domain = float(cells[0] * cells[1] * cells[2])
    if shape is Shape.ROUND:
        radius2 = (dh * cells[0]) ** 2 + (dk * cells[1]) ** 2 + (dl * cells[2]) ** 2
        value = domain * ROUND_SCALE * sinc3(math.pi * np.sqrt(fudge * radius2))
        return np.asarray(value * value)
    spread = distance_squared(reciprocal, dh, dk, dl) * domain**2
    if shape is Shape.GAUSS:
        value = domain * np.exp(-spread / GAUSS_WIDTH * fudge)
        return np.asarray(value * value)
    return np.where(spread * fudge < TOPHAT_LIMIT, domain**2, 0.0)


def sincg(delta: FloatArray, count: int) -> FloatArray:
    """sin(Nπδ) / sin(πδ) but for its sign, N at δ = 0; |δ| is at most a half."""
    under = np.sin(math.pi * delta)
    turns = count * delta
    # Whole turns are taken off before π comes in: they cost digits near the zeros, and time.
    over = np.sin(math.pi * (turns - np.rint(turns)))
    at_zero = under == 0.0
    if not at_zero.any():
        return np.asarray(over / under)
    return np.where(at_zero, float(count), over / np.where(at_zero, 1.0, under))


def sinc3(x: FloatArray) -> FloatArray:
    """3(sin x/x - cos x)/x², the transform of a ball; 1 at 0."""
    far = np.maximum(x, 1.0)
    closed = 3.0 * (np.sin(far) / far - np.cos(far)) / (far * far)
    square = np.minimum(x, 1.0) ** 2
    series = np.zeros_like(square)
    for term in reversed(SINC3_SERIES):
        series = series * square + term
    return np.where(x < 1.0, series, closed)


def distance_squared(reciprocal: FloatArray, dh: FloatArray, dk: FloatArray, dl: FloatArray) -> FloatArray:
    """|dh·a* + dk·b* + dl·c*|² in 1/Å²."""
    x, y, z = (dh * reciprocal[0, n] + dk * reciprocal[1, n] + dl * reciprocal[2, n] for n in range(3))
    return np.asarray(x * x + y * y + z * z)
