"""The cache of encoded data: made once, whole or not at all, looked through when taken up, never removed in use."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadInput, DiskFull
from jobs.train.data import cache
from jobs.train.data.cache import take, trim

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys, time
from pathlib import Path
from jobs.train.data.cache import take

root, gate, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def make(folder):
    (folder / "data").write_text("half")
    print("making", flush=True)
    while not gate.exists():
        time.sleep(0.01)
    (folder / "data").write_text("whole")
    return {"by": name}

entry = take({"x": 1}, make, root=root, say=lambda s: print(s, flush=True))
print("got", entry.made, entry.about["by"], (entry.folder / "data").read_text(), flush=True)
"""

CROWD = """
import random, sys
from pathlib import Path
from jobs.train.data.cache import take

root, chance = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
for _ in range(80):
    x = chance.randrange(3)

    def make(folder):
        (folder / "a").write_bytes(bytes([x]) * 5000)
        (folder / "b").write_bytes(bytes([x]) * 7000)
        return {"x": x}

    entry = take({"x": x}, make, root=root, limit=chance.choice([1, 13000, 30000]))
    assert entry.about == {"x": x} and (entry.folder / "a").read_bytes() == bytes([x]) * 5000
    entry.close()
print("fine")
"""


class Maker:
    """Writes two small files; counts how often."""

    def __init__(self, size: int = 10) -> None:
        self.count, self.size = 0, size

    def __call__(self, folder: Path) -> dict[str, Any]:
        self.count += 1
        (folder / "a").write_bytes(b"a" * self.size)
        (folder / "b").write_bytes(b"b" * self.size)
        return {"frames": 2}


def other(root: Path, gate: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root), str(gate), name], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def entries(root: Path) -> set[str]:
    return {p.name for p in root.iterdir() if p.name != ".locks"}


def test_it_is_made_once_and_taken_up_after(tmp_path: Path) -> None:
    make = Maker()
    first = take({"x": 1}, make, root=tmp_path)
    again = take({"x": 1}, make, root=tmp_path)
    assert (make.count, first.made, again.made) == (1, True, False)
    assert (first.digest, first.about, first.folder) == (again.digest, again.about, again.folder)
    assert sorted(p.name for p in first.folder.iterdir()) == ["a", "b", "manifest.json"]
    assert take({"x": 2}, make, root=tmp_path).folder != first.folder
    assert make.count == 2


def test_the_digest_is_of_content_and_of_how_it_was_made(tmp_path: Path) -> None:
    digests = {
        take({"x": 1}, Maker(), root=tmp_path / "1").digest,
        take({"x": 2}, Maker(), root=tmp_path / "2").digest,
        take({"x": 1}, Maker(11), root=tmp_path / "3").digest,
    }
    assert len(digests) == 3
    assert take({"x": 1}, Maker(), root=tmp_path / "4").digest in digests


@pytest.mark.parametrize("harm", ["flip", "short", "gone", "manifest", "about", "no manifest", "longer"])
def test_a_damaged_entry_is_made_anew_and_said(tmp_path: Path, harm: str) -> None:
    make, said = Maker(), list[str]()
    first = take({"x": 1}, make, root=tmp_path)
    first.close()
    file, manifest = first.folder / "a", first.folder / "manifest.json"
    if harm == "flip":
        file.write_bytes(b"aaaa\x60aaaaa")
    elif harm == "short":
        file.write_bytes(b"aaaa")
    elif harm == "longer":
        file.write_bytes(b"a" * 11)
    elif harm == "gone":
        file.unlink()
    elif harm == "manifest":
        manifest.write_text(manifest.read_text()[:-20])
    elif harm == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "about": {"frames": 3}}))
    second = take({"x": 1}, make, root=tmp_path, say=said.append)
    assert make.count == 2
    assert second.made
    assert second.digest == first.digest
    assert len(said) == 1
    assert "damaged" in said[0]
    assert "made anew" in said[0]
    assert ("a has other bytes" in said[0]) == (harm in ("flip", "short", "longer"))
    assert not take({"x": 1}, make, root=tmp_path).made
    assert entries(tmp_path) == {second.folder.name}


def test_what_fails_in_the_making_leaves_nothing(tmp_path: Path) -> None:
    def fails(folder: Path) -> dict[str, Any]:
        (folder / "a").write_bytes(b"half")
        raise BadInput("the source is gone")

    with pytest.raises(BadInput, match="the source is gone"):
        take({"x": 1}, fails, root=tmp_path)
    assert entries(tmp_path) == set()
    assert take({"x": 1}, Maker(), root=tmp_path).made, "no lock is left either"


def test_a_full_disk_is_its_own_cause(tmp_path: Path) -> None:
    def full(folder: Path) -> dict[str, Any]:
        (folder / "a").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFull, match="no space for the encoded data"):
        take({"x": 1}, full, root=tmp_path)
    assert entries(tmp_path) == set()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        take({"x": 1}, Maker(), root=tmp_path / "file")


