"""A lane whose name stands for another machine than before, while something of it still runs on that one.

What runs on one machine cannot be taken up on another: until it has ended, the lane stays what it was. That holds while
the controller runs and at its start alike, so each lane's entry in the journal says how it was declared.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from core import cluster
from core.cluster import LaneConfig
from core.journal import query

if TYPE_CHECKING:
    from lanes.ledger import LaneBook

_NAMED = 5
# Settings of a lane that its link does not depend on.
_BESIDE = ("about", "admission", "cores", "environment", "gpus", "memory_mb", "ray", "resources", "roles")
DECLARED = "declared"  # in what the journal knows of a lane
NOT_YET = "it has not answered yet"  # the reason of a lane until the first attempt to connect has failed


def refusal(old: LaneConfig, new: LaneConfig, running: Iterable[str]) -> str:
    """Why a lane is not what cluster.yaml says, in one sentence."""
    found = list(running)
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    named = f" ({', '.join(found[:_NAMED])}{more})" if found else ""
    return (
        f"lane {old.name} is {old.transport} until what runs there has ended{named}, and not {new.transport} as "
        f"cluster.yaml says: drain it first, or give the other machine another name"
    )


def same_link(old: LaneConfig, new: LaneConfig) -> bool:
    """Is a lane reached and held in the same way by both? The rest can be taken up while it is at work."""
    return dataclasses.replace(old, **{n: getattr(new, n) for n in _BESIDE}) == new


def held_by(book: LaneBook) -> list[str]:
    """What holds something on a lane, by name."""
    names = [f"job {at[0]} attempt {at[1]}" for at in sorted(a for a in book.held if not isinstance(a, str))]
    return names + (["a batch of cells"] if book.batches else [])


def kept_as_they_were(conn: sqlite3.Connection, books: Mapping[str, LaneBook]) -> dict[str, tuple[LaneConfig, str]]:
    """Lanes that must stay what they were, by name: how they were declared, and why.

    Args:
        books: of the lanes as cluster.yaml has them now.
    """
    running: dict[str, list[str]] = {}
    for attempt in query.open_attempts(conn):
        running.setdefault(attempt.lane, []).append(f"job {attempt.job} attempt {attempt.n}")
    for batch in query.open_batches(conn):
        running.setdefault(batch.lane, []).append("a batch of cells")
    out = {}
    for lane in query.lanes(conn):
        book, was = books.get(lane.name), lane.info.get(DECLARED)
        if book is None or lane.name not in running or not isinstance(was, dict):
            continue
        old = cluster.as_it_was(lane.name, was)
        if old is not None and old.remote != book.config.remote:
            out[lane.name] = (old, refusal(old, book.config, dict.fromkeys(running[lane.name])))
    return out
