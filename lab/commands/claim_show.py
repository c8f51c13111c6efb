"""`lab claim show NAME`: a claim with the label that it has at this moment. Nothing is written."""

from __future__ import annotations

from typing import Annotated

import typer

from lab import completion
from lab.session import session


def show_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The claim.", autocompletion=completion.claims)],
    everything: Annotated[bool, typer.Option("--all", "-a", help="Every gate, also those that allow it.")] = False,
) -> None:
    """Show a claim with its label, and why it has that one.

    The label is made anew each time: every cited file is hashed again, every number recounted. Where the claim once had
    a higher one, what has changed is named.
    """
    from lab.claims.evaluation import evaluate
    from lab.commands._claimed import ClaimReport

    here = session()
    with here.reading() as journal:
        found = evaluate(here.home, journal.conn, name)
    here.out.show(ClaimReport(found, whole=everything))
