"""Candidates are watched: a stale file is named whoever reads it from wherever, inline and in a lane."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import audit, launch, marks, opens
from core.errors import BadInput
from jobs.parity import watch
from jobs.parity.watch import Found, How, NotStarted, Place, Watched, mismatch, private_environment
from tests.jobs import stale
from tests.jobs.stale import PLACES, STALE, answer, put, readers, watched
from tests.lanes.support import REPO, Lane

kernel = pytest.mark.skipif(
    not opens.available(), reason=f"this kernel ({platform.release()}) cannot be asked at every open"
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a home and a temporary folder of its own; no supervisor."""
    for name in ("home", "tmpdir", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmpdir"))
    monkeypatch.delenv(marks.LOG, raising=False)
    return tmp_path


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Lane]:
    (tmp_path / "lane").mkdir()
    lane = Lane(tmp_path / "lane")
    yield lane
    lane.end()


def check(answers: dict[str, dict[str, Any]]) -> None:
    """What `stale.scenario` must say wherever the kernel can be asked."""
    assert {a["how"] for a in answers.values()} == {"kernel"}
    assert {a["note"] for a in answers.values()} == {"every open was seen by the kernel"}
    who = ["python", "cat", "orphan", *(["c"] if stale.compiler() else [])]
    for reader in who:
        for where, words in PLACES.items():
            said = answers[f"{reader} {where}"]
            words = words or said["undeclared"][0][1]
            assert said["code"] == 0, said
            assert said["undeclared"] == [[said["path"], words]], (reader, where)
            assert said["mismatch"] == f"it opened what was not declared: {said['path']} ({words})"
            assert said["left"] == []
            if where in ("parent", "home"):
                declared = answers[f"{reader} {where} declared"]
                assert (declared["code"], declared["undeclared"], declared["mismatch"]) == (0, [], "")
    assert [Path(f[0]).parent.name for f in answers["first of two"]["undeclared"]] == ["elsewhere"]
    assert answers["second of two"]["undeclared"] == []
    assert answers["second of two"]["left"] == ["kept.tmp"]


def check_programs(reasons: list[str]) -> None:
    assert reasons[0].startswith("it opened what was not declared: ")
    assert reasons[0].endswith(f"/with/{STALE} (a parent folder)")
    assert reasons[1] == ""


# The scenario.


@kernel
def test_a_stale_file_is_named_inline(root: Path) -> None:
    check(stale.scenario(root))
    check_programs(stale.programs(root))
    if not stale.compiler():
        pytest.skip("no C compiler: Python, cat and an orphan passed")


@kernel
def test_a_stale_file_is_named_in_a_lane(lane: Lane, tmp_path: Path) -> None:
    for name in ("home", "elsewhere"):
        (tmp_path / name).mkdir()
    code = "import sys, runpy; sys.path[:0] = [sys.argv[2]]; sys.argv[1:] = sys.argv[1:2]; "
    code += "runpy.run_module('tests.jobs.stale', run_name='__main__')"
    spec = lane.python(1, code, str(tmp_path), str(REPO), env={"HOME": str(tmp_path / "home")})
    outcome = lane.outcome(spec)
    assert (outcome["cause"], outcome["traced"]) == ("ok", "seccomp"), lane.log(1)
    answers = json.loads((tmp_path / "answers.json").read_text())
    check(answers)
    check_programs(json.loads((tmp_path / "programs.json").read_text()))
    alone = json.loads((tmp_path / "alone.json").read_text())
    assert alone["how"] == "hook"
    assert "the kernel allows no listener here (Device or resource busy)" in alone["note"]
    assert [f[0] for f in alone["undeclared"]] == [alone["path"]]
    # The attempt made those files itself, so only its candidates have something to tell.
    assert outcome["undeclared"] == []
    assert not (lane.run_dir(1).path / "tmp").exists()


def test_with_the_watch_off_the_stale_file_goes_unseen(root: Path) -> None:
    answers = stale.scenario(root, How.NONE)
    assert all(a["undeclared"] == [] and a["mismatch"] == "" for a in answers.values())
    assert {a["note"] for a in answers.values()} == {"not watched: it was switched off"}


def test_the_hook_sees_python_and_says_what_it_does_not(root: Path) -> None:
    answers = stale.scenario(root, How.HOOK)
    for where, words in PLACES.items():
        words = words or answers[f"python {where}"]["undeclared"][0][1]
        assert answers[f"python {where}"]["undeclared"] == [[answers[f"python {where}"]["path"], words]]
        assert answers[f"python {where}"]["how"] == "hook"
        assert "no compiled program's opens" in answers[f"python {where}"]["note"]
        assert answers[f"cat {where}"]["undeclared"] == []
        assert answers[f"cat {where}"]["how"] == "none"
        assert answers[f"cat {where}"]["note"].startswith("not watched: compiled programs are not seen here")
    assert answers["python home declared"]["undeclared"] == []


