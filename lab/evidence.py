"""What jobs left behind as evidence, and `lab verify`: are the bytes still those that were committed?"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.digests import Digests
from core.fsio import read_json, safe_join, sha256_file
from core.home import Home
from core.journal import query
from core.journal.query import Attempt, Job
from core.rundir import verify_manifest
from core.states import AttemptState
from core.tables import Jobs, live_parts, part_problem
from core.tables.select import chosen
from lab.output import human
from lab.output.job import became


@dataclass(frozen=True)
class Verified:
    """One job or sweep. `problems` is empty when every byte is what was committed.

    Attributes:
        attempt: the committed one; None for a sweep.
        files, parts: how many were hashed.
        notes: what `lab gc` removed, and when.
    """

    job: int
    attempt: int | None
    files: int
    parts: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class BatchFolder:
    """The run directory of a batch, and what the journal says of its manifest.

    Attributes:
        discarded: when retention removed it; None: it should be there.
    """

    dir: str
    manifest: str | None
    discarded: float | None


def verify(home: Home, conn: sqlite3.Connection, ids: Sequence[int]) -> list[Verified]:
    """Hash again what the jobs left: run directory against its manifest, manifest and table parts against the journal.

    A sweep is verified with all its cells. Nothing is taken from the memory of digests: that is what is being doubted;
    what several jobs share is hashed once.

    Raises:
        NotFound: an unknown id.
    """
    with Digests(None) as digests:
        check = _Check(home, conn, digests)
        return [check.job(job_id) for job_id in ids]


def sealed_attempt(home: Home, conn: sqlite3.Connection, job_id: int) -> Attempt | None:
    """The attempt whose files speak for the job: the committed one, else the last that was sealed."""
    attempts = query.attempts(conn, job_id)
    done = [a for a in attempts if a.state is AttemptState.SUCCEEDED]
    sealed = [a for a in attempts if a.state.terminal and home.run_dir(job_id, a.n).manifest.is_file()]
    candidates = done or sealed
    return candidates[-1] if candidates else None


def discarded_at(conn: sqlite3.Connection, job_id: int, attempt: int = 0) -> float | None:
    """When retention removed what a job found out, or (`attempt`) the files of one attempt."""
    row = conn.execute("SELECT at FROM discarded WHERE job = ? AND attempt = ?", (job_id, attempt)).fetchone()
    return float(row[0]) if row else None


def batch_folders(conn: sqlite3.Connection, first: int, last: int) -> list[BatchFolder]:
    """The batches in which the jobs from `first` to `last` succeeded."""
    return [BatchFolder(str(r[0]), r[1], r[2]) for r in conn.execute(_BATCHES, (first, last))]


_BATCHES = """SELECT b.dir, e.data ->> '$.manifest', d.at
    FROM (SELECT DISTINCT placed FROM attempt_state
          WHERE id BETWEEN ? * 4096 AND ? * 4096 + 4095 AND state = 'succeeded') a
    JOIN batch b ON b.seq = a.placed JOIN event p ON p.seq = b.seq LEFT JOIN event e ON e.seq = b.ended
    LEFT JOIN discarded d ON d.job = p.data ->> '$.cells[0][0]' AND d.attempt = p.data ->> '$.cells[0][2]'
        AND instr(d.what, '"batch ' || b.dir || '"')
    ORDER BY b.seq"""


def batch_discarded(conn: sqlite3.Connection, name: str) -> float | None:
    """When retention removed the folder of a batch."""
    row = conn.execute(_BATCH_GONE, (name,)).fetchone()
    return float(row[0]) if row else None


def plain_cells(conn: sqlite3.Connection, first: int, last: int) -> list[int]:
    """Jobs from `first` to `last` that succeeded and ran by themselves."""
    return [int(r[0]) for r in conn.execute(_PLAIN, (first, last))]


_BATCH_GONE = """SELECT d.at FROM batch b JOIN event p ON p.seq = b.seq
    JOIN discarded d ON d.job = p.data ->> '$.cells[0][0]' AND d.attempt = p.data ->> '$.cells[0][2]'
        AND instr(d.what, '"batch ' || b.dir || '"')
    WHERE b.dir = ?"""
_PLAIN = """SELECT a.id / 4096 FROM attempt_state a WHERE a.id BETWEEN ? * 4096 AND ? * 4096 + 4095
    AND a.state = 'succeeded' AND a.placed NOT IN (SELECT seq FROM batch) ORDER BY a.id"""


def listed(manifest: Path) -> dict[str, tuple[str, int]] | None:
    """Name -> (digest, bytes), as a manifest says it; None when it cannot be read."""
    found = read_json(manifest)
    try:
        return {str(name): (str(v[0]), int(v[1])) for name, v in found["files"].items()}
    except (TypeError, KeyError, AttributeError, ValueError, IndexError):
        return None


class _Check:
    """Verification that remembers what it has hashed in this very run."""

    def __init__(self, home: Home, conn: sqlite3.Connection, digests: Digests) -> None:
        self._home, self._conn, self._digests = home, conn, digests
        self._parts: dict[int, str | None] = {}
        self._folders: dict[str, tuple[int, list[str]]] = {}

    def job(self, job_id: int) -> Verified:
        job = query.job(self._conn, job_id)
        if job.is_sweep:
            return self._sweep(job)
        attempt = sealed_attempt(self._home, self._conn, job_id)
        parts = live_parts(self._conn, None, Jobs.of([job_id]))
        when = discarded_at(self._conn, job_id)
        if when is not None:
            said = f"its results were discarded on {human.when(when)} by `lab gc`"
            return Verified(job_id, attempt.n if attempt else None, 0, 0, (), (said,))
        if attempt is None:
            why = f"job {job_id} {became(job.state)}: there is nothing sealed to verify"
            return Verified(job_id, None, 0, len(parts), (why,))
        if attempt.batch is not None:
            files, problems, notes = self._batches(job_id, job_id)
        else:
            gone = discarded_at(self._conn, job_id, attempt.n)
            if gone is not None and not self._home.run_dir(job_id, attempt.n).path.exists():
                said = f"its files were discarded on {human.when(gone)} by `lab gc`"
                return Verified(job_id, attempt.n, 0, 0, (), (said,))
            files, problems = self._run(attempt)
            notes = []
        problems += self._of_parts(parts)
        return Verified(job_id, attempt.n, files, len(parts), tuple(problems), tuple(notes))

    def _sweep(self, sweep: Job) -> Verified:
        jobs = chosen(self._conn, [sweep.id])
        files, problems, notes = 0, list[str](), list[str]()
        for first, last in jobs.spans:
            n, wrong, said = self._batches(first, last)
            files, problems, notes = files + n, problems + wrong, notes + said
            for cell in plain_cells(self._conn, first, last):
                attempt = sealed_attempt(self._home, self._conn, cell)
                if attempt is not None and discarded_at(self._conn, cell) is None:
                    n, wrong = self._run(attempt)
                    files, problems = files + n, problems + wrong
        gone = sum(int(self._conn.execute(_GONE, span).fetchone()[0]) for span in jobs.spans)
        if gone:
            notes.append(f"the results of {human.count(gone, 'cell')} were discarded by `lab gc`")
        parts = live_parts(self._conn, None, jobs)
        problems += self._of_parts(parts)
        if not (files or parts or problems or notes):
            problems.append(f"sweep {sweep.id} {became(sweep.state)}: there is nothing sealed to verify")
        return Verified(sweep.id, None, files, len(parts), tuple(problems), tuple(notes))

    def _of_parts(self, parts: Sequence[query.Part]) -> list[str]:
        for part in parts:
            if part.id not in self._parts:
                self._parts[part.id] = part_problem(self._home, self._conn, part, self._digests)
        return [p for part in parts if (p := self._parts[part.id])]

    def _run(self, attempt: Attempt) -> tuple[int, list[str]]:
        run = self._home.run_dir(attempt.job, attempt.n)
        if not run.manifest.is_file():
            return 0, [f"{run.manifest} is missing: nothing says what the files should be"]
        problems = []
        if attempt.manifest is not None and sha256_file(run.manifest) != attempt.manifest:
            problems.append(f"{run.manifest} is not the one that was committed")
        manifest = read_json(run.manifest)
        if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
            return 0, [*problems, f"{run.manifest} cannot be read"]
        return len(manifest["files"]), problems + verify_manifest(run, manifest)

    def _batches(self, first: int, last: int) -> tuple[int, list[str], list[str]]:
        files, problems, notes = 0, list[str](), list[str]()
        for batch in batch_folders(self._conn, first, last):
            if batch.discarded is not None:
                notes.append(f"the files of batch {batch.dir} were discarded on {human.when(batch.discarded)}")
                continue
            if batch.dir not in self._folders:
                self._folders[batch.dir] = self._folder(batch)
            n, wrong = self._folders[batch.dir]
            files, problems = files + n, problems + wrong
        return files, problems, notes

    def _folder(self, batch: BatchFolder) -> tuple[int, list[str]]:
        folder = self._home.batches / batch.dir
        path = folder / "manifest.json"
        if batch.manifest is None:
            return 0, []  # nobody could seal it: its rows are all that there is
        if not path.is_file():
            return 0, [f"{path} is missing: nothing says what the files should be"]
        problems = []
        if sha256_file(path) != batch.manifest:
            problems.append(f"{path} is not the one that was committed")
        names = listed(path)
        if names is None:
            return 0, [*problems, f"{path} cannot be read"]
        for name, (want, size) in names.items():
            full = safe_join(folder, name)
            if not full.is_file():
                problems.append(f"{full}: missing ({size} bytes were sealed)")
            elif sha256_file(full) != want:
                problems.append(f"{full}: the bytes differ from what was sealed")
        return len(names), problems


_GONE = "SELECT count(*) FROM discarded WHERE job BETWEEN ? AND ? AND attempt = 0"
