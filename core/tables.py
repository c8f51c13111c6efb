"""Result tables: what an attempt left as Arrow becomes one Parquet part, and queries read the parts that live.

A part lives when the journal lists it; files under `tables/` that it does not list are leftovers of a commit that never
was, and nothing reads them. Every part is checked against the digest in the journal before its numbers are served: a
missing or damaged one is named, and the rest is served without it.

pyarrow and DuckDB are imported where they are used: `lab status` never pays for them.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.digests import Digests
from core.errors import BadInput, DiskFull, LabError, NotFound
from core.fsio import fsync_dir, no_space, safe_join, sha256_file
from core.home import Home
from core.journal.query import Part

if TYPE_CHECKING:
    import pyarrow as pa

# What the head adds in front of each row: where it came from.
ORIGIN = ("job", "attempt", "lane", "key")

_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,63}$")
_ARROW_FILE = b"ARROW1"
_JOBS_VIEW = "jobs"


class BadTable(LabError):
    """An attempt's result table cannot be read or is not what its kind declares."""

    slug = "bad-table"


@dataclass(frozen=True)
class PartInfo:
    """A part as the journal records it; `data()` is its entry in the event that commits the attempt."""

    table: str
    path: str  # relative to Home.tables
    rows: int
    bytes: int
    sha256: str

    def data(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "path": self.path,
            "rows": self.rows,
            "bytes": self.bytes,
            "sha256": self.sha256,
        }


def append_part(
    home: Home,
    *,
    job: int,
    attempt: int,
    lane: str,
    key: str,
    kind: str,
    table: str,
    arrow_path: Path | Sequence[Path],
    schema: pa.Schema | None = None,
) -> PartInfo:
    """Write the rows that an attempt left as one synced Parquet part. Not live until the journal lists it.

    Doing it again after a crash writes the same part over itself.

    Args:
        arrow_path: Arrow IPC of this one table, files or streams.
        schema: what the kind declares; None: whatever is there.

    Raises:
        BadTable: the Arrow data is torn, has other columns than declared, or brings columns of ours.
        DiskFull: nothing was written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not _NAME.match(table):
        raise BadTable(
            f"the table name {table!r} of kind {kind!r} cannot be used", hint="use letters, digits and underscores"
        )
    paths = [arrow_path] if isinstance(arrow_path, Path) else list(arrow_path)
    rows = pa.concat_tables([_read_arrow(p) for p in paths])
    if schema is not None:
        rows = _enforce(rows, schema, f"table {table!r} of job {job}, attempt {attempt}")
    clash = [name for name in ORIGIN if name in rows.column_names]
    if clash:
        raise BadTable(
            f"the table {table!r} of kind {kind!r} has a column {clash[0]!r}, which lab adds itself", hint="rename it"
        )
    n = rows.num_rows
    origin = [
        pa.array([job] * n, pa.int64()),
        pa.array([attempt] * n, pa.int32()),
        pa.array([lane] * n, pa.string()),
        pa.array([key] * n, pa.string()),
    ]
    fields = [pa.field(name, column.type, nullable=False) for name, column in zip(ORIGIN, origin, strict=True)]
    full = pa.Table.from_arrays(
        [*origin, *rows.columns], schema=pa.schema([*fields, *rows.schema], metadata=rows.schema.metadata)
    )
    folder = home.tables / table
    final = folder / f"{job}-{attempt}.parquet"
    tmp = folder / f".{final.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            fsync_dir(home.tables)
        with tmp.open("wb") as out:
            pq.write_table(full, out, compression="zstd", write_page_checksum=True)
            out.flush()
            os.fsync(out.fileno())
        size, sha256 = tmp.stat().st_size, sha256_file(tmp)
        tmp.replace(final)
        fsync_dir(folder)
    except OSError as error:
        if no_space(error):
            raise DiskFull(
                f"the disk of {home.path} is full: the results of job {job} are not in the tables yet",
                hint="free some space",
            ) from error
        raise
    finally:
        tmp.unlink(missing_ok=True)
    return PartInfo(table, final.relative_to(home.tables).as_posix(), n, size, sha256)


def table_names(conn: sqlite3.Connection) -> dict[str, int]:
    """The tables there are, with their rows."""
    return {str(r[0]): int(r[1]) for r in conn.execute("SELECT tbl, sum(rows) FROM part GROUP BY tbl ORDER BY tbl")}


def part_problem(home: Home, part: Part, digests: Digests) -> str | None:
    """Why the bytes of `part` must not be served; None when they are what was committed."""
    where = f"the part of table {part.table!r} from job {part.job} ({part.path})"
    try:
        path = safe_join(home.tables, part.path)
        if path.stat().st_size != part.bytes:
            return f"{where} has {path.stat().st_size:,} bytes where {part.bytes:,} were committed"
        if digests.file(path).sha256 != part.sha256:
            return f"{where} is damaged: its bytes differ from what was committed"
    except FileNotFoundError:
        return f"{where} is missing"
    except (OSError, ValueError) as error:
        return f"{where} cannot be read: {getattr(error, 'strerror', None) or error}"
    return None


def read_table(
    home: Home,
    conn: sqlite3.Connection,
    table: str | None = None,
    job_ids: Sequence[int] | None = None,
    *,
    warnings: list[str] | None = None,
) -> pa.Table:
    """The live rows of one table, columns united by name, in the order of jobs.

    Args:
        table: None: the only one that there is (of these jobs).
        job_ids: only rows of these; None: of all.
        warnings: gets one sentence for each part that could not be served.

    Raises:
        NotFound: no such table, or nothing in it for these jobs.
        BadInput: `table` is None and there are several.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = _live_parts(conn, table, job_ids)
    names = sorted({p.table for p in parts})
    if not parts:
        raise _nothing(conn, table, job_ids)
    if len(names) > 1:
        raise BadInput(f"there are several tables: {', '.join(names)}", hint="name one of them")
    notes = warnings if warnings is not None else []
    out = []
    for part in _served(home, parts, notes):
        try:
            # Read as one file: as a dataset, folder names such as `x=1` would become columns.
            out.append(pq.ParquetFile(home.tables / part.path, page_checksum_verification=True).read())
        except (OSError, pa.ArrowInvalid) as error:
            notes.append(f"the part of table {part.table!r} from job {part.job} ({part.path}) cannot be read: {error}")
    if not out:
        raise NotFound(
            f"no part of table {names[0]!r} can be read: {notes[0] if notes else 'none is there'}",
            hint="`lab verify` says more; `lab rerun` makes it again",
        )
    return pa.concat_tables(out, promote_options="permissive")


