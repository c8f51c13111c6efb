"""`lab rerun`: submit jobs again, as they were: same parameters, same code, same inputs."""

from __future__ import annotations

from typing import Annotated

import typer

from core.states import JobState
from lab import completion
from lab.selection import Selection
from lab.session import session


def rerun_(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Jobs, as 17 or 17-20.", autocompletion=completion.finished_job_ids),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option("--tag", metavar="TAG", help="All failed jobs with this tag.", autocompletion=completion.tags),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run even if the result is there already.")] = False,
    wait_for: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end.")] = False,
    results: Annotated[bool, typer.Option("--results", help="With --wait: show the result tables.")] = False,
) -> None:
    """Submit jobs again, as they were.

    Each becomes a new job with an id of its own; the code is the copy of then, not that of now.
    """
    from lab.commands._submitted import carry_on
    from lab.submission import rerun

    here = session()
    failed = (JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED)
    wanted = Selection.of(ids, tag)
    with here.reading() as journal:
        jobs = wanted.jobs(journal.conn, states=failed)
    answers = rerun(here.home, [j.id for j in jobs], force=force)
    carry_on(here, answers, [j.kind for j in jobs], wait_for=wait_for, results=results)
