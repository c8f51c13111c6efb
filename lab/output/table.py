"""Aligned columns for the terminal: what does not fit is shortened, the last column is folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.output.page import Page, cells

_GAP = "  "
# What a column that may shrink, and the last one, keep: where there is some room, and where there is little.
_LEAST = ((14, 24), (8, 12))
_FOLD_LINES = 2


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        right: align numbers to the right.
        shrink: may be shortened when the page is too narrow.
    """

    title: str
    right: bool = False
    shrink: bool = False


def lay_out(
    page: Page,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    header: bool = True,
    lines_most: int = _FOLD_LINES,
) -> list[str]:
    """Lines of a table. Columns that are empty in every row are left out.

    Args:
        lines_most: into so many lines the last column is folded.
    """
    if not rows:
        return []
    keep = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    columns = [columns[i] for i in keep]
    rows = [[row[i] for i in keep] for row in rows]
    widths = _widths(page, columns, rows)
    lines = []
    if header:
        titles = [c.title for c in columns]
        lines += [page.paint(line, "dim") for line in _row(page, columns, widths, titles, lines_most)]
    for row in rows:
        lines += _row(page, columns, widths, row, lines_most)
    return lines


def _widths(page: Page, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    widths = [max(cells(c.title), *(cells(row[i]) for row in rows)) for i, c in enumerate(columns)]
    if page.width is None:
        return widths
    for least, least_fold in _LEAST:
        over = sum(widths) + len(_GAP) * (len(widths) - 1) - page.width
        if over > 0:
            # First the last column, which is folded and loses nothing at first; then those that may be shortened.
            over -= _give(widths, columns, len(widths) - 1, least_fold, over)
        while over > 0:
            wide = [i for i, c in enumerate(columns[:-1]) if c.shrink and widths[i] > max(least, cells(c.title))]
            if not wide:
                break
            over -= _give(widths, columns, max(wide, key=lambda i: widths[i]), least, 1)
    return widths


def _give(widths: list[int], columns: Sequence[Column], i: int, least: int, over: int) -> int:
    """Make a column narrower by up to `over`, never below what it keeps. Returns by how much."""
    given = min(over, max(0, widths[i] - max(least, cells(columns[i].title))))
    widths[i] -= given
    return given


def _row(page: Page, columns: Sequence[Column], widths: Sequence[int], row: Sequence[str], most: int) -> list[str]:
    folded = fold(row[-1], widths[-1], page, most)
    parts = [
        _fit(text, width, column.right, page) for text, width, column in zip(row[:-1], widths, columns, strict=False)
    ]
    if columns[-1].right:
        folded = [text.rjust(widths[-1]) for text in folded]
    first = _GAP.join([*parts, folded[0]]).rstrip()
    indent = " " * (sum(widths[:-1]) + len(_GAP) * (len(widths) - 1))
    return [first, *(indent + text for text in folded[1:])]


def _fit(text: str, width: int, right: bool, page: Page) -> str:
    free = width - cells(text)
    if free < 0:
        text = shorten(text, width, page)
        free = max(0, width - cells(text))
    return " " * free + text if right else text + " " * free


def shorten(text: str, width: int, page: Page) -> str:
    """`text` in at most `width` columns (coloured text is left as it is)."""
    if cells(text) <= width or "\x1b" in text:
        return text
    room = max(0, width - len(page.ellipsis))
    while cells(text) > room:
        text = text[:-1]
    return text + page.ellipsis


def fold(text: str, width: int, page: Page, lines: int) -> list[str]:
    """`text` broken at spaces into at most `lines` lines of `width` columns."""
    if page.width is None or cells(text) <= width:
        return [text]
    import textwrap

    if "\x1b" in text:  # colours cannot be counted by textwrap
        return [text]
    out = textwrap.wrap(
        text, width=max(1, width), max_lines=lines, placeholder=" " + page.ellipsis, break_on_hyphens=False
    )
    return out or [""]
