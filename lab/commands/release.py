"""`lab release`: let held jobs start."""

from __future__ import annotations

from typing import Annotated

import typer

from core.journal.query import Job
from core.states import EventKind, JobState
from lab import asking, completion
from lab.session import session


def release_(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID", help="Jobs and sweeps, as 17, 17-20, or 17.3.", autocompletion=completion.held_job_ids
        ),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option("--tag", metavar="TAG", help="All held jobs with this tag.", autocompletion=completion.tags),
    ] = None,
) -> None:
    """Let held jobs start."""
    states = (JobState.HELD, JobState.QUEUED)
    asking.ask(session(), EventKind.RELEASE_ASKED, "release", ids, tag, why_not=_why_not, states=states)


def _why_not(job: Job) -> str:
    if job.state.terminal:
        return f"has ended: {job.state}"
    if job.wish == "cancel" or job.state is JobState.CANCELLING:
        return "is being cancelled"
    if job.state is JobState.HELD or job.wish == "hold":
        return "is released already" if job.wish == "release" else ""
    return f"is not held: {job.state}"
