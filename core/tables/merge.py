"""Many small parts become few large ones, sorted by job. Nothing is live before the journal says so.

Each input is verified, and it is the verified bytes that are decoded: what is damaged is left as it is and named. Parts
whose columns have different types are not thrown together, for that could not be undone.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.failpoint import failpoint
from core.fsio import safe_join
from core.home import Home
from core.journal import query
from core.journal.query import Part
from core.tables.live import discarded_jobs, named
from core.tables.parts import ORIGIN, ROW_GROUP, PartInfo, first_line, new_part
from core.tables.read import in_order, inline_rows, only
from core.tables.select import Jobs

if TYPE_CHECKING:
    import pyarrow as pa


_DEAD_SHARE = 4


class Stopped(Exception):
    """Asked to end before it was done."""


@dataclass(frozen=True)
class Merged:
    """What was written, and in place of which parts.

    Attributes:
        notes: one sentence for each part that is damaged and was left alone.
        left: parts that were looked at and stay as they are.
    """

    table: str
    replaces: tuple[Part, ...]
    parts: tuple[PartInfo, ...]
    notes: tuple[str, ...]
    left: tuple[int, ...]


@dataclass(frozen=True)
class _Input:
    part: Part
    schema: pa.Schema
    rows: int
    dead: int  # of these were discarded


def merge(
    home: Home,
    conn: sqlite3.Connection,
    table: str,
    parts: Sequence[Part],
    *,
    stopping: Callable[[], bool] = lambda: False,
) -> Merged:
    """Write the rows of `parts` as few Parquet parts, each column of one type. Rows that were discarded go.

    Raises:
        Stopped: as `stopping` asked. Nothing is left behind.
        DiskFull: nothing is left behind.
    """
    hidden = discarded_jobs(conn)
    notes: list[str] = []
    inputs: list[_Input] = []
    replaces = [p for p in parts if hidden and hidden.covers(p.first, p.last)]
    gone = {p.id for p in replaces}
    left: list[int] = []
    for part in sorted((p for p in parts if p.id not in gone), key=lambda p: (p.first, p.id)):
        if stopping():
            raise Stopped
        try:
            rows = _verified(home, conn, part)
        except _Bad as error:
            notes.append(str(error))
            left.append(part.id)
            continue
        dead = rows.num_rows - only(rows, hidden, but=True).num_rows if hidden.meets(part.first, part.last) else 0
        inputs.append(_Input(part, rows.schema, rows.num_rows, dead))
    made: list[PartInfo] = []
    try:
        for group in _groups(inputs):
            if not _worth_it(group):
                left += [i.part.id for i in group]
                continue
            out = _write(home, conn, table, group, hidden, stopping)
            made += out
            replaces += [i.part for i in group]
    except BaseException:
        for info in made:
            (home.tables / info.path).unlink(missing_ok=True)
        raise
    return Merged(table, tuple(replaces), tuple(made), tuple(notes), tuple(left))


class _Bad(Exception):
    """A part whose bytes are not what was committed."""


def _verified(home: Home, conn: sqlite3.Connection, part: Part) -> pa.Table:
    """The rows of a part, decoded from the very bytes that were checked."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = query.payload(conn, part.id) if part.inline else safe_join(home.tables, part.path).read_bytes()
        if data is None:
            raise _Bad(f"{named(part)} is missing")
        if len(data) != part.bytes or hashlib.sha256(data).hexdigest() != part.sha256:
            raise _Bad(f"{named(part)} is damaged: its bytes differ from what was committed")
        if part.inline:
            notes: list[str] = []
            found = inline_rows(conn, [part], notes)
            if notes:
                raise _Bad(notes[0])
            rows = found[0][1]
        else:
            rows = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(use_threads=False)
    except FileNotFoundError:
        raise _Bad(f"{named(part)} is missing") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _Bad(f"{named(part)} cannot be read: {first_line(error)}") from error
    if rows.num_rows != part.rows:
        raise _Bad(f"{named(part)} holds {rows.num_rows:,} rows where {part.rows:,} were committed")
    return rows