def test_without_a_listener_the_note_says_why(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opens, "available", lambda: False)
    said = answer(watched(root / "a", [*readers(root)["python"], "/etc/hostname"]))
    assert (said["how"], said["undeclared"]) == ("hook", [])
    assert said["note"].endswith("this machine's kernel cannot be asked at every open")
    with pytest.raises(NotStarted, match="cannot be seen: this machine's kernel"):
        watched(root / "b", ["/bin/true"], how=How.KERNEL)


@kernel
def test_a_listener_of_somebody_elses_is_met_with_the_hook(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: Any, answer: Any = None, **__: Any) -> launch.Started:
        if answer is not None:
            raise launch.FilterTaken("Device or resource busy")
        return real(*_, answer=answer, **__)

    real = launch.start
    monkeypatch.setattr(launch, "start", taken)
    said = answer(watched(root / "a", ["/bin/true"]))
    assert said["how"] == "none"
    assert "allows no listener here (Device or resource busy)" in said["note"]


@kernel
def test_a_supervisor_that_does_not_look_is_not_believed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable alone, left over from elsewhere, proves nothing: the program's own exec must be in the list."""
    monkeypatch.setenv(marks.LOG, str(root / "nobody-writes-here"))
    path, name = put(root, "elsewhere", Place.make(root / "a"))
    said = answer(watched(root / "a", ["/bin/cat", name], Place.make(root / "a")))
    assert (said["how"], [f[0] for f in said["undeclared"]]) == ("kernel", [str(path)])


@kernel
def test_a_list_that_was_lost_is_no_list(root: Path) -> None:
    candidate = watched(root / "a", ["/bin/true"])
    candidate.wait(60)
    (root / "a" / "opens.jsonl").write_bytes(b"")
    assert answer(candidate)["how"] == "none"
    assert "was lost" in candidate.seen().note


def test_hooks_in_an_attempt_with_hooks_tell_both(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = audit.install(root / "attempt")
    monkeypatch.setenv(audit.FILE, str(attempt))
    path, name = put(root, "elsewhere", Place.make(root / "a"))
    argv = [*readers(root)["python"], name]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(root / "attempt")}
    candidate = Watched(argv, Place.make(root / "a"), env=env, log=root / "log", how=How.HOOK, outputs=("image.bin",))
    assert candidate.wait(60) == 0
    assert [f.path for f in candidate.undeclared()] == [str(path)]  # and not the attempt's own hook
    assert f"r{path}\n" in attempt.read_text()


# Other ways in.


@kernel
@pytest.mark.parametrize("word", ["mv", "ln"])
def test_what_is_brought_in_without_being_opened_was_read(root: Path, word: str) -> None:
    path, name = put(root, "elsewhere", Place.make(root / "a"))
    candidate = watched(root / "a", [f"/bin/{word}", name, "image.bin"], Place.make(root / "a"))
    assert candidate.wait(60) == 0, candidate.tail()
    assert [f.path for f in candidate.undeclared()] == [str(path)]
    assert candidate.made(root / "a" / "work" / "image.bin") is False


@kernel
def test_what_it_made_itself_is_its_own(root: Path) -> None:
    script = (
        "mkdir d; echo a > d/x; mv d e; cat e/x; echo b > $TMPDIR/t; cat $TMPDIR/t; echo c > $HOME/h; cat $HOME/h;"
        " ln e/x y; cat y; mv y z; cat z; cat < /dev/null; cat /dev/stdin; echo im > image.bin; rm -r e z"
    )
    candidate = watched(root / "a", ["/bin/sh", "-c", script])
    assert candidate.wait(60) == 0, candidate.tail()
    assert (candidate.undeclared(), candidate.left()) == ((), ())
    assert candidate.made(root / "a" / "work" / "image.bin") is True


@kernel
@pytest.mark.parametrize(
    "attempt",
    [
        "os.open(stale, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_TRUNC)",
        "os.link('mine', stale)",
        "os.rename(stale + '/', 'mine/')",
    ],
)
def test_to_have_tried_to_make_a_file_is_not_to_have_made_it(root: Path, attempt: str) -> None:
    """A cache that could not be written anew, and is then read as it was."""
    stale, name = put(root, "elsewhere", Place.make(root / "a"))
    script = (
        "import contextlib, os, sys; stale = sys.argv[1]; open('mine', 'w').close()\n"
        f"with contextlib.suppress(OSError): {attempt}; sys.exit(3)\n"
        "open('image.bin', 'wb').write(open(stale, 'rb').read(4))"
    )
    candidate = watched(root / "a", [sys.executable, "-c", script, name], Place.make(root / "a"))
    assert candidate.wait(60) == 0, candidate.tail()
    assert [f.path for f in candidate.undeclared()] == [str(stale)]
    assert candidate.left() == ("mine",)


