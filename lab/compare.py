"""`lab compare A B`: what differs between two jobs, in what makes them themselves and in what they found."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.home import Home
from core.journal import query
from core.journal.query import Job
from core.spec import differing_parts, key_parts
from core.tables import ORIGIN, read_table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class ColumnDifference:
    """One column of a table that both jobs have.

    Attributes:
        differing: rows whose values are not equal (two NaN are).
        max_abs, max_rel: of numeric columns, over rows where both are finite; relative to the second job's value.
        where: the row with the greatest difference, or the first one: its identity.
    """

    column: str
    differing: int
    max_abs: float | None = None
    max_rel: float | None = None
    where: str = ""
    example: tuple[Any, Any] | None = None


@dataclass(frozen=True)
class TableDifference:
    """One table. `joined_on` names the columns by which rows were matched; empty: by their order."""

    table: str
    rows: tuple[int, int]
    matched: int
    joined_on: tuple[str, ...]
    columns: list[ColumnDifference] = field(default_factory=list)
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
    rows_only_first: int = 0
    rows_only_second: int = 0

    @property
    def equal(self) -> bool:
        return (
            self.rows[0] == self.rows[1] == self.matched
            and not self.only_first
            and not self.only_second
            and all(c.differing == 0 for c in self.columns)
        )


@dataclass(frozen=True)
class Comparison:
    jobs: tuple[Job, Job]
    key_parts: list[str]
    tables: list[TableDifference]
    warnings: list[str]

    @property
    def equal(self) -> bool:
        return not self.key_parts and self.same_results

    @property
    def same_results(self) -> bool:
        return all(t.equal for t in self.tables)


def compare(home: Home, conn: sqlite3.Connection, a: int, b: int) -> Comparison:
    """Compare two jobs: their keys part by part, and every table that either has. Raises NotFound."""
    first, second = query.job(conn, a), query.job(conn, b)
    parts = [key_parts(query.spec_of(conn, j.spec), j.params) for j in (first, second)]
    names = [{p.table for p in query.parts(conn, job_id=j.id)} for j in (first, second)]
    tables: list[TableDifference] = []
    warnings: list[str] = []
    for name in sorted(names[0] | names[1]):
        if name in names[0] and name in names[1]:
            left, right = (read_table(home, conn, name, [j], warnings=warnings) for j in (a, b))
            tables.append(table_difference(name, left, right))
        else:
            there = read_table(home, conn, name, [a if name in names[0] else b], warnings=warnings).num_rows
            rows = (there, 0) if name in names[0] else (0, there)
            tables.append(TableDifference(name, rows, 0, (), rows_only_first=rows[0], rows_only_second=rows[1]))
    return Comparison((first, second), differing_parts(*parts), tables, warnings)


def table_difference(name: str, left: pa.Table, right: pa.Table) -> TableDifference:
    """Match the rows of two tables and compare the columns that both have."""
    import pyarrow as pa

    left, right = (t.drop_columns([c for c in ORIGIN if c in t.column_names]) for t in (left, right))
    common = [c for c in left.column_names if c in right.column_names]
    on, pairs = _match(left, right, common)
    picked = [t.take(pa.array([p[side] for p in pairs], pa.int64())) for side, t in enumerate((left, right))]
    labels = picked[0].select(list(on)).to_pylist() if on else []
    columns = [_column(c, picked[0].column(c), picked[1].column(c), labels) for c in common if c not in on and pairs]
    return TableDifference(
        name,
        (left.num_rows, right.num_rows),
        len(pairs),
        on,
        columns,
        tuple(c for c in left.column_names if c not in common),
        tuple(c for c in right.column_names if c not in common),
        left.num_rows - len(pairs),
        right.num_rows - len(pairs),
    )


def _match(left: pa.Table, right: pa.Table, common: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[int, int]]]:
    """By the first columns of names, counts and flags that tell all rows apart, on both sides; else by order."""
    import pyarrow.types as pt

    def names_something(column: str) -> bool:
        kinds = [t.schema.field(column).type for t in (left, right)]
        return all(pt.is_string(k) or pt.is_integer(k) or pt.is_boolean(k) or pt.is_dictionary(k) for k in kinds)

    on: list[str] = []
    for column in common:
        if not names_something(column):
            continue
        on.append(column)
        keys = [list(zip(*(t.column(c).to_pylist() for c in on), strict=True)) for t in (left, right)]
        if all(len(set(k)) == len(k) for k in keys):
            where = {key: i for i, key in enumerate(keys[1])}
            pairs = [(i, where[key]) for i, key in enumerate(keys[0]) if key in where]
            if pairs:
                return tuple(on), pairs
            break
    return (), [(i, i) for i in range(min(left.num_rows, right.num_rows))]


def _column(name: str, left: pa.ChunkedArray, right: pa.ChunkedArray, labels: list[dict[str, Any]]) -> ColumnDifference:
    import numpy as np
    import pyarrow.types as pt

    def where(i: int) -> str:
        return ", ".join(f"{k}={v}" for k, v in labels[i].items()) if labels else f"row {i}"

    numeric = all(pt.is_floating(c.type) or pt.is_integer(c.type) for c in (left, right))
    if not numeric or left.null_count or right.null_count:
        a, b = left.to_pylist(), right.to_pylist()
        odd = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if not _same(x, y)]
        if not odd:
            return ColumnDifference(name, 0)
        return ColumnDifference(name, len(odd), where=where(odd[0]), example=(a[odd[0]], b[odd[0]]))
    x, y = (np.asarray(c.to_numpy(), dtype=np.float64) for c in (left, right))
    differs = ~((x == y) | (np.isnan(x) & np.isnan(y)))
    count = int(differs.sum())
    if not count:
        return ColumnDifference(name, 0, 0.0, 0.0)
    return _numeric(name, x, y, differs, where)


def _numeric(
    name: str, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], differs: np.ndarray[Any, Any], where: Any
) -> ColumnDifference:
    import numpy as np

    finite = np.isfinite(x) & np.isfinite(y) & differs
    if not finite.any():  # all of it is NaN or infinite on one side
        i = int(differs.argmax())
        return ColumnDifference(name, int(differs.sum()), None, None, where(i), (float(x[i]), float(y[i])))
    gap = np.where(finite, np.abs(np.where(finite, x, 0.0) - np.where(finite, y, 0.0)), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(finite, gap / np.abs(y), 0.0)
    i = int(gap.argmax())
    return ColumnDifference(
        name, int(differs.sum()), float(gap.max()), float(relative.max()), where(i), (float(x[i]), float(y[i]))
    )


def _same(x: Any, y: Any) -> bool:
    return bool(x == y or (x != x and y != y))
