"""A study by its name: the jobs of its newest submit. Read for `lab status`, so nothing heavy.

The jobs that one submit of a study recorded have a word in common, `NAME@ID` with the first of their ids; a rerun of
one of them has it too. What other jobs had answered already is found by what they wait for.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.journal import query
from core.journal.query import Job
from core.states import JobState


def members(conn: sqlite3.Connection, study: str) -> list[int]:
    """Ids of the jobs of the newest submit of `study`, ascending; of a node that ran again only the newest.

    Empty where no such study was ever submitted.
    """
    row = conn.execute(_LAST, (len(study) + 1, f"{study}@")).fetchone()
    if row is None:
        return []
    newest: dict[str, int] = {}
    for job_id, name in conn.execute(_OF, (_first(str(row[0])), row[0])):
        newest[str(name)] = int(job_id)
    waited = {i for i in ancestors(conn, newest.values()) if _is_of(conn, i, study)}
    # What a rerun took the place of may still be what a job waits for that had ended without it.
    return sorted({*newest.values(), *(i for i in waited if query.job(conn, i).name not in newest)})


_LAST = """SELECT e.data ->> '$.study' FROM job_state s JOIN event e ON e.seq = s.submit
    WHERE s.sweep IS NULL AND substr(e.data ->> '$.study', 1, ?) = ? ORDER BY s.id DESC LIMIT 1"""
_OF = """SELECT s.id, e.data ->> '$.name' FROM job_state s JOIN event e ON e.seq = s.submit
    WHERE s.id >= ? AND s.sweep IS NULL AND e.data ->> '$.study' = ? ORDER BY s.id"""


def study_of(conn: sqlite3.Connection, job: int) -> str:
    """`NAME@ID` of the submit that a job is of; empty for one that is of no study."""
    row = conn.execute(
        "SELECT e.data ->> '$.study' FROM job_state s JOIN event e ON e.seq = s.submit WHERE s.id = ?", (job,)
    ).fetchone()
    return str(row[0]) if row is not None and row[0] else ""


@dataclass(frozen=True)
class Whole:
    """How a study is: its jobs by state."""

    study: str
    counts: Mapping[JobState, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def said(self) -> str:
        words = [f"{n:,} {state}" for state in _SAID if (n := self.counts.get(state, 0))]
        return f"{self.study}  {self.total:,} jobs: {', '.join(words)}"


_SAID = (
    JobState.RUNNING,
    JobState.CANCELLING,
    JobState.QUEUED,
    JobState.HELD,
    JobState.SUCCEEDED,
    JobState.FAILED,
    JobState.CANCELLED,
    JobState.SKIPPED,
)


def wholes(conn: sqlite3.Connection, jobs: Sequence[Job], least: int) -> list[Whole]:
    """The studies of which at least `least` of these jobs are, as they were submitted last."""
    seen = Counter(job.name.partition("/")[0] for job in jobs if "/" in job.name)
    out = []
    for study, n in seen.items():
        ids = members(conn, study) if n >= least else []
        if ids:
            marks = ",".join("?" * len(ids))
            rows = conn.execute(f"SELECT state, count(*) FROM job_state WHERE id IN ({marks}) GROUP BY state", ids)
            out.append(Whole(study, {JobState(r[0]): int(r[1]) for r in rows}))
    return out


def ancestors(conn: sqlite3.Connection, jobs: Iterable[int]) -> set[int]:
    """All that these jobs wait for, or waited for, and so on."""
    return _reached(conn, jobs, "SELECT needs FROM dep WHERE job = ?")


def descendants(conn: sqlite3.Connection, jobs: Iterable[int]) -> set[int]:
    """All that wait for these, or waited, and so on."""
    return _reached(conn, jobs, "SELECT job FROM dep WHERE needs = ?")


def _reached(conn: sqlite3.Connection, jobs: Iterable[int], sql: str) -> set[int]:
    found: set[int] = set()
    todo = list(jobs)
    while todo:
        for (other,) in conn.execute(sql, (todo.pop(),)).fetchall():
            if other not in found:
                found.add(int(other))
                todo.append(int(other))
    return found


def _first(word: str) -> int:
    return int(word.rpartition("@")[2])


def _is_of(conn: sqlite3.Connection, job: int, study: str) -> bool:
    return query.job(conn, job).name.startswith(f"{study}/")
