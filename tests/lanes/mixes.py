"""Seeded labs and sweeps for the simulator: lanes of unequal speed, cells long and short."""

from __future__ import annotations

import math
import random

from lanes.simulate import CellOf, Machine

_SPEEDS = (
    *[(1.0, 0.5, 0.25)] * 4,
    (1.0, 1.0),
    (1.0, 0.5),
    (1.0, 0.3, 0.3),
    (1.0, 0.8, 0.5, 0.25),
    (1.0, 1.0, 1.0, 0.2),
    (4.0, 1.0, 1.0, 0.5, 0.25, 0.1),
)


def mix(seed: int) -> tuple[list[Machine], list[CellOf]]:
    """One lab, and one sweep of long and short cells. What its parameters say of a cell's work is never all."""
    rng = random.Random(seed)
    machines = [
        Machine(f"lane{i}", speed, slots=rng.choice((1, 1, 1, 2)), start_s=rng.choice((0.0, 0.0, 0.1, 0.3)))
        for i, speed in enumerate(rng.choice(_SPEEDS))
    ]
    n, shape, blur = rng.randint(50, 150), rng.choice(("two", "grid", "power", "alike")), rng.choice((0.0, 0.05, 0.2))
    cells = []
    for i in range(n):
        if shape == "two":
            long = rng.random() < 0.2
            params, work = {"size": 10 if long else 1, "seed": i}, 60.0 if long else 6.0
        elif shape == "grid":
            a, b = rng.choice((1, 2, 4, 8)), rng.choice(("x", "y", "z"))
            params, work = {"a": a, "b": b, "seed": i}, 3.0 * a * {"x": 1.0, "y": 1.5, "z": 3.0}[b]
        elif shape == "power":
            x = rng.uniform(1, 10)
            params, work = {"x": x, "seed": i}, x * x
        else:
            params, work = {"seed": i}, 20.0
        cells.append(CellOf(params, work * math.exp(rng.gauss(0.0, blur))))
    return machines, cells
