"""`apply`: the only way from events to state.

Each event kind is a handful of SQL statements over a *set* of event rows. The live path calls them with one event,
replay with a hundred thousand: there is no second implementation that could differ. Events about different jobs
commute, so a replay sorts them into rounds (the n-th event of each subject is in round n) and applies each round's
events of one kind at once.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from core.states import EventKind as K

# Every statement finds its events through :seqs, a JSON array of sequence numbers.
_E = "event e JOIN json_each(:seqs) q ON e.seq = q.value"


def _get(*names: str) -> str:
    return ", ".join(f"e.data ->> '$.{n}'" for n in names)


APPLY: dict[str, tuple[str, ...]] = {
    K.SPEC: (f"INSERT OR IGNORE INTO spec SELECT {_get('digest', 'data')} FROM {_E}",),
    K.SUBMITTED: (
        f"""INSERT INTO job_state(id, submit, kind, key, priority, idem, state)
        SELECT e.job, e.seq, {_get("kind", "key", "priority", "idem")},
               CASE WHEN e.data ->> '$.held' THEN 'held' ELSE 'queued' END FROM {_E}""",
        f"""INSERT OR IGNORE INTO dep(job, needs, cond) SELECT e.job, a.value ->> '$[1]', a.value ->> '$[0]'
        FROM {_E}, json_each(e.data, '$.after') a""",
    ),
    # A wish to cancel is never replaced by a lesser one, and a finished job has no wishes.
    K.CANCEL_ASKED: (
        f"""UPDATE job_state AS job SET wish = 'cancel' FROM {_E} WHERE job.id = e.job AND job.ended IS NULL
        AND job.state != 'cancelling'""",
    ),
    K.HOLD_ASKED: (
        f"""UPDATE job_state AS job SET wish = 'hold' FROM {_E} WHERE job.id = e.job AND job.ended IS NULL
        AND job.wish IS NOT 'cancel' AND job.state != 'cancelling'""",
    ),
    K.RELEASE_ASKED: (
        f"""UPDATE job_state AS job SET wish = 'release' FROM {_E} WHERE job.id = e.job AND job.ended IS NULL
        AND job.wish IS NOT 'cancel' AND job.state != 'cancelling'""",
    ),
    K.DRAIN_ASKED: (
        f"""INSERT INTO lane(name, state, reason, wish)
        SELECT e.lane, 'declared', e.data ->> '$.reason', 'drain' FROM {_E} WHERE true
        ON CONFLICT(name) DO UPDATE SET wish = 'drain', reason = excluded.reason""",
    ),
    K.RESUME_ASKED: (f"UPDATE lane SET wish = 'resume' FROM {_E} WHERE lane.name = e.lane",),
    K.DOWN_ASKED: (f"INSERT OR REPLACE INTO down_wish SELECT 1, e.data FROM {_E}",),
    K.CONTROLLER_UP: (
        f"INSERT OR REPLACE INTO controller SELECT 1, e.data, NULL FROM {_E}",
        "DELETE FROM down_wish WHERE :seqs IS NOT NULL",
    ),
    K.CONTROLLER_DOWN: (
        f"UPDATE controller SET down = e.data ->> '$.why' FROM {_E}",
        "DELETE FROM down_wish WHERE :seqs IS NOT NULL",
    ),
    K.LANE: (
        f"""INSERT INTO lane(name, state, reason, data) SELECT e.lane, e.data ->> '$.state',
            coalesce(e.data ->> '$.reason', ''), coalesce(e.data ->> '$.info', '{{}}') FROM {_E} WHERE true
        ON CONFLICT(name) DO UPDATE SET state = excluded.state, reason = excluded.reason, wish = NULL,
            data = coalesce(nullif(excluded.data, '{{}}'), lane.data)""",
    ),
    K.HELD: (f"UPDATE job_state AS job SET state = 'held', wish = NULL FROM {_E} WHERE job.id = e.job",),
    K.RELEASED: (f"UPDATE job_state AS job SET state = 'queued', wish = NULL FROM {_E} WHERE job.id = e.job",),
    K.PLACED: (
        f"""INSERT INTO attempt(job, n, lane, state, nonce, grant_, placed)
        SELECT e.job, e.attempt, e.lane, 'placed', {_get("nonce", "grant")}, e.at FROM {_E}""",
        f"""UPDATE job_state AS job SET state = 'running', attempts = e.attempt, lane = e.lane, reason = NULL, cause = NULL,
        started = coalesce(job.started, e.at) FROM {_E} WHERE job.id = e.job""",
    ),
    K.STARTED: (
        f"""UPDATE attempt SET state = 'running', started = e.at, pid = e.data ->> '$.pid', boot = e.data ->> '$.boot'
        FROM {_E} WHERE attempt.job = e.job AND attempt.n = e.attempt""",
    ),
    K.CANCELLING: (
        f"""UPDATE job_state AS job SET state = 'cancelling', wish = NULL, reason = e.data ->> '$.reason'
        FROM {_E} WHERE job.id = e.job""",
    ),
    K.ATTEMPT_ENDED: (
        f"""UPDATE attempt SET state = e.data ->> '$.state', cause = e.data ->> '$.cause',
        message = e.data ->> '$.message', exit_code = e.data ->> '$.exit_code', seconds = e.data ->> '$.seconds',
        cpu_s = e.data ->> '$.cpu_s', max_rss_mb = e.data ->> '$.max_rss_mb',
        manifest = e.data ->> '$.manifest', undeclared = coalesce(e.data ->> '$.undeclared', '[]'), ended = e.at
        FROM {_E} WHERE attempt.job = e.job AND attempt.n = e.attempt""",
        f"""INSERT INTO part(job, attempt, tbl, path, rows, bytes, sha256)
        SELECT e.job, e.attempt, p.value ->> '$.table', p.value ->> '$.path', p.value ->> '$.rows',
               p.value ->> '$.bytes', p.value ->> '$.sha256' FROM {_E}, json_each(e.data, '$.parts') p""",
    ),
    K.REQUEUED: (
        f"""UPDATE job_state AS job SET state = 'queued', lane = NULL, cause = e.data ->> '$.cause', reason = e.data ->> '$.reason'
        FROM {_E} WHERE job.id = e.job""",
    ),
    K.JOB_ENDED: (
        f"""UPDATE job_state AS job SET state = e.data ->> '$.state', cause = e.data ->> '$.cause', reason = e.data ->> '$.reason',
        undeclared = coalesce(e.data ->> '$.undeclared', 0), ended = e.at, wish = NULL
        FROM {_E} WHERE job.id = e.job""",
    ),
}

# Events that speak of everything: no other event may be moved across them.
_GLOBAL = frozenset({K.CONTROLLER_UP, K.CONTROLLER_DOWN, K.DOWN_ASKED})


def apply(conn: sqlite3.Connection, events: Iterable[tuple[int, str, object]]) -> None:
    """Bring the state tables up to date with `events`, which are already rows of the event table.

    Args:
        events: (seq, kind, subject) in the order of seq; the subject is the job id, the lane's name or None.
    """
    rounds: dict[int, dict[str, list[int]]] = {}
    turn: dict[object, int] = {}
    for seq, kind, subject in events:
        if kind in _GLOBAL:
            _run(conn, rounds)
            rounds, turn = {0: {kind: [seq]}}, {}
            _run(conn, rounds)
            rounds = {}
            continue
        n = turn.get(subject, 0)
        turn[subject] = n + 1
        rounds.setdefault(n, {}).setdefault(kind, []).append(seq)
    _run(conn, rounds)


def replay(conn: sqlite3.Connection) -> int:
    """Apply every event to empty state tables. Returns the number of events."""
    conn.execute("PRAGMA cache_size = -131072")  # everything is touched: keep the pages
    cursor = conn.cursor()
    cursor.row_factory = None
    rows = cursor.execute("SELECT seq, kind, ifnull(job, ifnull(lane, -1)) FROM event ORDER BY seq").fetchall()
    apply(conn, rows)
    return len(rows)


def _run(conn: sqlite3.Connection, rounds: dict[int, dict[str, list[int]]]) -> None:
    for n in sorted(rounds):
        for kind, seqs in rounds[n].items():
            bound = {"seqs": json.dumps(seqs)}
            for statement in APPLY[kind]:
                conn.execute(statement, bound)
