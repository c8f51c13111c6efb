"""`apply`: the only way from events to state.

Each event kind is a handful of SQL statements over a *set* of event rows. The live path calls them with one event,
replay with a hundred thousand: there is no second implementation that could differ. Events about different jobs
commute, so they are sorted into rounds (the n-th event of each subject is in round n) and each round's events of one
kind are applied at once.

A few kinds speak of many jobs in one event (batches of cells, compaction): these are applied one by one, in their
place, and nothing is moved across them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from core.states import EventKind as K

# Every statement finds its events through :seqs, a JSON array of sequence numbers.
_E = "event e JOIN json_each(:seqs) q ON e.seq = q.value"
_ITS_LIVING_JOB = "job.id = e.job AND job.ended IS NULL"


def _get(*names: str) -> str:
    return ", ".join(f"e.data ->> '$.{n}'" for n in names)


# What has ended stays as it is, whatever else is said of it.
APPLY: dict[str, tuple[str, ...]] = {
    K.SPEC: (f"INSERT OR IGNORE INTO spec SELECT {_get('digest', 'data')} FROM {_E}",),
    K.SUBMITTED: (
        f"""INSERT INTO job_state(id, submit, kind, key, priority, idem, pooled, state)
        SELECT e.job, e.seq, {_get("kind", "key", "priority", "idem")}, coalesce(e.data ->> '$.pooled', 0),
               CASE WHEN e.data ->> '$.held' THEN 'held' ELSE 'queued' END FROM {_E}""",
        f"""INSERT OR IGNORE INTO dep(job, needs, cond) SELECT e.job, a.value ->> '$[1]', a.value ->> '$[0]'
        FROM {_E}, json_each(e.data, '$.after') a WHERE instr(e.data, '"after":[]') = 0""",
    ),
    K.SWEPT: (
        f"""INSERT INTO job_state(id, submit, kind, key, priority, idem, pooled, cells, state)
        SELECT e.job, e.seq, {_get("kind", "key", "priority", "idem", "pooled", "cells")},
               CASE WHEN e.data ->> '$.held' THEN 'held' ELSE 'queued' END FROM {_E}""",
        f"""INSERT OR IGNORE INTO dep(job, needs, cond) SELECT e.job, a.value ->> '$[1]', a.value ->> '$[0]'
        FROM {_E}, json_each(e.data, '$.after') a""",
        f"""INSERT INTO sweep(id, cells, total, pooled, at_once, max_fails)
        SELECT e.job, {_get("cells", "cells", "pooled", "at_once", "max_fails")} FROM {_E}""",
        # The event is read once, not with every cell.
        f"""WITH w AS MATERIALIZED (SELECT e.job AS id, e.seq AS seq, {_get("cells")} AS cells,
                {_get("kind")} AS kind, {_get("priority")} AS priority, {_get("pooled")} AS pooled FROM {_E})
        INSERT INTO job_state(id, submit, kind, key, priority, pooled, sweep, state)
        SELECT c.id, w.seq, w.kind, c.key, w.priority, w.pooled, w.id, 'queued'
        FROM w JOIN cell c ON c.id > w.id AND c.id <= w.id + w.cells""",
    ),
    K.AXES: (
        f"""UPDATE sweep SET axes = e.data -> '$.axes', total = sweep.cells + json_array_length(e.data, '$.members')
        FROM {_E} WHERE sweep.id = e.job""",
        f"INSERT INTO member(sweep, job) SELECT e.job, m.value FROM {_E}, json_each(e.data, '$.members') m",
    ),
    K.SWEEP_OPENED: (
        f"""UPDATE job_state AS job SET state = 'running', started = coalesce(job.started, e.at)
        FROM {_E} WHERE job.id = e.job""",
        f"UPDATE sweep SET open = 1 FROM {_E} WHERE sweep.id = e.job",
    ),
    K.CELL_ENDED: (
        f"""INSERT INTO attempt_state(id, lane, state, placed, started, ended)
        SELECT e.job * 4096 + e.attempt, e.lane, e.data ->> '$.state', e.data ->> '$.batch', NULL, e.seq FROM {_E}""",
        f"""UPDATE job_state AS job SET state = e.data ->> '$.to', news = e.seq,
        lane = CASE e.data ->> '$.to' WHEN 'queued' THEN NULL ELSE job.lane END,
        wish = CASE e.data ->> '$.to' WHEN 'queued' THEN job.wish END,
        ended = CASE e.data ->> '$.to' WHEN 'queued' THEN NULL ELSE e.at END FROM {_E} WHERE job.id = e.job""",
    ),
    K.DISCARDED: (
        f"""INSERT OR REPLACE INTO discarded(job, attempt, at, what)
        SELECT e.job, coalesce(e.attempt, 0), e.at, e.data -> '$.what' FROM {_E}""",
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
    K.LANE_ASKED: (f"INSERT INTO lane_ask(seq, lane, what) SELECT e.seq, e.lane, e.data ->> '$.what' FROM {_E}",),
    K.LANE_ANSWERED: (f"UPDATE lane_ask SET answered = e.seq FROM {_E} WHERE lane_ask.seq = e.data ->> '$.ask'",),
    K.RUNG: (
        f"""INSERT OR REPLACE INTO rung(lane, role, rung, ok, seq)
        SELECT e.lane, coalesce(e.data ->> '$.role', ''), {_get("rung", "ok")}, e.seq FROM {_E} WHERE true""",
    ),
    K.ADMITTED: (
        f"""INSERT OR REPLACE INTO admitted(lane, role, seq)
        SELECT e.lane, e.data ->> '$.role', e.seq FROM {_E} WHERE e.data ->> '$.ok'""",
        f"""DELETE FROM admitted WHERE EXISTS(SELECT 1 FROM {_E} WHERE e.lane = admitted.lane
        AND e.data ->> '$.role' = admitted.role AND NOT e.data ->> '$.ok')""",
    ),
    # A name is stated once while it stands; after a withdrawal it may be stated anew.
    K.CLAIM_STATED: (
        f"""INSERT INTO claim(name, stated) SELECT e.data ->> '$.name', e.seq FROM {_E} WHERE true
        ON CONFLICT(name) DO UPDATE SET stated = excluded.stated, withdrawn = NULL, evaluated = NULL,
            highest = NULL WHERE claim.withdrawn IS NOT NULL""",
    ),
    K.CLAIM_WITHDRAWN: (
        f"UPDATE claim SET withdrawn = e.seq FROM {_E} WHERE claim.name = e.data ->> '$.name' AND withdrawn IS NULL",
    ),
    K.CLAIM_EVALUATED: (
        f"""UPDATE claim SET evaluated = e.seq, highest = CASE WHEN e.data ->> '$.highest' THEN e.seq ELSE highest END
        FROM {_E} WHERE claim.name = e.data ->> '$.name'""",
    ),
    K.WAIVED: (
        f"""INSERT INTO waiver(seq, claim, gate, job)
        SELECT e.seq, e.data ->> '$.claim', e.data ->> '$.gate', e.job FROM {_E}""",
    ),
    K.PINNED: (
        f"""INSERT OR REPLACE INTO pin(job, claim, seq)
        SELECT e.job, coalesce(e.data ->> '$.claim', ''), e.seq FROM {_E}""",
    ),
    K.UNPINNED: (
        f"""DELETE FROM pin WHERE EXISTS(SELECT 1 FROM {_E} WHERE e.job = pin.job
        AND coalesce(e.data ->> '$.claim', '') = pin.claim)""",
    ),
    K.HELD: (f"UPDATE job_state AS job SET state = 'held', wish = NULL FROM {_E} WHERE {_ITS_LIVING_JOB}",),
    K.RELEASED: (f"UPDATE job_state AS job SET state = 'queued', wish = NULL FROM {_E} WHERE {_ITS_LIVING_JOB}",),
    K.PLACED: (
        f"""INSERT INTO attempt_state(id, lane, state, placed)
        SELECT e.job * 4096 + e.attempt, e.lane, 'placed', e.seq FROM {_E}""",
        f"""UPDATE job_state AS job SET state = 'running', attempts = e.attempt, lane = e.lane, news = NULL,
        started = coalesce(job.started, e.at) FROM {_E} WHERE job.id = e.job""",
    ),
    K.STARTED: (
        f"""UPDATE attempt_state AS a SET state = 'running', started = e.seq
        FROM {_E} WHERE a.id = e.job * 4096 + e.attempt""",
    ),
    K.CANCELLING: (
        f"""UPDATE job_state AS job SET state = 'cancelling', wish = NULL, news = e.seq
        FROM {_E} WHERE job.id = e.job AND job.ended IS NULL""",
    ),
    K.ATTEMPT_ENDED: (
        f"""UPDATE attempt_state AS a SET state = e.data ->> '$.state', ended = e.seq
        FROM {_E} WHERE a.id = e.job * 4096 + e.attempt""",
        f"""INSERT INTO part(id, tbl, path, rows, bytes, sha256, first, last, attempt)
        SELECT e.seq * 256 + p.key, p.value ->> '$.table', p.value ->> '$.path', p.value ->> '$.rows',
               p.value ->> '$.bytes', p.value ->> '$.sha256', e.job, e.job, e.attempt
        FROM {_E}, json_each(e.data, '$.parts') p WHERE instr(e.data, '"parts":[]') = 0""",
    ),
    K.REQUEUED: (
        f"UPDATE job_state AS job SET state = 'queued', lane = NULL, news = e.seq FROM {_E} WHERE {_ITS_LIVING_JOB}",
    ),
    K.JOB_ENDED: (
        f"""UPDATE job_state AS job SET state = e.data ->> '$.state', news = e.seq, ended = e.at, wish = NULL
        FROM {_E} WHERE job.id = e.job""",
    ),
}

Told = tuple[float, str | None, dict[str, Any]]  # at, lane, data of an event


def _cells(conn: sqlite3.Connection, seq: int, at: float, _lane: str | None, data: dict[str, Any]) -> None:
    terminal = data["state"] in ("cancelled", "skipped")
    when = "state IN ('queued', 'held')" if terminal else "state = 'running'"
    sql = f"UPDATE job_state SET state = ?, news = ?, wish = NULL{', ended = ?' if terminal else ''}"
    values = (data["state"], seq, *([at] if terminal else []))
    for first, last in data["cells"]:
        _change(conn, f"{sql} WHERE id BETWEEN ? AND ? AND {when}", (*values, first, last), last - first + 1)


def _batch_placed(conn: sqlite3.Connection, seq: int, at: float, lane: str | None, data: dict[str, Any]) -> None:
    conn.execute("INSERT INTO batch(seq, lane, dir) VALUES(?,?,?)", (seq, lane, data["dir"]))
    for first, last, n in data["cells"]:
        _change(
            conn,
            """UPDATE job_state SET state = 'running', attempts = ?, lane = ?, news = NULL,
            started = coalesce(started, ?) WHERE id BETWEEN ? AND ? AND state = 'queued'""",
            (n, lane, at, first, last),
            last - first + 1,
        )


def _batch_ended(conn: sqlite3.Connection, seq: int, at: float, lane: str | None, data: dict[str, Any]) -> None:
    conn.execute("UPDATE batch SET ended = ? WHERE seq = ?", (seq, data["batch"]))
    for first, last, n in data["ok"]:
        count = last - first + 1
        _change(
            conn,
            """UPDATE job_state SET state = 'succeeded', news = ?, ended = ?, wish = NULL
            WHERE id BETWEEN ? AND ? AND state = 'running' AND attempts = ?""",
            (seq, at, first, last, n),
            count,
        )
        _change(
            conn,
            """INSERT INTO attempt_state(id, lane, state, placed, ended)
            SELECT id * 4096 + ?, ?, 'succeeded', ?, ? FROM job_state WHERE id BETWEEN ? AND ?""",
            (n, lane, data["batch"], seq, first, last),
            count,
        )
    for first, last, n in data["back"]:
        _change(
            conn,
            """UPDATE job_state SET state = 'queued', attempts = ?, lane = NULL
            WHERE id BETWEEN ? AND ? AND state = 'running' AND attempts = ?""",
            (n - 1, first, last, n),
            last - first + 1,
        )
    _add_parts(conn, seq, data["parts"])


def _compacted(conn: sqlite3.Connection, seq: int, _at: float, _lane: str | None, data: dict[str, Any]) -> None:
    old = data["replaces"]
    _change(conn, "DELETE FROM part WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(old),), len(old))
    _add_parts(conn, seq, data["parts"])


def _add_parts(conn: sqlite3.Connection, seq: int, parts: Sequence[dict[str, Any]]) -> None:
    conn.executemany(
        "INSERT INTO part(id, tbl, path, rows, bytes, sha256, first, last) VALUES(?,?,?,?,?,?,?,?)",
        [
            (seq * 256 + i, p["table"], p["path"], p["rows"], p["bytes"], p["sha256"], p["first"], p["last"])
            for i, p in enumerate(parts)
        ],
    )


def _change(conn: sqlite3.Connection, sql: str, values: tuple[Any, ...], rows: int) -> None:
    """Run a change that must meet exactly `rows` rows: else somebody speaks of what is not so."""
    found = conn.execute(sql, values).rowcount
    if found != rows:
        raise sqlite3.IntegrityError(f"{found} rows where {rows} were spoken of: {sql.split(maxsplit=2)[:2]}")


# Kinds that speak of many jobs in one event.
SETS: dict[str, Callable[[sqlite3.Connection, int, float, str | None, dict[str, Any]], None]] = {
    K.CELLS: _cells,
    K.BATCH_PLACED: _batch_placed,
    K.BATCH_ENDED: _batch_ended,
    K.COMPACTED: _compacted,
}

# The life of most jobs, in this order and nothing else.
_PLAIN = (K.SUBMITTED, K.PLACED, K.STARTED, K.ATTEMPT_ENDED, K.JOB_ENDED)
_KINDS = ", ".join(f"'{kind}'" for kind in _PLAIN)
_ODD = f"job IS NOT NULL AND (attempt > 1 OR kind NOT IN ({_KINDS}))"  # as the index event_odd says it


def apply(
    conn: sqlite3.Connection, events: Iterable[tuple[int, str, object]], at_hand: Mapping[int, Told] | None = None
) -> None:
    """Bring the state tables up to date with `events`, which are already rows of the event table.

    Args:
        events: (seq, kind, subject) in the order of seq; the subject is the job id, the lane's name, or None for what
            speaks of everything.
        at_hand: what those rows hold, by seq, where the caller has just written them: they are not read again.
    """
    waiting: list[tuple[int, str, object]] = []
    for event in events:
        if event[1] in SETS:
            _in_rounds(conn, waiting)
            waiting = []
            seq = event[0]
            told = at_hand.get(seq) if at_hand is not None else None
            if told is None:
                at, lane, data = conn.execute("SELECT at, lane, data FROM event WHERE seq = ?", (seq,)).fetchone()
                told = at, lane, json.loads(data)
            SETS[event[1]](conn, seq, *told)
        elif event[1] == K.SWEPT:  # before anything that speaks of its cells
            _in_rounds(conn, waiting)
            waiting = []
            _run(conn, K.SWEPT, json.dumps([event[0]]))
        else:
            waiting.append(event)
    _in_rounds(conn, waiting)


def _in_rounds(conn: sqlite3.Connection, events: Iterable[tuple[int, str, object]]) -> None:
    rounds: dict[int, dict[str, list[int]]] = {}
    turn: dict[object, int] = {}
    for seq, kind, subject in events:
        n = turn.get(subject, 0)
        turn[subject] = n + 1
        rounds.setdefault(n, {}).setdefault(kind, []).append(seq)
    for n in sorted(rounds):
        for kind, seqs in rounds[n].items():
            _run(conn, kind, json.dumps(seqs))


def replay(conn: sqlite3.Connection) -> int:
    """Apply every event to empty state tables. Returns the number of events.

    Jobs that lived the plain life are taken kind by kind, all at once: SQLite alone sorts them. All others (retried,
    held, cancelled, ...), all cells of sweeps, and what speaks of lanes or of everything goes through `apply` in the
    order in which it was.
    """
    conn.execute("PRAGMA cache_size = -131072")  # everything is touched: keep the pages
    cursor = conn.cursor()
    cursor.row_factory = None
    of_states = "type = 'index' AND sql != '' AND tbl_name IN ('job_state', 'attempt_state')"
    indexes = cursor.execute(f"SELECT name, sql FROM sqlite_master WHERE {of_states}").fetchall()
    for name, _sql in indexes:  # made once at the end, not kept up with every step
        cursor.execute(f"DROP INDEX {name}")
    odd = "SELECT job FROM event INDEXED BY event_odd WHERE " + _ODD
    if cursor.execute("SELECT 1 FROM cell LIMIT 1").fetchone():
        odd += " UNION SELECT id FROM cell"
    at_once = {
        kind: cursor.execute(
            f"SELECT json_group_array(seq) FROM event WHERE kind = '{kind}' AND job NOT IN ({odd})"
        ).fetchone()[0]
        for kind in _PLAIN
    }
    # A spec is about nothing but itself: each gets a subject of its own.
    rest = cursor.execute(
        f"""SELECT seq, kind, CASE kind WHEN 'spec' THEN -seq ELSE ifnull(job, ifnull(lane, 0)) END FROM event
            WHERE job IS NULL OR job IN ({odd}) ORDER BY seq"""
    ).fetchall()
    for kind in _PLAIN:
        _run(conn, kind, at_once[kind])
    apply(conn, rest)
    for _name, sql in indexes:
        cursor.execute(sql)
    return int(cursor.execute("SELECT count(*) FROM event").fetchone()[0])


def _run(conn: sqlite3.Connection, kind: str, seqs: str) -> None:
    for statement in APPLY[kind]:
        conn.execute(statement, {"seqs": seqs})
