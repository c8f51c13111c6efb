"""Mosaic domains: small random rotations, from the generator and the formulas of the C program.

The generator is Park and Miller's minimal standard with the shuffle of Bays and Durham ("Random number
generators: good ones are hard to find", CACM 31, 1988). It is written out here because a domain must come out
the same in every library: a library's own generator is no contract.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from kernels.fcell.geometry import rotation
from kernels.fcell.types import FloatArray

_MULTIPLIER = 16807
_MODULUS = 2**31 - 1
_TABLE = 32
_WARM = 8
_DIVISOR = 1 + (_MODULUS - 1) // _TABLE
_BELOW_ONE = np.float32(1.0 - 1.2e-7)


def uniforms(seed: int) -> Iterator[float]:
    """Deviates in (0, 1), each rounded to float32; `seed` is negative and the state starts at -seed."""
    state = -seed
    table = [0] * _TABLE
    for j in range(_TABLE + _WARM - 1, -1, -1):
        state = state * _MULTIPLIER % _MODULUS
        if j < _TABLE:
            table[j] = state
    drawn = table[0]
    while True:
        state = state * _MULTIPLIER % _MODULUS
        slot = drawn // _DIVISOR
        drawn, table[slot] = table[slot], state
        yield float(min(np.float32(drawn / _MODULUS), _BELOW_ONE))


def rotations(spread_deg: float, domains: int, seed: int) -> FloatArray:
    """(domains, 3, 3). Domain 0 is the identity, and draws its three deviates all the same."""
    spread = math.radians(spread_deg)
    stream = uniforms(seed)
    turns = [_one(spread, *(2.0 * next(stream) - 1.0 for _ in range(3))) for _ in range(domains)]
    turns[0] = np.eye(3)
    return np.array(turns)


def _one(spread: float, r1: float, r2: float, r3: float) -> FloatArray:
    """A rotation about an axis spread evenly over the sphere, by at most `spread` radians."""
    across = math.sqrt(1.0 - r2 * r2)
    axis = np.array([across * math.sin(math.pi * r1), across * math.cos(math.pi * r1), r2])
    # The power is a float32 one. Computed in float64 and rounded once, it is the same on every machine.
    share = np.float32(float(np.float32(1.0 - r3 * r3)) ** float(np.float32(1.0 / 3.0)))
    return rotation(axis, spread * float(share))
