"""Builds the report in memory, and checks it before anybody sees it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import Exit, LabError
from core.home import Home
from lab.report import check, notebook
from lab.report.doc import Page
from lab.report.html import render
from lab.report.media import Media
from lab.report.reading import Reading
from lab.report.sections import claims, evidence, floor, glossary, jobs, lanes, studies, summary

SCHEMA = "lab.report-site/1"
ABOUT, NOTEBOOK = "report.json", "report.md"
_TITLE = "Lab notebook"
_TRIES = 3
_SHOWN = 12


class BrokenReport(LabError):
    """The report that was built says what no row says, or cannot be used: a bug of ours, or a planted number."""

    exit_code = Exit.INTERNAL
    slug = "broken-report"


@dataclass(frozen=True)
class Built:
    """A report. `files`: path -> bytes; `rows`: how many are cited; `warnings`: what could not be read."""

    files: Mapping[str, bytes]
    pages: int
    rows: int
    warnings: tuple[str, ...]


def build(home: Home, conn: sqlite3.Connection, asked: floor.Asked) -> Built:
    """Build the report of a home as its journal has it now. Equal journals, tables and files give equal bytes.

    Raises:
        BadInput: no such view or contract.
        BrokenReport: it did not pass its own check.
    """
    for _ in range(_TRIES):
        before = _last(conn)
        conn.execute("BEGIN")  # one look: a job is not running on one page and ended on the next
        try:
            built = _build(home, conn, asked)
        finally:
            conn.execute("COMMIT")
        # Parts of tables may have been written anew meanwhile, and then some were missed.
        if not built.warnings or _last(conn) == before:
            break
    return built


def _last(conn: sqlite3.Connection) -> int:
    return int(conn.execute("SELECT ifnull(max(seq), 0) FROM event").fetchone()[0])


def _build(home: Home, conn: sqlite3.Connection, asked: floor.Asked) -> Built:
    r = Reading(home, conn)
    media = Media(r)
    scored = floor.FloorSection(r, media, asked)
    studied = studies.StudySection(r, media)
    claimed = claims.ClaimSection(r)
    index = evidence.read(r)
    listed, lines = jobs.commands(r)
    of_studies = studied.pages()
    of_floor = scored.page(studied.pictures())
    of_claims = claimed.pages()
    pages = [
        summary.page(r, scored, studied, claimed, index),
        of_floor,
        *of_claims,
        *of_studies,
        jobs.live(r),
        jobs.blockers(r),  # behind all that may meet something unreadable
        lanes.page(r),
        *listed,
        *evidence.pages(r, index),
        glossary.page(),
    ]
    made = assemble(r, pages, asked, media.files)
    made[jobs.LINES] = encoded(lines)
    made[evidence.LINES] = encoded("\n".join(index.lines) + "\n")
    made = dict(sorted(made.items()))
    refuse_broken(made)
    return Built(made, sum(1 for p in made if p.endswith(".html")), len(r.book.rows), tuple(dict.fromkeys(r.warnings)))


def assemble(r: Reading, pages: Sequence[Page], asked: floor.Asked, media: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of these pages, without looking whether they are sound."""
    out = {path: encoded(text) for path, text in render(pages, r.book).items()}
    out[NOTEBOOK] = encoded(notebook.notebook(pages, r.book, _TITLE))
    out[ABOUT] = (json.dumps({"schema": SCHEMA, "asked": floor.asked_data(asked)}, indent=1) + "\n").encode()
    return {**out, **media}


def encoded(text: str) -> bytes:
    """UTF-8. Half characters, which only names of files have, become their escapes."""
    return text.encode(errors="backslashreplace")


def problems(files: Mapping[str, bytes]) -> list[str]:
    """What is wrong with a report, pages and notebook."""
    text = files[NOTEBOOK].decode()
    told = notebook.problems(text, check.rows_of(files), files)
    return [*check.problems(files), *(f"{NOTEBOOK}: {said}" for said in told)]


def refuse_broken(files: Mapping[str, bytes]) -> None:
    """Raises BrokenReport, naming the first things that are wrong."""
    found = problems(files)
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise BrokenReport(
            f"the report does not pass its own check: {'; '.join(found[:_SHOWN])}{more}",
            hint="no page was written; this is a bug of lab: report it with the line above",
        )


def about(data: bytes) -> dict[str, Any]:
    """What a report says of itself; empty: it is none."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("schema") == SCHEMA else {}
