"""live.db: heartbeats, progress, metrics and lane probes. May be thrown away at any moment; the journal never may.

Written by the controller alone, without waiting for the disk. Ages come from the head's monotonic clock: the counter
of a heartbeat is compared with itself, never one machine's clock with another's.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from core.home import Home

_SCHEMA = """
CREATE TABLE IF NOT EXISTS beat(
    job INTEGER, attempt INTEGER, phase TEXT, beat INTEGER, changed REAL, data TEXT,
    PRIMARY KEY(job, attempt)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lane(name TEXT PRIMARY KEY, seen REAL, data TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS metric(
    job INTEGER, attempt INTEGER, n INTEGER, data TEXT, PRIMARY KEY(job, attempt, n)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS boot(id INTEGER PRIMARY KEY CHECK(id = 1), boot TEXT);
"""


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
        self._metrics: dict[tuple[int, int], int] = {}
        self._open()

    def _open(self) -> None:
        for attempt in (1, 2):
            try:
                conn = sqlite3.connect(self._home.live, timeout=1, isolation_level=None, check_same_thread=False)
                conn.execute("PRAGMA journal_mode = WAL")
                conn.execute("PRAGMA synchronous = OFF")
                conn.executescript(_SCHEMA)
                conn.execute("INSERT OR REPLACE INTO boot VALUES(1, ?)", (boot_id(),))
                self._conn = conn
                return
            except sqlite3.Error:
                self._conn = None
                if attempt == 1:
                    for suffix in ("", "-wal", "-shm"):
                        with contextlib.suppress(OSError):
                            self._home.live.with_name(self._home.live.name + suffix).unlink()

    def write(self, reports: Iterable[dict[str, Any]]) -> None:
        if self._conn is None:
            return
        now = time.monotonic()
        with contextlib.suppress(sqlite3.Error):
            self._conn.execute("BEGIN")
            try:
                for r in reports:
                    self._report(r, now)
            finally:
                self._conn.execute("COMMIT")

    def _report(self, r: dict[str, Any], now: float) -> None:
        assert self._conn is not None
        at = (int(r["job"]), int(r["attempt"]))
        beat = int(r.get("beat") or 0)
        old = self._beats.get(at)
        changed = now if old is None or old[0] != beat else old[1]
        self._beats[at] = (beat, changed)
        progress = r.get("progress") or {}
        data = {
            "step": r.get("step"),
            "done": progress.get("done"),
            "total": progress.get("total"),
            "note": progress.get("note") or "",
            "rss_mb": r.get("rss_mb"),
            "pid": r.get("pid"),
            "log_size": r.get("log_size") or 0,
        }
        self._conn.execute(
            "INSERT OR REPLACE INTO beat VALUES(?,?,?,?,?,?)", (*at, r["phase"], beat, changed, json.dumps(data))
        )
        for line in r.get("metrics") or ():
            n = self._metrics.get(at)
            if n is None:
                n = int(
                    self._conn.execute("SELECT count(*) FROM metric WHERE job = ? AND attempt = ?", at).fetchone()[0]
                )
            self._conn.execute("INSERT OR REPLACE INTO metric VALUES(?,?,?,?)", (*at, n, line))
            self._metrics[at] = n + 1

    def metric_lines(self, job: int, attempt: int) -> int:
        """How many metric lines are stored already: the cursor to ask the agent from."""
        if self._conn is None:
            return 0
        try:
            return int(
                self._conn.execute(
                    "SELECT count(*) FROM metric WHERE job = ? AND attempt = ?", (job, attempt)
                ).fetchone()[0]
            )
        except sqlite3.Error:
            return 0

    def lane(self, name: str, info: dict[str, Any]) -> None:
        if self._conn is not None:
            with contextlib.suppress(sqlite3.Error):
                self._conn.execute(
                    "INSERT OR REPLACE INTO lane VALUES(?,?,?)", (name, time.monotonic(), json.dumps(info))
                )

    def forget(self, job: int, attempt: int) -> None:
        self._beats.pop((job, attempt), None)
        self._metrics.pop((job, attempt), None)
        if self._conn is not None:
            with contextlib.suppress(sqlite3.Error):
                self._conn.execute("DELETE FROM beat WHERE job = ? AND attempt = ?", (job, attempt))

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()


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
    """Step rows as mirrored at the head, in order."""
    rows = _read(
        home, "SELECT data FROM metric WHERE job = ? AND attempt = ? AND n > ? ORDER BY n", (job, attempt, after)
    )
    out = []
    for (text,) in rows:
        with contextlib.suppress(ValueError):
            out.append(json.loads(text))
    return out


def read_lanes(home: Home) -> dict[str, dict[str, Any]]:
    """The last probe of each lane, with `age_s`."""
    now = time.monotonic()
    return {
        name: {**json.loads(data), "age_s": max(0.0, now - seen)}
        for name, seen, data in _read(home, "SELECT name, seen, data FROM lane")
    }
