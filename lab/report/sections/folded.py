"""A long table folded: of each number that its kind puts first, how many, the least, the mean, the greatest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import LabError
from core.tables import Jobs
from core.tables import query as ask
from lab.report.book import Row, slug
from lab.report.doc import Line, Name, Table
from lab.report.forms import is_number
from lab.report.lines import joined
from lab.report.reading import Reading

_OVER = ("n", "least", "mean", "most")


def folded(
    r: Reading, table: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], jobs: Jobs
) -> Table | None:
    """The table over all rows of `jobs`; None where it has no number, or the choice of jobs cannot be written out.

    Args:
        rows: the first ones: they say which columns are numbers.
    """
    numbers = [c for c in columns if any(is_number(row[c]) for row in rows)]
    where = jobs.condition("job")
    if not numbers or where is None:
        return None
    lines: list[Sequence[Line]] = []
    for column in numbers:
        sql = _sql(table, column, where)
        try:
            (found,) = ask(r.home, r.conn, sql, warnings=r.warnings).to_pylist()
        except LabError:
            continue
        # Sums that threads make differ in their last bits from one time to the next.
        values = {name: float(f"{v:.12g}") if isinstance(v := found[name], float) else v for name in _OVER}
        row = f"folded-{slug(table)}-{slug(column)}-{jobs.spans[0][0]}-{jobs.spans[-1][1]}"
        title, command = f"{column} of {table} over {jobs.said()}", joined(["lab", "results", "--sql", sql])
        r.book.add(Row(row, "folded", title, values, "", command, "computed over all rows of these jobs"))
        lines.append(([Name(column)], *([r.book.shown(row, name)] for name in _OVER)))
    head: list[Line] = [["column"], ["numbers"], ["least"], ["mean"], ["greatest"]]
    caption: Line = [Name(table), ": all rows, folded"]
    return Table(caption, head, lines, frozenset({1, 2, 3, 4})) if lines else None


def _sql(table: str, column: str, where: str) -> str:
    name, of = _quoted(column), _quoted(table)
    return (
        f"select count({name}) n, min({name}) least, avg({name}) mean, max({name}) most from {of} "
        f"where {where} and isfinite({name}::double)"
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
