"""Watching a lane's climb: rungs appear as they are climbed, then the verdict. For `lab lane probe` and `admit`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import typer

from core.errors import Exit
from core.home import Home
from core.journal import Journal, query
from core.journal.query import RungRow
from core.rungs import step_title, title
from core.states import JobState, Rung
from lab import laneask
from lab.laneask import Answer
from lab.output import Page, Report, human
from lab.output.ladder import compared_lines, in_order, rung_json, rung_lines
from lab.output.table import fold
from lab.session import Session


@dataclass(frozen=True)
class ClimbReport(Report):
    """How far a lane has climbed.

    Attributes:
        answer: None: nobody waited for it.
        live: the rungs were shown as they were climbed.
        next: what a person would do now; again: the command that climbs once more, when something is mended.
    """

    lane: str
    rungs: Sequence[RungRow]
    answer: Answer | None
    jobs: Mapping[str, int] = field(default_factory=dict)
    live: bool = False
    next: str = ""
    again: str = ""

    schema = "lab.climb/1"

    def json(self) -> dict[str, Any]:
        a = self.answer
        return {
            "lane": self.lane,
            "ok": a.ok if a is not None else None,
            "message": a.message if a is not None else "",
            "hint": a.hint if a is not None else "",
            "roles": dict(a.data.get("roles") or {}) if a is not None else {},
            "rungs": [rung_json(r) for r in in_order(self.rungs)],
            "jobs": dict(self.jobs),
            "machine": dict(a.data.get("machine") or {}) if a is not None else {},
        }

    def text(self, page: Page) -> Iterable[str]:
        if not self.live:
            for row in in_order(self.rungs):
                yield from rung_lines(page, row)
        compared = [c for r in self.rungs for c in (r.data.get("evidence") or {}).get("compared") or ()]
        if compared:
            yield ""
            yield from compared_lines(page, compared, indent=2)
            yield ""
        if self.answer is None:
            yield f"{self.lane} climbs: `lab lanes -v` shows how far it is"
            if self.jobs:
                jobs = ", ".join(f"{step_title(step)} {i}" for step, i in self.jobs.items())
                yield page.paint(f"jobs: {jobs}", "dim")
            return
        mark = page.mark("ok" if self.answer.ok else "fail")
        said = self._in_short(self.answer)
        first, *rest = fold(human.clean(said or self.answer.message), (page.width or 10_000) - 2, page, 8)
        yield f"{mark} {first}"
        yield from ("  " + line for line in rest)
        if self.answer.hint and not self.answer.ok and not said:
            yield from (
                "  " + page.paint(x, "dim") for x in fold(self.answer.hint, (page.width or 10_000) - 2, page, 6)
            )
        elif self.next and page.tty:
            yield page.paint(f"next: {self.next}", "dim")

    def _in_short(self, answer: Answer) -> str:
        """The end of a climb that failed: which rung, and what next. The rung's own line has said why, and the remedy.

        Empty where no rung says it.
        """
        bad = [r for r in in_order(self.rungs) if not r.ok]
        if answer.ok or not bad:
            return ""
        roles = answer.data.get("roles") or {}
        good, not_for = ([role for role, told in roles.items() if told["ok"] is ok] for ok in (True, False))
        verdict = f"{self.lane} cannot be admitted"
        if roles:
            gets = f"is admitted for {', '.join(good)}, and not" if good else "is not admitted"
            verdict = f"{self.lane} {gets} for {', '.join(not_for)}"
        names = ", ".join(title(r.rung, r.role) for r in bad)
        then = f"`lab lane trust {self.lane}`" if bad[0].rung == Rung.TRUSTED else "mend that"
        return f"{verdict}: {names} did not hold. {then[0].upper()}{then[1:]}, then `{self.again}`"

    def brief(self) -> Iterable[str]:
        if self.answer is None:
            return [str(i) for i in self.jobs.values()]
        roles = self.answer.data.get("roles") or {}
        return [role for role, told in roles.items() if told["ok"]] or ([self.lane] if self.answer.ok else [])


class Shown:
    """Shows rungs, and the jobs of the ladder, as they change; on a terminal at once, else only in the report."""

    def __init__(self, here: Session, jobs: Mapping[str, int] | None = None) -> None:
        self.rows: dict[tuple[str, str], RungRow] = {}
        self.live = here.out.people and sys.stderr.isatty()
        self._here = here
        self._jobs = dict(jobs or {})
        self._states: dict[int, JobState] = {}
        self._page = Page.of(sys.stderr)
        self._told: dict[tuple[str, str], str] = {}
        self._begun = False

    def begin(self, lane: str) -> None:
        """Said once, for the first rung may take a while."""
        if self.live and not self._begun:
            self._here.out.remark(self._page.paint(f"looking at {lane}; Ctrl-C stops watching only", "dim"))
        self._begun = True

    def watch(self, jobs: Mapping[str, int]) -> None:
        self._jobs = dict(jobs)

    def rung(self, row: RungRow) -> None:
        self.rows[row.rung, row.role] = row
        # The rungs of the probe are climbed once more by the admission: said again only if they differ.
        said = f"{row.ok} {row.data.get('message')}"
        if self.live and self._told.get((row.rung, row.role)) != said:
            self._told[row.rung, row.role] = said
            for line in rung_lines(self._page, row):
                self._here.out.remark(line)

    def look(self, journal: Journal) -> None:
        if not self.live or not self._jobs:
            return
        steps = {i: step for step, i in self._jobs.items()}
        for job in query.jobs(journal.conn, ids=tuple(steps)):
            if job.state is JobState.RUNNING and self._states.get(job.id) is not job.state:
                self._here.out.remark(self._page.paint(f"  {step_title(steps[job.id])}: job {job.id} runs", "dim"))
            self._states[job.id] = job.state

    def alone(self) -> None:
        log = self._here.home.controller_log
        self._here.out.remark(f"no controller runs, so nobody answers: `lab up` starts it ({log} says why it ended)")


def watch(here: Session, lane: str, seq: int, shown: Shown, *, timeout_s: float | None = None) -> Answer:
    """Wait for the answer and show the climb. Ctrl-C stops watching only."""
    try:
        shown.begin(lane)
        return laneask.wait(here.home, seq, progress=shown, timeout_s=timeout_s)
    except KeyboardInterrupt:
        here.out.remark(f"stopped watching; the climb goes on: `lab lanes -v` shows how far {lane} is")
        if here.out.people:
            raise typer.Exit(Exit.INTERRUPTED) from None
        raise


def rungs_of(home: Home, lane: str) -> list[RungRow]:
    if not home.journal.exists():
        return []
    with Journal.open(home) as journal:
        return query.rungs(journal.conn, lane)
