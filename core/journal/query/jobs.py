"""Jobs: one, many, those that wait, and what they wait for."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from core.errors import NotFound
from core.journal.query.rows import Job, job_of
from core.states import Cond, JobState


def counts(conn: sqlite3.Connection, *, top: bool = False) -> dict[JobState, int]:
    """How many jobs are in each state. `top`: a sweep counts as one, its cells do not; else the other way round."""
    out: dict[JobState, int] = {}
    if top:
        asked = ["SELECT state, count(*) FROM job_state WHERE sweep IS NULL GROUP BY state"]
    else:
        asked = [
            "SELECT state, count(*) FROM job_state WHERE sweep IS NULL GROUP BY state",
            "SELECT s.state, -1 FROM sweep w JOIN job_state s ON s.id = w.id",
            "SELECT state, count(*) FROM job_state WHERE sweep IS NOT NULL GROUP BY sweep, state",
        ]
    for sql in asked:
        for state, n in conn.execute(sql):
            out[JobState(state)] = out.get(JobState(state), 0) + int(n)
    return {state: n for state, n in out.items() if n}


def job(conn: sqlite3.Connection, job_id: int) -> Job:
    """The job `job_id`. Raises NotFound."""
    row = conn.execute("SELECT * FROM job WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        last = conn.execute("SELECT max(id) FROM job_state").fetchone()[0]
        raise NotFound(
            f"there is no job {job_id}",
            hint=f"ids so far go from 1 to {last}; `lab status --all` lists them"
            if last
            else "nothing was submitted yet",
        )
    return job_of(row)


def jobs(
    conn: sqlite3.Connection,
    *,
    states: tuple[JobState, ...] = (),
    kind: str | None = None,
    tag: str | None = None,
    ids: tuple[int, ...] = (),
    key: str | None = None,
    limit: int | None = None,
    newest_first: bool = True,
    top: bool = False,
    sweep: int | None = None,
) -> list[Job]:
    """Jobs that are all of what is asked for. `top`: a sweep, but not its cells; `sweep`: only its own cells."""
    where, args = ["true"], []
    if top:
        where.append("sweep IS NULL")
    if sweep is not None:
        where.append("sweep = ?")
        args.append(str(sweep))
    if states:
        # What has ended is looked for from the newest on: by the index of states, all of it would be sorted first.
        column = "+state" if any(s.terminal for s in states) else "state"
        where.append(f"{column} IN ({', '.join('?' * len(states))})")
        args += [str(s) for s in states]
        if not any(s.terminal for s in states):
            if top:
                where.append("ended IS NULL")  # lets the index of live jobs answer
            elif sweep is None:
                where.append(f"id IN ({_LIVE} AND {where[-1]})")
                args += [str(s) for s in states]
    if kind is not None:
        where.append("kind = ?")
        args.append(kind)
    if key is not None:
        where.append("key = ?")
        args.append(key)
    if tag is not None:
        where.append("EXISTS (SELECT 1 FROM json_each(tags) t WHERE t.value = ?)")
        args.append(tag)
    if ids:
        where.append(f"id IN ({', '.join(str(int(i)) for i in ids)})")
    order = "id DESC" if newest_first else "id"
    tail = f" LIMIT {int(limit)}" if limit is not None else ""
    return [
        job_of(r) for r in conn.execute(f"SELECT * FROM job WHERE {' AND '.join(where)} ORDER BY {order}{tail}", args)
    ]


def with_attempts(conn: sqlite3.Connection, jobs: Sequence[Job]) -> list[Job]:
    """The same jobs, each with when its current or last attempt began, how long it took, and its expected last step.

    Of a batch only the whole is known: nothing is added to its cells.
    """
    asked = json.dumps([j.id for j in jobs if j.attempts and not j.is_sweep])
    sql = """SELECT s.id, coalesce(a.started, a.placed), coalesce(a.seconds, a.ended - coalesce(a.started, a.placed))
        FROM json_each(?) k CROSS JOIN job_state s ON s.id = k.value
            JOIN attempt a ON a.id = s.id * 4096 + s.attempts WHERE a.batch IS NULL"""
    tries = {int(r[0]): (r[1], r[2]) for r in conn.execute(sql, (asked,))}
    specs = json.dumps(list({j.spec for j in jobs if j.id in tries and not j.state.terminal}))
    sql = """SELECT digest, data ->> '$.expect.last_step' FROM spec
        WHERE digest IN (SELECT value FROM json_each(?))"""
    steps = {str(r[0]): r[1] for r in conn.execute(sql, (specs,))} if specs != "[]" else {}
    return [
        replace(j, begun=tries[j.id][0], seconds=tries[j.id][1], last_step=steps.get(j.spec)) if j.id in tries else j
        for j in jobs
    ]


# Live jobs, by the indexes: a cell lives only while its sweep does.


_LIVE = """SELECT id FROM job_state WHERE ended IS NULL AND sweep IS NULL UNION ALL
    SELECT id FROM job_state WHERE sweep IN (
        SELECT id FROM job_state WHERE ended IS NULL AND sweep IS NULL AND cells IS NOT NULL)"""


def queue(conn: sqlite3.Connection, limit: int = 256, *, after: tuple[int, int] | None = None) -> list[Job]:
    """Jobs (no sweeps, no cells) that could be placed now, in the order in which they should be: priority, then age.

    Args:
        after: (priority, id) of the last job of the page before.
    """
    priority, last = after or (1 << 62, 0)
    rows = conn.execute(
        """SELECT * FROM job WHERE state = 'queued' AND sweep IS NULL AND cells IS NULL AND wish IS NULL
           AND NOT EXISTS (
               SELECT 1 FROM dep d JOIN job_state u ON u.id = d.needs WHERE d.job = job.id AND u.ended IS NULL)
           AND (priority < ? OR (priority = ? AND id > ?))
           ORDER BY priority DESC, id LIMIT ?""",
        (priority, priority, last, limit),
    )
    return [job_of(r) for r in rows]


def wishes(conn: sqlite3.Connection) -> list[Job]:
    """Jobs for which something was asked that the controller has not answered."""
    return [job_of(r) for r in conn.execute("SELECT * FROM job WHERE wish IS NOT NULL ORDER BY id")]


def dependencies(conn: sqlite3.Connection, job_id: int) -> list[tuple[Cond, Job]]:
    rows = conn.execute("SELECT cond, needs FROM dep WHERE job = ? ORDER BY needs", (job_id,)).fetchall()
    return [(Cond(r[0]), job(conn, r[1])) for r in rows]


def dependents(conn: sqlite3.Connection, job_id: int) -> list[tuple[Cond, Job]]:
    rows = conn.execute("SELECT cond, job FROM dep WHERE needs = ? ORDER BY job", (job_id,)).fetchall()
    return [(Cond(r[0]), job(conn, r[1])) for r in rows]
