"""`lab claim check NAME`: ask every gate, write down what they found, end with 1 where it is less than is wanted."""

from __future__ import annotations

from typing import Annotated

import typer

from core.errors import BadInput, Exit
from lab import completion
from lab.session import session


def check_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The claim.", autocompletion=completion.claims)],
) -> None:
    """Ask every gate of a claim.

    Ends with 1 if it has not the label that it wants. What was found is recorded, so that a later demotion can say
    what has changed.
    """
    from lab.claims import stating
    from lab.claims.evaluation import evaluate
    from lab.commands._claimed import ClaimReport

    here = session()
    with here.reading() as journal:
        found = evaluate(here.home, journal.conn, name)
    if found.row.withdrawn is not None:
        raise BadInput(f"the claim {name!r} was withdrawn ({found.row.withdrawn})", hint="state it anew")
    with here.asking() as journal:
        cited = {c.job for c in found.evidence.cited}
        stating.record(journal, name, found.label, found.evidence.current, cited)
    here.out.show(ClaimReport(found, whole=True))
    if not found.label.reached:
        raise typer.Exit(Exit.JOB_FAILED)
