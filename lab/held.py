"""What may not go, whatever a limit says: pins, what unfinished jobs need, what answers the cache."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from core.fsio import read_json
from core.home import Home
from core.made import makers, succeeded
from core.tables import Jobs
from core.tables.select import chosen
from lab.answers import answers_for
from lab.pins import Pin

_T = TypeVar("_T")


class Because(StrEnum):
    """Why something stays, as it is said after how much it is."""

    UNFINISHED = "of jobs that have not ended"
    PINNED = "pinned"
    NEEDED = "needed by jobs that have not ended"
    NEWEST = "of the newest jobs (--keep-last)"
    ANSWERS = "answering the cache (--no-keep-answers lets go of it)"


@dataclass(frozen=True)
class Held:
    """The jobs that stay, of one home at one moment.

    Attributes:
        pins: by job, who pinned it; what a pinned job took files from is pinned too.
        needed: by job, one unfinished job that needs it.
        newest: the newest finished jobs, as many as were asked for.
    """

    home: Home
    conn: sqlite3.Connection
    pins: dict[int, str]
    needed: dict[int, int]
    newest: Jobs
    _answers: dict[str, int | None] = field(default_factory=dict)

    def why(self, job: int, *, keep_answers: bool) -> tuple[Because, str] | None:
        """Why what `job` found out stays, with who wants it; None: it may go.

        Args:
            keep_answers: what answers the cache stays.
        """
        row = self.conn.execute(_JOB, (job,)).fetchone()
        if row is None or row[1] is None:
            return Because.UNFINISHED, ""
        state, _, key, undeclared = row
        strong = self.pinned(job) or self.kept(job)
        if strong is not None:
            return strong
        if job in self.needed:
            return Because.NEEDED, f"job {self.needed[job]}"
        found = self.conn.execute(_LENT, (job,)).fetchone()
        if found is not None:
            return Because.NEEDED, f"sweep {found[0]}"
        if keep_answers and state == "succeeded" and not undeclared and self._answer(key) == job:
            return Because.ANSWERS, ""
        return None

    def pinned(self, job: int) -> tuple[Because, str] | None:
        return (Because.PINNED, self.pins[job]) if job in self.pins else None

    def kept(self, job: int) -> tuple[Because, str] | None:
        return (Because.NEWEST, "") if job in self.newest else None

    def any_pinned(self, first: int, last: int) -> bool:
        """Is any job from `first` to `last` pinned?"""
        return any(first <= job <= last for job in self.pins)

    def _answer(self, key: str) -> int | None:
        """The job that answers `key`. One alone is not looked at more closely: if it is damaged, that is to be seen."""
        if key not in self._answers:
            able = [int(r[0]) for r in self.conn.execute(_ABLE, (key,))]
            alone = able[0] if len(able) == 1 else None
            self._answers[key] = alone or answers_for(self.home, self.conn, [key]).done.get(key)
        return self._answers[key]


def held(home: Home, conn: sqlite3.Connection, pins: Iterable[Pin], *, keep_last: int = 0) -> Held:
    """Look at the home. Nothing is changed."""
    named: dict[int, str] = {}
    for pin in pins:
        for job in _with_cells(conn, pin.job):
            named.setdefault(job, pin.by)
    return Held(home, conn, _with_makers(home, conn, named), _needed(home, conn), newest(conn, keep_last))


def newest(conn: sqlite3.Connection, n: int) -> Jobs:
    """The newest finished jobs, a sweep with all its cells."""
    if not n:
        return Jobs(())
    sql = "SELECT id FROM job_state WHERE sweep IS NULL AND ended IS NOT NULL ORDER BY id DESC LIMIT ?"
    return chosen(conn, [int(r[0]) for r in conn.execute(sql, (n,))])


def took_from(home: Home, conn: sqlite3.Connection, job: int) -> set[int]:
    """Jobs whose files `job` took, as its attempts have it on record; else those of which it will take them."""
    wanted = {item["name"]: item["made"]["key"] for item in makers(conn, job)}
    out: set[int] = set()
    if not wanted:
        return out
    recorded = set()
    for (n,) in conn.execute(_ATTEMPTS, (job, job)):
        spec = read_json(home.run_dir(job, int(n)).spec, {})
        for item in (spec.get("inputs") or ()) if isinstance(spec, dict) else ():
            made = item.get("made") or {}
            if isinstance(made.get("job"), int):
                out.add(made["job"])
                recorded.add(item.get("name"))
    for name, key in wanted.items():
        if name not in recorded:
            waited = [int(r[0]) for r in conn.execute(_WAITED, (job, key))]
            out.update(waited or succeeded(conn, key))
    return out


def _needed(home: Home, conn: sqlite3.Connection) -> dict[int, int]:
    """What unfinished jobs wait for, take files of (however far back), or name a path into."""
    direct: dict[int, int] = {}
    for by, needs in conn.execute(_DEPS):
        for job in _with_cells(conn, int(needs)):
            direct.setdefault(job, int(by))
    below = re.compile(re.escape(str(home.attempts)) + r"/(\d+)(?:/|$)")
    for by, key, path in conn.execute(_LIVE_INPUTS):
        if key is not None:
            for job in succeeded(conn, key):
                direct.setdefault(job, int(by))
        elif (found := below.match(path or "")) is not None:
            direct.setdefault(int(found[1]), int(by))
    return _with_makers(home, conn, direct)


def _with_makers(home: Home, conn: sqlite3.Connection, jobs: dict[int, _T]) -> dict[int, _T]:
    out, todo = dict(jobs), list(jobs)
    while todo:
        job = todo.pop()
        for maker in took_from(home, conn, job):
            if maker not in out:
                out[maker] = out[job]
                todo.append(maker)
    return out


def _with_cells(conn: sqlite3.Connection, job: int) -> Iterable[int]:
    """The job; a sweep with its cells and the jobs that answer others of them."""
    row = conn.execute("SELECT cells FROM job_state WHERE id = ?", (job,)).fetchone()
    if row is None or row[0] is None:
        return (job,)
    members = [int(r[0]) for r in conn.execute("SELECT job FROM member WHERE sweep = ?", (job,))]
    return (*range(job, job + int(row[0]) + 1), *members)


_JOB = """SELECT s.state, s.ended, s.key, coalesce(nullif(w.data ->> '$.undeclared', '[]'), 0) != 0
    FROM job_state s LEFT JOIN event w ON w.seq = s.news WHERE s.id = ?"""
_ATTEMPTS = "SELECT id % 4096 FROM attempt_state WHERE id BETWEEN ? * 4096 AND ? * 4096 + 4095"
_WAITED = "SELECT u.id FROM dep d JOIN job_state u ON u.id = d.needs WHERE d.job = ? AND u.key = ?"
_DEPS = "SELECT d.job, d.needs FROM dep d JOIN job_state w ON w.id = d.job WHERE w.ended IS NULL"
# Succeeded and not discarded, none that read what it had not declared: one of them answers the key.
_ABLE = """SELECT s.id FROM job_state s LEFT JOIN event w ON w.seq = s.news
    WHERE s.key = ? AND s.state = 'succeeded' AND s.cells IS NULL
        AND coalesce(nullif(w.data ->> '$.undeclared', '[]'), 0) = 0
        AND NOT EXISTS (SELECT 1 FROM discarded d WHERE d.job = s.id AND d.attempt = 0)"""
# Of sweeps that are not over: what answers a cell of theirs, and what their own cells found.
_LENT = """SELECT w.id FROM job_state s JOIN job_state w ON w.id = s.sweep WHERE s.id = ?1 AND w.ended IS NULL
    UNION SELECT w.id FROM member m JOIN job_state w ON w.id = m.sweep WHERE m.job = ?1 AND w.ended IS NULL LIMIT 1"""
_LIVE_INPUTS = """SELECT s.id, i.value ->> '$.made.key', i.value ->> '$.path'
    FROM job_state s JOIN event e ON e.seq = s.submit JOIN spec p ON p.digest = e.data ->> '$.spec',
        json_each(p.data, '$.inputs') i WHERE s.ended IS NULL AND s.sweep IS NULL
    UNION ALL SELECT s.id, i.value ->> '$.made.key', i.value ->> '$.path'
    FROM job_state s JOIN cell c ON c.id = s.id JOIN spec p ON p.digest = c.spec,
        json_each(p.data, '$.inputs') i WHERE s.ended IS NULL AND s.sweep IS NOT NULL AND c.spec IS NOT NULL"""
