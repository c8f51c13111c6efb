"""Rates, the law of alpha, and the weight of unconditional samples."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from kernels.devices import KernelRefused
from kernels.drifting.schedule import Scheduler, alphas, rate_of, unconditional_weight


def rates(scheduler: Scheduler, warmup: int = 10) -> list[float]:
    return [rate_of(s, 100, rate=2.0, scheduler=scheduler, warmup=warmup, last=0.1) for s in range(100)]


def test_each_scheduler_goes_its_way() -> None:
    assert set(rates(Scheduler.NONE)) == {2.0}
    constant = rates(Scheduler.CONSTANT)
    assert np.allclose(constant[:10], 2.0 * np.arange(1, 11) / 10)
    assert set(constant[9:]) == {2.0}
    cosine = rates(Scheduler.COSINE)
    assert cosine[0] == 2.0
    assert all(a > b for a, b in pairwise(cosine))
    assert 0.2 < cosine[-1] < 0.21
    assert math.isclose(cosine[50], 2.0 * (0.1 + 0.9 * 0.5))
    both = rates(Scheduler.WARMUP_COSINE)
    assert both[:9] == constant[:9]
    assert both[10] == 2.0
    assert all(a > b for a, b in pairwise(both[10:]))
    assert rates(Scheduler.WARMUP_COSINE, warmup=0) == cosine


def test_a_step_outside_is_refused() -> None:
    for step in (-1, 5):
        with pytest.raises(KernelRefused, match="is not one of 5"):
            rate_of(step, 5, rate=1.0, scheduler=Scheduler.NONE)


@pytest.mark.parametrize("power", [0.0, 1.0, 3.0])
def test_alpha_has_its_density(power: float) -> None:
    u = (np.arange(200_000) + 0.5) / 200_000
    found = alphas(u, power=power)
    assert found.min() >= 1
    assert found.max() <= 4
    edges = np.linspace(1, 4, 7)
    counted = np.histogram(found, edges)[0] / len(u)
    fine = np.linspace(1, 4, 600_001)
    density = fine**-power
    mass = [density[(fine >= a) & (fine < b)].sum() for a, b in pairwise(edges)]
    assert np.allclose(counted, np.array(mass) / sum(mass), atol=1e-4)
    assert not np.allclose(counted, np.diff(alphas(edges / 8, power=power + 2)), atol=1e-2)


def test_an_alpha_below_one_is_refused() -> None:
    with pytest.raises(KernelRefused, match="no range"):
        alphas(0.5, least=0.5)


def test_the_weight_makes_the_part_of_unconditional_negatives() -> None:
    for alpha in (1.0, 1.5, 4.0):
        w = float(unconditional_weight(alpha, 32, 16))
        part = 16 * w / (31 + 16 * w)
        assert math.isclose(1 / (1 - part), alpha)
    assert float(unconditional_weight(1.0, 32, 16)) == 0.0
    with pytest.raises(KernelRefused, match="have no weight"):
        unconditional_weight(1.5, 32, 0)
