"""`lab compare A B`: what differs between two jobs or sweeps, in what makes them themselves and in what they found."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import NotFound
from core.home import Home
from core.journal import query
from core.journal.query import Job
from core.spec import differing_parts, key_parts
from core.tables import Jobs, read_table, tables_of
from core.tables.select import chosen
from lab import axes
from lab.tablediff import ColumnDifference, Spread, TableDifference, Worst, table_difference

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "CellsDifference",
    "ColumnDifference",
    "Comparison",
    "Spread",
    "TableDifference",
    "Worst",
    "compare",
    "table_difference",
]

_EXAMPLES = 5


@dataclass(frozen=True)
class CellsDifference:
    """The cells of two sweeps, told apart by the values on their axes.

    Attributes:
        common: cells that both have.
        only_first, only_second: how many one of them alone has; the examples say which.
    """

    axes: tuple[str, ...]
    common: int
    only_first: int
    only_second: int
    first_examples: tuple[str, ...] = ()
    second_examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """`cells` is None where neither is a sweep."""

    jobs: tuple[Job, Job]
    key_parts: list[str]
    tables: list[TableDifference]
    warnings: list[str]
    cells: CellsDifference | None = None

    @property
    def equal(self) -> bool:
        same_cells = self.cells is None or not (self.cells.only_first or self.cells.only_second)
        return not self.key_parts and same_cells and self.same_results

    @property
    def same_results(self) -> bool:
        return all(t.equal for t in self.tables)


def compare(home: Home, conn: sqlite3.Connection, a: int, b: int) -> Comparison:
    """Compare two jobs or sweeps: what they were asked, and every table that either has.

    Rows of sweeps are matched by the values on the axes of either; a job is then taken for a sweep of one cell.

    Raises:
        NotFound: an unknown id.
    """
    first, second = query.with_attempts(conn, [query.job(conn, a), query.job(conn, b)])
    sides = first, second
    parts = [key_parts(query.spec_of(conn, j.spec), j.params) for j in sides]
    jobs = (chosen(conn, [a]), chosen(conn, [b]))
    names = axes.axes_of(conn, [a, b])
    tables: list[TableDifference] = []
    warnings: list[str] = []
    with_rows = [set(tables_of(conn, j)) for j in jobs]
    for name in sorted(with_rows[0] | with_rows[1]):
        rows = [_rows(home, conn, name, j, names, warnings) if name in t else None
                for j, t in zip(jobs, with_rows, strict=True)]  # fmt: skip
        if rows[0] is not None and rows[1] is not None:
            tables.append(table_difference(name, rows[0], rows[1], axes=names))
        else:
            count = tuple(0 if r is None else r.num_rows for r in rows)
            if any(count):
                one = (count[0], count[1])
                tables.append(TableDifference(name, one, 0, (), rows_only_first=one[0], rows_only_second=one[1]))
    cells = _cells(conn, jobs, names) if any(j.is_sweep for j in sides) else None
    return Comparison(sides, differing_parts(*parts), tables, warnings, cells)


def _rows(
    home: Home, conn: sqlite3.Connection, table: str, jobs: Jobs, names: tuple[str, ...], warnings: list[str]
) -> pa.Table | None:
    """The rows of one side, with the axes of both in front; None where there are none."""
    import numpy as np
    import pyarrow as pa

    try:
        rows = read_table(home, conn, table, jobs, warnings=warnings)
    except NotFound as error:
        if "can be read" in error.message:
            warnings.append(str(error))
        return None
    if not rows.num_rows and len(jobs) != 1:
        return None
    extra = [n for n in names if n not in rows.column_names]
    if not extra:
        return rows
    values = axes.parameter_table(conn, jobs, extra)
    at = pa.array(np.searchsorted(values.column("job").to_numpy(), rows.column("job").to_numpy()))
    for place, name in enumerate(extra):
        rows = rows.add_column(place, name, values.column(name).take(at))
    return rows


def _cells(conn: sqlite3.Connection, jobs: tuple[Jobs, Jobs], names: tuple[str, ...]) -> CellsDifference:
    first, second = (dict.fromkeys(axes.cell_values(conn, j, names).values()) for j in jobs)
    only = [v for v in first if v not in second], [v for v in second if v not in first]
    examples = [
        tuple(" ".join(f"{n}={x}" for n, x in zip(names, v, strict=True)) for v in some[:_EXAMPLES]) for some in only
    ]
    return CellsDifference(names, len(first) - len(only[0]), len(only[0]), len(only[1]), examples[0], examples[1])
