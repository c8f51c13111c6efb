"""Reads the site that was built, by itself, and says what is wrong with it. It trusts nothing but the bytes.

- A digit in a text must be in a link to the row that has this very number or sentence, in a cell of a row, or in
  something that is typed as an id, a digest, a command, a name or a time. So a planted number is found, and so is a
  link to a row that says another one.
- Every link leads to a page and an anchor that are there, and none leads outside.
- Landmarks, headings, tables, pictures and controls are as a keyboard and a screen reader need them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import unquote

from lab.report.forms import known, value_of, write

ROWS = "rows/"  # where pages of rows lie
TYPED = frozenset({"id", "hash", "command", "name", "time"})
_VOID = frozenset({"meta", "link", "img", "br", "hr", "input", "source", "area", "base", "col", "embed", "wbr"})
_SILENT = frozenset({"style", "script", "title"})
_SPOKEN = ("alt", "title", "aria-label", "placeholder")
_HEADING = re.compile(r"h[1-6]")
_DIGIT = re.compile(r"\d")
_MOST = 50


@dataclass
class _Cite:
    """A link that says a number or a sentence of a row."""

    href: str
    column: str
    form: str
    kind: str
    text: str = ""


@dataclass
class Seen:
    """What was found in one page. `cells`: (id of the row, column) -> its text."""

    problems: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    cites: list[_Cite] = field(default_factory=list)
    cells: dict[tuple[str, str], str] = field(default_factory=dict)


def look(page: str, *, rows: bool = False) -> Seen:
    """Read one page. `rows`: it is one of those on which rows stand; on no other may a cell say what it likes."""
    reader = _Reader(rows)
    reader.feed(page)
    reader.close()
    return reader.ended()


def problems(files: Mapping[str, bytes]) -> list[str]:
    """Everything that is wrong with a site, path by path; empty: nothing. Files that are not HTML are only led to."""
    seen = {
        path: look(data.decode(), rows=path.startswith(ROWS)) for path, data in files.items() if path.endswith(".html")
    }
    out = [f"{path}: {said}" for path, page in seen.items() for said in page.problems]
    for path, page in seen.items():
        out += [f"{path}: {said}" for said in _links(path, page, seen, files)]
        out += [f"{path}: {said}" for said in _cites(path, page, seen)]
    return out


def rows_of(files: Mapping[str, bytes]) -> dict[str, dict[str, str]]:
    """Id of a row -> its columns, as the pages of rows show them."""
    out: dict[str, dict[str, str]] = {}
    for path, data in files.items():
        if path.startswith(ROWS):
            for (row, column), text in look(data.decode(), rows=True).cells.items():
                out.setdefault(row, {})[column] = text
    return out


def said_by(form: str, text: str) -> str:
    """What a number of this form looks like, written from the text of its cell."""
    return write(form, value_of(text))


def _links(path: str, page: Seen, seen: Mapping[str, Seen], files: Mapping[str, bytes]) -> Iterable[str]:
    for href in page.links:
        where, _, anchor = href.partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:|/", where, re.IGNORECASE):
            yield f"the link {href!r} leads outside"
            continue
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(where))) if where else path
        if target not in files:
            yield f"the link {href!r} leads nowhere: there is no {target}"
        elif anchor and (target not in seen or unquote(anchor) not in seen[target].ids):
            yield f"the link {href!r} leads nowhere: {target} has no anchor {unquote(anchor)!r}"
    for name in page.labels:
        if name not in page.ids:
            yield f"a label names {name!r}, which is not there"


def _cites(path: str, page: Seen, seen: Mapping[str, Seen]) -> Iterable[str]:
    for cite in page.cites:
        where, _, row = cite.href.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(where)))
        if target not in seen:
            continue  # told as a link already
        text = seen[target].cells.get((row, cite.column))
        if text is None:
            yield f"{cite.text!r} cites column {cite.column!r} of row {row!r}, which is not there"
        elif cite.kind == "num":
            if not known(cite.form):
                yield f"the number {cite.text!r} has no form that is known"
            elif said_by(cite.form, text) != cite.text:
                yield f"the number {cite.text!r} is not what its row {row!r} says ({text})"
        elif not same_words(text, cite.text):
            yield f"the words {cite.text[:60]!r} are not those of row {row!r}"


def same_words(whole: str, said: str) -> bool:
    """Are these the words of a cell, or with three dots behind them its first ones?"""
    whole, said = _flat(whole), _flat(said)
    return whole == said or (said.endswith("…") and whole.startswith(said[:-1]))


def _flat(text: str) -> str:
    return " ".join(text.split())


class _Reader(HTMLParser):
    """One pass over a page, with the open elements as a stack."""

    def __init__(self, has_rows: bool) -> None:
        super().__init__(convert_charrefs=True)
        self._has_rows = has_rows
        self.seen = Seen()
        self._open: list[tuple[str, dict[str, str]]] = []
        self._counts: dict[str, int] = {}
        self._level = 0
        self._cite: _Cite | None = None
        self._row, self._cell = "", ""
        self._words: list[list[str]] = []  # of what must say something: links, buttons, headings, captions, summaries
        self._first_link = ""
        self._caption = True

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._begin(tag, given)
        if tag not in _VOID:
            self._open.append((tag, given))
            if tag in ("a", "button", "caption", "summary", "figcaption", "th") or _HEADING.fullmatch(tag):
                self._words.append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._begin(tag, {name: value or "" for name, value in attrs})

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        if not self._open or self._open[-1][0] != tag:
            self._wrong(f"</{tag}> closes what is not open")
            return
        _, given = self._open.pop()
        if tag in ("a", "button", "caption", "summary", "figcaption", "th") or _HEADING.fullmatch(tag):
            said = "".join(self._words.pop()).strip()
            if not said and not given.get("aria-label"):
                self._wrong(f"<{tag}> says nothing")
        if tag == "a" and self._cite is not None:
            self.seen.cites.append(self._cite)
            self._cite = None
        if tag == "article":
            self._row = ""
        if tag == "td":
            self._cell = ""
        if tag == "table" and not self._caption:
            self._wrong("a table has no caption")

    def handle_data(self, data: str) -> None:
        for words in self._words:
            words.append(data)
        if self._cite is not None:
            self._cite.text += data
        if self._row and self._cell:
            key = (self._row, self._cell)
            self.seen.cells[key] = self.seen.cells.get(key, "") + data
        if _DIGIT.search(data) and not self._may_say():
            self._wrong(f"a loose number: {_flat(data)[:80]!r} is not of any row")

    def ended(self) -> Seen:
        for tag, least in (("main", 1), ("h1", 1), ("title", 1), ("header", 1), ("nav", 1), ("footer", 1)):
            n = self._counts.get(tag, 0)
            if n != least:
                self._wrong(f"there {'is' if n == 1 else 'are'} {n} <{tag}> where there should be {least}")
        if self._open:
            self._wrong(f"<{self._open[-1][0]}> is not closed")
        return self.seen

    def _begin(self, tag: str, given: dict[str, str]) -> None:
        self._counts[tag] = self._counts.get(tag, 0) + 1
        if "id" in given:
            if given["id"] in self.seen.ids:
                self._wrong(f"the id {given['id']!r} is there twice")
            self.seen.ids.add(given["id"])
        for name in ("href", "src", "poster"):
            if name in given and not (tag == "link" and given[name] == "data:,"):
                self.seen.links.append(given[name])
        self.seen.labels += given.get("aria-labelledby", "").split() + given.get("aria-describedby", "").split()
        for name in _SPOKEN:
            if _DIGIT.search(given.get(name, "")) and not self._typed(given):
                self._wrong(f"a loose number: {name} {given[name][:80]!r} is not of any row")
        self._structure(tag, given)
        if tag == "a" and given.get("class") in ("num", "told"):
            self._cite = _Cite(
                given.get("href", ""), given.get("data-col", ""), given.get("data-form", ""), given["class"]
            )
        if tag == "article" and given.get("class") == "row":
            self._row = given.get("id", "")
        if tag == "td" and self._row:
            self._cell = given.get("data-col", "")

    def _structure(self, tag: str, given: dict[str, str]) -> None:
        if tag == "html" and not given.get("lang"):
            self._wrong("<html> names no language")
        if _HEADING.fullmatch(tag):
            level = int(tag[1])
            if level > self._level + 1:
                self._wrong(f"<{tag}> comes after a heading of level {self._level}")
            self._level = level
        if tag == "a" and not self._first_link:
            self._first_link = given.get("href", "?")
            if self._first_link != "#main":
                self._wrong("the first link does not skip to the content")
        if tag == "img" and not (given.get("alt") and given.get("width") and given.get("height")):
            self._wrong(f"the picture {given.get('src')!r} has no alt text or no size")
        if tag == "video" and not given.get("aria-label"):
            self._wrong(f"the video {given.get('src')!r} has no label")
        if tag == "table":
            self._caption = False
        if tag == "caption":
            self._caption = True
        if tag == "th" and given.get("scope") not in ("row", "col"):
            self._wrong("a <th> has no scope")
        if tag == "nav" and not given.get("aria-label"):
            self._wrong("a <nav> has no label")
        if "tabindex" in given and int(given["tabindex"]) > 0:
            self._wrong("a tabindex above zero changes the order of reading")
        if given.get("role") == "region" and not (given.get("aria-label") or given.get("aria-labelledby")):
            self._wrong("a region has no label")
        if tag == "script" and given.get("src"):
            self._wrong("a script is not in the page")

    def _may_say(self) -> bool:
        """May a digit stand here?"""
        if self._cite is not None or (self._row and self._cell):
            return True
        return any(tag in _SILENT or self._typed(given) for tag, given in self._open)

    @staticmethod
    def _typed(given: Mapping[str, str]) -> bool:
        return given.get("data-t") in TYPED

    def _wrong(self, said: str) -> None:
        if len(self.seen.problems) < _MOST:
            self.seen.problems.append(said)
