"""The journal's tables, its version, and the migrations from older ones."""

from __future__ import annotations

import sqlite3

# Bump with a migration below and a checked-in journal of the old version under tests/core/journals/.
VERSION = 6

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
"""

# As true as the events that speak of them: written once, beside their event, and never rebuilt.
LOG_TABLES = """
CREATE TABLE IF NOT EXISTS cell(
    id     INTEGER PRIMARY KEY,     -- the job's id
    sweep  INTEGER NOT NULL,
    key    TEXT NOT NULL,
    name   TEXT NOT NULL,
    params TEXT NOT NULL,
    spec   TEXT                     -- NULL: as the sweep says
);
CREATE TABLE IF NOT EXISTS payload(
    id   INTEGER PRIMARY KEY,       -- of the table part whose rows these are
    data BLOB NOT NULL
);
"""

EVENT_INDEXES = """
CREATE INDEX IF NOT EXISTS event_job ON event(job) WHERE job IS NOT NULL;
-- The promise, as constraints: a job is submitted once and ends once, an attempt is placed, starts and ends once.
CREATE UNIQUE INDEX IF NOT EXISTS event_submitted ON event(job) WHERE kind = 'submitted';
CREATE UNIQUE INDEX IF NOT EXISTS event_placed ON event(job, attempt) WHERE kind = 'placed';
CREATE UNIQUE INDEX IF NOT EXISTS event_started ON event(job, attempt) WHERE kind = 'started';
CREATE UNIQUE INDEX IF NOT EXISTS event_attempt_ended ON event(job, attempt) WHERE kind = 'attempt-ended';
CREATE UNIQUE INDEX IF NOT EXISTS event_swept ON event(job) WHERE kind = 'swept';
CREATE UNIQUE INDEX IF NOT EXISTS event_cell_ended ON event(job, attempt) WHERE kind = 'cell-ended';
CREATE UNIQUE INDEX IF NOT EXISTS event_job_ended ON event(job) WHERE kind = 'job-ended';
-- Jobs whose life was not the plain one (see apply.replay).
CREATE INDEX IF NOT EXISTS event_odd ON event(job) WHERE job IS NOT NULL AND (attempt > 1
    OR kind NOT IN ('submitted', 'placed', 'started', 'attempt-ended', 'job-ended'));
"""

STATE_TABLES = """
CREATE TABLE spec(digest TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
-- State rows are short: what changes, what is looked up, and the sequence numbers of the events that said the rest.
-- The views `job` and `attempt` put both together; a left join is left out by SQLite where nothing of it is asked for.
CREATE TABLE job_state(
    id       INTEGER PRIMARY KEY,
    submit   INTEGER NOT NULL,      -- seq of its submit
    sweep    INTEGER,               -- of which it is a cell
    cells    INTEGER,               -- how many it has: this is a sweep
    pooled   INTEGER NOT NULL DEFAULT 0,  -- may run in a batch
    kind     TEXT NOT NULL,
    key      TEXT NOT NULL,
    state    TEXT NOT NULL,
    priority INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    news     INTEGER,               -- seq of the event that gave cause and reason
    lane     TEXT,
    wish     TEXT,                  -- cancel, hold or release: asked for, not yet answered
    idem     TEXT,
    started  REAL,
    ended    REAL
);
CREATE INDEX job_live ON job_state(id) WHERE ended IS NULL AND sweep IS NULL;
CREATE INDEX job_queue ON job_state(priority DESC, id) WHERE state = 'queued' AND sweep IS NULL;
CREATE INDEX job_cells ON job_state(sweep, state) WHERE sweep IS NOT NULL;
CREATE INDEX job_top ON job_state(state) WHERE sweep IS NULL;
CREATE INDEX job_key ON job_state(key);
CREATE INDEX job_wish ON job_state(id) WHERE wish IS NOT NULL;
CREATE UNIQUE INDEX job_idem ON job_state(idem) WHERE idem IS NOT NULL;
CREATE TRIGGER job_ends_once BEFORE UPDATE OF ended ON job_state WHEN OLD.ended IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'a job ends once'); END;
CREATE VIEW job AS
    SELECT s.id, s.sweep, s.cells, s.pooled,
           s.kind, s.key, s.state, s.priority, s.attempts, s.lane, s.wish, s.idem, s.started, s.ended,
           w.data ->> '$.cause' AS cause, w.data ->> '$.reason' AS reason,
           coalesce(nullif(w.data ->> '$.undeclared', '[]'), 0) != 0 AS undeclared,
           e.at AS submitted, coalesce(c.spec, e.data ->> '$.spec') AS spec,
           coalesce(c.name, e.data ->> '$.name') AS name, coalesce(c.params, e.data ->> '$.params') AS params,
           e.data ->> '$.tags' AS tags, e.data ->> '$.note' AS note, e.data ->> '$.rerun_of' AS rerun_of
    FROM job_state s LEFT JOIN event e ON e.seq = s.submit LEFT JOIN event w ON w.seq = s.news
         LEFT JOIN cell c ON c.id = s.id;
