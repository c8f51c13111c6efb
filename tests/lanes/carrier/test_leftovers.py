"""Old versions of the agent go from a lane, and none that anybody may be running from."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.fsio import write_json
from lanes.agent import SHIPPED, owner, procs
from tests.lanes.carrier.support import REPO, World
from tests.support import wait_for

DAY = 86400.0
OLD = [f"{n:016x}" for n in range(1, 7)]  # the first is the oldest
GOES, STAYS = OLD[:3], OLD[3:]
Popen = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def popen() -> Iterator[Popen]:
    made: list[subprocess.Popen[bytes]] = []

    def start(*args: Any, **named: Any) -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen(*args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **named))
        assert made[-1].stdout is not None
        made[-1].stdout.readline()  # it runs
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.communicate()


@pytest.fixture
def old(world: World) -> Path:
    """The folder of a lane that had many versions."""
    folder = world.base / "agent"
    for age, name in enumerate(reversed(OLD), start=2):
        (folder / name / "lanes").mkdir(parents=True)
        (folder / name / "lanes" / "__init__.py").write_text("")
        aged(folder / name, age)
    return folder


def aged(place: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(place, (then, then))


def tidied(world: World) -> list[str]:
    """Names of versions that are still there after a round of tidying."""
    world.carrier.tidy([])
    return sorted(os.listdir(world.base / "agent"))


def test_versions_that_nobody_uses_go_and_the_newest_stay(world: World, old: Path) -> None:
    foreign = [".hidden", "notes", "0" * 15, "0" * 17, "G" * 16]
    for name in foreign:
        (old / name).mkdir()
        aged(old / name, 100)
    assert tidied(world) == sorted([*STAYS, *foreign])
    assert [s for s in world.said if "versions of the agent" in s and all(n in s for n in GOES)] == world.said != []
    assert tidied(world) == sorted([*STAYS, *foreign])


def test_what_was_used_yesterday_stays(world: World, old: Path) -> None:
    """Many heads' worth of versions on one day: which of them runs next cannot be known."""
    for name in OLD:
        aged(old / name, 0.9)
    assert tidied(world) == OLD
    aged(old / OLD[0], 1.1)
    assert tidied(world) == OLD[1:]


@pytest.mark.parametrize("where", ["argv", "environ"])
def test_what_a_process_was_started_with_stays(world: World, old: Path, popen: Popen, where: str) -> None:
    place = str(old / OLD[1])
    argv = [sys.executable, "-c", "print(1, flush=True); input()"]
    more = {"env": {**os.environ, "SOME_PATH": f"/x:{place}"}} if where == "environ" else {}
    process = popen([*argv, *([] if more else [place])], **more)
    assert tidied(world) == [OLD[1], *STAYS]
    process.kill()
    process.wait()
    assert tidied(world) == STAYS


def test_the_code_of_an_attempt_that_still_runs_stays(world: World, tmp_path: Path) -> None:
    """Its supervisor was started by an agent that has been replaced since by a newer version."""
    code = world.base / "agent" / OLD[0]
    for name in SHIPPED:
        target = code / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (REPO / name).is_dir() else shutil.copy
        copy(REPO / name, target)
    frozen = world.frozen(1, ["/bin/sh", "-c", f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"])
    shutil.rmtree(frozen["kind_path"])
    frozen["kind_path"] = str(REPO)
    write_json(tmp_path / "spec.json", frozen)
    start = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from lanes.agent.agent import Agent\n"
        "agent = Agent(Path(sys.argv[2]), home_hash='test', socket_path=None)\n"
        "assert agent.start(json.loads(Path(sys.argv[3]).read_text()), sys.argv[4])['ok']"
    )
    run = world.lane_run(1)
    spec = str(tmp_path / "spec.json")
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", start, str(code), str(world.root), spec, str(run.path)], check=True
    )
    world.agent.adopt([(1, 1, str(run.path))])

    def report() -> dict[str, Any]:
        return next(r for r in world.agent.poll()["reports"] if r["job"] == 1)

    wait_for(lambda: report()["phase"] == "running", "the attempt to run")
    for age, name in enumerate(STAYS, start=2):
        (code.parent / name).mkdir()
        aged(code.parent / name, age)
    aged(code, 100)
    assert tidied(world) == [OLD[0], *STAYS]
    (tmp_path / "go").touch()
    wait_for(lambda: (r := report())["sealed"] and r["clear"], "the attempt to end")
    wait_for(lambda: tidied(world) == STAYS, "its code to go")


SERVES = """
import fcntl, json, os, sys
sys.path.insert(0, sys.argv[3])
from lanes.agent import procs
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
about = {"pid": os.getpid(), "ticks": procs.identify(os.getpid()).ticks, "boot": procs.boot_id()}
about.update(json.loads(sys.stdin.readline()))
os.pwrite(fd, json.dumps(about).encode(), 0)
print("held", flush=True)
sys.stdin.read()
"""


def serving(world: World, popen: Popen, lane: str, **about: Any) -> subprocess.Popen[bytes]:
    """Another process serves another lane below the same root."""
    lock = world.base / "heads" / world.home.hash / lane / owner.AGENT_LOCK
    lock.parent.mkdir(parents=True)
    told = world.folder / f"{lane}.json"
    told.write_text(json.dumps(about) + "\n")
    program = SERVES.replace("sys.stdin.readline()", "open(sys.argv[2]).read()")
    return popen([sys.executable, "-c", program, str(lock), str(told), str(REPO)])


def test_what_another_lane_is_served_with_stays(world: World, old: Path, popen: Popen) -> None:
    """The process that serves does not name its code when it is started: it came through stdin."""
    process = serving(world, popen, "other", code=OLD[2])
    assert tidied(world) == [OLD[2], *STAYS]
    process.kill()
    process.wait()
    assert tidied(world) == STAYS, "a record without a holder says nothing"


@pytest.mark.parametrize("about", [{}, {"code": OLD[2], "boot": "another"}, {"code": OLD[2], "pid": "x"}])
def test_nothing_goes_while_somebody_serves_who_does_not_say_from_what(
    world: World, old: Path, popen: Popen, about: dict[str, Any]
) -> None:
    process = serving(world, popen, "older", **about)
    assert tidied(world) == OLD
    assert "does not say" in world.leftovers.tidy_code()["why"]
    process.kill()
    process.wait()
    assert tidied(world) == STAYS


def test_where_processes_cannot_be_seen_everything_stays(
    world: World, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(procs, "PROC", str(world.folder / "none"))
        assert tidied(world) == OLD
    assert tidied(world) == STAYS


def test_half_sent_versions_go(world: World) -> None:
    folder = world.base / "agent"
    names = [f"{OLD[0]}.123.deadbeef.part", f"{OLD[0]}.123.deadbeef.part.old", ".gone-deadbeef"]
    for name in names:
        (folder / name / "core").mkdir(parents=True)
    assert tidied(world) == sorted(names), "somebody may be sending them"
    for name in names:
        aged(folder / name, 2)
    assert tidied(world) == []


def test_a_claim_says_which_code_it_runs(tmp_path: Path) -> None:
    held = owner.claim(tmp_path, home="a" * 12, head="me@here", lane="mini", take=False)
    lock = held.agent_root / owner.AGENT_LOCK
    assert json.loads(lock.read_text())["code"] == REPO.name
    with lock.open("rb") as f, pytest.raises(BlockingIOError):
        fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
    path = os.path.realpath(lock)
    for fd in os.listdir("/proc/self/fd"):
        if os.path.realpath(f"/proc/self/fd/{fd}") == path:
            os.close(int(fd))