@kernel
def test_a_file_that_it_did_write_anew_is_its_own(root: Path) -> None:
    stale, name = put(root, "elsewhere", Place.make(root / "a"))
    script = 'echo a > "$1"; cat "$1"; echo b > new; mv new "$1"; cat "$1"; echo c > "$1"; cat "$1" > image.bin'
    candidate = watched(root / "a", ["/bin/sh", "-c", script, "sh", name], Place.make(root / "a"))
    assert candidate.wait(60) == 0, candidate.tail()
    assert (candidate.undeclared(), candidate.left()) == ((), (str(stale),))


@kernel
def test_what_it_left_elsewhere_is_told_by_its_path(root: Path) -> None:
    script = f"echo x > {root}/home/cache; echo x > ../beside; echo x > gone; rm gone; echo x > a.log"
    candidate = watched(root / "a", ["/bin/sh", "-c", script], outputs=("*.log",))
    assert candidate.wait(60) == 0
    assert candidate.left() == (str(root / "a" / "beside"), str(root / "home" / "cache"))


def test_a_changed_input_in_the_folder_was_left(root: Path) -> None:
    (root / "grid").write_text("old")
    place = Place.make(root / "a", {"sub/Fdump.bin": root / "grid"})
    candidate = watched(root / "a", ["/bin/sh", "-c", "cat sub/Fdump.bin; echo new >> sub/Fdump.bin"], place)
    assert candidate.wait(60) == 0
    assert (candidate.undeclared(), candidate.left()) == ((), ("sub/Fdump.bin",))
    assert (root / "grid").read_text() == "old"


def test_nothing_lives_after_the_end(root: Path) -> None:
    if not marks.possible():
        pytest.skip("processes can be marked on Linux only")
    script = "setsid env -i sleep 600 & (sleep 600 &); (true &); echo started"
    candidate = watched(root / "a", ["/bin/sh", "-c", script])
    candidate.wait(60)
    mark = candidate._mark
    assert len(marks.bearers(mark)) >= 2
    candidate.stop()
    assert marks.bearers(mark) == marks._marked(mark) == []  # no zombie either


# A Python side.


@kernel
def test_a_python_side_with_our_code_and_its_libraries_is_clean(root: Path) -> None:
    code = (
        "import numpy, scipy.ndimage, jobs.parity.exchange, core.fsio, kernels.metrics, importlib.metadata as m\n"
        "m.entry_points(group='lab.kinds'); m.version('numpy')\n"
        "import os; assert os.path.expanduser('~') == os.environ['HOME']; import tempfile; tempfile.TemporaryFile()\n"
        "open(os.path.join(os.environ['ANSWERS'], 'r.txt'), 'a').write('x')"
    )
    (root / "answers").mkdir()
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), "ANSWERS": str(root / "answers")}
    place = Place.make(root / "a")
    argv = [sys.executable, "-P", "-c", code]
    candidate = Watched(argv, place, env=env, log=root / "log", own=(root / "answers",), python=True)
    assert candidate.wait(60) == 0, candidate.tail()
    assert (candidate.undeclared(), candidate.left()) == ((), ())


@kernel
def test_code_is_declared_and_what_lies_beside_it_is_not(root: Path) -> None:
    package = root / "theirs" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import os; open(os.path.dirname(__file__) + '/Fdump.bin').read()")
    (package / "Fdump.bin").write_text("stale")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(root / "theirs")}
    argv = [sys.executable, "-P", "-c", "import package"]
    for number, code in enumerate([(root / "theirs",), ()]):
        base = root / str(number)
        candidate = Watched(argv, Place.make(base), env=env, log=base / "log", code=code, python=True)
        assert candidate.wait(60) == 0, candidate.tail()
        names = [Path(f.path).name for f in candidate.undeclared()]
        assert names == (["Fdump.bin"] if code else ["Fdump.bin", "__init__.py"])


@kernel
def test_a_cache_of_compiled_functions_is_no_code(root: Path) -> None:
    cache = root / "theirs" / "__pycache__" / "kernel.nbi"
    cache.parent.mkdir(parents=True)
    cache.write_text("stale")
    candidate = watched(root / "a", ["/bin/cat", str(cache)], code=(root / "theirs",))
    assert candidate.wait(60) == 0
    assert [f.path for f in candidate.undeclared()] == [str(cache)]


