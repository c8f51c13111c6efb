"""`lab verify` and `lab fetch`: are the bytes still those that were committed, and taking them elsewhere."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.digests import Digests
from core.errors import BadInput, DiskFull, JobFailed, NotFound
from core.fsio import no_space, read_json, safe_join, sha256_file
from core.home import Home
from core.journal import query
from core.journal.query import Attempt
from core.rundir import RunDir, verify_manifest
from core.states import AttemptState
from core.tables import part_problem

# What `fetch` takes unless asked for everything.
_RESULTS = ("artifacts/", "results/")


@dataclass(frozen=True)
class Verified:
    """One job. `problems` is empty when every byte is what was committed; `files` and `parts` count what was hashed."""

    job: int
    attempt: int | None
    files: int
    parts: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class Fetched:
    job: int
    attempt: int
    folder: Path
    files: tuple[str, ...]
    bytes: int


def verify(home: Home, conn: sqlite3.Connection, ids: Sequence[int]) -> list[Verified]:
    """Hash again what the jobs left: run directory against its manifest, manifest and table parts against the journal.

    Nothing is taken from the memory of digests: that is what is being doubted.

    Raises:
        NotFound: an unknown id.
    """
    return [_verify(home, conn, job_id) for job_id in ids]


def fetch(home: Home, conn: sqlite3.Connection, job_id: int, dest: Path, *, everything: bool = False) -> Fetched:
    """Copy artifacts and results of a job to the new folder `dest`, each byte checked on the way.

    Args:
        everything: all that was sealed: log, metrics, checkpoints, environment too.

    Raises:
        NotFound: unknown id, or nothing was committed.
        BadInput: `dest` exists already: nothing is ever overwritten.
        JobFailed: a file is not what was sealed; `dest` is not made.
    """
    job = query.job(conn, job_id)
    attempt = sealed_attempt(home, conn, job_id)
    if attempt is None:
        raise NotFound(f"job {job_id} has nothing to fetch: it is {job.state}", hint=f"see `lab explain {job_id}`")
    dest = Path(os.path.abspath(dest))
    if dest.is_symlink() or (dest.exists() and not (dest.is_dir() and not any(dest.iterdir()))):
        raise BadInput(f"{dest} is there already", hint="name a new folder: nothing is overwritten")
    run = home.run_dir(job_id, attempt.n)
    manifest = _manifest(run, attempt)
    wanted = {n: v for n, v in manifest.items() if everything or n.startswith(_RESULTS)}
    tmp = dest.parent / f".{dest.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        tmp.mkdir()
        size = sum(_copy(run, tmp, name, want) for name, want in wanted.items())
        shutil.copyfile(run.manifest, tmp / "manifest.json")
        tmp.rename(dest)
    except OSError as error:
        if no_space(error):
            raise DiskFull(f"the disk of {dest.parent} is full: nothing was fetched", hint="free some space") from error
        raise BadInput(f"{dest} cannot be made: {error.strerror}", hint="name another folder") from error
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    return Fetched(job_id, attempt.n, dest, tuple(sorted(wanted)), size)


def sealed_attempt(home: Home, conn: sqlite3.Connection, job_id: int) -> Attempt | None:
    """The attempt whose files speak for the job: the committed one, else the last that was sealed."""
    attempts = query.attempts(conn, job_id)
    done = [a for a in attempts if a.state is AttemptState.SUCCEEDED]
    sealed = [a for a in attempts if a.state.terminal and home.run_dir(job_id, a.n).manifest.is_file()]
    candidates = done or sealed
    return candidates[-1] if candidates else None


def _verify(home: Home, conn: sqlite3.Connection, job_id: int) -> Verified:
    job = query.job(conn, job_id)
    attempt = sealed_attempt(home, conn, job_id)
    parts = query.parts(conn, job_id=job_id)
    if attempt is None:
        why = f"job {job_id} is {job.state}: there is nothing sealed to verify"
        return Verified(job_id, None, 0, len(parts), (why,))
    run = home.run_dir(job_id, attempt.n)
    problems: list[str] = []
    files = 0
    if not run.manifest.is_file():
        problems.append(f"{run.manifest} is missing: nothing says what the files should be")
    else:
        if attempt.manifest is not None and sha256_file(run.manifest) != attempt.manifest:
            problems.append(f"{run.manifest} is not the one that was committed")
        manifest = read_json(run.manifest)
        if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
            problems.append(f"{run.manifest} cannot be read")
        else:
            files = len(manifest["files"])
            problems += verify_manifest(run, manifest)
    with Digests(None) as digests:
        problems += [p for p in (part_problem(home, part, digests) for part in parts) if p]
    return Verified(job_id, attempt.n, files, len(parts), tuple(problems))


def _manifest(run: RunDir, attempt: Attempt) -> dict[str, tuple[str, int]]:
    if attempt.manifest is not None and (not run.manifest.is_file() or sha256_file(run.manifest) != attempt.manifest):
        raise JobFailed(
            f"the manifest of job {attempt.job} is not the one that was committed",
            hint=f"see `lab verify {attempt.job}`",
        )
    manifest = read_json(run.manifest)
    if not isinstance(manifest, dict):
        raise JobFailed(f"{run.manifest} cannot be read", hint=f"see `lab verify {attempt.job}`")
    return {str(name): (str(v[0]), int(v[1])) for name, v in manifest["files"].items()}


def _copy(run: RunDir, target: Path, name: str, want: tuple[str, int]) -> int:
    """Copy one sealed file, hashing the very bytes that are copied."""
    source, copy = safe_join(run.path, name), safe_join(target, name)
    copy.parent.mkdir(parents=True, exist_ok=True)
    differs = JobFailed(f"{source} is not what was sealed", hint="`lab verify` says more; nothing was fetched")
    if want[0].startswith("link:"):
        if not source.is_symlink() or f"link:{source.readlink()}" != want[0]:
            raise differs
        copy.symlink_to(want[0].removeprefix("link:"))
        return 0
    h = hashlib.sha256()
    try:
        with source.open("rb") as f, copy.open("xb") as out:
            while block := f.read(1 << 20):
                h.update(block)
                out.write(block)
    except FileNotFoundError:
        raise differs from None
    if h.hexdigest() != want[0]:
        raise differs
    shutil.copymode(source, copy)
    return want[1]
