"""The journal among several processes: first use, recovery, migration, busy writers, what others may read."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import select
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import Exit, HomeInUse, JournalDamaged, LabError, Refused, Unavailable
from core.home import Home
from core.journal import Event, Journal, Role, opening, query, recover, schema, witness
from core.journal.apply import replay
from core.journal.backup import backup
from core.journal.locks import ALONE, SHARED, lock, nobody_new
from core.journal.store import RESERVE_BYTES
from core.states import EventKind as K
from tests.core.test_journal import (
    JOURNALS,
    crashed_copy,
    ended,
    fill,
    fill_disk,
    home,  # noqa: F401
    small_disk,  # noqa: F401
    state_dump,
    submitted,
)
from tests.support import wait_for

ROOT = Path(__file__).parents[2]
FORK = multiprocessing.get_context("fork")


def events_of(home: Home) -> int:  # noqa: F811
    with Journal.open(home) as journal:
        return journal.last_seq()


def evidence(home: Home) -> list[str]:  # noqa: F811
    return sorted(p.name for p in home.path.glob("damaged*"))


def submit_one(journal: Journal) -> int:
    with journal.transaction() as tx:
        job = tx.next_job_id()
        tx.extend([submitted(job)])
    return job


@contextlib.contextmanager
def python(code: str, home: Home, **env: str) -> Iterator[subprocess.Popen[str]]:  # noqa: F811
    """Another process with `home` and `submit_one` at hand. It says and hears lines."""
    head = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from core.home import Home
from core.errors import LabError
from core.journal import Journal, Role, query
from core.journal.recover import recover
from tests.core.test_journal_race import submit_one
home = Home(Path({str(home.path)!r}))
def say(*words): print(*words, flush=True)
hear = sys.stdin.readline
"""
    pipe = subprocess.PIPE
    args = [sys.executable, "-c", head + code]
    with subprocess.Popen(args, stdin=pipe, stdout=pipe, text=True, env={**os.environ, **env}) as child:
        try:
            yield child
        finally:
            child.kill()


