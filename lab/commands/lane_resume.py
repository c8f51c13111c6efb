"""`lab lane resume`: place attempts on a drained lane again."""

from __future__ import annotations

from typing import Annotated

import typer

from core.states import EventKind
from lab import completion, lanewish
from lab.session import session


def resume_(
    name: Annotated[str, typer.Argument(metavar="LANE", help="The lane.", autocompletion=completion.lanes)],
    reason: Annotated[str, typer.Option("--reason", "-r", metavar="TEXT", help="What was mended.")] = "",
) -> None:
    """Place attempts on a drained lane again."""
    lanewish.ask(session(), EventKind.RESUME_ASKED, "resume", name, reason.strip())
