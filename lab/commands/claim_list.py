"""`lab claim list`: the claims with the labels that they have at this moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from core.errors import LabError
from core.journal import query
from core.journal.query import ClaimRow
from lab.output import Column, Page, Report, human, lay_out
from lab.session import session


def list_(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also those that were withdrawn.")] = False,
) -> None:
    """List the claims with their labels.

    Each label is made anew: this hashes what all of them cite.
    """
    from lab.claims.evaluation import Evaluated, evaluate

    here = session()
    rows: list[tuple[ClaimRow, Evaluated | None, str]] = []
    with here.reading() as journal:
        for row in query.claims(journal.conn, standing=not everything):
            try:
                rows.append((row, evaluate(here.home, journal.conn, row.name), ""))
            except LabError as error:
                rows.append((row, None, error.message))
    here.out.show(ClaimsReport(rows))


@dataclass(frozen=True)
class ClaimsReport(Report):
    """Each claim with its label, or why there is none."""

    rows: Sequence[tuple[ClaimRow, Any, str]]

    schema = "lab.claims/1"

    def json(self) -> dict[str, Any]:
        from lab.claims.render import demoted, sentence
        from lab.commands._claimed import label_json

        claims = []
        for row, found, why in self.rows:
            base = {"name": row.name, "event": row.stated, "withdrawn": row.withdrawn, "error": why or None}
            more = {} if found is None else {"text": sentence(found), "demoted": demoted(found) or None}
            claims.append({**base, **more, **({} if found is None else label_json(found.label))})
        return {"claims": claims}

    def text(self, page: Page) -> Iterable[str]:
        if not self.rows:
            yield "No claim is stated. `lab claim new --template` prints an example."
            return
        from lab.claims.render import demoted, sentence

        table = []
        for row, found, why in self.rows:
            state = (
                "withdrawn" if row.withdrawn is not None else found.label.word if found is not None else "unreadable"
            )
            if found is not None and found.label.demoted_from is not None:
                state = f"{state} (demoted from {found.label.demoted_from})"
            wants = str(found.claim.wants) if found is not None else ""
            said = why if found is None else demoted(found) or sentence(found)
            table.append((row.name, state, wants, human.clean(said)))
        columns = (Column("CLAIM"), Column("LABEL"), Column("WANTS"), Column("IT SAYS"))
        yield from lay_out(page, columns, table, lines_most=4)

    def brief(self) -> Iterable[str]:
        return [row.name for row, _, _ in self.rows]
