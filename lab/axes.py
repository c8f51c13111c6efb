"""Parameters of jobs as columns: the axes of a sweep, or everything that was given."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from core.journal import query
from core.tables import Jobs
from lab.output import human

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = "SELECT id, sweep, name, params FROM job WHERE id BETWEEN ? AND ? AND cells IS NULL"


def axes_of(conn: sqlite3.Connection, ids: Iterable[int]) -> tuple[str, ...]:
    """Names of the axes of the sweeps among `ids`, each once."""
    given = json.dumps(list(ids))
    names: dict[str, None] = {}
    for (sweep,) in conn.execute("SELECT id FROM sweep WHERE id IN (SELECT value FROM json_each(?))", (given,)):
        names.update(dict.fromkeys(name for name, _ in query.sweep(conn, sweep).axes))
    return tuple(names)


def parameter_table(conn: sqlite3.Connection, jobs: Jobs | None, names: Sequence[str] | None = None) -> pa.Table:
    """A row for each job: `job` and its parameters.

    Args:
        jobs: None: all.
        names: only these parameters (or axes that are placeholders in a program's words); None: all that any has.
    """
    import pyarrow as pa

    ids, values = _values(conn, jobs, names)
    columns = list(names) if names is not None else sorted({n for row in values for n in row})
    arrays = [_array([row.get(n) for row in values]) for n in columns]
    return pa.table([pa.array(ids, pa.int64()), *arrays], names=["job", *columns])


def cell_values(conn: sqlite3.Connection, jobs: Jobs, names: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """The values of these parameters for each job, as text that can be compared."""
    ids, values = _values(conn, jobs, names)
    return {i: tuple(_text(row.get(n)) for n in names) for i, row in zip(ids, values, strict=True)}


def _values(
    conn: sqlite3.Connection, jobs: Jobs | None, names: Sequence[str] | None
) -> tuple[list[int], list[dict[str, Any]]]:
    ids: list[int] = []
    values: list[dict[str, Any]] = []
    labels: dict[int, _Labels] = {}
    cursor = conn.cursor()
    cursor.row_factory = None
    for first, last in jobs.spans if jobs is not None else ((1, 1 << 62),):
        for i, sweep, name, text in cursor.execute(_ROWS, (first, last)):
            params = json.loads(text)
            if names is not None and sweep is not None and not params.keys() >= set(names):
                if sweep not in labels:
                    labels[sweep] = _Labels(query.sweep(conn, sweep).axes)
                params = {**labels[sweep].read(name or ""), **params}
            ids.append(i)
            values.append(params)
    return ids, values


class _Labels:
    """An axis that fills a place in a program's words is no parameter: its value is in the name of the cell."""

    def __init__(self, axes: Sequence[tuple[str, Sequence[Any]]]) -> None:
        self._axes = [(name, {_said(v): v for v in values}) for name, values in axes]

    def read(self, label: str) -> dict[str, Any]:
        out: dict[str, Any] = {}
        rest = label
        for at, (name, values) in enumerate(self._axes):
            if not rest.startswith(f"{name}="):
                break
            rest = rest[len(name) + 1 :]
            end = len(rest)
            if at + 1 < len(self._axes):
                found = rest.find(f" {self._axes[at + 1][0]}=")
                end = found if found >= 0 else end
            word, rest = rest[:end], rest[end + 1 :]
            if word in values:
                out[name] = values[word]
        return out


def _said(value: Any) -> str:
    """As the names of cells are made."""
    return repr(value) if isinstance(value, float) else human.value(value)


def _array(values: list[Any]) -> Any:
    """One column: numbers, text or flags where all are; else each value as JSON."""
    import pyarrow as pa

    if not any(isinstance(v, (dict, list)) for v in values):
        if any(isinstance(v, bool) for v in values) and not all(isinstance(v, bool) or v is None for v in values):
            return pa.array([_text(v) for v in values], pa.string())
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError):
            pass
    return pa.array([None if v is None else v if isinstance(v, str) else _text(v) for v in values], pa.string())


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