def tell(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


def answer(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


# Words that are not UTF-8.


def test_a_file_name_that_is_not_utf8_is_stored_read_and_replayed(home: Home) -> None:  # noqa: F811
    name = os.fsdecode(b"caf\xe9.txt")
    assert name == "caf\udce9.txt"
    data = {"state": "failed", "cause": "error", "message": name, "parts": [], "undeclared": [name, "süß"], name: 1}
    placed = Event(K.PLACED, job=1, attempt=1, lane=name, data={"nonce": "n", "grant": {}})
    with Journal.open(home, Role.CONTROLLER, create=True) as journal:
        with journal.transaction() as tx:
            tx.extend([submitted(1), placed, Event(K.ATTEMPT_ENDED, job=1, attempt=1, lane=name, data=data)])
        before = state_dump(journal.conn)
        attempt = query.attempts(journal.conn, 1)[0]
        assert attempt.undeclared == ("caf\\udce9.txt", "süß")
        assert attempt.message == attempt.lane == "caf\\udce9.txt"
        journal.conn.execute("BEGIN")
        schema.drop_state(journal.conn)
        schema.create_state(journal.conn)
        replay(journal.conn)
        assert state_dump(journal.conn) == before
        journal.conn.execute("ROLLBACK")
    backup(home)
    recover.recover(home)
    with Journal.open(home) as journal:
        assert query.attempts(journal.conn, 1)[0].undeclared == ("caf\\udce9.txt", "süß")


def test_why_escapes_of_json_would_not_do() -> None:
    """The twin: SQLite turns the escape back into what nobody can read."""
    conn = sqlite3.connect(":memory:")
    with pytest.raises(UnicodeEncodeError):
        conn.execute("SELECT ?", ("caf\udce9",))
    with pytest.raises(sqlite3.OperationalError, match="decode"):
        conn.execute("SELECT ? ->> '$'", (json.dumps("caf\udce9"),)).fetchone()


# First use.


def hammer(paths: list[Path], barrier: Any, said: Any) -> None:
    for path in paths:
        home = Home(path)  # noqa: F811
        barrier.wait(60)
        try:
            with Journal.open(home, Role.CLIENT, create=True) as journal:
                submit_one(journal)
            Journal.open(home).close()
        except BaseException as error:
            said.put(repr(error))
    said.put("")


def test_many_processes_may_open_a_fresh_home(tmp_path: Path) -> None:
    paths = [tmp_path / str(n) / "home" for n in range(60)]
    barrier, said = FORK.Barrier(4), FORK.Queue()
    workers = [FORK.Process(target=hammer, args=(paths, barrier, said)) for _ in range(4)]
    for worker in workers:
        worker.start()
    done = 0
    errors: list[str] = []
    while done < len(workers):
        error = said.get(timeout=120)
        done, errors = (done, [*errors, error]) if error else (done + 1, errors)
    for worker in workers:
        worker.join(30)
    assert not errors
    for path in paths:
        assert events_of(Home(path)) == 4
        assert evidence(Home(path)) == []


def test_a_doubt_is_looked_into_again_before_it_is_called_damage(home: Home) -> None:  # noqa: F811
    fill(home, 3)
    away = home.path / "away"
    home.witness.rename(away)
    back = threading.Timer(0.08, lambda: away.rename(home.witness))
    back.start()
    assert events_of(home) == 3
    back.join()
    assert evidence(home) == []
    # The twin: it does not come back.
    home.witness.rename(away)
    began = time.monotonic()
    with pytest.raises(JournalDamaged, match="witness"):
        Journal.open(home)
    assert time.monotonic() - began < 5
    assert evidence(home) == ["damaged"]


def test_a_maker_killed_before_the_witness_does_no_harm(home: Home) -> None:  # noqa: F811
    Journal.open(home, Role.CLIENT, create=True).close()
    home.witness.unlink()
    assert events_of(home) == 0
    assert not home.witness.exists(), "a reader writes nothing"
    with Journal.open(home, Role.CLIENT) as journal:
        # Before the first commit: a kill between that and its witness would look like a loss.
        assert witness.read(home.witness) == witness.Seen(journal.generation, 0, 0)
        submit_one(journal)
    assert events_of(home) == 1


def test_evidence_is_kept_of_later_damages_too_but_not_without_end(home: Home) -> None:  # noqa: F811
    fill(home, 3)
    good = home.witness.read_bytes()
    for n in range(6):
        for _again in range(2):  # the same damage, met twice, is kept once
            home.witness.write_bytes(f"rubbish {n}".encode())
            os.utime(home.witness, ns=(n, n))
            with pytest.raises(JournalDamaged):
                Journal.open(home)
        assert evidence(home) == ["damaged", "damaged.2", "damaged.3"][: n + 1]
    kept = [(home.path / name / home.witness.name).read_text() for name in evidence(home)]
    assert kept == ["rubbish 0", "rubbish 1", "rubbish 2"]
    home.witness.write_bytes(good)
    assert events_of(home) == 3
    recover.recover(home)
    assert all(name.startswith("damaged-") for name in evidence(home)), "recovery sets them aside"


# Two journals open in one process.


@pytest.mark.parametrize("raw", [False, True])
def test_opening_twice_keeps_the_log_under_the_first(home: Home, raw: bool) -> None:  # noqa: F811
    """POSIX drops all locks of a process on a file that it closes, whichever descriptor that was."""
    fill(home, 1)
    with Journal.open(home, Role.CLIENT) as first:
        assert first.last_seq() == 1
        if raw:
            home.journal.read_bytes()  # the twin: what opening must not do
        else:
            Journal.open(home).close()
        with python("with Journal.open(home, Role.CLIENT) as journal: say(submit_one(journal))", home) as other:
            assert answer(other) == "2"
            assert other.wait(30) == 0
        assert Path(f"{home.journal}-wal").exists() is not raw
        if not raw:
            assert submit_one(first) == 3
    if not raw:
        assert events_of(home) == 3


# Recovery.

_OLD_CLIENT = """
with Journal.open(home, Role.CLIENT) as journal:
    say(journal.last_seq())
    hear()
    try:
        say("wrote", submit_one(journal))
    except LabError as error:
        say(error.exit_code, error)
say("closed")
"""


def test_who_opened_before_a_recovery_writes_nothing_after_it(home: Home) -> None:  # noqa: F811
    fill(home, 5)
    with python(_OLD_CLIENT, home) as old, Journal.open(home) as watching:
        assert answer(old) == "5"
        watching.data_version()
        assert recover.recover(home).lost == 0
        with Journal.open(home, Role.CLIENT) as new:
            assert submit_one(new) == 6
            tell(old)
            assert answer(old) == f"{int(Exit.REFUSED)} the journal was replaced; run the command again"
            assert answer(old) == "closed"
            assert old.wait(30) == 0
            with pytest.raises(Refused, match="replaced"):
                watching.data_version()
            # The last connection to the old file removed no log of the new one.
            assert submit_one(new) == 7
    assert events_of(home) == 7
    # The twin: who opens after it, writes.
    with python(_OLD_CLIENT, home) as client:
        assert answer(client) == "7"
        tell(client)
        assert answer(client) == "wrote 8"


def test_recovery_waits_for_a_commit_and_for_the_controller(
    home: Home,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(home, 2)
    monkeypatch.setattr(recover, "_QUIET_S", 0.1)
    with lock(home.controller_lock, ALONE, 0.0) as got:
        assert got
        with pytest.raises(HomeInUse, match="lab down"):
            recover.recover(home)
    before = home.journal.stat().st_ino
    with Journal.open(home, Role.CLIENT) as journal, journal.transaction() as tx:
        tx.extend([submitted(3)])
        with pytest.raises(HomeInUse, match="writing"):
            recover.recover(home)
    assert home.journal.stat().st_ino == before
    assert recover.recover(home).lost == 0
    assert home.journal.stat().st_ino != before
    assert events_of(home) == 3


def test_nothing_begins_while_recovery_works(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    fill(home, 2)
    monkeypatch.setattr("core.journal.store.BUSY_S", 0.1)
    with Journal.open(home, Role.CLIENT) as journal:
        with lock(home.journal_lock, ALONE, 0.0), pytest.raises(HomeInUse, match="being recovered"):
            submit_one(journal)
        assert submit_one(journal) == 3
        # SQLite lets nobody new in, and those inside read on.
        with python("say('asks'); hear(); say(Journal.open(home).last_seq())", home) as late:
            assert answer(late) == "asks"
            with nobody_new(home.journal, 0.0) as got:
                assert got
                assert journal.last_seq() == 3
                tell(late)
                # An open takes some milliseconds: whoever is let in has answered long before this is over.
                assert late.stdout is not None
                assert select.select([late.stdout], [], [], 0.5)[0] == []
                assert late.poll() is None
            assert answer(late) == "3"
    # What would be damage otherwise is no damage while somebody repairs it.
    home.witness.unlink()
    with lock(home.journal_lock, ALONE, 0.0), pytest.raises(HomeInUse, match="being recovered"):
        Journal.open(home)
    assert evidence(home) == []


def keep_submitting(path: Path, until: Any, said: Any) -> None:
    home, mine = Home(path), []  # noqa: F811
    while not until.is_set():
        try:
            with Journal.open(home, Role.CLIENT) as journal:
                for _ in range(3):
                    mine.append(submit_one(journal))
                    time.sleep(0.003)
        except LabError as error:
            if error.slug == "journal-damaged" or not isinstance(error, Refused):
                said.put(repr(error))
                return
    said.put(mine)


def recovered(home: Home) -> bool:  # noqa: F811
    """Once. False: others wrote all the while, and the person was told to try again."""
    try:
        recover.recover(home)
    except HomeInUse:
        return False
    return True


def test_recoveries_among_busy_clients_lose_and_repeat_nothing(home: Home) -> None:  # noqa: F811
    fill(home, 0)
    until, said = FORK.Event(), FORK.Queue()
    workers = [FORK.Process(target=keep_submitting, args=(home.path, until, said), daemon=True) for _ in range(3)]
    for worker in workers:
        worker.start()
    for _ in range(8):
        time.sleep(0.1)
        assert wait_for(lambda: recovered(home), "a moment in which nobody writes", deadline_s=60)
    time.sleep(0.1)
    until.set()
    answers = [said.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(30)
    assert all(isinstance(a, list) for a in answers), answers
    ids = sorted(i for a in answers for i in a)
    assert len(ids) > 20
    assert len(set(ids)) == len(ids), "an id was given out twice"
    with Journal.open(home, Role.CONTROLLER) as journal:
        assert {j.id for j in query.jobs(journal.conn)} >= set(ids), "an acknowledged job is gone"
    assert all(name.startswith("damaged-") for name in evidence(home)), "no false alarm"


@pytest.mark.parametrize("point", ["recover.set_aside", "recover.replaced"])
def test_a_recovery_that_is_killed_can_be_repeated(home: Home, tmp_path: Path, point: str) -> None:  # noqa: F811
    source = crashed_copy(home, tmp_path)
    assert Path(f"{source.journal}-wal").stat().st_size > source.journal.stat().st_size, "all is in the log"
    points = tmp_path / "points"
    points.mkdir()
    (points / point).touch()
    with python("recover(home)", source, LAB_FAILPOINTS=str(points)) as killed:
        assert killed.wait(60) == -signal.SIGKILL
    assert source.journal.exists(), "the name never disappears"
    with pytest.raises(JournalDamaged):
        Journal.open(source)
    assert recover.recover(source).lost == 0
    assert events_of(source) == 12


def test_ids_stay_taken_through_two_recoveries(home: Home, tmp_path: Path) -> None:  # noqa: F811
    source = crashed_copy(home, tmp_path)
    wal = Path(f"{source.journal}-wal")
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size // 2])
    assert recover.recover(source).lost > 0
    assert witness.read(source.witness).last_job == 12  # type: ignore[union-attr]
    with Journal.open(source, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.append(K.LANE, lane="local", data={"state": "up", "reason": "", "info": {}})
    assert witness.read(source.witness).last_job == 12  # type: ignore[union-attr]
    source.witness.unlink()
    assert recover.recover(source).lost == 0
    with Journal.open(source, Role.CLIENT) as journal:
        assert submit_one(journal) == 13


def test_a_journal_that_was_replaced_by_hand_is_not_written_to(home: Home, tmp_path: Path) -> None:  # noqa: F811
    fill(home, 2)
    with Journal.open(home, Role.CLIENT) as journal:
        assert submit_one(journal) == 3
        os.rename(home.journal, tmp_path / "moved")
        with pytest.raises(Refused, match="replaced"):
            submit_one(journal)
        os.rename(tmp_path / "moved", home.journal)
        assert submit_one(journal) == 4


def test_the_witness_of_another_generation_is_left_alone(home: Home) -> None:  # noqa: F811
    home.path.mkdir()
    witness.create(home.witness, witness.Seen("new", 3, 3))
    witness.create(home.witness, witness.Seen("other", 0, 0))
    witness.write(home.witness, witness.Seen("old", 90, 90))
    assert witness.read(home.witness) == witness.Seen("new", 3, 3)
    witness.write(home.witness, witness.Seen("new", 4, 4))
    assert witness.read(home.witness) == witness.Seen("new", 4, 4)
    assert home.witness.read_bytes().count(b"old") == 0


# A busy journal.


def test_a_busy_journal_is_said_in_a_sentence(home: Home) -> None:  # noqa: F811
    fill(home, 1)
    with Journal.open(home, Role.CONTROLLER) as journal, Journal.open(home, Role.CLIENT) as other:
        journal.conn.execute("PRAGMA busy_timeout = 50")
        with other.transaction() as tx:
            tx.extend([submitted(2)])
            with pytest.raises(Unavailable, match="busy") as caught, journal.transaction():
                pytest.fail("nobody may come here")
        assert caught.value.exit_code is Exit.UNAVAILABLE
        assert submit_one(journal) == 3
        # The twin: other errors of SQLite are not called busy.
        with pytest.raises(sqlite3.IntegrityError), journal.transaction() as tx:
            tx.extend([ended(1), ended(1)])


# The reserve.


@pytest.mark.root
def test_the_reserve_leaves_room_for_others(small_disk: Path) -> None:  # noqa: F811
    home = Home(small_disk / "home")  # noqa: F811
    with Journal.open(home, Role.CLIENT, create=True) as journal:
        filler = fill_disk(small_disk)
        os.truncate(filler, filler.stat().st_size - int(1.5 * RESERVE_BYTES))
        free = shutil.disk_usage(small_disk).free
        assert RESERVE_BYTES < free < 2 * RESERVE_BYTES, "it would fit"
        assert not journal.hold_reserve()
        assert shutil.disk_usage(small_disk).free == free
        os.truncate(filler, filler.stat().st_size - RESERVE_BYTES)
        assert journal.hold_reserve()
        assert journal.hold_reserve(), "held already"


# Versions.


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_an_older_journal_is_not_migrated_under_its_controller(
    home: Home,  # noqa: F811
    version: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if version > 1:  # once the wait for the lock is as long as it is; then it only has to end
        monkeypatch.setattr(opening, "lock", lambda path, how, wait_s: lock(path, how, min(wait_s, 0.05)))
    home.path.mkdir()
    shutil.copy(JOURNALS / f"version-{version}.db", home.journal)
    shutil.copy(JOURNALS / f"version-{version}.witness", home.witness)
    before = home.journal.read_bytes()

    def version_now() -> int:
        with contextlib.closing(sqlite3.connect(home.journal)) as conn:
            return int(conn.execute("PRAGMA user_version").fetchone()[0])

    with lock(home.controller_lock, ALONE, 0.0):
        for role in (Role.READER, Role.CLIENT):
            with pytest.raises(Refused, match="older version") as caught:
                Journal.open(home, role)
            assert "lab down" in str(caught.value)
            assert "\n" not in str(caught.value)
        assert home.journal.read_bytes() == before
        assert version_now() == version
        # Its controller can be reached all the same, or nobody could ask it to end.
        with Journal.open(home, Role.CLIENT, migrate=False) as journal:
            with journal.transaction() as tx:
                tx.append(K.DOWN_ASKED, data={"kill": False})
            assert query.down_wish(journal.conn) == {"kill": False}
        assert version_now() == version
    # The twin: when it is down, whoever comes first migrates.
    with Journal.open(home) as journal:
        assert query.down_wish(journal.conn) == {"kill": False}
    assert version_now() == schema.VERSION
    assert len(list(home.backups.glob("before-version-*.db"))) == 1
    assert not list(home.backups.glob(".*")), "copies are whole or not there"


def test_looking_at_the_lock_of_the_controller_is_no_controller(home: Home) -> None:  # noqa: F811
    home.path.mkdir()
    shutil.copy(JOURNALS / "version-1.db", home.journal)
    shutil.copy(JOURNALS / "version-1.witness", home.witness)
    looking = threading.Event()

    def look() -> None:
        with lock(home.controller_lock, SHARED, 0.0):
            looking.set()
            time.sleep(0.2)

    thread = threading.Thread(target=look)
    thread.start()
    assert looking.wait(30)
    with Journal.open(home) as journal:
        assert query.jobs(journal.conn)
    with contextlib.closing(sqlite3.connect(home.journal)) as conn:
        assert conn.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    thread.join()


def test_processes_that_migrate_at_once_migrate_once(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")  # noqa: F811
    home.path.mkdir()
    shutil.copy(JOURNALS / "version-1.db", home.journal)
    shutil.copy(JOURNALS / "version-1.witness", home.witness)
    with contextlib.ExitStack() as stack:
        code = "hear(); say(len(query.jobs(Journal.open(home).conn)))"
        children = [stack.enter_context(python(code, home)) for _ in range(4)]
        for child in children:
            tell(child)
        assert [answer(child) for child in children] == ["5"] * 4


# What others may read.


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_home_and_what_holds_the_journal_are_ours_alone(home: Home) -> None:  # noqa: F811
    home.path.mkdir(mode=0o755)
    home.path.chmod(0o755)
    old = os.umask(0o022)
    try:
        fill(home, 2)
        with Journal.open(home, Role.CLIENT) as journal:
            submit_one(journal)
            name = backup(home)
            files = [home.journal, Path(f"{home.journal}-wal"), home.witness, home.backups / name]
            assert {p.name: oct(mode(p)) for p in files} == {p.name: "0o600" for p in files}
        recover.recover(home)
        assert mode(home.journal) == 0o600
        assert mode(home.path) == 0o700
    finally:
        os.umask(old)


def test_a_place_for_everybody_stays_one(tmp_path: Path) -> None:
    home = Home(tmp_path / "tmp")  # noqa: F811
    home.path.mkdir()
    home.path.chmod(0o1777)
    home.create()
    assert mode(home.path) == 0o1777
