"""Result rows as Arrow files: one `results/TABLE.arrow` per table, every row checked against the kind's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.errors import BadInput

RESERVED = ("job", "attempt", "lane", "key")  # the head adds these
_BATCH_ROWS = 4096


class Tables:
    """The result tables of one attempt while it runs."""

    def __init__(self, folder: Path, schemas: Mapping[str, Any]) -> None:
        self._folder = folder
        self._schemas = schemas
        self._open: dict[str, _Table] = {}
        for name, schema in schemas.items():
            taken = [c for c in RESERVED if c in schema.names]
            if taken:
                raise BadInput(f"the table {name!r} declares {taken[0]!r}", hint="that column is added by lab")

    def append(self, name: str, rows: Sequence[Mapping[str, Any]] | Any) -> None:
        """Add rows to the table `name`.

        Raises:
            BadInput: no such table, or a row that its schema does not allow; none of the rows is added.
        """
        if name not in self._schemas:
            known = ", ".join(sorted(self._schemas)) or "none"
            raise BadInput(f"this kind declares no table {name!r}", hint=f"it declares: {known}")
        if name not in self._open:
            self._open[name] = _Table(self._folder / f"{name}.arrow", name, self._schemas[name])
        self._open[name].append(rows)

    def close(self) -> dict[str, int]:
        """Write what waits and the end of each file. Returns rows by table; a declared table without rows has none."""
        return {name: table.close() for name, table in self._open.items()}


class _Table:
    def __init__(self, path: Path, name: str, schema: Any) -> None:
        self._name = name
        self._schema = schema
        self._waiting: list[Any] = []
        self._waiting_rows = 0
        self._rows = 0
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, schema)

    def append(self, rows: Any) -> None:
        table = self._checked(rows)
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        self._rows += table.num_rows
        if self._waiting_rows >= _BATCH_ROWS:
            self._flush()

    def close(self) -> int:
        if not self._sink.closed:
            self._flush()
            self._writer.close()
            self._sink.close()
        return self._rows

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks())
            self._waiting, self._waiting_rows = [], 0

    def _checked(self, rows: Any) -> Any:
        given = isinstance(rows, pa.Table)
        if given:
            names = set(rows.column_names)
        else:
            rows = [dict(row) for row in rows]
            names = {n for row in rows for n in row}
        unknown = sorted(names - set(self._schema.names))
        if unknown:
            raise BadInput(f"the table {self._name!r} has no column {unknown[0]!r}", hint="add it to the kind's schema")
        columns = [self._column(field, rows, given) for field in self._schema]
        return pa.Table.from_arrays(columns, schema=self._schema)

    def _column(self, field: Any, rows: Any, given: bool) -> Any:
        where = f"column {field.name!r} of the table {self._name!r}"
        try:
            if not given:
                column = pa.array([_plain(row.get(field.name)) for row in rows], type=field.type)
            elif field.name in rows.column_names:
                column = rows.column(field.name).cast(field.type)
            else:
                column = pa.nulls(rows.num_rows, field.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise BadInput(f"{where} must be {field.type}: {error}") from error
        if not field.nullable and column.null_count:
            raise BadInput(f"{where} has a row without a value and may not")
        return column


def _plain(value: Any) -> Any:
    """NumPy scalars become Python's; everything else is Arrow's to judge."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    return value
