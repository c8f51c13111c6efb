"""When a lane that was admitted does not deserve it any more: decided from how its attempts ended, never silently.

A quarantined lane gets nothing until it has climbed the ladder again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from core.journal import query
from core.states import Cause, EventKind

WINDOW = 20  # attempts that are looked at
KILLED = 3  # supervisors that were killed, of the newest ten
KILLED_OF = 10
DAMAGED = 2  # seals that did not match, of the window
UNREADY = 5  # in a row that could not be made ready, or never began


@dataclass(frozen=True)
class AttemptEnd:
    """How one attempt on the lane ended.

    Attributes:
        cause: a `core.states.Cause`.
        kind: of the job.
        contradicts: it failed a check that the very same job passed before, or on another lane.
    """

    cause: str
    kind: str = "command"
    contradicts: bool = False


def misbehaves(history: Sequence[AttemptEnd]) -> str | None:
    """Why the lane should be quarantined, in one sentence; None: it should not.

    Args:
        history: attempts since it was admitted, oldest first. Failures of a program by itself say nothing of a lane.
    """
    recent = list(history)[-WINDOW:]
    if not recent:
        return None
    damaged = [e for e in recent if e.cause == Cause.BAD_SEAL]
    if len(damaged) >= DAMAGED:
        return f"files of {len(damaged)} of its last {len(recent)} attempts came back other than they were sealed"
    newest = recent[-KILLED_OF:]
    killed = [e for e in newest if e.cause == Cause.RUNNER_DIED]
    if len(killed) >= KILLED:
        ended = f"{len(killed)} of its last {len(newest)} attempts were ended so"
        return f"something there kills background processes: {ended}"
    wrong = [e for e in recent if e.kind == "parity" and e.contradicts]
    if wrong:
        return "a kernel parity check that passed before fails there now"
    last = recent[-UNREADY:]
    if len(last) == UNREADY and all(e.cause in (Cause.SETUP, Cause.START_LOST, Cause.LANE_REFUSED) for e in last):
        return f"its last {UNREADY} attempts could not even begin ({last[-1].cause})"
    return None


def history_of(conn: sqlite3.Connection, lane: str) -> list[AttemptEnd]:
    """The ends of attempts on `lane` since a role was last granted to it, oldest first. Empty: it has none."""
    since = conn.execute("SELECT max(seq) FROM admitted WHERE lane = ?", (lane,)).fetchone()[0]
    if since is None:
        return []
    rows = conn.execute(
        """SELECT e.job, e.data ->> '$.cause' FROM event e WHERE e.seq > ? AND e.kind = ? AND e.lane = ?
           ORDER BY e.seq DESC LIMIT ?""",
        (since, str(EventKind.ATTEMPT_ENDED), lane, WINDOW),
    ).fetchall()
    out = []
    for job_id, cause in reversed(rows):
        job = query.job(conn, int(job_id))
        wrong = cause in (Cause.ERROR, Cause.CHECK_CANNOT_FAIL) and job.kind == "parity"
        out.append(AttemptEnd(str(cause or ""), job.kind, wrong and _passed(conn, job.key, job.id)))
    return out


def _passed(conn: sqlite3.Connection, key: str, but: int) -> bool:
    sql = "SELECT 1 FROM job_state WHERE key = ? AND id != ? AND state = 'succeeded' LIMIT 1"
    return conn.execute(sql, (key, but)).fetchone() is not None
