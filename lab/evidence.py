"""`lab verify` and `lab fetch`: are the bytes still those that were committed, and taking them elsewhere."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from core.digests import Digests
from core.errors import BadInput, DiskFull, JobFailed, NotFound
from core.fsio import no_space, read_json, safe_join, sha256_file
from core.home import Home
from core.journal import query
from core.journal.query import Attempt, Job
from core.rundir import RunDir, verify_manifest
from core.states import AttemptState
from core.tables import Jobs, live_parts, part_problem
from core.tables.select import chosen
from lab.output import human

# What `fetch` takes unless asked for everything.
_RESULTS = ("artifacts/", "results/")


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
class Fetched:
    job: int
    attempt: int | None
    folder: Path
    files: tuple[str, ...]
    bytes: int


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


def fetch(home: Home, conn: sqlite3.Connection, job_id: int, dest: Path, *, everything: bool = False) -> Fetched:
    """Copy artifacts and results of a job to the new folder `dest`, each byte checked on the way.

    Of cells that ran in batches the rows come as Parquet, with their part of the batch's log; of a sweep all of them.

    Args:
        everything: all that was sealed: log, metrics, checkpoints, environment too.

    Raises:
        NotFound: unknown id, or nothing was committed.
        BadInput: `dest` exists already: nothing is ever overwritten.
        JobFailed: a file is not what was sealed; `dest` is not made.
    """
    job = query.job(conn, job_id)
    when = discarded_at(conn, job_id)
    if when is not None:
        raise NotFound(
            f"the results of job {job_id} were discarded on {human.when(when)} by `lab gc`",
            hint=f"`lab rerun {job_id}` makes them again",
        )
    attempt = None if job.is_sweep else sealed_attempt(home, conn, job_id)
    if attempt is None and not job.is_sweep:
        raise NotFound(f"job {job_id} has nothing to fetch: it is {job.state}", hint=f"see `lab explain {job_id}`")
    with _new_folder(dest) as (final, tmp):
        take = _Take(home, conn, tmp, everything)
        if job.is_sweep:
            take.sweep(job)
        elif attempt is not None and attempt.batch is not None:
            take.cell(job, attempt)
        elif attempt is not None:
            take.run(home.run_dir(job_id, attempt.n), attempt, "")
        if not take.files:
            raise NotFound(f"job {job_id} has nothing to fetch: it is {job.state}", hint=f"see `lab status {job_id}`")
    names = tuple(sorted(n for n in take.files if n != "manifest.json"))
    return Fetched(job_id, attempt.n if attempt else None, final, names, take.bytes)


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

# Succeeded jobs in a range that ran by themselves.
_PLAIN = """SELECT a.id / 4096 FROM attempt_state a WHERE a.id BETWEEN ? * 4096 AND ? * 4096 + 4095
    AND a.state = 'succeeded' AND a.placed NOT IN (SELECT seq FROM batch) ORDER BY a.id"""


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
            why = f"job {job_id} is {job.state}: there is nothing sealed to verify"
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
            for (cell,) in self._conn.execute(_PLAIN, (first, last)).fetchall():
                attempt = sealed_attempt(self._home, self._conn, cell)
                if attempt is not None and discarded_at(self._conn, cell) is None:
                    n, wrong = self._run(attempt)
                    files, problems = files + n, problems + wrong
        gone = sum(int(self._conn.execute(_GONE, span).fetchone()[0]) for span in jobs.spans)
        if gone:
            notes.append(f"the results of {human.count(gone, 'cell')} were discarded by `lab gc`")
        parts = live_parts(self._conn, None, jobs)
        problems += self._of_parts(parts)
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
        listed = _listed(path)
        if listed is None:
            return 0, [*problems, f"{path} cannot be read"]
        for name, (want, size) in listed.items():
            full = safe_join(folder, name)
            if not full.is_file():
                problems.append(f"{full}: missing ({size} bytes were sealed)")
            elif sha256_file(full) != want:
                problems.append(f"{full}: the bytes differ from what was sealed")
        return len(listed), problems


_GONE = "SELECT count(*) FROM discarded WHERE job BETWEEN ? AND ? AND attempt = 0"


@dataclass
class _Take:
    """Copies into a folder that is not there yet."""

    home: Home
    conn: sqlite3.Connection
    target: Path
    everything: bool
    files: list[str] = field(default_factory=list)
    bytes: int = 0

    def sweep(self, sweep: Job) -> None:
        jobs = chosen(self.conn, [sweep.id])
        self._rows(jobs, sweep)
        for first, last in jobs.spans:
            for batch in batch_folders(self.conn, first, last):
                self._batch(batch, ("log.txt", "log.idx"), f"batches/{batch.dir}/")
            for (cell,) in self.conn.execute(_PLAIN, (first, last)).fetchall():
                attempt = sealed_attempt(self.home, self.conn, cell)
                if attempt is not None and discarded_at(self.conn, cell) is None:
                    self.run(self.home.run_dir(cell, attempt.n), attempt, f"cells/{cell}/")

    def cell(self, job: Job, attempt: Attempt) -> None:
        from lab.batchlog import Slices, where

        self._rows(Jobs.of([job.id]), job)
        for batch in batch_folders(self.conn, job.id, job.id):
            if self.everything:
                self._batch(batch, (), "batch/")
            else:
                self._batch(batch, ("log.txt", "log.idx"), None)
        found = where(self.home, self.conn, job, attempt.n)
        text = found.read() if isinstance(found, Slices) else b""
        if text:
            (self.target / "log.txt").write_bytes(text)
            self._took("log.txt", len(text))

    def run(self, run: RunDir, attempt: Attempt, below: str) -> None:
        manifest = _manifest(run, attempt)
        wanted = {n: v for n, v in manifest.items() if self.everything or n.startswith(_RESULTS)}
        for name, want in wanted.items():
            self._took(below + name, _copy(run.path, self.target / below, name, want))
        (self.target / below).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run.manifest, self.target / below / "manifest.json")
        self._took(f"{below}manifest.json", 0)

    def _rows(self, jobs: Jobs, job: Job) -> None:
        from core.tables import Choice, stream, tables_of
        from lab import axes, exports

        names = axes.axes_of(self.conn, [job.id]) if job.is_sweep else ()
        beside = axes.parameter_table(self.conn, jobs, names) if names else None
        for table in tables_of(self.conn, jobs):
            notes: list[str] = []
            path = self.target / "results" / f"{table}.parquet"
            path.parent.mkdir(exist_ok=True)
            with stream(self.home, self.conn, Choice(table, jobs, beside, first=names), warnings=notes) as rows:
                if notes:
                    raise JobFailed(notes[0], hint="`lab verify` says more; nothing was fetched")
                with path.open("xb") as out:
                    count = exports.write(rows, "parquet", out)
            if not count and not job.is_sweep:
                path.unlink()  # a part of many jobs spans ids that have no rows in it
            else:
                self._took(f"results/{table}.parquet", path.stat().st_size)

    def _batch(self, batch: BatchFolder, names: Sequence[str], below: str | None) -> None:
        """Copy files of a batch, all if none is named; `below` None: only check them."""
        if batch.discarded is not None or batch.manifest is None:
            return
        folder = self.home.batches / batch.dir
        path = folder / "manifest.json"
        listed = _listed(path) if path.is_file() and sha256_file(path) == batch.manifest else None
        if listed is None:
            raise JobFailed(
                f"{path} is not the one that was committed", hint="`lab verify` says more; nothing was fetched"
            )
        for name, want in listed.items():
            if names and name not in names and not self.everything:
                continue
            if below is None:
                if not (folder / name).is_file() or sha256_file(folder / name) != want[0]:
                    raise _differs(folder / name)
            elif want[1]:
                self._took(below + name, _copy(folder, self.target / below, name, want))

    def _took(self, name: str, size: int) -> None:
        self.files.append(name)
        self.bytes += size


@contextmanager
def _new_folder(dest: Path) -> Iterator[tuple[Path, Path]]:
    """(where it will be, where to put things): there whole or not at all."""
    dest = Path(os.path.abspath(dest))
    if dest.is_symlink() or (dest.exists() and not (dest.is_dir() and not any(dest.iterdir()))):
        raise BadInput(f"{dest} is there already", hint="name a new folder: nothing is overwritten")
    tmp = dest.parent / f".{dest.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        tmp.mkdir()
        yield dest, tmp
        tmp.rename(dest)
    except OSError as error:
        if no_space(error):
            raise DiskFull(f"the disk of {dest.parent} is full: nothing was fetched", hint="free some space") from error
        raise BadInput(f"{dest} cannot be made: {error.strerror}", hint="name another folder") from error
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def _manifest(run: RunDir, attempt: Attempt) -> dict[str, tuple[str, int]]:
    if attempt.manifest is not None and (not run.manifest.is_file() or sha256_file(run.manifest) != attempt.manifest):
        raise JobFailed(
            f"the manifest of job {attempt.job} is not the one that was committed",
            hint=f"see `lab verify {attempt.job}`",
        )
    listed = _listed(run.manifest)
    if listed is None:
        raise JobFailed(f"{run.manifest} cannot be read", hint=f"see `lab verify {attempt.job}`")
    return listed


def _listed(manifest: Path) -> dict[str, tuple[str, int]] | None:
    """Name -> (digest, bytes), as a manifest says it; None when it cannot be read."""
    found = read_json(manifest)
    try:
        return {str(name): (str(v[0]), int(v[1])) for name, v in found["files"].items()}
    except (TypeError, KeyError, AttributeError, ValueError, IndexError):
        return None


def _copy(folder: Path, target: Path, name: str, want: tuple[str, int]) -> int:
    """Copy one sealed file, hashing the very bytes that are copied."""
    source, copy = safe_join(folder, name), safe_join(target, name)
    copy.parent.mkdir(parents=True, exist_ok=True)
    if want[0].startswith("link:"):
        if not source.is_symlink() or f"link:{source.readlink()}" != want[0]:
            raise _differs(source)
        copy.symlink_to(want[0].removeprefix("link:"))
        return 0
    h = hashlib.sha256()
    try:
        with source.open("rb") as f, copy.open("xb") as out:
            while block := f.read(1 << 20):
                h.update(block)
                out.write(block)
    except FileNotFoundError:
        raise _differs(source) from None
    if h.hexdigest() != want[0]:
        raise _differs(source)
    shutil.copymode(source, copy)
    return want[1]


def _differs(source: Path) -> JobFailed:
    return JobFailed(f"{source} is not what was sealed", hint="`lab verify` says more; nothing was fetched")
