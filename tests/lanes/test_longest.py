"""Which waiting cells placement looks at: the longest, and some of every length; the rest is known by its sum."""

from __future__ import annotations

import random

from lanes.longest import Length, Longest


def known(seconds: dict[int, float]) -> Longest:
    return Longest(lambda cell: Length(seconds[cell], 1.5 * seconds[cell]), sorted(seconds))


def test_longest_first_then_by_age() -> None:
    found, rest = known({1: 3.0, 2: 9.0, 3: 1.0, 4: 9.0}).first(3, ends=5, spread=0)
    assert found == [2, 4, 1]
    assert rest == 1.0


def test_while_nothing_is_known_by_age_alone() -> None:
    assert Longest(lambda _: None, range(5, 9)).first(3, ends=0, spread=0) == ([5, 6, 7], 0.0)


def test_estimates_are_made_again_when_there_are_more_ends() -> None:
    seconds = {1: 1.0, 2: 2.0}
    cells = known(seconds)
    assert cells.first(1, ends=1, spread=0)[0] == [2]
    seconds[1] = 5.0
    assert cells.first(1, ends=1, spread=0)[0] == [2]
    assert cells.first(1, ends=2, spread=0)[0] == [1]


def test_what_waits_no_more_is_left_out_and_what_comes_back_is_there_again() -> None:
    seconds = {i: float(i) for i in range(1, 101)}
    cells = known(seconds)
    cells.first(5, ends=1)
    for i in range(50, 101):
        cells.discard(i)
    assert cells.first(2, ends=1, spread=0)[0] == [49, 48]
    cells.add(77)
    assert cells.first(2, ends=1, spread=0)[0] == [77, 49]
    assert len(cells) == 50
    assert 77 in cells
    assert 50 not in cells


def test_besides_the_longest_some_of_every_length() -> None:
    cells = known({i: float(i) for i in range(1, 1001)})
    found, rest = cells.first(10, ends=1, spread=20)
    assert found[:10] == list(range(1000, 990, -1))
    assert 15 <= len(found) - 10 <= 25
    assert min(found) < 60
    assert abs(rest - (500500 - sum(found))) < 1e-6


def test_of_a_long_sweep_a_part_of_everywhere_is_looked_at() -> None:
    looked: set[int] = set()

    def length(cell: int) -> Length:
        looked.add(cell)
        return Length(1.0 + cell % 7, 2.0 + cell % 7)

    cells = Longest(length, range(100_000), window=1000)
    found, rest = cells.first(50, ends=1)
    assert len(looked) <= 1000
    assert max(looked) > 98_000
    assert min(looked) < 2_000
    # The work of what was not looked at is reckoned by what was.
    assert abs(rest + sum(cells.length(c).expected for c in found) - 400_000) < 8_000


def test_every_cell_comes_once() -> None:
    rng = random.Random(1)
    cells = Longest(lambda cell: Length(cell % 13 + 1.0, cell % 13 + 1.0), range(5000), window=300)
    seen: list[int] = []
    while cells:
        found, _ = cells.first(20, ends=1, spread=5)
        for cell in rng.sample(found, min(len(found), 8)):
            cells.discard(cell)
            seen.append(cell)
    assert sorted(seen) == list(range(5000))


def test_bundles_are_of_one_time() -> None:
    cells = known({1: 4.0, 2: 2.0, 3: 0.5, 4: 0.5, 5: 0.5})
    order, _ = cells.first(5, ends=1)
    assert cells.bundles(order, 1.5) == [(1,), (2,), (3, 4), (5,)]
    assert cells.whole((3, 4)) == Length(1.0, 1.5)
    assert cells.bundles([], 1.0) == []
