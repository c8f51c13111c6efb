"""Text that a program printed, made harmless: nothing of it may move the cursor, colour, retitle or fill the screen.

Stricter than `lab.logs`, which writes lines to a pipe: here each character must take the cells that it says it takes,
or the rest of the row would be drawn in the wrong place.
"""

from __future__ import annotations

import re
import unicodedata

from rich.cells import cell_len

_MOST = 4000  # characters of a line that are looked at; nobody reads more of one
_COMBINING = 3  # marks on one character; more are there to annoy
_TAB = 8
# Strings of the operating-system kind up to their end (or that of the line), control sequences, short escapes. An
# escape whose end was cut off goes as far as it could have gone.
_ESCAPES = re.compile(
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f]).*?(?:\x07|\x1b\\|\x9c|$)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)
_PLAIN = re.compile(r"[ -~]*\Z")


def clean_line(raw: str) -> str:
    """One line as it would have looked at its end: escapes gone, overwriting done, only visible characters left."""
    if _PLAIN.match(raw):
        return raw[:_MOST]
    cut = len(raw) > 4 * _MOST
    # Of a line that was written over and over (a progress bar), the end is what one would have seen.
    text = raw[-4 * _MOST :] if cut and "\r" in raw[-4 * _MOST :] else raw[: 4 * _MOST]
    text = _ESCAPES.sub("", text).rstrip("\r\n")
    if "\r" in text:
        pieces = [p for p in text.split("\r") if p.strip()]
        text = pieces[-1] if pieces else ""
    return "".join(_visible(_backspaced(text)))[:_MOST]


def clean_lines(blob: bytes, most: int) -> list[str]:
    """The last `most` lines of a piece of a log."""
    # Only as many lines are cleaned as are shown; of a very long one, its end is enough.
    pieces = blob.split(b"\n")
    if pieces and not pieces[-1]:
        pieces.pop()
    return [clean_line(_decoded(p)) for p in pieces[-most:]] if most > 0 else []


def one_line(text: str) -> str:
    """A name or reason from the journal: cleaned, and on one line."""
    return clean_line(text.replace("\n", " ")) if not _PLAIN.match(text) else text


def fit(text: str, width: int, ellipsis: str = "…") -> str:
    """`text` in exactly `width` cells: cut with an ellipsis, or filled with blanks."""
    if text.isascii():
        if len(text) > width:
            text = text[: max(0, width - len(ellipsis))] + ellipsis[:width]
        return text.ljust(width)
    taken = cell_len(text)
    if taken > width:
        text = head(text, width - len(ellipsis)) + ellipsis[:width] if width > 0 else ""
        taken = cell_len(text)
    return text + " " * (width - taken)


def head(text: str, width: int) -> str:
    """As much of the beginning of `text` as fits into `width` cells."""
    if text.isascii():
        return text[: max(0, width)]
    taken, out = 0, []
    for c in text:
        size = cell_len(c)
        if taken + size > width:
            break
        taken += size
        out.append(c)
    return "".join(out)


def skip(text: str, cells: int) -> str:
    """`text` without its first `cells` cells."""
    if cells <= 0:
        return text
    if text.isascii():
        return text[cells:]
    taken = 0
    for i, c in enumerate(text):
        if taken >= cells:
            return " " * (taken - cells) + text[i:]
        taken += cell_len(c)
    return ""


def wrap(text: str, width: int, lines: int, ellipsis: str = "…") -> list[str]:
    """`text` broken into at most `lines` lines of `width` cells, at blanks where there are some."""
    out: list[str] = []
    width = max(4, width)
    rest = text.strip()
    while rest and len(out) < lines:
        if cell_len(rest) <= width:
            out.append(rest)
            return out
        piece = head(rest, width)
        if len(out) == lines - 1:
            return [*out, fit(rest, width, ellipsis).rstrip()]
        at = piece.rfind(" ") if len(piece) < len(rest) and rest[len(piece)] != " " else len(piece)
        at = at if at > width // 3 else len(piece)
        out.append(rest[:at].rstrip())
        rest = rest[at:].lstrip()
    return out or [""]


def _decoded(line: bytes) -> str:
    most = 16 * _MOST
    if len(line) > most:
        line = line[-most:] if b"\r" in line[-most:] else line[:most]
    return line.decode("utf-8", "replace")


def _backspaced(text: str) -> str:
    if "\b" not in text:
        return text
    out: list[str] = []
    for c in text:
        if c != "\b":
            out.append(c)
        elif out:
            out.pop()
    return "".join(out)


def _visible(text: str) -> list[str]:
    out: list[str] = []
    marks = column = 0
    for c in text:
        if c == "\t":
            blanks = _TAB - column % _TAB
            out.append(" " * blanks)
            column += blanks
        elif c.isprintable():
            size = cell_len(c)
            if size == 0 or unicodedata.combining(c):
                marks += 1
                if marks > _COMBINING or not out:
                    continue
            else:
                marks = 0
            out.append(c)
            column += size
        elif c == "\N{REPLACEMENT CHARACTER}" or unicodedata.category(c) in ("Co", "Cs", "Cn"):
            out.append("\N{REPLACEMENT CHARACTER}")
            column += 1
        elif c.isspace():
            out.append(" ")
            column += 1
        # What is left are control and format characters, those that turn the direction of writing among them.
    return out
