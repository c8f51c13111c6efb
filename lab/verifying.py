"""`lab verify` of the whole home: every job, and beside the jobs all that their results rest on.

The journal is read page by page, and its state compared with what its events say; parts of tables, folders of batches
and stored code are hashed; what a job took from another is compared with what that one holds; what is pinned must be
there; and what is remembered of digests must not take changed bytes for unchanged.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from core.digests import Digests
from core.fsio import digest, read_json, walk_files
from core.home import Home
from core.journal.apply import replay
from core.journal.schema import STATE_TABLE_NAMES, create_state, drop_state
from core.made import NotThere, content, standing
from core.tables import live_parts
from lab.evidence import BatchFolder, Check, Verified
from lab.gclook import FRESH_S
from lab.pins import pinned

_MOST = 20  # sentences about one table of the journal


@dataclass(frozen=True)
class Section:
    """One sort of thing beside the jobs. `problems` is empty when all of it is as it should be.

    Attributes:
        what: one of them, as people call it.
        checked: how many of them were looked at.
        notes: what is odd and harms nothing.
    """

    what: str
    checked: int
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Whole:
    jobs: tuple[Verified, ...]
    sections: tuple[Section, ...]

    @property
    def ok(self) -> bool:
        return all(v.ok for v in self.jobs) and not any(s.problems for s in self.sections)


def whole(home: Home, conn: sqlite3.Connection) -> Whole:
    """Verify everything. Reads only; what goes on meanwhile is no difference."""
    ids = [int(r[0]) for r in conn.execute(_ALL)]
    with Digests(None) as digests:
        check = Check(home, conn, digests)
        check.read_ahead(ids)
        jobs = [check.job(i) for i in ids]
        sections = [
            _journal(conn),
            _tables(home, conn, check),
            _batches(home, conn, check),
            _code(home, conn, check),
            _taken(home, conn),
            _pins(home, conn),
        ]
        sections.append(_memory(home, check))
        # What was compacted or discarded while we looked is looked at once more, as it is now.
        if any(not v.ok for v in jobs):
            again = Check(home, conn, digests)
            jobs = [v if v.ok else again.job(v.job) for v in jobs]
    told = {p for v in jobs for p in v.problems}
    sections = [replace(s, problems=tuple(p for p in s.problems if p not in told)) for s in sections]
    return Whole(tuple(jobs), tuple(sections))


def _journal(conn: sqlite3.Connection) -> Section:
    """Every page and index; and the state of every job, which must be what its events say."""
    problems = [f"the journal: {r[0]}" for r in conn.execute(f"PRAGMA integrity_check({_MOST})") if r[0] != "ok"]
    events = int(conn.execute("SELECT count(*) FROM event").fetchone()[0])
    if not problems:
        problems = list(_unlike_its_events(conn))
    return Section("event", events, tuple(problems))


def _unlike_its_events(conn: sqlite3.Connection) -> Iterator[str]:
    """A copy is rebuilt from the events alone and compared, table by table."""
    with tempfile.TemporaryDirectory(prefix="lab-verify-") as folder:
        file = Path(folder) / "journal.db"
        file.touch(0o600)
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as copy:
            conn.backup(copy)
            copy.execute("PRAGMA synchronous = OFF")
            copy.execute("BEGIN")
            tables = [n for n in STATE_TABLE_NAMES if copy.execute(_IS_THERE, (n,)).fetchone()]
            for name in tables:
                copy.execute(f"CREATE TEMP TABLE was_{name} AS SELECT * FROM {name}")
            drop_state(copy)
            create_state(copy)
            replay(copy)
            for name in tables:
                for verb, a, b in (("has", f"temp.was_{name}", name), ("lacks", name, f"temp.was_{name}")):
                    sql = f"SELECT * FROM {a} EXCEPT SELECT * FROM {b} LIMIT {_MOST}"
                    for row in copy.execute(sql):
                        said = ", ".join(str(v) for v in row if v is not None)[:120]
                        yield f"the journal's table {name} {verb} a row that its events {_SAY[verb]}: {said}"
            copy.execute("ROLLBACK")


_IS_THERE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
_SAY = {"has": "do not tell of", "lacks": "tell of"}


def _tables(home: Home, conn: sqlite3.Connection, check: Check) -> Section:
    """Every part that is listed, and what lies there and is not."""
    parts = live_parts(conn)
    problems = check.parts(parts)
    if problems:  # compaction may just have put them elsewhere
        parts = live_parts(conn)
        problems = check.parts(parts)
    known = {str(r[0]) for r in conn.execute("SELECT path FROM part")}
    notes = []
    for path in sorted(home.tables.glob("*/*")) if home.tables.is_dir() else ():
        name = path.relative_to(home.tables).as_posix()
        if name not in known and not path.name.startswith(".") and time.time() - path.lstat().st_mtime > FRESH_S:
            notes.append(f"{path} is no part of any table: nothing reads it, and `lab gc` removes it in time")
    return Section("table part", len(parts), tuple(problems), tuple(notes))


def _batches(home: Home, conn: sqlite3.Connection, check: Check) -> Section:
    files, problems = 0, list[str]()
    for row in conn.execute(_BATCHES).fetchall():
        if row[2] is None:
            n, wrong = check.batch(BatchFolder(str(row[0]), row[1], None))
            files, problems = files + n, problems + wrong
    return Section("batch file", files, tuple(problems))


def _code(home: Home, conn: sqlite3.Connection, check: Check) -> Section:
    """Stored code: its name is the digest of all that it holds."""
    stores = sorted({str(s) for row in conn.execute(_STORES) for s in row if s})
    problems = []
    for name in stores:
        folder = home.code / name
        if not folder.is_dir():
            problems.append(f"{folder} is missing: the code that jobs name")
            continue
        try:
            rows = _rows(folder, check)
        except OSError as error:
            problems.append(f"{folder} cannot be read ({error.strerror or error})")
            continue
        # What Python compiled while it ran from there was not stored, as a rule.
        if name not in (digest(rows), digest([r for r in rows if "__pycache__" not in str(r[0]).split("/")])):
            problems.append(f"{folder} does not hold the code that jobs name: a file differs, is missing or was added")
    return Section("code store", len(stores), tuple(problems))


def _rows(folder: Path, check: Check) -> list[list[object]]:
    """What a store holds, as `core.snapshot` digests it. Raises OSError."""
    names = sorted(rel.as_posix() for rel in walk_files(folder))
    check.hashes.ahead(folder / n for n in names if not (folder / n).is_symlink())
    rows: list[list[object]] = []
    for n in names:
        full = folder / n
        if full.is_symlink():
            rows.append([n, f"link:{full.readlink()}", False])
        else:
            rows.append([n, check.hashes.of(full), bool(full.lstat().st_mode & 0o100)])
    return rows


def _taken(home: Home, conn: sqlite3.Connection) -> Section:
    """What a committed job took from another is what that one's seal says; what was discarded cannot be asked."""
    checked, problems = 0, list[str]()
    for job, n in conn.execute(_TAKERS).fetchall():
        spec = read_json(home.run_dir(int(job), int(n)).spec, {})
        for item in (spec.get("inputs") or ()) if isinstance(spec, dict) else ():
            made = item.get("made") or {}
            if not isinstance(made.get("job"), int):
                continue
            checked += 1
            if conn.execute(_DISCARDED, (made["job"],)).fetchone():
                continue
            try:
                holds = content(standing(home, conn, made["job"]), made["file"]).sha256
            except NotThere as error:
                problems.append(f"job {job} took {item['name']}: {error.message}")
                continue
            if holds != item["sha256"]:
                problems.append(f"job {job} took {item['name']}, and job {made['job']} holds something else now")
    return Section("taken file", checked, tuple(problems))


