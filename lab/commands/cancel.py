"""`lab cancel`: end jobs, queued or running. Asking twice is harmless."""

from __future__ import annotations

from typing import Annotated

import typer

from core.journal.query import Job
from core.states import EventKind, JobState
from lab import asking, completion
from lab.session import session

_LIVE = tuple(s for s in JobState if not s.terminal)


def cancel_(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID",
            help="Jobs and sweeps, as 17, 17-20, or 17.3; or a study.",
            autocompletion=completion.live_job_ids,
        ),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option("--tag", metavar="TAG", help="All live jobs with this tag.", autocompletion=completion.tags),
    ] = None,
) -> None:
    """Cancel jobs, queued or running.

    A running attempt is asked to stop (SIGTERM), and after its grace everything of it is killed. A sweep is cancelled
    with all of its cells; those that other jobs answer are not its own and go on.
    """
    asking.ask(session(), EventKind.CANCEL_ASKED, "cancel", ids, tag, why_not=_why_not, states=_LIVE)


def _why_not(job: Job) -> str:
    if job.state.terminal:
        return f"nothing to cancel: it has {_ended(job)}"
    if job.state is JobState.CANCELLING or job.wish == "cancel":
        return "is being cancelled already"
    return ""


def _ended(job: Job) -> str:
    return {JobState.CANCELLED: "been cancelled", JobState.SKIPPED: "been skipped"}.get(
        job.state, f"already {job.state}"
    )
