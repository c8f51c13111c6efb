"""The memory of digests: fast when nothing changed, never wrong, and dispensable."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import core.digests
from core.digests import Digests
from core.fsio import sha256_file
from lanes.agent.setup import hash_path


def settle(*paths: Path) -> None:
    """Wait until the files are old enough to be remembered, by the filesystem's own clock."""
    newest = max(max(p.stat().st_mtime, p.stat().st_ctime) for p in paths)
    time.sleep(max(0.0, newest + core.digests.SETTLED_S + 0.05 - time.time()))


def later() -> float:
    """A clock by which all files are old enough; one test waits until they really are."""
    return time.time() + 100


def count_hashing(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    hashed: list[Path] = []

    def hashing(path: Path) -> str:
        hashed.append(Path(path))
        return sha256_file(path)

    monkeypatch.setattr(core.digests, "sha256_file", hashing)
    return hashed


def test_settled_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"alpha")
    settle(file)
    hashed = count_hashing(monkeypatch)
    for _ in range(3):
        with Digests(tmp_path / "digests.db") as digests:
            assert digests.file(file).sha256 == hashlib.sha256(b"alpha").hexdigest()
    assert hashed == [file]


def test_young_files_are_never_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    hashed = count_hashing(monkeypatch)
    for text in (b"one", b"two", b"six"):  # one size, and on a coarse clock one mtime
        file.write_bytes(text)
        os.utime(file, ns=(10**18, 10**18))
        with Digests(tmp_path / "digests.db") as digests:
            assert digests.file(file).sha256 == hashlib.sha256(text).hexdigest()
    assert len(hashed) == 3


def test_an_unchanged_young_file_is_hashed_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"alpha")
    made = file.stat().st_ctime
    hashed = count_hashing(monkeypatch)
    for _ in range(2):
        with Digests(tmp_path / "digests.db", clock=lambda: made + 1) as digests:
            digests.file(file)
    assert len(hashed) == 2


def test_a_file_put_back_in_time_is_hashed_again(tmp_path: Path) -> None:
    # mtime can be set by anyone; ctime cannot.
    file = tmp_path / "a"
    file.write_bytes(b"alpha")
    old = file.stat().st_mtime_ns - 10**10
    os.utime(file, ns=(old, old))
    with Digests(tmp_path / "digests.db", clock=later) as digests:
        digests.file(file)
    file.write_bytes(b"gamma")
    os.utime(file, ns=(old, old))
    with Digests(tmp_path / "digests.db", clock=later) as digests:
        assert digests.file(file).sha256 == hashlib.sha256(b"gamma").hexdigest()


def test_times_in_the_future_are_distrusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"alpha")
    hashed = count_hashing(monkeypatch)
    for _ in range(2):
        with Digests(tmp_path / "digests.db", clock=lambda: time.time() - 3600) as digests:
            digests.file(file)
    assert len(hashed) == 2


@pytest.mark.parametrize("damage", [b"", b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_memory_is_replaced(tmp_path: Path, damage: bytes) -> None:
    memory, file = tmp_path / "digests.db", tmp_path / "a"
    file.write_bytes(b"alpha")
    memory.write_bytes(damage)
    for _ in range(2):
        with Digests(memory, clock=later) as digests:
            assert digests.file(file).sha256 == hashlib.sha256(b"alpha").hexdigest()
    assert sqlite3.connect(memory).execute("SELECT count(*) FROM digest").fetchone() == (1,)


def test_another_schema_is_replaced(tmp_path: Path) -> None:
    memory = tmp_path / "digests.db"
    conn = sqlite3.connect(memory)
    conn.execute("CREATE TABLE digest(path TEXT)")
    conn.commit()
    conn.close()
    file = tmp_path / "a"
    file.write_bytes(b"alpha")
    with Digests(memory) as digests:
        assert digests.file(file).size == 5


def test_nothing_is_written_where_there_is_no_home(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"alpha")
    with Digests(tmp_path / "nowhere" / "digests.db") as digests:
        assert digests.file(file).size == 5
    assert not (tmp_path / "nowhere").exists()


def test_folders_by_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "x").write_bytes(b"1")
    (folder / "a").write_bytes(b"22")
    (folder / "link").symlink_to("b")
    with Digests(None) as digests:
        first = digests.tree(folder)
        assert (first.size, first.tree) == (3, True)
        assert first.sha256 == hash_path(folder)  # the lane must come to the same
        (folder / "a").rename(folder / "c")
        renamed = digests.tree(folder).sha256
        (folder / "c").rename(folder / "a")
        (folder / "a").write_bytes(b"23")
        changed = digests.tree(folder).sha256
        (folder / "a").write_bytes(b"22")
        assert digests.tree(folder) == first
    assert len({first.sha256, renamed, changed}) == 3


def test_only_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with Digests(None) as digests, pytest.raises(OSError, match="not a regular file"):
        digests.file(tmp_path / "pipe")


def _hash_all(memory: Path, folder: Path) -> str:
    with Digests(memory, clock=later) as digests:
        return digests.tree(folder).sha256


def test_many_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(600):
        (folder / str(i)).write_bytes(b"%d" % i)
    with ProcessPoolExecutor(4) as pool:
        jobs = [pool.submit(_hash_all, tmp_path / "digests.db", folder) for _ in range(8)]
        assert len({j.result() for j in jobs}) == 1
