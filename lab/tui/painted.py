"""A widget that is lines of painted text and repaints only the cells that changed.

Over a slow link each byte counts: what `refresh` gets are the smallest stretches that differ from what is shown.
"""

from __future__ import annotations

from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from lab.tui.marks import Marks
from lab.tui.spans import Line, changed, fitted, width_of
from lab.tui.themes import Styles

Painting = tuple[Line, str]  # a line, and the kind of row: "", "surface", "cursor", "away"


class Painted(Widget):
    """Subclasses say what line `y` is; `repaint` brings the screen up to that."""

    def __init__(self, styles: Styles, marks: Marks, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.painted_styles = styles
        self.marks = marks
        self._shown: dict[int, Painting] = {}

    def painting(self, y: int) -> Painting:
        """What line `y` is now, in any width."""
        raise NotImplementedError

    def repaint(self) -> None:
        """Redraw what is not as it should be."""
        width, height = self.size
        for y in range(height):
            old = self._shown.get(y)
            if old is None:
                continue  # not drawn yet: it will be asked for
            line, how = self.painting(y)
            if old == (line, how):
                continue
            if old[1] != how or width_of(old[0]) != width_of(line):
                self.refresh(Region(0, y, width, 1))
            else:
                found = changed(old[0], line)
                if found is not None:
                    self.refresh(Region(found[0], y, min(found[1], width - found[0]), 1))
            self._shown[y] = (line, how)

    def repaint_all(self) -> None:
        """After another size or other colours."""
        self._shown.clear()
        self.refresh()

    def use(self, styles: Styles) -> None:
        self.painted_styles = styles
        self.repaint_all()

    def on_resize(self) -> None:
        self.repaint_all()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        line, how = self.painting(y)
        self._shown[y] = (line, how)
        return Strip(self._segments(fitted(line, width), how), width)

    def _segments(self, line: Line, how: str) -> list[Segment]:
        """The line in its colours; neighbours that look alike are one, and blanks go with what is before them."""
        of = self.painted_styles.of
        out: list[Segment] = []
        text, style = "", of("text", how)
        for piece, role in line:
            new = style if text and piece.isspace() else of(role, how)
            if new is not style and text:
                out.append(Segment(text, style))
                text = ""
            text += piece
            style = new
        return [*out, Segment(text, style)]
