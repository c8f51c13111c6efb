"""`lab lane drain`: place nothing more on a lane, and say why."""

from __future__ import annotations

from typing import Annotated

import typer

from core.errors import BadInput
from core.states import EventKind
from lab import completion, lanewish
from lab.session import session


def drain_(
    name: Annotated[str, typer.Argument(metavar="LANE", help="The lane.", autocompletion=completion.lanes)],
    reason: Annotated[
        str, typer.Option("--reason", "-r", metavar="TEXT", help="Why, for everyone who asks later.")
    ] = "",
) -> None:
    """Place nothing more on a lane, for a reason.

    What runs there goes on to its end.
    """
    if not reason.strip():
        raise BadInput(
            f"draining lane {name} needs a reason", hint=f'say why: lab lane drain {name} --reason "disk is full"'
        )
    lanewish.ask(session(), EventKind.DRAIN_ASKED, "drain", name, reason.strip())
