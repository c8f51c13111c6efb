"""Undeclared reads: seen in any program, at any depth, and none invented."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.fsio import read_json
from lanes.agent import opens
from lanes.agent.declared import Declared, source_of
from tests.lanes.support import Lane, declared

traces = pytest.mark.skipif(
    not opens.available(), reason=f"this kernel ({platform.release()}) cannot ask at every open"
)
BOTH = [pytest.param("auto", marks=traces), "audit"]


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Lane]:
    (tmp_path / "lane").mkdir()
    lane = Lane(tmp_path / "lane")
    yield lane
    lane.end()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "secret.txt"
    path.parent.mkdir()
    path.write_text("s3cret\n")
    return path


def undeclared(outcome: dict[str, Any]) -> list[str]:
    assert outcome["cause"] == "ok", outcome
    found: list[str] = outcome["undeclared"]
    return found


@traces
def test_a_program_that_is_not_python(lane: Lane, secret: Path) -> None:
    outcome = lane.outcome(lane.spec(1, ["cat", str(secret)]))
    assert undeclared(outcome) == [str(secret)]
    assert outcome["traced"] == "seccomp"
    assert "s3cret" in lane.log(1)
    assert read_json(lane.run_dir(1).opens)["undeclared"] == [str(secret)]


@traces
def test_a_declared_input_is_none(lane: Lane, secret: Path) -> None:
    for job, path in ((1, "$LAB_INPUTS/data"), (2, str(secret))):
        spec = lane.spec(job, ["/bin/sh", "-c", f"cat {path}"], inputs=[declared(secret)])
        assert undeclared(lane.outcome(spec)) == []
    spec = lane.spec(3, ["cat", str(secret)], allow_undeclared=[str(secret.parent)])
    assert undeclared(lane.outcome(spec)) == []
    # A place is a folder, not the beginning of a name.
    spec = lane.spec(4, ["cat", str(secret)], allow_undeclared=[str(secret.parent)[:-1]])
    assert undeclared(lane.outcome(spec)) == [str(secret)]


@pytest.mark.parametrize("how", BOTH)
def test_python_and_its_grandchildren(lane: Lane, secret: Path, how: str) -> None:
    read = "import sys; open(sys.argv[1]).read()"
    assert undeclared(lane.outcome(lane.python(1, read, str(secret), trace=how))) == [str(secret)]
    deep = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]], check=True)"
    outcome = lane.outcome(lane.python(2, deep, read, str(secret), trace=how))
    assert undeclared(outcome) == [str(secret)]
    assert outcome["traced"] == {"auto": "seccomp", "audit": "audit"}[how]


@traces
@pytest.mark.parametrize(
    "script",
    [
        "cd {folder}; cat secret.txt",
        "cat {folder}/../elsewhere/secret.txt",
        "ln -s {folder}/secret.txt here; cat here",
        "setsid sh -c 'cat {folder}/secret.txt'",
        "env -i /bin/cat {folder}/secret.txt",
        ". {folder}/secret.txt 2>/dev/null || true",
        "cp {folder}/secret.txt $TMPDIR/copy",
        "cat < {folder}/secret.txt",
        "sleep 0.3 & cat {folder}/secret.txt; wait",
    ],
)
def test_all_ways_to_read(lane: Lane, secret: Path, script: str) -> None:
    outcome = lane.outcome(lane.spec(1, ["/bin/sh", "-c", script.format(folder=secret.parent)]))
    assert undeclared(outcome) == [str(secret)]


@traces
@pytest.mark.parametrize(
    "script",
    [
        "ls -l {folder}; stat {folder}/secret.txt; test -r {folder}/secret.txt; find {folder}",
        "cat {folder}/nothing-here || true",
        "echo new > {folder}/made; cat {folder}/made; mv {folder}/made {folder}/moved; cat {folder}/moved",
        "echo over > {folder}/secret.txt; cat {folder}/secret.txt",
        "echo more >> {folder}/secret.txt",
        "cat /etc/hostname /proc/self/status /usr/bin/env > /dev/null; cat /proc/self/maps > /dev/null",
        "echo x > $TMPDIR/own; cat $TMPDIR/own; echo y > work; cat work; cat < /dev/null",
    ],
)
def test_what_is_no_read_of_anything_undeclared(lane: Lane, secret: Path, script: str) -> None:
    outcome = lane.outcome(lane.spec(1, ["/bin/sh", "-c", script.format(folder=secret.parent)]))
    assert undeclared(outcome) == []


@traces
def test_a_file_read_and_then_written_was_read(lane: Lane, secret: Path) -> None:
    script = f"cat {secret}; echo over > {secret}; cat {secret}"
    assert undeclared(lane.outcome(lane.spec(1, ["/bin/sh", "-c", script]))) == [str(secret)]


@traces
def test_a_database_opened_for_both_was_read(lane: Lane, tmp_path: Path) -> None:
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('CREATE TABLE IF NOT EXISTS t (x)')"
    path = tmp_path / "db.sqlite"
    assert undeclared(lane.outcome(lane.python(1, code, str(path)))) == []  # it made it
    assert undeclared(lane.outcome(lane.python(2, code, str(path)))) == [str(path)]  # it found it


@traces
def test_programs_from_anywhere_are_named(lane: Lane, tmp_path: Path) -> None:
    tool = tmp_path / "elsewhere" / "tool"
    tool.parent.mkdir()
    shutil.copy("/bin/true", tool)
    assert undeclared(lane.outcome(lane.spec(1, [str(tool)]))) == [str(tool)]


@pytest.mark.parametrize("how", BOTH)
def test_modules_from_anywhere_are_named_by_their_source(lane: Lane, tmp_path: Path, how: str) -> None:
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "helper.py").write_text("x = 1\n")
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import helper"
    for job in (1, 2):  # from its source, then from its bytecode
        assert undeclared(lane.outcome(lane.python(job, code, trace=how))) == [str(folder / "helper.py")]


@pytest.mark.parametrize("how", BOTH)
def test_the_interpreters_own_world_is_no_news(lane: Lane, how: str) -> None:
    code = "import json, ssl, sqlite3, ctypes, multiprocessing, pydantic, numpy"
    assert undeclared(lane.outcome(lane.python(1, code, trace=how))) == []


def test_a_virtual_environment_of_the_users_own(lane: Lane, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "project" / ".venv")], check=True)
    python = tmp_path / "project" / ".venv" / "bin" / "python"
    site = next((tmp_path / "project" / ".venv").glob("lib/python*/site-packages"))
    (site / "theirs.py").write_text("x = 1\n")
    (tmp_path / "project" / "settings.txt").write_text("x")
    code = "import theirs, sys; len(sys.argv) > 1 and open(sys.argv[1]).read()"
    outcome = lane.outcome(lane.spec(1, [str(python), "-c", code]))
    assert undeclared(outcome) == []
    # What lies beside the environment is not part of it.
    outcome = lane.outcome(lane.spec(2, [str(python), "-c", code, str(tmp_path / "project" / "settings.txt")]))
    assert undeclared(outcome) == [str(tmp_path / "project" / "settings.txt")]


@traces
def test_caches_and_settings_are_not_allowed_silently(lane: Lane, tmp_path: Path) -> None:
    cache = tmp_path / "home" / ".cache" / "thing"
    cache.parent.mkdir(parents=True)
    cache.write_text("old")
    code = "import os; print(open(os.path.expanduser('~/.cache/thing')).read())"
    outcome = lane.outcome(lane.python(1, code, env={"HOME": str(tmp_path / "home")}))
    assert undeclared(outcome) == [str(cache)]


@traces
def test_shared_memory_of_others_is_no_system_file(lane: Lane) -> None:
    name = f"lab-test-{os.getpid()}"
    path = Path("/dev/shm") / name
    path.write_text("x")
    try:
        assert undeclared(lane.outcome(lane.spec(1, ["cat", str(path)]))) == [str(path)]
    finally:
        path.unlink()
    own = (
        "from multiprocessing.shared_memory import SharedMemory as S\n"
        "a = S(create=True, size=10); b = S(name=a.name); b.close(); a.close(); a.unlink()"
    )
    assert undeclared(lane.outcome(lane.python(2, own))) == []


def test_no_tracing_is_said(lane: Lane, secret: Path) -> None:
    outcome = lane.outcome(lane.spec(1, ["cat", str(secret)], trace="none"))
    assert (outcome["traced"], outcome["undeclared"]) == ("none", [])


@traces
def test_a_job_inside_a_job_falls_back(lane: Lane, tmp_path: Path) -> None:
    """One listener per process tree: the inner supervisor says `audit`, and its attempt runs."""
    code = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(":")
from tests.lanes.support import Lane
Path(sys.argv[2]).mkdir()
lane = Lane(Path(sys.argv[2]))
try:
    outcome = lane.outcome(lane.python(1, "print('inner')"))
    print("INNER", outcome["cause"], outcome["traced"])
finally:
    lane.end()
"""
    from tests.lanes.support import REPO

    lane.outcome(lane.python(1, code, str(REPO), str(tmp_path / "in")))
    assert "INNER ok audit" in lane.log(1)


