"""Rows of many cells to Arrow at once, and which cell is to blame when that fails.

A batch of rows is turned into columns in one go, which is some twenty times cheaper than cell by cell. It accepts
exactly what lanes.rows accepts: where the whole fails, each cell is converted by itself with the same words.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.errors import BadInput
from lanes.pool.types import TableBytes
from lanes.rows import Tables, _plain, _Table

# Values that are what they are: nobody can change them after the row was given.
_SOLID = frozenset({int, float, str, bool, bytes, type(None)})

_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"

CellRows = tuple[int, int, "list[dict[str, Any]] | list[Any]"]  # job, attempt, rows (or Arrow tables)


class Columns:
    """The tables of one kind.

    Raises:
        BadInput: a table declares a column that lab adds.
    """

    def __init__(self, schemas: Mapping[str, pa.Schema]) -> None:
        Tables(Path(), schemas)  # refuses reserved names in the same words
        self.names = {name: frozenset(schema.names) for name, schema in schemas.items()}
        self._plain = dict(schemas)
        self._checks = {name: _Check(name, schema) for name, schema in schemas.items()}
        own = [pa.field("job", pa.int64(), nullable=False), pa.field("attempt", pa.int32(), nullable=False)]
        self._full = {name: pa.schema([*own, *schema], schema.metadata) for name, schema in schemas.items()}
        self._heads = {name: schema.serialize().to_pybytes() for name, schema in self._full.items()}

    def take(self, table: str, rows: Any, kept: list[Any]) -> int:
        """Append `rows` to `kept` as they are now, whatever the kind does with them later. Returns how many.

        Raises:
            BadInput: no such table, no such column, or (Arrow tables) a column of another type.
        """
        names = self.names.get(table)
        if names is None:
            known = ", ".join(sorted(self.names)) or "none"
            raise BadInput(f"this kind declares no table {table!r}", hint=f"it declares: {known}")
        if isinstance(rows, pa.Table):
            kept.append(self._checks[table].checked(rows))
            return int(rows.num_rows)
        count = 0
        for given in rows:
            row = dict(given)
            if not names >= row.keys():
                self._checks[table].checked([row])  # says which
            if not _SOLID.issuperset(map(type, row.values())):
                row = {name: _solid(value) for name, value in row.items()}
            kept.append(row)
            count += 1
        return count

    def stream(self, table: str, cells: Sequence[CellRows]) -> tuple[TableBytes | None, dict[int, BadInput]]:
        """The rows of these cells as one Arrow stream, without those of cells whose rows cannot be; job -> why."""
        wrong: dict[int, BadInput] = {}
        try:
            jobs, columns, count = self._together(table, cells)
        except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError, BadInput):
            good: list[tuple[int, int, pa.Table]] = []
            for job, attempt, rows in cells:
                try:
                    good.append((job, attempt, self._alone(table, rows)))
                except BadInput as error:
                    wrong[job] = error
            jobs, columns, count = self._joined(table, good)
        if not count:
            return None, wrong
        batch = pa.RecordBatch.from_arrays(columns, schema=self._full[table])
        # A stream is its schema, its batches, and a mark: putting it together is cheaper than a writer.
        data = b"".join((self._heads[table], batch.serialize().to_pybytes(), _END_OF_STREAM))
        return TableBytes(data, count, min(jobs), max(jobs)), wrong

    def _together(self, table: str, cells: Sequence[CellRows]) -> tuple[list[int], list[Any], int]:
        """All at once; raises something when any row is odd."""
        jobs: list[int] = []
        attempts: list[int] = []
        rows: list[dict[str, Any]] = []
        for job, attempt, own in cells:
            rows += own
            if len(own) == 1:
                jobs.append(job)
                attempts.append(attempt)
            else:
                jobs += [job] * len(own)
                attempts += [attempt] * len(own)
        columns = [pa.array(jobs, pa.int64()), pa.array(attempts, pa.int32())]
        for field in self._plain[table]:
            column = pa.array(_values(rows, field.name), type=field.type)
            if not field.nullable and column.null_count:
                raise ValueError(field.name)
            columns.append(column)
        return jobs, columns, len(rows)

    def _alone(self, table: str, own: list[Any]) -> pa.Table:
        check = self._checks[table]
        parts: list[pa.Table] = []
        waiting: list[dict[str, Any]] = []
        for item in own:
            if isinstance(item, pa.Table):
                parts += [check.checked(waiting), item] if waiting else [item]
                waiting = []
            else:
                waiting.append(item)
        if waiting or not parts:
            parts.append(check.checked(waiting))
        return parts[0] if len(parts) == 1 else pa.concat_tables(parts)

    def _joined(self, table: str, cells: Sequence[tuple[int, int, pa.Table]]) -> tuple[list[int], list[Any], int]:
        jobs = [job for job, _, rows in cells for _ in range(rows.num_rows)]
        attempts = [attempt for _, attempt, rows in cells for _ in range(rows.num_rows)]
        columns = [pa.array(jobs, pa.int64()), pa.array(attempts, pa.int32())]
        if jobs:
            whole = pa.concat_tables([rows for _, _, rows in cells]).combine_chunks()
            columns += [c.chunk(0) if c.num_chunks == 1 else c.combine_chunks() for c in whole.columns]
        return jobs, columns, len(jobs)


class _Check(_Table):
    """The check of one row or table, without the file that lanes.rows fills."""

    def __init__(self, name: str, schema: pa.Schema) -> None:
        self._name = name
        self._schema = schema

    def checked(self, rows: Any) -> pa.Table:
        return self._checked(rows)


def _values(rows: list[dict[str, Any]], name: str) -> list[Any]:
    pick: Callable[[dict[str, Any]], Any] = itemgetter(name)
    try:
        return list(map(pick, rows))
    except KeyError:
        return [row.get(name) for row in rows]


def _solid(value: Any) -> Any:
    """The value as it is now: NumPy scalars as Python's, arrays and lists as copies."""
    value = _plain(value)
    if type(value) in _SOLID:
        return value
    try:
        return copy.deepcopy(value)
    except Exception:
        return value  # Arrow will say what it thinks of it
