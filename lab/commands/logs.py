"""`lab logs`: what a job printed, without the escapes that would steer the reader's terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from core.errors import BadInput, NotFound
from core.journal import Journal, query
from core.journal.query import Job
from lab import arguments, completion, selection
from lab.batchlog import Whole, where
from lab.evidence import batch_discarded, discarded_at
from lab.folded import cell_name
from lab.logs import LogReader, lines_of, tail
from lab.output import Page, Report, human
from lab.output.sweep import failure
from lab.session import Session, session

_POLL_S = 0.2


def logs_(
    id_: Annotated[
        str, typer.Argument(metavar="ID", help="The job, as 17 or 17.3.", autocompletion=completion.job_ids)
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends; Ctrl-C stops watching only.")
    ] = False,
    attempt: Annotated[
        int | None, typer.Option("--attempt", metavar="N", help="Of this attempt instead of the last.")
    ] = None,
    lines: Annotated[int | None, typer.Option("--lines", "-n", metavar="N", help="Only the last N lines.")] = None,
) -> None:
    """Show what a job printed.

    Output and errors together, as the program wrote them; terminal escapes are taken out. Of a sweep, what its first
    failed cell printed.
    """
    here = session()
    arguments.ids([id_])
    if lines is not None and lines < 0:
        raise BadInput(f"--lines {lines} is negative", hint="give a positive number")
    with here.reading() as journal:
        job_id = _chosen(here, journal, selection.one(journal.conn, id_), follow=follow)
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
    found = where(here.home, journal.conn, job, chosen)
    most = lines if lines is not None else 1 << 40
    if isinstance(found, Whole):
        if not found.path.exists():
            _refuse_discarded(
                job, chosen, discarded_at(journal.conn, job_id, chosen) or discarded_at(journal.conn, job_id)
            )
            raise NotFound(f"attempt {chosen} of job {job_id} has left no log here ({found.path})", hint=_where(job))
        here.out.show(LogReport(job_id, chosen, tail(found.path, most)))
        return
    if not found.path.parent.is_dir():
        _refuse_discarded(job, chosen, batch_discarded(journal.conn, found.path.parent.name))
        raise NotFound(f"the batch of job {job_id} has left no log here ({found.path})", hint=_where(job))
    if not found.known:
        here.out.remark(f"job {job_id} runs in a batch: what it printed is known when the batch has ended")
    here.out.show(LogReport(job_id, chosen, lines_of(found.read())[-most:] if most else []))


def _refuse_discarded(job: Job, attempt: int, when: float | None) -> None:
    if when is not None:
        raise NotFound(
            f"the log of attempt {attempt} of job {job.id} was discarded on {human.when(when)} by `lab gc`",
            hint=f"`lab rerun {job.id}` runs it again",
        )


def _chosen(here: Session, journal: Journal, job_id: int, *, follow: bool) -> int:
    """The job itself; of a sweep, the cell that failed first.

    Raises:
        BadInput: a sweep has no log of its own, and none of its cells has failed.
    """
    job = query.job(journal.conn, job_id)
    if not job.is_sweep:
        return job_id
    first = query.first_failure(journal.conn, job_id)
    if first is None or follow:
        what = f"cell {cell_name(first)} failed first" if first is not None else "none of its cells has failed"
        hint = f"name a cell, such as {cell_name(first) if first is not None else f'{job_id}.1'}"
        said = f"sweep {job_id} has no log of its own, and {what}"
        raise BadInput(said, hint=f"{hint}; `lab status {job_id} --cells` lists them")
    here.out.remark(f"cell {failure(first)}")
    return first.id


def _attempt(journal: Journal, job: Job, n: int | None) -> int:
    # A cell that runs in a batch has no attempt on record before the batch ends.
    known = sorted({a.n for a in query.attempts(journal.conn, job.id)} | ({job.attempts} if job.attempts else set()))
    if not known:
        raise NotFound(f"job {job.id} has no log: it has not started ({job.state})", hint=_where(job))
    if n is not None and n not in known:
        raise NotFound(f"job {job.id} has no attempt {n}", hint=f"its attempts go from 1 to {known[-1]}")
    return n if n is not None else known[-1]


def _where(job: Job) -> str:
    return f"`lab explain {job.id}` says why" if job.state.terminal else f"`lab logs {job.id} -f` waits for it"


def _follow(here: Session, journal: Journal, job_id: int, attempt: int | None, lines: int | None) -> None:
    """Print lines as they come; a new attempt follows the old one."""
    job = query.job(journal.conn, job_id)
    if job.pooled and (job.sweep is not None or query.batch_of(journal.conn, job_id) is not None):
        _follow_batch(here, journal, job_id, attempt, lines)
        return
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


def _follow_batch(here: Session, journal: Journal, job_id: int, attempt: int | None, lines: int | None) -> None:
    """A cell of a batch: wait for its end, then say all of it."""
    said = False
    try:
        while not (job := query.job(journal.conn, job_id)).state.terminal:
            if not said:
                where_now = f"runs in a batch on {job.lane}" if job.attempts else f"has not started yet ({job.state})"
                here.out.remark(f"job {job_id} {where_now}; what it prints is shown when it has ended")
                said = True
            time.sleep(_POLL_S)
        if job.attempts:
            _show(here, journal, job_id, attempt, lines)
        here.out.remark(f"-- job {job_id}: {job.state} --")
    except KeyboardInterrupt:
        here.out.remark(f"stopped watching; job {job_id} goes on")


def _print(here: Session, job_id: int, attempt: int, lines: list[str]) -> bool:
    if lines:
        here.out.show(LogReport(job_id, attempt, lines))
    return bool(lines)
