"""What `lab submit` and `lab rerun` say and do once the journal has the jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from core.errors import Exit
from core.journal import query
from core.states import JobState
from lab import wait
from lab.output import Page, Report, human
from lab.output.page import cells
from lab.output.table import shorten
from lab.session import Session
from lab.submission import Submitted


@dataclass(frozen=True)
class SubmitReport(Report):
    """What became of each request.

    Attributes:
        tables: those jobs that have result tables already.
        last: nothing follows this answer, so say what to do next.
    """

    answers: Sequence[Submitted]
    kinds: Sequence[str]
    tables: frozenset[int] = frozenset()
    last: bool = True

    schema = "lab.submit/1"

    def json(self) -> dict[str, Any]:
        return {"jobs": [_json(a, kind) for a, kind in zip(self.answers, self.kinds, strict=True)]}

    def text(self, page: Page) -> Iterable[str]:
        for a, kind in zip(self.answers, self.kinds, strict=True):
            became = self._became(page, a)
            room = max(16, (page.width or 120) - len(str(a.id)) - cells(became) - 4)
            label = shorten(human.clean(f"{kind} {a.name if a.name != kind else ''}").strip(), room, page)
            yield f"{a.id}  {label}  {became}"
            if a.message:
                yield page.paint(f"    {human.clean(a.message)}", "warn")
        if page.tty and self.last:
            yield page.paint("next: " + self._next(), "dim")

    def brief(self) -> Iterable[str]:
        return [str(a.id) for a in self.answers]

    def _became(self, page: Page, a: Submitted) -> str:
        if a.answer == "cached":
            return f"{page.mark('ok')} already done (same key): nothing runs; see `lab {self._shows(a.id)} {a.id}`"
        if a.answer == "queued-already":
            return f"{page.state(a.state)}, the same job is under way: nothing new was submitted"
        if a.answer == "same-key":
            return f"{page.state(a.state)}, submitted before with this --key: nothing new"
        return f"{page.state(a.state)}  {page.paint('key ' + a.key[:10], 'dim')}"

    def _shows(self, job_id: int) -> str:
        return "results" if job_id in self.tables else "fetch"

    def _next(self) -> str:
        first = self.answers[0]
        if all(a.cached for a in self.answers):
            return f"lab {self._shows(first.id)} {first.id}"
        if all(a.state == "held" for a in self.answers):
            return f"lab release {first.id}"
        return f"lab status {first.id}, lab logs {first.id} -f" if len(self.answers) == 1 else "lab status"


def carry_on(
    here: Session, answers: Sequence[Submitted], kinds: Sequence[str], *, wait_for: bool, results: bool
) -> None:
    """After the commit: see that a controller runs, say what became of the jobs, wait for them if asked.

    Raises:
        typer.Exit: a job that was waited for did not succeed.
    """
    from lanes.start import ensure_controller, wake

    if any(not a.state.terminal for a in answers):
        ensure_controller(here.home)
        wake(here.home)
    here.out.show(SubmitReport(answers, kinds, _with_tables(here, answers), last=not wait_for))
    if not wait_for:
        return
    jobs = wait.until_ended(here, list(dict.fromkeys(a.id for a in answers)))
    if any(not a.cached for a in answers) or not here.out.people:
        here.out.show(wait.report(here, jobs))
    done = [j.id for j in jobs if j.state is JobState.SUCCEEDED]
    if results and done:
        from lab.commands.results import show_tables

        show_tables(here, done)
    if len(done) < len(jobs):
        raise typer.Exit(Exit.JOB_FAILED)


def _json(a: Submitted, kind: str) -> dict[str, Any]:
    return {
        "id": a.id,
        "kind": kind,
        "name": a.name,
        "state": str(a.state),
        "key": a.key,
        "cached": a.cached,
        "answer": a.answer,
        "message": a.message,
    }


def _with_tables(here: Session, answers: Sequence[Submitted]) -> frozenset[int]:
    cached = [a.id for a in answers if a.cached]
    if not cached:
        return frozenset()
    with here.reading() as journal:
        return frozenset(i for i in cached if query.parts(journal.conn, job_id=i))
