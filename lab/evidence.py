"""What jobs left behind as evidence, and `lab verify`: are the bytes still those that were committed?"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from core.digests import Digests
from core.fsio import read_json, safe_join, sha256_file, walk_files
from core.home import Home
from core.journal import query
from core.journal.query import Attempt, Job
from core.rundir import SEALED_FOLDERS
from core.states import AttemptState
from core.tables import Jobs, live_parts, part_problems
from core.tables.select import chosen
from lab.output import human
from lab.output.job import became

_THREADS = min(8, os.cpu_count() or 1)


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
        check = Check(home, conn, digests)
        check.read_ahead(ids)
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


def sealed_jobs(conn: sqlite3.Connection, first: int, last: int) -> list[int]:
    """Jobs from `first` to `last` that ran by themselves, with an attempt of which the journal knows the seal."""
    return [int(r[0]) for r in conn.execute(_SEALED, (first, last))]


_SEALED = """SELECT DISTINCT a.id / 4096 FROM attempt_state a JOIN event e ON e.seq = a.ended
    WHERE a.id BETWEEN ? * 4096 AND ? * 4096 + 4095 AND e.kind = 'attempt-ended'
        AND (a.state = 'succeeded' OR e.data ->> '$.manifest' IS NOT NULL) ORDER BY 1"""
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


class Hashes:
    """SHA-256 of files as they are now. Each is read once, many at a time: hashing needs none of Python's lock."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def ahead(self, paths: Iterable[Path]) -> None:
        """Hash what is not known yet. What cannot be read is left to `of`, which says so."""
        new = [p for p in dict.fromkeys(paths) if p not in self._known]
        if len(new) > 1:
            with ThreadPoolExecutor(_THREADS) as threads:
                found = threads.map(_hash, new)
                self._known |= {p: h for p, h in zip(new, found, strict=True) if h is not None}

    def of(self, path: Path) -> str:
        """Raises OSError."""
        if path not in self._known:
            self._known[path] = sha256_file(path)
        return self._known[path]

    def __iter__(self) -> Iterator[tuple[Path, str]]:
        yield from self._known.items()


def _hash(path: Path) -> str | None:
    try:
        return sha256_file(path) if path.is_file() and not path.is_symlink() else None
    except OSError:
        return None


