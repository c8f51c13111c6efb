"""What `lab results --plot` answers, and how it gets there."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import NotFound, UnknownKind
from core.home import Home
from core.journal import query
from core.kind import Kind, load_kind
from core.states import JobState
from core.tables import Jobs, Stream, read_table
from lab import exports
from lab.output import Page, Report, human
from lab.plot import Asked, Plot, format_of, plan
from lab.standings import absent


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


@dataclass(frozen=True)
class PlottedByKind(Report):
    """The figure of a kind's own is there.

    Attributes:
        about: what it shows; notes: what the reader has to know.
    """

    path: Path
    kind: str
    title: str
    about: str
    notes: tuple[str, ...]

    schema = "lab.plot-of-kind/1"

    def json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "kind": self.kind,
            "title": self.title,
            "about": self.about,
            "notes": list(self.notes),
        }

    def text(self, page: Page) -> Iterable[str]:
        yield f"{human.clean(self.about)}, drawn to {self.path}"
        for note in self.notes:
            yield page.paint(human.clean(note), "dim")

    def brief(self) -> Iterable[str]:
        return [str(self.path)]


def draw_own(
    home: Home, conn: sqlite3.Connection, ids: Sequence[int], path: Path, warnings: list[str]
) -> PlottedByKind | None:
    """Write the figure that the kind of these jobs draws of them all; None: they are of several, or it has none.

    Raises:
        BadInput: they cannot stand in one figure, or the ending of `path` is none of a figure.
    """
    form = format_of(path)
    jobs = [job for job in query.jobs(conn, ids=tuple(query.job_ids(conn, ids))) if not job.is_sweep]
    kinds = {job.kind for job in jobs}
    kind = None
    if len(kinds) == 1:
        with contextlib.suppress(UnknownKind):  # its package may be gone; its tables are not
            kind = load_kind(kinds.pop())
    if kind is None or type(kind).figure is Kind.figure:
        return None
    done = [job for job in jobs if job.state is JobState.SUCCEEDED]
    tables = {}
    for name in kind.tables():
        with contextlib.suppress(NotFound):
            tables[name] = read_table(home, conn, name, Jobs.of(job.id for job in done), warnings=warnings)
    title = title_of(conn, ids, kind.name, "")
    with exports.new_file(path) as out:
        said = kind.figure(out, form, tables, absent(jobs, frozenset(job.id for job in done)), title)
    assert said is not None
    return PlottedByKind(path, kind.name, title, said[0], tuple(said[1:]))


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