def test_of_two_processes_one_makes_it_and_both_have_it(tmp_path: Path) -> None:
    root, gate = tmp_path / "root", tmp_path / "gate"
    with other(root, gate, "first") as first:
        assert line(first) == "making"
        with other(root, gate, "second") as second:
            assert line(second).startswith("another process makes")
            gate.touch()
            assert (line(first), line(second)) == ("got True first whole", "got False first whole")


def test_a_maker_that_is_killed_leaves_nothing_that_is_taken_up(tmp_path: Path) -> None:
    root, gate = tmp_path / "root", tmp_path / "gate"
    with other(root, gate, "first") as first:
        assert line(first) == "making"
        with other(root, gate, "second") as second:
            assert line(second).startswith("another process makes")
            first.send_signal(signal.SIGKILL)
            # The lock went with its holder: the one who waited makes it.
            assert line(second) == "making"
            second.send_signal(signal.SIGKILL)
    assert [n for n in entries(root) if n.startswith(".making-")]
    assert len(entries(root)) == 1
    gate.touch()
    with other(root, gate, "third") as third:
        assert (line(third), line(third)) == ("making", "got True third whole")
    assert len(entries(root)) == 1, "the torn one is swept away"


def test_what_others_left_unfinished_is_swept_but_not_what_they_are_making(tmp_path: Path) -> None:
    root, gate = tmp_path / "root", tmp_path / "gate"
    with other(root, gate, "first") as first:
        assert line(first) == "making"
        (making,) = entries(root)
        trim(root, 0)
        assert entries(root) == {making}
        gate.touch()
        assert line(first) == "got True first whole"
    (root / f".making-{'0' * 64}-1-aa").mkdir()
    trim(root, cache.LIMIT)
    assert len(entries(root)) == 1


def test_one_that_is_finished_but_not_yet_in_its_place_is_let_alone(tmp_path: Path) -> None:
    take({"x": 1}, Maker(), root=tmp_path).close()
    (key,) = entries(tmp_path)
    making = tmp_path / f".making-{key}-1-aa"
    (tmp_path / key).rename(making)
    with cache._Lock(tmp_path, key, "make") as lock:
        assert lock.take(fcntl.LOCK_EX)
        trim(tmp_path, 0)
        assert entries(tmp_path) == {making.name}
    trim(tmp_path, 0)
    assert entries(tmp_path) == set(), "its maker is gone"


def test_many_processes_that_make_and_remove_the_same_entries(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", CROWD, str(tmp_path / "root")]
    crowd = [
        subprocess.Popen([*arguments, str(seed)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for seed in (1, 2, 3)
    ]
    assert [p.communicate()[0] for p in crowd] == ["fine\n"] * 3
    assert not [n for n in entries(tmp_path / "root") if n.startswith(".")]


def test_those_used_longest_ago_go_first_and_those_in_use_never(tmp_path: Path) -> None:
    held = {}
    for x in range(4):
        held[x] = take({"x": x}, Maker(1000), root=tmp_path)
        os.utime(held[x].folder / "manifest.json", ns=(x * 10**9, x * 10**9))
    held[1].close()
    held[2].close()
    held[3].close()
    size = sum(p.stat().st_size for p in held[0].folder.iterdir())
    take({"x": 1}, Maker(), root=tmp_path).close()  # used now
    said = list[str]()
    trim(tmp_path, 3 * size + size // 2, said.append)
    assert entries(tmp_path) == {held[x].folder.name for x in (0, 1, 3)}, "0 is older than 2, and in use"
    assert len(said) == 1
    assert held[2].folder.name in said[0]
    last = take({"x": 9}, Maker(1000), root=tmp_path, limit=1)
    assert entries(tmp_path) == {held[0].folder.name, last.folder.name}
    assert (held[0].folder / "a").read_bytes() == b"a" * 1000
    held[0].close()
    last.close()
    trim(tmp_path, 1)
    assert entries(tmp_path) == set()


def test_another_process_that_uses_an_entry_keeps_it(tmp_path: Path) -> None:
    program = PROGRAM + "\nsys.stdin.read()\n"
    (tmp_path / "gate").touch()
    arguments = [sys.executable, "-c", program, str(tmp_path / "root"), str(tmp_path / "gate"), "user"]
    with subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert (line(user), line(user)) == ("making", "got True user whole")
        trim(tmp_path / "root", 0)
        assert len(entries(tmp_path / "root")) == 1
        user.communicate()
    trim(tmp_path / "root", 0)
    assert entries(tmp_path / "root") == set()


def test_the_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.default_root() == Path("/somewhere/lab/encoded")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/her")
    assert cache.default_root() == Path("/home/her/.cache/lab/encoded")
