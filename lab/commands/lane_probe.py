"""`lab lane probe`: connect to a lane and look at it closely, without running anything there."""

from __future__ import annotations

from typing import Annotated

import typer

from core.errors import Exit
from lab import arguments, completion, laneask
from lab.commands._climb import ClimbReport, Shown, watch
from lab.session import session


def probe_(
    name: Annotated[str, typer.Argument(metavar="LANE", help="The lane.", autocompletion=completion.lanes)],
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="TIME", help="Wait no longer than this for the answer.")
    ] = None,
) -> None:
    """Connect to a lane and look at it: everything that its admission needs, but for jobs.

    It shows what cluster.yaml declares beside what is there. Ends with 1 if something does not hold.
    """
    here = session()
    laneask.remote(here.home, name, "probe")
    limit = arguments.duration(timeout, "--timeout") if timeout is not None else None
    shown = Shown(here)
    answer = watch(here, name, laneask.ask(here.home, name, "probe"), shown, timeout_s=limit)
    then = f"lab lane admit {name}"
    rows, again = list(shown.rows.values()), f"lab lane probe {name}"
    here.out.show(ClimbReport(name, rows, answer, live=shown.live, next=then, again=again))
    if not answer.ok:
        raise typer.Exit(Exit.JOB_FAILED)
