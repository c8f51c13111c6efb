"""Opening the journal, and the one way to write to it.

    with journal.transaction() as tx:
        tx.append(EventKind.SUBMITTED, job=id, data={...})

A transaction is durable (synchronous=FULL) and witnessed when the `with` block ends; before that, nothing of it was
acknowledged. Reading takes no lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import quote

from core.errors import DiskFull, JournalDamaged, JournalTooNew, NotFound, Refused
from core.failpoint import failpoint
from core.fsio import no_space
from core.home import Home
from core.journal import schema, witness
from core.journal.apply import apply
from core.states import REQUEST_EVENTS, EventKind

RESERVE_BYTES = 4 << 20
_FREE = "free some space and try again"
_RECOVER = "keep the folder as it is and run `lab doctor --recover`"


class Role(Enum):
    READER = "reader"
    CLIENT = "client"  # may append requests
    CONTROLLER = "controller"  # may append everything


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

        Raises:
            sqlite3.IntegrityError: the event would break the promise (a second terminal record, say).
            PermissionError: a client tried to write a state; only the controller may.
        """
        now = time.time()
        first = self._next
        rows = []
        for event in events:
            if self._role is not Role.CONTROLLER and event.kind not in REQUEST_EVENTS:
                raise PermissionError(f"only the controller writes {event.kind!r} events")
            data = json.dumps(event.data, separators=(",", ":"), ensure_ascii=False)
            rows.append((self._next, now, str(event.kind), event.job, event.attempt, event.lane, data))
            self._next += 1
        self.conn.executemany("INSERT INTO event VALUES(?,?,?,?,?,?,?)", rows)
        subjects = [(r[0], r[2], r[3] if r[3] is not None else (r[5] if r[5] is not None else -1)) for r in rows]
        apply(self.conn, subjects)
        return max(first, self._next - 1)

    def next_job_id(self, floor: int = 0) -> int:
        """The id for a new job: above every id that was ever given out."""
        known = self.conn.execute("SELECT max(id) FROM job").fetchone()[0] or 0
        lowest = self.conn.execute("SELECT value FROM meta WHERE key = 'id_floor'").fetchone()
        return int(max(known, floor, int(lowest[0]) if lowest else 0)) + 1