def test_caches_of_the_users_are_out_of_reach(root: Path) -> None:
    place = Place.make(root / "a")
    env = {"HOME": "/home/me", "KERAS_HOME": "/home/me/.keras", "NUMBA_CACHE_DIR": "/x", "PATH": "/bin", "TMP": "/t/t"}
    private = private_environment(env, place, python=False)
    assert not any(v.startswith(("/home/me", "/x", "/t/")) for v in private.values())
    assert (private["HOME"], private["TMPDIR"], private["PATH"]) == (str(place.home), str(place.tmp), "/bin")
    (root / "home" / STALE).write_text("stale")
    candidate = watched(root / "a", ["/bin/sh", "-c", f'cat "$HOME/{STALE}"'], place)
    assert candidate.wait(60) != 0  # not found in the first place


def test_the_folder_must_be_fresh(root: Path) -> None:
    place = Place.make(root / "a")
    (place.work / "x").write_text("")
    with pytest.raises(BadInput, match="is not empty"):
        Place.make(root / "a")
    with pytest.raises(BadInput, match="for the working folder"):
        Place.make(root / "b", {"../x": place.work / "x"})


def test_what_cannot_be_started(root: Path) -> None:
    with pytest.raises(NotStarted, match="there is no program no-such"):
        watched(root / "a", ["no-such"])
    (root / "text").write_bytes(b"\0\1\2not a program")
    (root / "text").chmod(0o755)
    with pytest.raises(NotStarted, match="neither a program of this machine nor a script"):
        watched(root / "b", [str(root / "text")])


def test_the_reason_names_a_few_and_counts_the_rest() -> None:
    found = [Found(f"/x/{i}", "elsewhere") for i in range(7)]
    assert mismatch(found).endswith("/x/4 (elsewhere) and 2 more")
    assert mismatch([]) == ""


def test_the_program_begins_as_any_other(root: Path) -> None:
    """Signals as by default, its own session, killed with the thread that started it, no descriptor of ours."""
    code = (
        "import os, signal; assert os.getsid(0) == os.getpid(); assert os.listdir('/proc/self/fd') == list('0123');"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler; print(os.getppid(), os.getcwd())"
    )
    candidate = watched(root / "a", [sys.executable, "-c", code])
    assert candidate.wait(60) == 0, candidate.tail()
    assert candidate.tail().split() == [str(os.getpid()), str(root / "a" / "work")]
    candidate = watched(root / "b", ["/bin/sh", "-c", "kill -PIPE $$"])
    assert candidate.wait(60) == -13


def test_the_list_of_places_is_what_the_words_say(root: Path) -> None:
    candidate = watched(root / "a", ["/bin/true"], how=How.NONE)
    candidate.stop()
    where = {p: candidate._where(str(root / p)) for p in ("a/work/x/y", "a/x", "home/x", "home/d/x", "tmpdir/d/x")}
    assert list(where.values()) == [
        "its working folder",
        "a parent folder",
        "the home folder",
        "the home folder",
        "the temporary folder",
    ]


def test_folders_below_the_systems_are_watched_all_the_same() -> None:
    assert watch._deep_parents(Path("/var/lib/somebody/runs")) == ["/var/lib/somebody/runs", "/var/lib/somebody"]


def test_marks_are_inherited_and_read_back() -> None:
    if not marks.possible():
        pytest.skip("processes can be marked on Linux only")
    mark = marks.new_mark()
    code = (
        f"import sys; sys.path.insert(0, {str(REPO)!r}); from core import marks; marks.take({mark})\n"
        "import subprocess; child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); input()"
    )
    pipe: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipe) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert marks.mark_of(child) == mark
        assert sorted(marks.bearers(mark)) == sorted([process.pid, child])
        assert marks.kill_bearers(mark) == []
    assert marks.mark_of(os.getpid()) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_list_with_a_hole_is_emptied(tmp_path: Path) -> None:
    """A line that is missing would look like a file that was not opened."""
    mark, listed = marks.new_mark(), marks.MarkedLog(tmp_path / "list")
    listed.tell(mark, "x", "/bin/true")
    assert marks.is_told(tmp_path / "list", mark)
    os.close(listed._fd)
    listed._fd = os.open("/dev/full", os.O_WRONLY)
    listed.tell(mark, "r", "/x")
    listed.tell(mark, "r", "/y")
    listed.close()
    assert (tmp_path / "list").read_bytes() == b""
