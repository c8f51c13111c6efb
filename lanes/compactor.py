"""Compaction: rows that still lie in the journal, and small files, become large Parquet parts.

The choice is a pure function, the work is done in a thread, and only the controller's transaction makes it true: it
replaces the old parts by the new one, all or nothing. A crash anywhere leaves the old or the new parts live; files that
nobody lists are left for `lab gc`.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import LabError
from core.failpoint import failpoint
from core.home import Home
from core.journal import Journal
from core.journal.query import Part
from core.journal.store import Tx
from core.states import EventKind
from lanes.later import Message
from lanes.mirror import say

if TYPE_CHECKING:
    from core.tables.merge import Merged

MIB = 1 << 20
INLINE_BYTES = 8 * MIB  # with more of one table in the journal, it is time
SETTLED_BYTES = MIB >> 2  # of sweeps that have ended, enough to be worth a file
QUIET_S = 5.0  # nothing new for so long, and nothing else to do
OLDEST_S = 60.0  # nothing stays in the journal longer than this, however busy we are
# Files up to so many bytes are merged when there are so many of them. Each tier is written once more than the one
# below, so that a row is written a handful of times in its life; above the last one never again.
TIERS = ((MIB, 65), (8 * MIB, 8), (64 * MIB, 8))
LARGE = TIERS[-1][0]
MOST_BYTES = 256 * MIB
MOST_PARTS = 4096

_LOOK_S = 1.0
_DISCARDED_S = 60.0
_GRACE_S = 30.0  # a reader that has the old list may still open the old files
_TROUBLE_S = 300.0  # after an error that may pass
_GIVE_UP_S = 120.0  # for the commit of what was written

_NEWS = "SELECT id, tbl, path, rows, bytes, sha256, first, last, attempt FROM part WHERE id > ? ORDER BY id"


@dataclass(frozen=True)
class Look:
    """A live part as the choice sees it.

    Attributes:
        age: seconds since it was first seen.
        settled: its jobs' sweep has ended.
        thinned: rows of it were discarded since it was last looked at.
    """

    part: Part
    age: float = 0.0
    settled: bool = False
    thinned: bool = False


def choose(looks: Sequence[Look], *, idle: bool) -> tuple[str, tuple[Part, ...]] | None:
    """The table and its parts that should be merged now; None: nothing is worth it."""
    tables: dict[str, list[Look]] = {}
    for look in looks:
        tables.setdefault(look.part.table, []).append(look)
    for rule in (_inline, _thinned, _files):
        for name in sorted(tables):
            found = rule(tables[name], idle)
            if found:
                return name, _bounded([look.part for look in found])
    return None


def _inline(looks: Sequence[Look], idle: bool) -> Sequence[Look]:
    mine = [look for look in looks if look.part.inline]
    if not mine:
        return ()
    ages = [look.age for look in mine]
    size = sum(look.part.bytes for look in mine)
    if size > INLINE_BYTES or max(ages) >= OLDEST_S or (idle and min(ages) >= QUIET_S):
        return mine
    settled = [look for look in mine if look.settled]
    return settled if sum(look.part.bytes for look in settled) > SETTLED_BYTES else ()


def _thinned(looks: Sequence[Look], _idle: bool) -> Sequence[Look]:
    return [look for look in looks if look.thinned][:1]


def _files(looks: Sequence[Look], _idle: bool) -> Sequence[Look]:
    low = 0
    for limit, count in TIERS:
        tier = [look for look in looks if not look.part.inline and low <= look.part.bytes < limit]
        if len(tier) >= count:
            return tier
        low = limit
    return ()


def _bounded(parts: Sequence[Part]) -> tuple[Part, ...]:
    """As many of the first jobs as may be merged at once: neighbours, so that files do not overlap."""
    out: list[Part] = []
    size = 0
    for part in sorted(parts, key=lambda p: (p.first, p.id)):
        size += part.bytes
        if out and (size > MOST_BYTES or len(out) >= MOST_PARTS):
            break
        out.append(part)
    return tuple(out)


class Compactor:
    """Owned by the controller's thread; one thread of its own works, one merge at a time.

    A finished merge comes into the inbox as ("compacted", "", body); the controller then calls `commit` in a
    transaction. Old files are removed once the journal says that they were replaced.
    """

    def __init__(self, home: Home, journal: Journal, inbox: Callable[[Message], None]) -> None:
        self._home, self._journal, self._inbox = home, journal, inbox
        self._known: dict[int, tuple[Part, float]] = {}
        self._thin: set[int] = set()
        self._left: set[int] = set()
        self._last_id = -1
        self._discarded = 0
        self._look_at = self._discarded_at = self._not_before = 0.0
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._body: Body | None = None  # written, not yet true
        self._since = 0.0
        self._doomed: list[tuple[float, Path]] = []

    def maybe(self, now: float, idle: bool = False) -> None:
        """Look whether something should be merged, and begin. Cheap: call it at every turn.

        Args:
            now: monotonic seconds.
            idle: the controller has nothing else to do.
        """
        if now < self._look_at or self._stop.is_set():
            return
        self._look_at = now + _LOOK_S
        self._bury(now)
        self._settle(now)
        if self._thread is not None and self._thread.is_alive():
            return
        if self._body is None and now >= self._not_before:
            self._news(now)
            found = choose(self._looks(now), idle=idle)
            if found is not None:
                self._begin(*found)

    def commit(self, tx: Tx, body: Body) -> None:
        """Make a merge true, in the controller's transaction, if all that it replaces is still there."""
        if body is not self._body:
            return  # given up: its files are gone
        merged = body.merged
        ids = [p.id for p in merged.replaces]
        if _live(tx.conn, ids) != len(ids):
            say(f"table {merged.table}: parts went away while they were merged; it is left as it is")
            self._drop(body)
            return
        data = {"table": merged.table, "replaces": ids, "parts": [p.data() for p in merged.parts]}
        tx.append(EventKind.COMPACTED, data=data)
        tx.drop_payload(p.id for p in merged.replaces if p.inline)

    def after_commit(self, body: Body) -> None:
        """Optional: the transaction has ended. Without it, the next `maybe` finds out."""
        if body is self._body:
            self._settle(self._look_at)

    def finish(self) -> None:
        """End: what is being written is given up, replaced files are removed."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(sqlite3.Error, LabError):
            self._settle(self._look_at)
        if self._body is not None:
            self._drop(self._body)
        self._bury(float("inf"))

    # What there is.

    def _news(self, now: float) -> None:
        conn = self._journal.conn
        last = int(conn.execute("SELECT ifnull(max(id), -1) FROM part").fetchone()[0])
        if last != self._last_id:
            for row in conn.execute(_NEWS, (self._last_id,)):
                part = Part(*row)
                if part.bytes < LARGE:
                    self._known[part.id] = part, now
            self._last_id = last
        if now >= self._discarded_at:
            self._discarded_at = now + _DISCARDED_S
            self._look_for_discarded(conn, now)

    def _look_for_discarded(self, conn: sqlite3.Connection, now: float) -> None:
        from core.tables.live import discarded_jobs

        count = int(conn.execute("SELECT count(*) FROM discarded").fetchone()[0])
        if count == self._discarded:
            return
        self._discarded = count
        hidden = discarded_jobs(conn)
        for row in conn.execute(_NEWS, (-1,)) if hidden else ():
            part = Part(*row)
            if hidden.meets(part.first, part.last):
                self._known[part.id] = part, now
                self._thin.add(part.id)

    def _looks(self, now: float) -> list[Look]:
        settled = self._settled([i for i, (p, _) in self._known.items() if p.inline])
        return [
            Look(part, now - since, i in settled, i in self._thin)
            for i, (part, since) in self._known.items()
            if i not in self._left or i in self._thin
        ]

    def _settled(self, ids: Sequence[int]) -> set[int]:
        """Inline parts whose jobs, or the sweep of which they are, have ended."""
        if not ids:
            return set()
        sql = """SELECT p.id FROM part p JOIN job_state s ON s.id = p.last LEFT JOIN job_state w ON w.id = s.sweep
            WHERE p.id IN (SELECT value FROM json_each(?))
            AND CASE WHEN s.sweep IS NULL THEN s.ended ELSE w.ended END IS NOT NULL"""
        return {int(r[0]) for r in self._journal.conn.execute(sql, (json.dumps(ids),))}

    # The work.

    def _begin(self, table: str, parts: Sequence[Part]) -> None:
        self._thread = threading.Thread(target=self._work, args=(table, parts), name="compact", daemon=True)
        self._thread.start()

    def _work(self, table: str, parts: Sequence[Part]) -> None:
        from core.tables.merge import Stopped, merge

        ids = {p.id for p in parts}
        try:
            with Journal.open(self._home) as journal:
                merged = merge(self._home, journal.conn, table, parts, stopping=self._stop.is_set)
        except Stopped:
            return
        except (LabError, OSError) as error:  # a full disk, say
            say(f"table {table} could not be compacted: {error}")
            self._not_before = self._look_at + _TROUBLE_S
            return
        except Exception:
            say(f"table {table} could not be compacted: a bug of ours\n{traceback.format_exc()}")
            self._left |= ids
            return
        for note in merged.notes:
            say(f"{note}; it is left as it is")
        self._left |= set(merged.left)
        self._thin -= ids
        if not merged.replaces:
            return
        failpoint("compactor.written")
        self._body, self._since = Body(merged), self._look_at
        self._inbox(("compacted", "", self._body))

    def _settle(self, now: float) -> None:
        """Is what was written true by now? Then the old files go; if it never becomes true, the new ones do."""
        body = self._body
        if body is None:
            return
        ids = [p.id for p in body.merged.replaces]
        left = _live(self._journal.conn, ids)
        if left == 0:
            failpoint("compactor.committed")
            files = [self._home.tables / p.path for p in body.merged.replaces if not p.inline]
            self._doomed += [(now + _GRACE_S, path) for path in files]
            for i in ids:
                self._known.pop(i, None)
                self._left.discard(i)
            self._body = None
        elif left < len(ids) or now > self._since + _GIVE_UP_S:
            self._drop(body)

    def _drop(self, body: Body) -> None:
        for info in body.merged.parts:
            (self._home.tables / info.path).unlink(missing_ok=True)
        self._body = None

    def _bury(self, now: float) -> None:
        due = [path for when, path in self._doomed if when <= now]
        self._doomed = [(when, path) for when, path in self._doomed if when > now]
        for path in due:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class Body:
    """A merge on its way to the journal."""

    merged: Merged


def _live(conn: sqlite3.Connection, ids: Sequence[int]) -> int:
    sql = "SELECT count(*) FROM part WHERE id IN (SELECT value FROM json_each(?))"
    return int(conn.execute(sql, (json.dumps(ids),)).fetchone()[0])
