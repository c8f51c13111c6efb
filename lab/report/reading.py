"""What the report reads: journal, tables and run directories, each looked up once, and entered as rows of the book."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import BadInput, NotFound
from core.fsio import read_json, sha256_file
from core.home import Home
from core.journal import query
from core.journal.query import Attempt, Job
from core.states import AttemptState
from core.tables import ORIGIN, Choice, Jobs, live_parts, read_table, stream
from lab.folded import cell_name
from lab.named import study_of
from lab.output.job import label
from lab.report import lines
from lab.report.book import Book, Row, slug
from lab.report.doc import Ident, Inline, Name, stamp

_HEADLINE = b"lab.headline"
_TAKEN = frozenset(  # how ids of other rows begin
    {"job", "attempt", "event", "lane", "file", "made", "rival", "axes", "asked", "claim", "gate", "folded"}
)
_SHOWN = 12  # columns of a table whose kind names none


@dataclass(frozen=True)
class Held:
    """A file under an attempt's seal."""

    job: int
    attempt: int
    lane: str
    name: str
    sha256: str
    bytes: int


@dataclass
class Reading:
    """One look at a home.

    Attributes:
        warnings: what could not be read; the report says so.
    """

    home: Home
    conn: sqlite3.Connection
    book: Book = field(default_factory=Book)
    warnings: list[str] = field(default_factory=list)
    _jobs: dict[int, Job] = field(default_factory=dict)
    _attempts: dict[int, list[Attempt]] = field(default_factory=dict)
    _specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    _plain: dict[str, dict[str, Any]] = field(default_factory=dict)
    _top: list[Job] | None = None

    # Jobs and attempts.

    def job(self, job_id: int) -> Job:
        if job_id not in self._jobs:
            self._jobs[job_id] = query.job(self.conn, job_id)
        return self._jobs[job_id]

    def know(self, jobs: Iterable[Job]) -> list[Job]:
        """Remember jobs that were read together."""
        out = list(jobs)
        self._jobs.update((job.id, job) for job in out)
        return out

    def top(self) -> list[Job]:
        """All jobs, a sweep without its cells, the oldest first."""
        if self._top is None:
            self._top = self.know(query.jobs(self.conn, top=True, newest_first=False))
        return self._top

    def spec(self, job: Job) -> dict[str, Any]:
        if job.spec not in self._specs:
            self._specs[job.spec] = query.spec_of(self.conn, job.spec)
        return self._specs[job.spec]

    def attempts(self, job_id: int) -> list[Attempt]:
        if job_id not in self._attempts:
            self._attempts[job_id] = query.attempts(self.conn, job_id)
        return self._attempts[job_id]

    def command(self, job_id: int) -> str:
        """The line that makes a job."""
        job = self.job(job_id)
        study = study_of(self.conn, job_id) if "/" in job.name else ""
        return lines.own(job, self.spec(job), self._plain, study=study)

    def run_of(self, job_id: int, n: int) -> str:
        """The run directory of an attempt, relative to the home."""
        found = next((a for a in self.attempts(job_id) if a.n == n), None)
        return f"batches/{found.batch}" if found is not None and found.batch else f"attempts/{job_id}/{n}"

    def newest_run(self, job_id: int) -> str:
        """Of the committed attempt, else of the last; empty where there was none."""
        tries = self.attempts(job_id)
        good = [a for a in tries if a.state is AttemptState.SUCCEEDED] or tries
        return self.run_of(job_id, good[-1].n) if good else ""

    def job_row(self, job_id: int) -> str:
        """Enter the journal's row of a job."""
        row = f"job-{job_id}"
        if row in self.book.rows:
            return row
        job = self.job(job_id)
        values = {
            "job": job.id,
            "kind": job.kind,
            "name": job.name,
            "params": job.params,
            "key": job.key,
            "state": str(job.state),
            "cause": job.cause,
            "reason": job.reason,
            "lane": job.lane,
            "attempts": job.attempts,
            "priority": job.priority,
            "sweep": job.sweep,
            "cells": job.cells,
            "after": [f"{cond}:{other.id}" for cond, other in query.dependencies(self.conn, job_id)],
            "tags": list(job.tags),
            "note": job.note,
            "rerun_of": job.rerun_of,
            "undeclared": job.undeclared,
            "submitted": stamp(job.submitted),
            "started": stamp(job.started),
            "ended": stamp(job.ended),
        }
        parts = (self.job_row(job.sweep),) if job.sweep is not None else ()
        title = f"job {job_id}"
        return self.book.add(
            Row(row, "jobs", title, values, self.newest_run(job_id), self.command(job_id), parts=parts)
        )

    def attempt_row(self, job_id: int, n: int) -> str:
        """Enter the journal's row of an attempt."""
        row = f"attempt-{job_id}-{n}"
        if row in self.book.rows:
            return row
        (a,) = (a for a in self.attempts(job_id) if a.n == n)
        values = {
            "job": job_id,
            "attempt": n,
            "lane": a.lane,
            "state": str(a.state),
            "cause": a.cause,
            "message": a.message,
            "exit_code": a.exit_code,
            "seconds": a.seconds,
            "cpu_s": a.cpu_s,
            "max_rss_mb": a.max_rss_mb,
            "grant": a.grant,
            "placed": stamp(a.placed),
            "started": stamp(a.started),
            "ended": stamp(a.ended),
            "undeclared": list(a.undeclared),
            "manifest": a.manifest,
            "batch": a.batch,
        }
        title = f"job {job_id}, attempt {n}"
        where, made = self.run_of(job_id, n), self.command(job_id)
        return self.book.add(Row(row, "attempts", title, values, where, made, parts=(self.job_row(job_id),)))

    def event_row(self, seq: int) -> str:
        """Enter an event of the journal."""
        row = f"event-{seq}"
        if row not in self.book.rows:
            (e,) = query.events(self.conn, after=seq - 1, limit=1)
            values: dict[str, Any] = {"seq": e.seq, "at": stamp(e.at), "kind": e.kind, "job": e.job}
            values |= {"attempt": e.attempt, "lane": e.lane}
            values |= {name: value for name, value in e.data.items() if name not in values}
            parts = (self.job_row(e.job),) if e.job is not None else ()
            command = "lab lanes --verbose" if e.lane and e.job is None else ""
            self.book.add(Row(row, "events", f"event {seq}", values, "", command, parts=parts))
        return row

    def called(self, job_id: int) -> list[Inline]:
        """A job in a line: its id, which leads to its row, and its name."""
        job = self.job(job_id)
        word = "sweep" if job.is_sweep else "job"
        return [Ident(f"{word} {cell_name(job)}", self.job_row(job_id)), " ", Name(label(job))]

    # Result tables.

    def rows(self, table: str, jobs: Sequence[int] | Jobs) -> list[dict[str, Any]]:
        """The committed rows of these jobs, each with its place as `_row`; none where there is no such table."""
        if not jobs:
            return []
        try:
            found = read_table(self.home, self.conn, table, jobs, warnings=self.warnings)
        except NotFound:
            return []
        return list(numbered(found.to_pylist()))

    def first_rows(self, table: str, jobs: Jobs, most: int) -> tuple[list[str], list[dict[str, Any]]]:
        """(columns that a person sees first, the first rows) of a table that may be long."""
        try:
            with stream(self.home, self.conn, Choice(table, jobs, limit=most), warnings=self.warnings) as found:
                rows = [row for batch in found.batches for row in batch.to_pylist()]
                schema = found.schema
        except (NotFound, BadInput):
            return [], []
        named = (schema.metadata or {}).get(_HEADLINE, b"").decode().split(",")
        first = [n for n in named if n in schema.names]
        return first or [n for n in schema.names if n not in ORIGIN][:_SHOWN], list(numbered(rows))

    def tables(self, jobs: Jobs) -> list[str]:
        """Tables that may hold rows of these jobs."""
        return sorted({p.table for p in live_parts(self.conn, None, jobs)})

    def table_row(self, table: str, row: Mapping[str, Any]) -> str:
        """Enter a row of a result table, as `rows` gave it."""
        job, attempt, at = int(row["job"]), int(row["attempt"]), int(row["_row"])
        name = f"{'table-' if table in _TAKEN else ''}{slug(table)}-{job}-{attempt}-{at}"
        if name not in self.book.rows:
            values = {column: value for column, value in row.items() if column != "_row"}
            title = f"{table}, job {job}, attempt {attempt}, row {at}"
            where, made = self.run_of(job, attempt), self.command(job)
            self.book.add(Row(name, table, title, values, where, made, parts=(self.job_row(job),)))
        return name

    # Files.

    def files(self, job_id: int) -> tuple[list[Held], str]:
        """(the files under the seal of the committed attempt, what is wrong with the seal)."""
        done = [a for a in self.attempts(job_id) if a.state is AttemptState.SUCCEEDED and a.batch is None]
        if not done:
            return [], ""
        attempt = done[-1]
        path = self.home.run_dir(job_id, attempt.n).manifest
        if not path.is_file():
            return [], "its manifest is missing: the files were discarded or lost"
        if attempt.manifest is not None and sha256_file(path) != attempt.manifest:
            return [], "its manifest is not the one that was committed"
        found = read_json(path)
        try:
            named = {str(n): (str(v[0]), int(v[1])) for n, v in found["files"].items()}
        except (TypeError, KeyError, ValueError, IndexError, AttributeError):
            return [], "its manifest cannot be read"
        return [
            Held(job_id, attempt.n, attempt.lane, name, digest, size) for name, (digest, size) in sorted(named.items())
        ], ""

    def file_row(self, held: Held) -> str:
        """Enter a file under a seal."""
        row = f"file-{held.job}-{held.attempt}-{slug(held.name)}"
        if row not in self.book.rows:
            values = {"job": held.job, "attempt": held.attempt, "lane": held.lane, "file": held.name}
            values |= {"sha256": held.sha256, "bytes": held.bytes}
            where, made = self.run_of(held.job, held.attempt), f"lab fetch {held.job}"
            title = f"{held.name} of job {held.job}, attempt {held.attempt}"
            self.book.add(Row(row, "files", title, values, where, made, parts=(self.job_row(held.job),)))
        return row


def numbered(rows: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Rows in the order of jobs, each with its place among those of its job and attempt, counted from 0."""
    last, at = (-1, -1), 0
    for row in rows:
        here = (int(row["job"]), int(row["attempt"]))
        at = at + 1 if here == last else 0
        last = here
        yield {**row, "_row": at}
