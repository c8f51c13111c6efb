"""Order and cycles of dependencies."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.graph import cycle, order

GRAPHS = st.dictionaries(st.integers(0, 8), st.lists(st.integers(0, 8), max_size=4), max_size=9)


@given(GRAPHS)
def test_either_an_order_or_a_cycle(needs: dict[int, list[int]]) -> None:
    circle = cycle(needs)
    if circle:
        assert circle[0] == circle[-1]
        assert len(set(circle)) == len(circle) - 1
        assert all(b in needs[a] for a, b in itertools.pairwise(circle))
        with pytest.raises(ValueError, match="cycle"):
            order(needs)
    else:
        found = order(needs)
        assert sorted(found) == sorted(needs)
        place = {node: i for i, node in enumerate(found)}
        assert all(place[b] < place[a] for a in needs for b in needs[a] if b in needs)


def test_a_chain_of_many_is_no_problem() -> None:
    needs = {i: [i + 1] for i in range(20_000)}
    assert order(needs)[0] == 19_999
    assert cycle(needs) == []
    assert len(cycle({**needs, 20_000: [0]})) == 20_002


def test_equals_keep_their_order() -> None:
    assert order({"c": [], "a": ["b"], "b": []}) == ["c", "b", "a"]
