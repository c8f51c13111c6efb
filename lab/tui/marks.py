"""Symbols, from the same table as `lab status`: with the role beside the text instead of an escape code."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from lab.output.page import Page
from lab.tui.spans import Span

_BETWEEN = "\x1f"


class _Roles(Page):
    """A page that answers with the role instead of painting."""

    def paint(self, text: str, role: str) -> str:
        return f"{role}{_BETWEEN}{text}"


@dataclass(frozen=True)
class Marks:
    """What the terminal can show beside letters."""

    unicode: bool = True

    @functools.cached_property
    def _page(self) -> _Roles:
        return _Roles(None, False, self.unicode, True)

    def state(self, word: str) -> Span:
        """Symbol and word of a state."""
        return self._span(self._page.state(word)) if word else ("", "text")

    def mark(self, word: str) -> Span:
        """The symbol alone."""
        return self._span(self._page.mark(word)) if word else ("", "text")

    def _span(self, said: str) -> Span:
        role, _, text = said.partition(_BETWEEN)
        return text, role or "text"

    @property
    def ellipsis(self) -> str:
        return self._page.ellipsis

    @property
    def dot(self) -> str:
        return self._page.dot

    @property
    def rule(self) -> str:
        return self._page.rule

    @property
    def folded(self) -> str:
        return "▸" if self.unicode else "+"

    @property
    def unfolded(self) -> str:
        return "▾" if self.unicode else "-"

    @property
    def more(self) -> str:
        return "…" if self.unicode else "."

    @property
    def left(self) -> str:
        """What stands before a time that is left."""
        return "≈" if self.unicode else "~"
