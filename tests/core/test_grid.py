"""Grids: which cells there are, in which order, and what is refused, each time naming the axis."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import BadInput
from core.grid import LIMIT, Grid, same


def cells(*args: Any, **more: Any) -> list[dict[str, Any]]:
    return list(Grid.of(*args, **more).cells())


def test_the_last_axis_moves_fastest() -> None:
    found = cells({"a": [1, 2], "b": ["x", "y", "z"]}, base={"c": 0})
    assert found == [{"c": 0, "a": a, "b": b} for a in (1, 2) for b in "xyz"]


def test_zipped_axes_go_together_in_the_place_of_the_first() -> None:
    grid = Grid.of({"a": [1, 2], "b": ["x", "y"], "c": [10, 20]}, zip=["a", "c"])
    assert [tuple(c.values()) for c in grid.cells()] == [(1, "x", 10), (1, "y", 10), (2, "x", 20), (2, "y", 20)]
    assert grid.shape == (2, 2)
    assert grid.summary() == "a+c×b 2×2"
    two = Grid.of({"a": [1, 2], "b": [3, 4], "c": [5, 6], "d": [7, 8]}, zip=[["a", "d"], ["b", "c"]])
    assert [tuple(c.values()) for c in two.cells()][:2] == [(1, 3, 5, 7), (1, 4, 6, 7)]


def test_excludes_name_parts_of_cells() -> None:
    axes = {"a": [1, 2, 3], "b": [True, False]}
    assert len(cells(axes, exclude=[{"a": 2}])) == 4
    assert cells(axes, exclude=[{"a": 2}, {"a": 1, "b": True}, {"b": False, "a": 3}]) == [
        {"a": 1, "b": False},
        {"a": 3, "b": True},
    ]
    assert len(cells(axes, exclude=[{"a": 2.0}])) == 4  # 2 is 2.0
    assert len(cells(axes, exclude=[{"b": 1}])) == 6  # but `true` is not 1


def test_excludes_that_leave_nothing_out_are_known() -> None:
    axes = {"a": [1, 2], "b": [3, 4]}
    assert Grid.of(axes, exclude=[{"a": 1}]).idle_excludes() == []
    assert Grid.of(axes, exclude=[{"a": 5}, {"b": 3}]).idle_excludes() == [{"a": 5}]
    # Each value is there, but never in one cell.
    assert Grid.of(axes, zip=["a", "b"], exclude=[{"a": 1, "b": 4}]).idle_excludes() == [{"a": 1, "b": 4}]


def test_lists_are_values() -> None:
    assert [c["sizes"] for c in cells({"sizes": [[1], [1, 4]]})] == [[1], [1, 4]]
    assert len(cells({"sizes": [[1], [1, 4]]}, exclude=[{"sizes": (1, 4)}])) == 1


@pytest.mark.parametrize(
    ("axes", "more", "words"),
    [
        ({}, {}, "the sweep has no axis"),
        ({"a": []}, {}, "axis `a` has no value"),
        ({"a": "abc"}, {}, "axis `a` is 'abc', which is no list"),
        ({"a": 3}, {}, "axis `a` is 3"),
        ({"a": [1, 2, 1]}, {}, "axis `a` has 1 twice"),
        ({"a": [[1], [1]]}, {}, r"axis `a` has \[1\] twice"),
        ({"a": [1]}, {"base": {"a": 2}}, "`a` is both an axis and a fixed parameter"),
        ({"a": [1, 2], "b": [1, 2, 3]}, {"zip": ["a", "b"]}, "equally many values: `a` has 2, `b` has 3"),
        ({"a": [1], "b": [1]}, {"zip": ["a", "c"]}, "zip names `c`, which is no axis"),
        ({"alpha": [1], "b": [1]}, {"zip": ["alhpa", "b"]}, "did you mean `alpha`"),
        ({"a": [1], "b": [1]}, {"zip": ["a"]}, "axis 'a' is zipped with nothing"),
        ({"a": [1], "b": [1], "c": [1]}, {"zip": [["a", "b"], ["b", "c"]]}, "axis `b` is zipped twice"),
        ({"a": [1, 1], "b": [2, 2]}, {"zip": ["a", "b"]}, "axes `a` and `b` have 1 with 2 twice"),
        ({"a": [1]}, {"exclude": [{"b": 1}]}, "an exclude names `b`, which is no axis"),
        ({"a": [1]}, {"exclude": [{}]}, "an exclude names no axis"),
        ({"a": [1, 2]}, {"exclude": [{"a": 1}, {"a": 2}]}, "every cell of the sweep is excluded"),
        ({"a": range(1001), "b": range(1000)}, {}, "the sweep would have 1,001,000 cells"),
        ({"a": range(LIMIT + 1)}, {}, "axis `a` has 1,000,001 values"),
    ],
)
def test_refusals(axes: dict[str, Any], more: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Grid.of(axes, **more)


def test_what_is_nearly_refused_is_not() -> None:
    assert len(cells({"a": [1, 1.5, "1", True, None]})) == 5  # all different
    assert len(cells({"a": [1, 1], "b": [2, 3]}, zip=["a", "b"])) == 2  # twice in `a`, but not together
    assert Grid.of({"a": range(1000), "b": range(1000)}).size == LIMIT
    assert not same(1, True)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 5), min_size=1, unique=True), min_size=1))
def test_every_combination_once_in_order(axes: dict[str, list[int]]) -> None:
    found = [tuple(c.values()) for c in Grid.of(axes).cells()]
    assert found == list(itertools.product(*axes.values()))
    out = [c for c in found if not (c[0] == axes[next(iter(axes))][0] and c[-1] % 2)]
    last = list(axes)[-1]
    first = next(iter(axes))
    odd = [{first: axes[first][0], last: v} for v in axes[last] if v % 2] if first != last else []
    odd += [{first: v} for v in axes[first][:1] if v % 2] if first == last else []
    if out and len(out) < len(found):
        assert [tuple(c.values()) for c in Grid.of(axes, exclude=odd).cells()] == out
