"""The rows that numbers lead to. Only those that are cited are written, so many to a page.

A row is a row of a result table, of the journal (a job, an attempt, an event, a lane), of a seal (a file), or one that
the report made itself of others: then it says how, by which command, and of which rows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from lab.report.doc import Code, Ident, Inline, Number, Told
from lab.report.forms import cell, form_of, is_number

ROWS_A_PAGE = 40
MADE = "made"  # the group of rows that the report made
_SLUG = re.compile(r"[^A-Za-z0-9_.-]+")
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Row:
    """Attributes:
    id: its anchor, unique in the site.
    group: pages are by group: a table's name, jobs, attempts, events, lanes, files, made.
    title: of its heading.
    values: by column.
    run: the run directory, relative to the home; empty: it has none.
    command: what made it, to be pasted.
    how: where the report made it: in words without digits.
    parts: ids of the rows that it was made of, and of those that say more.
    """

    id: str
    group: str
    title: str
    values: Mapping[str, Any]
    run: str = ""
    command: str = ""
    how: str = ""
    parts: tuple[str, ...] = ()


@dataclass
class Book:
    """All rows that are cited, by id."""

    rows: dict[str, Row] = field(default_factory=dict)

    def add(self, row: Row) -> str:
        """Enter a row. Returns its id.

        Raises:
            ValueError: another row has that id.
        """
        known = self.rows.setdefault(row.id, row)
        if known is not row and (known.group, dict(known.values)) != (row.group, dict(row.values)):
            raise ValueError(f"two rows are called {row.id}")
        return row.id

    def number(self, row: str, column: str, form: str | None = None, unit: str = "") -> Number:
        """The number in a column of a row that was entered."""
        value = self.rows[row].values[column]
        return Number(row, column, value, form if form is not None else form_of(value), unit)

    def told(self, row: str, column: str, most: int = 0) -> Told:
        """The words in a column of a row that was entered, or their first `most` characters."""
        text = cell(self.rows[row].values[column])
        return Told(text if not most or len(text) <= most else text[:most].rstrip() + "…", row, column)

    def shown(self, row: str, column: str, most: int = 160) -> Inline:
        """Whatever stands there, as a table shows it."""
        value = self.rows[row].values[column]
        return self.number(row, column) if is_number(value) else self.words(row, column, most)

    def words(self, row: str, column: str, most: int = 0) -> Inline:
        """The words that stand there; as they are where there is no digit in them, else as the row's."""
        told = self.told(row, column, most)
        return told if any(c.isdecimal() for c in told.text) else told.text

    def made(
        self,
        name: str,
        value: Any,
        how: str,
        *,
        command: str = "",
        parts: Sequence[str] = (),
        form: str | None = None,
        unit: str = "",
        more: Mapping[str, Any] | None = None,
    ) -> Number:
        """A number that the report made of others. `name`: what it is, unique; `how`: in words without digits."""
        row = Row(f"{MADE}-{slug(name)}", MADE, name, {"value": value, **(more or {})}, "", command, how, tuple(parts))
        self.add(row)
        return self.number(row.id, "value", form, unit)

    def said(self, name: str, text: str, how: str, *, command: str = "", parts: Sequence[str] = ()) -> Told:
        """A sentence that the report made of others."""
        self.add(Row(f"{MADE}-{slug(name)}", MADE, name, {"said": text}, "", command, how, tuple(parts)))
        return self.told(f"{MADE}-{slug(name)}", "said")

    def ident(self, row: str, text: str = "") -> Ident:
        return Ident(text or self.rows[row].title, row)

    def pages(self) -> dict[str, list[Row]]:
        """Path -> its rows, in order. Every row stands on exactly one page."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows.values():
            groups.setdefault(row.group, []).append(row)
        out: dict[str, list[Row]] = {}
        for group in sorted(groups):
            rows = sorted(groups[group], key=lambda r: natural(r.id))
            for at in range(0, len(rows), ROWS_A_PAGE):
                out[f"rows/{slug(group)}-{at // ROWS_A_PAGE + 1}.html"] = rows[at : at + ROWS_A_PAGE]
        return out


def code_of(text: str) -> list[Inline]:
    """A command where there is one."""
    return [Code(text)] if text else []


def slug(text: str) -> str:
    """`text` as a part of an anchor or a file name; different texts become different ones."""
    out = _SLUG.sub("-", text).strip("-.")
    if out == text:
        return out
    return f"{out[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".lstrip("-")


def natural(text: str) -> list[tuple[int, str]]:
    """So that 5 comes before 20."""
    parts = _DIGITS.split(text)
    return [(int(p), "") if number else (0, p) for number, p in zip(cycle((0, 1)), parts)]  # noqa: B905 (endless)
