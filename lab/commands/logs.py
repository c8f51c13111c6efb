"""`lab logs`: what a job printed, without the escapes that would steer the reader's terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from core.errors import BadInput, NotFound
from core.journal import Journal, query
from core.journal.query import Attempt, Job
from lab import arguments, completion
from lab.logs import LogReader, tail
from lab.output import Page, Report
from lab.session import Session, session

_POLL_S = 0.2


def logs_(
    id_: Annotated[str, typer.Argument(metavar="ID", help="The job.", autocompletion=completion.job_ids)],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends; Ctrl-C stops watching only.")
    ] = False,
    attempt: Annotated[
        int | None, typer.Option("--attempt", metavar="N", help="Of this attempt instead of the last.")
    ] = None,
    lines: Annotated[int | None, typer.Option("--lines", "-n", metavar="N", help="Only the last N lines.")] = None,
) -> None:
    """Show what a job printed.

    Output and errors together, as the program wrote them; terminal escapes are taken out.
    """
    here, job_id = session(), arguments.job_id(id_)
    if lines is not None and lines < 0:
        raise BadInput(f"--lines {lines} is negative", hint="give a positive number")
    with here.reading() as journal:
        if follow:
            _follow(here, journal, job_id, attempt, lines)
        else:
            _show(here, journal, job_id, attempt, lines)


@dataclass(frozen=True)
class LogReport(Report):
    """The log of one attempt, as lines."""

    job: int
    attempt: int
    lines: list[str]

    schema = "lab.logs/1"

    def json(self) -> dict[str, Any]:
        return {"job": self.job, "attempt": self.attempt, "lines": self.lines}

    def text(self, page: Page) -> Iterable[str]:
        return self.lines

    def brief(self) -> Iterable[str]:
        return self.lines


def _show(here: Session, journal: Journal, job_id: int, attempt: int | None, lines: int | None) -> None:
    job = query.job(journal.conn, job_id)
    chosen = _attempt(journal, job, attempt)
    path = here.home.run_dir(job_id, chosen.n).log
    if not path.exists():
        raise NotFound(f"attempt {chosen.n} of job {job_id} has left no log here ({path})", hint=_where(job))
    here.out.show(LogReport(job_id, chosen.n, tail(path, lines if lines is not None else 1 << 40)))


def _attempt(journal: Journal, job: Job, n: int | None) -> Attempt:
    known = query.attempts(journal.conn, job.id)
    if not known:
        raise NotFound(f"job {job.id} has no log: it has not started ({job.state})", hint=_where(job))
    for a in known:
        if a.n == (n if n is not None else known[-1].n):
            return a
    raise NotFound(f"job {job.id} has no attempt {n}", hint=f"its attempts go from 1 to {known[-1].n}")


def _where(job: Job) -> str:
    return f"`lab explain {job.id}` says why" if job.state.terminal else f"`lab logs {job.id} -f` waits for it"


def _follow(here: Session, journal: Journal, job_id: int, attempt: int | None, lines: int | None) -> None:
    """Print lines as they come; a new attempt follows the old one."""
    reader, current, said = None, 0, False
    try:
        while True:
            job = query.job(journal.conn, job_id)
            n = attempt if attempt is not None else job.attempts
            if n and n != current:
                if reader is not None:
                    _print(here, job_id, current, reader.lines(final=True))
                    here.out.remark(f"-- attempt {n} --")
                reader, current = LogReader(here.home.run_dir(job_id, n).log), n
                if lines is not None:
                    reader.skip_to_tail(lines)
            elif not n and not said:
                here.out.remark(f"job {job_id} has not started yet ({job.state})")
                said = True
            if reader is not None and _print(here, job_id, current, reader.lines()):
                continue
            if job.state.terminal or (attempt is not None and attempt < job.attempts):
                if reader is not None:
                    _print(here, job_id, current, reader.lines(final=True))
                here.out.remark(f"-- job {job_id}: {job.state} --")
                return
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        here.out.remark(f"stopped watching; job {job_id} goes on")


def _print(here: Session, job_id: int, attempt: int, lines: list[str]) -> bool:
    if lines:
        here.out.show(LogReport(job_id, attempt, lines))
    return bool(lines)
