"""Colours by what they mean. Four palettes; blue-green against vermillion stays apart for colour-blind eyes.

No meaning is carried by colour alone: states have symbols and words, bars have textures, focus has a mark.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from rich.style import Style
from textual.theme import Theme

ROLES = (
    "text",
    "dim",
    "faint",
    "good",
    "bad",
    "error",
    "warn",
    "live",
    "accent",
    "head",
    "title",
    "bar",
    "barkey",
    "curve",
    *(f"line{n}" for n in range(8)),
)


@dataclass(frozen=True)
class Palette:
    """One set of colours; None everywhere: the terminal's own, with bold, underlined and reversed text only."""

    name: str
    dark: bool
    background: str
    surface: str  # header lines of tables, the first and the last line
    text: str
    dim: str
    faint: str
    good: str
    bad: str
    warn: str
    live: str
    accent: str
    cursor: str  # background of the selected row in the pane that listens
    cursor_away: str  # the same in the others
    lines: tuple[str, ...] = ()  # of curves that are drawn into one another; each has a letter too


DARK = Palette(
    name="dark",
    dark=True,
    background="#101214",
    surface="#1e2226",
    text="#d5dbe3",
    dim="#8b97a6",
    faint="#566171",
    good="#3fc9a8",
    bad="#ff8566",
    warn="#f0b952",
    live="#ffffff",
    accent="#6cb8ff",
    cursor="#0f4c75",
    cursor_away="#2a2f34",
    lines=("#6cb8ff", "#ff8566", "#3fc9a8", "#f0b952", "#e39bd0", "#c7cdd6", "#a6d854", "#9e9bff"),
)
LIGHT = Palette(
    name="light",
    dark=False,
    background="#fbfbf9",
    surface="#eaebec",
    text="#1f262e",
    dim="#5b6672",
    faint="#98a2ad",
    good="#00705a",
    bad="#b5370b",
    warn="#835600",
    live="#000000",
    accent="#0a5fb4",
    cursor="#c6def6",
    cursor_away="#dfe1e3",
    lines=("#0a5fb4", "#b5370b", "#00705a", "#835600", "#9b2f86", "#3f4750", "#4a7300", "#5145c4"),
)
CONTRAST = Palette(
    name="contrast",
    dark=True,
    background="#000000",
    surface="#000000",
    text="#ffffff",
    dim="#d0d0d0",
    faint="#a8a8a8",
    good="#00ffcc",
    bad="#ffa07a",
    warn="#ffe000",
    live="#ffffff",
    accent="#7fd4ff",
    cursor="#ffff00",
    cursor_away="#444444",
    lines=("#7fd4ff", "#ffa07a", "#00ffcc", "#ffe000", "#ff9ff3", "#ffffff", "#b6ff5c", "#c3bfff"),
)
MONO = Palette("mono", True, "", "", "", "", "", "", "", "", "", "", "", "")
PALETTES: Mapping[str, Palette] = {p.name: p for p in (DARK, LIGHT, CONTRAST, MONO)}


def default_name(environ: Mapping[str, str] = os.environ) -> str:
    """Without colours where none are wanted; light where the terminal says that its background is."""
    if environ.get("NO_COLOR") or environ.get("TERM", "").endswith("-mono"):
        return "mono"
    background = environ.get("COLORFGBG", "").rpartition(";")[2]
    return "light" if background.isdigit() and int(background) in (7, 15) else "dark"


class Styles:
    """Roles of one palette as Rich styles."""

    def __init__(self, palette: Palette) -> None:
        self.palette = palette
        self._made: dict[tuple[str, str], Style] = {}

    def of(self, role: str, row: str = "") -> Style:
        """The style of a role. `row`: "cursor", "away" (selected, in another pane), "surface" or nothing."""
        style = self._made.get((role, row))
        if style is None:
            style = self._made[(role, row)] = self._mono(role, row) if self.palette is MONO else self._make(role, row)
        return style

    def _make(self, role: str, row: str) -> Style:
        p = self.palette
        colours = {
            "text": p.text,
            "dim": p.dim,
            "faint": p.faint,
            "good": p.good,
            "bad": p.bad,
            "error": p.bad,
            "warn": p.warn,
            "live": p.live,
            "accent": p.accent,
            "head": p.live,
            "title": p.dim,
            "bar": p.dim,
            "barkey": p.accent,
            "curve": p.accent,
            **{f"line{n}": colour for n, colour in enumerate(p.lines)},
        }
        bold = role in ("head", "live", "bad", "barkey")
        back = {"cursor": p.cursor, "away": p.cursor_away, "surface": p.surface}.get(row, p.background)
        if row == "cursor" and p is CONTRAST:
            return Style(color="#000000", bgcolor=back, bold=True)
        colour = colours.get(role, p.text)
        if row in ("cursor", "away") and role == "faint":
            colour = p.dim
        if row == "cursor" and role == "dim":
            colour = p.text
        return Style(color=colour, bgcolor=back, bold=bold)

    def _mono(self, role: str, row: str) -> Style:
        bold = role in ("head", "live", "bad", "error", "barkey", "warn")
        return Style(
            bold=bold or None,
            dim=(role in ("dim", "faint", "title") and row not in ("cursor", "away", "surface")) or None,
            reverse=(row == "cursor") or None,
            underline=(row in ("surface", "away")) or None,
        )


def textual_theme(palette: Palette) -> Theme:
    """The same colours for what Textual draws itself: scroll bars, dialogs, the line for typing."""
    if palette is MONO:
        plain = "ansi_default"
        return Theme(
            name="lab-mono",
            primary=plain,
            secondary=plain,
            warning=plain,
            error=plain,
            success=plain,
            accent=plain,
            foreground=plain,
            background=plain,
            surface=plain,
            panel=plain,
            boost=plain,
            dark=True,
            ansi=True,
            variables={
                "ansi-background": plain,
                "ansi-foreground": plain,
                "border": plain,
                "border-blurred": plain,
                "block-cursor-foreground": plain,
                "block-cursor-background": plain,
                "input-cursor-background": plain,
                "input-cursor-foreground": plain,
                "input-cursor-text-style": "reverse",
                "input-selection-background": plain,
                "input-selection-foreground": plain,
                "screen-selection-background": plain,
                "screen-selection-foreground": plain,
                "block-hover-background": plain,
                "scrollbar": plain,
                "scrollbar-hover": plain,
                "scrollbar-active": plain,
                "scrollbar-background": plain,
                "scrollbar-background-hover": plain,
                "scrollbar-background-active": plain,
                "scrollbar-corner-color": plain,
                "lab-dim": plain,
                "lab-accent": plain,
                "lab-text": plain,
                "lab-cursor": plain,
                "lab-surface": plain,
                "lab-line": plain,
            },
        )
    p = palette
    return Theme(
        name=f"lab-{p.name}",
        primary=p.accent,
        secondary=p.accent,
        warning=p.warn,
        error=p.bad,
        success=p.good,
        accent=p.accent,
        foreground=p.text,
        background=p.background,
        surface=p.surface,
        panel=p.surface,
        dark=p.dark,
        variables={
            "scrollbar": p.faint,
            "scrollbar-hover": p.dim,
            "scrollbar-active": p.accent,
            "scrollbar-background": p.background,
            "scrollbar-background-hover": p.background,
            "scrollbar-background-active": p.background,
            "scrollbar-corner-color": p.background,
            "lab-dim": p.dim,
            "lab-accent": p.accent,
            "lab-text": p.text,
            "lab-cursor": p.cursor,
            "lab-surface": p.surface,
            "lab-line": p.faint,
        },
    )
