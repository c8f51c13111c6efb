"""What the terminal can show: its width, colours and symbols. Plain ANSI: Rich would double the time of a status."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from dataclasses import dataclass, replace
from typing import TextIO

# Colours by what they mean. Blue-green against vermillion stays apart for colour-blind eyes, and no meaning is
# carried by colour alone: every state has a word and a symbol of its own.
_ROLES = {
    "good": "36",
    "bad": "1;31",
    "warn": "33",
    "live": "1",
    "dim": "2",
    "head": "1",
    "key": "36",
}

# State -> (symbol, the same for terminals without Unicode, role).
_STATES = {
    "queued": ("○", "o", ""),
    "held": ("‖", "=", "warn"),
    "placed": ("◔", ">", "live"),
    "running": ("●", ">", "live"),
    "cancelling": ("◌", "~", "warn"),
    "succeeded": ("✓", "+", "good"),
    "failed": ("✗", "x", "bad"),
    "lost": ("✗", "x", "bad"),
    "cancelled": ("−", "-", "dim"),
    "revoked": ("−", "-", "dim"),
    "skipped": ("↷", "/", "dim"),
    "up": ("●", "*", "good"),
    "declared": ("○", "o", "dim"),
    "connecting": ("◌", "~", "dim"),
    "unreachable": ("?", "?", "warn"),
    "draining": ("‖", "=", "warn"),
    "quarantined": ("✗", "x", "bad"),
    "down": ("✗", "x", "bad"),
    "ok": ("✓", "+", "good"),
    "warn": ("!", "!", "warn"),
    "fail": ("✗", "x", "bad"),
}


@dataclass(frozen=True)
class Page:
    """Where text for people goes.

    Attributes:
        width: columns; None where nothing limits a line (a pipe, a file).
        colour: may ANSI colours be used.
        unicode: can symbols outside ASCII be encoded.
        tty: is a person looking at it now.
    """

    width: int | None
    colour: bool
    unicode: bool
    tty: bool

    @staticmethod
    def of(stream: TextIO) -> Page:
        """The page that `stream` is, after NO_COLOR, FORCE_COLOR, COLUMNS and TERM."""
        tty = stream.isatty()
        width = shutil.get_terminal_size((80, 24)).columns if tty or os.environ.get("COLUMNS") else None
        return Page(width, _colour_wanted(tty), _can_encode(stream), tty)

    def narrower(self, by: int) -> Page:
        """The same page with fewer columns, for what is indented."""
        return replace(self, width=None if self.width is None else self.width - by)

    def paint(self, text: str, role: str) -> str:
        code = _ROLES.get(role)
        return f"\x1b[{code}m{text}\x1b[0m" if code and self.colour and text else text

    def state(self, word: str) -> str:
        """A state as people see it: symbol, word, colour."""
        mark, plain, role = _STATES.get(word, ("", "", ""))
        return self.paint(f"{mark if self.unicode else plain} {word}".strip(), role)

    def mark(self, word: str) -> str:
        """The symbol of a state alone."""
        mark, plain, role = _STATES.get(word, ("", "", ""))
        return self.paint(mark if self.unicode else plain, role)

    @property
    def dot(self) -> str:
        return "·" if self.unicode else "-"

    @property
    def ellipsis(self) -> str:
        return "…" if self.unicode else "..."

    @property
    def rule(self) -> str:
        return "─" if self.unicode else "-"


def cells(text: str) -> int:
    """How many columns `text` takes (colours take none, wide characters two)."""
    if "\x1b" in text:
        text = _without_colours(text)
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _without_colours(text: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _colour_wanted(tty: bool) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "") not in ("", "0") or os.environ.get("CLICOLOR_FORCE", "") not in ("", "0"):
        return True
    return tty and os.environ.get("TERM") != "dumb"


def _can_encode(stream: TextIO) -> bool:
    try:
        "●✓…".encode(getattr(stream, "encoding", None) or sys.getdefaultencoding())
    except (UnicodeEncodeError, LookupError):
        return False
    return True
