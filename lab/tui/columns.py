"""Rows as lines of a table: which columns there are at which width, and what each cell says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.tui import plot
from lab.tui.clean import fit
from lab.tui.lanemodel import LaneRow
from lab.tui.marks import Marks
from lab.tui.model import JobRow
from lab.tui.spans import Line, Span, fitted, width_of

_GAP = (" ", "text")


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        width: cells; 0: a share of what is left, by `weight`.
        least: the table must be this wide for the column to appear.
    """

    name: str
    title: str
    width: int = 0
    weight: int = 0
    right: bool = False
    least: int = 0


JOBS = (
    Column("id", "ID", 6, right=True),
    Column("job", "JOB", weight=1),
    Column("state", "STATE", 12),
    Column("lane", "LANE", 8, least=104),
    Column("bar", "PROGRESS", 6, least=60),
    Column("said", "", 4, right=True, least=60),
    Column("time", "TIME", 6, right=True),
    Column("eta", "LEFT", 6, right=True, least=90),
    Column("age", "AGE", 4, right=True, least=104),
    Column("note", "NOTE", weight=1),
)
_WIDE = 104
# Some columns are wider where there is room.
_WIDER = {"id": 7, "bar": 10, "said": 9, "lane": 12, "cpu": 6, "mem": 7, "gpu": 6, "rate": 8, "slots": 6}

LANES = (
    Column("lane", "LANE", 8),
    Column("state", "STATE", 13),
    Column("link", "LINK", 5, right=True),
    Column("device", "DEVICE", weight=2, least=120),
    Column("slots", "SLOTS", 5, right=True),
    Column("cpu", "CPU", 5, least=60),
    Column("mem", "MEM", 6, least=60),
    Column("gpu", "GPU", 5, least=70),
    Column("rate", "RATE", 6, right=True),
    Column("now", "NOW", weight=4),
)


@dataclass(frozen=True)
class Layout:
    """Columns with the widths that they have on this screen."""

    columns: tuple[Column, ...]
    widths: tuple[int, ...]

    @staticmethod
    def of(columns: Sequence[Column], width: int) -> Layout:
        shown = [c for c in columns if c.least <= width]
        widths = [_WIDER.get(c.name, c.width) if c.width and width >= _WIDE else c.width for c in shown]
        left = width - 1 - sum(widths) - (len(shown) - 1)
        weights = sum(c.weight for c in shown)
        flexible = [i for i, c in enumerate(shown) if c.weight]
        for i in flexible:
            widths[i] = max(4, left * shown[i].weight // weights)
        if flexible:
            widths[flexible[-1]] += max(0, left - sum(widths[i] for i in flexible))
        return Layout(tuple(shown), tuple(widths))

    def has(self, name: str) -> bool:
        return any(c.name == name for c in self.columns)

    def width(self, name: str) -> int:
        """How wide a column is; 0 where it is not there."""
        return next((w for c, w in zip(self.columns, self.widths, strict=True) if c.name == name), 0)


def titles(layout: Layout, total: int) -> Line:
    """The line above the rows."""
    out: list[Span] = [_GAP]
    for i, (column, width) in enumerate(zip(layout.columns, layout.widths, strict=True)):
        room = width
        if i + 1 < len(layout.columns) and not layout.columns[i + 1].title:
            room += 1 + layout.widths[i + 1]  # over the one that goes with it
        elif not column.title:
            continue
        text = column.title.rjust(room) if column.right else column.title.ljust(room)
        out.append((f"{text[:room]} ", "title"))
    return fitted(out, total, "title")


def job_line(row: JobRow, layout: Layout, total: int, marks: Marks) -> Line:
    out: list[Span] = [_GAP]
    for column, width in zip(layout.columns, layout.widths, strict=True):
        cell = _job_cell(row, column.name, width, marks, eta_apart=layout.has("eta"), said_room=layout.width("said"))
        out += [*_padded(cell, width, column.right, marks), _GAP]
    return fitted(out[:-1], total, ellipsis=marks.ellipsis)


def lane_line(row: LaneRow, layout: Layout, total: int, marks: Marks) -> Line:
    out: list[Span] = [_GAP]
    for column, width in zip(layout.columns, layout.widths, strict=True):
        out += [*_padded(_lane_cell(row, column.name, width, marks), width, column.right, marks), _GAP]
    return fitted(out[:-1], total, ellipsis=marks.ellipsis)


def _job_cell(row: JobRow, name: str, width: int, marks: Marks, *, eta_apart: bool, said_room: int) -> list[Span]:
    plain = "dim" if row.faint else "text"
    if name == "id":
        if row.fold in (">",) or not row.id:
            return []
        sign = {"+": marks.folded, "-": marks.unfolded}.get(row.fold, "")
        number = fit(str(row.id), max(1, width - 2)).strip().rjust(width - 2)
        return [(f"{sign} " if sign else "  ", "accent"), (number, "dim")]
    if name == "job":
        indent = "  " if row.fold in (".", ">") else ""
        role = "accent" if row.fold == ">" else "faint" if not row.state else plain
        return [(indent + row.label, role)]
    if name == "state":
        return [marks.state(row.state)]
    if name == "bar":
        if row.bar is None:
            return []
        return plot.bar(row.bar.done, width, failed=row.bar.failed, running=row.bar.running, unicode=marks.unicode)
    if name == "said":
        return [(row.said if row.bar is None or len(row.said) <= width else row.percent, plain)]
    if name == "note":
        # What found no room beside the bar is said here.
        more = row.said if row.bar is not None and len(row.said) > said_room else ""
        note = ("  ".join(p for p in (row.note, more) if p), "dim" if row.faint else row.role)
        if row.eta and not eta_apart:
            left = (f"{marks.left}{row.eta} left", "text")
            return [note, ("  ", "text"), left] if row.role == "error" else [left, ("  ", "text"), note]
        return [note]
    text = {"lane": row.lane, "time": row.time, "eta": row.eta, "age": row.age}[name]
    return [(text, "dim" if name == "age" else plain)]


def _lane_cell(row: LaneRow, name: str, width: int, marks: Marks) -> list[Span]:
    if name == "lane":
        return [(row.name, "text")]
    if name == "state":
        return [marks.state(row.state)]
    if name == "link":
        return [(row.link, row.link_role)]
    if name == "cpu":
        return _gauge(row.cpu, _percent(row.cpu), width, marks)
    if name == "mem":
        return _gauge(row.memory, row.memory_said, width, marks)
    if name == "gpu":
        return _gauge(row.gpu, row.gpu_said, width, marks) if row.gpu_said else []
    if name == "now":
        work = [(row.now, "text")] if row.now else []
        note = [(row.note, row.note_role)] if row.note else []
        return [*note, *([("  ", "text")] if work and note else []), *work]
    text = {"device": row.device, "slots": row.slots, "rate": row.rate}[name]
    return [(text, "dim" if name == "device" else "text")]


def _gauge(share: float | None, said: str, width: int, marks: Marks) -> list[Span]:
    """A character that says how full it is, and the number."""
    if share is None:
        return [(said, "text")]
    role = "warn" if share >= 0.9 else "accent"
    return [(plot.level(share, unicode=marks.unicode), role), (f" {said}" if len(said) + 2 <= width else said, "text")]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"


def _padded(cell: list[Span], width: int, right: bool, marks: Marks) -> list[Span]:
    taken = width_of(cell)
    if taken > width:
        return list(fitted(cell, width, ellipsis=marks.ellipsis))
    blank = [(" " * (width - taken), "text")] if taken < width else []
    return [*blank, *cell] if right else [*cell, *blank]
