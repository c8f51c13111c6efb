"""`lab hold`: keep queued jobs from starting."""

from __future__ import annotations

from typing import Annotated

import typer

from core.journal.query import Job
from core.states import EventKind, JobState
from lab import asking, completion
from lab.session import session


def hold_(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID", help="Jobs and sweeps, as 17, 17-20, or 17.3.", autocompletion=completion.live_job_ids
        ),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option("--tag", metavar="TAG", help="All with this tag.", autocompletion=completion.tags),
    ] = None,
) -> None:
    """Keep queued jobs from starting.

    What runs already goes on; `lab release` lets held jobs start again. Of a sweep that is held no further cell starts.
    """
    states = (JobState.QUEUED, JobState.RUNNING)
    asking.ask(session(), EventKind.HOLD_ASKED, "hold", ids, tag, why_not=_why_not, states=states)


def _why_not(job: Job) -> str:
    if job.wish == "cancel" or job.state is JobState.CANCELLING:
        return "is being cancelled"
    if job.wish == "hold" or (job.state is JobState.HELD and job.wish is None):
        return "is held already"
    if job.state is JobState.RUNNING and not job.is_sweep:
        return f"runs already (`lab cancel {job.id}` ends it)"
    return f"has ended: {job.state}" if job.state.terminal else ""
