"""Choices of jobs as ranges, against plain sets."""

from __future__ import annotations

import random

import numpy as np
import pytest

from core.tables import Jobs


@pytest.mark.parametrize("seed", range(20))
def test_ranges_are_as_good_as_sets(seed: int) -> None:
    rng = random.Random(seed)
    a, b = ({rng.randint(1, 60) for _ in range(rng.randint(0, 50))} for _ in range(2))
    one, two = Jobs.of(a), Jobs.of(b)
    ids = range(62)
    assert [i for i in ids if i in one] == sorted(a)
    assert len(one) == len(a)
    assert bool(one) == bool(a)
    assert one.minus(two) == Jobs.of(a - b)
    assert list(np.array(ids)[one.mask(np.array(ids))]) == sorted(a)
    for _ in range(50):
        first = rng.randint(0, 60)
        last = first + rng.randint(0, 10)
        span = set(range(first, last + 1))
        assert one.meets(first, last) == bool(span & a)
        assert one.covers(first, last) == (span <= a)


def test_conditions_and_words() -> None:
    assert Jobs.of([3, 1, 2, 9]).condition("job") == "(job BETWEEN 1 AND 3 OR job = 9)"
    assert Jobs(()).condition("job") == "false"
    assert Jobs.of(range(0, 1000, 2)).condition("job") is None
    assert Jobs.of([4, 5, 9]).said() == "4-5, 9"
    assert Jobs.of(range(0, 100, 2)).said(2) == "0, 2, ..."
