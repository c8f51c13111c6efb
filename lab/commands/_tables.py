"""What `lab results` answers: some tables, or the file that they went into."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.output import Page, Report, human

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 100  # rows of a table, for people


@dataclass(frozen=True)
class Head:
    """The first rows of a table."""

    name: str
    rows: pa.Table
    total: int


@dataclass(frozen=True)
class TablesReport(Report):
    """Some tables, row by row."""

    tables: Sequence[Head]
    warnings: tuple[str, ...] = ()

    schema = "lab.results/1"

    def json(self) -> dict[str, Any]:
        from lab.exports import plain

        tables = [
            {"table": h.name, "columns": h.rows.column_names, "rows": [plain(r) for r in h.rows.to_pylist()]}
            for h in self.tables
        ]
        return {"tables": tables, "warnings": list(self.warnings)}

    def text(self, page: Page) -> Iterable[str]:
        from lab.output.data import table_lines

        for i, head in enumerate(self.tables):
            if i:
                yield ""
            if head.name:
                yield page.paint(f"{head.name}  {human.count(head.total, 'row')}", "head")
            yield from table_lines(page, head.rows, most=SHOWN, total=head.total)


@dataclass(frozen=True)
class WrittenReport(Report):
    path: Path
    format: str
    rows: int

    schema = "lab.results-written/1"

    def json(self) -> dict[str, Any]:
        return {"path": str(self.path), "format": self.format, "rows": self.rows}

    def text(self, page: Page) -> Iterable[str]:
        return [f"{human.count(self.rows, 'row')} written to {self.path} ({self.format})"]

    def brief(self) -> Iterable[str]:
        return [str(self.path)]
