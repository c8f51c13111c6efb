"""The differences between two tables: rows are matched by what names them, and each common column is compared.

Where rows repeat (several seeds, several repeats), the spread within each side is measured beside the difference, for a
difference smaller than that says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.tables import ORIGIN
from lab.tablematch import REPEATS, Match, match_rows

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_WORST = 3


@dataclass(frozen=True)
class Spread:
    """How the differences (first minus second) of one column are distributed, over pairs where both are finite.

    Attributes:
        within_first, within_second: standard deviation over repetitions, within one side; None: nothing repeats.
    """

    n: int
    mean: float
    std: float
    min: float
    median: float
    max: float
    rms: float
    within_first: float | None = None
    within_second: float | None = None


@dataclass(frozen=True)
class Worst:
    """A row, and what each side has there."""

    where: str
    first: Any
    second: Any


@dataclass(frozen=True)
class ColumnDifference:
    """One column of a table that both have.

    Attributes:
        differing: rows whose values are not equal (two NaN are).
        max_abs, max_rel: of numeric columns, over rows where both are finite; relative to the second's value.
        where: the row with the greatest difference, or the first one: its identity.
        worst: the rows with the greatest differences.
    """

    column: str
    differing: int
    max_abs: float | None = None
    max_rel: float | None = None
    where: str = ""
    example: tuple[Any, Any] | None = None
    spread: Spread | None = None
    worst: tuple[Worst, ...] = ()


@dataclass(frozen=True)
class TableDifference:
    """One table.

    Attributes:
        joined_on: the columns by which rows were matched; empty: by their order.
        repeated: rows that these columns do not tell apart were taken together, and their means compared.
        matched: rows (or groups of rows) that both have.
    """

    table: str
    rows: tuple[int, int]
    matched: int
    joined_on: tuple[str, ...]
    columns: list[ColumnDifference] = field(default_factory=list)
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
    rows_only_first: int = 0
    rows_only_second: int = 0
    repeated: bool = False

    @property
    def equal(self) -> bool:
        return (
            self.rows[0] == self.rows[1]
            and not (self.rows_only_first or self.rows_only_second)
            and not self.only_first
            and not self.only_second
            and all(c.differing == 0 for c in self.columns)
        )


def table_difference(name: str, left: pa.Table, right: pa.Table, *, axes: Sequence[str] = ()) -> TableDifference:
    """Match the rows of two tables and compare the columns that both have.

    Args:
        axes: columns that name a row before all others.
    """
    left, right = (t.drop_columns([c for c in ORIGIN if c in t.column_names]) for t in (left, right))
    common = [c for c in left.column_names if c in right.column_names]
    common = [*(c for c in axes if c in common), *(c for c in common if c not in axes)]
    match = match_rows(left, right, common, [a for a in axes if a in common])
    columns = _repeated(left, right, common, match) if match.groups else _paired(left, right, common, match)
    return TableDifference(
        name,
        (left.num_rows, right.num_rows),
        match.count,
        match.on,
        columns,
        tuple(c for c in left.column_names if c not in common),
        tuple(c for c in right.column_names if c not in common),
        match.only[0],
        match.only[1],
        bool(match.groups),
    )


def _paired(left: pa.Table, right: pa.Table, common: Sequence[str], match: Match) -> list[ColumnDifference]:
    import pyarrow as pa

    assert match.pairs is not None
    if not match.count:
        return []
    picked = [t.take(pa.array(p)) for t, p in zip((left, right), match.pairs, strict=True)]
    where = _label(picked[0].select(list(match.on))) if match.on else lambda i: f"row {i}"
    out = []
    for c in common:
        if c in match.on:
            continue
        within = _within_sides(left, right, c, match.inner)
        out.append(_column(c, picked[0].column(c), picked[1].column(c), where, within))
    return out


def _repeated(left: pa.Table, right: pa.Table, common: Sequence[str], match: Match) -> list[ColumnDifference]:
    """Means of what the names do not tell apart, with the spread that they had."""
    import numpy as np
    import pyarrow as pa

    assert match.groups is not None
    first = np.full(match.count, -1, np.int64)
    rows = np.arange(left.num_rows)[::-1]
    mine = match.groups[0][::-1]
    first[mine[mine >= 0]] = rows[mine >= 0]
    where = _label(left.select(list(match.on)).take(pa.array(first)))
    out = []
    for c in common:
        sides = [t.column(c) for t in (left, right)]
        if c in match.on or c in REPEATS or not all(_is_number(s.type) for s in sides):
            continue
        x, y = (_mean(_floats(s), g, match.count) for s, g in zip(sides, match.groups, strict=True))
        out.append(_numbers(c, x, y, where, _within_sides(left, right, c, match.groups)))
    return out


def _mean(values: np.ndarray[Any, Any], groups: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    import numpy as np

    ours = groups >= 0
    total = np.bincount(groups[ours], weights=values[ours], minlength=count)
    return np.asarray(total / np.maximum(np.bincount(groups[ours], minlength=count), 1))


def _within_sides(
    left: pa.Table,
    right: pa.Table,
    column: str,
    groups: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None,
) -> tuple[float | None, float | None]:
    if groups is None or not all(_is_number(t.column(column).type) for t in (left, right)):
        return None, None
    first, second = (_within(_floats(t.column(column)), g) for t, g in zip((left, right), groups, strict=True))
    return first, second


def _within(values: np.ndarray[Any, Any], groups: np.ndarray[Any, Any]) -> float | None:
    """The standard deviation within groups, pooled over all that have two values or more."""
    import numpy as np

    ours = (groups >= 0) & np.isfinite(values)
    if not ours.any():
        return None
    g, v = groups[ours], values[ours]
    n = np.bincount(g)
    mean = np.bincount(g, weights=v) / np.maximum(n, 1)
    square = np.bincount(g, weights=(v - mean[g]) ** 2)
    freedom = int((n[n > 1] - 1).sum())
    return math.sqrt(float(square[n > 1].sum()) / freedom) if freedom else None


Where = Callable[[int], str]


def _label(names: pa.Table) -> Where:
    def where(i: int) -> str:
        return ", ".join(f"{k}={v}" for k, v in names.slice(i, 1).to_pylist()[0].items())

    return where


def _column(
    name: str,
    left: pa.ChunkedArray,
    right: pa.ChunkedArray,
    where: Where,
    within: tuple[float | None, float | None],
) -> ColumnDifference:
    if all(_is_number(c.type) for c in (left, right)) and not left.null_count and not right.null_count:
        return _numbers(name, _floats(left), _floats(right), where, within)
    a, b = left.to_pylist(), right.to_pylist()
    odd = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if not _same(x, y)]
    if not odd:
        return ColumnDifference(name, 0)
    worst = tuple(Worst(where(i), a[i], b[i]) for i in odd[:_WORST])
    return ColumnDifference(name, len(odd), where=worst[0].where, example=(a[odd[0]], b[odd[0]]), worst=worst)


def _numbers(
    name: str,
    x: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
    where: Where,
    within: tuple[float | None, float | None],
) -> ColumnDifference:
    import numpy as np

    differs = ~((x == y) | (np.isnan(x) & np.isnan(y)))
    count = int(differs.sum())
    both = np.isfinite(x) & np.isfinite(y)
    spread = _spread((x - y)[both], within) if both.any() else None
    if not count:
        return ColumnDifference(name, 0, 0.0, 0.0, spread=spread)
    finite = both & differs
    if not finite.any():  # all of it is NaN or infinite on one side
        i = int(differs.argmax())
        odd = Worst(where(i), float(x[i]), float(y[i]))
        return ColumnDifference(name, count, None, None, odd.where, (odd.first, odd.second), spread, (odd,))
    gap = np.where(finite, np.abs(np.where(finite, x, 0.0) - np.where(finite, y, 0.0)), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(finite, gap / np.abs(y), 0.0)
    top = np.argsort(-gap, kind="stable")[:_WORST]
    worst = tuple(Worst(where(int(i)), float(x[i]), float(y[i])) for i in top if gap[i] > 0)
    example = (worst[0].first, worst[0].second)
    return ColumnDifference(
        name, count, float(gap.max()), float(relative.max()), worst[0].where, example, spread, worst
    )


def _spread(d: np.ndarray[Any, Any], within: tuple[float | None, float | None]) -> Spread:
    import numpy as np

    with np.errstate(over="ignore"):
        return Spread(
            len(d),
            float(d.mean()),
            float(d.std(ddof=1)) if len(d) > 1 else 0.0,
            float(d.min()),
            float(np.median(d)),
            float(d.max()),
            float(np.sqrt((d * d).mean())),
            *within,
        )


def _floats(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.asarray(column.to_numpy(), dtype=np.float64)


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow.types as pt

    return bool(pt.is_floating(kind) or pt.is_integer(kind))


def _same(x: Any, y: Any) -> bool:
    return bool(x == y or (x != x and y != y))
