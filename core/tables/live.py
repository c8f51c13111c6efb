"""Which parts live, and whether their bytes are still those that were committed."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from core.digests import Digests
from core.fsio import safe_join
from core.home import Home
from core.journal import query
from core.journal.query import Part
from core.tables.select import Jobs

# What a DISCARDED event says of result rows that retention took away.
RESULTS = "results"

_MANY_BYTES = 16 << 20  # from here on several threads hash
_HIDDEN = f"SELECT d.job FROM discarded d, json_each(d.what) w WHERE w.value = '{RESULTS}'"
_COLUMNS = "id, tbl, path, rows, bytes, sha256, first, last, attempt"


class ListChanged(Exception):
    """A part went away because the list of parts is another one by now: read it again."""


def live_parts(conn: sqlite3.Connection, table: str | None = None, jobs: Jobs | None = None) -> list[Part]:
    """Live parts that may hold rows of these jobs, in the order of their first job."""
    where, args = ["true"], []
    if table is not None:
        where.append("tbl = ?")
        args.append(table)
    if jobs is not None:
        if not jobs:
            return []
        where.append(f"first <= {jobs.spans[-1][1]} AND last >= {jobs.spans[0][0]}")
    sql = f"SELECT {_COLUMNS} FROM part WHERE {' AND '.join(where)} ORDER BY tbl, first, id"
    parts = [Part(*r) for r in conn.execute(sql, args)]
    hidden = discarded_jobs(conn)
    if hidden:  # a part dies with the last of its jobs; the compactor takes it off the list later
        parts = [p for p in parts if not hidden.covers(p.first, p.last)]
        jobs = jobs.minus(hidden) if jobs is not None else None
    return parts if jobs is None else [p for p in parts if jobs.meets(p.first, p.last)]


def discarded_jobs(conn: sqlite3.Connection) -> Jobs:
    """Jobs whose rows retention took away: hidden, wherever they still lie."""
    return Jobs.of(int(r[0]) for r in conn.execute(_HIDDEN))


def table_names(conn: sqlite3.Connection) -> dict[str, int]:
    """The tables there are, with their rows."""
    if conn.execute("SELECT 1 FROM discarded LIMIT 1").fetchone():
        out: dict[str, int] = {}
        for part in live_parts(conn):
            out[part.table] = out.get(part.table, 0) + part.rows
        return out
    sql = "SELECT tbl, sum(rows) FROM part GROUP BY tbl ORDER BY tbl"
    return {str(r[0]): int(r[1]) for r in conn.execute(sql)}


def tables_of(conn: sqlite3.Connection, jobs: Jobs | None) -> list[str]:
    """The tables in which these jobs may have rows."""
    return sorted({p.table for p in live_parts(conn, None, jobs)}) if jobs is not None else list(table_names(conn))


def part_problem(home: Home, conn: sqlite3.Connection, part: Part, digests: Digests) -> str | None:
    """Why the bytes of `part` must not be served; None when they are what was committed."""
    where = named(part)
    if part.inline:
        data = query.payload(conn, part.id)
        if data is None:
            return f"{where} is missing"
        if len(data) != part.bytes or hashlib.sha256(data).hexdigest() != part.sha256:
            return f"{where} is damaged: its bytes differ from what was committed"
        return None
    try:
        path = safe_join(home.tables, part.path)
        size = os.stat(path).st_size  # noqa: PTH116 - thousands of times
        if size != part.bytes:
            return f"{where} has {size:,} bytes where {part.bytes:,} were committed"
        if digests.file(path).sha256 != part.sha256:
            return f"{where} is damaged: its bytes differ from what was committed"
    except FileNotFoundError:
        return f"{where} is missing"
    except (OSError, ValueError) as error:
        return f"{where} cannot be read: {getattr(error, 'strerror', None) or error}"
    return None


def part_problems(
    home: Home, conn: sqlite3.Connection, parts: Sequence[Part], digests: Digests | None = None
) -> dict[int, str]:
    """Those of `parts` whose bytes must not be served, by id, with the reason.

    Args:
        digests: None: the home's own, which hashes a file once.
    """
    if digests is None:
        with Digests(home.digests) as own:
            return part_problems(home, conn, parts, own)
    files = [p for p in parts if not p.inline]
    out = {p.id: problem for p in parts if p.inline and (problem := part_problem(home, conn, p, digests))}
    if len(files) > 1 and sum(p.bytes for p in files) > _MANY_BYTES:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            found = list(threads.map(lambda p: part_problem(home, conn, p, digests), files, chunksize=16))
    else:
        found = [part_problem(home, conn, p, digests) for p in files]
    out.update({p.id: problem for p, problem in zip(files, found, strict=True) if problem})
    return out


def served(home: Home, conn: sqlite3.Connection, parts: Sequence[Part], notes: list[str]) -> list[Part]:
    """Those parts whose bytes are what was committed; the others are named in `notes`.

    Raises:
        ListChanged: one of them is no longer listed: its rows are in another part by now.
    """
    problems = part_problems(home, conn, parts)
    if problems:
        refuse_stale(conn, problems)
        notes += problems.values()
    return [p for p in parts if p.id not in problems]


def refuse_stale(conn: sqlite3.Connection, ids: Sequence[int] | dict[int, str]) -> None:
    """Raises ListChanged when one of these parts is not listed any more."""
    for i in ids:
        if conn.execute("SELECT 1 FROM part WHERE id = ?", (i,)).fetchone() is None:
            raise ListChanged


def named(part: Part) -> str:
    """The part, as a sentence speaks of it."""
    whose = f"job {part.first}" if part.first == part.last else f"jobs {part.first} to {part.last}"
    return f"the part of table {part.table!r} from {whose} ({part.path or 'in the journal'})"
