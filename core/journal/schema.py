"""The journal's tables, its version, and the migrations from older ones."""

from __future__ import annotations

import sqlite3

# Bump with a migration below and a checked-in journal of the old version under tests/core/journals/.
VERSION = 3

EVENT_TABLE = """
CREATE TABLE event(
    seq     INTEGER PRIMARY KEY,
    at      REAL NOT NULL,          -- wall clock of the head, for people; order is seq
    kind    TEXT NOT NULL,
    job     INTEGER,
    attempt INTEGER,
    lane    TEXT,
    data    TEXT NOT NULL DEFAULT '{}'
);
-- The promise, as constraints: an attempt is placed once and ends once, a job ends once.
CREATE UNIQUE INDEX event_placed ON event(job, attempt) WHERE kind = 'placed';
CREATE UNIQUE INDEX event_attempt_ended ON event(job, attempt) WHERE kind = 'attempt-ended';
CREATE UNIQUE INDEX event_job_ended ON event(job) WHERE kind = 'job-ended';
CREATE INDEX event_job ON event(job) WHERE job IS NOT NULL;
"""

STATE_TABLES = """
CREATE TABLE spec(digest TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
-- What changes in a job's life, and what is looked up. All else stays where the submit wrote it (see the view): each
-- change then rewrites a short row, and finished jobs, nearly all of them, are in no index of states.
CREATE TABLE job_state(
    id         INTEGER PRIMARY KEY,
    submit     INTEGER NOT NULL,    -- seq of its submit
    kind       TEXT NOT NULL,
    key        TEXT NOT NULL,
    state      TEXT NOT NULL,
    cause      TEXT,
    reason     TEXT,
    priority   INTEGER NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    lane       TEXT,
    wish       TEXT,                -- cancel, hold or release: asked for, not yet answered
    idem       TEXT,
    started    REAL,
    ended      REAL,
    undeclared INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX job_live ON job_state(state) WHERE ended IS NULL;
CREATE INDEX job_queue ON job_state(priority DESC, id) WHERE state = 'queued';
CREATE INDEX job_key ON job_state(key);
CREATE INDEX job_wish ON job_state(id) WHERE wish IS NOT NULL;
CREATE UNIQUE INDEX job_idem ON job_state(idem) WHERE idem IS NOT NULL;
-- A left join: SQLite leaves it out where nothing of the submit is asked for.
CREATE VIEW job AS
    SELECT s.id, s.kind, s.key, s.state, s.cause, s.reason, s.priority, s.attempts, s.lane, s.wish, s.idem,
           s.started, s.ended, s.undeclared, e.at AS submitted,
           e.data ->> '$.spec' AS spec, e.data ->> '$.name' AS name, e.data ->> '$.params' AS params,
           e.data ->> '$.tags' AS tags, e.data ->> '$.note' AS note, e.data ->> '$.rerun_of' AS rerun_of
    FROM job_state s LEFT JOIN event e ON e.seq = s.submit;
CREATE TABLE dep(
    job INTEGER NOT NULL, needs INTEGER NOT NULL, cond TEXT NOT NULL, PRIMARY KEY(job, needs)
) WITHOUT ROWID;
CREATE INDEX dep_needs ON dep(needs);
CREATE TABLE attempt(
    job        INTEGER NOT NULL,
    n          INTEGER NOT NULL,
    lane       TEXT NOT NULL,
    state      TEXT NOT NULL,
    nonce      TEXT NOT NULL,
    grant_     TEXT NOT NULL,
    cause      TEXT,
    message    TEXT,
    exit_code  INTEGER,
    pid        INTEGER,
    boot       TEXT,
    seconds    REAL,
    cpu_s      REAL,
    max_rss_mb REAL,
    placed     REAL NOT NULL,
    started    REAL,
    ended      REAL,
    undeclared TEXT NOT NULL DEFAULT '[]',
    manifest   TEXT,                -- sha256 of manifest.json as committed
    PRIMARY KEY(job, n)
) WITHOUT ROWID;
CREATE INDEX attempt_open ON attempt(lane) WHERE ended IS NULL;
CREATE TABLE part(
    job     INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    tbl     TEXT NOT NULL,
    path    TEXT NOT NULL,          -- relative to tables/
    rows    INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    sha256  TEXT NOT NULL,
    PRIMARY KEY(tbl, job, attempt)
) WITHOUT ROWID;
CREATE TABLE lane(
    name   TEXT PRIMARY KEY,
    state  TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    wish   TEXT,
    data   TEXT NOT NULL DEFAULT '{}'
) WITHOUT ROWID;
CREATE TABLE controller(
    id   INTEGER PRIMARY KEY CHECK(id = 1),
    data TEXT NOT NULL,
    down TEXT                       -- why it is down; NULL while it is up (or was killed)
);
CREATE TABLE down_wish(id INTEGER PRIMARY KEY CHECK(id = 1), data TEXT NOT NULL);
"""

STATE_TABLE_NAMES = ("spec", "job_state", "dep", "attempt", "part", "lane", "controller", "down_wish")

META_TABLE = "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"


def create(conn: sqlite3.Connection, generation: str) -> None:
    """Make an empty journal inside the caller's transaction."""
    for script in (META_TABLE, EVENT_TABLE, STATE_TABLES):
        for statement in _statements(script):
            conn.execute(statement)
    conn.execute("INSERT INTO meta VALUES('generation', ?)", (generation,))
    conn.execute(f"PRAGMA user_version = {VERSION}")


def drop_state(conn: sqlite3.Connection) -> None:
    """Forget everything that follows from the events."""
    old = {r[0]: r[1] for r in conn.execute("SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')")}
    for name in ("job", *STATE_TABLE_NAMES):  # `job` was a table once
        if name in old:
            conn.execute(f"DROP {old[name]} {name}")


def create_state(conn: sqlite3.Connection) -> None:
    for statement in _statements(STATE_TABLES):
        conn.execute(statement)


def migrate(conn: sqlite3.Connection, version: int) -> None:
    """Bring an older journal to VERSION inside the caller's transaction.

    Events are the truth, so a migration rewrites events only where their meaning changed; the state tables are
    rebuilt by replay. Version 2 added what an attempt used (cpu_s, max_rss_mb); older events simply do
    not have it. Version 3 made `job` a view over a short row and the submit's event.
    """
    from core.journal.apply import replay

    assert 1 <= version < VERSION
    drop_state(conn)
    create_state(conn)
    replay(conn)
    conn.execute(f"PRAGMA user_version = {VERSION}")


def _statements(script: str) -> list[str]:
    lines = [line.split("--", 1)[0] for line in script.splitlines()]
    return [s.strip() for s in "\n".join(lines).split(";") if s.strip()]