def _groups(inputs: Sequence[_Input]) -> list[list[_Input]]:
    """Inputs whose columns of the same name have the same type."""
    groups: list[tuple[dict[str, Any], list[_Input]]] = []
    for i in inputs:
        types = {f.name: f.type for f in i.schema}
        for known, members in groups:
            if all(known.get(name, kind) == kind for name, kind in types.items()):
                known.update(types)
                members.append(i)
                break
        else:
            groups.append((types, [i]))
    return [members for _, members in groups]


def _worth_it(group: Sequence[_Input]) -> bool:
    """A single file is written anew only when a good share of its rows was discarded."""
    one = group[0]
    return len(group) > 1 or one.part.inline or one.dead * _DEAD_SHARE > one.rows


def _write(
    home: Home,
    conn: sqlite3.Connection,
    table: str,
    group: Sequence[_Input],
    hidden: Jobs,
    stopping: Callable[[], bool],
) -> list[PartInfo]:
    schema = _schema([i.schema for i in group])
    first, last = min(i.part.first for i in group), max(i.part.last for i in group)
    rows = 0
    with new_part(home, table, f"c{first}-{last}-{os.urandom(4).hex()}.parquet", schema) as new:
        for chunk in _in_groups(_sorted(home, conn, group, schema, hidden, stopping)):
            new.writer.write_table(chunk, row_group_size=ROW_GROUP)
            rows += chunk.num_rows
            failpoint("compactor.writing")
    info = new.info(rows, first, last)
    if rows != sum(i.rows - i.dead for i in group):
        (home.tables / info.path).unlink(missing_ok=True)
        raise RuntimeError(f"{rows} rows were written where {sum(i.rows - i.dead for i in group)} were read")
    if hidden and not rows:
        (home.tables / info.path).unlink(missing_ok=True)
        return []
    return [info]


def _schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """All columns; one that not every input has may be null."""
    import pyarrow as pa

    fields: dict[str, pa.Field] = {}
    for schema in schemas:
        for field in schema:
            known = fields.get(field.name)
            if known is None or (field.nullable and not known.nullable):
                fields[field.name] = field
    for name, field in fields.items():
        if name not in ORIGIN and any(name not in schema.names for schema in schemas):
            fields[name] = field.with_nullable(True)
    metadata = next((schema.metadata for schema in reversed(schemas) if schema.metadata), None)
    return pa.schema(list(fields.values()), metadata=metadata)


def _sorted(
    home: Home,
    conn: sqlite3.Connection,
    group: Sequence[_Input],
    schema: pa.Schema,
    hidden: Jobs,
    stopping: Callable[[], bool],
) -> Iterator[pa.Table]:
    """All rows by job. Only parts whose jobs overlap are held at the same time."""
    import pyarrow as pa

    for cluster in _clusters([i.part for i in group]):
        if stopping():
            raise Stopped
        tables = [_as(_verified(home, conn, part), schema) for part in cluster]
        rows = in_order(tables[0] if len(tables) == 1 else pa.concat_tables(tables))
        if hidden:
            rows = only(rows, hidden, but=True)
        yield rows


def _clusters(parts: Sequence[Part]) -> list[list[Part]]:
    """Ascending parts, those together whose jobs overlap."""
    out: list[list[Part]] = []
    end = -1
    for part in parts:
        if out and part.first <= end:
            out[-1].append(part)
        else:
            out.append([part])
        end = max(end, part.last)
    return out


def _in_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in whole row groups."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    count = 0
    for rows in tables:
        waiting.append(rows)
        count += rows.num_rows
        if count >= ROW_GROUP:
            whole = pa.concat_tables(waiting)
            cut = count - count % ROW_GROUP
            yield whole.slice(0, cut)
            waiting, count = [whole.slice(cut)], count - cut
    if count:
        yield pa.concat_tables(waiting)


def _as(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """`rows` with the columns of `schema`; those that it does not have are null."""
    import pyarrow as pa

    columns = [rows.column(f.name) if f.name in rows.column_names else pa.nulls(rows.num_rows, f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)
