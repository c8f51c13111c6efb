"""Sending a terminal only what changed.

Textual redraws a changed line from the left edge of its widget. Over ssh that is most of what is sent, so here a
partial update begins where the change does. It stands on two private places of Textual 8 (a screen's compositor, and
the spans of its update); without them everything still works, and `benchmarks/top.py` shows the difference.
"""

from __future__ import annotations

from typing import Any, TypeVar

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate, Compositor
from textual.screen import Screen

_T = TypeVar("_T")


class TightUpdate(ChopsUpdate):
    """An update that leaves alone what is left of a change, as Textual's leaves alone what is right of it."""

    def render_segments(self, console: Console) -> str:
        out: list[str] = []
        for y, begin, end in self.spans:
            for stop, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                if strip is None or x >= end or stop <= begin:
                    continue
                first, last = max(x, begin), min(stop, end)
                piece = strip if (first, last) == (x, stop) else strip.crop(first - x, last - x)
                move = Control.move_to(first, y).segment.text
                out += [move, piece.render(console)]
        return "".join(out)


class TightCompositor(Compositor):
    """Makes such updates."""

    def render_partial_update(self) -> ChopsUpdate | None:
        found = super().render_partial_update()
        return TightUpdate(found.chops, found.spans, found.chop_ends) if found is not None else None


class TightScreen(Screen[_T]):
    """A screen that is updated so."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._compositor = TightCompositor()
