"""Waiting for jobs: the journal says when something changed, so looking often costs nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from core.errors import Exit
from core.journal import Journal, query
from core.journal.query import Job
from core.live import read_attempts
from core.states import JobState
from lab.logs import tail
from lab.output import Page, Report, human
from lab.output import job as look
from lab.output.progress import Live, follower
from lab.output.table import shorten
from lab.session import Session

_POLL_S = 0.05  # one PRAGMA, no table is read
_LIVE_S = 0.25
_CONTROLLER_S = 5.0
_LOG_LINES = 12


def until_ended(here: Session, ids: Sequence[int]) -> list[Job]:
    """Show progress until every job of `ids` has ended. Ctrl-C stops watching, never a job.

    Raises:
        typer.Exit, KeyboardInterrupt: Ctrl-C, after saying that the jobs go on.
    """
    with here.reading() as journal:
        show = follower(here.out, len(ids))
        try:
            return _follow(here, journal, tuple(ids), show.update)
        except KeyboardInterrupt:
            show.close()
            first, goes = ids[0], "goes" if len(ids) == 1 else "go"
            names = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
            here.out.remark(
                f"stopped watching; job {names} {goes} on: `lab status {first}` shows it, `lab cancel {first}` ends it"
            )
            if here.out.people:
                raise typer.Exit(Exit.INTERRUPTED) from None
            raise
        finally:
            show.close()


@dataclass(frozen=True)
class EndedReport(Report):
    """How the jobs that were waited for ended, and what those that failed said last."""

    jobs: Sequence[Job]
    last_words: dict[int, list[str]]

    schema = "lab.ended/1"

    def json(self) -> dict[str, Any]:
        jobs = [{**look.job_json(look.Shown(j)), "log_tail": self.last_words.get(j.id, [])} for j in self.jobs]
        return {"jobs": jobs, "succeeded": all(j.state is JobState.SUCCEEDED for j in self.jobs)}

    def text(self, page: Page) -> Iterable[str]:
        failed = [j for j in self.jobs if j.state is not JobState.SUCCEEDED]
        shown = self.jobs if len(self.jobs) <= 10 else failed[:10]
        for job in shown:
            taken = human.span(look.run_time(job, time.time()))
            said = look.note(look.Shown(job))
            yield "  ".join(
                p for p in (str(job.id), shorten(look.label(job), 60, page), page.state(job.state), taken, said) if p
            )
            words = self.last_words.get(job.id, [])
            if words:
                yield page.paint(f"    the last lines of `lab logs {job.id}`:", "dim")
                yield from (f"    {page.paint('|', 'dim')} {line}" for line in words)
        if len(self.jobs) > len(shown):
            yield f"{len(self.jobs) - len(failed)} of {len(self.jobs)} jobs succeeded"


def report(here: Session, jobs: Sequence[Job]) -> EndedReport:
    words = {}
    for job in [j for j in jobs if j.state is JobState.FAILED and j.attempts][:3]:
        words[job.id] = tail(here.home.run_dir(job.id, job.attempts).log, _LOG_LINES)
    return EndedReport(jobs, words)


def _follow(here: Session, journal: Journal, ids: tuple[int, ...], update: Any) -> list[Job]:
    version, next_live = -1, 0.0
    jobs: list[Job] = []
    live: Live = {}
    watch = _ControllerWatch(here)
    while True:
        changed = journal.data_version()
        if changed != version:
            version = changed
            jobs = _in_order(journal, ids)
        now = time.monotonic()
        if now >= next_live:
            next_live = now + _LIVE_S
            live = _live(here, jobs)
            watch.look(now)
        update(jobs, live)
        if all(j.state.terminal for j in jobs):
            return jobs
        time.sleep(_POLL_S)


def _in_order(journal: Journal, ids: tuple[int, ...]) -> list[Job]:
    found = {j.id: j for j in query.jobs(journal.conn, ids=ids)}
    return [found[i] for i in ids]


def _live(here: Session, jobs: Sequence[Job]) -> Live:
    return read_attempts(here.home) if any(j.state is JobState.RUNNING for j in jobs) else {}


class _ControllerWatch:
    """Says once when nobody is there to start the jobs (the guardian needs a moment, so not at once)."""

    def __init__(self, here: Session) -> None:
        self._here = here
        self._missing_since: float | None = None
        self._said = False

    def look(self, now: float) -> None:
        from lanes.start import controller_alive

        if self._said or controller_alive(self._here.home):
            self._missing_since = None
            return
        self._missing_since = self._missing_since if self._missing_since is not None else now
        if now - self._missing_since > _CONTROLLER_S:
            log = self._here.home.controller_log
            self._here.out.remark(
                f"the controller does not run, so nothing starts: `lab up` starts it ({log} says why it ended)"
            )
            self._said = True
