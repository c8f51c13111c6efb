"""When a lane that was admitted does not deserve it any more: decided from how its attempts ended, never silently.

A quarantined lane gets nothing until it has climbed the ladder again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from core.journal import query
from core.states import Cause, EventKind

WINDOW = 20  # attempts that are looked at
KILLED = 3  # supervisors that were killed, of the newest ten
KILLED_OF = 10
DAMAGED = 2  # seals that did not match, of the window
UNREADY = 5  # jobs in a row that could not be made ready, or never began
_LOOK = 60  # attempts among which these are looked for: those that count for nothing may lie between
_NEAR, _FAR, _MANY = 500, 10_000, 5000  # jobs from so far around, and so many of their attempts, are compared with
_MADE_READY = ("kind", "entry", "kind_code", "code", "inputs", "packages", "python", "env")  # of a spec

COULD_NOT_BEGIN = frozenset({Cause.SETUP, Cause.START_LOST, Cause.LANE_REFUSED})
_RAN = frozenset(  # ends of what had begun, whatever became of it then
    {
        Cause.OK,
        Cause.ERROR,
        Cause.SIGNAL,
        Cause.TIME_LIMIT,
        Cause.RUNNER_DIED,
        Cause.MEMORY,
        Cause.HOST_MEMORY,
        Cause.INCOMPLETE,
        Cause.CHECK_CANNOT_FAIL,
    }
)


@dataclass(frozen=True)
class AttemptEnd:
    """How one attempt on the lane ended.

    Attributes:
        cause: a `core.states.Cause`.
        kind: of the job.
        contradicts: it failed a check that the very same job passed before, or on another lane.
        job: its number; None: one that has no other end.
        own: that it could not begin says nothing of the lane (see `is_own`).
    """

    cause: str
    kind: str = "command"
    contradicts: bool = False
    job: int | None = None
    own: bool = False


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
    unready = _unready(history)
    if len(unready) >= UNREADY:
        return f"{len(unready)} jobs in a row could not even begin there ({unready[0].cause})"
    return None


def is_own(cause: str, elsewhere: Iterable[str]) -> bool:
    """Is it the work's own fault that it could not begin: an input that is gone, an environment that cannot be made?

    Args:
        elsewhere: how the same work (its code, inputs and environment) ended on other lanes. If it could not begin
            there either, for the same reason, and never ran there, no lane is to blame.
    """
    seen = set(elsewhere)
    return cause in COULD_NOT_BEGIN and cause in seen and not seen & _RAN


def _unready(history: Sequence[AttemptEnd]) -> list[AttemptEnd]:
    """The newest ends, one of each job, that speak of a lane on which nothing can begin; newest first."""
    found: dict[int, AttemptEnd] = {}
    for place, end in enumerate(reversed(history)):
        if end.cause not in COULD_NOT_BEGIN:
            break
        if not end.own:
            # However often a job is tried again, it is one witness.
            found.setdefault(-place - 1 if end.job is None else end.job, end)
    return list(found.values())


def history_of(conn: sqlite3.Connection, lane: str) -> list[AttemptEnd]:
    """The ends of attempts on `lane` since a role was last granted to it, oldest first. Empty: it has none."""
    since = conn.execute("SELECT max(seq) FROM admitted WHERE lane = ?", (lane,)).fetchone()[0]
    if since is None:
        return []
    rows = conn.execute(
        """SELECT e.job, e.data ->> '$.cause' FROM event e WHERE e.seq > ? AND e.kind = ? AND e.lane = ?
           ORDER BY e.seq DESC LIMIT ?""",
        (since, str(EventKind.ATTEMPT_ENDED), lane, _LOOK),
    ).fetchall()
    out = []
    for job_id, cause in reversed(rows):
        job = query.job(conn, int(job_id))
        wrong = cause in (Cause.ERROR, Cause.CHECK_CANNOT_FAIL) and job.kind == "parity"
        out.append(AttemptEnd(str(cause or ""), job.kind, wrong and _passed(conn, job.key, job.id), job.id))
    suspects = _unready(out)
    if len(suspects) < UNREADY:
        return out
    own = _own(conn, lane, suspects)
    return [replace(e, own=(e.job, e.cause) in own) for e in out]


def _own(conn: sqlite3.Connection, lane: str, suspects: Sequence[AttemptEnd]) -> set[tuple[int | None, str]]:
    """Which of these (job, cause) could not begin by their own fault."""
    work: dict[str, str] = {}  # spec digest -> what must be made ready for it

    def work_of(digest: str) -> str:
        if digest not in work:
            spec = query.spec_of(conn, digest)
            work[digest] = json.dumps([spec.get(part) for part in _MADE_READY], sort_keys=True)
        return work[digest]

    works = {e.job: work_of(query.job(conn, e.job).spec) for e in suspects if e.job is not None}
    # The same work is mostly submitted at about the same time, and so its numbers are close to each other.
    sql = """SELECT j.spec, a.cause FROM attempt a JOIN job j ON j.id = a.job
             WHERE a.id BETWEEN ? AND ? AND a.lane != ? AND a.ended IS NOT NULL LIMIT ?"""
    newest = max(works)
    first, last = (max(min(works) - _NEAR, newest - _FAR)) * 4096, (newest + _NEAR) * 4096
    elsewhere: dict[str, set[str]] = {}
    for spec, cause in conn.execute(sql, (first, last, lane, _MANY)):
        elsewhere.setdefault(work_of(spec), set()).add(str(cause))
    return {(e.job, e.cause) for e in suspects if e.job in works and is_own(e.cause, elsewhere.get(works[e.job], ()))}


def _passed(conn: sqlite3.Connection, key: str, but: int) -> bool:
    sql = "SELECT 1 FROM job_state WHERE key = ? AND id != ? AND state = 'succeeded' LIMIT 1"
    return conn.execute(sql, (key, but)).fetchone() is not None
