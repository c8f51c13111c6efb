"""Opening a journal: made when there is none, compared with its witness, brought to this version, or refused.

What looks like damage may be another process half-way through its work (the first commit of a fresh home, a
checkpoint, a recovery). So a doubt is looked into again for a moment before it is called damage; a journal about
which there is no doubt pays nothing for that.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
import time
import weakref
from enum import Enum
from pathlib import Path
from urllib.parse import quote

from core.errors import DiskFull, JournalTooNew, NotFound, Refused, Unavailable
from core.fsio import no_space
from core.home import Home
from core.journal import schema, witness
from core.journal.locks import ALONE, SHARED, lock
from core.journal.trouble import FREE, Doubt, being_recovered, damaged, disk_is_full, in_plain_words, says_damaged

BUSY_S = 30.0  # how long anybody waits for another writer
_DOUBT_S = 0.2
_LOOK_AGAIN_S = 0.02

FileId = tuple[int, int]


class Role(Enum):
    READER = "reader"
    CLIENT = "client"  # may append requests
    CONTROLLER = "controller"  # may append everything


class Opened:
    """A connection, and the very file (not just the name) to which it leads."""

    def __init__(self, conn: sqlite3.Connection, generation: str, file: FileId) -> None:
        self.conn = conn
        self.generation = generation
        self.file = file
        with _guard:
            _open_here.add(self)

    def close(self) -> None:
        self.conn.close()
        with _guard:
            _open_here.discard(self)


_guard = threading.Lock()
_open_here: weakref.WeakSet[Opened] = weakref.WeakSet()


def open_journal(home: Home, role: Role, *, create: bool, migrate: bool) -> Opened:
    """See `Journal.open`."""
    # Evidence before closing: closing the last connection rewrites the log.
    with contextlib.ExitStack() as doubtful:
        deadline = 0.0
        while True:
            try:
                return _open_once(home, role, doubtful, create=create, migrate=migrate)
            except Doubt as doubt:
                now = time.monotonic()
                deadline = deadline or now + _DOUBT_S
                if now >= deadline:
                    _refuse_while_recovering(home)
                    raise damaged(home, str(doubt)) from doubt.__cause__
            time.sleep(_LOOK_AGAIN_S)


def _open_once(home: Home, role: Role, doubtful: contextlib.ExitStack, *, create: bool, migrate: bool) -> Opened:
    # The witness before the journal: it is then never ahead of a journal that lost nothing.
    witnessed = _read_witness(home)
    file, size = _which(home.journal)
    if size == 0:
        if witnessed is not None:
            raise Doubt(f"the journal {home.journal} is gone or empty, but {witnessed.seq} events were acknowledged")
        if not create:
            raise NotFound(f"there is no lab home at {home.path}", hint="`lab submit` or `lab init` makes one")
        _create(home)
        witnessed = _read_witness(home)
        file, _ = _which(home.journal)
    suspect = _looks_truncated(home, file)
    conn = _connect(home.journal, reading=role is Role.READER)
    try:
        generation = _check(home, conn, witnessed, role=role, suspect=suspect)
        if migrate and _version(conn) < schema.VERSION:
            _migrate(home, conn, role, file)
        if not still_there(home, file):
            raise Doubt(f"{home.journal} was replaced while it was opened")
        if role is Role.READER:
            conn.execute("PRAGMA query_only = 1")
    except BaseException:
        doubtful.callback(conn.close)
        raise
    return Opened(conn, generation, file)


def still_there(home: Home, file: FileId) -> bool:
    """Does the journal's name still lead to the file that was opened?"""
    return _which(home.journal)[0] == file


