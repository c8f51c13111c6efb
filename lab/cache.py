"""What of many jobs is there already, asked for all of them at once: the work for a miss is a share of one query."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from core.home import Home
from lab.answers import Standing, answers_for


@dataclass
class Found:
    """By key.

    Attributes:
        done: the finished job whose results stand.
        live: the job that is under way.
        why: a finished job that does not answer, and why not.
    """

    done: dict[str, int] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    def get(self, key: str) -> int | None:
        return self.done.get(key) or self.live.get(key)


def look_up(
    home: Home, conn: sqlite3.Connection, keys: Sequence[str], *, sure: bool = False, standing: Standing | None = None
) -> Found:
    """Finished and living jobs with these keys. Only finished ones are looked at more closely.

    Args:
        sure: of living ones only those that nobody holds, that wait for no other, and that no failure of others stops:
            a sweep that borrows a cell shares its fate.
        standing: what is known already of jobs whose files others take; added to.
    """
    found = Found()
    for key, job_id in conn.execute(_LIVE.format(_SURE if sure else ""), (json.dumps(list(keys)),)):
        found.live.setdefault(key, job_id)
    answers = answers_for(home, conn, keys, standing=standing)
    found.done, found.why = answers.done, answers.why
    return found


def live_after(conn: sqlite3.Connection, key: str, makers: Iterable[int]) -> int | None:
    """The job with this key that is under way and waits, or waited, for all of `makers`: it takes their files."""
    for (job_id,) in [r[1:] for r in conn.execute(_LIVE.format(""), (json.dumps([key]),))]:
        waited = {int(r[0]) for r in conn.execute("SELECT needs FROM dep WHERE job = ?", (job_id,))}
        if waited.issuperset(makers):
            return int(job_id)
    return None


# A cell whose sweep is asked to end, or ends, is not under way.
_LIVE = """SELECT s.key, s.id FROM json_each(?) k CROSS JOIN job_state s ON s.key = k.value
    LEFT JOIN job_state w ON w.id = s.sweep
    WHERE s.cells IS NULL AND s.state IN ('running', 'queued', 'held') AND coalesce(s.wish, '') != 'cancel'
        AND coalesce(w.wish, '') != 'cancel' AND coalesce(w.state, '') != 'cancelling' {}
    ORDER BY s.id"""
_SURE = """AND s.state != 'held' AND s.wish IS NULL AND coalesce(w.state, '') != 'held' AND w.wish IS NULL
    AND NOT EXISTS (SELECT 1 FROM dep d JOIN job_state u ON u.id = d.needs
                    WHERE d.job IN (s.id, coalesce(w.id, s.id)) AND u.ended IS NULL)
    AND NOT (s.state = 'queued' AND EXISTS (SELECT 1 FROM sweep p WHERE p.id = w.id AND p.max_fails IS NOT NULL))"""
