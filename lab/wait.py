"""Waiting for jobs: the journal says when something changed, so looking often costs nothing."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from core.errors import Exit, LabError
from core.journal import Journal, query
from core.journal.query import Job
from core.live import read_attempts
from core.states import JobState
from lab.folded import Folded, fold
from lab.logs import log_tail
from lab.output import Page, Report, human
from lab.output import job as look
from lab.output import sweep as sweeps
from lab.output.progress import MANY, Live, follower
from lab.output.table import shorten
from lab.session import Session

_POLL_S = 0.05  # one PRAGMA, no table is read
_LIVE_S = 0.25
_COUNT_S = 0.1
_FAILURES = 5
_CONTROLLER_S = 5.0
_WAITED_S = 2.0  # a job that waits longer is told about
_REASONS = 3  # jobs whose reasons are told
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
    """How the jobs that were waited for ended, and what those that failed said last.

    Attributes:
        folded: how the cells of the sweeps among them ended.
        failures: the first cells of each that failed.
    """

    jobs: Sequence[Job]
    last_words: dict[int, list[str]]
    folded: Mapping[int, Folded]
    failures: Mapping[int, Sequence[Job]]

    schema = "lab.ended/1"

    def json(self) -> dict[str, Any]:
        jobs = [
            {
                **look.job_json(look.Shown(j, folded=self.folded.get(j.id))),
                "log_tail": self.last_words.get(j.id, []),
                **({"failures": [sweeps.failure_json(c) for c in self.failures[j.id]]} if j.is_sweep else {}),
            }
            for j in self.jobs
        ]
        return {"jobs": jobs, "succeeded": all(j.state is JobState.SUCCEEDED for j in self.jobs)}

    def text(self, page: Page) -> Iterable[str]:
        failed = [j for j in self.jobs if j.state is not JobState.SUCCEEDED]
        shown = self.jobs if len(self.jobs) <= 10 else failed[:10]
        for job in shown:
            taken = human.span(look.run_time(job, time.time()))
            said = look.note(look.Shown(job, folded=self.folded.get(job.id)), first=False)
            yield "  ".join(
                p for p in (str(job.id), shorten(look.label(job), 60, page), page.state(job.state), taken, said) if p
            )
            for cell in self.failures.get(job.id, ()):
                yield f"    {page.mark('failed')} {shorten(sweeps.failure(cell), (page.width or 120) - 6, page)}"
                yield from self._words(page, cell)
            if job.is_sweep and job.state is not JobState.SUCCEEDED and self.failures.get(job.id):
                yield page.paint(
                    f"    next: lab status {job.id} --cells --state failed, lab rerun {job.id} --failed", "dim"
                )
            yield from self._words(page, job)
        if len(self.jobs) > len(shown):
            yield f"{len(self.jobs) - len(failed)} of {len(self.jobs)} jobs succeeded"

    def _words(self, page: Page, job: Job) -> Iterable[str]:
        words = self.last_words.get(job.id, [])
        if words:
            yield page.paint(f"    the last lines of `lab logs {job.id}`:", "dim")
            yield from (f"    {page.paint('|', 'dim')} {line}" for line in words)


def report(here: Session, jobs: Sequence[Job]) -> EndedReport:
    """What is said at the end: of a sweep its counts and the first failures, of a few failed jobs their last lines."""
    folded: dict[int, Folded] = {}
    failures: dict[int, Sequence[Job]] = {}
    words = {}
    with here.reading() as journal:
        conn = journal.conn
        for job in jobs:
            if job.is_sweep:
                folded[job.id] = fold(conn, job)
                failures[job.id] = query.cells(conn, job.id, states=(JobState.FAILED,), limit=_FAILURES)
        first = [cells[0] for cells in failures.values() if cells]
        for job in [*(j for j in jobs if j.state is JobState.FAILED and j.attempts), *first][:3]:
            words[job.id] = log_tail(here.home, conn, job, _LOG_LINES)
    return EndedReport(jobs, words, folded, failures)


def _follow(here: Session, journal: Journal, ids: tuple[int, ...], update: Any) -> list[Job]:
    version, next_live = -1, 0.0
    jobs: list[Job] = []
    live: Live = {}
    folded: dict[int, Folded] = {}
    watch, errors, reasons = _ControllerWatch(here), _FirstErrors(here), _Reasons(here)
    while True:
        changed = journal.data_version()
        if changed != version:
            version = changed
            jobs = _in_order(journal, ids)
            # Counting the cells of a large sweep costs milliseconds, and it changes hundreds of times a second.
            next_live = min(next_live, time.monotonic() + _COUNT_S) if folded else 0.0
        now = time.monotonic()
        ended = all(j.state.terminal for j in jobs)
        if now >= next_live or ended:
            next_live = now + _LIVE_S
            live = _live(here, jobs)
            folded = {j.id: fold(journal.conn, j) for j in jobs if j.is_sweep}
            errors.look(folded)
            watch.look(now)
            reasons.look(journal, jobs, now)
        update(jobs, live, folded)
        if ended:
            return jobs
        time.sleep(_POLL_S)


def _in_order(journal: Journal, ids: tuple[int, ...]) -> list[Job]:
    found = {j.id: j for j in query.with_attempts(journal.conn, query.jobs(journal.conn, ids=ids))}
    return [found[i] for i in ids]


def _live(here: Session, jobs: Sequence[Job]) -> Live:
    return read_attempts(here.home) if any(j.state is JobState.RUNNING for j in jobs) else {}


class _FirstErrors:
    """Says the first failure of each sweep as soon as it is there: a night is too long to wait for it."""

    def __init__(self, here: Session) -> None:
        self._here = here
        self._said: set[int] = set()

    def look(self, folded: Mapping[int, Folded]) -> None:
        for sweep_id, f in folded.items():
            if f.first is not None and sweep_id not in self._said:
                self._said.add(sweep_id)
                self._here.out.remark(
                    f"first failure of sweep {sweep_id}: {sweeps.failure(f.first)} (`lab logs {f.first.id}`)"
                )


class _Reasons:
    """Says why a job waits once it has for a while, and again when the reason is another.

    A reason of which only numbers differ (how many are before it) is the same.
    """

    def __init__(self, here: Session) -> None:
        self._here = here
        self._since: dict[int, float] = {}
        self._said: dict[int, str] = {}
        self._of_many: set[str] = set()
        self._next = 0.0

    def look(self, journal: Journal, jobs: Sequence[Job], now: float) -> None:
        from lanes.start import controller_alive

        waits = [j for j in jobs if j.state is JobState.QUEUED or (j.is_sweep and not j.state.terminal)][:_REASONS]
        self._since = {j.id: self._since.get(j.id, now) for j in waits}
        if now < self._next or not any(now - at >= _WAITED_S for at in self._since.values()):
            return
        self._next = now + _WAITED_S
        if not controller_alive(self._here.home):
            return  # that is said elsewhere
        from lab.explain import why_waits

        for job in waits:
            if now - self._since[job.id] < _WAITED_S:
                continue
            why = ""
            with contextlib.suppress(LabError):  # a cluster.yaml that somebody is editing: no reason to stop waiting
                why = why_waits(self._here.home, journal.conn, job)
            if why and "is about to start" not in why and self._is_new(why, job.id, many=len(jobs) > MANY):
                self._here.out.remark(human.clean(why))

    def _is_new(self, why: str, job: int, *, many: bool) -> bool:
        same = re.sub(r"[\d.,]+", "", why)
        if not many:
            before, self._said[job] = self._said.get(job), same
            return same != before
        # Most wait for each other, and the rest say the same: what keeps them, once, and not how many are first.
        same = same.partition(";")[0]
        if " waits for job " in why or same in self._of_many:
            return False
        self._of_many.add(same)
        return True


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