def _which(path: Path) -> tuple[FileId, int]:
    """The file that `path` leads to, and its size; zeros when there is none."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return (0, 0), 0
    return (info.st_dev, info.st_ino), info.st_size


def _connect(path: Path, *, reading: bool = False) -> sqlite3.Connection:
    """Raises Doubt, DiskFull, or Unavailable when others hold it."""
    name = quote(os.fsencode(path))
    conn = None
    try:
        # mode=rw: a journal that is gone is not replaced by an empty one.
        conn = _conn(f"file:{name}?mode=rw")
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute("PRAGMA journal_mode = WAL")
    except sqlite3.DatabaseError as error:
        if conn is not None:
            conn.close()
        if not disk_is_full(path.parent):
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise Unavailable(f"{path} is held by another process", hint="try again") from error
            raise Doubt(f"{path} is not a readable journal ({error})") from error
        wal = Path(f"{path}-wal")
        if reading and not (wal.exists() and wal.stat().st_size):
            # Even looking needs a little shared memory beside the file. Without a log, nobody writes: read as it is.
            return _conn(f"file:{name}?immutable=1")
        raise DiskFull(f"the disk of {path.parent} is full: nothing was recorded", hint=FREE) from error
    return conn


def _conn(uri: str) -> sqlite3.Connection:
    conn = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    conn.row_factory = sqlite3.Row
    return conn


def _create(home: Home) -> None:
    """Make the first journal and its witness, unless another process just did."""
    try:
        home.create()
        with lock(home.create_lock, ALONE, BUSY_S) as alone:
            if not alone:
                raise Unavailable(f"another process is making the journal of {home.path}", hint="try again")
            if not home.journal.exists():  # or another process was first; theirs is as good
                _make(home)
    except (OSError, sqlite3.Error) as error:
        if no_space(error):
            raise DiskFull(f"the disk of {home.path} is full: no journal could be made", hint=FREE) from error
        if isinstance(error, PermissionError):
            raise Refused(f"{home.path} cannot be written to", hint="set LAB_HOME to a folder of yours") from error
        raise


def _make(home: Home) -> None:
    """Under another name, then linked into place: the journal exists whole or not at all."""
    generation = secrets.token_hex(8)
    tmp = home.path / f".journal.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        private_file(tmp)
        conn = _connect(tmp)
        with contextlib.closing(conn):
            conn.execute("BEGIN IMMEDIATE")
            schema.create(conn, generation)
            conn.execute("COMMIT")
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        os.link(tmp, home.journal)
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{tmp}{suffix}").unlink(missing_ok=True)
    witness.create(home.witness, witness.Seen(generation, 0, 0))


def private_file(path: Path) -> None:
    """Make an empty file that only we can read. What SQLite puts beside a database has its mode."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _read_witness(home: Home) -> witness.Seen | None:
    try:
        return witness.read(home.witness)
    except ValueError as error:
        raise Doubt(f"the witness {home.witness} cannot be read") from error


def _looks_truncated(home: Home, file: FileId) -> str:
    """What is wrong with the main file's size, or "". SQLite itself complains only when it meets the hole.

    Shorter than its header says is also what a checkpoint looks like half-way, made by a living writer (look again)
    or by one that was killed (then the log still holds the missing pages): the caller decides by a full check.

    Raises:
        Doubt: no such excuse.
    """
    with _guard:
        # Closing any descriptor of a file drops all locks of this process on it: another process could then take
        # itself for the last one and remove the log under the connection that we have.
        if any(opened.file == file for opened in _open_here):
            return ""
    try:
        with home.journal.open("rb") as f:
            header = f.read(100)
            size = f.seek(0, os.SEEK_END)
    except FileNotFoundError as error:
        raise Doubt(f"the journal {home.journal} is gone") from error
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise Doubt(f"{home.journal} is not a SQLite file")
    page = int.from_bytes(header[16:18], "big")
    want = (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big")
    if size >= want:
        return ""
    said = f"{home.journal} is truncated: {size:,} bytes where its header says {want:,}"
    wal = Path(f"{home.journal}-wal")
    with contextlib.suppress(FileNotFoundError):
        if wal.stat().st_size:
            return said
    raise Doubt(said)


def _check(home: Home, conn: sqlite3.Connection, witnessed: witness.Seen | None, *, role: Role, suspect: str) -> str:
    """Compare the journal with its witness and with itself. Returns its generation."""
    try:
        version = _version(conn)
        if version > schema.VERSION:
            raise JournalTooNew(
                f"{home.journal} was written by a newer lab (version {version}, this one knows {schema.VERSION})",
                hint="upgrade lab here; nothing was changed",
            )
        row = conn.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
        generation = str(row[0]) if row else ""
        seq = int(conn.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0])
        if role is Role.CONTROLLER or suspect:
            # The controller looks at every page once; the rest of us would pay that on each command.
            verdict = conn.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise Doubt(suspect or f"{home.journal} is damaged ({verdict})")
    except sqlite3.DatabaseError as error:
        known = in_plain_words(home, error)
        if known is not None:
            raise known from error
        raise Doubt(f"the journal {home.journal} is damaged ({error})") from error
    _compare(home, generation, seq, witnessed)
    if witnessed is None and role is not Role.READER:
        # Its maker was killed before the witness. Without one, a kill after the first commit would look like a loss.
        with contextlib.suppress(OSError):
            witness.create(home.witness, witness.Seen(generation, 0, 0))
    return generation


