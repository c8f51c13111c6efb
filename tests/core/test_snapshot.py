"""Snapshots: what belongs to the code, stored once, whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import core.snapshot
from core.digests import Digests
from core.errors import BadInput
from core.fsio import walk_files
from core.home import Home
from core.snapshot import Snapshot, look_at_root


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "code"
    root.mkdir()
    (root / "train.py").write_text("print(1)\n")
    (root / "pkg").mkdir()
    (root / "pkg" / "a.py").write_text("A = 1\n")
    return root


def git(root: Path, *args: str) -> None:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, "-C", str(root), *args], check=True, capture_output=True, env=env)


def look(root: Path, **more: object) -> Snapshot:
    with Digests(None) as digests:
        return look_at_root(root, digests, **more)  # type: ignore[arg-type]


def names(snapshot: Snapshot) -> list[str]:
    return [e.name for e in snapshot.listing.entries]


def stored(home: Home, snapshot: Snapshot) -> list[str]:
    return [p.as_posix() for p in walk_files(home.code / snapshot.ref.store)]


def test_git_says_what_belongs_to_it(home: Home, root: Path) -> None:
    git(root, "init")
    (root / ".gitignore").write_text("*.bin\n")
    (root / "data.bin").write_bytes(b"x")
    (root / "gone.py").write_text("")
    git(root, "add", ".")
    git(root, "commit", "-m", "one")
    clean = look(root)
    assert (clean.ref.dirty, len(clean.ref.commit or "")) == (False, 40)
    (root / "gone.py").unlink()
    (root / "new – ü.py").write_text("")
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "train.cpython-311.pyc").write_bytes(b"")
    found = look(root)
    assert names(found) == [".gitignore", "new – ü.py", "pkg/a.py", "train.py"]
    assert found.ref.dirty
    assert found.store(home)
    assert sorted(stored(home, found)) == names(found)


def test_without_git_all_but_junk(home: Home, root: Path) -> None:
    for junk in (".venv/lib/x.py", "pkg/__pycache__/a.pyc", "node_modules/m.js", "x.egg-info/PKG-INFO", "a.py~"):
        (root / junk).parent.mkdir(parents=True, exist_ok=True)
        (root / junk).write_text("")
    found = look(root)
    assert names(found) == ["pkg/a.py", "train.py"]
    assert found.ref.commit is None


def test_a_home_inside_is_not_code(root: Path) -> None:
    home = Home(root / "state")
    home.create()
    (home.path / "journal.db").write_text("")
    assert names(look(root, home=home)) == ["pkg/a.py", "train.py"]
    git(root, "init")
    git(root, "add", "train.py", "pkg")
    git(root, "commit", "-m", "one")
    found = look(root, home=home)
    assert names(found) == ["pkg/a.py", "train.py"]
    assert not found.ref.dirty


def test_a_nested_repository_belongs_to_it(root: Path) -> None:
    git(root, "init")
    inner = root / "vendor"
    inner.mkdir()
    git(inner, "init")
    (inner / ".gitignore").write_text("skip\n")
    (inner / "lib.py").write_text("")
    (inner / "skip").write_text("")
    assert names(look(root)) == ["pkg/a.py", "train.py", "vendor/.gitignore", "vendor/lib.py"]


def test_variables_of_a_git_hook_do_not_mislead(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init")
    git(root, "init")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert names(look(root)) == ["pkg/a.py", "train.py"]


def test_the_digest_follows_names_bytes_and_the_executable_bit(root: Path) -> None:
    seen = {look(root).ref.digest}
    (root / "train.py").write_text("print(2)\n")
    seen.add(look(root).ref.digest)
    (root / "train.py").rename(root / "run.py")
    seen.add(look(root).ref.digest)
    (root / "run.py").chmod(0o755)
    seen.add(look(root).ref.digest)
    assert len(seen) == 4
    os.utime(root / "run.py", (1, 1))
    assert look(root).ref.digest in seen


def test_links(home: Home, root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    (root / "inside").symlink_to("train.py")
    (root / "absolute").symlink_to(root / "pkg" / "a.py")
    (root / "outside").symlink_to(secret)
    (root / "up").symlink_to("../secret")
    (root / "folder").symlink_to("pkg")
    (root / "loop").symlink_to("loop")
    found = look(root)
    assert found.store(home)
    place = home.code / found.ref.store
    assert (place / "inside").readlink() == Path("train.py")
    assert (place / "absolute").readlink() == Path("pkg/a.py")
    assert (place / "folder" / "a.py").read_text() == "A = 1\n"
    assert not (place / "outside").exists()
    assert not (place / "up").is_symlink()
    assert len([n for n in found.listing.left_out if "leads outside" in n]) == 2


def test_special_files_are_left_out(root: Path) -> None:
    os.mkfifo(root / "pipe")
    found = look(root)
    assert "pipe" not in names(found)
    assert "pipe is neither a file nor a link" in found.listing.left_out


def test_stored_once_and_mended_when_touched(home: Home, root: Path) -> None:
    found = look(root)
    assert found.store(home)
    inode = (home.code / found.ref.store / "train.py").stat().st_ino
    assert look(root).store(home)
    assert (home.code / found.ref.store / "train.py").stat().st_ino == inode
    (home.code / found.ref.store / "train.py").unlink()
    assert look(root).store(home)
    assert (home.code / found.ref.store / "train.py").read_text() == "print(1)\n"


def test_what_is_submitted_again_looks_young_to_retention(home: Home, root: Path) -> None:
    found = look(root)
    assert found.store(home)
    folder = home.code / found.ref.store
    os.utime(folder, (1000, 1000))
    look(root)  # looking alone is no use of it
    assert folder.stat().st_mtime == 1000
    assert found.store(home)
    assert folder.stat().st_mtime > 1_000_000
    assert sorted(stored(home, found)) == ["pkg/a.py", "train.py"]


def test_a_file_that_changes_meanwhile_is_noticed(home: Home, root: Path) -> None:
    found = look(root)
    (root / "train.py").write_text("print(2)\n")
    assert not found.store(home)
    (root / "train.py").unlink()
    assert not found.store(home)
    assert [p.name for p in home.code.iterdir()] == []


def test_two_at_once_store_one(home: Home, root: Path) -> None:
    for i in range(200):
        (root / f"m{i}.py").write_text(f"{i}")
    found = look(root)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: found.store(home), range(8)))
    assert [p.name for p in home.code.iterdir()] == [found.ref.store]


def test_too_large_names_the_folders(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.snapshot, "MAX_BYTES", 10 << 20)
    for i in range(7):
        (root / f"data{i}").mkdir()
        with (root / f"data{i}" / "x").open("wb") as f:
            f.truncate((i + 1) << 20)
    with pytest.raises(BadInput) as caught:
        look(root)
    message = str(caught.value)
    assert "data6/ 7 MB in 1 files, data5/ 6 MB in 1 files" in message
    assert "data1/" not in message
    assert "data2/" in message
    assert "--code" in message
    assert ".gitignore" in message


def test_too_many_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.snapshot, "MAX_FILES", 1)
    with pytest.raises(BadInput, match="2 files"):
        look(root)


def test_a_root_that_is_no_folder(root: Path) -> None:
    with pytest.raises(BadInput, match="not a folder"):
        look(root / "train.py")


def test_a_store_without_files(home: Home, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = look(tmp_path / "empty")
    assert found.store(home)
    assert (home.code / found.ref.store).is_dir()


def test_a_damaged_repository_is_said_so(root: Path) -> None:
    git(root, "init")
    shutil.rmtree(root / ".git" / "objects")
    (root / ".git" / "HEAD").write_text("nonsense")
    with pytest.raises(BadInput, match="git cannot list"):
        look(root)


@pytest.mark.parametrize("in_git", [False, True])
def test_declaring_a_lane_makes_no_result_stale(tmp_path: Path, root: Path, in_git: bool) -> None:
    """The cluster.yaml in use is left out; another of that name is code like everything else."""
    cluster = root / "cluster.yaml"
    cluster.write_text("lanes: {}\n")
    (root / "pkg" / "cluster.yaml").write_text("a: 1\n")
    if in_git:
        git(root, "init")
        git(root, "add", ".")
        git(root, "commit", "-m", "one")
    home = Home(tmp_path / "elsewhere", cluster)
    before = look(root, home=home)
    assert names(before) == ["pkg/a.py", "pkg/cluster.yaml", "train.py"]
    cluster.write_text("lanes: {mini: {}}\n")
    assert look(root, home=home).ref.store == before.ref.store
    (root / "pkg" / "cluster.yaml").write_text("a: 2\n")
    assert look(root, home=home).ref.store != before.ref.store