class Journal:
    """One open journal. Use `Journal.open`; close it, or use it as a context manager."""

    def __init__(self, home: Home, role: Role, conn: sqlite3.Connection, generation: str) -> None:
        self.home = home
        self.role = role
        self.conn = conn
        self.generation = generation

    @staticmethod
    def open(home: Home, role: Role = Role.READER, *, create: bool = False) -> Journal:
        """Open the journal of `home`.

        Args:
            role: what may be written. A reader never takes a lock.
            create: make home and journal when there are none.

        Raises:
            NotFound: no journal there (and `create` is false).
            JournalDamaged: shorter than its witness, truncated, or not SQLite; nothing was changed.
            JournalTooNew: written by a newer lab.
            DiskFull: no room to create it.
        """
        witnessed = _read_witness(home)
        size = home.journal.stat().st_size if home.journal.exists() else 0
        suspect = ""
        if size == 0:
            if witnessed is not None:
                raise _damaged(
                    home, f"the journal {home.journal} is gone or empty, but {witnessed.seq} events were acknowledged"
                )
            if not create:
                raise NotFound(f"there is no lab home at {home.path}", hint="`lab submit` or `lab init` makes one")
            _create(home)
            witnessed = _read_witness(home)
        else:
            suspect = _looks_truncated(home)
        conn = _connect(home.journal, reading=role is Role.READER)
        try:
            generation = _check(home, conn, witnessed, thorough=role is Role.CONTROLLER, suspect=suspect)
        except BaseException:
            conn.close()
            raise
        if role is Role.READER:
            conn.execute("PRAGMA query_only = 1")
        return Journal(home, role, conn, generation)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.conn.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Tx]:
        """One durable, witnessed transaction; an exception inside undoes all of it.

        Raises:
            DiskFull: nothing of it was kept.
            Refused: a reader tried to write.
        """
        if self.role is Role.READER:
            raise Refused("this journal was opened for reading")
        conn = self.conn
        try:
            conn.execute("BEGIN IMMEDIATE")
            seq = int(conn.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0])
            tx = Tx(conn, self.role, seq)
            yield tx
            if tx.last_seq == seq:
                conn.execute("ROLLBACK")
                return
            last_job = int(conn.execute("SELECT coalesce(max(id), 0) FROM job").fetchone()[0])
            failpoint(f"journal.before_commit.{self.role.value}")
            conn.execute("COMMIT")
        except sqlite3.Error as error:
            self._rollback()
            if no_space(error) or ("disk I/O error" in str(error) and disk_is_full(self.home.path)):
                raise DiskFull(f"the disk of {self.home.path} is full: nothing was recorded", hint=_FREE) from error
            if "malformed" in str(error) or "not a database" in str(error):
                raise _damaged(self.home, f"the journal {self.home.journal} is damaged ({error})") from error
            raise
        except BaseException:
            self._rollback()
            raise
        failpoint(f"journal.after_commit.{self.role.value}")
        try:
            witness.write(self.home.witness, witness.Seen(self.generation, tx.last_seq, last_job))
        except OSError as error:
            # The commit stands; only the warning against its loss could not be stored. The next one will.
            if not no_space(error):
                raise

    def _rollback(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self.conn.in_transaction:
                self.conn.execute("ROLLBACK")

    def data_version(self) -> int:
        """Changes when another connection has committed."""
        return int(self.conn.execute("PRAGMA data_version").fetchone()[0])

    def last_seq(self) -> int:
        return int(self.conn.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0])

    # The reserve: disk held back so that what an attempt did can always be recorded.

    def hold_reserve(self) -> bool:
        """Fill the reserve file again. False when there is no room for it."""
        path = self.home.reserve
        if path.exists() and path.stat().st_size >= RESERVE_BYTES:
            return True
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


def _connect(path: Path, *, reading: bool = False) -> sqlite3.Connection:
    conn = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    conn.row_factory = sqlite3.Row
    try:
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute("PRAGMA journal_mode = WAL")
    except sqlite3.DatabaseError as error:
        conn.close()
        if not disk_is_full(path.parent):
            raise JournalDamaged(f"{path} is not a readable journal ({error})", hint=_RECOVER) from error
        wal = Path(f"{path}-wal")
        if reading and not (wal.exists() and wal.stat().st_size):
            # Even looking needs a little shared memory beside the file. Without a log, nobody writes: read as it is.
            conn = sqlite3.connect(f"file:{quote(str(path))}?immutable=1", uri=True, isolation_level=None)
            conn.row_factory = sqlite3.Row
            return conn
        raise DiskFull(f"the disk of {path.parent} is full: nothing was recorded", hint=_FREE) from error
    return conn


def _create(home: Home) -> None:
    """Make a journal under another name and rename it into place: it exists whole or not at all."""
    try:
        home.create()
        generation = secrets.token_hex(8)
        tmp = home.path / f".journal.{os.getpid()}.{secrets.token_hex(4)}.tmp"
        conn = _connect(tmp)
        try:
            conn.execute("BEGIN IMMEDIATE")
            schema.create(conn, generation)
            conn.execute("COMMIT")
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            conn.close()
        try:
            os.link(tmp, home.journal)  # fails when another process was first; theirs is as good
        except FileExistsError:
            return
        finally:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{tmp}{suffix}").unlink(missing_ok=True)
        witness.write(home.witness, witness.Seen(generation, 0, 0))
    except (OSError, sqlite3.Error) as error:
        if no_space(error):
            raise DiskFull(f"the disk of {home.path} is full: no journal could be made", hint=_FREE) from error
        if isinstance(error, PermissionError):
            raise Refused(f"{home.path} cannot be written to", hint="set LAB_HOME to a folder of yours") from error
        raise


