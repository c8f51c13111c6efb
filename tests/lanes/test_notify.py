"""The hook for news: a real program gets the right documents, and cannot hold up, flood or stop anything."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.cluster import Cluster, LaneConfig, load
from core.errors import BadInput
from core.home import Home
from core.journal import Journal, Role
from core.live import LiveWriter
from core.states import EventKind, JobState, LaneState
from lanes import notify, roster
from lanes.mirror import Mirror
from lanes.notify import Hook, News, run_hook
from lanes.roster import Roster
from lanes.start import controller_alive, ensure_controller, wake
from tests.lanes.cells import Submitter, grid, wait_end
from tests.support import end_all, kill, processes, tail, wait_for

import toysweep  # isort: skip

PROGRAM = """#!/bin/sh
# Keeps each document under the number of its process.
cat > "$1/.$$" && mv "$1/.$$" "$1/$$.json"
"""

# Hangs as long as a file is there when it begins, and says so.
HANGS_AT_FIRST = PROGRAM.replace("cat >", '[ -e "$1/hang" ] && touch "$1/$$.hangs" && exec sleep 600\ncat >', 1)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "told"
    folder.mkdir()
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return write(tmp_path / "notify.sh", PROGRAM)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def told(out: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted(out.glob("*.json"))]


def hung(out: Path) -> list[int]:
    return [int(p.stem) for p in out.glob("*.hangs")]


def document(**more: Any) -> dict[str, Any]:
    return {"schema": notify.SCHEMA, "event": "job-done", "id": 1, "home": "/nowhere", **more}


# One run of the program.


def test_it_gets_the_document(out: Path, program: Path, tmp_path: Path) -> None:
    sent = document(name="Größe \udce4"[:5])
    assert run_hook([str(program), str(out)], sent, tmp_path, limit_s=10) == ""
    assert told(out) == [sent]


def test_what_goes_wrong_is_one_line(tmp_path: Path) -> None:
    assert "does not start" in run_hook([str(tmp_path / "nothing")], document(), tmp_path, limit_s=10)
    fails = write(tmp_path / "fails", "#!/bin/sh\necho one >&2\necho two >&2\nexit 3\n")
    said = run_hook([str(fails)], document(), tmp_path, limit_s=10)
    assert "exit 3" in said
    assert "one | two" in said
    assert "\n" not in said


def test_one_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    text = f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path}/child\nsleep 600\n"
    hangs = write(tmp_path / "hangs", text)
    began = time.monotonic()
    assert "killed after 0.3 s" in run_hook([str(hangs)], document(), tmp_path, limit_s=0.3)
    assert time.monotonic() - began < 5
    child = int((tmp_path / "child").read_text())
    wait_for(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child), "its child to be gone")


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"


def test_one_that_talks_without_end_fills_nothing(tmp_path: Path) -> None:
    floods = write(tmp_path / "floods", "#!/bin/sh\nyes flood >&2\n")
    assert "killed after" in run_hook([str(floods)], document(), tmp_path, limit_s=0.5)
    ends = write(tmp_path / "ends", "#!/bin/sh\nyes flood | head -c 3000000 >&2\nexit 1\n")
    said = run_hook([str(ends)], document(), tmp_path, limit_s=20)
    assert "exit 1" in said
    assert len(said) < 800


def test_one_that_leaves_a_daemon_behind_is_not_waited_for(tmp_path: Path) -> None:
    leaves = write(tmp_path / "leaves", "#!/bin/sh\n(sleep 5) &\nexit 0\n")
    began = time.monotonic()
    assert run_hook([str(leaves)], document(), tmp_path, limit_s=20) == ""
    assert time.monotonic() - began < 3


def test_telling_never_waits_and_is_bounded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_WAITING", 4)
    hangs = write(tmp_path / "hangs", "#!/bin/sh\nsleep 600\n")
    hook = Hook([str(hangs)], tmp_path, limit_s=0.5)
    began = time.monotonic()
    for i in range(2000):
        hook.tell(document(id=i))
    assert time.monotonic() - began < 1
    assert "does not keep up" in capsys.readouterr().out
    began = time.monotonic()
    hook.finish()
    assert time.monotonic() - began < notify._FINISH_S + 2


# cluster.yaml.


def test_a_notify_that_is_no_program_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    for text in ("notify: []", "notify: send", "notify: [1, 2]", 'notify: [""]'):
        file.write_text(f"lanes:\n  local:\n{text}\n")
        with pytest.raises(BadInput, match=r"cluster.yaml:3: `notify`"):
            load(file)
    file.write_text("lanes:\n  local:\nnotify: [./send.sh, --quietly]\n")
    assert load(file).notify == ("./send.sh", "--quietly")


# With a controller.


@pytest.fixture
def hooked_home(tmp_path: Path, lab_home: Home) -> Iterator[Home]:
    """Hooks that still run when the controller is killed are nobody's: they are ended here."""
    home = Home(lab_home.path, tmp_path / "cluster.yaml")
    yield home
    end_all(home)  # who would start others
    for pid in (found := hooks(home)):
        kill(pid)
    wait_for(lambda: not hooks(home), f"the hooks to be gone: {found}")


