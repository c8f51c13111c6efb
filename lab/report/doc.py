"""The words of the report: what may stand in a line, and what a page is made of. Plain text may hold no digit.

A digit is either a number of a row (`Number`), a sentence that a row says (`Told`), or part of what is a name by its
type: an id, a digest, a command, a name, a time. There is no other way to say one, and the checker looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lab.report.forms import write


@dataclass(frozen=True)
class Number:
    """A number of a row. `row`: its id in the book; `column`: where in it the value stands; `unit`: written behind."""

    row: str
    column: str
    value: Any
    form: str  # one of Form, or a layout of a claim
    unit: str = ""

    @property
    def text(self) -> str:
        return write(self.form, self.value)


@dataclass(frozen=True)
class Told:
    """Words that a row says, whole or from their beginning: a reason, a note, a rule."""

    text: str
    row: str
    column: str


@dataclass(frozen=True)
class Ident:
    """An id, such as `job 12`. It leads to its row, where there is one."""

    text: str
    row: str = ""


@dataclass(frozen=True)
class Hash:
    """A digest, all of it."""

    text: str


@dataclass(frozen=True)
class Code:
    """A command, a path, SQL: to be read letter by letter."""

    text: str


@dataclass(frozen=True)
class Name:
    """What somebody or something is called. `page`: where more is said of it."""

    text: str
    page: str = ""


@dataclass(frozen=True)
class When:
    """A time of the journal, seconds since the epoch."""

    at: float | None


@dataclass(frozen=True)
class Link:
    """Words that lead to another page (or `page#anchor`)."""

    text: str
    page: str


@dataclass(frozen=True)
class Mark:
    """A state or verdict: its word carries the meaning, the tone (good, bad, warn, faint) only repeats it."""

    text: str
    tone: str = ""


Inline: TypeAlias = str | Number | Told | Ident | Hash | Code | Name | When | Link | Mark
Line: TypeAlias = Sequence[Inline]


@dataclass(frozen=True)
class Para:
    line: Line
    tone: str = ""


@dataclass(frozen=True)
class Bullets:
    lines: Sequence[Line]


@dataclass(frozen=True)
class Facts:
    """Terms, each with what is said of it."""

    pairs: Sequence[tuple[Line, Line]]


@dataclass(frozen=True)
class Card:
    """One thing to see first."""

    label: str
    line: Line
    note: Line = ()


@dataclass(frozen=True)
class Cards:
    cards: Sequence[Card]


@dataclass(frozen=True)
class Table:
    """Cells in rows; the first of a row names it. `right`: columns of numbers."""

    caption: Line
    head: Sequence[Line]
    rows: Sequence[Sequence[Line]]
    right: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Figure:
    """A picture. `path`: below the site; `alt`: what it shows, for who cannot see it."""

    path: str
    alt: Line
    caption: Line
    width: int
    height: int


@dataclass(frozen=True)
class Video:
    path: str
    label: Line
    caption: Line
    poster: str = ""


@dataclass(frozen=True)
class Shell:
    """A command to be pasted."""

    text: str


@dataclass(frozen=True)
class Fold:
    """What is shown when it is asked for."""

    summary: Line
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Section:
    """A heading and what is below it. `id`: its anchor."""

    id: str
    title: Line
    blocks: Sequence[Block]


Block: TypeAlias = "Para | Bullets | Facts | Cards | Table | Figure | Video | Shell | Fold | Section"


@dataclass(frozen=True)
class Page:
    """One page of the site.

    Attributes:
        path: below the site.
        menu: its word in the navigation; empty: it is not there.
        above: the page of the navigation to which it belongs; empty: itself.
        before, behind: of several pages of the same thing, the ones next to it.
    """

    path: str
    title: Line
    blocks: Sequence[Block]
    menu: str = ""
    above: str = ""
    before: str = ""
    behind: str = ""


def joined(lines: Sequence[Line], between: str = ", ") -> list[Inline]:
    """Lines one after another."""
    out: list[Inline] = []
    for at, line in enumerate(lines):
        if at:
            out.append(between)
        out += line
    return out


def plain(line: Line) -> str:
    """What is said, without what it is."""
    return "".join(x if isinstance(x, str) else x.text if not isinstance(x, When) else stamp(x.at) for x in line)


def stamp(at: float | None) -> str:
    """A time as the report writes it: UTC, to the second, wherever the reader is."""
    import time

    return "never" if at is None else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
