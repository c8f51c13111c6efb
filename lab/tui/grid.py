"""A table of rows with a selected one that stays selected: the job under the cursor, not the line on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from lab.tui.columns import JOBS, LANES, Column, Layout, job_line, lane_line, titles
from lab.tui.lanemodel import LaneRow
from lab.tui.marks import Marks
from lab.tui.model import JobRow
from lab.tui.painted import Painted, Painting
from lab.tui.spans import Line, fitted, width_of
from lab.tui.themes import Styles

_R = TypeVar("_R")
_WHEEL = 3


class Grid(Painted, Generic[_R], can_focus=True):
    """Rows below a line of titles. Scrolls by itself: no layout is ever done for that."""

    COLUMNS: ClassVar[Sequence[Column]]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup,ctrl+b", "page(-1)", show=False),
        Binding("pagedown,ctrl+f", "page(1)", show=False),
        Binding("home,g", "move(-1000000)", show=False),
        Binding("end,G", "move(1000000)", show=False),
    ]

    class Selected(Message):
        """Another row is selected."""

        def __init__(self, grid: Grid[_R]) -> None:
            super().__init__()
            self.grid = grid

    class Opened(Message):
        """Enter, or a second click, on the selected row."""

        def __init__(self, grid: Grid[_R]) -> None:
            super().__init__()
            self.grid = grid

    def __init__(self, styles: Styles, marks: Marks, *, id: str | None = None) -> None:
        super().__init__(styles, marks, id=id)
        self.rows: tuple[_R, ...] = ()
        self.cursor = 0
        self.top = 0
        self.status = ""  # at the right end of the titles
        self.empty = ""  # what is said where there are no rows
        self._layout_of: tuple[int, Layout] | None = None

    # What a table of something says.

    def key_of(self, row: _R) -> str:
        raise NotImplementedError

    def line_of(self, row: _R, layout: Layout, width: int) -> Line:
        raise NotImplementedError

    # Rows and the selected one.

    @property
    def selected(self) -> _R | None:
        return self.rows[self.cursor] if self.rows else None

    def set_rows(self, rows: tuple[_R, ...]) -> None:
        """Show these. The selected job stays selected and where it is on the screen, as far as that can be."""
        before = self.selected
        key = self.key_of(before) if before is not None else None
        places = {self.key_of(r): i for i, r in enumerate(rows)}
        on_screen = self.cursor - self.top
        visible = 0 <= on_screen < self._room
        anchor = self.rows[self.top] if self.rows and not visible and self.top < len(self.rows) else None
        old, self.rows = self.rows, rows
        found = places.get(key) if key is not None else None
        self.cursor = found if found is not None else self._neighbour(old, places)
        if anchor is not None:  # scrolled away from the cursor by the wheel: what is in sight stays
            self.top = places.get(self.key_of(anchor), self.top)
        elif self.top > 0 or self.cursor >= self._room:
            self.top = self.cursor - on_screen
        self._clamp()
        self.repaint()
        if found is None and (key is not None or rows):
            self.post_message(self.Selected(self))

    def _neighbour(self, old: tuple[_R, ...], places: dict[str, int]) -> int:
        """Where to stand when the selected row is gone: on the next that is still there, else on the one before."""
        for row in (*old[self.cursor + 1 :], *reversed(old[: self.cursor])):
            if (at := places.get(self.key_of(row))) is not None:
                return at
        return 0

    def select(self, index: int) -> None:
        if not self.rows:
            return
        index = max(0, min(index, len(self.rows) - 1))
        moved = index != self.cursor
        self.cursor = index
        if self.cursor < self.top:
            self.top = self.cursor
        elif self.cursor >= self.top + self._room:
            self.top = self.cursor - self._room + 1
        self._clamp()
        self.repaint()
        if moved:
            self.post_message(self.Selected(self))

    @property
    def _room(self) -> int:
        return max(1, self.size.height - 1)

    def _clamp(self) -> None:
        self.top = max(0, min(self.top, len(self.rows) - self._room))

    # Keys and mouse.

    def action_move(self, by: int) -> None:
        self.select(self.cursor + by)

    def action_page(self, by: int) -> None:
        self.select(self.cursor + by * max(1, self._room - 1))

    def on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.stop()
            if self.selected is not None:
                self.post_message(self.Opened(self))

    def on_click(self, event: events.Click) -> None:
        index = self.top + event.y - 1
        if event.y < 1 or index >= len(self.rows):
            return
        again = index == self.cursor and (event.chain > 1 or self._is_fold(event.x))
        self.select(index)
        if again or self._is_fold(event.x):
            self.post_message(self.Opened(self))

    def _is_fold(self, x: int) -> bool:
        return x <= 2

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._scroll(_WHEEL)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._scroll(-_WHEEL)

    def _scroll(self, by: int) -> None:
        self.top += by
        self._clamp()
        self.repaint()

    def on_focus(self) -> None:
        self.repaint()

    def on_blur(self) -> None:
        self.repaint()

    def on_resize(self) -> None:
        self._layout_of = None
        if self.cursor >= self.top + self._room:
            self.top = self.cursor - self._room + 1
        self._clamp()
        self.repaint_all()

    # Painting.

    def painting(self, y: int) -> Painting:
        width = self.size.width
        layout = self._columns(width)
        if y == 0:
            return self._titles(layout, width), "surface"
        index = self.top + y - 1
        if index >= len(self.rows):
            empty = self.empty if not self.rows and y == 1 + (self._room - 1) // 3 else ""
            blank = " " * max(1, (width - width_of(((empty, ""),))) // 2) if empty else ""
            return fitted([(blank, "text"), (empty, "dim")], width), ""
        line = self.line_of(self.rows[index], layout, width - 1)
        bar = self._scrollbar(y)
        how = ("cursor" if self.has_focus else "away") if index == self.cursor else ""
        return (*line, (bar, "faint")), how

    def _titles(self, layout: Layout, width: int) -> Line:
        line = titles(layout, width)
        if self.has_focus:
            line = ((self._focus_mark, "accent"), *_cut(line, 1))
        said = f" {self.status} " if self.status else ""
        room = width - width_of(((said, ""),))
        return (*fitted(line, room, "title"), (said, "dim")) if said and room > 20 else line

    @property
    def _focus_mark(self) -> str:
        return "▌" if self.marks.unicode else ">"

    def _scrollbar(self, y: int) -> str:
        total, room = len(self.rows), self._room
        if total <= room:
            return " "
        size = max(1, room * room // total)
        begin = round(self.top / max(1, total - room) * (room - size))
        inside = begin <= y - 1 < begin + size
        return ("▐" if self.marks.unicode else "|") if inside else " "

    def _columns(self, width: int) -> Layout:
        if self._layout_of is None or self._layout_of[0] != width:
            self._layout_of = (width, Layout.of(self.COLUMNS, width - 1))
        return self._layout_of[1]


def _cut(line: Line, cells: int) -> Line:
    """A line without its first cells (of its first span)."""
    (text, role), *rest = line
    return ((text[cells:], role), *rest) if len(text) > cells else tuple(rest)


class JobsGrid(Grid[JobRow]):
    """The jobs table."""

    COLUMNS = JOBS

    def key_of(self, row: JobRow) -> str:
        return row.key

    def line_of(self, row: JobRow, layout: Layout, width: int) -> Line:
        return job_line(row, layout, width, self.marks)


class LanesGrid(Grid[LaneRow]):
    """The lanes table."""

    COLUMNS = LANES

    def key_of(self, row: LaneRow) -> str:
        return row.name

    def line_of(self, row: LaneRow, layout: Layout, width: int) -> Line:
        return lane_line(row, layout, width, self.marks)

    def _is_fold(self, x: int) -> bool:
        return False
