"""Is the answer there already? Which finished job stands for a key, and why one that nearly does may not."""

from __future__ import annotations

import sqlite3

from core.fsio import sha256_file
from core.home import Home
from core.journal import query
from core.journal.query import Job
from core.states import AttemptState, JobState


def answer_in_cache(home: Home, conn: sqlite3.Connection, key: str) -> tuple[Job | None, str]:
    """The finished job that answers `key`, or None and, when one nearly did, why it does not.

    A job that read what it had not declared never answers; nor does one whose files are no longer there.
    """
    why = ""
    for job in query.jobs(conn, states=(JobState.SUCCEEDED,), key=key):
        if job.undeclared:
            why = why or f"job {job.id} is the same but read files that were not declared"
            continue
        gone = _what_is_gone(home, conn, job)
        if not gone:
            return job, ""
        why = why or f"job {job.id} is the same but {gone}"
    return None, why


def _what_is_gone(home: Home, conn: sqlite3.Connection, job: Job) -> str:
    """What of a succeeded job's evidence is missing, in a few words; "" when all of it is there."""
    done = [a for a in query.attempts(conn, job.id) if a.state is AttemptState.SUCCEEDED]
    if not done:
        return "no attempt of it is recorded as committed"
    manifest = home.run_dir(job.id, done[-1].n).manifest
    try:
        if done[-1].manifest is not None and sha256_file(manifest) != done[-1].manifest:
            return "its manifest is not the one that was committed"
        if done[-1].manifest is None and not manifest.is_file():
            return "its run directory is gone"
    except OSError:
        return "its run directory is gone"
    for part in query.parts(conn, job_id=job.id):
        try:
            size = (home.tables / part.path).stat().st_size
        except OSError:
            return f"its part of table {part.table} is gone"
        if size != part.bytes:
            return f"its part of table {part.table} is damaged"
    return ""
