"""What `Lab` gives out: handles of jobs, and how they look in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.journal import query
from core.states import EventKind, JobState

if TYPE_CHECKING:
    import pyarrow as pa

    from lab.api import Lab
    from lab.evidence import Fetched
    from lab.explain import Explanation

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
        path = self._lab.home.run_dir(self.id, n).log
        try:
            return path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def results(self, table: str | None = None) -> pa.Table:
        """Its rows of `table` (None: the only one that it wrote)."""
        return self._lab.results(table, jobs=[self.id])

    def artifacts(self) -> dict[str, Path]:
        """Files that it kept, by name. Treat them as read-only: `lab verify` compares them with the seal."""
        from core.fsio import walk_files
        from lab.evidence import sealed_attempt

        attempt = sealed_attempt(self._lab.home, self._lab.journal.conn, self.id)
        if attempt is None:
            return {}
        folder = self._lab.home.run_dir(self.id, attempt.n).artifacts
        return {rel.as_posix(): folder / rel for rel in walk_files(folder)} if folder.is_dir() else {}

    def explain(self) -> Explanation:
        """Why it waits, how it ended, and why no earlier run answered it."""
        from lab.explain import explain

        return explain(self._lab.home, self._lab.journal.conn, self.id)

    def fetch(self, dest: str | Path) -> Fetched:
        """Copy artifacts and results, verified, to the new folder `dest`."""
        from lab.evidence import fetch

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
