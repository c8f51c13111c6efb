"""Result tables for the terminal: numbers to the right, short floats, and only what can be read.

A table of a kind may have forty columns. On a terminal those that say the same in every row are said once, origins and
digests give way, and what still does not fit is named. A kind chooses its first columns by the schema metadata
`lab.headline` (names separated by commas).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lab.output import human
from lab.output.page import Page, cells
from lab.output.table import Column, fold, lay_out

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_ROWS = 100
_TEXT = 40
_ORIGIN = ("job", "attempt", "lane", "key")
_HEADLINE = b"lab.headline"
_VERDICTS = ("verdict", "ok", "passed", "status")
_CONSTANT_FROM = 3  # with fewer rows, that a column is the same everywhere says little


def table_lines(page: Page, table: pa.Table, *, most: int = _MOST_ROWS, total: int | None = None) -> list[str]:
    """`table` as text; in a pipe all of its columns. `total`: how many rows there are, where `table` is their head."""
    if table.num_columns == 0:
        return []
    total = table.num_rows if total is None else total
    shown = table.slice(0, most)
    names = list(table.column_names) if page.width is None else _by_interest(table)
    texts = {n: [_cell(v) for v in shown.column(n).to_pylist()] for n in names}
    constant = _constant(texts, total) if page.width is not None and total <= most else {}
    names = [n for n in names if n not in constant]
    fit = _fit(page, names, texts)
    columns = [Column(n, right=_is_number(table.schema.field(n).type)) for n in fit]
    rows = [[texts[n][r] or "-" for n in fit] for r in range(shown.num_rows)]
    lines = lay_out(page, columns, rows) or ["(no rows)"]
    if total > shown.num_rows:
        said = f"{total - shown.num_rows:,} more rows: choose with --where or --sql, or write all with --format"
        lines.append(page.paint(said, "dim"))
    if constant:
        lines += _aside(page, "in every row: " + _said_once(constant))
    left = [n for n in table.column_names if n not in fit and n not in constant]
    if left:
        lines += _aside(page, f"no room here for: {', '.join(left)}")
    return lines


def _by_interest(table: pa.Table) -> list[str]:
    """Column names, the headline first, origins and digests last."""
    headline = (table.schema.metadata or {}).get(_HEADLINE, b"").decode().split(",")
    first = list(dict.fromkeys(n for n in headline if n in table.column_names))
    late = [n for n in table.column_names if n in _ORIGIN or n.endswith(("_digest", "_sha256"))]
    rest = [n for n in table.column_names if n not in first and n not in late]
    return [*first, *rest, *late]


def _constant(texts: dict[str, list[str]], rows: int) -> dict[str, str]:
    """Columns that say the same in every row, with what they say."""
    if rows < _CONSTANT_FROM:
        return {}
    return {n: values[0] for n, values in texts.items() if len(set(values)) == 1}


def _said_once(constant: dict[str, str]) -> str:
    return ", ".join(f"{n} {t}" for n, t in constant.items() if t not in ("", "-") and n != "key")


def _fit(page: Page, names: Sequence[str], texts: dict[str, list[str]]) -> list[str]:
    """Those columns, in order, for which there is room; a long one does not keep out a short one behind it."""
    if page.width is None:
        return list(names)
    out: set[str] = set()
    left = page.width + 2
    for name in sorted(names, key=lambda n: n not in _VERDICTS):  # what it came to must not give way to what it was
        wide = max(cells(name), *(cells(t) for t in texts[name]), 1) + 2
        if wide <= left or not out:
            out.add(name)
            left -= wide
    return [n for n in names if n in out]


def _aside(page: Page, text: str) -> Iterable[str]:
    return [page.paint(line, "dim") for line in fold(text, page.width or 0, page, 6)]


def _cell(value: Any) -> str:
    text = human.value(value)
    return text if len(text) <= _TEXT else text[: _TEXT - 3] + "..."


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