def _pins(home: Home, conn: sqlite3.Connection) -> Section:
    pins = pinned(home, conn)
    problems = []
    for p in pins:
        row = conn.execute(_STATE, (p.job,)).fetchone()
        if row is None:
            problems.append(f"job {p.job} is pinned ({p.by}), and the journal does not know it")
        elif conn.execute(_DISCARDED, (p.job,)).fetchone():
            problems.append(f"job {p.job} is pinned ({p.by}), and its results were discarded")
    return Section("pin", len(pins), tuple(problems))


def _memory(home: Home, check: Check) -> Section:
    """Remembered digests of files that were hashed here: one that the filesystem calls unchanged must be right."""
    known: dict[tuple[int, int], tuple[int, int, int, str]] = {}
    if home.digests.is_file():
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"file:{home.digests}?mode=ro", uri=True, timeout=2.0)) as conn,
        ):
            for dev, ino, size, mtime, ctime, sha256 in conn.execute(_REMEMBERED):
                known[dev, ino] = (size, mtime, ctime, sha256)
    checked, problems = 0, list[str]()
    for path, sha256 in check.hashes if known else ():
        with contextlib.suppress(OSError):
            info = os.stat(path)  # noqa: PTH116 - every file of the home
            found = known.get((_signed(info.st_dev), _signed(info.st_ino)))
            if found is not None and found[:3] == (info.st_size, info.st_mtime_ns, info.st_ctime_ns):
                checked += 1
                if found[3] != sha256:
                    problems.append(f"{home.digests} takes {path} for unchanged, and its bytes are others: remove it")
    return Section("remembered digest", checked, tuple(problems))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


# Every job and sweep of which anything is sealed, whatever became of it.
_ALL = """SELECT id FROM job_state s WHERE sweep IS NULL AND (state = 'succeeded'
    OR EXISTS (SELECT 1 FROM attempt_state a JOIN event e ON e.seq = a.ended
        WHERE a.id BETWEEN s.id * 4096 AND (s.id + coalesce(s.cells, 0)) * 4096 + 4095
            AND (a.state = 'succeeded' OR (e.kind = 'attempt-ended' AND e.data ->> '$.manifest' IS NOT NULL))))
    ORDER BY id"""
_BATCHES = """SELECT b.dir, e.data ->> '$.manifest', d.at FROM batch b JOIN event p ON p.seq = b.seq
    JOIN event e ON e.seq = b.ended LEFT JOIN discarded d ON d.job = p.data ->> '$.cells[0][0]'
        AND d.attempt = p.data ->> '$.cells[0][2]' AND instr(d.what, '"batch ' || b.dir || '"')"""
_STORES = "SELECT data ->> '$.code.store', data ->> '$.kind_code.store' FROM spec"
_TAKERS = """SELECT DISTINCT s.id, a.id % 4096 FROM job_state s
    JOIN attempt_state a ON a.id BETWEEN s.id * 4096 AND s.id * 4096 + 4095 AND a.state = 'succeeded'
    JOIN event e ON e.seq = s.submit JOIN spec p ON p.digest = e.data ->> '$.spec', json_each(p.data, '$.inputs') i
    WHERE s.sweep IS NULL AND i.value ->> '$.made' IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM discarded d WHERE d.job = s.id AND d.attempt = 0)"""
_DISCARDED = "SELECT 1 FROM discarded WHERE job = ? AND attempt = 0"
_STATE = "SELECT state FROM job_state WHERE id = ?"
_REMEMBERED = "SELECT dev, ino, size, mtime, ctime, sha256 FROM digest"
