"""live.db: heartbeats, progress, metrics and lane probes. May be thrown away at any moment; the journal never may.

Written by the controller alone, without waiting for the disk. Ages come from the head's monotonic clock: the counter
of a heartbeat is compared with itself, never one machine's clock with another's.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from core.home import Home

_VERSION = 3  # PRAGMA user_version: a file of any other is thrown away
_SCHEMA = """
CREATE TABLE IF NOT EXISTS beat(
    job INTEGER, attempt INTEGER, phase TEXT, beat INTEGER, changed REAL, data TEXT,
    PRIMARY KEY(job, attempt)) WITHOUT ROWID;
-- `seen`: when it last said something; `link`: what is known of the way to it.
CREATE TABLE IF NOT EXISTS lane(
    name TEXT PRIMARY KEY, seen REAL, data TEXT, link TEXT NOT NULL DEFAULT '{}') WITHOUT ROWID;
-- A step row is known by the byte at which it begins in metrics.jsonl: told twice, it is still there once.
CREATE TABLE IF NOT EXISTS metric(
    job INTEGER, attempt INTEGER, pos INTEGER, data TEXT, PRIMARY KEY(job, attempt, pos)) WITHOUT ROWID;
-- How much is kept of each attempt (at most; the same row may count twice), and when it ended.
CREATE TABLE IF NOT EXISTS kept(
    job INTEGER, attempt INTEGER, rows INTEGER, bytes INTEGER, ended REAL, PRIMARY KEY(job, attempt)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS boot(id INTEGER PRIMARY KEY CHECK(id = 1), boot TEXT);
"""

# Of one attempt; beyond, rows are thinned evenly along the file. The run directory has them all.
MAX_ROWS = 20_000
MAX_BYTES = 8 << 20
MAX_ATTEMPTS = 200  # beyond, the rows of those go that ended first
_SILENCE_S = 15.0  # a link that was closed on purpose may take this long to be there again


@dataclass(frozen=True)
class LiveAttempt:
    """The last news of an attempt. `age_s` is the time since its heartbeat last moved, None after a reboot."""

    phase: str
    beat: int
    age_s: float | None
    step: int | None
    done: float | None
    total: float | None
    note: str
    rss_mb: float | None
    pid: int | None
    log_size: int


def boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as f:
            return f.read().strip()
    except OSError:
        return ""


class LiveWriter:
    """The controller's side. Every failure is swallowed: nothing of this is worth stopping for."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._conn: sqlite3.Connection | None = None
        self._beats: dict[tuple[int, int], tuple[int, float]] = {}
        self._open()

    def _open(self) -> None:
        for attempt in (1, 2):
            conn: sqlite3.Connection | None = None
            try:
                conn = sqlite3.connect(self._home.live, timeout=1, isolation_level=None, check_same_thread=False)
                conn.execute("PRAGMA journal_mode = WAL")
                conn.execute("PRAGMA synchronous = OFF")
                version = conn.execute("PRAGMA user_version").fetchone()[0]
                if version != _VERSION and conn.execute("SELECT 1 FROM sqlite_master").fetchone():
                    raise sqlite3.DatabaseError(f"version {version}")
                conn.executescript(_SCHEMA)
                conn.execute(f"PRAGMA user_version = {_VERSION}")
                if conn.execute("SELECT 1 FROM boot WHERE boot IS NOT ?", (boot_id(),)).fetchone():
                    # The clock began anew: what was heard by the old one has no age any more.
                    conn.execute("UPDATE lane SET seen = NULL")
                    conn.execute("DELETE FROM beat")
                conn.execute("INSERT OR REPLACE INTO boot VALUES(1, ?)", (boot_id(),))
                self._conn = conn
                return
            except sqlite3.Error:
                if conn is not None:
                    conn.close()
                if attempt == 1:
                    for suffix in ("", "-wal", "-shm"):
                        with contextlib.suppress(OSError):
                            self._home.live.with_name(self._home.live.name + suffix).unlink()

    def _do(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """All of `work` or, when SQLite refuses, nothing of it."""
        conn = self._conn
        if conn is None:
            return
        try:
            conn.execute("BEGIN")
            work(conn)
            conn.execute("COMMIT")
        except sqlite3.Error:
            pass
        finally:
            with contextlib.suppress(sqlite3.Error):
                if conn.in_transaction:
                    conn.execute("ROLLBACK")

    def write(self, reports: Iterable[dict[str, Any]]) -> None:
        """Keep what the lanes say. A report that makes no sense is passed over."""
        now = time.monotonic()

        def work(conn: sqlite3.Connection) -> None:
            for r in reports:
                try:
                    self._report(conn, r, now)
                except sqlite3.OperationalError:
                    raise
                except Exception:
                    continue

        self._do(work)

    def _report(self, conn: sqlite3.Connection, r: dict[str, Any], now: float) -> None:
        at = (int(r["job"]), int(r["attempt"]))
        beat = int(r.get("beat") or 0)
        old = self._beats.get(at)
        changed = now if old is None or old[0] != beat else old[1]
        self._beats[at] = (beat, changed)
        progress = r.get("progress")
        progress = progress if isinstance(progress, dict) else {}
        data = {
            "step": _number(r.get("step")),
            "done": _number(progress.get("done")),
            "total": _number(progress.get("total")),
            "note": str(progress.get("note") or ""),
            "rss_mb": _number(r.get("rss_mb")),
            "pid": _number(r.get("pid")),
            "log_size": _number(r.get("log_size")) or 0,
        }
        conn.execute(
            "INSERT OR REPLACE INTO beat VALUES(?,?,?,?,?,?)", (*at, str(r["phase"]), beat, changed, json.dumps(data))
        )
        lines = [str(line) for line in r.get("metrics") or ()]
        if lines:
            self._rows(conn, at, lines, r)

    def _rows(self, conn: sqlite3.Connection, at: tuple[int, int], lines: list[str], r: dict[str, Any]) -> None:
        sizes = [len(line.encode("utf-8", "surrogatepass")) + 1 for line in lines]
        # Without the place of each, they follow one another.
        places = r.get("metrics_at") or list(accumulate(sizes[:-1], initial=int(r.get("metrics_from") or 0)))
        conn.executemany(
            "INSERT OR REPLACE INTO metric VALUES(?,?,?,?)",
            [(*at, int(pos), line) for pos, line in zip(places, lines, strict=True)],
        )
        rows, size = conn.execute(
            "INSERT INTO kept VALUES(?,?,?,?,NULL) ON CONFLICT(job, attempt) DO UPDATE "
            "SET rows = rows + excluded.rows, bytes = bytes + excluded.bytes RETURNING rows, bytes",
            (*at, len(lines), sum(sizes)),
        ).fetchone()
        if rows > MAX_ROWS or size > MAX_BYTES:
            self._thin(conn, at)

    def _thin(self, conn: sqlite3.Connection, at: tuple[int, int]) -> None:
        """Drop half of the rows or more, so that what stays is even along the file; the first and the last stay."""
        rows, size, first, last = conn.execute(_AMOUNT, at).fetchone()
        if rows > 2 and (rows > MAX_ROWS or size > MAX_BYTES):
            # The first row of each stretch of so many bytes; a power of two, so that stretches nest from time to time.
            width = 1 << ((last - first) // (rows // 2)).bit_length()
            conn.execute(
                "DELETE FROM metric WHERE job = ? AND attempt = ? AND pos <> ? AND pos NOT IN (SELECT min(pos) "
                "FROM metric WHERE job = ? AND attempt = ? GROUP BY pos / ?)",
                (*at, last, *at, width),
            )
            rows, size, first, last = conn.execute(_AMOUNT, at).fetchone()
        conn.execute("UPDATE kept SET rows = ?, bytes = ? WHERE job = ? AND attempt = ?", (rows, size, *at))

    def lane(self, name: str, info: dict[str, Any]) -> None:
        with contextlib.suppress(TypeError, ValueError):
            row = (name, time.monotonic(), json.dumps(info))
            sql = """INSERT INTO lane(name, seen, data) VALUES(?,?,?)
                     ON CONFLICT(name) DO UPDATE SET seen = excluded.seen, data = excluded.data, link = '{}'"""
            self._do(lambda conn: conn.execute(sql, row))

    def link(self, name: str, link: dict[str, Any]) -> None:
        """The way to a lane is down: what is known of it. `age_s`, if there is one, says since when."""
        with contextlib.suppress(TypeError, ValueError):
            age = link.get("age_s")
            seen = None if age is None else time.monotonic() - float(age)
            row = (name, seen, json.dumps(link))
            sql = """INSERT INTO lane(name, seen, data, link) VALUES(?,?,'{}',?)
                     ON CONFLICT(name) DO UPDATE SET link = excluded.link, seen = coalesce(excluded.seen, lane.seen)"""
            self._do(lambda conn: conn.execute(sql, row))

    def forget(self, job: int, attempt: int) -> None:
        """The attempt has ended. Its step rows stay until there are too many attempts with some."""
        at = (job, attempt)
        self._beats.pop(at, None)

        def work(conn: sqlite3.Connection) -> None:
            conn.execute("DELETE FROM beat WHERE job = ? AND attempt = ?", at)
            conn.execute(
                "UPDATE kept SET ended = ? WHERE job = ? AND attempt = ? AND ended IS NULL", (time.time(), *at)
            )
            stored = conn.execute(
                "SELECT job, attempt FROM kept ORDER BY ended IS NULL, ended, job, attempt"
            ).fetchall()
            over = max(0, len(stored) - MAX_ATTEMPTS)
            for old in [x for x in stored if x not in self._beats][:over]:
                conn.execute("DELETE FROM metric WHERE job = ? AND attempt = ?", old)
                conn.execute("DELETE FROM kept WHERE job = ? AND attempt = ?", old)

        self._do(work)

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()


_AMOUNT = (
    "SELECT count(*), total(length(CAST(data AS BLOB)) + 1), min(pos), max(pos) "
    "FROM metric WHERE job = ? AND attempt = ?"
)


def _number(value: Any) -> Any:
    """`value` when it is a finite number, else None: what a program left is not what it should be at times."""
    try:
        fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        fine = False
    return value if fine else None


def _read(home: Home, sql: str, args: tuple[Any, ...] = ()) -> list[Any]:
    if not home.live.exists():
        return []
    try:
        with contextlib.closing(sqlite3.connect(home.live, timeout=1)) as conn:
            return conn.execute(sql, args).fetchall()
    except sqlite3.Error:
        return []


def read_attempts(home: Home) -> dict[tuple[int, int], LiveAttempt]:
    """Live news by (job, attempt); empty when live.db is missing or damaged."""
    same_boot = [r[0] for r in _read(home, "SELECT boot FROM boot")] == [boot_id()]
    now = time.monotonic()
    out = {}
    for job, attempt, phase, beat, changed, text in _read(
        home, "SELECT job, attempt, phase, beat, changed, data FROM beat"
    ):
        d = json.loads(text)
        age = max(0.0, now - changed) if same_boot else None
        out[(job, attempt)] = LiveAttempt(
            phase, beat, age, d["step"], d["done"], d["total"], d["note"], d["rss_mb"], d["pid"], d["log_size"]
        )
    return out


def read_metrics(home: Home, job: int, attempt: int, *, after: int = -1) -> list[dict[str, Any]]:
    """Step rows as mirrored at the head, in order: those that begin behind byte `after` of metrics.jsonl.

    Very many are thinned, and those of long ago forgotten; the run directory's file has all.
    """
    return [row for _pos, row in metric_rows(home, job, attempt, after=after)]


def metric_rows(home: Home, job: int, attempt: int, *, after: int = -1) -> list[tuple[int, dict[str, Any]]]:
    """The same, each with the byte at which it begins: the last one is the next `after`."""
    rows = _read(
        home,
        "SELECT pos, data FROM metric WHERE job = ? AND attempt = ? AND pos > ? ORDER BY pos",
        (job, attempt, after),
    )
    out = []
    for pos, text in rows:
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(text)
            if isinstance(row, dict):
                out.append((pos, row))
    return out


def read_lanes(home: Home) -> dict[str, dict[str, Any]]:
    """The last probe of each lane, with `age_s` (None: nothing was heard of it since the head's boot) and `link`: empty
    while the lane answers, else what is known of the way to it (error, refused, tries, address)."""
    same_boot = [r[0] for r in _read(home, "SELECT boot FROM boot")] == [boot_id()]
    now = time.monotonic()
    return {
        name: {
            **json.loads(data),
            "age_s": max(0.0, now - seen) if seen is not None and same_boot else None,
            "link": json.loads(link),
        }
        for name, seen, data, link in _read(home, "SELECT name, seen, data, link FROM lane")
    }


def silence(found: Mapping[str, Any]) -> str:
    """Until when, and what for, a lane's connections are closed on purpose; empty where they are not.

    Args:
        found: a lane of `read_lanes`.
    """
    link = found.get("link") or {}
    over = time.time() > float(link.get("silent_until") or 0.0) + _SILENCE_S
    return str(link.get("error") or "") if link.get("on_purpose") and not over else ""
