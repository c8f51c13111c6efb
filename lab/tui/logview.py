"""One log on the whole screen: it follows the end until one scrolls up."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from lab.tui import clean, panes
from lab.tui.detail import FooterLine
from lab.tui.facts import Detail
from lab.tui.marks import Marks
from lab.tui.painted import Painted, Painting
from lab.tui.spans import Line, fitted
from lab.tui.themes import Styles
from lab.tui.tight import TightScreen

_ASIDE = 20
_WHEEL = 3
_KEYS = (("Esc", "back"), ("↑↓", "scroll"), ("←→", "sideways"), ("End", "follow"))


class LogView(Painted, can_focus=True):
    """The lines, a window onto them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_by(-1)", show=False),
        Binding("down,j", "scroll_by(1)", show=False),
        Binding("pageup,ctrl+b", "scroll_page(-1)", show=False),
        Binding("pagedown,ctrl+f,space", "scroll_page(1)", show=False),
        Binding("home,g", "scroll_by(-100000000)", show=False),
        Binding("end,G", "follow", show=False),
        Binding("left", "aside(-1)", show=False),
        Binding("right", "aside(1)", show=False),
    ]

    def __init__(self, styles: Styles, marks: Marks, *, id: str | None = None) -> None:
        super().__init__(styles, marks, id=id)
        self._detail: Detail | None = None
        self._top = 0
        self._left = 0
        self._following = True

    def show(self, detail: Detail | None) -> None:
        old = len(self._detail.log) if self._detail is not None else 0
        self._detail = detail
        if not self._following and len(self._text) < old:
            self._following = True  # the file was cut off
        self._settle()

    @property
    def _text(self) -> tuple[str, ...]:
        return self._detail.log if self._detail is not None else ()

    @property
    def _room(self) -> int:
        return max(1, self.size.height - 1)

    def _settle(self) -> None:
        last = max(0, len(self._text) - self._room)
        self._top = last if self._following else max(0, min(self._top, last))
        self.repaint()

    def action_scroll_by(self, by: int) -> None:
        last = max(0, len(self._text) - self._room)
        self._top = max(0, min(self._top + by, last))
        self._following = by > 0 and self._top == last
        self.repaint()

    def action_scroll_page(self, by: int) -> None:
        self.action_scroll_by(by * max(1, self._room - 1))

    def action_follow(self) -> None:
        self._following = True
        self._settle()

    def action_aside(self, by: int) -> None:
        self._left = max(0, self._left + by * _ASIDE)
        self.repaint()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_scroll_by(_WHEEL)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_scroll_by(-_WHEEL)

    def on_resize(self) -> None:
        self._shown.clear()
        self._settle()
        self.repaint_all()

    def painting(self, y: int) -> Painting:
        width = self.size.width
        if y == 0:
            return self._title(width), "surface"
        index = self._top + y - 1
        text = self._text
        if index >= len(text):
            note = self._detail.log_note if self._detail is not None else ""
            return fitted([(f" {note}" if not text and y == 2 else "", "dim")], width), ""
        return fitted([(clean.skip(text[index], self._left), "text")], width, ellipsis=self.marks.ellipsis), ""

    def _title(self, width: int) -> Line:
        total = len(self._text)
        where = "following" if self._following else f"line {min(total, self._top + self._room):,} of {total:,}"
        note = self._detail.log_note if self._detail is not None and total else ""
        right = f"{note}  {where} " if note else f"{where} "
        left = fitted([(" ", "text"), *panes.detail_title(self._detail, self.marks)], max(0, width - len(right)))
        return (*left, (right, "dim"))


class LogScreen(TightScreen[None]):
    """The log of the selected job."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,l,ctrl+c", "leave", show=False)]

    def __init__(self, styles: Styles, marks: Marks) -> None:
        super().__init__()
        self._view = LogView(styles, marks, id="log")
        self._footer = FooterLine(styles, marks, id="log-footer")

    def compose(self) -> ComposeResult:
        yield self._view
        yield self._footer

    def on_mount(self) -> None:
        self._footer.show(_KEYS)
        self._view.focus()

    def show(self, detail: Detail | None) -> None:
        self._view.show(detail)

    def on_footer_line_pressed(self, event: FooterLine.Pressed) -> None:
        event.stop()
        if event.key == "Esc":
            self.action_leave()
        elif event.key == "End":
            self._view.action_follow()

    def action_leave(self) -> None:
        self.dismiss(None)
