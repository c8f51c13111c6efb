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

_ROWS = 10  # jobs of one study that are named one by one
_MESSAGES = 5


@dataclass(frozen=True)
class SubmitReport(Report):
    """What became of each request.

    Attributes:
        tables: those jobs that have result tables already.
        last: nothing follows this answer, so say what to do next.
    """

    answers: Sequence[Submitted]
    tables: frozenset[int] = frozenset()
    last: bool = True

    schema = "lab.submit/1"

    def json(self) -> dict[str, Any]:
        return {"jobs": [_json(a) for a in self.answers], "notes": self._notes()}

    def text(self, page: Page) -> Iterable[str]:
        folded = self._folded()
        for study, answers in folded.items():
            yield from self._of_study(page, study, answers)
        for a in self.answers:
            if a.study in folded:
                continue
            became = self._became_sweep(page, a) if a.is_sweep else self._became(page, a)
            room = max(16, (page.width or 120) - len(str(a.id)) - cells(became) - 4)
            label = shorten(human.clean(f"{a.kind} {a.name if a.name != a.kind else ''}").strip(), room, page)
            yield f"{a.id}  {label}  {became}"
            if a.message:
                yield page.paint(f"    {human.clean(a.message)}", "warn")
        for note in self._notes():
            yield page.paint(f"note: {human.clean(note)}", "warn")
        if page.tty and self.last:
            yield page.paint("next: " + self._next(), "dim")

    def _notes(self) -> list[str]:
        return [note for a in self.answers for note in a.notes]

    def _folded(self) -> dict[str, list[Submitted]]:
        """Studies of so many jobs that a line for each would say less than one for all."""
        found: dict[str, list[Submitted]] = {}
        for a in self.answers:
            if a.study:
                found.setdefault(a.study, []).append(a)
        return {study: answers for study, answers in found.items() if len(answers) > _ROWS}

    def _of_study(self, page: Page, study: str, answers: Sequence[Submitted]) -> Iterable[str]:
        new = [a.id for a in answers if a.answer == "new"]
        done = sum(a.cached for a in answers)
        live = len(answers) - len(new) - done
        told = [human.count(len(answers), "job")]
        told += [f"{n:,} {word}" for n, word in ((done, "there already"), (live, "under way")) if n]
        told.append(f"{len(new):,} to run (jobs {new[0]} to {new[-1]})" if new else "nothing new runs")
        yield f"{study}  {', '.join(told)}"
        again = [a for a in answers if a.message]
        for a in again[:_MESSAGES]:
            yield page.paint(f"    {a.id}  {human.clean(a.name)}: {human.clean(a.message)}", "warn")
        if len(again) > _MESSAGES:
            yield page.paint(f"    and {len(again) - _MESSAGES:,} more like this: --json names them", "warn")

    def brief(self) -> Iterable[str]:
        return [str(a.id) for a in self.answers]

    def _became(self, page: Page, a: Submitted) -> str:
        if a.answer == "cached":
            where = f" on {a.lane}" if a.lane else ""
            done = f"already done by job {a.id}{where} (same inputs, code and parameters)"
            return f"{page.mark('ok')} {done}: nothing runs; see `lab {self._shows(a.id)} {a.id}`"
        if a.answer == "queued-already":
            return f"{page.state(a.state)}, the same job is under way: nothing new was submitted"
        if a.answer == "same-key":
            return f"{page.state(a.state)}, submitted before with this --key: nothing new"
        return f"{page.state(a.state)}  {page.paint('key ' + a.key[:10], 'dim')}"

    def _became_sweep(self, page: Page, a: Submitted) -> str:
        every = f"all {a.total:,} cells" if a.total > 1 else "its cell"
        if a.answer == "cached":
            verb = "are" if a.total > 1 else "is"
            see = f"see `lab {self._shows(a.id)} {a.id}`"
            return f"{page.mark('ok')} {every} {verb} there already: nothing runs; {see}"
        if a.answer == "queued-already":
            return f"{page.state(a.state)}, the same sweep is under way: nothing new was submitted"
        if a.answer == "same-key":
            return f"{page.state(a.state)}, submitted before with this --key: nothing new"
        told = [human.count(a.total, "cell")]
        told += [f"{n:,} {word}" for n, word in ((a.done, "there already"), (a.live, "under way")) if n]
        if not a.cells:
            told.append("nothing new runs")
        elif a.cells < a.total:
            told.append(f"{a.cells:,} to run")
        return f"{page.state(a.state)}  {', '.join(told)}  {page.paint('key ' + a.key[:10], 'dim')}"

    def _shows(self, job_id: int) -> str:
        return "results" if job_id in self.tables else "fetch" if not self._is_sweep(job_id) else "status"

    def _is_sweep(self, job_id: int) -> bool:
        return any(a.id == job_id and a.is_sweep for a in self.answers)

    def _next(self) -> str:
        first = self.answers[0]
        if all(a.cached for a in self.answers):
            return f"lab {self._shows(first.id)} {first.id}"
        if all(a.state == "held" for a in self.answers):
            return f"lab release {first.id}"
        if len(self.answers) > 1:
            return f"lab status {first.study}" if first.study else "lab status"
        return f"lab status {first.id}" + ("" if first.is_sweep else f", lab logs {first.id} -f")


def carry_on(here: Session, answers: Sequence[Submitted], *, wait_for: bool, results: bool) -> None:
    """After the commit: see that a controller runs, say what became of the jobs, wait for them if asked.

    Raises:
        typer.Exit: a job that was waited for did not succeed.
    """
    from lanes.start import ensure_controller, wake

    if any(not a.state.terminal for a in answers):
        ensure_controller(here.home)
        wake(here.home)
    here.out.show(SubmitReport(answers, _with_tables(here, answers), last=not wait_for))
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


def _json(a: Submitted) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": a.id,
        "kind": a.kind,
        "name": a.name,
        "state": str(a.state),
        "key": a.key,
        "cached": a.cached,
        "answer": a.answer,
        "message": a.message,
        "lane": a.lane or None,
        "study": a.study or None,
    }
    if a.is_sweep:
        body["cells"] = {"total": a.total, "own": a.cells, "done": a.done, "live": a.live}
    return body


def _with_tables(here: Session, answers: Sequence[Submitted]) -> frozenset[int]:
    """Of finished answers, those whose jobs wrote tables (a look at one cell says it for a sweep)."""
    cached = [a for a in answers if a.cached]
    if not cached:
        return frozenset()
    with here.reading() as journal:
        one = {a.id: query.job_ids(journal.conn, [a.id])[:1] if a.is_sweep else [a.id] for a in cached}
        return frozenset(i for i, ids in one.items() if ids and query.parts(journal.conn, job_id=ids[0]))
