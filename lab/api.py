"""The Python API, for scripts and notebooks.

from lab import Lab

lab = Lab()
job = lab.submit("parity", sizes=[1, 4], needs={"cores": 2})
table = job.wait().results()          # a pyarrow.Table
lab.results(sql="SELECT kind, max(err) FROM parity GROUP BY kind")
"""

from __future__ import annotations

import html
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import JobFailed, LabError, NotFound
from core.home import Home
from core.journal import Journal, Role, query
from core.states import EventKind, JobState
from lab.handles import Job, Jobs

if TYPE_CHECKING:
    import pyarrow as pa

    from lab.compare import Comparison
    from lab.submission import Planned

__all__ = ["Job", "Jobs", "Lab", "Status", "StillRunning"]


class StillRunning(LabError, TimeoutError):
    """`wait(timeout=...)` gave up watching; the job goes on."""

    slug = "still-running"


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
        from lab.handles import html_table

        rows = [["controller", "up" if self.controller else "down"]]
        rows += [[str(state), str(n)] for state, n in self.counts.items()]
        rows += [[f"lane {html.escape(name)}", state] for name, state in self.lanes.items()]
        return html_table(["", ""], rows)


class Lab:
    """One home: its queue, its jobs, its tables.

    Args:
        home: the home's folder; None: as the command line finds it (`core.home.Home.find`).
        start: start the controller when something is submitted and none runs.
    """

    def __init__(self, home: Home | Path | str | None = None, *, start: bool = True) -> None:
        self.home = home if isinstance(home, Home) else Home.find(Path(home) if home is not None else None)
        self._start = start
        self._journal: Journal | None = None

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Lab({str(self.home.path)!r})"

    def close(self) -> None:
        """Let go of the journal. Jobs go on; the object opens it again when it is used again."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def submit(
        self,
        kind: str,
        /,
        *,
        params: Mapping[str, Any] | None = None,
        name: str = "",
        needs: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
        inputs: Sequence[str | Path] | Mapping[str, str | Path] = (),
        code: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        outputs: Sequence[str] = (),
        expect: Mapping[str, Any] | None = None,
        after: Sequence[Job | int | str] | Job | int | str = (),
        key: str | None = None,
        priority: int = 0,
        tags: Sequence[str] = (),
        note: str = "",
        held: bool = False,
        force: bool = False,
        retries: Mapping[str, int] | None = None,
        allow_undeclared: Sequence[str | Path] = (),
        on_unreachable: str = "wait",
        cwd: str | Path | None = None,
        **parameters: Any,
    ) -> Job:
        """Submit one job. Its parameters are keyword arguments; one called like an option here goes to `params`.

        Returns:
            The job that answers: a new one, or the one that did the same before (`job.answer` says which).

        Raises:
            LabError: what was asked for cannot be; nothing was recorded.
        """
        from lab.planning import Request
        from lab.submission import submit

        request = Request(
            kind=kind,
            params={**(params or {}), **parameters},
            name=name,
            needs=needs or {},
            limits=limits or {},
            inputs=_inputs(inputs),
            code=code,
            env=env or {},
            outputs=list(outputs),
            expect=expect or {},
            after=_after(after),
            idem=key,
            priority=priority,
            tags=list(tags),
            note=note,
            held=held,
            force=force,
            retries=retries or {},
            allow_undeclared=[str(p) for p in allow_undeclared],
            on_unreachable=on_unreachable,
            argv=("python",),
            literal=True,
        )
        answer = submit(self.home, [request], cwd=Path(cwd) if cwd is not None else Path.cwd())[0]
        self._tell()
        return Job(self, answer.id, answer=answer.answer, message=answer.message)

    def submit_file(self, path: str | Path, *, cwd: str | Path | None = None) -> Jobs:
        """Submit all jobs of a jobs file, in one transaction."""
        from lab.jobsfile import read_jobs
        from lab.submission import submit

        answers = submit(self.home, read_jobs(Path(path)), cwd=Path(cwd) if cwd is not None else Path.cwd())
        self._tell()
        return Jobs(Job(self, a.id, answer=a.answer, message=a.message) for a in answers)

    def plan(self, kind: str, /, *, cwd: str | Path | None = None, **parameters: Any) -> Planned:
        """What `submit(kind, **parameters)` would do: nothing is recorded."""
        from lab.planning import Request
        from lab.submission import plan

        request = Request(kind, parameters, literal=True)
        return plan(self.home, [request], cwd=Path(cwd) if cwd is not None else Path.cwd())[0]

    def rerun(self, job: Job | int, *, force: bool = False) -> Job:
        """Submit the same job again; with `force` also when it succeeded."""
        from lab.submission import rerun

        answer = rerun(self.home, [_id(job)], force=force)[0]
        self._tell()
        return Job(self, answer.id, answer=answer.answer, message=answer.message)

    def job(self, job_id: int) -> Job:
        """The handle of one job. Raises NotFound."""
        query.job(self.journal.conn, int(job_id))
        return Job(self, int(job_id))

    def jobs(
        self,
        *,
        state: JobState | str | Sequence[JobState | str] = (),
        kind: str | None = None,
        tag: str | None = None,
        limit: int | None = 100,
    ) -> Jobs:
        """The newest jobs, newest first."""
        words = [state] if isinstance(state, str) else list(state)
        try:
            rows = query.jobs(
                self.journal.conn, states=tuple(JobState(w) for w in words), kind=kind, tag=tag, limit=limit
            )
        except NotFound:
            return Jobs()  # no home yet
        return Jobs(Job(self, row.id, row=row) for row in rows)

    def results(
        self,
        table: str | None = None,
        *,
        jobs: Sequence[Job | int] | None = None,
        sql: str | None = None,
        warnings: list[str] | None = None,
    ) -> pa.Table:
        """Rows of a table, or the answer to `sql` over all tables (DuckDB).

        Args:
            warnings: gets one sentence for each damaged or missing part; without it they are Python warnings.
        """
        from core.tables import query as ask
        from core.tables import read_table

        notes: list[str] = [] if warnings is None else warnings
        conn = self.journal.conn
        if sql is not None:
            found = ask(self.home, conn, sql, warnings=notes)
        else:
            found = read_table(
                self.home, conn, table, [_id(j) for j in jobs] if jobs is not None else None, warnings=notes
            )
        if warnings is None:
            import warnings as python_warnings

            for note in notes:
                python_warnings.warn(note, stacklevel=2)
        return found

    def compare(self, a: Job | int, b: Job | int) -> Comparison:
        """What differs between two jobs: key and tables."""
        from lab.compare import compare

        return compare(self.home, self.journal.conn, _id(a), _id(b))

    def lanes(self) -> list[query.Lane]:
        """The lanes as the journal knows them."""
        return query.lanes(self.journal.conn)

    def status(self) -> Status:
        from lanes.start import controller_alive

        lanes = {lane.name: str(lane.state) for lane in self.lanes()}
        return Status(query.counts(self.journal.conn), controller_alive(self.home), lanes)

    @property
    def journal(self) -> Journal:
        """The open journal, for reading. Raises NotFound when there is no home yet."""
        if self._journal is None:
            self._journal = Journal.open(self.home)
        return self._journal

    def ask(self, kind: EventKind, job_id: int) -> None:
        """Record a wish about a job and tell the controller."""
        query.job(self.journal.conn, job_id)
        with Journal.open(self.home, Role.CLIENT) as journal, journal.transaction() as tx:
            tx.append(kind, job=job_id, data={"by": os.environ.get("USER", "")})
        self._tell()

    def watch(self, job_id: int, *, timeout: float | None, poll: float, check: bool) -> query.Job:
        """Block until the job has ended. Nothing is written, and Ctrl-C ends only the watching.

        Raises:
            StillRunning: `timeout` seconds went by.
            JobFailed: it did not succeed, and `check` is true.
        """
        from lanes.start import ensure_controller

        end = None if timeout is None else time.monotonic() + timeout
        seen: int | None = None
        looked = time.monotonic()
        row = query.job(self.journal.conn, job_id)
        while not row.state.terminal:
            now = time.monotonic()
            if end is not None and now >= end:
                raise StillRunning(f"job {job_id} is {row.state} after {timeout:g} s", hint="it goes on; wait again")
            if self._start and now - looked > 5.0:
                ensure_controller(self.home)  # somebody must be at work on it
                looked = now
            time.sleep(poll if end is None else min(poll, max(0.0, end - now)))
            version = self.journal.data_version()
            if version != seen:
                seen = version
                row = query.job(self.journal.conn, job_id)
        if check and row.state is not JobState.SUCCEEDED:
            cause = f" ({row.cause})" if row.cause else ""
            reason = f": {row.reason}" if row.reason else ""
            raise JobFailed(f"job {job_id} is {row.state}{cause}{reason}", hint=f"see `lab logs {job_id}`")
        return row

    def _tell(self) -> None:
        from lanes.start import ensure_controller, wake

        if self._start:
            ensure_controller(self.home)
        wake(self.home)


def _id(job: Job | int) -> int:
    return job.id if isinstance(job, Job) else int(job)


def _after(given: Sequence[Job | int | str] | Job | int | str) -> list[str]:
    each = [given] if isinstance(given, (Job, int, str)) else list(given)
    return [x if isinstance(x, str) else str(_id(x)) for x in each]


def _inputs(given: Sequence[str | Path] | Mapping[str, str | Path]) -> list[str]:
    if isinstance(given, Mapping):
        return [f"{name}={path}" for name, path in given.items()]
    return [str(given)] if isinstance(given, (str, Path)) else [str(path) for path in given]
