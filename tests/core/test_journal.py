"""The journal's promises, each with the twin that shows that the check can fail."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.errors import DiskFull, Exit, JournalDamaged, JournalTooNew, NotFound, Refused
from core.home import Home
from core.journal import Event, Journal, Role, query, schema, witness
from core.journal.apply import APPLY, SETS, replay
from core.journal.backup import backup
from core.journal.recover import recover
from core.states import EventKind as K
from core.states import JobState

JOURNALS = Path(__file__).parent / "journals"


def submitted(job: int, **more: Any) -> Event:
    data = {
        "spec": "d1",
        "kind": "command",
        "name": "t",
        "params": {"argv": ["true"]},
        "key": f"{job:064x}",
        "priority": 0,
        "idem": None,
        "tags": [],
        "note": "",
        "held": False,
        "after": [],
        **more,
    }
    return Event(K.SUBMITTED, job=job, data=data)


def ended(job: int, state: str = "succeeded") -> Event:
    return Event(K.JOB_ENDED, job=job, data={"state": state, "cause": "ok", "reason": ""})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def fill(home: Home, jobs: int) -> None:
    with Journal.open(home, Role.CONTROLLER, create=True) as journal:
        for job in range(1, jobs + 1):
            with journal.transaction() as tx:
                tx.extend([submitted(job)])


def state_dump(conn: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    return {
        t: sorted((tuple(r) for r in conn.execute(f"SELECT * FROM {t}")), key=repr) for t in schema.STATE_TABLE_NAMES
    }


# Events and state.


def test_every_event_kind_has_its_statements() -> None:
    assert set(APPLY) | set(SETS) == set(K)
    assert not set(APPLY) & set(SETS)


def test_replay_gives_the_same_state_as_living_through_it(home: Home) -> None:
    rng = random.Random(7)
    with Journal.open(home, Role.CONTROLLER, create=True) as journal:
        live_random_life(journal, rng, jobs=60)
        before = state_dump(journal.conn)
        journal.conn.execute("BEGIN")
        schema.drop_state(journal.conn)
        schema.create_state(journal.conn)
        replay(journal.conn)
        after = state_dump(journal.conn)
        journal.conn.execute("ROLLBACK")
        assert before == after
        assert len(before["job_state"]) > 30
        assert {str(r[0]) for r in journal.conn.execute("SELECT state FROM job_state")} >= {
            "queued",
            "running",
            "succeeded",
            "failed",
            "cancelled",
            "held",
        }
        # The twin: a replay that skips one event does not give the same state.
        last = journal.conn.execute("SELECT max(seq) FROM event WHERE kind = 'job-ended'").fetchone()[0]
        journal.conn.execute("BEGIN")
        journal.conn.execute("DELETE FROM event WHERE seq = ?", (last,))
        schema.drop_state(journal.conn)
        schema.create_state(journal.conn)
        replay(journal.conn)
        assert state_dump(journal.conn) != before
        journal.conn.execute("ROLLBACK")


def live_random_life(journal: Journal, rng: random.Random, *, jobs: int) -> None:
    """Random but lawful: many short transactions with the events of several jobs mixed."""
    todo = list(range(1, jobs + 1))
    running: dict[int, int] = {}
    attempts: dict[int, int] = {}
    with journal.transaction() as tx:
        tx.append(K.SPEC, data={"digest": "d1", "data": "{}"})
        tx.append(K.LANE, lane="local", data={"state": "up", "reason": "", "info": {"cores": 2}})
    waiting: list[int] = []
    for _ in range(jobs * 2):
        with journal.transaction() as tx:
            for _ in range(rng.randint(1, 3)):
                what = rng.random()
                if todo and what < 0.35:
                    job = todo.pop(0)
                    after = [["ok", rng.randint(1, job - 1)]] if job > 1 and rng.random() < 0.3 else []
                    held = rng.random() < 0.15
                    tx.extend([submitted(job, priority=rng.randint(-2, 2), after=after, held=held)])
                    if not held:
                        waiting.append(job)
                elif waiting and what < 0.6:
                    job = waiting.pop(rng.randrange(len(waiting)))
                    n = attempts[job] = attempts.get(job, 0) + 1
                    running[job] = n
                    tx.append(
                        K.PLACED, job=job, attempt=n, lane="local", data={"nonce": f"{job}", "grant": {"cores": 1}}
                    )
                    tx.append(K.STARTED, job=job, attempt=n, lane="local", data={"pid": job, "boot": "b"})
                elif running and what < 0.9:
                    job = rng.choice(sorted(running))
                    n = running.pop(job)
                    end = rng.choice(["succeeded", "failed", "again", "cancelled"])
                    parts = (
                        [{"table": "t", "path": f"t/{job}", "rows": 1, "bytes": 2, "sha256": "x"}]
                        if end == "succeeded"
                        else []
                    )
                    state = "failed" if end == "again" else end
                    tx.append(
                        K.ATTEMPT_ENDED,
                        job=job,
                        attempt=n,
                        lane="local",
                        data={"state": state, "cause": "ok", "parts": parts},
                    )
                    if end == "again":
                        tx.append(K.REQUEUED, job=job, data={"cause": "preempted", "reason": "r"})
                        waiting.append(job)
                    else:
                        tx.extend([ended(job, end)])
                elif running:
                    tx.append(K.CANCEL_ASKED, job=rng.choice(sorted(running)))


def test_a_job_ends_once(home: Home) -> None:
    with Journal.open(home, Role.CONTROLLER, create=True) as journal:
        with journal.transaction() as tx:
            tx.extend([submitted(1), ended(1)])
        with pytest.raises(sqlite3.IntegrityError), journal.transaction() as tx:
            tx.extend([ended(1, "failed")])
        assert query.job(journal.conn, 1).state is JobState.SUCCEEDED


def test_a_client_writes_requests_only(home: Home) -> None:
    with Journal.open(home, Role.CLIENT, create=True) as journal:
        with journal.transaction() as tx:
            tx.extend([submitted(1)])
        with pytest.raises(PermissionError), journal.transaction() as tx:
            tx.extend([ended(1)])
        assert query.job(journal.conn, 1).state is JobState.QUEUED
    with Journal.open(home) as reader, pytest.raises(Refused), reader.transaction():
        pass


def test_an_exception_inside_undoes_everything(home: Home) -> None:
    with Journal.open(home, Role.CLIENT, create=True) as journal:
        with pytest.raises(KeyError), journal.transaction() as tx:
            tx.extend([submitted(1)])
            raise KeyError
        assert journal.last_seq() == 0
        assert query.counts(journal.conn) == {}


def test_unknown_id_names_the_range(home: Home) -> None:
    fill(home, 3)
    with Journal.open(home) as journal, pytest.raises(NotFound, match="no job 9") as caught:
        query.job(journal.conn, 9)
    assert "1 to 3" in str(caught.value)
    assert caught.value.exit_code is Exit.NOT_FOUND


# Killed around the commit.

_SUBMIT = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from core.home import Home
from core.journal import Journal, Role
from tests.core.test_journal import submitted
with Journal.open(Home(Path({home!r})), Role.CLIENT, create=True) as journal:
    with journal.transaction() as tx:
        tx.extend([submitted(tx.next_job_id())])
    print("acknowledged", flush=True)
"""


