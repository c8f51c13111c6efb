"""`lab status`: jobs as the journal knows them. Never waits for anything, takes no lock, loads nothing heavy."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from core.errors import BadInput
from core.journal import Journal, query
from core.journal.query import Job
from core.states import TERMINAL_JOB_STATES, JobState
from lab import arguments, completion, selection
from lab.beside import Beside
from lab.folded import Folded, cell_counts, cell_name, fold
from lab.named import Whole, wholes
from lab.output import Page, Report, human
from lab.output import job as look
from lab.output import sweep as sweeps
from lab.output.afterwards import next_step
from lab.output.job import Card, Shown
from lab.output.sweep import SweepCard
from lab.session import Session, session

_LIVE = tuple(s for s in JobState if not s.terminal)
_RECENT = 8  # finished jobs shown beside the live ones
_REDRAW_S = 0.5
_OF_A_STUDY = 6  # so many jobs of one study are a line of their own
_FOLDED = (JobState.QUEUED, JobState.HELD, JobState.SUCCEEDED)
_FAILURES = 5  # on the card of a sweep
_CELLS_HINT = "such as `lab status 17 --cells --state failed`"

EPILOG = """
Examples:
  lab status                     what is live, and what ended last
  lab status 17                  everything about job 17
  lab status --state failed      all that failed
  lab status --tag night --watch
  lab status 17 --cells          the cells of sweep 17
  lab status 17 --cells --state failed
  lab status 17.3                the third cell of sweep 17
  lab status dose                the jobs of the study dose, as it was submitted last

