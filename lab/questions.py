"""Questions that kinds answer: `lab results KIND [ID ...] --ask NAME`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from core.errors import BadInput
from core.journal import query
from core.kind import load_kind


def sql_of(conn: sqlite3.Connection, name: str, kind: str | None, asked: Sequence[int]) -> str:
    """The query of one question.

    Args:
        kind: whose question; None: the one kind of the jobs.
        asked: ids in the order given; a sweep stands for its cells.

    Raises:
        BadInput: no kind, no such question, or another number of jobs than it compares.
    """
    kind = kind or _kind_of(conn, asked)
    known = load_kind(kind).questions()
    found = known.get(name)
    if found is None:
        there = "; ".join(f"{n} ({q.about})" for n, q in known.items()) or "none"
        raise BadInput(f"{kind} has no question {name!r}", hint=f"there are: {there}")
    jobs = query.job_ids(conn, asked)
    if found.jobs and not (len(asked) == len(jobs) == found.jobs):
        raise BadInput(
            f"--ask {name} compares {found.jobs} jobs, not {len(jobs)}",
            hint=f"name them: lab results {kind} {' '.join(['ID'] * found.jobs)} --ask {name}",
        )
    condition = f"job in ({', '.join(str(j) for j in jobs)})" if asked else "true"
    return found.sql.format(*asked, jobs=condition)


def main_table(conn: sqlite3.Connection, ids: Sequence[int], names: Sequence[str]) -> str | None:
    """Which of `names` is named as the one kind of these jobs."""
    kinds = _kinds(conn, ids)
    return kinds[0] if len(kinds) == 1 and kinds[0] in names else None


def _kind_of(conn: sqlite3.Connection, asked: Sequence[int]) -> str:
    kinds = _kinds(conn, asked)
    if len(kinds) != 1:
        what = f"these jobs are of {len(kinds)} kinds" if kinds else "no kind was named"
        raise BadInput(f"--ask asks one kind, and {what}", hint="name it: lab results KIND --ask NAME")
    return kinds[0]


def _kinds(conn: sqlite3.Connection, ids: Sequence[int]) -> list[str]:
    sql = "SELECT DISTINCT kind FROM job_state WHERE id IN (SELECT value FROM json_each(?))"
    return [str(r[0]) for r in conn.execute(sql, (json.dumps(list(ids)),))]
