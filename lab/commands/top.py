"""`lab top`: the screen that people keep open."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from core.errors import BadInput
from lab.session import session

_THEMES = ("dark", "light", "contrast", "mono")

EPILOG = """
Keys: arrows, Enter unfolds a sweep, c cancel, h hold or release, r rerun, d drain a lane, / filter, ? all of them, q.

It reads the journal, live.db and logs, and never waits for a lane. NO_COLOR=1 shows it without colours.
"""


def top_(
    theme: Annotated[
        str, typer.Option("--theme", metavar="NAME", help="dark, light, contrast or mono; t changes it.")
    ] = "",
) -> None:
    """Show lanes and jobs, live, on the whole terminal.

    What a job prints, its curves and why it waits are shown beside it; leaving ends nothing.
    """
    here = session()
    if theme and theme not in _THEMES:
        raise BadInput(f"there is no theme {theme!r}", hint=f"there are: {', '.join(_THEMES)}")
    why = _no_terminal(as_people=here.out.people)
    if why:
        raise BadInput(why, hint="`lab status --watch` shows the same as lines")
    from lab.tui.terminal import run

    code = run(here.home, theme=theme)
    if code:
        raise typer.Exit(code)


def _no_terminal(*, as_people: bool) -> str:
    """Why there is no screen to draw on; empty when there is one."""
    if not as_people:
        return "lab top draws on a terminal and has no other form"
    for stream, name in ((sys.__stdin__, "input"), (sys.__stdout__, "output")):
        if stream is None or stream.closed or not stream.isatty():
            return f"lab top needs a terminal, and its {name} is none"
    if os.environ.get("TERM", "") in ("", "dumb"):
        return f"lab top needs a terminal that can move its cursor, and TERM is {os.environ.get('TERM', '')!r}"
    return ""
