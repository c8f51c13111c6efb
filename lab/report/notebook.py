"""The notebook: the same document as one Markdown file. Numbers are links by reference to the rows of the site."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lab.report.book import Book
from lab.report.check import same_words
from lab.report.doc import (
    Block,
    Bullets,
    Cards,
    Code,
    Facts,
    Figure,
    Fold,
    Hash,
    Ident,
    Inline,
    Line,
    Link,
    Mark,
    Name,
    Number,
    Page,
    Para,
    Section,
    Shell,
    Table,
    Told,
    Video,
    When,
    plain,
    stamp,
)
from lab.report.forms import AS, Form, value_of, write

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST_ROWS = 60  # of a table; the site has all
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def notebook(pages: Sequence[Page], book: Book, title: str) -> str:
    """All pages of the document, one after another."""
    book_pages = {row.id: path for path, rows in book.pages().items() for row in rows}
    writer = _Writer(book_pages)
    lines = [f"# {title}", ""]
    for page in pages:
        head = page.title if page is not pages[0] else ("Executive summary",)
        lines += ["", f"## {writer.line(head)}", "", *writer.blocks(page.blocks, 3)]
    lines += ["", "<!-- Rows: where each number stands, and the run directory that it came from. -->", ""]
    for row in sorted(writer.cited):
        run = book.rows[row].run
        lines.append(f"[{row}]: {book_pages[row]}#{row}" + (f' "{run}"' if run else ""))
    text = "\n".join(lines) + "\n"
    return re.sub(r"\n{3,}", "\n\n", text)


class _Writer:
    def __init__(self, rows: Mapping[str, str]) -> None:
        self._rows = rows
        self._tabled = False
        self.cited: set[str] = set()

    def line(self, line: Line) -> str:
        return "".join(self._inline(x) for x in line)

    def _inline(self, x: Inline) -> str:
        match x:
            case str():
                return _safe(x)
            case Number():
                self.cited.add(x.row)
                return f"[{_safe(x.text)}][{x.row}]" + (f" {_safe(x.unit)}" if x.unit else "")
            case Told():
                self.cited.add(x.row)
                return f"[{_safe(x.text)}][{x.row}]" if x.text.strip() else ""
            case Ident():
                if x.row:
                    self.cited.add(x.row)
                    return f"[{self._raw(x.text)}][{x.row}]"
                return self._raw(x.text)
            case Hash() | Code():
                return self._raw(x.text)
            case Name():
                return f"[{self._raw(x.text)}]({x.page})" if x.page else self._raw(x.text)
            case When():
                return f"`{stamp(x.at)}`"
            case Link():
                return f"[{_safe(x.text)}]({x.page})"
            case Mark():
                return f"**{_safe(x.text)}**" if x.tone else _safe(x.text)

    def _raw(self, text: str) -> str:
        """A code span. Within a table a bar would end the cell, also in code."""
        text = re.sub(r"\s+", " ", text).strip() or " "
        mark = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
        if self._tabled:
            text = text.replace("|", "\\|")
        room = " " if "`" in (text[0], text[-1]) else ""
        return f"{mark}{room}{text}{room}{mark}"

    def blocks(self, blocks: Sequence[Block], level: int) -> list[str]:
        out: list[str] = []
        for block in blocks:
            out += [*self._block(block, level), ""]
        return out

    def _block(self, b: Block, level: int) -> Iterable[str]:
        match b:
            case Para():
                return [self.line(b.line)]
            case Bullets():
                return [f"- {self.line(x)}" for x in b.lines]
            case Facts():
                return [f"- {self.line(term)}: {self.line(said)}" for term, said in b.pairs]
            case Cards():
                return [
                    f"- {_safe(c.label)}: **{self.line(c.line)}**" + (f" ({self.line(c.note)})" if c.note else "")
                    for c in b.cards
                ]
            case Table():
                return self._table(b)
            case Figure():
                return [f"![{_safe(plain(b.alt))}]({b.path})", "", self.line(b.caption)]
            case Video():
                return [f"[{self.line(b.label)}]({b.path})", "", self.line(b.caption)]
            case Shell():
                return ["~~~bash", b.text, "~~~"] if "```" in b.text else ["```bash", b.text, "```"]
            case Fold():
                return [f"**{self.line(b.summary)}**", "", *self.blocks(b.blocks, level)]
            case Section():
                return [f"{'#' * min(level, 6)} {self.line(b.title)}", "", *self.blocks(b.blocks, level + 1)]

    def _table(self, t: Table) -> list[str]:
        shown = t.rows[:_MOST_ROWS]
        out = [f"{self.line(t.caption)}", ""]
        out.append("| " + " | ".join(self.line(h) or " " for h in t.head) + " |")
        out.append("|" + "|".join(" ---: " if i in t.right else " --- " for i in range(len(t.head))) + "|")
        self._tabled = True
        out += ["| " + " | ".join(self.line(c) for c in row) + " |" for row in shown]
        self._tabled = False
        if len(t.rows) > len(shown):
            out += ["", "More rows are in the site."]
        return out


def _safe(text: str) -> str:
    """Text in which no character is a mark."""
    return _MARKS.sub(r"\\\1", re.sub(r"\s+", " ", text))


# The checker: it knows nothing of the above but what Markdown is.

_FENCE = re.compile(r"^(```|~~~)bash\n.*?^\1$", re.MULTILINE | re.DOTALL)
_DEFINED = re.compile(r'^\[([^\]]+)\]: (\S+)(?: "[^"]*")?$', re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_SPAN = re.compile(r"(?<![\\`])(`+)(?!`)[^\n]*?(?<!`)\1(?!`)")
_WITHIN = r"(?<!\\)\[((?:\\.|[^\[\]\\])*)\]"
_PICTURE = re.compile(rf"!{_WITHIN}\(([^)\s]+)\)")
_CITED = re.compile(rf"{_WITHIN}\[([^\]]+)\]")
_LED = re.compile(rf"{_WITHIN}\(([^)\s]+)\)")
_ESCAPED = re.compile(r"\\(.)")


def problems(text: str, rows: Mapping[str, Mapping[str, str]], files: Mapping[str, bytes]) -> list[str]:
    """What is wrong with a notebook: loose numbers, citations of rows that say something else, links to nowhere.

    Args:
        rows: id of a row -> its columns, as the site shows them.
        files: of the site; links are relative to its root.
    """
    out: list[str] = []
    body = _COMMENT.sub("", _FENCE.sub("", text))
    defined = dict(_DEFINED.findall(body))
    body = _DEFINED.sub("", body)
    for row, target in defined.items():
        path, _, anchor = target.partition("#")
        if path not in files or anchor != row or row not in rows:
            out.append(f"the reference {row!r} leads nowhere: {target}")
    body = _SPAN.sub("", body)

    def picture(found: re.Match[str]) -> str:
        if found[2] not in files:
            out.append(f"the picture {found[2]!r} is not there")
        return ""

    def cited(found: re.Match[str]) -> str:
        said, row = _ESCAPED.sub(r"\1", found[1]), found[2]
        if row not in defined:
            out.append(f"{said!r} cites {row!r}, which is not defined")
        elif said and not _says(rows.get(row, {}), said):
            out.append(f"{said!r} is not what row {row!r} says")
        return ""

    def led(found: re.Match[str]) -> str:
        if found[2].partition("#")[0] not in files:
            out.append(f"the link {found[2]!r} leads nowhere")
        return found[1]

    body = _LED.sub(led, _CITED.sub(cited, _PICTURE.sub(picture, body)))
    for n, line in enumerate(body.splitlines(), 1):
        if re.search(r"\d", line):
            out.append(f"a loose number in line {n}: {' '.join(line.split())[:80]!r} is not of any row")
    return out


def _says(columns: Mapping[str, str], said: str) -> bool:
    """Is this a cell of the row, or a number of it in one of the ways in which numbers are written?"""
    if any(same_words(text, said) for text in columns.values()):
        return True
    numbers = [v for text in columns.values() if not isinstance(v := value_of(text), str)]
    return any(write(form, v) == said for v in numbers for form in Form) or any(
        write(layout, v) == said for v in numbers for layout in _layouts(said)
    )


def _layouts(said: str) -> list[str]:
    """Ways in which a claim may have written this: with as many decimals, or digits."""
    places = {len(said.partition(".")[2].rstrip("%").partition("e")[0]), sum(c.isdecimal() for c in said)}
    return [AS, *(f"{AS}{sign}{comma}.{n}{kind}" for sign in ("", "+") for comma in ("", ",")
                  for n in sorted(places) for kind in "efg%")]  # fmt: skip