@traces
def test_many_threads_and_processes_at_once(lane: Lane, secret: Path) -> None:
    code = """
import sys, threading, multiprocessing
def work():
    for i in range(300):
        open("/etc/hostname").close()
        open(sys.argv[1]).close()
def many():
    ts = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in ts]
    [t.join() for t in ts]
if __name__ == "__main__":
    ps = [multiprocessing.get_context("fork").Process(target=many) for _ in range(3)]
    [p.start() for p in ps]
    [p.join() for p in ps]
    sys.exit(any(p.exitcode for p in ps))
"""
    outcome = lane.outcome(lane.python(1, code, str(secret)))
    assert undeclared(outcome) == [str(secret)]
    assert read_json(lane.run_dir(1).opens)["unread_calls"] == 0


# The rules, without processes.


def test_prefixes_are_never_as_broad_as_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    (home / "lib" / "python3.11").mkdir(parents=True)
    for name in ("bin/python3", "lib/python3.11/os.py", "notes.txt"):
        (home / name).write_text("x")
    (home / "bin" / "python3").chmod(0o755)
    monkeypatch.setenv("HOME", str(home))
    rules = Declared({"python": str(home / "bin" / "python3")}, str(tmp_path / "run"))
    rules.read(str(home / "lib" / "python3.11" / "os.py"))
    rules.read(str(home / "notes.txt"))
    assert rules.undeclared() == [str(home / "bin" / "python3"), str(home / "notes.txt")]


@pytest.mark.parametrize(
    ("path", "source"),
    [("__pycache__/m.cpython-311.pyc", "m.py"), ("__pycache__/m.cpython-311.opt-1.pyc", "m.py"), ("m.pyc", "m.pyc")],
)
def test_bytecode_is_named_by_its_source(tmp_path: Path, path: str, source: str) -> None:
    (tmp_path / "m.py").write_text("")
    assert source_of(str(tmp_path / path)) == str(tmp_path / source)