def hooks(home: Home) -> list[int]:
    """Living processes that were started as a hook of this home, or by one."""
    mark, ours, found = f"LAB_HOME={home.path}".encode(), processes(home), set[int]()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    return sorted(found - ours.keys())


def test_jobs_and_sweeps_are_told_once_and_nothing_waits_for_hooks_that_hang(
    tmp_path: Path, out: Path, hooked_home: Home
) -> None:
    write(tmp_path / "notify.sh", HANGS_AT_FIRST)
    (out / "hang").touch()
    home = hooked_home
    assert home.cluster_file is not None
    home.cluster_file.write_text(f"lanes:\n  local:\nnotify: [./notify.sh, {out}]\n")
    home.create()
    pooled, plain = Submitter(home, toysweep.Toy()), Submitter(home, toysweep.Plain())
    early = [pooled.job({"i": i}) for i in range(notify.AT_ONCE + 1)]
    ensure_controller(home)
    wake(home)
    # As many as run at once hang; what is placed after that runs all the same.
    wait_for(lambda: len(hung(out)) >= notify.AT_ONCE, f"hooks that hang\n{tail(home)}")
    early += [pooled.sweep(grid(20, fail=[7])), plain.job({"i": 9})]
    assert [wait_end(home, j).state for j in early] == [JobState.SUCCEEDED] * 4 + [JobState.FAILED, JobState.SUCCEEDED]
    assert told(out) == []
    # Now they hang no more, and everything is told.
    (out / "hang").unlink()
    made = {
        "done": pooled.job({"i": 1}),
        "failed": pooled.job({"i": 2, "do": "fail"}),
        "plain": plain.job({"i": 3}),
        "fine": pooled.sweep(grid(5)),
        "bad": pooled.sweep(grid(30, fail=[2, 3, 4])),
        "plain-bad": plain.sweep(grid(2, fail=[0, 1])),
    }
    for which in made.values():
        wait_end(home, which)
    for pid in {*hung(out)} & {*hooks(home)}:
        kill(pid)
    late = {
        ("job-done", made["done"]),
        ("job-failed", made["failed"]),
        ("job-done", made["plain"]),
        ("sweep-finished", made["fine"]),
        ("sweep-failing", made["bad"]),
        ("sweep-finished", made["bad"]),
        ("sweep-failing", made["plain-bad"]),
        ("sweep-finished", made["plain-bad"]),
    }
    wait_for(lambda: late <= {(d["event"], d["id"]) for d in told(out)}, f"all to be told\n{tail(home)}")
    # One too many would have come by the end of the controller, which lets the hook finish what it has.
    with Journal.open(home, Role.CLIENT) as journal, journal.transaction() as tx:
        tx.append(EventKind.DOWN_ASKED, data={"kill": False})
    wake(home)
    wait_for(lambda: not controller_alive(home), f"the controller to go\n{tail(home)}")
    by = {(d["event"], d["id"]): d for d in told(out)}
    assert len(by) == len(told(out)), "nothing is told twice"
    assert {key for key in by if key[1] not in early} == late
    failed = by["job-failed", made["failed"]]
    assert (failed["schema"], failed["state"], failed["cause"]) == ("lab.notify/1", "failed", "error")
    assert "no luck with 2" in failed["reason"]
    bad = by["sweep-finished", made["bad"]]
    assert (bad["counts"], bad["reason"]) == ({"succeeded": 27, "failed": 3}, "3 of 30 cells failed")
    assert "no luck" in by["sweep-failing", made["bad"]]["reason"]
    assert by["job-done", made["plain"]]["lane"] == "local"
    assert by["sweep-finished", made["fine"]]["home"] == str(home.path)


# A lane that no longer answers.


def test_a_lane_is_lost_and_found(
    tmp_path: Path, out: Path, program: Path, lab_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab_home.create()
    cluster = Cluster((LaneConfig("local"),), None, (str(program), str(out)))
    with Journal.open(lab_home, Role.CONTROLLER, create=True) as journal:
        mirror = Mirror(lab_home, journal, cluster)
        news = News(lab_home, journal, cluster)
        mirror.listeners.append(news.hear)
        lanes = Roster(mirror, LiveWriter(lab_home), lambda _: None)
        lanes.declare()
        book = mirror.books["local"]
        book.state = LaneState.UP
        lanes.trouble("local", "timeout")
        assert book.state is LaneState.UP, "once is not lost"
        monkeypatch.setattr(roster, "_LOST_S", 0.0)
        lanes.trouble("local", "timeout")
        lanes.trouble("local", "timeout")
        assert book.state is LaneState.UNREACHABLE
        assert not book.view().open, "nothing is placed on it"
        lanes.answered("local")
        assert book.state is LaneState.UP
        wait_for(lambda: told(out), "a document")
        news.finish()
    assert [(d["event"], d["lane"], d["reason"], d["id"]) for d in told(out)] == [
        ("lane-lost", "local", "timeout", None)
    ]


def test_where_nobody_is_to_be_told_nothing_runs(lab_home: Home) -> None:
    lab_home.create()
    with Journal.open(lab_home, Role.CONTROLLER, create=True) as journal:
        news = News(lab_home, journal, Cluster((LaneConfig("local"),)))
        news.failing(1, 2)
        news.finish()
    assert os.path.exists(sys.executable)
