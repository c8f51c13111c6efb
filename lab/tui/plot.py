"""Curves and bars made of characters: braille where the terminal can show it, plain characters where it cannot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

# Dots of a braille cell, by column and row.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS = "_.-=+*#"


Points = tuple[Sequence[float], Sequence[float]]  # xs, ys


def curve(xs: Sequence[float], ys: Sequence[float], width: int, height: int, *, unicode: bool = True) -> list[str]:
    """The points as `height` lines of `width` characters, joined by lines. Not-a-number points leave gaps."""
    return ["".join(c for c, _ in row) for row in curves([(xs, ys)], width, height, unicode=unicode, letters="")]


def curves(
    series: Sequence[Points], width: int, height: int, *, unicode: bool = True, letters: str = ""
) -> list[list[tuple[str, int]]]:
    """Several curves in one frame: for each cell of `height` lines of `width` its character and whose it is (-1: free).

    Where two cross, the dots of both are there, in the colour of the later one.

    Args:
        letters: one for each curve stands at its last point; empty: none does.
    """
    across, up = (2, 4) if unicode else (1, 1)
    wide, high = width * across, height * up
    free: list[list[tuple[str, int]]] = [[(" ", -1)] * width for _ in range(height)]
    fine = [(x, y) for xs, ys in series for x, y in zip(xs, ys, strict=False) if math.isfinite(x) and math.isfinite(y)]
    if not fine or width < 1 or height < 1:
        return free
    low_x, high_x = min(x for x, _ in fine), max(x for x, _ in fine)
    low_y, high_y = bounds([y for _, y in fine])
    grid = [[0] * width for _ in range(height)]
    owner = [[-1] * width for _ in range(height)]
    ends: dict[tuple[int, int], int] = {}
    for number, (xs, ys) in enumerate(series):
        last: tuple[int, int] | None = None
        end: tuple[int, int] | None = None
        for x, y in zip(xs, ys, strict=False):
            if not math.isfinite(x):
                continue
            if not math.isfinite(y):
                last = None
                continue
            px = round((x - low_x) / (high_x - low_x) * (wide - 1)) if high_x > low_x else wide // 2
            py = round((high_y - y) / (high_y - low_y) * (high - 1))
            for qx, qy in _between(last, (px, py)) if last is not None else [(px, py)]:
                _set(grid, qx, qy, across, up)
                if 0 <= qy // up < height and 0 <= qx // across < width:
                    owner[qy // up][qx // across] = number
            last = end = (px, py)
        if letters and end is not None:
            ends[_free_place(ends, end[0] // across, end[1] // up, width, height)] = number
    for y, row in enumerate(grid):
        for x, dots in enumerate(row):
            if dots:
                free[y][x] = (chr(0x2800 + dots) if unicode else "*", owner[y][x])
    for (x, y), number in ends.items():
        free[y][x] = (letters[number % len(letters)], number)
    return free


def _free_place(taken: Mapping[tuple[int, int], int], x: int, y: int, width: int, height: int) -> tuple[int, int]:
    """Where a letter stands: at the end of its curve, else as near as there is room, rather before it than below."""
    places = [(x - dx, y + dy) for dx in range(3) for dy in (0, 1, -1)]
    inside = [(a, b) for a, b in places if 0 <= a < width and 0 <= b < height]
    return next((place for place in inside if place not in taken), (x, y))


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
