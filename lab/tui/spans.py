"""Painted text before it has colours: spans of a text and its role. So a line is compared, cut and tested."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len

from lab.tui import clean

Span = tuple[str, str]  # text, role
Line = tuple[Span, ...]


def width_of(line: Iterable[Span]) -> int:
    return sum(len(t) if t.isascii() else cell_len(t) for t, _ in line)


def text_of(line: Iterable[Span]) -> str:
    return "".join(t for t, _ in line)


def fitted(line: Sequence[Span], width: int, role: str = "text", ellipsis: str = "…") -> Line:
    """The line in exactly `width` cells."""
    out: list[Span] = []
    left = width
    for text, how in line:
        size = len(text) if text.isascii() else cell_len(text)
        if size > left:
            if left > 0:
                out.append((clean.fit(text, left, ellipsis), how))
            return tuple(out)
        if text:
            out.append((text, how))
            left -= size
    if left > 0:
        out.append((" " * left, role))
    return tuple(out)


def changed(old: Line, new: Line) -> tuple[int, int] | None:
    """(first cell, number of cells) in which two lines of one width differ; None when they do not."""
    if old == new:
        return None
    begin = 0
    for a, b in zip(old, new, strict=False):
        if a != b:
            break
        begin += width_of((a,))
    end = 0
    for a, b in zip(reversed(old), reversed(new), strict=False):
        if a != b:
            break
        end += width_of((a,))
    total = max(width_of(old), width_of(new))
    return begin, max(1, total - begin - end)
