"""The site: pages of the document, and the pages of rows that their numbers lead to, as HTML."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from lab.report.book import MADE, Book, Row
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
from lab.report.forms import cell
from lab.report.style import CSS, SCRIPT

FIRST = "index.html"
_TITLE = "Lab notebook"


@dataclass(frozen=True)
class Site:
    """What every page knows of the others. `rows`: id of a row -> its page; `menu`: (word, path)."""

    rows: Mapping[str, str]
    menu: Sequence[tuple[str, str]]


def render(pages: Sequence[Page], book: Book) -> dict[str, str]:
    """Path -> page."""
    of_rows = book.pages()
    where = {row.id: path for path, rows in of_rows.items() for row in rows}
    site = Site(where, [(p.menu, p.path) for p in pages if p.menu])
    out = {page.path: _Page(site, page.path).whole(page) for page in pages}
    paths = list(of_rows)
    for at, (path, rows) in enumerate(of_rows.items()):
        group = rows[0].group
        before = paths[at - 1] if at and of_rows[paths[at - 1]][0].group == group else ""
        behind = paths[at + 1] if at + 1 < len(paths) and of_rows[paths[at + 1]][0].group == group else ""
        out[path] = _Page(site, path).of_rows(rows, before, behind)
    return out


class _Page:
    """Renders one page; links are relative to it."""

    def __init__(self, site: Site, path: str) -> None:
        self._site, self._path, self._tables = site, path, 0

    def whole(self, page: Page) -> str:
        body = self._blocks(page.blocks, 2)
        more = self._more(page.before, page.behind)
        return self._frame(
            plain(page.title), f"<h1>{self.line(page.title)}</h1>\n{body}{more}", page.above or page.path
        )

    def of_rows(self, rows: Sequence[Row], before: str, behind: str) -> str:
        what = "made by this report of other rows" if rows[0].group == MADE else "as they stand in the home"
        lead = f"<p>Rows {what}. Every number of the report leads to one of these.</p>"
        title = f'<h1>Rows: <span class="name" data-t="name">{escape(rows[0].group)}</span></h1>'
        body = "\n".join(self._row(row) for row in rows)
        more = self._more(before, behind)
        return self._frame(f"Rows: {rows[0].group}", f"{title}\n{lead}\n{more}{body}{more}", "")

    def line(self, line: Line) -> str:
        return "".join(self._inline(x) for x in line)

    # Lines.

    def _inline(self, x: Inline) -> str:
        match x:
            case str():
                return escape(x)
            case Number():
                unit = f'<span class="unit"> {escape(x.unit)}</span>' if x.unit else ""
                more = f'data-col="{escape(x.column)}" data-form="{x.form}"'
                return f'<a class="num" href="{self._to_row(x.row)}" {more}>{escape(x.text)}</a>{unit}'
            case Told():
                if not x.text.strip():
                    return ""
                href = self._to_row(x.row)
                return f'<a class="told" href="{href}" data-col="{escape(x.column)}">{escape(x.text)}</a>'
            case Ident():
                if x.row:
                    return f'<a class="id" data-t="id" href="{self._to_row(x.row)}">{escape(x.text)}</a>'
                return f'<span class="id" data-t="id">{escape(x.text)}</span>'
            case Hash():
                return f'<code class="hash" data-t="hash">{escape(x.text)}</code>'
            case Code():
                return f'<code data-t="command">{escape(x.text)}</code>'
            case Name():
                if x.page and x.text.strip():
                    return f'<a class="name" data-t="name" href="{self._to(x.page)}">{escape(x.text)}</a>'
                return f'<span class="name" data-t="name">{escape(x.text)}</span>'
            case When():
                return f'<time data-t="time">{escape(stamp(x.at))}</time>'
            case Link():
                return f'<a href="{self._to(x.page)}">{escape(x.text)}</a>'
            case Mark():
                return f'<span class="{escape(x.tone)}">{escape(x.text)}</span>' if x.tone else escape(x.text)

    def _to_row(self, row: str) -> str:
        return f"{self._to(self._site.rows.get(row, 'rows/missing.html'))}#{escape(row)}"

    def _to(self, page: str) -> str:
        path, mark, anchor = page.partition("#")
        near = posixpath.relpath(path, posixpath.dirname(self._path) or ".") if path else ""
        return escape(near + mark + anchor)

    # Blocks.

    def _blocks(self, blocks: Sequence[Block], level: int) -> str:
        return "".join(self._block(b, level) + "\n" for b in blocks)

    def _block(self, b: Block, level: int) -> str:
        match b:
            case Para():
                return f"<p{_class(b.tone)}>{self.line(b.line)}</p>"
            case Bullets():
                return "<ul>" + "".join(f"<li>{self.line(x)}</li>" for x in b.lines) + "</ul>"
            case Facts():
                pairs = "".join(f"<dt>{self.line(a)}</dt><dd>{self.line(v)}</dd>" for a, v in b.pairs)
                return f'<dl class="facts">{pairs}</dl>'
            case Cards():
                return '<div class="cards">' + "".join(
                    f'<dl class="card"><dt>{escape(c.label)}</dt><dd class="big">{self.line(c.line)}</dd>'
                    + (f'<dd class="small">{self.line(c.note)}</dd>' if c.note else "")
                    + "</dl>"
                    for c in b.cards
                ) + "</div>"  # fmt: skip
            case Table():
                return self._table(b)
            case Figure():
                alt = escape(plain(b.alt), quote=True)
                return (
                    f'<figure><img data-t="name" src="{self._to(b.path)}" alt="{alt}" width="{b.width}" '
                    f'height="{b.height}" loading="lazy"><figcaption>{self.line(b.caption)}</figcaption></figure>'
                )
            case Video():
                poster = f' poster="{self._to(b.poster)}"' if b.poster else ""
                return (
                    f'<figure><video data-t="name" controls muted playsinline preload="metadata"{poster} '
                    f'src="{self._to(b.path)}" aria-label="{escape(plain(b.label), quote=True)}"></video>'
                    f"<figcaption>{self.line(b.caption)}</figcaption></figure>"
                )
            case Shell():
                return f'<pre><code data-t="command">{escape(b.text)}</code></pre>'
            case Fold():
                inner = self._blocks(b.blocks, level)
                return f"<details><summary>{self.line(b.summary)}</summary>\n{inner}</details>"
            case Section():
                tag = f"h{min(level, 6)}"
                head = f'<{tag} id="{escape(b.id)}">{self.line(b.title)}</{tag}>'
                inner = self._blocks(b.blocks, level + 1)
                return f'<section aria-labelledby="{escape(b.id)}">{head}\n{inner}</section>'

    def _table(self, t: Table) -> str:
        def one(tag: str, i: int, line: Line, scope: str = "") -> str:
            return f"<{tag}{scope}{_class('n' if i in t.right else '')}>{self.line(line) or '–'}</{tag}>"

        heads = "".join(one("th", i, line, ' scope="col"') for i, line in enumerate(t.head))
        body = "".join(
            "<tr>"
            + "".join(one("td" if i else "th", i, line, "" if i else ' scope="row"') for i, line in enumerate(row))
            + "</tr>\n"
            for row in t.rows
        )
        self._tables += 1
        name = f"table-{self._tables}"
        return (
            f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}"><table>'
            f'<caption id="{name}"><span>{self.line(t.caption)}</span></caption>'
            f"<thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div>"
        )

    def _row(self, row: Row) -> str:
        head = f'<h2 id="{escape(row.id)}-h"><span data-t="id">{escape(row.title)}</span></h2>'
        facts = []
        if row.run:
            facts.append(f'<dt>Run directory</dt><dd><code data-t="command">{escape(row.run)}</code></dd>')
        if row.command:
            facts.append(f'<dt>Made by</dt><dd><code data-t="command">{escape(row.command)}</code></dd>')
        if row.how:
            facts.append(f"<dt>How</dt><dd>{escape(row.how)}</dd>")
        if row.parts:
            links = ", ".join(
                f'<a class="id" data-t="id" href="{self._to_row(part)}">{escape(part)}</a>' for part in row.parts
            )
            facts.append(f"<dt>{'Made of' if row.group == MADE else 'See'}</dt><dd>{links}</dd>")
        cells = "".join(
            f'<tr><th scope="row"><span data-t="name">{escape(column)}</span></th>'
            f'<td data-col="{escape(column)}">{escape(cell(value))}</td></tr>\n'
            for column, value in row.values.items()
        )
        caption = "All columns of this row"
        return (
            f'<article class="row" id="{escape(row.id)}" aria-labelledby="{escape(row.id)}-h">{head}\n'
            f'<dl class="facts">{"".join(facts)}</dl>\n'
            f"<table><caption>{caption}</caption><tbody>{cells}</tbody></table></article>\n"
        )

    def _more(self, before: str, behind: str) -> str:
        links = []
        if before:
            links.append(f'<a rel="prev" href="{self._to(before)}">Page before</a>')
        if behind:
            links.append(f'<a rel="next" href="{self._to(behind)}">Next page</a>')
        return f'<p class="more">{"".join(links)}</p>\n' if links else ""

    def _frame(self, title: str, body: str, here: str) -> str:
        items = "".join(
            f'<li><a href="{self._to(path)}"{" aria-current=page" if path == here else ""}>{escape(word)}</a></li>'
            for word, path in self._site.menu
        )
        shown = _TITLE if title == _TITLE else f"{title} – {_TITLE}"
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<link rel="icon" href="data:,">\n'
            f"<title>{escape(shown)}</title>\n<style>{CSS}</style>\n<script>{SCRIPT}</script>\n</head>\n<body>\n"
            f'<a class="skip" href="#main">Skip to the content</a>\n<header><a class="home" href="{self._to(FIRST)}">'
            f'{_TITLE}</a>\n<button type="button" class="theme" hidden>Dark colours</button>\n'
            f'<nav aria-label="Pages"><ul>{items}</ul></nav></header>\n<main id="main" tabindex="-1">\n{body}</main>\n'
            "<footer><p>Made by <code>lab report</code> from the journal, the tables and the sealed files alone. "
            "Every number leads to its row, its run directory and the command that made it.</p></footer>\n"
            "</body>\n</html>\n"
        )


def _class(tone: str) -> str:
    return f' class="{escape(tone)}"' if tone else ""
