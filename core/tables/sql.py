"""SQL over the live parts: one DuckDB view for each table, and a view `jobs` of the journal."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import BadInput, NotFound
from core.home import Home
from core.journal.query import Part
from core.tables.live import discarded_jobs, live_parts, refuse_stale, served, table_names
from core.tables.parts import first_line
from core.tables.read import inline_rows, nothing, steadily, unreadable
from core.tables.select import Jobs

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

JOBS_VIEW = "jobs"
BATCH_ROWS = 1 << 16

HEADLINE = b"lab.headline"  # metadata of a schema: the columns that a person sees first

_ROW = "file_row_number"
_COUNT_ALL = re.compile(r"(?i)count\s*\(\s*\*\s*\)")


@dataclass(frozen=True)
class Choice:
    """Rows and columns of one table.

    Attributes:
        jobs: only rows of these; None: of all.
        beside: a table with a column `job`: its other columns are put in front of each row.
        again: also those whose names the table has itself, as `param_NAME`.
        where: a condition in SQL.
        sort: columns; with a `-` in front descending. Empty: by job, then as the job wrote them.
        limit, tail: only the first, or the last so many rows.
        first: columns that a person sees before those that the kind puts first.
    """

    table: str
    jobs: Jobs | None = None
    beside: pa.Table | None = None
    again: bool = False
    columns: tuple[str, ...] = ()
    where: str = ""
    sort: tuple[str, ...] = ()
    limit: int | None = None
    tail: int | None = None
    first: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stream:
    """Rows as they come: `batches` can be gone through once."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


def query(home: Home, conn: sqlite3.Connection, sql: str, *, warnings: list[str] | None = None) -> pa.Table:
    """Run `sql` (DuckDB) over one view for each table, live parts only, and a view `jobs` of the journal.

    Raises:
        BadInput: DuckDB does not understand it; its own words, and the tables that there are.
        NotFound: it speaks of a table that does not exist.
    """

    def once(notes: list[str]) -> pa.Table:
        with _Views(home, conn, notes) as views, views.explained("the SQL"):
            return views.ask(sql).to_arrow_table()

    return steadily(once, warnings)


@contextlib.contextmanager
def stream(
    home: Home, conn: sqlite3.Connection, what: str | Choice, *, warnings: list[str] | None = None
) -> Iterator[Stream]:
    """As `query`, without ever holding all rows. `what` is SQL, or a choice of one table.

    Raises:
        BadInput: as `query`; or no such column.
        NotFound: no such table, or nothing in it for these jobs.
    """

    def once(notes: list[str]) -> tuple[contextlib.ExitStack, Stream]:
        with contextlib.ExitStack() as stack:
            views = stack.enter_context(_Views(home, conn, notes))
            with views.explained("the SQL" if isinstance(what, str) else "that"):
                relation = views.ask(what) if isinstance(what, str) else views.choose(what)
                reader = relation.to_arrow_reader(BATCH_ROWS)
                # The first batch is made now: what goes wrong at once can still be tried anew.
                first = next(reader, None)
            # Columns that a query names one by one stay in its order.
            named = isinstance(what, str) and "*" not in _COUNT_ALL.sub("", what)
            schema = reader.schema.with_metadata(None if named else views.metadata)
            return stack.pop_all(), Stream(schema, views.batches(first, reader, schema))

    held, out = steadily(once, warnings)
    with held:
        yield out


