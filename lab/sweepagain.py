"""A sweep once more: all of its cells, or those that failed, as one new sweep with the code of then."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Sequence
from typing import Any

from core.errors import BadInput
from core.journal import query
from core.journal.query import Job
from core.spec import sweep_key
from core.states import JobState
from lab.cells import Cell
from lab.recording import Draft

_PART_OF = re.compile(r"^[\d,]+ of ")


def sweep_again(conn: sqlite3.Connection, job: Job, spec: dict[str, Any], *, failed: bool) -> Draft:
    """The draft of the new sweep.

    Raises:
        BadInput: `failed`, and no cell has failed.
    """
    sweep = query.sweep(conn, job.id)
    cells = query.cells(conn, job.id, states=(JobState.FAILED,) if failed else ())
    if not cells:
        raise BadInput(f"no cell of sweep {job.id} has failed{_but(conn, job.id)}", hint=_hint(conn, job))
    rows = [
        Cell(c.key, c.name, json.dumps(c.params, separators=(",", ":"), ensure_ascii=False), _own(c, job))
        for c in cells
    ]
    axes: Sequence[tuple[str, Sequence[Any]]] = sweep.axes
    name = job.name
    if failed and len(cells) < sweep.total:
        axes = [(axis, _that_occur(axis, values, cells)) for axis, values in axes]
        name = f"{len(cells):,} of {_PART_OF.sub('', job.name)}"
    return Draft(
        kind=job.kind,
        name=name,
        params=job.params,
        key=sweep_key(c.key for c in cells),
        spec_digest=job.spec,
        spec=spec,
        priority=job.priority,
        tags=job.tags,
        note=job.note,
        pooled=sweep.pooled,
        cells=rows,
        specs={name: query.spec_of(conn, name) for name in {r.spec for r in rows if r.spec is not None}},
        axes=axes,
        at_once=sweep.at_once,
        max_fails=sweep.max_fails,
    )


def _own(cell: Job, sweep: Job) -> str | None:
    return cell.spec if cell.spec != sweep.spec else None


def _that_occur(axis: str, values: Sequence[Any], cells: Sequence[Job]) -> list[Any]:
    """The values of an axis that these cells have (all of them where the axis is no parameter)."""
    if any(axis not in c.params for c in cells):
        return list(values)
    there = {json.dumps(c.params[axis], sort_keys=True) for c in cells}
    return [v for v in values if json.dumps(v, sort_keys=True) in there]


def _but(conn: sqlite3.Connection, sweep_id: int) -> str:
    counts = query.sweep_counts(conn, sweep_id)
    said = [f"{n:,} {state}" for state, n in counts.items() if n and state is not JobState.FAILED]
    return f" ({', '.join(said)})" if said else ""


def _hint(conn: sqlite3.Connection, job: Job) -> str:
    if job.state is JobState.SUCCEEDED:
        return f"`lab results {job.id}` shows what it found"
    if not job.state.terminal:
        return f"`lab status {job.id}` shows how far it is"
    return f"`lab rerun {job.id}` runs every cell that has not succeeded"