CREATE TABLE sweep(
    id        INTEGER PRIMARY KEY,
    cells     INTEGER NOT NULL,      -- of its own: the jobs id + 1 to id + cells
    total     INTEGER NOT NULL,      -- with those that were answered by other jobs
    pooled    INTEGER NOT NULL,
    at_once   INTEGER,
    max_fails INTEGER,
    axes      TEXT NOT NULL DEFAULT '[]',
    open      INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE member(sweep INTEGER NOT NULL, job INTEGER NOT NULL, PRIMARY KEY(sweep, job)) WITHOUT ROWID;
CREATE INDEX member_job ON member(job);
CREATE TABLE batch(
    seq   INTEGER PRIMARY KEY,       -- of its placement
    lane  TEXT NOT NULL,
    dir   TEXT NOT NULL,
    ended INTEGER                    -- seq
);
CREATE INDEX batch_open ON batch(seq) WHERE ended IS NULL;
CREATE TABLE dep(
    job INTEGER NOT NULL, needs INTEGER NOT NULL, cond TEXT NOT NULL, PRIMARY KEY(job, needs)
) WITHOUT ROWID;
CREATE INDEX dep_needs ON dep(needs);
CREATE TABLE attempt_state(
    id      INTEGER PRIMARY KEY,    -- job * 4096 + n
    lane    TEXT NOT NULL,
    state   TEXT NOT NULL,
    placed  INTEGER NOT NULL,       -- seq of each step of its life
    started INTEGER,
    ended   INTEGER,
    CHECK(id % 4096 > 0)
);
CREATE INDEX attempt_open ON attempt_state(id) WHERE ended IS NULL;
CREATE VIEW attempt AS
    SELECT s.id, s.id / 4096 AS job, s.id % 4096 AS n, s.lane, s.state, s.ended AS ended_seq,
           p.at AS placed, p.data ->> '$.nonce' AS nonce, p.data ->> '$.grant' AS grant_,
           b.at AS started, b.data ->> '$.pid' AS pid, b.data ->> '$.boot' AS boot,
           e.at AS ended, e.data ->> '$.cause' AS cause, e.data ->> '$.message' AS message,
           e.data ->> '$.exit_code' AS exit_code, e.data ->> '$.cpu_s' AS cpu_s,
           e.data ->> '$.max_rss_mb' AS max_rss_mb, e.data ->> '$.manifest' AS manifest,
           -- A batch knows how long it took, not how long each cell did.
           CASE WHEN e.kind != 'batch-ended' THEN e.data ->> '$.seconds' END AS seconds,
           CASE WHEN p.kind = 'batch-placed' THEN p.data ->> '$.dir' END AS batch,
           coalesce(e.data ->> '$.undeclared', '[]') AS undeclared
    FROM attempt_state s LEFT JOIN event p ON p.seq = s.placed LEFT JOIN event b ON b.seq = s.started
         LEFT JOIN event e ON e.seq = s.ended;
CREATE TABLE part(
    id      INTEGER PRIMARY KEY,    -- seq * 256 + its place in the event
    tbl     TEXT NOT NULL,
    path    TEXT NOT NULL,          -- relative to tables/; empty: the rows are in `payload`
    rows    INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    sha256  TEXT NOT NULL,
    first   INTEGER NOT NULL,       -- its rows are of jobs from here
    last    INTEGER NOT NULL,       -- to here
    attempt INTEGER                 -- NULL: of more than one
);
CREATE INDEX part_jobs ON part(tbl, first);
CREATE TABLE discarded(job INTEGER NOT NULL, attempt INTEGER NOT NULL, at REAL NOT NULL, what TEXT NOT NULL,
    PRIMARY KEY(job, attempt)) WITHOUT ROWID;
CREATE TABLE lane(
    name   TEXT PRIMARY KEY,
    state  TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    wish   TEXT,
    data   TEXT NOT NULL DEFAULT '{}'
) WITHOUT ROWID;
-- The newest word on each rung of a lane's ladder (role '': the rungs that all roles share), and the roles it has.
CREATE TABLE rung(
    lane TEXT NOT NULL, role TEXT NOT NULL, rung TEXT NOT NULL, ok INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY(lane, role, rung)
) WITHOUT ROWID;
CREATE TABLE admitted(lane TEXT NOT NULL, role TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(lane, role))
    WITHOUT ROWID;
-- What was asked of the controller about a lane, by the seq of the asking event, and the event that answered it.
CREATE TABLE lane_ask(seq INTEGER PRIMARY KEY, lane TEXT NOT NULL, what TEXT NOT NULL, answered INTEGER);
CREATE INDEX lane_ask_open ON lane_ask(seq) WHERE answered IS NULL;
-- Seqs: when it was stated, withdrawn, last evaluated, and last found at what it wants.
CREATE TABLE claim(
    name TEXT PRIMARY KEY, stated INTEGER NOT NULL, withdrawn INTEGER, evaluated INTEGER, highest INTEGER
) WITHOUT ROWID;
CREATE TABLE waiver(seq INTEGER PRIMARY KEY, claim TEXT NOT NULL, gate TEXT NOT NULL, job INTEGER NOT NULL);
CREATE TABLE pin(job INTEGER NOT NULL, claim TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(job, claim))
    WITHOUT ROWID;
CREATE TABLE controller(
    id   INTEGER PRIMARY KEY CHECK(id = 1),
    data TEXT NOT NULL,
    down TEXT                       -- why it is down; NULL while it is up (or was killed)
);
CREATE TABLE down_wish(id INTEGER PRIMARY KEY CHECK(id = 1), data TEXT NOT NULL);
"""

STATE_TABLE_NAMES = (
    "spec",
    "job_state",
    "sweep",
    "member",
    "batch",
    "dep",
    "attempt_state",
    "part",
    "discarded",
    "lane",
    "rung",
    "admitted",
    "lane_ask",
    "claim",
    "waiver",
    "pin",
    "controller",
    "down_wish",
)

META_TABLE = "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"


def create(conn: sqlite3.Connection, generation: str) -> None:
    """Make an empty journal inside the caller's transaction."""
    for script in (META_TABLE, EVENT_TABLE, EVENT_INDEXES, LOG_TABLES, STATE_TABLES):
        for statement in _statements(script):
            conn.execute(statement)
    conn.execute("INSERT INTO meta VALUES('generation', ?)", (generation,))
    conn.execute(f"PRAGMA user_version = {VERSION}")


def drop_state(conn: sqlite3.Connection) -> None:
    """Forget everything that follows from the events."""
    old = {r[0]: r[1] for r in conn.execute("SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')")}
    for name in ("job", "attempt", *STATE_TABLE_NAMES):  # these two were tables once
        if name in old:
            conn.execute(f"DROP {old[name]} {name}")


def create_state(conn: sqlite3.Connection) -> None:
    for statement in _statements(STATE_TABLES):
        conn.execute(statement)


def migrate(conn: sqlite3.Connection, version: int) -> None:
    """Bring an older journal to VERSION inside the caller's transaction.

    Events are the truth, so a migration rewrites events only where their meaning changed; the state tables are
    rebuilt by replay. Version 2 added what an attempt used (cpu_s, max_rss_mb); older events simply do
    not have it. Version 3 made `job` and `attempt` views over short rows and
    the events that they come from. Version 5 added the ladder of admission and what is asked about lanes, version 6
    claims, waivers and pins; older journals have no such events.
    """
    from core.journal.apply import replay

    assert 1 <= version < VERSION
    for statement in (*_statements(EVENT_INDEXES), *_statements(LOG_TABLES)):
        conn.execute(statement)
    drop_state(conn)
    create_state(conn)
    replay(conn)
    conn.execute(f"PRAGMA user_version = {VERSION}")


def _statements(script: str) -> list[str]:
    lines = [line.split("--", 1)[0] for line in script.splitlines()]
    # A trigger holds a semicolon of its own.
    whole = "\n".join(lines).replace("); END", ")\0 END")
    return [s.strip().replace("\0", ";") for s in whole.split(";") if s.strip()]
