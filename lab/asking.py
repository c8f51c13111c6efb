"""Requests about jobs: cancel, hold, release. The command writes a row; the controller does it."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from core.journal import Event
from core.journal.query import Job
from core.states import EventKind, JobState
from lab.output import Page, Report
from lab.output import job as look
from lab.selection import Selection
from lab.session import Session

Verdict = Callable[[Job], str]


@dataclass(frozen=True)
class Answer:
    """What a request means for one job. `why_not` is empty where it was recorded."""

    job: Job
    why_not: str


@dataclass(frozen=True)
class AskedReport(Report):
    """What was asked of which jobs."""

    verb: str
    answers: Sequence[Answer]
    controller: bool

    schema = "lab.asked/1"

    def json(self) -> dict[str, Any]:
        jobs = [
            {"id": a.job.id, "state": str(a.job.state), "asked": not a.why_not, "why_not": a.why_not or None}
            for a in self.answers
        ]
        return {"asked": self.verb, "jobs": jobs, "controller": "running" if self.controller else "not running"}

    def text(self, page: Page) -> Iterable[str]:
        for a in self.answers:
            said = a.why_not or f"{self.verb} asked (was {a.job.state}{f' on {a.job.lane}' if a.job.lane else ''})"
            yield f"{a.job.id}  {look.label(a.job)}  {page.paint(said, 'dim') if a.why_not else said}"
        if not self.controller and any(not a.why_not for a in self.answers):
            yield page.paint(
                "Recorded. The controller is not running: it will be done once `lab up` has started it.", "warn"
            )

    def brief(self) -> Iterable[str]:
        return [str(a.job.id) for a in self.answers if not a.why_not]


def ask(
    here: Session,
    kind: EventKind,
    verb: str,
    words: Sequence[str] | None,
    tag: str | None,
    *,
    why_not: Verdict,
    states: tuple[JobState, ...],
) -> None:
    """Record `kind` for each chosen job that `why_not` does not object to, in one transaction, and say so."""
    from lanes.start import controller_alive, wake

    wanted = Selection.of(words, tag)
    with here.asking() as journal, journal.transaction() as tx:
        answers = [Answer(job, why_not(job)) for job in wanted.jobs(tx.conn, states=states)]
        if wanted.loose:
            answers = [a for a in answers if not a.why_not] or answers
        tx.extend(Event(kind, job=a.job.id, data={"by": _user()}) for a in answers if not a.why_not)
    wake(here.home)
    here.out.show(AskedReport(verb, answers, controller_alive(here.home)))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