def query(home: Home, conn: sqlite3.Connection, sql: str, *, warnings: list[str] | None = None) -> pa.Table:
    """Run `sql` (DuckDB) over one view for each table, live parts only, and a view `jobs` of the journal.

    Raises:
        BadInput: DuckDB does not understand it; its own words, and the tables that there are.
        NotFound: it speaks of a table that does not exist.
    """
    import duckdb

    notes = warnings if warnings is not None else []
    known = table_names(conn)
    # Only what the query may speak of is verified: the word must at least occur in it.
    words = {w.lower() for w in re.findall(r"\w+", sql)}
    with duckdb.connect(config={"threads": max(1, os.cpu_count() or 1)}) as db:
        for name in known:
            if name.lower() in words:
                served = _served(home, _live_parts(conn, name, None), notes)
                if not served:
                    raise NotFound(f"no part of table {name!r} can be read: {notes[-1]}", hint="`lab verify` says more")
                files = ", ".join(_literal(str(home.tables / p.path)) for p in served)
                db.execute(f'CREATE VIEW "{name}" AS SELECT * FROM read_parquet([{files}], union_by_name = true)')
        if _JOBS_VIEW in words and _JOBS_VIEW not in {n.lower() for n in known}:
            db.register(_JOBS_VIEW, _jobs_table(conn))
        try:
            relation = db.sql(sql)
            if relation is None:
                raise BadInput("the SQL gives no rows", hint="write a SELECT")
            return relation.to_arrow_table()
        except duckdb.CatalogException as error:
            there = ", ".join([*known, _JOBS_VIEW])
            raise NotFound(f"the SQL names something unknown: {_first(error)}", hint=f"there are: {there}") from error
        except duckdb.Error as error:
            raise BadInput(f"the SQL cannot be run: {_first(error)}", hint="correct it and try again") from error


