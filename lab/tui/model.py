"""From what was read to what is shown: rows and texts, pure functions of a snapshot and the reader's choices.

A row is compared as a whole: the screen repaints what is not equal to what it painted last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from core.journal.query import Job
from core.live import LiveAttempt
from core.states import JobState, LaneState
from lab.output import human
from lab.output import job as look
from lab.tui import clean
from lab.tui.facts import Snapshot, Want
from lab.tui.filters import ORDERS, Filter, ordered
from lab.tui.reading import CELL_ORDER

PAGE = 100  # cells that one more Enter shows
FRESH_S = 5.0  # a lane not heard of for longer is worth a second look
_LABEL = 200
# In the first line, as far as there is room.
_HEADED = (
    JobState.RUNNING,
    JobState.QUEUED,
    JobState.HELD,
    JobState.FAILED,
    JobState.CANCELLING,
    JobState.SUCCEEDED,
    JobState.CANCELLED,
    JobState.SKIPPED,
)


@dataclass(frozen=True)
class Choices:
    """What the person at the screen chose.

    Attributes:
        unfolded: sweep -> how many of its cells are shown.
    """

    filter: Filter = field(default_factory=Filter)
    order: str = ORDERS[0]
    failed_only: bool = False
    unfolded: Mapping[int, int] = field(default_factory=dict)

    def want(self, selected: int | None, *, whole_log: bool = False) -> Want:
        """What the readers must look for."""
        f = self.filter
        states = (JobState.FAILED,) if self.failed_only else f.states
        return Want(f.text, states, f.kinds, f.tags, tuple(sorted(self.unfolded.items())), states, selected, whole_log)


@dataclass(frozen=True)
class Bar:
    """How far something is: shares of the whole."""

    done: float
    failed: float = 0.0
    running: float = 0.0


@dataclass(frozen=True)
class JobRow:
    """One row: a job, a sweep, a cell of one, or "there are more of them".

    Attributes:
        fold: `+` a sweep that can be unfolded, `-` one that is, `.` a cell of it, `>` more cells, or nothing.
        said: progress in words beside the bar.
        role: of the note.
    """

    key: str
    id: int
    fold: str
    label: str
    state: str
    lane: str = ""
    bar: Bar | None = None
    said: str = ""
    age: str = ""
    time: str = ""
    eta: str = ""
    note: str = ""
    role: str = "text"
    faint: bool = False  # it has ended: there is nothing to watch

    @property
    def percent(self) -> str:
        return _percent(self.bar.done + self.bar.failed) if self.bar is not None else ""


@dataclass(frozen=True)
class Header:
    """The first line."""

    home: str
    controller: str
    controller_role: str
    counts: tuple[tuple[str, int], ...]
    trouble: str
    clock: float


def header(snapshot: Snapshot) -> Header:
    said = snapshot.journal.controller
    if snapshot.controller_alive:
        controller, role = "controller up", "good"
        if said is not None and said[1] is not None:
            controller, role = "controller starting", "warn"
    elif said is None:
        controller, role = "no controller yet", "dim"
    else:
        controller, role = "controller down", "bad"
    counts = tuple((str(s), snapshot.journal.counts[s]) for s in _HEADED if snapshot.journal.counts.get(s))
    return Header(snapshot.home, controller, role, counts, clean.one_line(snapshot.trouble), snapshot.at)


# Jobs.


def job_rows(snapshot: Snapshot, choices: Choices) -> tuple[JobRow, ...]:
    """The rows of the jobs table, top to bottom."""
    facts = snapshot.journal
    chosen = choices.filter
    if choices.failed_only:
        chosen = Filter(chosen.text, (JobState.FAILED,), chosen.kinds, chosen.tags, chosen.lanes, chosen.nothing)
    matching = [j for j in facts.jobs if chosen.matches(j, facts.sweeps.get(j.id))]
    out: list[JobRow] = []
    for job in ordered(matching, choices.order, snapshot.at):
        if job.is_sweep:
            out.append(_sweep_row(snapshot, job, open_=job.id in choices.unfolded))
            if job.id in choices.unfolded:
                out += _cell_rows(snapshot, job, choices.unfolded[job.id], chosen)
        else:
            out.append(_job_row(snapshot, job))
    if facts.unread and chosen.empty:
        out.append(JobRow("unread", 0, "", f"{facts.unread:,} more are queued behind these", "", faint=True))
    return tuple(out)


def _job_row(snapshot: Snapshot, job: Job, *, cell: bool = False) -> JobRow:
    live = look.with_goal(snapshot.live.get((job.id, job.attempts)), job) if job.state is JobState.RUNNING else None
    note, role = _note(snapshot, job, live)
    share = _share(live)
    ended = job.state.terminal
    return JobRow(
        key=str(job.id),
        id=job.id,
        fold="." if cell else "",
        label=clean.one_line(_cell_label(job) if cell else look.label(job))[:_LABEL],
        state=str(job.state),
        lane=clean.one_line(job.lane or ""),
        bar=Bar(share) if share is not None else None,
        said=_percent(share) if share is not None else "",
        age=human.age(job.submitted, snapshot.at),
        time=human.span(look.run_time(job, snapshot.at)),
        eta=_job_eta(snapshot, job, live) if live is not None else "",
        note=note,
        role=role,
        faint=ended and job.state is not JobState.FAILED,
    )


def _cell_label(job: Job) -> str:
    """A cell stands below its sweep: what tells it from the others is enough."""
    return job.name or human.params(job.params) or job.kind


def _note(snapshot: Snapshot, job: Job, live: LiveAttempt | None) -> tuple[str, str]:
    """The one thing worth knowing, in the words of `lab status`; progress has a column of its own here."""
    waits = snapshot.journal.waits.get(job.id, ())
    silent = live is not None and live.age_s is not None and live.age_s > 2 * FRESH_S
    lane = next((x for x in snapshot.lanes if x.name == job.lane), None) if job.state is JobState.RUNNING else None
    if lane is not None and lane.state in (LaneState.UNREACHABLE, LaneState.DOWN):
        age = lane.heard_s if lane.heard_s is not None else live.age_s if live is not None else None
        if lane.state is LaneState.UNREACHABLE:
            return look.away(clean.one_line(lane.name), age), "warn"
        ago = f", last heard {human.span(age)} ago" if age is not None else ""
        return f"lane {clean.one_line(lane.name)} is {lane.state}{ago}", "warn"
    quiet = lane.silent if lane is not None else ""
    silent = silent and not quiet
    parts = []
    if live is not None and live.total:
        parts.append(f"{_count(live.done or 0.0)}/{_count(live.total)}")
    else:
        parts.append(_step(live))
    if live is not None and live.note:
        parts.append(live.note)
    if live is not None and silent:
        parts.append(f"no heartbeat for {human.span(live.age_s)}")
    parts.append(f"{job.lane} is {quiet}" if quiet else "")
    parts.append(look.note(look.Shown(job, None, waits)))
    said = clean.one_line("; ".join(p for p in parts if p))
    if job.state is JobState.FAILED:
        return said, "error"
    return said, "warn" if silent or job.wish or job.undeclared else "text" if live is not None else "dim"


def _sweep_row(snapshot: Snapshot, job: Job, *, open_: bool) -> JobRow:
    fact = snapshot.journal.sweeps.get(job.id)
    said = note = eta = ""
    bar = None
    role = "dim"
    if fact is not None and fact.total:
        total = fact.total
        failed = fact.of(JobState.FAILED)
        running = fact.of(JobState.RUNNING, JobState.CANCELLING)
        bar = Bar((fact.ended - failed) / total, failed / total, running / total)
        said = f"{fact.ended:,}/{total:,}"
        parts = [f"{failed:,} failed"] if failed else []
        parts += [f"{running:,} running"] if running else []
        pace = snapshot.paces.get(job.id)
        if job.state is JobState.RUNNING and pace:
            parts.append(rate(pace))
            eta = _left((total - fact.ended) / pace)
        if failed and fact.first_error:
            parts.append(f"first: {fact.first_error}")
        role = "error" if failed else "text" if running else "dim"
        note = ", ".join(parts)
    if not job.state.terminal:
        words = clean.one_line(look.note(look.Shown(job, None, snapshot.journal.waits.get(job.id, ()))))
    else:
        words = look.why(job) if job.state is not JobState.SUCCEEDED else ""
    if words and words not in note and (fact is None or not (fact.of(JobState.FAILED) and job.state == "failed")):
        note = f"{words}, {note}" if note else words
    return JobRow(
        key=str(job.id),
        id=job.id,
        fold="-" if open_ else "+",
        label=clean.one_line(look.label(job))[:_LABEL],
        state=str(job.state),
        lane="",
        bar=bar,
        said=said,
        age=human.age(job.submitted, snapshot.at),
        time=human.span(look.run_time(job, snapshot.at)),
        eta=eta,
        note=clean.one_line(note),
        role="warn" if job.wish else role,
        faint=job.state.terminal and job.state is not JobState.FAILED,
    )


def _cell_rows(snapshot: Snapshot, job: Job, shown: int, chosen: Filter) -> list[JobRow]:
    cells = snapshot.journal.cells.get(job.id, ())
    fact = snapshot.journal.sweeps.get(job.id)
    rank = {s: i for i, s in enumerate(CELL_ORDER)}
    cells = tuple(
        sorted((c for c in cells if not chosen.states or c.state in chosen.states), key=lambda c: (rank[c.state], c.id))
    )
    rows = [_job_row(snapshot, c, cell=True) for c in cells]
    total = (fact.of(*chosen.states) if chosen.states else fact.total) if fact is not None else len(rows)
    if total > len(rows) and rows:
        left = total - len(rows)
        rows.append(
            JobRow(f"more-{job.id}", job.id, ">", f"{left:,} more: Enter shows {min(left, PAGE):,}", "", faint=True)
        )
    return rows


def _share(live: LiveAttempt | None) -> float | None:
    if live is None or not live.total:
        return None
    return max(0.0, min(1.0, (live.done or 0.0) / live.total))


def _step(live: LiveAttempt | None) -> str:
    """How far something is that never said how far it has to go."""
    if live is None:
        return ""
    if live.step is not None:
        return f"step {live.step:,}"
    return "setting up" if live.phase == "starting" else ""


def _job_eta(snapshot: Snapshot, job: Job, live: LiveAttempt) -> str:
    if live.age_s is not None and live.age_s > 2 * FRESH_S:
        return ""  # of what was not heard lately it would only grow
    if any(x.name == job.lane and x.state in (LaneState.UNREACHABLE, LaneState.DOWN) for x in snapshot.lanes):
        return ""
    if not live.total or live.done is None or live.done <= 0:
        return ""
    pace = snapshot.paces.get(job.id)
    if not pace:
        took = look.run_time(job, snapshot.at)
        # A first attempt only: a later one may have gone on from a checkpoint.
        if not took or job.attempts > 1 or took < 5.0:
            return ""
        pace = live.done / took
    return _left((live.total - live.done) / pace)


def _left(seconds: float) -> str:
    return human.span(seconds) if math.isfinite(seconds) and seconds >= 0 else ""


def _percent(share: float) -> str:
    return f"{math.floor(100 * share):d}%"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def rate(per_second: float) -> str:
    if per_second >= 0.95:
        return f"{per_second:,.0f}/s"
    if per_second * 60 >= 0.95:
        return f"{per_second * 60:,.0f}/min"
    return f"{per_second * 3600:,.0f}/h"