@pytest.mark.parametrize(("point", "kept"), [("before_commit", 0), ("after_commit", 1)])
def test_killed_around_the_commit_of_a_submit(home: Home, tmp_path: Path, point: str, kept: int) -> None:
    points = tmp_path / "points"
    points.mkdir()
    (points / f"journal.{point}.client").touch()
    root = str(Path(__file__).parents[2])
    code = _SUBMIT.format(root=root, home=str(home.path))
    env = {**os.environ, "LAB_FAILPOINTS": str(points)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert "acknowledged" not in done.stdout
    with Journal.open(home) as journal:
        assert journal.last_seq() == kept
    # Whatever happened, the next submit works and is seen.
    again = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert again.stdout.strip() == "acknowledged", again.stderr
    with Journal.open(home) as journal:
        assert journal.last_seq() == kept + 1


# Damage.


def crashed_copy(home: Home, tmp_path: Path, jobs: int = 12) -> Home:
    """A home whose last writer was killed: the write-ahead log still holds everything."""
    root = str(Path(__file__).parents[2])
    code = f"""
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from core.home import Home
from core.journal import Journal, Role
from tests.core.test_journal import submitted
journal = Journal.open(Home(Path({str(home.path)!r})), Role.CONTROLLER, create=True)
for job in range(1, {jobs} + 1):
    with journal.transaction() as tx:
        tx.extend([submitted(job)])
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    wal = Path(f"{home.journal}-wal")
    assert wal.stat().st_size > 0
    copy = Home(tmp_path / "copy")
    shutil.copytree(home.path, copy.path)
    return copy


def copy_of(source: Home, target: Path) -> Home:
    shutil.copytree(source.path, target)
    Path(f"{target / 'journal.db'}-shm").unlink(missing_ok=True)
    return Home(target)


def opens_whole(home: Home, events: int) -> bool:
    """True: opened with everything. False: refused. A journal opened with less fails the test."""
    try:
        with Journal.open(home, Role.CONTROLLER) as journal:
            assert journal.last_seq() == events, "opened silently with fewer events"
            assert sum(query.counts(journal.conn).values()) == events
            return True
    except JournalDamaged as error:
        assert "doctor --recover" in str(error)
        return False


def test_torn_or_flipped_log_is_never_silently_shorter(home: Home, tmp_path: Path) -> None:
    source = crashed_copy(home, tmp_path)
    size = Path(f"{source.journal}-wal").stat().st_size
    rng = random.Random(3)
    refused = whole = 0
    cuts = [("cut", n) for n in sorted(rng.sample(range(size), 12))] + [("cut", size)]
    flips = [("flip", n) for n in sorted(rng.sample(range(size), 20))]
    for i, (how, at) in enumerate(cuts + flips):
        copy = copy_of(source, tmp_path / f"c{i}")
        wal = Path(f"{copy.journal}-wal")
        blob = bytearray(wal.read_bytes())
        if how == "cut":
            del blob[at:]
        else:
            blob[at] ^= 1 << rng.randrange(8)
        wal.write_bytes(bytes(blob))
        if opens_whole(copy, 12):
            whole += 1
        else:
            refused += 1
        shutil.rmtree(copy.path)
    assert refused > 20, "most of these lose something"
    assert whole >= 1, "the untouched log opens"


def test_without_the_witness_sqlite_would_have_said_nothing(home: Home, tmp_path: Path) -> None:
    """The twin: what the witness is for. SQLite itself opens the torn log with fewer rows and no complaint."""
    source = crashed_copy(home, tmp_path)
    wal = Path(f"{source.journal}-wal")
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size // 2])
    conn = sqlite3.connect(source.journal)
    rows = conn.execute("SELECT count(*) FROM event").fetchone()[0]
    conn.close()
    assert 0 < rows < 12


@pytest.mark.parametrize("keep", [0, 1, 50, 4096, 0.5, 0.9, 0.999])
def test_truncated_main_file_is_refused(home: Home, keep: float) -> None:
    fill(home, 300)
    with Journal.open(home, Role.CONTROLLER) as journal:
        journal.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = home.journal.stat().st_size
    os.truncate(home.journal, int(keep if keep >= 1 else keep * size))
    for role in (Role.READER, Role.CLIENT, Role.CONTROLLER):
        with pytest.raises(JournalDamaged, match="doctor --recover"):
            Journal.open(home, role)


def test_a_checkpoint_cut_short_is_no_damage(home: Home, tmp_path: Path) -> None:
    """Killed half-way through a checkpoint: the main file is short, the log has the rest, nothing is lost."""
    source = crashed_copy(home, tmp_path, jobs=60)
    with Journal.open(copy_of(source, tmp_path / "full")) as journal:
        journal.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        journal.close()
    checkpointed = (tmp_path / "full" / "journal.db").read_bytes()
    assert len(checkpointed) > source.journal.stat().st_size
    # As the killed one leaves it: page one is moved already, the file not yet as long as page one says.
    source.journal.write_bytes(checkpointed[:4096] + source.journal.read_bytes()[4096:])
    assert opens_whole(copy_of(source, tmp_path / "again"), 60)
    # The twin: without the log it is damage.
    lost = copy_of(source, tmp_path / "lost")
    Path(f"{lost.journal}-wal").unlink()
    assert not opens_whole(lost, 60)


def test_flipped_page_is_refused_by_the_controller(home: Home) -> None:
    fill(home, 300)
    with Journal.open(home, Role.CONTROLLER) as journal:
        journal.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    blob = bytearray(home.journal.read_bytes())
    blob[4096 * 5 : 4096 * 5 + 64] = bytes(64)
    home.journal.write_bytes(bytes(blob))
    with pytest.raises(JournalDamaged):
        Journal.open(home, Role.CONTROLLER)


def test_lost_or_foreign_witness_is_refused(home: Home, tmp_path: Path) -> None:
    fill(home, 3)
    keep = home.witness.read_bytes()
    home.witness.unlink()
    with pytest.raises(JournalDamaged, match="witness"):
        Journal.open(home)
    home.witness.write_bytes(b"rubbish")
    with pytest.raises(JournalDamaged, match="cannot be read"):
        Journal.open(home)
    other = Home(tmp_path / "other")
    fill(other, 9)
    shutil.copy(other.witness, home.witness)
    with pytest.raises(JournalDamaged, match="not the journal"):
        Journal.open(home)
    home.witness.write_bytes(keep)
    Journal.open(home).close()


def test_an_old_copy_of_the_journal_is_refused(home: Home, tmp_path: Path) -> None:
    fill(home, 3)
    old = tmp_path / "old.db"
    shutil.copy(home.journal, old)
    with Journal.open(home, Role.CLIENT) as journal, journal.transaction() as tx:
        tx.extend([submitted(4)])
    shutil.copy(old, home.journal)
    for suffix in ("-wal", "-shm"):
        Path(f"{home.journal}{suffix}").unlink(missing_ok=True)
    with pytest.raises(JournalDamaged, match="1 lost"):
        Journal.open(home)


def test_witness_survives_a_torn_write_and_never_goes_back(home: Home) -> None:
    home.path.mkdir()
    for seq in range(1, 6):
        witness.write(home.witness, witness.Seen("g", seq, seq))
    witness.write(home.witness, witness.Seen("g", 2, 2))
    assert witness.read(home.witness) == witness.Seen("g", 5, 5)
    blob = bytearray(home.witness.read_bytes())
    at = blob.index(b" 5 5 ")
    blob[at : at + 30] = bytes(30)
    home.witness.write_bytes(bytes(blob))
    assert witness.read(home.witness) == witness.Seen("g", 4, 4)


# The way back.


def test_recover_from_a_torn_log(home: Home, tmp_path: Path) -> None:
    source = crashed_copy(home, tmp_path)
    wal = Path(f"{source.journal}-wal")
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size * 2 // 3])
    with pytest.raises(JournalDamaged):
        Journal.open(source)
    report = recover(source)
    assert report.lost > 0
    assert any("could not be found" in line for line in report.lines)
    with Journal.open(source, Role.CLIENT) as journal:
        kept = journal.last_seq()
        assert kept == 12 - report.lost
        with journal.transaction() as tx:
            # Ids that were given out are not given out again.
            assert tx.next_job_id() == 13
            tx.extend([submitted(13)])
    assert (report.kept / "journal.db").exists()


def test_recover_prefers_the_longest_and_uses_backups(home: Home) -> None:
    fill(home, 20)
    backup(home)
    os.truncate(home.journal, 5000)
    with pytest.raises(JournalDamaged):
        Journal.open(home)
    report = recover(home)
    assert report.lost == 0
    assert "backups" in report.lines[0]
    with Journal.open(home) as journal:
        assert query.counts(journal.conn) == {JobState.QUEUED: 20}


def test_recover_reads_what_a_truncated_file_still_has(home: Home) -> None:
    fill(home, 300)
    with Journal.open(home, Role.CONTROLLER) as journal:
        journal.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(home.journal, int(home.journal.stat().st_size * 0.8))
    report = recover(home)
    assert 0 < report.lost < 300
    with Journal.open(home, Role.CONTROLLER) as journal:
        assert sum(query.counts(journal.conn).values()) == 300 - report.lost
        assert query.job(journal.conn, 1).state is JobState.QUEUED


def test_recover_puts_back_jobs_that_only_their_run_directory_remembers(home: Home) -> None:
    fill(home, 2)
    backup(home)
    run = home.run_dir(5, 1)
    run.create()
    spec = {
        "version": 1, "job": 5, "attempt": 1, "kind": "command", "name": "mine", "entry": "jobs.command:Command",
        "params": {"argv": ["true"]}, "key": "k" * 64, "inputs": [],
        "code": {"digest": None, "path": None, "subdir": ""},
        "kind_path": "/x/code/abc", "kind_digest": "d", "python": "/usr/bin/python3", "grant": {"cores": 1, "gpus": []},
        "limits": {"time_s": None, "grace_s": 1.0, "setup_s": 10.0}, "env": {}, "outputs": [],
        "expect": {"rows": {}, "last_step": None, "artifacts": []},
    }  # fmt: skip
    run.spec.write_text(json.dumps(spec))
    home.journal.write_bytes(b"")
    report = recover(home)
    assert any("put back" in line for line in report.lines)
    with Journal.open(home) as journal:
        job = query.job(journal.conn, 5)
        assert (job.state, job.name, job.key) == (JobState.HELD, "mine", "k" * 64)


def test_recover_of_a_healthy_home_loses_nothing(home: Home) -> None:
    fill(home, 5)
    with Journal.open(home) as journal:
        before = state_dump(journal.conn)
    report = recover(home)
    assert report.lost == 0
    with Journal.open(home) as journal:
        assert state_dump(journal.conn) == before


# Versions.


def test_an_older_journal_is_migrated_and_a_copy_kept(home: Home) -> None:
    for version in range(1, schema.VERSION + 1):
        old = Home(home.path.parent / f"v{version}")
        old.path.mkdir(parents=True)
        shutil.copy(JOURNALS / f"version-{version}.db", old.journal)
        shutil.copy(JOURNALS / f"version-{version}.witness", old.witness)
        with Journal.open(old, Role.CONTROLLER) as journal:
            states = {j.id: j.state for j in query.jobs(journal.conn)}
            assert {i: s for i, s in states.items() if i < 6} == {
                1: JobState.SUCCEEDED,
                2: JobState.FAILED,
                3: JobState.SKIPPED,
                4: JobState.HELD,
                5: JobState.RUNNING,
            }
            assert query.job(journal.conn, 5).wish == "cancel"
            assert query.parts(journal.conn, table="t")[0].rows == 3
            assert query.lanes(journal.conn)[0].wish == "drain"
            if version >= 4:
                assert query.sweep_counts(journal.conn, 6) == {JobState.SUCCEEDED: 2, JobState.FAILED: 1}
                assert query.payload(journal.conn, query.parts(journal.conn, table="kernel")[0].id) == b"abc"
            if version >= 5:
                assert query.admitted(journal.conn) == {"mini": {"eval"}}
                assert [(r.rung, r.ok) for r in query.rungs(journal.conn, "mini")] == [
                    ("reachable", True),
                    ("parity", False),
                ]
                asked = query.open_asks(journal.conn)
                assert [a.what for a in asked] == ["probe"]
                first = query.ask(journal.conn, asked[0].seq - 7)
                assert first is not None
                assert first.answer is not None
                assert first.answer["message"] == "not admitted"
            if version >= 6:
                digits, withdrawn = query.claims(journal.conn)
                assert (digits.name, digits.by, digits.withdrawn, withdrawn.withdrawn) == (
                    "digits", "ann", None, "another is better",
                )  # fmt: skip
                assert digits.highest is not None
                assert digits.evaluated is not None
                assert (digits.highest["rung"], digits.evaluated["rung"]) == ("experimental", "smoke")
                assert [(w.gate, w.job, w.by) for w in query.waivers(journal.conn, "digits")] == [
                    ("memorisation", 1, "bob")
                ]
                assert [(p.job, p.claim) for p in query.pins(journal.conn)] == [(1, "digits"), (2, "")]
            assert journal.conn.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION
        if version < schema.VERSION:
            assert list(old.backups.glob("before-version-*.db"))


def test_a_newer_journal_is_refused_and_untouched(home: Home) -> None:
    fill(home, 2)
    conn = sqlite3.connect(home.journal)
    conn.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
    before = home.journal.read_bytes()
    with pytest.raises(JournalTooNew, match="newer lab") as caught:
        Journal.open(home, Role.CONTROLLER)
    assert caught.value.exit_code is Exit.REFUSED
    assert home.journal.read_bytes() == before


# A full disk.


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    point = tmp_path / "small"
    point.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(point)], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield point
    subprocess.run(["umount", "-l", str(point)], check=True)


def fill_disk(point: Path) -> Path:
    filler = point / "filler"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
    for size in (1 << 16, 1 << 12, 1):
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, bytes(size))
    os.close(fd)
    return filler


@pytest.mark.root
def test_disk_full_during_submit_loses_nothing_acknowledged(small_disk: Path) -> None:
    home = Home(small_disk / "home")
    fill(home, 3)
    filler = fill_disk(small_disk)
    acknowledged = 3
    with pytest.raises(DiskFull, match="full"):
        for job in range(4, 200):
            with Journal.open(home, Role.CLIENT) as journal, journal.transaction() as tx:
                tx.extend([submitted(job, note="x" * 20_000)])
            acknowledged = job
    # Looking still works on the full disk, and everything acknowledged is there.
    with Journal.open(home) as journal:
        assert journal.last_seq() == acknowledged
    filler.unlink()
    with Journal.open(home, Role.CLIENT) as journal, journal.transaction() as tx:
        tx.extend([submitted(acknowledged + 1)])


@pytest.mark.root
def test_the_reserve_lets_the_last_commit_through(small_disk: Path) -> None:
    home = Home(small_disk / "home")
    fill(home, 3)
    with Journal.open(home, Role.CONTROLLER) as journal:
        assert journal.hold_reserve()
        fill_disk(small_disk)
        with pytest.raises(DiskFull), journal.transaction() as tx:
            tx.extend([submitted(4, note="x" * 1_000_000)])
        assert journal.release_reserve()
        with journal.transaction() as tx:
            tx.extend([submitted(4, note="x" * 1_000_000)])
        assert not journal.hold_reserve(), "the disk is full: there is nothing to hold back"
        assert not journal.release_reserve()