def _live_parts(conn: sqlite3.Connection, table: str | None, job_ids: Sequence[int] | None) -> list[Part]:
    where, args = ["true"], []
    if table is not None:
        where.append("tbl = ?")
        args.append(table)
    if job_ids is not None:
        where.append(f"job IN ({', '.join(str(int(i)) for i in job_ids)})")
    columns = "job, attempt, tbl, path, rows, bytes, sha256"
    sql = f"SELECT {columns} FROM part WHERE {' AND '.join(where)} ORDER BY tbl, job, attempt"
    return [Part(*r) for r in conn.execute(sql, args)]


def _served(home: Home, parts: Sequence[Part], notes: list[str]) -> list[Part]:
    """Those parts whose bytes are what was committed; the others are named in `notes`."""
    out = []
    with Digests(home.digests) as digests:
        for part in parts:
            problem = part_problem(home, part, digests)
            if problem is None:
                out.append(part)
            else:
                notes.append(problem)
    return out


def _read_arrow(path: Path) -> pa.Table:
    import pyarrow as pa

    try:
        with path.open("rb") as f:
            is_file = f.read(len(_ARROW_FILE)) == _ARROW_FILE
        with pa.OSFile(str(path), "rb") as source:
            reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
            return reader.read_all()
    except FileNotFoundError:
        raise BadTable(f"the result table {path} is not there") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise BadTable(f"the result table {path} cannot be read: {_first(error)}") from error


def _enforce(rows: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    import pyarrow as pa

    missing = [n for n in schema.names if n not in rows.column_names]
    extra = [n for n in rows.column_names if n not in schema.names]
    if missing or extra:
        words = [f"lacks {', '.join(missing)}"] if missing else []
        words += [f"has {', '.join(extra)} beyond what its kind declares"] if extra else []
        raise BadTable(f"{what} {' and '.join(words)}")
    try:
        return rows.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise BadTable(f"{what} does not fit what its kind declares: {_first(error)}") from error


def _jobs_table(conn: sqlite3.Connection) -> pa.Table:
    import pyarrow as pa

    text, whole, real = pa.string(), pa.int64(), pa.float64()
    columns = {
        "job": ("id", whole),
        "kind": ("kind", text),
        "name": ("name", text),
        "state": ("state", text),
        "cause": ("cause", text),
        "lane": ("lane", text),
        "attempts": ("attempts", whole),
        "priority": ("priority", whole),
        "params": ("params", text),
        "tags": ("tags", text),
        "note": ("note", text),
        "key": ("key", text),
        "submitted": ("submitted", real),
        "started": ("started", real),
        "ended": ("ended", real),
        "undeclared": ("undeclared", whole),
    }
    rows = [tuple(r) for r in conn.execute(f"SELECT {', '.join(c for c, _ in columns.values())} FROM job ORDER BY id")]
    arrays = [pa.array([r[i] for r in rows], kind) for i, (_, kind) in enumerate(columns.values())]
    return pa.table(arrays, names=list(columns))


def _nothing(conn: sqlite3.Connection, table: str | None, job_ids: Sequence[int] | None) -> NotFound:
    known = table_names(conn)
    there = f"there are: {', '.join(known)}" if known else "no job has written one yet"
    if table is not None and table not in known:
        return NotFound(f"there is no table {table!r}", hint=there)
    if job_ids is not None:
        ids = ", ".join(str(i) for i in job_ids)
        return NotFound(
            f"no committed results of job {ids}" + (f" in table {table!r}" if table else ""),
            hint=f"`lab status {' '.join(str(i) for i in job_ids)}` says how it ended",
        )
    return NotFound("there are no results", hint=there)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
