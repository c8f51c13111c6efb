"""`lab rerun`: submit jobs again, as they were: same parameters, same code, same inputs."""

from __future__ import annotations

import sqlite3
from typing import Annotated

import typer

from core.errors import BadInput
from core.journal import query
from core.states import JobState
from lab import completion
from lab.selection import Selection
from lab.session import session

_FAILED = (JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED)

EPILOG = """
Examples:
  lab rerun 17                all of sweep 17 as a new sweep; what succeeded is not run again
  lab rerun 17 --failed       exactly the cells of sweep 17 that failed
  lab rerun 17.3              the third cell of sweep 17
  lab rerun --tag night       all that failed with this tag
  lab rerun --failed 31       what job 31 waited for and failed, and all that waited for that
  lab rerun --failed dose     the same of all jobs of the study dose, as it was submitted last

What runs again together takes the files of the new jobs: a summary that ran without a part runs
again with it. What succeeded is not run again.
"""


def rerun_(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID",
            help="Jobs, as 17, 17-20, or 17.3; or the name of a study.",
            autocompletion=completion.finished_jobs_or_studies,
        ),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option("--tag", metavar="TAG", help="All failed jobs with this tag.", autocompletion=completion.tags),
    ] = None,
    failed: Annotated[
        bool,
        typer.Option("--failed", help="Of a sweep the cells that failed; of jobs what failed, and what waited for it."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Run even if the result is there already.")] = False,
    wait_for: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end.")] = False,
    results: Annotated[bool, typer.Option("--results", help="With --wait: show the result tables.")] = False,
) -> None:
    """Submit jobs again, as they were.

    Each becomes a new job with an id of its own; the code is the copy of then, not that of now. A sweep becomes one
    new sweep.
    """
    from lab.commands._submitted import carry_on
    from lab.submission import rerun

    here = session()
    if failed and not ids and not tag:
        with here.reading() as journal:
            raise BadInput("--failed needs to know of which sweep", hint=_which(journal.conn))
    wanted = Selection.of(ids, tag)
    with here.reading() as journal:
        jobs = wanted.jobs(journal.conn, states=_FAILED)
    if failed and tag:
        jobs = [j for j in jobs if j.state is JobState.FAILED or not j.is_sweep] or jobs
    answers = rerun(here.home, [j.id for j in jobs], force=force, failed=failed)
    carry_on(here, answers, wait_for=wait_for, results=results)


def _which(conn: sqlite3.Connection) -> str:
    row = conn.execute(
        """SELECT sweep FROM job_state WHERE sweep IS NOT NULL AND state = 'failed'
           ORDER BY sweep DESC LIMIT 1"""
    ).fetchone()
    if row is None:
        return "give its id (no cell of any sweep has failed)"
    kind = query.job(conn, row[0]).kind
    return f"the newest that has failed cells is {row[0]} ({kind}): `lab rerun {row[0]} --failed`"
