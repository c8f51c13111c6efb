"""An open journal, and the one way to write to it.

    with journal.transaction() as tx:
        tx.append(EventKind.SUBMITTED, job=id, data={...})

A transaction is durable (synchronous=FULL) and witnessed when the `with` block ends; before that, nothing of it was
acknowledged. Reading takes no lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from core.errors import DiskFull, Refused
from core.failpoint import failpoint
from core.fsio import no_space
from core.home import Home
from core.journal import witness
from core.journal.apply import SETS, Told, apply
from core.journal.locks import SHARED, lock
from core.journal.opening import BUSY_S, Opened, Role, open_journal, still_there
from core.journal.trouble import FREE, being_recovered, damaged, free_bytes, in_plain_words, says_damaged
from core.states import REQUEST_EVENTS, EventKind

RESERVE_BYTES = 4 << 20
# The highest id that was ever given out, also to jobs that a recovery could not find again.
_LAST_JOB = """SELECT max(ifnull((SELECT max(id) FROM job), 0),
    ifnull((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'id_floor'), 0))"""


@dataclass(frozen=True)
class Event:
    kind: EventKind
    job: int | None = None
    attempt: int | None = None
    lane: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


class Tx:
    """An open write transaction: reads see what it appended."""

    def __init__(self, conn: sqlite3.Connection, role: Role, seq: int) -> None:
        self.conn = conn
        self._role = role
        self._next = seq + 1

    @property
    def last_seq(self) -> int:
        return self._next - 1

    def append(
        self,
        kind: EventKind,
        *,
        job: int | None = None,
        attempt: int | None = None,
        lane: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> int:
        """Append one event and apply it. Returns its sequence number."""
        return self.extend([Event(kind, job, attempt, lane, data or {})])

    def extend(self, events: Iterable[Event]) -> int:
        """Append and apply many events as one. Returns the last sequence number.

        A SWEPT event is written as two: what may be long, its axes and members, stands in an event of its own, for
        the other is looked into with every cell.

        Raises:
            sqlite3.IntegrityError: the event would break the promise (a second terminal record, say).
            PermissionError: a client tried to write a state; only the controller may.
        """
        now = time.time()
        first = self._next
        rows = []
        at_hand: dict[int, Told] = {}
        for event in _split(events):
            if self._role is not Role.CONTROLLER and event.kind not in REQUEST_EVENTS:
                raise PermissionError(f"only the controller writes {event.kind!r} events")
            lane = None if event.lane is None else _text(event.lane)
            rows.append((self._next, now, str(event.kind), event.job, event.attempt, lane, as_json(event.data)))
            if event.kind in SETS:
                at_hand[self._next] = now, lane, event.data
            self._next += 1
        self.conn.executemany("INSERT INTO event VALUES(?,?,?,?,?,?,?)", rows)
        subjects = [(r[0], r[2], r[3] if r[3] is not None else (r[5] if r[5] is not None else -1)) for r in rows]
        apply(self.conn, subjects, at_hand)
        return max(first, self._next - 1)

    def add_cells(self, rows: Iterable[tuple[int, int, str, str, str, str | None]]) -> None:
        """The cells of a sweep whose SWEPT event follows in this transaction.

        Args:
            rows: (job id, sweep id, key, name, parameters as JSON, digest of a spec of its own or None).
        """
        self.conn.executemany("INSERT INTO cell VALUES(?,?,?,?,?,?)", rows)

    def attach(self, seq: int, place: int, data: bytes) -> None:
        """The rows of the table part number `place` of the event `seq`: as durable as the event."""
        self.conn.execute("INSERT INTO payload VALUES(?,?)", (seq * 256 + place, data))

    def drop_payload(self, part_ids: Iterable[int]) -> None:
        """Forget rows that a COMPACTED event of this transaction put elsewhere."""
        self.conn.executemany("DELETE FROM payload WHERE id = ?", [(i,) for i in part_ids])

    def next_job_id(self, floor: int = 0) -> int:
        """The id for a new job: above every id that was ever given out."""
        return max(int(self.conn.execute(_LAST_JOB).fetchone()[0]), floor) + 1


def _split(events: Iterable[Event]) -> Iterator[Event]:
    for event in events:
        if event.kind is not EventKind.SWEPT or "axes" not in event.data:
            yield event
            continue
        long = {name: event.data[name] for name in ("axes", "members")}
        yield Event(event.kind, event.job, data={n: v for n, v in event.data.items() if n not in long})
        yield Event(EventKind.AXES, event.job, data=long)


def as_json(data: dict[str, Any]) -> str:
    """`data` as the journal stores it. Names that are not UTF-8 (of files, say) are written with escapes: never lost,
    and never the reason for which an attempt's end could not be recorded."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        # Before it becomes JSON: SQLite would read escapes of JSON as the same broken characters.
        text = json.dumps(_clean(data), separators=(",", ":"), ensure_ascii=False)
    return text


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_clean(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    return value


def _text(value: str) -> str:
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


class Journal:
    """One open journal. Use `Journal.open`; close it, or use it as a context manager."""

    def __init__(self, home: Home, role: Role, opened: Opened) -> None:
        self.home = home
        self.role = role
        self.conn = opened.conn
        self.generation = opened.generation
        self._opened = opened

    @staticmethod
    def open(home: Home, role: Role = Role.READER, *, create: bool = False, migrate: bool = True) -> Journal:
        """Open the journal of `home`.

        Args:
            role: what may be written. A reader never takes a lock.
            create: make home and journal when there are none.
            migrate: bring an older journal to this version. Without it, an older one can be asked for little more
                than its controller's end (`lab down` must reach a controller of the older version).

        Raises:
            NotFound: no journal there (and `create` is false).
            JournalDamaged: shorter than its witness, truncated, or not SQLite; nothing was changed.
            JournalTooNew: written by a newer lab.
            Refused: written by an older lab, whose controller is running.
            HomeInUse: it is being recovered.
            Unavailable: others hold it.
            DiskFull: no room to create it.
        """
        return Journal(home, role, open_journal(home, role, create=create, migrate=migrate))

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._opened.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Tx]:
        """One durable, witnessed transaction; an exception inside undoes all of it.

        Raises:
            DiskFull: nothing of it was kept.
            Unavailable: another writer held the journal for too long.
            HomeInUse: the journal is being recovered.
            Refused: a reader tried to write, or the journal was replaced since it was opened.
        """
        if self.role is Role.READER:
            raise Refused("this journal was opened for reading")
        conn = self.conn
        with self._unless_recovering(), self._undone_and_explained():
            conn.execute("BEGIN IMMEDIATE")
            self._refuse_replaced()
            seq = self.last_seq()
            tx = Tx(conn, self.role, seq)
            yield tx
            if tx.last_seq == seq:
                conn.execute("ROLLBACK")
                return
            last_job = int(conn.execute(_LAST_JOB).fetchone()[0])
            failpoint(f"journal.before_commit.{self.role.value}")
            conn.execute("COMMIT")
            failpoint(f"journal.after_commit.{self.role.value}")
            try:
                witness.write(self.home.witness, witness.Seen(self.generation, tx.last_seq, last_job))
            except OSError as error:
                # The commit stands; only the warning against its loss could not be stored. The next one will.
                if not no_space(error):
                    raise

    @contextlib.contextmanager
    def _unless_recovering(self) -> Iterator[None]:
        """Recovery replaces the journal when nobody is between the beginning of a commit and its witness."""
        with contextlib.ExitStack() as stack:
            try:
                free = stack.enter_context(lock(self.home.journal_lock, SHARED, BUSY_S))
            except OSError as error:
                if no_space(error):
                    raise DiskFull(f"the disk of {self.home.path} is full: nothing was recorded", hint=FREE) from error
                raise
            if not free:
                raise being_recovered(self.home)
            yield

    @contextlib.contextmanager
    def _undone_and_explained(self) -> Iterator[None]:
        """Whatever is raised inside undoes the transaction; what SQLite says becomes a sentence where there is one."""
        try:
            yield
        except sqlite3.Error as error:
            self._rollback()
            known = in_plain_words(self.home, error)
            if known is not None:
                raise known from error
            if says_damaged(error):
                raise damaged(self.home, f"the journal {self.home.journal} is damaged ({error})") from error
            raise
        except BaseException:
            self._rollback()
            raise

    def _refuse_replaced(self) -> None:
        """What is written to a file that lost its name is lost."""
        if not still_there(self.home, self._opened.file):
            raise Refused("the journal was replaced", hint="run the command again")

    def _rollback(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self.conn.in_transaction:
                self.conn.execute("ROLLBACK")

    def data_version(self) -> int:
        """Changes when another connection has committed. Raises Refused when the journal was replaced."""
        self._refuse_replaced()
        return int(self.conn.execute("PRAGMA data_version").fetchone()[0])

    def last_seq(self) -> int:
        return int(self.conn.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0])

    # The reserve: disk held back so that what an attempt did can always be recorded.

    def hold_reserve(self) -> bool:
        """Fill the reserve file again. False when there is no room for it, or it would leave the others none."""
        path = self.home.reserve
        if path.exists() and path.stat().st_size >= RESERVE_BYTES:
            return True
        if free_bytes(self.home.path) < 2 * RESERVE_BYTES:
            return False
        tmp = path.with_name(".reserve.tmp")
        try:
            with tmp.open("wb") as f:
                f.write(os.urandom(1 << 16) * (RESERVE_BYTES >> 16))
                f.flush()
                os.fsync(f.fileno())
            tmp.replace(path)
        except OSError:
            tmp.unlink(missing_ok=True)
            return False
        return True

    def release_reserve(self) -> bool:
        """Give the held-back disk to the commit that needs it. False when it was given already."""
        try:
            self.home.reserve.unlink()
        except FileNotFoundError:
            return False
        return True
