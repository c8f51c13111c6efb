"""Reading one table as Arrow: the parts that live, in the order of jobs, columns united by name."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from core.errors import BadInput, NotFound, Unavailable
from core.home import Home
from core.journal import query
from core.journal.query import Part
from core.tables.live import ListChanged, discarded_jobs, live_parts, named, refuse_stale, served, table_names
from core.tables.parts import first_line, with_origin
from core.tables.select import Jobs, chosen

if TYPE_CHECKING:
    import pyarrow as pa

_TRIES = 10
_MANY_FILES = 16

T = TypeVar("T")


def read_table(
    home: Home,
    conn: sqlite3.Connection,
    table: str | None = None,
    job_ids: Sequence[int] | Jobs | None = None,
    *,
    warnings: list[str] | None = None,
) -> pa.Table:
    """The live rows of one table, columns united by name, ordered by job, then as the job wrote them.

    Args:
        table: None: the only one that there is (of these jobs).
        job_ids: only rows of these, and of the cells of these sweeps; None: of all.
        warnings: gets one sentence for each part that could not be served.

    Raises:
        NotFound: no such table, or nothing in it for these jobs.
        BadInput: `table` is None and there are several, or a column's types in several parts cannot be united.
    """

    def once(notes: list[str]) -> pa.Table:
        jobs = job_ids if job_ids is None or isinstance(job_ids, Jobs) else chosen(conn, job_ids)
        parts = live_parts(conn, table, jobs)
        names = sorted({p.table for p in parts})
        if not parts:
            raise nothing(conn, table, jobs)
        if len(names) > 1:
            raise BadInput(f"there are several tables: {', '.join(names)}", hint="name one of them")
        good = served(home, conn, parts, notes)
        found = _rows(home, conn, good, jobs, notes)
        if not found:
            raise unreadable(names[0], notes)
        return in_order(_united(names[0], found))

    return steadily(once, warnings)


def steadily(once: Callable[[list[str]], T], warnings: list[str] | None) -> T:
    """Call `once` until the list of parts stays what it was: compaction may replace parts while they are read."""
    for _ in range(_TRIES):
        notes: list[str] = []
        try:
            out = once(notes)
        except ListChanged:
            continue
        if warnings is not None:
            warnings += notes
        return out
    raise Unavailable("the results are being rewritten all the time", hint="try again")


def inline_rows(conn: sqlite3.Connection, parts: Sequence[Part], notes: list[str]) -> list[tuple[Part, pa.Table]]:
    """The rows that are still in the journal, each with its origin.

    Raises:
        ListChanged: one of these parts is no longer listed.
    """
    import pyarrow as pa

    out = []
    for part in parts:
        data = query.payload(conn, part.id)
        if data is None:
            refuse_stale(conn, [part.id])
            notes.append(f"{named(part)} is missing")
            continue
        try:
            rows = pa.ipc.open_stream(data).read_all()
            out.append((part, in_order(_with_lane_and_key(conn, rows))))
        except (pa.ArrowException, KeyError) as error:
            notes.append(f"{named(part)} cannot be read: {first_line(error)}")
    return out


def parquet_rows(path: Path, part: Part, jobs: Jobs | None, *, threads: bool = True) -> pa.Table:
    """The rows of these jobs in one file; row groups without any are not read.

    Raises:
        OSError, pa.ArrowException: it cannot be read.
    """
    import pyarrow.parquet as pq

    # Read as one file: as a dataset, folder names such as `x=1` would become columns.
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        if jobs is None or jobs.covers(part.first, part.last):
            return file.read(use_threads=threads)
        groups = [i for i in range(file.metadata.num_row_groups) if _may_hold(file.metadata.row_group(i), jobs)]
        return only(file.read_row_groups(groups, use_threads=threads), jobs)


def only(rows: pa.Table, jobs: Jobs, *, but: bool = False) -> pa.Table:
    """Rows of these jobs, or (`but`) all others."""
    import pyarrow as pa

    mask = jobs.mask(rows.column("job").to_numpy())
    if but:
        mask = ~mask
    return rows if mask.all() else rows.filter(pa.array(mask))


def in_order(rows: pa.Table) -> pa.Table:
    """`rows` by job; those of one job stay as they are."""
    import numpy as np
    import pyarrow as pa

    jobs = rows.column("job").to_numpy()
    if len(jobs) < 2 or bool((jobs[1:] >= jobs[:-1]).all()):
        return rows
    return rows.take(pa.array(np.argsort(jobs, kind="stable")))


def nothing(conn: sqlite3.Connection, table: str | None, jobs: Jobs | None) -> NotFound:
    """Why there are no rows, as an error to be raised."""
    known = table_names(conn)
    there = f"there are: {', '.join(known)}" if known else "no job has written one yet"
    if table is not None and table not in known:
        return NotFound(f"there is no table {table!r}", hint=there)
    if jobs is not None:
        sweep = _sweep_of(conn, jobs)
        said = str(sweep) if sweep is not None else jobs.said()
        word = "sweep" if sweep is not None else "job" if len(jobs) == 1 else "jobs"
        if jobs and not jobs.minus(discarded_jobs(conn)):
            return NotFound(
                f"the results of {word} {said} were discarded by `lab gc`", hint="`lab rerun` makes them again"
            )
        return NotFound(
            f"no committed results of {word} {said}" + (f" in table {table!r}" if table else ""),
            hint=f"`lab status {said.split(',')[0]}` says {'how it ended' if word != 'jobs' else 'how they ended'}",
        )
    return NotFound("there are no results", hint=there)


def _sweep_of(conn: sqlite3.Connection, jobs: Jobs) -> int | None:
    """The sweep whose own cells these are, all of them."""
    if len(jobs.spans) != 1 or len(jobs) == 1:
        return None
    first, last = jobs.spans[0]
    row = conn.execute("SELECT id FROM sweep WHERE id = ? AND cells = ?", (first - 1, last - first + 1)).fetchone()
    return int(row[0]) if row else None


def unreadable(table: str, notes: Sequence[str]) -> NotFound:
    return NotFound(
        f"no part of table {table!r} can be read: {notes[0] if notes else 'none is there'}",
        hint="`lab verify` says more; `lab rerun` makes it again",
    )


def _rows(
    home: Home, conn: sqlite3.Connection, parts: Sequence[Part], jobs: Jobs | None, notes: list[str]
) -> list[tuple[Part, pa.Table]]:
    import pyarrow as pa

    files = [p for p in parts if not p.inline]
    many = len(files) > _MANY_FILES

    def read(part: Part) -> pa.Table | str:
        try:
            return parquet_rows(home.tables / part.path, part, jobs, threads=not many)
        except (OSError, pa.ArrowException) as error:
            return f"{named(part)} cannot be read: {first_line(error)}"

    if many:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            answers = list(threads.map(read, files))
    else:
        answers = [read(part) for part in files]
    out = []
    for part, rows in zip(files, answers, strict=True):
        if isinstance(rows, str):
            refuse_stale(conn, [part.id])
            notes.append(rows)
        else:
            out.append((part, rows))
    for part, rows in inline_rows(conn, [p for p in parts if p.inline], notes):
        out.append((part, rows if jobs is None else only(rows, jobs)))
    hidden = discarded_jobs(conn)
    if hidden:
        out = [(p, only(rows, hidden, but=True) if hidden.meets(p.first, p.last) else rows) for p, rows in out]
    return sorted(out, key=lambda found: (found[0].first, found[0].id))


def _united(table: str, found: Sequence[tuple[Part, pa.Table]]) -> pa.Table:
    import pyarrow as pa

    try:
        return pa.concat_tables([rows for _, rows in found], promote_options="permissive")
    except pa.ArrowException as error:
        kinds: dict[str, tuple[pa.DataType, Part]] = {}
        for part, rows in found:
            for field in rows.schema:
                known, first = kinds.setdefault(field.name, (field.type, part))
                if not _go_together(known, field.type):
                    raise BadInput(
                        f"column {field.name!r} of table {table!r} is {known} in {named(first)} "
                        f"and {field.type} in {named(part)}",
                        hint="name the jobs whose rows belong together",
                    ) from error
        raise BadInput(f"the parts of table {table!r} cannot be united: {first_line(error)}") from error


def _go_together(a: pa.DataType, b: pa.DataType) -> bool:
    import pyarrow as pa

    try:
        pa.unify_schemas([pa.schema([("x", a)]), pa.schema([("x", b)])], promote_options="permissive")
    except pa.ArrowException:
        return False
    return True


def _with_lane_and_key(conn: sqlite3.Connection, rows: pa.Table) -> pa.Table:
    """Inline rows name only their job: lane and key are in its row."""
    import numpy as np
    import pyarrow as pa

    jobs = rows.column("job").to_numpy()
    ids, place = np.unique(jobs, return_inverse=True)
    known: dict[int, tuple[str, str]] = {}
    for first, last in Jobs.of(ids.tolist()).spans:
        for r in conn.execute("SELECT id, lane, key FROM job_state WHERE id BETWEEN ? AND ?", (first, last)):
            known[r[0]] = (r[1] or "", r[2])
    at = pa.array(place.ravel(), pa.int64())
    lanes, keys = (pa.array([known.get(i, ("", ""))[k] for i in ids.tolist()], pa.string()).take(at) for k in (0, 1))
    own = rows.drop_columns(["job", "attempt"])
    return with_origin(own, rows.column("job"), rows.column("attempt"), lanes, keys)


def _may_hold(group: object, jobs: Jobs) -> bool:
    for i in range(group.num_columns):  # type: ignore[attr-defined]
        column = group.column(i)  # type: ignore[attr-defined]
        if column.path_in_schema == "job":
            known = column.statistics
            return known is None or not known.has_min_max or jobs.meets(known.min, known.max)
    return True