def _compare(home: Home, generation: str, seq: int, witnessed: witness.Seen | None) -> None:
    if witnessed is None:
        if seq:
            raise Doubt(f"the witness {home.witness} of a journal with {seq} events is gone")
    elif witnessed.generation != generation:
        raise Doubt(f"{home.journal} is not the journal that {home.witness.name} belongs to")
    elif seq < witnessed.seq:
        lost = witnessed.seq - seq
        raise Doubt(f"{home.journal} ends at event {seq}, but {witnessed.seq} events were acknowledged: {lost} lost")


def _refuse_while_recovering(home: Home) -> None:
    with contextlib.suppress(OSError), lock(home.journal_lock, SHARED, 0.0) as free:
        if not free:
            raise being_recovered(home)


def _version(conn: sqlite3.Connection) -> int:
    return int(conn.execute("PRAGMA user_version").fetchone()[0])


def _migrate(home: Home, conn: sqlite3.Connection, role: Role, file: FileId) -> None:
    """Bring an older journal to this version, but not under a controller that knows only the older one.

    The controller holds its own lock when it comes here; anybody else must get it.

    Raises:
        Refused: an older controller is running.
        HomeInUse: a recovery is running.
    """
    try:
        with contextlib.ExitStack() as locks:
            if role is not Role.CONTROLLER and not locks.enter_context(lock(home.controller_lock, ALONE, 1.0)):
                if _version(conn) == schema.VERSION:
                    return  # it was a new controller, just starting
                raise Refused("the controller of this home is of an older version", hint="`lab down`, then again")
            if not locks.enter_context(lock(home.journal_lock, SHARED, BUSY_S)):
                raise being_recovered(home)
            _migrate_alone(home, conn, file)
    except (OSError, sqlite3.Error) as error:
        known = in_plain_words(home, error) if isinstance(error, sqlite3.Error) else None
        if no_space(error):
            known = DiskFull(f"the disk of {home.path} is full: the journal could not be migrated", hint=FREE)
        elif isinstance(error, PermissionError):
            known = Refused(f"{home.path} cannot be written to", hint="let its owner run any lab command first")
        if known is not None:
            raise known from error
        if says_damaged(error):
            raise Doubt(f"the journal {home.journal} is damaged ({error})") from error
        raise


def _migrate_alone(home: Home, conn: sqlite3.Connection, file: FileId) -> None:
    from core.journal.backup import copy_whole

    name = f"before-version-{schema.VERSION}.db"
    if not (home.backups / name).exists():
        copy_whole(conn, home.backups, name)
    conn.execute("BEGIN IMMEDIATE")
    try:
        if not still_there(home, file):
            raise Doubt(f"{home.journal} was replaced while it was opened")
        version = _version(conn)
        if version < schema.VERSION:
            schema.migrate(conn, version)
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:  # a full disk ends it by itself
            conn.execute("ROLLBACK")
        raise