def _read_witness(home: Home) -> witness.Seen | None:
    try:
        return witness.read(home.witness)
    except ValueError as error:
        raise _damaged(home, f"the witness {home.witness} cannot be read") from error


def _looks_truncated(home: Home) -> str:
    """What is wrong with the main file's size, or "". SQLite itself complains only when it meets the hole.

    Shorter than its header says is also what a checkpoint looks like half-way, made by a living writer (look again)
    or by one that was killed (then the log still holds the missing pages): the caller decides by a full check.

    Raises:
        JournalDamaged: no such excuse.
    """
    for _ in range(20):
        with home.journal.open("rb") as f:
            header = f.read(100)
            size = f.seek(0, os.SEEK_END)
        if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
            raise _damaged(home, f"{home.journal} is not a SQLite file")
        page = int.from_bytes(header[16:18], "big")
        want = (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big")
        if size >= want:
            return ""
        wal = Path(f"{home.journal}-wal")
        said = f"{home.journal} is truncated: {size:,} bytes where its header says {want:,}"
        if wal.exists() and wal.stat().st_size:
            return said
        time.sleep(0.01)
    raise _damaged(home, said)


def _check(
    home: Home, conn: sqlite3.Connection, witnessed: witness.Seen | None, *, thorough: bool, suspect: str
) -> str:
    try:
        version = int(conn.execute("PRAGMA user_version").fetchone()[0])
        if version > schema.VERSION:
            raise JournalTooNew(
                f"{home.journal} was written by a newer lab (version {version}, this one knows {schema.VERSION})",
                hint="upgrade lab here; nothing was changed",
            )
        row = conn.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
        generation = str(row[0]) if row else ""
        seq = int(conn.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0])
        if thorough or suspect:
            # The controller looks at every page once; the rest of us would pay that on each command.
            verdict = conn.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise _damaged(home, suspect or f"{home.journal} is damaged ({verdict})")
        if witnessed is None:
            if seq:
                raise _damaged(home, f"the witness {home.witness} of a journal with {seq} events is gone")
        elif witnessed.generation != generation:
            raise _damaged(home, f"{home.journal} is not the journal that {home.witness.name} belongs to")
        elif seq < witnessed.seq:
            lost = witnessed.seq - seq
            said = f"{home.journal} ends at event {seq}, but {witnessed.seq} events were acknowledged: {lost} lost"
            raise _damaged(home, said)
        if version < schema.VERSION:
            _migrate(home, conn, version)
        return generation
    except sqlite3.DatabaseError as error:
        raise _damaged(home, f"the journal {home.journal} is damaged ({error})") from error


def _migrate(home: Home, conn: sqlite3.Connection, version: int) -> None:
    home.backups.mkdir(exist_ok=True)
    before = home.backups / f"before-version-{schema.VERSION}.db"
    if not before.exists():
        copy = sqlite3.connect(before)
        with contextlib.closing(copy):
            conn.backup(copy)
    conn.execute("BEGIN IMMEDIATE")
    try:
        if int(conn.execute("PRAGMA user_version").fetchone()[0]) < schema.VERSION:
            schema.migrate(conn, version)
        conn.execute("COMMIT")
    except BaseException:
        conn.execute("ROLLBACK")
        raise


def _damaged(home: Home, message: str) -> JournalDamaged:
    """Keep the evidence, then say so: closing the last connection would rewrite the log that is to be examined."""
    keep = home.path / "damaged"
    with contextlib.suppress(OSError):
        if not keep.exists():
            keep.mkdir()
            for path in (home.journal, Path(f"{home.journal}-wal"), home.witness):
                if path.exists():
                    shutil.copy2(path, keep / path.name)
    return JournalDamaged(message, hint=_RECOVER)


def disk_is_full(path: Path) -> bool:
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize < 1 << 20