def jobs_table(conn: sqlite3.Connection, words: set[str] | None = None) -> pa.Table:
    """The journal's jobs, as the view `jobs` shows them. `words`: only columns that occur there."""
    import pyarrow as pa

    text, whole, real = pa.string(), pa.int64(), pa.float64()
    columns = {
        "job": ("id", whole),
        "sweep": ("sweep", whole),
        "cells": ("cells", whole),
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
    chosen = {n: c for n, c in columns.items() if words is None or n in words or n == "job"}
    cursor = conn.cursor()
    cursor.row_factory = None  # tuples: a hundred thousand rows
    rows = cursor.execute(f"SELECT {', '.join(c for c, _ in chosen.values())} FROM job ORDER BY id").fetchall()
    by_column = list(zip(*rows, strict=True)) if rows else [()] * len(chosen)
    arrays = [pa.array(values, kind) for values, (_, kind) in zip(by_column, chosen.values(), strict=True)]
    return pa.table(arrays, names=list(chosen))


class _Views:
    """One DuckDB connection, and the views that were made in it."""

    def __init__(self, home: Home, conn: sqlite3.Connection, notes: list[str]) -> None:
        self._home, self._conn, self._notes = home, conn, notes
        self._parts: list[Part] = []
        self._known = table_names(conn)
        self.metadata: dict[bytes, bytes] | None = None

    def __enter__(self) -> _Views:
        import duckdb

        spill = f"{tempfile.gettempdir()}/lab-{os.getuid()}-duckdb-{os.getpid()}"
        config = {"threads": max(1, os.cpu_count() or 1), "temp_directory": spill}
        self._db = duckdb.connect(config=config)
        # A name in the query is a table of ours, never a Python variable, and nothing is loaded from the network.
        self._db.execute("SET python_enable_replacements = false")
        self._db.execute("SET autoinstall_known_extensions = false")
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def ask(self, sql: str) -> duckdb.DuckDBPyRelation:
        # Only what the query may speak of is verified: the word must at least occur in it.
        words = {w.lower() for w in re.findall(r"\w+", sql)}
        for name in self._known:
            if name.lower() in words:
                self._view(name, None, *self._good(name, None))
        if JOBS_VIEW in words and JOBS_VIEW not in {n.lower() for n in self._known}:
            every = "*" in _COUNT_ALL.sub("", sql)
            self._db.register(JOBS_VIEW, jobs_table(self._conn, None if every else words))
        relation = self._db.sql(sql)
        if relation is None:
            raise BadInput("the SQL gives no rows", hint="write a SELECT")
        return relation

    def choose(self, c: Choice) -> duckdb.DuckDBPyRelation:
        parts, inline = self._good(c.table, c.jobs)
        # Parts that follow each other are in the order of jobs already; else rows need a number to be put there.
        whole = [*parts, *(p for p, _ in inline)]
        sorted_by_us = bool(c.sort) or c.beside is not None or not _apart(whole) or self._joins(c.jobs, whole)
        numbered = self._view(c.table, c.jobs, parts, inline, numbered=sorted_by_us)
        columns = [n for n in self._columns(f"FROM {_quoted(c.table)}") if not numbered or n != _ROW]
        base = f"SELECT t.* FROM {_quoted(c.table)} t"
        if c.beside is not None:
            self._db.register(_BESIDE.strip('"'), c.beside)
            names = [n for n in c.beside.column_names if n != "job" and (c.again or n not in columns)]
            own = {n: n if n not in columns else f"param_{n}" for n in names}
            picked = [f"b.{_quoted(n)} AS {_quoted(shown)}" for n, shown in own.items()]
            base = f"SELECT {', '.join([*picked, 't.*'])} FROM {_quoted(c.table)} t LEFT JOIN {_BESIDE} b USING (job)"
            columns = [*own.values(), *columns]
        for name in (*c.columns, *(s.removeprefix("-") for s in c.sort)):
            if name not in columns:
                raise _no_column(name, c.table, columns)
        rows = f"FROM ({base})" + (f" WHERE ({c.where}\n)" if c.where else "")
        if c.where:
            with self.explained("--where"):
                self._columns(rows)
        self._put_first([n for n in c.first if n in columns])
        order = [f"{_quoted(s.removeprefix('-'))}{' DESC' if s.startswith('-') else ''} NULLS LAST" for s in c.sort]
        if sorted_by_us:
            order += ["job", _ROW] if numbered else ["job"]
        sql = f"SELECT {', '.join(_quoted(n) for n in c.columns or columns)} {rows}"
        sql += f" ORDER BY {', '.join(order)}" if order else ""
        if c.tail is not None:
            total = self._db.execute(f"SELECT count(*) {rows}").fetchall()[0][0]
            sql += f" LIMIT {c.tail} OFFSET {max(0, total - c.tail)}"
        elif c.limit is not None:
            sql += f" LIMIT {c.limit}"
        return self._db.sql(sql)

    def batches(self, first: Any, reader: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        with self.explained("the query"):
            if first is not None:
                yield first.replace_schema_metadata(schema.metadata)
            for batch in reader:
                yield batch.replace_schema_metadata(schema.metadata)

    @contextlib.contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """What DuckDB says becomes a sentence of ours.

        Raises:
            ListChanged: it met a part that was replaced meanwhile.
        """
        import duckdb
        import pyarrow as pa

        try:
            yield
        except duckdb.CatalogException as error:
            there = ", ".join([*self._known, JOBS_VIEW])
            raise NotFound(
                f"{what} names something unknown: {first_line(error)}", hint=f"there are: {there}"
            ) from error
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            refuse_stale(self._conn, [p.id for p in self._parts])
            raise BadInput(f"{what} cannot be run: {first_line(error)}", hint="correct it and try again") from error

    def _put_first(self, names: Sequence[str]) -> None:
        if names:
            known = (self.metadata or {}).get(HEADLINE, b"").decode()
            self.metadata = {
                **(self.metadata or {}),
                HEADLINE: ",".join([*names, *([known] if known else [])]).encode(),
            }

    def _good(self, table: str, jobs: Jobs | None) -> tuple[list[Part], list[tuple[Part, pa.Table]]]:
        """Files of one table whose bytes are what was committed, and rows that are still in the journal."""
        parts = live_parts(self._conn, table, jobs)
        if not parts:
            raise nothing(self._conn, table, jobs)
        good = served(self._home, self._conn, parts, self._notes)
        files = [p for p in good if not p.inline]
        inline = inline_rows(self._conn, [p for p in good if p.inline], self._notes)
        if not files and not inline:
            raise unreadable(table, self._notes)
        self._parts += good
        return files, inline

    def _view(
        self,
        table: str,
        jobs: Jobs | None,
        files: Sequence[Part],
        inline: Sequence[tuple[Part, pa.Table]],
        *,
        numbered: bool = False,
    ) -> bool:
        """Make the view of one table. True when its rows have the number that they have in their file."""
        import duckdb
        import pyarrow as pa

        sources = []
        if files:
            paths = [_no_pattern(str(self._home.tables / p.path)) for p in files]
            options: dict[str, Any] = {"union_by_name": True, "hive_partitioning": False}
            try:
                found = self._db.read_parquet(paths, **options, file_row_number=numbered)
            except duckdb.BinderException:  # the table has a column of that name
                numbered = False
                found = self._db.read_parquet(paths, **options)
            found.create_view(f"{table} in files")
            sources.append(_quoted(f"{table} in files"))
            if self.metadata is None:
                self.metadata = _metadata(str(self._home.tables / files[0].path))
        if inline:
            rows = pa.concat_tables([t for _, t in inline], promote_options="permissive")
            if numbered:
                count = pa.array(range(rows.num_rows), pa.int64())
                rows = rows.append_column(_ROW, count)
            self._db.register(f"{table} in the journal", rows)
            sources.append(_quoted(f"{table} in the journal"))
            self.metadata = self.metadata or rows.schema.metadata
        union = " UNION ALL BY NAME ".join(f"FROM {s}" for s in sources)
        where = self._only(table, jobs, [*files, *(p for p, _ in inline)])
        self._db.execute(f"CREATE VIEW {_quoted(table)} AS SELECT * FROM ({union}){where}")
        return numbered

    def _only(self, table: str, jobs: Jobs | None, parts: Sequence[Part]) -> str:
        """The condition that keeps the rows of other jobs out of a view."""
        terms = []
        wanted, hidden = self._limits(jobs, parts)
        if wanted is not None:
            terms.append(wanted.condition("job") or f"job IN (FROM {self._ids(f'{table} jobs', wanted)})")
        if hidden is not None:
            said = hidden.condition("job") or f"job IN (FROM {self._ids(f'{table} discarded', hidden)})"
            terms.append(f"NOT {said}")
        return f" WHERE {' AND '.join(terms)}" if terms else ""

    def _joins(self, jobs: Jobs | None, parts: Sequence[Part]) -> bool:
        """Will `_only` be a join? The order of its rows is then not ours."""
        return any(some is not None and some.condition("job") is None for some in self._limits(jobs, parts))

    def _limits(self, jobs: Jobs | None, parts: Sequence[Part]) -> tuple[Jobs | None, Jobs | None]:
        """(the only jobs, the hidden ones), each None where it changes nothing."""
        wanted = jobs if jobs is not None and not all(jobs.covers(p.first, p.last) for p in parts) else None
        hidden = discarded_jobs(self._conn)
        return wanted, hidden if any(hidden.meets(p.first, p.last) for p in parts) else None

    def _ids(self, name: str, jobs: Jobs) -> str:
        import numpy as np
        import pyarrow as pa

        ids = np.concatenate([np.arange(a, b + 1, dtype=np.int64) for a, b in jobs.spans])
        self._db.register(name, pa.table({"job": ids}))
        return _quoted(name)

    def _columns(self, sql: str) -> list[str]:
        return list(self._db.sql(f"SELECT * {sql} LIMIT 0").columns)


_BESIDE = '"beside each row"'


def _apart(parts: Sequence[Part]) -> bool:
    """Does each part begin behind the end of the one before?"""
    return all(a.last < b.first for a, b in itertools.pairwise(parts))


def _no_column(name: str, table: str, columns: Sequence[str]) -> BadInput:
    import difflib

    near = difflib.get_close_matches(name, columns, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(columns)}"
    return BadInput(f"table {table!r} has no column {name!r}", hint=hint)


def _metadata(path: str) -> dict[bytes, bytes] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found: dict[bytes, bytes] | None = pq.read_schema(path).metadata
    except (OSError, pa.ArrowException):  # whoever reads the rows will say so
        return None
    return found


def _no_pattern(path: str) -> str:
    """A path in which no character stands for others."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
