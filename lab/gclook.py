"""What retention may remove: the home looked at, and nothing changed."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.home import Home
from core.retention import Quota
from core.tables import RESULTS
from lab.held import Because, held
from lab.pins import pinned

DAY_S = 86400.0
FRESH_S = 3600.0  # what somebody may still be writing is younger
_PART = re.compile(r"^(\d+)-(\d+)\.parquet$")


@dataclass(frozen=True)
class Limits:
    """What is old enough.

    Attributes:
        older_than_s: files of attempts that did not succeed, batch folders, scratch of such attempts.
        scratch_s: working folders and superseded checkpoints of jobs that succeeded: nothing needs them.
        results_older_than_s: results and files of succeeded jobs; None: never.
        keep_last: so many of the newest finished jobs are left alone.
        keep_answers: jobs stay that answer the cache; None: from quotas, not from an age that was named.
        quotas: how much may stay, of kinds and in all.
    """

    older_than_s: float = 30 * DAY_S
    scratch_s: float = DAY_S
    results_older_than_s: float | None = None
    keep_last: int = 0
    keep_answers: bool | None = None
    quotas: tuple[Quota, ...] = ()


@dataclass(frozen=True)
class Item:
    """One thing to remove.

    Attributes:
        sort: its class, in words that people read.
        paths: relative to the home; empty where only rows go.
        job: whose it is; None: nobody's.
        attempt: of that job; 0: the job as a whole. With a job, its removal is recorded in the journal if `recorded`.
        by_quota: its age would not have it go.
    """

    sort: str
    paths: tuple[str, ...]
    bytes: int
    job: int | None = None
    attempt: int = 0
    what: tuple[str, ...] = ()
    by_quota: bool = False

    @property
    def recorded(self) -> bool:
        return bool(self.what)


SCRATCH, FAILED, CHECKPOINTS = "working folders", "attempts that did not succeed", "superseded checkpoints"
BATCHES, LEFT, PARTS, CODE = "batch folders", "leftovers", "table files that nothing lists", "code that no job names"
RESULTS_OF, LIVE, DAMAGED = "results", "live rows", "damaged copies"
RUNS = "folders of `lab run`"


class Look:
    """The home as it is at one moment."""

    def __init__(self, home: Home, conn: sqlite3.Connection, limits: Limits, now: float) -> None:
        self._home, self._conn, self._limits, self.now = home, conn, limits, now
        self.held = held(home, conn, pinned(home, conn), keep_last=limits.keep_last)

    def ageless(self) -> Look:
        """The same look, for quotas: nothing is too young for one, and what answers stays unless told otherwise."""
        answers = self._limits.keep_answers is not False
        limits = replace(self._limits, older_than_s=0.0, scratch_s=0.0, results_older_than_s=0.0, keep_answers=answers)
        look = copy.copy(self)
        look._limits = limits
        return look

    def everything(self) -> Iterator[Item]:
        results = list(self._results())
        yield from self._attempts({i.job for i in results})
        yield from self._batches()
        yield from results
        yield from self._tables()
        yield from self._code()
        yield from self._leftovers()
        yield from self._live()

    def candidates(self) -> Iterator[Item]:
        """What a quota may take: everything of jobs that have ended, unless something holds it."""
        look = self.ageless()
        # Cells of batches have no files of their own: what would go with their results frees nothing at once.
        own = numbers(self._home.attempts)
        found = [*look._attempts(set()), *look._batches(), *look._results(own)]
        yield from (replace(i, by_quota=True) for i in found if i.job is not None and i.sort != LEFT)

    def still(self, item: Item) -> bool:
        """May it go, looked at again?"""
        if item.by_quota:
            return self.ageless().still(replace(item, by_quota=False))
        if item.sort in (SCRATCH, FAILED, CHECKPOINTS) and item.job is not None:
            return any(i.sort == item.sort and i.paths == item.paths for i in self._attempt(item.job, item.attempt))
        if item.sort == RESULTS_OF and item.job is not None:
            return self._may_discard(item.job)
        if item.sort == PARTS:
            return self._unlisted(self._home.path / item.paths[0])
        if item.sort == CODE:
            return Path(item.paths[0]).name not in self._stores() and self._age(self._home.path / item.paths[0]) > DAY_S
        if item.sort == BATCHES:
            return self._batch_may_go(Path(item.paths[0]).name)
        return True

    # Attempts.

    def _attempts(self, whole: set[int | None]) -> Iterator[Item]:
        """`whole`: jobs of which everything goes as it is."""
        for job in numbers(self._home.attempts):
            if job in whole:
                continue
            if self._discarded(job):  # recorded, and then somebody killed us
                yield self._item(LEFT, [f"attempts/{job}"], job)
            else:
                for n in numbers(self._home.attempts / str(job)):
                    yield from self._attempt(job, n)

    def _attempt(self, job: int, n: int) -> Iterator[Item]:
        row = self._conn.execute(_ATTEMPT, (job, job * 4096 + n)).fetchone()
        if row is None or self._stays(job) or not (self._home.attempts / str(job) / str(n)).is_dir():
            return
        job_state, attempt_state, at, job_ended = row
        if at is None:  # it runs
            return
        age, folder = self.now - at, f"attempts/{job}/{n}"
        good = attempt_state == "succeeded"
        if not good and job_ended is not None and age > self._limits.older_than_s:
            yield self._item(FAILED, [folder], job, n, ("run directory",))
            return
        scratch = [f"{folder}/{name}" for name in ("work", "tmp", "inputs") if self._there(f"{folder}/{name}")]
        if scratch and age > (self._limits.scratch_s if good else self._limits.older_than_s):
            found = self._item(SCRATCH, scratch, job, n)
            if found.bytes:
                yield found
        if not good and job_state == "succeeded" and age > self._limits.scratch_s:
            found = self._item(CHECKPOINTS, [f"{folder}/checkpoints"], job, n, ("checkpoints",))
            if found.bytes:
                yield found

    def _batches(self) -> Iterator[Item]:
        known = {}
        for name, ended, data in self._conn.execute(_ALL_BATCHES):
            known[name] = ended, data
        for path in sorted(self._folders(self._home.batches)):
            if path.name.startswith("."):  # made ahead by workers, who put them away when they end
                old = [p for p in self._folders(path) if self._age(p) > DAY_S]
                yield from (self._item(LEFT, [self._rel(p)]) for p in sorted(old))
            elif path.name not in known:
                # A second copy of a batch is no row until it has won. One that lives writes in its folder.
                if min(self._age(p) for p in (path, *path.iterdir())) > DAY_S:
                    yield self._item(LEFT, [f"batches/{path.name}"])
            elif self._batch_may_go(path.name):
                first, _, n = json.loads(known[path.name][1])["cells"][0]
                yield self._item(BATCHES, [f"batches/{path.name}"], first, n, (f"batch {path.name}",))

    def _batch_may_go(self, name: str) -> bool:
        """It is over and old, all its cells have ended, and no row of it is still in the journal."""
        row = self._conn.execute(f"{_ALL_BATCHES} WHERE b.dir = ?", (name,)).fetchone()
        if row is None or row[1] is None or self.now - row[1] <= self._limits.older_than_s:
            return False
        for first, last, _ in json.loads(row[2])["cells"]:
            if self.held.newest.meets(first, last) or self.held.any_pinned(first, last):
                return False
            if self._conn.execute(_UNFINISHED, (first, last, first, last)).fetchone()[0]:
                return False
        return True

    # Results.

    def _results(self, only: Sequence[int] | None = None) -> Iterator[Item]:
        """Of all jobs, or of these."""
        if self._limits.results_older_than_s is None:
            return
        cutoff = self.now - self._limits.results_older_than_s
        sql, args = _OLD_RESULTS, tuple[float | str, ...]((cutoff, cutoff))
        if only is not None:
            sql, args = f"{sql} AND s.id IN (SELECT value FROM json_each(?))", (*args, json.dumps(only))
        for (job,) in self._conn.execute(sql, args).fetchall():
            if self.why(job) is not None:
                continue
            run = [f"attempts/{job}"] if self._there(f"attempts/{job}") else []
            parts = self._conn.execute("SELECT path FROM part WHERE first = ? AND last = ? AND path != ''", (job, job))
            files = [f"tables/{r[0]}" for r in parts]
            yield self._item(RESULTS_OF, [*run, *files], job, 0, ("files", RESULTS))

    def _may_discard(self, job: int) -> bool:
        if self._limits.results_older_than_s is None or self.why(job) is not None:
            return False
        cutoff = self.now - self._limits.results_older_than_s
        return self._conn.execute(f"{_OLD_RESULTS} AND s.id = ?", (cutoff, cutoff, job)).fetchone() is not None

    # What is nobody's.

    def _tables(self) -> Iterator[Item]:
        for folder in sorted(self._folders(self._home.tables)):
            for path in sorted(folder.iterdir()):
                if path.is_file() and not path.name.startswith(".") and self._unlisted(path):
                    yield self._item(PARTS, [self._rel(path)])

    def _unlisted(self, path: Path) -> bool:
        if self._age(path) <= FRESH_S:
            return False
        name = path.relative_to(self._home.tables).as_posix()
        if self._conn.execute("SELECT 1 FROM part WHERE path = ?", (name,)).fetchone():
            # Its rows were discarded: nothing reads it, and the compactor will take it off the list.
            found = _PART.match(path.name)
            return found is not None and self._discarded(int(found[1]))
        found = _PART.match(path.name)
        if found is None:
            return True
        # Written, and about to be committed, for as long as its attempt is open.
        sql = "SELECT 1 FROM attempt_state WHERE id = ? AND ended IS NULL"
        return self._conn.execute(sql, (int(found[1]) * 4096 + int(found[2]),)).fetchone() is None

    def _discarded(self, job: int) -> bool:
        sql = "SELECT 1 FROM discarded WHERE job = ? AND attempt = 0"
        return self._conn.execute(sql, (job,)).fetchone() is not None

    def _code(self) -> Iterator[Item]:
        stores = self._stores()
        for path in sorted(self._folders(self._home.code)):
            if path.name.startswith(".damaged"):
                if self._age(path) > self._limits.older_than_s:
                    yield self._item(DAMAGED, [self._rel(path)])
            elif not path.name.startswith(".") and path.name not in stores and self._age(path) > DAY_S:
                yield self._item(CODE, [self._rel(path)])

    def _stores(self) -> set[str]:
        """Snapshots that any spec of the journal names."""
        sql = "SELECT data ->> '$.code.store', data ->> '$.kind_code.store' FROM spec"
        return {str(s) for row in self._conn.execute(sql) for s in row if s}

    def _leftovers(self) -> Iterator[Item]:
        home = self._home
        places = [home.path, home.code, home.backups, home.lanes, *self._folders(home.tables)]
        for place in places:
            for path in sorted(place.iterdir()) if place.is_dir() else ():
                if path.name.startswith(".") and path.name.endswith(".tmp") and self._age(path) > FRESH_S:
                    yield self._item(LEFT, [self._rel(path)])
        for path in sorted(home.path.glob("damaged-*")):
            if path.is_dir() and self._age(path) > self._limits.older_than_s:
                yield self._item(DAMAGED, [self._rel(path)])
        for path in sorted(self._folders(home.runs)):
            if self._age(path) > self._limits.older_than_s:
                yield self._item(RUNS, [self._rel(path)])

    def _live(self) -> Iterator[Item]:
        rows, size = 0, 0
        with live_db(self._home) as live:
            if live is not None:
                old = json.dumps(self.old_attempts())
                rows, size = live.execute(_COUNT_LIVE, (old,)).fetchone()
        if rows:
            yield Item(LIVE, (), size or 0)

    def old_attempts(self) -> list[int]:
        """Attempts that ended long ago, as job * 4096 + n."""
        sql = """SELECT a.id FROM attempt_state a JOIN event e ON e.seq = a.ended JOIN job_state s ON s.id = a.id / 4096
            WHERE e.at < ? AND s.ended IS NOT NULL AND e.kind = 'attempt-ended'"""
        return [int(r[0]) for r in self._conn.execute(sql, (self.now - self._limits.older_than_s,))]

    # Helpers.

    def _stays(self, job: int) -> bool:
        """Is nothing of it to go?"""
        return self.held.kept(job) is not None or self.held.pinned(job) is not None

    def why(self, job: int) -> tuple[Because, str] | None:
        """Why the results of a job stay; None: they may go."""
        return self.held.why(job, keep_answers=bool(self._limits.keep_answers))

    def _item(
        self, sort: str, paths: Sequence[str], job: int | None = None, n: int = 0, what: Iterable[str] = ()
    ) -> Item:
        size = sum(folder_size(self._home.path / p) for p in paths)
        return Item(sort, tuple(paths), size, job, n, tuple(what))

    def _age(self, path: Path) -> float:
        try:
            return self.now - path.lstat().st_mtime
        except OSError:
            return 0.0

    def _there(self, path: str) -> bool:
        return os.path.lexists(self._home.path / path)

    def _rel(self, path: Path) -> str:
        return path.relative_to(self._home.path).as_posix()

    @staticmethod
    def _folders(place: Path) -> list[Path]:
        return [p for p in place.iterdir() if p.is_dir() and not p.is_symlink()] if place.is_dir() else []


# (job's state, attempt's state, when the attempt ended, when the job did)
_ATTEMPT = """SELECT s.state, a.state, e.at, s.ended
    FROM job_state s, attempt_state a LEFT JOIN event e ON e.seq = a.ended WHERE s.id = ? AND a.id = ?"""
_ALL_BATCHES = """SELECT b.dir, e.at, p.data FROM batch b JOIN event p ON p.seq = b.seq
    LEFT JOIN event e ON e.seq = b.ended"""
_UNFINISHED = """SELECT EXISTS (SELECT 1 FROM job_state WHERE id BETWEEN ? AND ? AND ended IS NULL)
    OR EXISTS (SELECT 1 FROM part WHERE path = '' AND last >= ? AND first <= ?)"""
# Succeeded jobs; not what answers a cell of a sweep that is younger or still runs, nor what another job waits for.
_OLD_RESULTS = """SELECT s.id FROM job_state s WHERE s.state = 'succeeded' AND s.cells IS NULL AND s.ended < ?
    AND NOT EXISTS (SELECT 1 FROM discarded d WHERE d.job = s.id AND d.attempt = 0)
    AND NOT EXISTS (SELECT 1 FROM member m JOIN job_state w ON w.id = m.sweep
                    WHERE m.job = s.id AND (w.ended IS NULL OR w.ended >= ?))
    AND NOT EXISTS (SELECT 1 FROM job_state w WHERE w.id = s.sweep AND w.ended IS NULL)
    AND NOT EXISTS (SELECT 1 FROM dep d JOIN job_state w ON w.id = d.job WHERE d.needs = s.id AND w.ended IS NULL)"""
OLD_LIVE = "job * 4096 + attempt IN (SELECT value FROM json_each(?1))"
_COUNT_LIVE = f"SELECT count(*), sum(length(data)) FROM metric WHERE {OLD_LIVE}"


@contextlib.contextmanager
def live_db(home: Home) -> Iterator[sqlite3.Connection | None]:
    """live.db, which may be missing or anything at all: then there is nothing to do."""
    conn = None
    try:
        if home.live.is_file():
            conn = sqlite3.connect(home.live, timeout=2.0, isolation_level=None)
            conn.execute(_COUNT_LIVE, ("[]",)).fetchone()
    except sqlite3.Error:
        if conn is not None:
            conn.close()
        conn = None
    try:
        yield conn
    finally:
        if conn is not None:
            conn.close()


def numbers(folder: Path) -> list[int]:
    """The folders in it that are called by a number, in order."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def folder_size(path: Path) -> int:
    """Bytes of a file, or of everything below a folder; links are not followed."""
    total = 0
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
    for here, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{here}/{name}").st_size  # noqa: PTH116 - many
    return total
