"""Curves and bars made of characters: braille where the terminal can show it, plain characters where it cannot."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Dots of a braille cell, by column and row.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS = "_.-=+*#"


def curve(xs: Sequence[float], ys: Sequence[float], width: int, height: int, *, unicode: bool = True) -> list[str]:
    """The points as `height` lines of `width` characters, joined by lines. Not-a-number points leave gaps."""
    across, up = (2, 4) if unicode else (1, 1)
    wide, high = width * across, height * up
    grid = [[0] * width for _ in range(height)]
    points = [(x, y) for x, y in zip(xs, ys, strict=False) if math.isfinite(x)]
    fine = [(x, y) for x, y in points if math.isfinite(y)]
    if not fine or width < 1 or height < 1:
        return [" " * width] * height
    low_x, high_x = fine[0][0], max(x for x, _ in fine)
    low_y, high_y = bounds([y for _, y in fine])
    last: tuple[int, int] | None = None
    for x, y in points:
        if not math.isfinite(y):
            last = None
            continue
        px = round((x - low_x) / (high_x - low_x) * (wide - 1)) if high_x > low_x else wide // 2
        py = round((high_y - y) / (high_y - low_y) * (high - 1))
        if last is None:
            _set(grid, px, py, across, up)
        else:
            for qx, qy in _between(last, (px, py)):
                _set(grid, qx, qy, across, up)
        last = (px, py)
    if unicode:
        return ["".join(chr(0x2800 + c) if c else " " for c in row) for row in grid]
    return ["".join("*" if c else " " for c in row) for row in grid]


def bounds(ys: Sequence[float]) -> tuple[float, float]:
    """The lowest and highest value shown; a flat curve lies in the middle."""
    low, high = min(ys), max(ys)
    if high - low > 1e-12 * max(1.0, abs(low), abs(high)):
        return low, high
    some = abs(high) * 0.1 or 1.0
    return low - some, high + some


def number(value: float) -> str:
    """A number in at most eight characters."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    text = f"{value:.4g}"
    return text if len(text) <= 8 else f"{value:.1e}"


def bar(
    share: float, width: int, *, failed: float = 0.0, running: float = 0.0, unicode: bool = True
) -> list[tuple[str, str]]:
    """A progress bar as spans: what succeeded, what failed, what runs, what is left; each with a texture of its own."""
    if width <= 0:
        return []
    fill, bad, live, rest = ("█", "▒", "▓", "░") if unicode else ("#", "x", ">", ".")
    n_bad = _part(failed, width)
    n_good = min(width - n_bad, math.floor(max(0.0, min(1.0, share)) * width + 1e-9))
    n_live = min(width - n_bad - n_good, _part(running, width))
    left = width - n_bad - n_good - n_live
    spans = [(fill * n_good, "good"), (bad * n_bad, "bad"), (live * n_live, "accent"), (rest * left, "faint")]
    return [s for s in spans if s[0]]


def level(share: float, *, unicode: bool = True) -> str:
    """One character that says how full something is."""
    levels = _LEVELS if unicode else _ASCII_LEVELS
    return levels[min(len(levels) - 1, int(max(0.0, min(1.0, share)) * len(levels)))]


def _part(share: float, width: int) -> int:
    """What is there at all takes at least one character."""
    return max(1, round(share * width)) if share > 0 else 0


def _set(grid: list[list[int]], x: int, y: int, across: int, up: int) -> None:
    column, row = x // across, y // up
    if 0 <= row < len(grid) and 0 <= column < len(grid[0]):
        grid[row][column] |= _DOTS[x % across][y % up] if across == 2 else 1


def _between(a: tuple[int, int], b: tuple[int, int]) -> list[tuple[int, int]]:
    """The points of a straight line."""
    steps = max(abs(b[0] - a[0]), abs(b[1] - a[1]), 1)
    return [
        (a[0] + round((b[0] - a[0]) * i / steps), a[1] + round((b[1] - a[1]) * i / steps)) for i in range(steps + 1)
    ]
