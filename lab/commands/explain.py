"""`lab explain`: why a job waits, where it would go, how it ended, why no earlier run answered it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from lab import arguments, completion, selection
from lab.explain import Explanation, explain
from lab.output import Page, Report, human
from lab.output.ranking import ranking
from lab.output.table import fold
from lab.session import session


def explain_(
    id_: Annotated[
        str, typer.Argument(metavar="ID", help="The job, sweep or cell.", autocompletion=completion.job_ids)
    ],
) -> None:
    """Say why a job waits, failed, or ran again."""
    here = session()
    arguments.ids([id_])
    with here.reading() as journal:
        job_id = selection.one(journal.conn, id_)
        here.out.show(ExplainReport(explain(here.home, journal.conn, job_id)))


@dataclass(frozen=True)
class ExplainReport(Report):
    """One sentence, what else is worth knowing, and the lanes where it could go."""

    found: Explanation

    schema = "lab.explain/1"

    def json(self) -> dict[str, Any]:
        e = self.found
        return {
            "job": e.job,
            "state": str(e.state),
            "sentence": e.sentence,
            "details": list(e.details),
            "lane": e.lane,
            "nearest": e.nearest,
            "lanes": [r.json() for r in e.lanes],
        }

    def text(self, page: Page) -> Iterable[str]:
        sentence = human.clean(self.found.sentence)
        yield from fold(
            f"{page.mark(self.found.state)} {sentence[:1].upper() + sentence[1:]}.", page.width or 0, page, 20
        )
        for detail in self.found.details:
            text = human.clean(detail)
            first, *rest = fold(text[:1].upper() + text[1:], (page.width or 0) - 4, page, 20)
            yield f"  {page.dot} {first}"
            yield from (f"    {line}" for line in rest)
        if len(self.found.lanes) > 1:
            yield ""
            yield from ranking(page, self.found.lanes)

    def brief(self) -> Iterable[str]:
        return [self.found.sentence]