class Check:
    """Verification that remembers what it has hashed in this very run."""

    def __init__(self, home: Home, conn: sqlite3.Connection, digests: Digests) -> None:
        self._home, self._conn, self._digests = home, conn, digests
        self.hashes = Hashes()
        self._parts: dict[int, str | None] = {}
        self._folders: dict[str, tuple[int, list[str]]] = {}

    def read_ahead(self, ids: Sequence[int]) -> None:
        """Have all files of these jobs hashed by several threads, across their run directories."""
        paths: list[Path] = []
        for job_id in ids:
            cells = self._conn.execute("SELECT cells FROM job_state WHERE id = ?", (job_id,)).fetchone()
            if cells is None:
                continue
            for job in sealed_jobs(self._conn, job_id, job_id + (cells[0] or 0)):
                for attempt in query.attempts(self._conn, job):
                    run = self._home.run_dir(job, attempt.n)
                    paths += [run.path / name for name in listed(run.manifest) or ()]
        self.hashes.ahead(paths)

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
        files, problems, notes = self._attempts(job_id)
        if attempt is not None and attempt.batch is not None:
            n, wrong, said_too = self._batches(job_id, job_id)
            files, problems, notes = files + n, problems + wrong, notes + said_too
        if attempt is None and not (files or problems or notes):
            why = f"job {job_id} {became(job.state)}: there is nothing sealed to verify"
            return Verified(job_id, None, 0, len(parts), (why,))
        problems += self.parts(parts)
        return Verified(job_id, attempt.n if attempt else None, files, len(parts), tuple(problems), tuple(notes))

    def _attempts(self, job_id: int) -> tuple[int, list[str], list[str]]:
        """All attempts that ran by themselves and of which the journal knows the seal, failed ones too."""
        files, problems, notes = 0, list[str](), list[str]()
        for attempt in query.attempts(self._conn, job_id):
            good = attempt.state is AttemptState.SUCCEEDED
            if attempt.batch is not None or not (good or (attempt.state.terminal and attempt.manifest is not None)):
                continue
            row = self._conn.execute(_WHAT, (job_id, attempt.n)).fetchone()
            what = json.loads(row[1]) if row else []
            if "run directory" in what and not self._home.run_dir(job_id, attempt.n).path.exists():
                notes.append(f"the files of attempt {attempt.n} were discarded on {human.when(row[0])} by `lab gc`")
                continue
            n, wrong = self._run(attempt, without="checkpoints/" if "checkpoints" in what else None)
            files, problems = files + n, problems + wrong
        return files, problems, notes

    def _sweep(self, sweep: Job) -> Verified:
        jobs = chosen(self._conn, [sweep.id])
        files, problems, notes = 0, list[str](), list[str]()
        for first, last in jobs.spans:
            n, wrong, said = self._batches(first, last)
            files, problems, notes = files + n, problems + wrong, notes + said
            for cell in sealed_jobs(self._conn, first, last):
                if discarded_at(self._conn, cell) is None:
                    n, wrong, _ = self._attempts(cell)
                    files, problems = files + n, problems + wrong
        gone = sum(int(self._conn.execute(_GONE, span).fetchone()[0]) for span in jobs.spans)
        if gone:
            notes.append(f"the results of {human.count(gone, 'cell')} were discarded by `lab gc`")
        parts = live_parts(self._conn, None, jobs)
        problems += self.parts(parts)
        if not (files or parts or problems or notes):
            problems.append(f"sweep {sweep.id} {became(sweep.state)}: there is nothing sealed to verify")
        return Verified(sweep.id, None, files, len(parts), tuple(problems), tuple(notes))

    def parts(self, parts: Sequence[query.Part]) -> list[str]:
        """What is wrong with these parts of tables; several threads hash."""
        new = [p for p in parts if p.id not in self._parts]
        wrong = part_problems(self._home, self._conn, new, self._digests)
        self._parts |= {p.id: wrong.get(p.id) for p in new}
        return [p for part in parts if (p := self._parts[part.id])]

    def batch(self, batch: BatchFolder) -> tuple[int, list[str]]:
        """(files, what is wrong) of the folder of a batch."""
        if batch.dir not in self._folders:
            self._folders[batch.dir] = self._folder(batch)
        return self._folders[batch.dir]

    def _run(self, attempt: Attempt, without: str | None = None) -> tuple[int, list[str]]:
        """`without`: of what is missing, that which retention removed."""
        run = self._home.run_dir(attempt.job, attempt.n)
        if not run.manifest.is_file():
            return 0, [f"{run.manifest} is missing: nothing says what the files should be"]
        problems = []
        if attempt.manifest is not None and sha256_file(run.manifest) != attempt.manifest:
            problems.append(f"{run.manifest} is not the one that was committed")
        files = listed(run.manifest)
        if files is None:
            return 0, [*problems, f"{run.manifest} cannot be read"]
        there = {name: v for name, v in files.items() if not self._gone(run.path, name, without)}
        problems += self._files(run.path, there)
        for folder in SEALED_FOLDERS:
            if (run.path / folder).is_dir():
                names = (f"{folder}/{rel.as_posix()}" for rel in walk_files(run.path / folder))
                problems += [f"{run.path / n}: appeared after the seal" for n in names if n not in files]
        return len(there), problems

    @staticmethod
    def _gone(folder: Path, name: str, without: str | None) -> bool:
        return without is not None and name.startswith(without) and not (folder / name).exists()

    def _files(self, folder: Path, files: Mapping[str, tuple[str, int]]) -> list[str]:
        """One sentence for each file that is not as its manifest says."""
        wrong = []
        self.hashes.ahead(folder / name for name, (want, _) in files.items() if not want.startswith("link:"))
        for name, (want, size) in files.items():
            try:
                full = safe_join(folder, name)
                if want.startswith("link:"):
                    if not full.is_symlink() or f"link:{full.readlink()}" != want:
                        wrong.append(f"{full}: the link is not the one that was sealed")
                elif not full.is_file():
                    wrong.append(f"{full}: missing ({size} bytes were sealed)")
                elif self.hashes.of(full) != want:
                    wrong.append(f"{full}: the bytes differ from what was sealed")
            except (OSError, ValueError) as error:
                wrong.append(f"{folder / name}: cannot be read ({getattr(error, 'strerror', None) or error})")
        return wrong

    def _batches(self, first: int, last: int) -> tuple[int, list[str], list[str]]:
        files, problems, notes = 0, list[str](), list[str]()
        for batch in batch_folders(self._conn, first, last):
            if batch.discarded is not None:
                notes.append(f"the files of batch {batch.dir} were discarded on {human.when(batch.discarded)}")
                continue
            n, wrong = self.batch(batch)
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
        problems += self._files(folder, names)
        return len(names), problems


_WHAT = "SELECT at, what FROM discarded WHERE job = ? AND attempt = ?"
_GONE = "SELECT count(*) FROM discarded WHERE job BETWEEN ? AND ? AND attempt = 0"