A sweep is one row. Its own cells are the jobs after it: 17.3 is job 20.
"""


def status_(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID", help="Jobs, as 17, 17-20, or 17.3; or a study.", autocompletion=completion.jobs_or_studies
        ),
    ] = None,
    cells: Annotated[bool, typer.Option("--cells", help="The cells of this sweep, one by one.")] = False,
    all_jobs: Annotated[bool, typer.Option("--all", "-a", help="All jobs, finished ones too.")] = False,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", metavar="STATE", help="Only in these states.", autocompletion=completion.states),
    ] = None,
    tag: Annotated[
        str | None, typer.Option("--tag", metavar="TAG", help="Only with this tag.", autocompletion=completion.tags)
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Only of this kind.", autocompletion=completion.kinds)
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", metavar="N", help="At most this many.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again when it changes, until Ctrl-C.")] = False,
) -> None:
    """Show jobs and how they are.

    Without an id: what is live, and what ended last. With one id: everything about that job.
    """
    here = session()
    if limit is not None and limit < 1:
        raise BadInput(f"--limit {limit} shows nothing", hint="give a positive number")
    words, states = arguments.ids(ids), arguments.states(state)
    if cells and (not words or tag or kind or all_jobs):
        raise BadInput("--cells needs the sweep, and of other choices takes only --state and --limit", hint=_CELLS_HINT)
    with here.reading() as journal:
        wanted = Wanted(selection.resolve(journal.conn, words), all_jobs, states, tag, kind, limit or 0, cells)
        if watch:
            _watch(here, journal, wanted)
        else:
            here.out.show(look_up(here, journal, wanted))


@dataclass(frozen=True)
class Wanted:
    """Which jobs to show."""

    ids: tuple[int, ...] = ()
    all_jobs: bool = False
    states: tuple[JobState, ...] = ()
    tag: str | None = None
    kind: str | None = None
    limit: int = 0
    cells: bool = False

    @property
    def filtered(self) -> bool:
        return bool(self.states or self.tag or self.kind or self.all_jobs)


@dataclass(frozen=True)
class StatusReport(Report):
    """Some jobs, and how many there are of each state: a sweep counts as one, its cells by themselves."""

    jobs: Sequence[Shown]
    counts: Mapping[JobState, int]
    cells: Mapping[JobState, int]
    omitted: int
    controller: bool
    filtered: bool
    studies: Sequence[Whole] = ()
    folds: bool = False  # a study is a line, and of its jobs only those that run or failed are rows

    schema = "lab.status/1"

    def json(self) -> dict[str, Any]:
        return {
            "jobs": [look.job_json(s) for s in self.jobs],
            "omitted": self.omitted,
            "counts": {str(s): n for s, n in self.counts.items()},
            "cells": {str(s): n for s, n in self.cells.items()},
            "studies": [{"study": w.study, "counts": {str(s): n for s, n in w.counts.items()}} for w in self.studies],
            "controller": "running" if self.controller else "not running",
        }

    def text(self, page: Page) -> Iterable[str]:
        if not sum(self.counts.values()):
            return ["There are no jobs yet: `lab submit parity` puts one into the queue."]
        rows = [s for s in self.jobs if not self._folded(s.job)]
        lines = look.table(page, rows, time.time()) if rows or not self.studies else []
        for whole in self.studies:
            see = page.paint(f"  (`lab status {whole.study}` lists them)", "dim") if self.folds else ""
            lines += [*([""] if lines else []), human.clean(whole.said()) + see]
        if not self.jobs:
            lines.append("No job is like that." if self.filtered else "Nothing is queued or running.")
        if self.omitted:
            lines.append(
                page.paint(f"{self.omitted:,} more: `lab status --all`, or choose with --state, --tag, --limit", "dim")
            )
        lines += ["", look.totals(page, self.counts, self.cells)]
        waiting = sum(self.counts.get(s, 0) for s in _LIVE if s is not JobState.HELD)
        if waiting and not self.controller:
            lines.append(page.paint("The controller is not running, so nothing starts: `lab up` starts it.", "warn"))
        return lines

    def brief(self) -> Iterable[str]:
        return [str(s.job.id) for s in self.jobs]

    def _folded(self, job: Job) -> bool:
        study = job.name.partition("/")[0]
        return self.folds and job.state in _FOLDED and any(study == w.study for w in self.studies)


@dataclass(frozen=True)
class CardReport(Report):
    """Everything about one job."""

    card: Card
    controller: bool

    schema = "lab.job/1"

    def json(self) -> dict[str, Any]:
        return {"job": look.card_json(self.card), "controller": "running" if self.controller else "not running"}

    def text(self, page: Page) -> Iterable[str]:
        lines = look.card(page, self.card)
        job = self.card.shown.job
        if not job.state.terminal and job.state is not JobState.HELD and not self.controller:
            lines += ["", page.paint("The controller is not running: `lab up` starts it.", "warn")]
        return [*lines, "", page.paint("next: " + next_step(job, tables=bool(self.card.parts)), "dim")]

    def brief(self) -> Iterable[str]:
        return [str(self.card.shown.job.state)]


@dataclass(frozen=True)
class SweepReport(Report):
    """Everything about one sweep, but for its cells one by one."""

    card: SweepCard
    controller: bool

    schema = "lab.sweep/1"

    def json(self) -> dict[str, Any]:
        return {"sweep": sweeps.card_json(self.card), "controller": "running" if self.controller else "not running"}

    def text(self, page: Page) -> Iterable[str]:
        lines = sweeps.card(page, self.card)
        job = self.card.shown.job
        if not job.state.terminal and job.state is not JobState.HELD and not self.controller:
            lines += ["", page.paint("The controller is not running: `lab up` starts it.", "warn")]
        return [*lines, "", page.paint("next: " + self._next(job), "dim")]

    def brief(self) -> Iterable[str]:
        return [str(self.card.shown.job.state)]

    def _next(self, job: Job) -> str:
        if self.card.failures:
            first = f"lab logs {self.card.failures[0].id}, lab status {job.id} --cells --state failed"
            return f"{first}, lab rerun {job.id} --failed" if job.state.terminal else first
        if job.state is JobState.SUCCEEDED:
            return f"lab results {job.id}" if self.card.tables else f"lab status {job.id} --cells"
        if job.state is JobState.HELD:
            return f"lab release {job.id}"
        return f"lab status {job.id} --cells" if job.state is JobState.RUNNING else f"lab explain {job.id}"


@dataclass(frozen=True)
class CellsReport(Report):
    """Cells of a sweep, one by one."""

    sweep: Job
    cells: Sequence[Shown]
    omitted: int
    folded: Folded

    schema = "lab.cells/1"

    def json(self) -> dict[str, Any]:
        return {
            "sweep": self.sweep.id,
            "cells": [{**look.job_json(s), "cell": cell_name(s.job)} for s in self.cells],
            "omitted": self.omitted,
            "counts": {str(s): n for s, n in self.folded.counts.items() if n},
        }

    def text(self, page: Page) -> Iterable[str]:
        lines = sweeps.cells_table(page, self.cells, self.sweep.id, time.time())
        if not self.cells:
            lines.append("No cell is like that.")
        if self.omitted:
            lines.append(page.paint(f"{self.omitted:,} more: choose with --state, or see more with --limit", "dim"))
        head = f"{self.sweep.id}  {look.label(self.sweep)}: {sweeps.brief(self.folded)}"
        return [*lines, "", page.paint(head, "dim")]

    def brief(self) -> Iterable[str]:
        return [str(s.job.id) for s in self.cells]


def look_up(here: Session, journal: Journal, wanted: Wanted) -> Report:
    """The report for `wanted`, read in one consistent snapshot."""
    from lanes.start import controller_alive

    conn = journal.conn
    conn.execute("BEGIN")
    try:
        if wanted.cells:
            return _cells(here, conn, wanted)
        if len(wanted.ids) == 1 and not wanted.filtered:
            job = query.job(conn, wanted.ids[0])
            if job.is_sweep:
                return SweepReport(_sweep_card(conn, job), controller_alive(here.home))
            return CardReport(_card(here, conn, query.with_attempts(conn, [job])[0]), controller_alive(here.home))
        counts, cells = query.counts(conn, top=True), cell_counts(conn)
        jobs, omitted = _choose(conn, wanted, counts, here.out.page.tty)
        jobs = query.with_attempts(conn, jobs)
        news = Beside.read(here.home, conn, jobs)
        shown = [_shown(conn, j, news) for j in jobs]
        studies = wholes(conn, jobs, _OF_A_STUDY)
    finally:
        conn.execute("ROLLBACK")
    folds = not (wanted.filtered or wanted.ids)
    return StatusReport(shown, counts, cells, omitted, controller_alive(here.home), wanted.filtered, studies, folds)


def _choose(
    conn: sqlite3.Connection, wanted: Wanted, counts: Mapping[JobState, int], tty: bool
) -> tuple[list[Job], int]:
    """The jobs to show, oldest first, and how many more there would be."""
    if wanted.ids:
        for i in wanted.ids:
            query.job(conn, i)  # an id that does not exist is an error, not an empty list
        found = query.jobs(
            conn, ids=wanted.ids, states=wanted.states, tag=wanted.tag, kind=wanted.kind, newest_first=False
        )
        return found, 0
    limit = wanted.limit or (0 if wanted.filtered else _screen(tty))
    if wanted.filtered:
        found = query.jobs(
            conn, states=wanted.states, tag=wanted.tag, kind=wanted.kind, limit=limit + 1 if limit else None, top=True
        )
        omitted = len(found) - limit if limit else 0
        return list(reversed(found[:limit] if limit else found)), max(0, omitted)
    return _live_and_recent(conn, counts, limit)


def _live_and_recent(conn: sqlite3.Connection, counts: Mapping[JobState, int], limit: int) -> tuple[list[Job], int]:
    live_count = sum(counts.get(s, 0) for s in _LIVE)
    found: dict[int, Job] = {}
    # What runs first, then what is next in the queue, then what is held.
    for states in ((JobState.RUNNING, JobState.CANCELLING), (JobState.QUEUED,), (JobState.HELD,)):
        room = limit - len(found)
        if room > 0 and any(counts.get(s) for s in states):
            found |= {j.id: j for j in query.jobs(conn, states=states, limit=room, newest_first=False, top=True)}
    omitted = live_count - len(found)
    recent = min(_RECENT, limit - len(found))
    if recent > 0 and any(counts.get(s) for s in TERMINAL_JOB_STATES):
        found |= {j.id: j for j in query.jobs(conn, states=tuple(TERMINAL_JOB_STATES), limit=recent, top=True)}
    return [found[i] for i in sorted(found)], omitted


def _screen(tty: bool) -> int:
    """How many rows fit on a screen (a pipe gets a page of the same size)."""
    if not tty:
        return 40
    import shutil

    return max(10, shutil.get_terminal_size((80, 24)).lines - 7)


def _shown(conn: sqlite3.Connection, job: Job, news: Beside) -> Shown:
    waits: tuple[int, ...] = ()
    if job.state in (JobState.QUEUED, JobState.HELD):
        waits = tuple(j.id for _cond, j in query.dependencies(conn, job.id) if not j.state.terminal)
    if job.is_sweep:
        return Shown(job, waits=waits, folded=fold(conn, job))
    return Shown(job, news.live_of(job), waits, away=news.away_of(job))


def _cells(here: Session, conn: sqlite3.Connection, wanted: Wanted) -> CellsReport:
    """Those of one sweep. Raises BadInput for several, NotFound for what is none."""
    if len(wanted.ids) != 1:
        raise BadInput(f"--cells shows one sweep, and {len(wanted.ids)} ids were given", hint=_CELLS_HINT)
    job = query.job(conn, wanted.ids[0])
    query.sweep(conn, job.id)
    limit = wanted.limit or (0 if wanted.states else _screen(here.out.page.tty))
    found = query.with_attempts(conn, query.cells(conn, job.id, states=wanted.states, limit=limit or None))
    folded = fold(conn, job)
    total = sum(folded.of(s) for s in wanted.states) if wanted.states else folded.total
    news = Beside.read(here.home, conn, found)
    return CellsReport(job, [_shown(conn, j, news) for j in found], total - len(found), folded)


def _sweep_card(conn: sqlite3.Connection, job: Job) -> SweepCard:
    shown = _shown(conn, job, Beside())
    assert shown.folded is not None
    sweep = shown.folded.sweep
    tables = conn.execute(
        "SELECT DISTINCT tbl FROM part WHERE first <= ? AND last > ? ORDER BY tbl", (sweep.id + sweep.cells, sweep.id)
    )
    return SweepCard(
        shown,
        query.spec_of(conn, job.spec),
        query.cells(conn, job.id, states=(JobState.FAILED,), limit=_FAILURES) if shown.folded.first else [],
        query.members(conn, job.id) if sweep.total > sweep.cells else [],
        [str(r[0]) for r in tables],
        query.dependencies(conn, job.id),
        query.dependents(conn, job.id),
    )


def _card(here: Session, conn: sqlite3.Connection, job: Job) -> Card:
    return Card(
        _shown(conn, job, Beside.read(here.home, conn, [job])),
        query.spec_of(conn, job.spec),
        query.attempts(conn, job.id),
        query.parts(conn, job_id=job.id),
        query.dependencies(conn, job.id),
        query.dependents(conn, job.id),
    )


def _watch(here: Session, journal: Journal, wanted: Wanted) -> None:
    """Show the report again whenever it has changed; ends by itself when every job named has ended."""
    before: list[str] | dict[str, Any] | None = None
    try:
        while True:
            report = look_up(here, journal, wanted)
            page = here.out.page
            now = list(report.text(page)) if here.out.people else report.json()
            if now != before:
                if here.out.people and page.tty:
                    here.out.raw("\x1b[H\x1b[2J")
                here.out.show(report)
                before = now
            if wanted.ids and _all_ended(journal.conn, wanted.ids):
                return
            time.sleep(_REDRAW_S)
    except KeyboardInterrupt:
        sys.stdout.flush()


def _all_ended(conn: sqlite3.Connection, ids: tuple[int, ...]) -> bool:
    return all(query.job(conn, i).state.terminal for i in ids)
