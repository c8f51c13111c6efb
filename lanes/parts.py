"""The rows that come with a batch's end, as they go into the journal."""

from __future__ import annotations

import hashlib
from typing import Any

from lanes.decide import BatchVerdict
from lanes.pool.spool import only_of
from lanes.pool.types import TableBytes


def of_committed(tables: dict[str, TableBytes], verdict: BatchVerdict, cells: int) -> list[tuple[str, TableBytes]]:
    """The tables without rows of cells that do not commit (a cancel may have come after they were written)."""
    if not tables or not verdict.committed:
        return []
    out = sorted(tables.items())
    if len(verdict.committed) < cells:
        out = [(name, only_of(table, verdict.committed)) for name, table in out]
    return [(name, table) for name, table in out if table.rows]


def part_of(name: str, table: TableBytes) -> dict[str, Any]:
    return {
        "table": name,
        "path": "",
        "rows": table.rows,
        "bytes": len(table.data),
        "sha256": hashlib.sha256(table.data).hexdigest(),
        "first": table.first,
        "last": table.last,
    }
