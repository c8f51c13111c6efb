"""`lab compare` of sweeps: cells matched by their axes, differences with their spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from core.home import Home
from core.journal import Journal, Role
from lab.compare import Comparison, compare, table_difference
from tests.core.pooled import batch, end, sweep

Make = Callable[[dict[str, Any]], Any]


@pytest.fixture
def journal(home: Home) -> Iterator[Journal]:
    with Journal.open(home, Role.CONTROLLER, create=True) as journal:
        yield journal


def swept(journal: Journal, axes: Mapping[str, Sequence[Any]], make: Make) -> int:
    import itertools

    cells = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    with journal.transaction() as tx:
        s = sweep(tx, axes)
        batch(tx, s + 1, s + len(cells), lambda j: make(cells[j - s - 1]))
        end(tx, s)
    return s


def compared(journal: Journal, a: int, b: int) -> Comparison:
    return compare(journal.home, journal.conn, a, b)


def test_cells_are_matched_by_their_axes(journal: Journal) -> None:
    a = swept(journal, {"n": [1, 2, 3], "m": ["x", "y"]}, lambda c: {"v": float(c["n"]), "s": c["m"]})
    b = swept(
        journal, {"m": ["y", "x"], "n": [3, 2, 4]}, lambda c: {"v": c["n"] + (0.5 if c["n"] == 2 else 0.0), "s": c["m"]}
    )
    found = compared(journal, a, b)
    assert found.cells is not None
    assert (found.cells.axes, found.cells.common) == (("n", "m"), 4)
    assert (found.cells.only_first, found.cells.only_second) == (2, 2)
    assert found.cells.first_examples == ('n=1 m="x"', 'n=1 m="y"')
    (table,) = found.tables
    assert (table.joined_on, table.rows, table.matched) == (("n", "m"), (6, 6), 4)
    assert (table.rows_only_first, table.rows_only_second) == (2, 2)
    v, s = table.columns
    assert (v.column, v.differing, v.max_abs, s.differing) == ("v", 2, 0.5, 0)
    assert v.spread is not None
    assert (v.spread.n, v.spread.mean, v.spread.min, v.spread.max) == (4, -0.25, -0.5, 0.0)
    assert v.spread.rms == pytest.approx(math.sqrt(0.125))
    assert v.spread.std == pytest.approx(np.std([0, 0, -0.5, -0.5], ddof=1))
    assert [w.where for w in v.worst] == ["n=2, m=x", "n=2, m=y"]
    assert not found.equal


def test_the_same_sweep_is_equal_to_itself(journal: Journal) -> None:
    a = swept(journal, {"n": [1, 2]}, lambda c: [{"k": i, "v": i * c["n"]} for i in range(3)])
    found = compared(journal, a, a)
    assert found.equal
    assert found.tables[0].joined_on == ("n", "k")
    assert found.cells is not None
    assert found.cells.common == 2


def test_seeds_give_the_spread_within_each_side(journal: Journal) -> None:
    noise = {0: -1.0, 1: 0.0, 2: 1.0}
    axes = {"n": [10, 20], "seed": [0, 1, 2]}
    a = swept(journal, axes, lambda c: {"v": c["n"] + noise[c["seed"]]})
    b = swept(journal, axes, lambda c: {"v": c["n"] + 2 * noise[c["seed"]] + 3.0})
    v = compared(journal, a, b).tables[0].columns[0]
    assert v.spread is not None
    assert (v.spread.mean, v.spread.within_first, v.spread.within_second) == (-3.0, 1.0, 2.0)
    # With other seeds there is no row to match: means are compared.
    other = swept(journal, {"n": [10, 20], "seed": [7, 8, 9]}, lambda c: {"v": c["n"] + noise[c["seed"] - 7]})
    table = compared(journal, a, other).tables[0]
    assert (table.repeated, table.joined_on, table.matched) == (True, ("n",), 2)
    v = table.columns[0]
    assert v.spread is not None
    assert (v.differing, v.spread.n, v.spread.mean, v.spread.within_first) == (0, 2, 0.0, 1.0)


def test_rows_that_repeat_without_a_name(journal: Journal) -> None:
    a = swept(journal, {"n": [1, 2]}, lambda c: [{"v": c["n"] + 0.5}, {"v": c["n"] - 0.5}])
    b = swept(journal, {"n": [1, 2]}, lambda c: [{"v": c["n"] * 2.0}])
    table = compared(journal, a, b).tables[0]
    assert (table.repeated, table.matched) == (True, 2)
    v = table.columns[0]
    assert v.spread is not None
    assert (v.spread.mean, v.spread.within_second) == (-1.5, None)
    assert v.spread.within_first == pytest.approx(0.5**0.5)
    assert v.worst[0].where == "n=2"


def test_a_job_beside_a_sweep(journal: Journal) -> None:
    a = swept(journal, {"n": [1, 2]}, lambda c: {"v": float(c["n"])})
    found = compared(journal, a + 2, a)
    assert found.cells is not None
    assert (found.cells.common, found.cells.only_first, found.cells.only_second) == (1, 0, 1)
    assert found.tables[0].matched == 1
    assert found.tables[0].columns[0].differing == 0
    assert compared(journal, a + 1, a + 2).cells is None


def test_sweeps_without_a_common_cell(journal: Journal) -> None:
    a = swept(journal, {"n": [1]}, lambda c: {"v": 1.0})
    b = swept(journal, {"n": [2]}, lambda c: {"v": 1.0})
    found = compared(journal, a, b)
    assert found.tables[0].matched == 0
    assert not found.equal


def test_a_table_on_one_side_only(journal: Journal) -> None:
    a = swept(journal, {"n": [1]}, lambda c: {"v": 1.0})
    with journal.transaction() as tx:
        b = sweep(tx, {"n": [1]})
        batch(tx, b + 1, b + 1, lambda j: [])
        end(tx, b)
    (table,) = compared(journal, a, b).tables
    assert (table.rows, table.rows_only_first, table.matched) == ((1, 0), 1, 0)


def test_a_hundred_thousand_rows_are_matched_at_once() -> None:
    n = 100_000
    rng = np.random.default_rng(1)
    order = rng.permutation(n)
    left = pa.table({"a": np.arange(n) % 1000, "b": np.arange(n) // 1000, "v": rng.random(n)})
    right = left.take(pa.array(order))
    found = table_difference("t", left, right, axes=("a", "b"))
    assert (found.joined_on, found.matched, found.columns[0].differing) == (("a", "b"), n, 0)
    changed = right.set_column(2, "v", pa.array(right["v"].to_numpy() + np.where(order == 5, 1.0, 0.0)))
    v = table_difference("t", left, changed, axes=("a", "b")).columns[0]
    assert (v.differing, v.where) == (1, "a=5, b=0")


def test_nan_and_infinity_in_differences() -> None:
    left = pa.table({"k": ["a", "b", "c", "d"], "v": [1.0, float("inf"), float("nan"), float("nan")]})
    right = pa.table({"k": ["a", "b", "c", "d"], "v": [1.5, 1.0, float("nan"), 2.0]})
    v = table_difference("t", left, right).columns[0]
    assert (v.differing, v.max_abs) == (3, 0.5)
    assert v.spread is not None
    assert (v.spread.n, v.spread.mean) == (1, -0.5)
