"""The Python API, for scripts and notebooks.

from lab import Lab

lab = Lab()
job = lab.submit("parity", sizes=[1, 4], needs={"cores": 2})
table = job.wait().results()          # a pyarrow.Table
lab.results(sql="SELECT kind, max(err) FROM parity GROUP BY kind")
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from core.errors import BadInput, LabError, NotFound
from core.home import Home
from core.journal import Journal, Role, query
from core.states import EventKind, JobState
from lab.handles import Job, Jobs, Status, Sweep, failure_of, handle
from lab.options import Options, request_of

if TYPE_CHECKING:
    import pyarrow as pa

    from core.study import Study
    from lab.asked import Request
    from lab.compare import Comparison
    from lab.submission import Planned, Submitted
    from lab.submitter import Submitter
    from lanes.start import Bell

__all__ = ["Job", "Jobs", "Lab", "Status", "StillRunning", "Sweep"]

_SHORTEST_S = 0.00005
_TICK_S = 0.25


class StillRunning(LabError, TimeoutError):
    """`wait(timeout=...)` gave up watching; the job goes on."""

    slug = "still-running"


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
        takes: Mapping[str, Job | int | tuple[Job | int, str]] | None = None,
        cwd: str | Path | None = None,
        **parameters: Any,
    ) -> Job:
        """Submit one job. Its parameters are keyword arguments; one called like an option here goes to `params`.

        Args:
            takes: inputs that other jobs make, by name: a job (all its files) or (job, FILE). It waits for those jobs.

        Returns:
            The job that answers: a new one, or the one that did the same before (`job.answer` says which).

        Raises:
            LabError: what was asked for cannot be; nothing was recorded.
        """
        request = request_of(
            kind,
            {**(params or {}), **parameters},
            name=name,
            needs=needs,
            limits=limits,
            inputs=inputs,
            code=code,
            env=env,
            outputs=outputs,
            expect=expect,
            after=after,
            key=key,
            priority=priority,
            tags=tags,
            note=note,
            held=held,
            force=force,
            retries=retries,
            allow_undeclared=allow_undeclared,
            on_unreachable=on_unreachable,
            takes=takes,
        )
        self._refuse_study(request)
        return self._submit([request], cwd)[0]

    def sweep(
        self,
        kind: str,
        /,
        *,
        grid: Mapping[str, Iterable[Any]],
        zip: Iterable[Iterable[str]] | Iterable[str] = (),
        exclude: Iterable[Mapping[str, Any]] = (),
        params: Mapping[str, Any] | None = None,
        at_once: int | None = None,
        max_fails: int | None = None,
        cwd: str | Path | None = None,
        **options: Unpack[Options],
    ) -> Sweep:
        """Submit a job for each cell of `grid`, in one transaction.

        Args:
            grid: axis -> values; the last axis moves fastest.
            zip: axes that go together: a group of names, or several.
            exclude: partial cells; what agrees with one is left out.
            params: what all cells share.
            at_once: how many cells may run at the same time.
            max_fails: start no further cell once more than this have failed.
            options: as of `submit`: needs, limits, after, tags, held, force, ...

        Raises:
            LabError: what was asked for cannot be; nothing was recorded.
        """
        from core.grid import Grid

        request = replace(
            request_of(kind, params or {}, **options),
            grid=Grid.of(grid, zip=zip, exclude=exclude, base=params),
            at_once=at_once,
            max_fails=max_fails,
        )
        found = self._submit([request], cwd)[0]
        assert isinstance(found, Sweep)
        return found

    def submit_study(
        self,
        study: Study | str,
        /,
        *,
        params: Mapping[str, Any] | None = None,
        cwd: str | Path | None = None,
        **options: Unpack[Options],
    ) -> Jobs:
        """Submit the jobs and sweeps of a study, in one transaction, each after what it waits for.

        Args:
            study: a `core.study.Study`, or the name of a kind that makes one of `params`.
            options: said of each node (tags, priority, needs, ...); `after` of those that wait for no other.
        """
        from lab.studies import nodes

        if isinstance(study, str):
            return self._submit([request_of(study, params or {}, **options)], cwd)
        return self._submit(nodes(study, request_of(study.name, {}, **options)), cwd)

    def submitter(self, kind: str, /, *, cwd: str | Path | None = None, **options: Unpack[Options]) -> Submitter:
        """For many single jobs of one kind: what they share is looked at once. Close it, or use it with `with`."""
        from lab.submitter import Submitter

        return Submitter(self, request_of(kind, {}, **options), Path(cwd) if cwd is not None else Path.cwd())

    def submit_file(self, path: str | Path, *, cwd: str | Path | None = None) -> Jobs:
        """Submit all jobs of a jobs file, in one transaction."""
        from lab.jobsfile import read_jobs

        return self._submit(read_jobs(Path(path)), cwd)

    def plan(self, kind: str, /, *, cwd: str | Path | None = None, **parameters: Any) -> Planned:
        """What `submit(kind, **parameters)` would do: nothing is recorded."""
        from lab.planning import Request
        from lab.submission import plan

        request = Request(kind, parameters, literal=True)
        return plan(self.home, [request], cwd=Path(cwd) if cwd is not None else Path.cwd())[0]

    def rerun(self, job: Job | int, *, force: bool = False, failed: bool = False) -> Job:
        """Submit the same job again; with `force` also when it succeeded. Of a sweep, with `failed`, what failed."""
        from lab.submission import rerun

        answer = rerun(self.home, [_id(job)], force=force, failed=failed)[0]
        self.tell()
        return self._handle(answer)

    def job(self, job_id: int) -> Job:
        """The handle of one job or sweep. Raises NotFound."""
        row = query.job(self.journal.conn, int(job_id))
        return handle(self, row)

    def jobs(
        self,
        *,
        state: JobState | str | Sequence[JobState | str] = (),
        kind: str | None = None,
        tag: str | None = None,
        limit: int | None = 100,
    ) -> Jobs:
        """The newest jobs, newest first; a sweep is one of them, and has its cells."""
        words = [state] if isinstance(state, str) else list(state)
        try:
            rows = query.jobs(
                self.journal.conn, states=tuple(JobState(w) for w in words), kind=kind, tag=tag, limit=limit, top=True
            )
        except NotFound:
            return Jobs()  # no home yet
        return Jobs(handle(self, row) for row in rows)

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
            jobs: only rows of these, and of the cells of sweeps among them.
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
        return Status(query.counts(self.journal.conn, top=True), controller_alive(self.home), lanes)

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
        self.tell()

    def watch(
        self,
        job_id: int,
        *,
        timeout: float | None,
        poll: float,
        check: bool,
        tick: Callable[[query.Job], None] | None = None,
    ) -> query.Job:
        """Block until the job has ended. Nothing is written, and Ctrl-C ends only the watching.

        Args:
            tick: told of the job as it is, some times a second.

        Raises:
            StillRunning: `timeout` seconds went by.
            JobFailed: it did not succeed, and `check` is true.
        """
        from lanes.start import ensure_controller

        began = time.monotonic()
        seen: int | None = None
        looked, ticked = began, 0.0
        row = query.job(self.journal.conn, job_id)
        while not row.state.terminal:
            now = time.monotonic()
            # Whoever follows is told at least once, however short the time.
            if timeout is not None and now >= began + timeout and (tick is None or ticked):
                raise StillRunning(f"job {job_id} is {row.state} after {timeout:g} s", hint="it goes on; wait again")
            if self._start and now - looked > 5.0:
                ensure_controller(self.home)  # somebody must be at work on it
                looked = now
            if tick is not None and now - ticked > _TICK_S:
                tick(row)
                ticked = now
            # A fiftieth of the time so far: what takes a millisecond is seen at once, what takes hours costs nothing.
            pause = min(poll, max(_SHORTEST_S, (now - began) / 50))
            time.sleep(pause if timeout is None else min(pause, max(0.0, began + timeout - now)))
            version = self.journal.data_version()
            if version != seen:
                seen = version
                row = query.job(self.journal.conn, job_id)
        if tick is not None:
            tick(row)
        if check and row.state is not JobState.SUCCEEDED:
            raise failure_of(self.journal.conn, row)
        return row

    def tell(self, bell: Bell | None = None) -> None:
        """The journal has news: see that a controller runs, and wake it (with `bell`, where the caller has one)."""
        from lanes.start import ensure_controller, wake

        if self._start:
            ensure_controller(self.home)
        bell.wake() if bell is not None else wake(self.home)

    def _submit(self, requests: Sequence[Request], cwd: str | Path | None) -> Jobs:
        from lab.submission import submit

        answers = submit(self.home, requests, cwd=Path(cwd) if cwd is not None else Path.cwd())
        self.tell()
        return Jobs(self._handle(a) for a in answers)

    def _handle(self, a: Submitted) -> Job:
        cls = Sweep if a.is_sweep else Job
        return cls(self, a.id, answer=a.answer, message=a.message)

    def _refuse_study(self, request: Request) -> None:
        """A study is several jobs, and `submit` gives one."""
        from core.kind import load_kind
        from lab.studies import study_of

        if study_of(load_kind(request.kind), request) is not None:
            hint = f"use lab.submit_study({request.kind!r}, params=...)"
            raise BadInput(f"kind {request.kind} is a study of several jobs", hint=hint)


def _id(job: Job | int) -> int:
    return job.id if isinstance(job, Job) else int(job)
