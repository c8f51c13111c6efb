"""What `Lab` gives out: handles of jobs, and how they look in a notebook."""

from __future__ import annotations

import html
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import JobFailed
from core.journal import query
from core.states import EventKind, JobState

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from lab.api import Lab
    from lab.explain import Explanation
    from lab.fetching import Fetched

POLL_S = 0.05

# Colours that can be read on white and on black; all else is the notebook's own.
_COLOURS = {
    JobState.SUCCEEDED: "#2e9e5b",
    JobState.FAILED: "#d9534f",
    JobState.CANCELLED: "#b08030",
    JobState.SKIPPED: "#b08030",
    JobState.RUNNING: "#3f87d9",
}


class Job:
    """A job of this lab. Its state is read anew each time until it has ended.

    Attributes:
        answer: of a submit: `new`, `cached`, `queued-already` or `same-key`.
        message: what the submit had to say beyond that.
    """

    def __init__(
        self, lab: Lab, job_id: int, *, row: query.Job | None = None, answer: str = "", message: str = ""
    ) -> None:
        self._lab = lab
        self.id = job_id
        self.answer = answer
        self.message = message
        self._row = row

    @property
    def row(self) -> query.Job:
        """Everything that the journal says of the job, as it was last read."""
        if self._row is None:
            self.refresh()
        assert self._row is not None
        return self._row

    @property
    def state(self) -> JobState:
        if self._row is None or not self._row.state.terminal:
            self.refresh()
        return self.row.state

    @property
    def kind(self) -> str:
        return self.row.kind

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def params(self) -> dict[str, Any]:
        return self.row.params

    @property
    def key(self) -> str:
        return self.row.key

    def refresh(self) -> Job:
        """Read the job anew."""
        self._row = query.job(self._lab.journal.conn, self.id)
        return self

    def wait(self, timeout: float | None = None, *, poll: float = POLL_S, check: bool = True) -> Job:
        """Block until it has ended. Ctrl-C stops the watching, never the job.

        Args:
            timeout: seconds; None: for ever.
            check: raise when it did not succeed.

        Raises:
            StillRunning: the time is over; the job goes on.
            JobFailed: it ended otherwise than in success.
        """
        self._row = self._lab.watch(self.id, timeout=timeout, poll=poll, check=check)
        return self

    def cancel(self) -> Job:
        """Ask for its end. What has ended stays as it is."""
        return self._ask(EventKind.CANCEL_ASKED)

    def hold(self) -> Job:
        """Keep it from starting until `release`."""
        return self._ask(EventKind.HOLD_ASKED)

    def release(self) -> Job:
        return self._ask(EventKind.RELEASE_ASKED)

    def logs(self, attempt: int | None = None) -> str:
        """What its attempt (None: the newest) wrote to stdout and stderr, as far as it is here."""
        n = attempt if attempt is not None else self.refresh().row.attempts
        from lab.batchlog import Slices, where

        found = where(self._lab.home, self._lab.journal.conn, self.row, n)
        if isinstance(found, Slices):
            return found.read().decode(errors="replace")
        try:
            return found.path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def results(self, table: str | None = None) -> pa.Table:
        """Its rows of `table` (None: the only one that it wrote)."""
        return self._lab.results(table, jobs=[self.id])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays that a `kernel` job with keep=true brought back, by name; read-only, and not copied.

        Small ones are rows of its table `arrays`, large ones lie as Arrow tensors among its files.
        """
        from lab.arrays import from_files, from_rows

        files = {name.removesuffix(".arrow"): p for name, p in self.artifacts().items() if name.endswith(".arrow")}
        return from_files(files) if files else from_rows(self.results("arrays"))

    def artifacts(self) -> dict[str, Path]:
        """Files that it kept, by name. Treat them as read-only: `lab verify` compares them with the seal.

        A cell that ran in a batch keeps none: its rows are all that it leaves.
        """
        from core.fsio import walk_files
        from lab.evidence import sealed_attempt

        attempt = sealed_attempt(self._lab.home, self._lab.journal.conn, self.id)
        if attempt is None or attempt.batch is not None:
            return {}
        folder = self._lab.home.run_dir(self.id, attempt.n).artifacts
        return {rel.as_posix(): folder / rel for rel in walk_files(folder)} if folder.is_dir() else {}

    def explain(self) -> Explanation:
        """Why it waits, how it ended, and why no earlier run answered it."""
        from lab.explain import explain

        return explain(self._lab.home, self._lab.journal.conn, self.id)

    def fetch(self, dest: str | Path) -> Fetched:
        """Copy artifacts and results, verified, to the new folder `dest`."""
        from lab.fetching import fetch

        return fetch(self._lab.home, self._lab.journal.conn, self.id, Path(dest))

    def _ask(self, kind: EventKind) -> Job:
        self._lab.ask(kind, self.id)
        return self.refresh()

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.row.kind} {self.state}>"

    def __rich_repr__(self) -> Iterator[Any]:
        row = self.refresh().row
        yield row.id
        yield "kind", row.kind
        yield "state", str(row.state)
        yield "name", row.name, ""
        yield "lane", row.lane, None
        yield "reason", row.reason, None

    def _repr_html_(self) -> str:
        return html_table(_HEAD, [_cells(self.refresh())])


class Sweep(Job):
    """A sweep of this lab: the jobs of a grid, as one."""

    def counts(self) -> dict[JobState, int]:
        """How many cells are in each state, those that other jobs answer too."""
        return query.sweep_counts(self._lab.journal.conn, self.id)

    def cells(self, state: JobState | str | Sequence[JobState | str] = (), *, limit: int | None = None) -> Jobs:
        """Its cells, in the order of the grid; those that other jobs answer are among them by id."""
        words = [state] if isinstance(state, str) else list(state)
        rows = query.cells(self._lab.journal.conn, self.id, states=tuple(JobState(w) for w in words), limit=limit)
        return Jobs(Job(self._lab, row.id, row=row) for row in rows)

    def cell(self, number: int) -> Job:
        """The cell that the command line calls ID.NUMBER: counted from 1, of those that it runs itself."""
        sweep = query.sweep(self._lab.journal.conn, self.id)
        if not 1 <= number <= sweep.cells:
            raise IndexError(f"sweep {self.id} has the cells 1 to {sweep.cells}")
        return Job(self._lab, self.id + number)

    def failed(self) -> Jobs:
        """The cells that failed."""
        return self.cells(JobState.FAILED)

    def rerun_failed(self, *, force: bool = False) -> Sweep:
        """Exactly the cells that failed, as a new sweep with the code of then. Raises BadInput when none has."""
        found = self._lab.rerun(self, force=force, failed=True)
        assert isinstance(found, Sweep)
        return found

    def wait(
        self, timeout: float | None = None, *, poll: float = POLL_S, check: bool = True, progress: bool | None = None
    ) -> Sweep:
        """Block until every cell has ended. Ctrl-C stops the watching, never the cells.

        Args:
            timeout: seconds; None: for ever.
            check: raise when a cell did not succeed.
            progress: show a bar on stderr; None: where that is a terminal.

        Raises:
            StillRunning: the time is over; the sweep goes on.
            JobFailed: some cells did not succeed; the message names the first.
        """
        shown = progress if progress is not None else sys.stderr.isatty()
        if not shown:
            self._row = self._lab.watch(self.id, timeout=timeout, poll=poll, check=check)
            return self
        from lab.folded import fold
        from lab.output import PeopleFace
        from lab.output.progress import follower

        show = follower(PeopleFace(), 1)

        def tick(row: query.Job) -> None:
            show.update([row], {}, {row.id: fold(self._lab.journal.conn, row)})

        try:
            self._row = self._lab.watch(self.id, timeout=timeout, poll=poll, check=check, tick=tick)
        finally:
            show.close()
        return self

    def logs(self, attempt: int | None = None) -> str:
        """What the cell that failed first printed; nothing when none has."""
        first = query.first_failure(self._lab.journal.conn, self.id)
        return Job(self._lab, first.id).logs(attempt) if first is not None else ""

    def __len__(self) -> int:
        return query.sweep(self._lab.journal.conn, self.id).total

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<Sweep {self.id} {self.row.kind} {self.row.name} {self.state}>"

    def __rich_repr__(self) -> Iterator[Any]:
        yield from super().__rich_repr__()
        yield from ((str(state), n) for state, n in self.counts().items())

    def _repr_html_(self) -> str:
        from lab.folded import fold
        from lab.output.sweep import brief, failure

        folded = fold(self._lab.journal.conn, self.refresh().row)
        rows = [["axes", html.escape(self.row.name)], ["cells", html.escape(brief(folded))]]
        if folded.first is not None:
            rows.append(["first failure", html.escape(failure(folded.first))])
        return html_table(_HEAD, [_cells(self)]) + html_table(["", ""], rows)


class Jobs(list[Job]):
    """A list of jobs that a notebook shows as a table."""

    def wait(self, timeout: float | None = None, *, check: bool = True) -> Jobs:
        """Wait for all of them, in order."""
        import time

        end = None if timeout is None else time.monotonic() + timeout
        for job in self:
            job.wait(None if end is None else max(0.0, end - time.monotonic()), check=check)
        return self

    def __rich_repr__(self) -> Iterator[Any]:
        yield from self

    def _repr_html_(self) -> str:
        return html_table(_HEAD, [_cells(job) for job in self]) if self else "<i>no jobs</i>"


def failure_of(conn: sqlite3.Connection, row: query.Job) -> JobFailed:
    """Why a job that was waited for is no success, as an exception."""
    from lab.output.job import became

    cause = f" ({row.cause})" if row.cause else ""
    reason = f": {row.reason}" if row.reason else ""
    if not row.is_sweep:
        return JobFailed(f"job {row.id} {became(row.state)}{cause}{reason}", hint=f"see `lab logs {row.id}`")
    from lab.folded import fold
    from lab.output.sweep import brief, failure

    folded = fold(conn, row)
    first = f"; first: {failure(folded.first)}" if folded.first is not None else reason
    return JobFailed(f"sweep {row.id} {became(row.state)}: {brief(folded)}{first}", hint=f"see `lab status {row.id}`")


@dataclass(frozen=True)
class Status:
    """How the whole lab is doing."""

    counts: dict[JobState, int]
    controller: bool
    lanes: dict[str, str]

    def __rich_repr__(self) -> Any:
        yield "controller", "up" if self.controller else "down"
        yield from ((str(state), n) for state, n in self.counts.items())
        yield "lanes", self.lanes

    def _repr_html_(self) -> str:
        rows = [["controller", "up" if self.controller else "down"]]
        rows += [[str(state), str(n)] for state, n in self.counts.items()]
        rows += [[f"lane {html.escape(name)}", state] for name, state in self.lanes.items()]
        return html_table(["", ""], rows)


def handle(lab: Lab, row: query.Job) -> Job:
    """The handle that suits what the row is."""
    return (Sweep if row.is_sweep else Job)(lab, row.id, row=row)


_HEAD = ("job", "kind", "name", "state", "lane", "reason")


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A small table in the notebook's own colours; cells are HTML already escaped where they come from."""
    line = "border-bottom:1px solid rgba(128,128,128,.35);padding:.15em .7em;text-align:left;color:inherit"
    top = "".join(f'<th style="{line}">{html.escape(h)}</th>' for h in head) if any(head) else ""
    body = "".join("<tr>" + "".join(f'<td style="{line}">{cell}</td>' for cell in row) + "</tr>" for row in rows)
    start = '<table style="border-collapse:collapse;background:transparent;color:inherit">'
    return f"{start}{f'<thead><tr>{top}</tr></thead>' if top else ''}<tbody>{body}</tbody></table>"


def _cells(job: Job) -> list[str]:
    row = job.row
    name = row.name if len(row.name) <= 60 else row.name[:57] + "..."
    colour = _COLOURS.get(row.state)
    state = html.escape(str(row.state))
    shown = f'<span style="color:{colour};font-weight:600">{state}</span>' if colour else state
    if row.undeclared:
        shown += " (undeclared)"
    return [
        str(row.id),
        html.escape(row.kind),
        html.escape(name),
        shown,
        html.escape(row.lane or ""),
        html.escape(row.reason or ""),
    ]
