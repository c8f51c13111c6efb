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

from core import opens
from core.declared import Declared, source_of
from core.fsio import read_json
from tests.lanes.support import REPO, Lane, declared

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
        "mv {folder}/secret.txt here; cat here",
        "ln {folder}/secret.txt here; cat here",
        "mv {folder} there; cat there/secret.txt",
        "cat /dev/stdin < {folder}/secret.txt",
    ],
)
def test_all_ways_to_read(lane: Lane, secret: Path, script: str) -> None:
    outcome = lane.outcome(lane.spec(1, ["/bin/sh", "-c", script.format(folder=secret.parent)]))
    brought_as_a_folder = script.startswith("mv {folder} ")
    assert undeclared(outcome) == [str(secret.parent if brought_as_a_folder else secret)]


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
        "mv {folder}/secret.txt {folder}/moved; ln {folder}/moved {folder}/twice",
        "mkdir {folder}/d; echo new > {folder}/d/x; mv {folder}/d {folder}/e; cat {folder}/e/x",
        "cat /dev/stdin < /dev/null; echo x | cat /dev/stdin; cat /dev/fd/0 < /dev/null",
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
    lane.outcome(lane.python(1, code, str(REPO), str(tmp_path / "in")))
    assert "INNER ok audit" in lane.log(1)


@traces
def test_a_descriptor_that_only_names_a_file(lane: Lane, secret: Path) -> None:
    """O_PATH opens nothing, but what it names can be opened by its number."""
    code = "import os, sys; fd = os.open(sys.argv[1], os.O_PATH); open(f'/proc/self/fd/{fd}').read()"
    assert undeclared(lane.outcome(lane.python(1, code, str(secret)))) == [str(secret)]


@traces
def test_a_file_that_gets_its_first_name_is_its_own(lane: Lane, secret: Path) -> None:
    code = (
        "import ctypes, os, sys; fd = os.open(sys.argv[1], os.O_TMPFILE | os.O_RDWR); os.write(fd, b'x')\n"
        "name = os.fsencode(sys.argv[1]) + b'/named'; follow = 0x400\n"
        "assert ctypes.CDLL(None).linkat(-100, f'/proc/self/fd/{fd}'.encode(), -100, name, follow) == 0; open(name)"
    )
    assert undeclared(lane.outcome(lane.python(1, code, str(secret.parent)))) == []


@traces
def test_a_question_that_cannot_be_understood_is_answered(
    lane: Lane, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of ours must not hold a program up for ever; it is counted."""
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from core import launch, marks, opens; from core.declared import Declared; import pathlib, tempfile\n"
        "class Broken(Declared):\n"
        "    def known(self, path): raise KeyError(path)\n"
        "log = open('log', 'wb'); listed = marks.MarkedLog('marked')\n"
        "go = launch.start(['/bin/cat', sys.argv[2]], cwd=pathlib.Path('.'), env={}, log=log, mark=marks.new_mark(),\n"
        "                  answer=(Broken({}, ''), listed))\n"
        "print('CODE', go.process.wait()); go.tracer.finish(); print('BLIND', go.tracer.blind > 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(REPO), str(secret)],
        capture_output=True, text=True, timeout=60, cwd=secret.parent,
    )  # fmt: skip
    assert done.stdout == "CODE 0\nBLIND True\n", done.stderr


@traces
def test_opens_of_marked_processes_are_written_down_as_they_happen(lane: Lane, secret: Path) -> None:
    """Only theirs, and all of it is there when they have ended: whoever marked them can read it."""
    code = """
import os, pathlib, subprocess, sys
sys.path[:0] = [sys.argv[1]]
from core import marks
mark = marks.new_mark()
take = f"import sys; sys.path[:0] = [{sys.argv[1]!r}]; from core import marks; marks.take({mark}); "
read = "import os; os.execv('/bin/sh', ['sh', '-c', 'cat ' + sys.argv[1]])"
open(sys.argv[2]).close()
assert not os.path.exists(os.environ[marks.LOG]), "nobody was marked"
subprocess.run([sys.executable, "-c", take + read, sys.argv[2]], check=True)
rows = [r for r in marks._rows(os.environ[marks.LOG])]
print("ROWS", [r[1] for r in rows if r[2] == sys.argv[2]], {r[0] == mark for r in rows})
"""
    lane.outcome(lane.python(1, code, str(REPO), str(secret)))
    assert "ROWS ['r'] {True}" in lane.log(1)


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


def test_frames_that_train_encoded_may_be_read_but_not_by_a_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are checked byte by byte when they are taken up; what else lies in a cache is not."""
    home = tmp_path / "home"
    for name in (".cache/lab/encoded/entry/original.npy", ".cache/other/x.npy"):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text("x")
    monkeypatch.setenv("HOME", str(home))
    for rules, found in (
        (Declared({}, str(tmp_path / "run")), [".cache/other/x.npy"]),
        (narrow(tmp_path), [".cache/lab/encoded/entry/original.npy", ".cache/other/x.npy"]),
    ):
        for name in (".cache/lab/encoded/entry/original.npy", ".cache/other/x.npy"):
            rules.read(str(home / name))
        assert rules.undeclared() == [str(home / name) for name in found]


def narrow(tmp_path: Path) -> Declared:
    """The rules of one candidate: its folder is its own to write to, its code is code."""
    for name in ("work", "code", "home"):
        (tmp_path / name).mkdir(exist_ok=True)
    places = {"own": [str(tmp_path / "work")], "code": [str(tmp_path / "code")]}
    return Declared({}, "", extra=[str(tmp_path / "input")], never=[str(tmp_path)], **places)


def test_a_candidate_may_not_read_what_it_finds_in_its_own_folder(tmp_path: Path) -> None:
    rules = narrow(tmp_path)
    for name in ("work/found", "input", "code/a.py", "code/a.so", "code/Fdump.bin", "code/a.nbi", "home/x"):
        (tmp_path / name).write_text("x")
        rules.read(str(tmp_path / name))
    rules.made(str(tmp_path / "work" / "made"))
    (tmp_path / "work" / "made").write_text("x")
    rules.read(str(tmp_path / "work" / "made"))
    names = [os.path.relpath(p, tmp_path) for p in rules.undeclared()]
    assert names == ["code/Fdump.bin", "code/a.nbi", "home/x", "work/found"]


def test_names_are_followed(tmp_path: Path) -> None:
    rules = narrow(tmp_path)
    at = {name: str(tmp_path / name) for name in ("work/a", "work/b", "work/d", "work/e", "home/old", "work/new")}
    rules.made(at["work/a"])
    rules.renamed(at["work/a"], at["work/b"])
    rules.made(at["work/d"] + "/x")
    rules.renamed(at["work/d"], at["work/e"], folder=True)
    assert {at["work/b"], at["work/e"] + "/x"} <= set(rules.created())
    assert rules.undeclared() == []
    rules.renamed(at["home/old"], at["work/new"])  # brought in
    rules.renamed(str(tmp_path / "home/other"), str(tmp_path / "home/elsewhere"))  # no business of its folder's
    assert rules.undeclared() == [at["home/old"]]


@pytest.mark.parametrize(
    ("path", "source"),
    [("__pycache__/m.cpython-311.pyc", "m.py"), ("__pycache__/m.cpython-311.opt-1.pyc", "m.py"), ("m.pyc", "m.pyc")],
)
def test_bytecode_is_named_by_its_source(tmp_path: Path, path: str, source: str) -> None:
    (tmp_path / "m.py").write_text("")
    assert source_of(str(tmp_path / path)) == str(tmp_path / source)
