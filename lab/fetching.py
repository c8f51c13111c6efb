"""`lab fetch`: taking what was sealed elsewhere, each byte checked on the way."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import BadInput, DiskFull, JobFailed, NotFound
from core.fsio import no_space, safe_join, sha256_file
from core.home import Home
from core.journal import query
from core.journal.query import Attempt, Job
from core.rundir import RunDir
from core.states import JobState
from core.tables import Jobs
from core.tables.select import chosen
from lab.evidence import BatchFolder, batch_folders, discarded_at, listed, plain_cells, sealed_attempt
from lab.output import human
from lab.output.job import became

# What `fetch` takes unless asked for everything.
_RESULTS = ("artifacts/", "results/")


@dataclass(frozen=True)
class Fetched:
    job: int
    attempt: int | None
    folder: Path
    files: tuple[str, ...]
    bytes: int
    state: JobState


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
        raise NotFound(f"job {job_id} has nothing to fetch: it {became(job.state)}", hint=f"see `lab explain {job_id}`")
    what = "sweep" if job.is_sweep else "job"
    with _new_folder(dest) as (final, tmp):
        take = _Take(home, conn, tmp, everything)
        if job.is_sweep:
            take.sweep(job)
        elif attempt is not None and attempt.batch is not None:
            take.cell(job, attempt)
        elif attempt is not None:
            take.run(home.run_dir(job_id, attempt.n), attempt, "")
        if all(Path(name).name == "manifest.json" for name in take.files):
            if job.state is not JobState.SUCCEEDED:
                raise NotFound(
                    f"{what} {job_id} has nothing to fetch: it {became(job.state)}", hint=f"see `lab status {job_id}`"
                )
            raise NotFound(
                f"{what} {job_id} has nothing to fetch: it kept no artifacts and no tables",
                hint=f"`lab fetch {job_id} --all` copies its log and all else",
            )
    names = tuple(sorted(n for n in take.files if n != "manifest.json"))
    return Fetched(job_id, attempt.n if attempt else None, final, names, take.bytes, job.state)


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
            for cell in plain_cells(self.conn, first, last):
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
        found = listed(path) if path.is_file() and sha256_file(path) == batch.manifest else None
        if found is None:
            raise JobFailed(
                f"{path} is not the one that was committed", hint="`lab verify` says more; nothing was fetched"
            )
        for name, want in found.items():
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
    found = listed(run.manifest)
    if found is None:
        raise JobFailed(f"{run.manifest} cannot be read", hint=f"see `lab verify {attempt.job}`")
    return found


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
