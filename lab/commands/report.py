"""`lab report`: a static site and a Markdown notebook in which every number leads back to its row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import BadInput, Exit
from lab.floor import VIEWS, read_rivals
from lab.output import Page, Report, human
from lab.session import session

if TYPE_CHECKING:
    from lab.report.folder import Difference

EPILOG = """
Made of the journal, the result tables and the sealed files alone. Open FOLDER/index.html (no network is needed), or
read FOLDER/report.md.
A number that no row says, or a link that leads nowhere, fails the build.
--check builds it again as it was asked for then, compares byte for byte, and ends with 1 where anything differs.
"""

_SHOWN = 10


def report_(
    folder: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where it goes [HOME/report].")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Build it again and compare; write nothing. Ends with 1 if it differs.")
    ] = False,
    rivals: Annotated[
        Path | None, typer.Option("--rivals", metavar="FILE", help="Rivals and their scores, as YAML.")
    ] = None,
    view: Annotated[
        str,
        typer.Option("--view", metavar="|".join(VIEWS), help="Whose bytes count.", autocompletion=lambda: list(VIEWS)),
    ] = VIEWS[0],
    contract: Annotated[
        str, typer.Option("--contract", metavar="SHA", help="The contract [of the newest that may promote].")
    ] = "",
) -> None:
    """Write a site in which every number leads to its row.

    And from there to its run directory and the command that made it. Beside the site lies the same as a notebook in
    Markdown.
    """
    from lab.report.build import build
    from lab.report.folder import asked_in, differences, refuse_foreign, write
    from lab.report.sections.floor import Asked

    here = session()
    where = (folder or here.home.path / "report").expanduser().absolute()
    if check:
        if rivals is not None or contract or view != VIEWS[0]:
            raise BadInput("--check was given together with what a report is asked with", hint="give --check alone")
        asked = asked_in(where)
    else:
        refuse_foreign(where)
        asked = Asked(view, contract, tuple(read_rivals(rivals)) if rivals is not None else ())
    with here.reading() as journal:
        built = build(here.home, journal.conn, asked)
    for line in built.warnings:
        here.out.remark(f"lab: warning: {human.clean(line)}")
    if not check:
        written = write(where, built.files)
        here.out.show(Written(str(where), built.pages, built.rows, len(built.files), written, built.warnings))
        return
    found = differences(where, built.files)
    here.out.show(Checked(str(where), len(built.files), found))
    if found:
        raise typer.Exit(Exit.JOB_FAILED)


@dataclass(frozen=True)
class Written(Report):
    """Where the report is, and how large."""

    folder: str
    pages: int
    rows: int
    files: int
    written: int
    warnings: Sequence[str]

    schema = "lab.report/1"

    def json(self) -> dict[str, Any]:
        return {
            "folder": self.folder,
            "pages": self.pages,
            "rows": self.rows,
            "files": self.files,
            "written": self.written,
            "warnings": list(self.warnings),
        }

    def text(self, page: Page) -> Iterable[str]:
        said = f"{human.count(self.pages, 'page')}, {human.count(self.rows, 'cited row')}"
        yield f"{page.mark('ok')} {said}: every number leads to its row, and every link somewhere"
        yield f"{self.folder}/index.html"
        yield page.paint(f"{self.folder}/report.md", "dim")

    def brief(self) -> Iterable[str]:
        return [f"{self.folder}/index.html"]


@dataclass(frozen=True)
class Checked(Report):
    """Is the report what would be built now?"""

    folder: str
    files: int
    found: Sequence[Difference]

    schema = "lab.report-check/1"

    def json(self) -> dict[str, Any]:
        return {
            "folder": self.folder,
            "files": self.files,
            "equal": not self.found,
            "differences": [{"path": d.path, "said": d.said} for d in self.found],
        }

    def text(self, page: Page) -> Iterable[str]:
        if not self.found:
            yield f"{page.mark('ok')} {human.count(self.files, 'file')}: every byte is what would be written now"
            return
        n = human.count(len(self.found), "file")
        yield f"{page.mark('fail')} {self.folder} is not what would be written now: {n} of {self.files:,} differ"
        yield from (f"    {human.clean(d.path)}: {human.clean(d.said)}" for d in self.found[:_SHOWN])
        if len(self.found) > _SHOWN:
            yield f"    and {len(self.found) - _SHOWN} more (--json has all)"
        yield page.paint("`lab report` writes it anew", "dim")

    def brief(self) -> Iterable[str]:
        return [d.path for d in self.found]
