"""Showing jobs while somebody waits for them: a bar on a terminal, lines in a pipe, nothing for programs."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from core.journal.query import Job
from core.live import LiveAttempt
from core.states import JobState
from lab.folded import Folded
from lab.output import human
from lab.output import job as look
from lab.output import sweep as sweeps
from lab.output.faces import Face
from lab.output.page import Page

Live = Mapping[tuple[int, int], LiveAttempt]
Sweeps = Mapping[int, Folded]

_MOST_BARS = 6
_BAR, _LABEL = 20, 26
_NAME = 60  # of a job, in a line of its own
_COUNTS_S = 10.0  # how often a pipe is told how far a sweep is
MANY = 10  # of more jobs a pipe is not told that each waits, but which has failed, and how many have ended


class Follower(ABC):
    """Told of every change; shows it somehow."""

    @abstractmethod
    def update(self, jobs: Sequence[Job], live: Live, folded: Sweeps) -> None: ...

    def close(self) -> None:  # noqa: B027
        """Leave the terminal as it was."""


def follower(out: Face, count: int) -> Follower:
    """The follower that suits the reader."""
    import sys

    if not out.people:
        return _Silent()
    if sys.stderr.isatty() and Page.of(sys.stderr).colour:
        return _Bars(count)
    return _Lines(out, many=count > MANY)


class _Silent(Follower):
    def update(self, jobs: Sequence[Job], live: Live, folded: Sweeps) -> None:
        pass


class _Lines(Follower):
    """One line for each change of a state."""

    def __init__(self, out: Face, *, many: bool = False) -> None:
        self._out = out
        self._many = many
        self._known: dict[int, tuple[JobState, int]] = {}
        self._told: dict[int, tuple[float, str]] = {}

    def update(self, jobs: Sequence[Job], live: Live, folded: Sweeps) -> None:
        for job in jobs:
            state = (job.state, job.attempts)
            if self._many and self._known.get(job.id) != state and job.state is not JobState.RUNNING:
                self._known[job.id] = state
                if job.state.terminal and job.state is not JobState.SUCCEEDED:
                    ended = sum(1 for j in jobs if j.state.terminal)
                    why = f": {human.clean(job.reason)}" if job.reason else ""
                    self._out.remark(f"{_who(job)}  {job.state}{why} ({ended} of {len(jobs)} have ended)")
            elif self._known.get(job.id) != state and not job.state.terminal:
                self._known[job.id] = state
                where = f" on {job.lane}" if job.lane else ""
                again = f" (attempt {job.attempts})" if job.attempts > 1 else ""
                self._out.remark(f"{_who(job)}  {job.state}{where}{again}")
            if job.id in folded and not job.state.terminal:
                self._counts(job, folded[job.id])

    def _counts(self, job: Job, f: Folded) -> None:
        at, before = self._told.get(job.id, (time.monotonic(), ""))
        said = sweeps.brief(f)
        if job.id not in self._told or (said != before and time.monotonic() - at >= _COUNTS_S):
            if job.id in self._told:
                left = sweeps.pace(f)
                self._out.remark(f"{_who(job)}  {said}" + (f"; {left}" if left else ""))
            self._told[job.id] = (time.monotonic(), said)


def _who(job: Job) -> str:
    """Which job, in a log that may be read days later: what it is, its number, its name."""
    name = look.label(job)
    short = name if len(name) <= _NAME else name[: _NAME - 3] + "..."
    return f"{'sweep' if job.is_sweep else 'job'} {job.id} {short}"


class _Bars(Follower):
    """A bar for each running job and, when there are several jobs, one for all of them. Rich is loaded here only."""

    def __init__(self, count: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        columns: list[Any] = [
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=_BAR),
            TextColumn("{task.fields[said]}", markup=False),
        ]
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=8)
        self._all = self._progress.add_task("all jobs", total=count, said="") if count > 1 else None
        self._tasks: dict[int, Any] = {}
        self._progress.start()

    def update(self, jobs: Sequence[Job], live: Live, folded: Sweeps) -> None:
        done = sum(1 for j in jobs if j.state.terminal)
        if self._all is not None:
            running = sum(1 for j in jobs if j.state is JobState.RUNNING)
            self._progress.update(self._all, completed=done, said=f"{done}/{len(jobs)} done, {running} running")
        shown = [j for j in jobs if not j.state.terminal and (self._all is None or j.state is JobState.RUNNING)][
            :_MOST_BARS
        ]
        for gone in self._tasks.keys() - {j.id for j in shown}:
            self._progress.remove_task(self._tasks.pop(gone))
        for job in shown:
            if job.id not in self._tasks:
                self._tasks[job.id] = self._progress.add_task(
                    f"{job.id} {look.label(job)}"[:_LABEL], total=None, said=""
                )
            if job.id in folded:
                self._sweep(job, folded[job.id])
            else:
                self._one(job, look.with_goal(live.get((job.id, job.attempts)), job))

    def _sweep(self, job: Job, f: Folded) -> None:
        parts = [] if job.state is JobState.RUNNING else [str(job.state)]
        parts += [p for p in (sweeps.brief(f), sweeps.pace(f)) if p]
        said = self._fit(", ".join(parts))
        self._progress.update(self._tasks[job.id], total=f.total, completed=f.ended, said=said)

    def _one(self, job: Job, live: LiveAttempt | None) -> None:
        parts = [str(job.state) + (f" on {job.lane}" if job.lane else "")]
        if job.attempts > 1:
            parts.append(f"attempt {job.attempts}")
        if job.state is JobState.RUNNING:
            parts += look.progress(live)
            parts.append(human.span(look.run_time(job, time.time())))
        elif job.reason:
            parts.append(job.reason)
        total = live.total if live is not None and live.total else None
        done = (live.done or 0.0) if live is not None else 0.0
        self._progress.update(self._tasks[job.id], total=total, completed=done, said=self._fit(", ".join(parts)))

    def _fit(self, text: str) -> str:
        room = max(16, self._progress.console.width - _LABEL - _BAR - 6)
        return human.clean(text)[:room]

    def close(self) -> None:
        self._progress.stop()
