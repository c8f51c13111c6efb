"""What `lab results --plot` answers, and how it gets there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.journal import query
from core.tables import Stream
from lab import exports
from lab.output import Page, Report, human
from lab.plot import Asked, Plot, format_of, plan


@dataclass(frozen=True)
class Plotted(Report):
    """The figure is there."""

    path: Path
    plot: Plot = field(repr=False)

    schema = "lab.plot/1"

    def json(self) -> dict[str, Any]:
        p = self.plot
        return {
            "path": str(self.path),
            "title": p.title,
            "x": p.x,
            "y": p.y,
            "by": p.by,
            "rows": p.rows,
            "lines": [line.name for line in p.lines],
            "notes": list(p.notes),
        }

    def text(self, page: Page) -> Iterable[str]:
        p = self.plot
        by = f", by {p.by}" if p.by is not None else ""
        yield f"{p.y} over {p.x}{by}: {human.count(p.rows, 'row')} drawn to {self.path}"
        for note in p.notes:
            yield page.paint(note, "dim")

    def brief(self) -> Iterable[str]:
        return [str(self.path)]


def draw(rows: Stream, path: Path, asked: Asked, *, axes: Sequence[str], title: str, narrowed: bool) -> Plotted:
    """Write the figure of `rows` to `path`, whole or not at all."""
    import pyarrow as pa

    form = format_of(path)
    table = pa.Table.from_batches(list(rows.batches), rows.schema)
    planned = plan(table, asked, axes=axes, title=title, narrowed=narrowed)
    from lab.drawing import write

    with exports.new_file(path) as out:
        write(planned, form, out)
    return Plotted(path, planned)


def title_of(conn: sqlite3.Connection, ids: Sequence[int], table: str, where: str) -> str:
    """`sweep 17: parity sizes × backends, 6 cells`; of several jobs, what they are and whose table it is."""
    rows = [query.job(conn, i) for i in ids[:2]]
    if len(rows) == 1 and rows[0].is_sweep:
        sweep = query.sweep(conn, ids[0])
        names = " × ".join(name for name, _ in sweep.axes)
        said = f"sweep {sweep.id}: {rows[0].kind} {names}, {human.count(sweep.total, 'cell')}"
    elif len(rows) == 1:
        said = f"job {rows[0].id}: {rows[0].kind} {rows[0].name}".rstrip()
    elif rows:
        more = ", ..." if len(ids) > 6 else ""
        said = f"{table} of {', '.join(map(str, ids[:6]))}{more}"
    else:
        said = f"{table} of all jobs"
    return human.clean(f"{said}, where {where}" if where else said)
