"""The pane of the selected job, and the lines at the top and at the bottom of the screen."""

from __future__ import annotations

from textual import events
from textual.message import Message

from lab.tui import panes
from lab.tui.facts import Detail
from lab.tui.marks import Marks
from lab.tui.model import Header
from lab.tui.painted import Painted, Painting
from lab.tui.spans import Line, fitted
from lab.tui.themes import Styles

LEAST = (60, 15)  # columns and lines of the smallest screen that tables fit on


class DetailPane(Painted, can_focus=True):
    """Facts, reasons, curve and log of one job."""

    def __init__(self, styles: Styles, marks: Marks, *, id: str | None = None) -> None:
        super().__init__(styles, marks, id=id)
        self.detail: Detail | None = None
        self.metric = ""
        self.now = 0.0
        self._lines: list[Line] = []

    def show(self, detail: Detail | None, now: float) -> None:
        self.detail, self.now = detail, now
        self._compose_lines()
        self.repaint()

    def other_metric(self, by: int) -> bool:
        """Show another curve. False where there are not two."""
        names = self.detail.metrics if self.detail is not None else ()
        if len(names) < 2 or self.detail is None:
            return False
        at = names.index(panes.chosen(self.detail, self.metric))
        self.metric = names[(at + by) % len(names)]
        self.show(self.detail, self.now)
        return True

    def _compose_lines(self) -> None:
        width, height = self.size
        self._lines = panes.detail_lines(self.detail, width, height - 1, self.now, self.metric, self.marks)

    def on_resize(self) -> None:
        self._compose_lines()
        self.repaint_all()

    def on_focus(self) -> None:
        self.repaint()

    def on_blur(self) -> None:
        self.repaint()

    def painting(self, y: int) -> Painting:
        width = self.size.width
        if y == 0:
            mark = ("▌" if self.marks.unicode else ">") if self.has_focus else " "
            return fitted([(mark, "accent"), *panes.detail_title(self.detail, self.marks)], width), "surface"
        return (self._lines[y - 1] if y - 1 < len(self._lines) else fitted((), width)), ""


class HeaderLine(Painted):
    """The first line of the screen."""

    def __init__(self, styles: Styles, marks: Marks, *, id: str | None = None, clock: str | None = None) -> None:
        super().__init__(styles, marks, id=id)
        self._head: Header | None = None
        self._clock = clock

    def show(self, head: Header) -> None:
        self._head = head
        self.repaint()

    def painting(self, y: int) -> Painting:
        if self._head is None:
            return fitted([(" lab ", "head")], self.size.width), "surface"
        return panes.header_line(self._head, self.size.width, self.marks, clock=self._clock), "surface"


class FooterLine(Painted):
    """The last line: what the keys do, or for a while what one did. The keys can be clicked."""

    class Pressed(Message):
        """A key was clicked."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, styles: Styles, marks: Marks, *, id: str | None = None) -> None:
        super().__init__(styles, marks, id=id)
        self._keys: panes.Keys = ()
        self._message, self._role = "", "text"

    def show(self, keys: panes.Keys) -> None:
        self._keys = keys
        self.repaint()

    def say(self, message: str, role: str = "text") -> None:
        self._message, self._role = message, role
        self.repaint()

    def painting(self, y: int) -> Painting:
        return panes.footer_line(self._keys, self.size.width, self._message, self._role, self.marks), "surface"

    def on_click(self, event: events.Click) -> None:
        if not self._message:
            key = panes.key_at(self.painting(0)[0], event.x)
            if key:
                self.post_message(self.Pressed(key))


class TooSmall(Painted):
    """What is said on a screen too small for tables."""

    def painting(self, y: int) -> Painting:
        width, height = self.size
        lines = (
            f"lab top needs {LEAST[0]}x{LEAST[1]}, this is {width}x{height}.",
            "`lab status --watch` fits anywhere.",
        )
        at = y - max(0, height // 2 - 1)
        return fitted([(f" {lines[at]}" if 0 <= at < len(lines) else "", "text")], width), ""
