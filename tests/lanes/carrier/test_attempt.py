"""A real attempt over the wire: sent, started, mirrored while it runs, sealed, fetched and harvested as on `local`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from core.digests import Digests
from core.fsio import read_json
from core.kindcode import look_at_kind
from core.rundir import latest_checkpoint, seal_checkpoint, verify_manifest
from core.states import AttemptState, Cause
from jobs.command import Command
from lanes.harvest import harvest
from lanes.transport import LinkDown
from tests.lanes.carrier.support import World, contents, entry
from tests.lanes.support import kill9
from tests.support import wait_for

PROGRAM = """
import json, os, sys, time
print("begins")
given = open("given.txt").read()
with open("given.txt", "a") as f:
    f.write("a program may write to its own copy")
for step in range(5):
    with open(os.environ["LAB_METRICS"], "a") as f:
        f.write(json.dumps({"step": step}) + "\\n")
    while step == 2 and not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    print("step", step, flush=True)
import helper
with open("environment.json", "w") as f:
    json.dump(dict(os.environ), f)
with open("out.txt", "w") as f:
    f.write(given.upper() + helper.WORD)
"""


@pytest.fixture
def kind_path(world: World) -> str:
    with Digests(None) as digests:
        snapshot = look_at_kind(Command(), digests, entry="jobs.command:Command")
    assert snapshot.store(world.home)
    return str(world.home.code / snapshot.ref.store)


def ordered(world: World, kind_path: str, job: int = 1, **changes: Any) -> dict[str, Any]:
    code = world.code({"main.py": PROGRAM, "helper.py": "WORD = 'code'\n"})
    given = world.file("given.txt", b"given ")
    return world.frozen(
        job,
        [sys.executable, "main.py", str(world.folder / "go")],
        kind_path=kind_path,
        code={"digest": "c", "path": code, "subdir": "", "root": "/head/project", "commit": "abc", "dirty": False},
        inputs=[entry(given, "given", "given.txt")],
        outputs=["out.txt", "environment.json"],
        **changes,
    )


def polled(world: World, job: int = 1) -> dict[str, Any]:
    """One frame, as the lane's listener gets it; the mirror is told."""
    frame = world.agent.poll({}, 0)
    world.carrier.saw(frame)
    return next(r for r in frame["reports"] if r["job"] == job)


def harvested(world: World, frozen: dict[str, Any]) -> Any:
    job = SimpleNamespace(id=frozen["job"], key=frozen["key"], kind="command")
    attempt = SimpleNamespace(n=frozen["attempt"], nonce=frozen["nonce"], lane="mini")
    return harvest(world.home, cast(Any, job), cast(Any, attempt))


def test_a_real_attempt_comes_back_as_on_local(world: World, kind_path: str) -> None:
    frozen = ordered(world, kind_path)
    answer = world.carrier.begin(world.order(frozen))
    assert answer["ok"], answer
    here, there = world.head_run(1), world.lane_run(1)
    # It runs, and is followed from the head.
    wait_for(lambda: polled(world)["phase"] == "running", "the attempt to run")
    wait_for(lambda: polled(world) and here.log.exists() and "step 1" in here.log.read_text(), "its log on the head")
    assert here.started.exists()
    assert not here.manifest.exists()
    # Halfway the head's process is replaced, and the link is cut for a while.
    world.new_carrier()
    world.wire.cut = lambda n, method: "before"
    (world.folder / "go").touch()
    wait_for(lambda: (r := polled(world))["sealed"] and r["clear"], "its seal")
    with pytest.raises(LinkDown):
        world.carrier.fetch(1, 1)
    world.wire.cut = lambda n, method: ""
    world.carrier.fetch(1, 1)
    assert verify_manifest(here) == []
    end = harvested(world, frozen)
    assert (end.state, end.cause, end.message) == (AttemptState.SUCCEEDED, Cause.OK, ""), here.log.read_text()
    assert end.undeclared == (), "the store's paths are declared ones"
    for name in ("artifacts", "results"):
        assert contents(here.path / name) == contents(there.path / name)
    for name in ("spec.json", "log.txt", "metrics.jsonl", "env.json", "manifest.json"):
        assert (here.path / name).read_bytes() == (there.path / name).read_bytes()
    assert (here.artifacts / "out.txt").read_text() == "GIVEN code"
    assert (world.folder / "data" / "given.txt").read_bytes() == b"given "
    assert (there.inputs / "given").stat().st_mode & 0o200, "its own copy, not the store's"
    assert world.carrier.forget(1, 1) == {"ok": True}
    wait_for(lambda: not there.log.exists(), "the run directory on the lane to go")
    assert world.agent.poll({}, 0)["reports"] == []
    check_environment(world, json.loads((here.artifacts / "environment.json").read_text()), read_json(here.env))


MAKES_PROGRAMS = """
import os
for place in ("tool", "kit/bin/large", os.path.join(os.environ["LAB_ARTIFACTS"], "kept")):
    os.makedirs(os.path.dirname(place) or ".", exist_ok=True)
    with open(place, "w") as f:
        f.write("#!/bin/sh\\necho it runs\\nexit 0\\n" + "#" * (len(place) > 10) * 100_000)
    os.chmod(place, 0o755)
with open("kit/notes.txt", "w") as f:
    f.write("no program")
os.chmod("kit/notes.txt", 0o644)
"""


def test_a_program_that_a_job_made_can_be_run_where_it_was_fetched(world: World, kind_path: str) -> None:
    """The run directory there is what a local lane has; the one here came over the wire."""
    from lab.fetching import _copy

    frozen = world.frozen(1, [sys.executable, "-c", MAKES_PROGRAMS], kind_path=kind_path, outputs=["tool", "kit"])
    assert world.carrier.begin(world.order(frozen))["ok"]
    wait_for(lambda: (r := polled(world))["sealed"] and r["clear"], "its seal")
    world.carrier.fetch(1, 1)
    assert harvested(world, frozen).cause is Cause.OK, world.head_run(1).log.read_text()
    sealed = read_json(world.head_run(1).manifest)["files"]
    for side, run in (("there", world.lane_run(1)), ("here", world.head_run(1))):
        target = world.folder / f"fetched-{side}"
        for name in ("tool", "kit/bin/large", "kept", "kit/notes.txt"):
            _copy(run.path, target, f"artifacts/{name}", sealed[f"artifacts/{name}"])
            got = target / "artifacts" / name
            if name == "kit/notes.txt":
                assert got.stat().st_mode & 0o111 == 0, side
            else:
                done = subprocess.run([got], capture_output=True, text=True, check=True)
                assert done.stdout == "it runs\n", (side, name)


def check_environment(world: World, seen: dict[str, str], env: dict[str, Any]) -> None:
    """Nothing of the head's is in what the program saw, or in what is recorded of it."""
    assert seen["PATH"].split(":")[0] == os.path.dirname(sys.executable)
    assert not any("/head/" in value or "headuser" in value for value in seen.values())
    assert "/head/" not in json.dumps({k: v for k, v in env.items() if k != "git"})
    assert env["git"]["root"] == "/head/project", "where the code was taken from is told for people"
    assert str(world.home.path) not in json.dumps({k: v for k, v in env.items() if k != "env"})
    for value in seen.values():
        assert str(world.home.path) not in value
    assert str(world.base) in env["kind_path"]


def test_a_harvest_that_was_tampered_with_is_no_success(world: World, kind_path: str) -> None:
    frozen = ordered(world, kind_path)
    (world.folder / "go").touch()
    assert world.carrier.begin(world.order(frozen))["ok"]
    wait_for(lambda: (r := polled(world))["sealed"] and r["clear"], "its seal")
    world.carrier.fetch(1, 1)
    (world.head_run(1).artifacts / "out.txt").write_text("forged")
    assert harvested(world, frozen).cause is Cause.BAD_SEAL
    other = {**frozen, "nonce": "another"}
    world.carrier.fetch(1, 1)
    assert "nonce" in harvested(world, other).message


def test_data_that_changed_on_the_lane_is_stale(world: World, kind_path: str) -> None:
    """An input that lies on the lane is not sent, and is compared with its digest before it is used."""
    for job, change, cause in ((1, False, Cause.OK), (2, True, Cause.STALE_INPUT)):
        place = world.folder / f"on-the-lane-{job}"
        place.mkdir()
        (place / "x").write_bytes(b"then")
        item = {**entry(place, "set"), "lane": "mini"}
        if change:
            (place / "x").write_bytes(b"now!")
        frozen = world.frozen(job, ["/bin/true"], kind_path=kind_path, inputs=[item])
        assert world.carrier.begin(world.order(frozen))["ok"]
        wait_for(lambda job=job: (r := polled(world, job))["sealed"] and r["clear"], "its seal")
        world.carrier.fetch(job, 1)
        assert harvested(world, frozen).cause is cause
    assert not any(args[0] == "inputs" for args in world.wire.named("put_chunk"))


def test_a_lost_attempt_leaves_its_log_and_is_forgotten_when_it_is_clear(world: World, kind_path: str) -> None:
    frozen = ordered(world, kind_path)
    assert world.carrier.begin(world.order(frozen))["ok"]
    here = world.head_run(1)
    wait_for(lambda: polled(world) and here.log.exists() and "step 1" in here.log.read_text(), "its log on the head")
    kept = world.lane_run(1).checkpoints / "1"
    kept.mkdir()
    (kept / "manifest.json").write_text("{}")
    assert world.agent.remove(1, 1)["ok"] is False, "it runs"
    assert world.lane_run(1).log.exists()
    kill9(int(read_json(here.started)["pid"]))
    wait_for(lambda: (r := polled(world))["phase"] == "lost" and r["clear"], "the attempt to be lost")
    assert world.carrier.forget(1, 1)["ok"]
    assert os.listdir(world.lane_run(1).path) == ["checkpoints"], "a next attempt may want them"
    assert world.carrier.tidy([1])["removed"] == []
    assert world.carrier.tidy([2])["removed"] == [[1, 1]]
    assert not world.lane_run(1).path.exists()
    assert "step 1" in here.log.read_text()


def test_tidying_passes_over_what_is_not_ours(world: World) -> None:
    """Somebody's notes, a tool's hidden folder, a job without attempts: the rest is removed all the same."""
    for job in (1, 2, 3, 40):
        world.known(world.frozen(job), {"log.txt": b"x\n"})
    place = world.root / "attempts"
    foreign = ["notes", ".snapshot", "007", "٣", "-1", "2/copy", "2/1.old", "0x1", "3 (copy)"]
    for name in foreign:
        (place / name / "1").mkdir(parents=True)
    (place / "10").write_text("a file\n")
    (place / "2" / "README").write_text("mine\n")
    (place / "5").mkdir()
    assert world.carrier.tidy([3])["removed"] == [[1, 1], [2, 1], [40, 1]]
    assert world.lane_run(3).log.exists(), "its job is open"
    assert not world.lane_run(1).path.exists()
    assert not world.lane_run(40).path.exists()
    assert all((place / name / "1").is_dir() for name in foreign)
    assert (place / "2" / "README").exists()
    assert world.carrier.tidy([])["removed"] == [[3, 1]]


# Checkpoints of earlier attempts.


def checkpoint(folder: Path, step: int, job: int = 1, attempt: int = 1) -> Path:
    tmp = folder / ".tmp"
    tmp.mkdir(parents=True)
    (tmp / "state").write_bytes(b"state %d" % step)
    seal_checkpoint(tmp, folder / str(step), step=step, key=f"key-{job}", attempt=attempt, meta={})
    return folder / str(step)


def second_attempt(world: World) -> dict[str, Any]:
    frozen = world.frozen(1, attempt=2, checkpoints=[str(world.head_run(1).checkpoints)])
    world.agent.start = lambda spec, run: {"ok": True, "spec": spec}  # type: ignore[method-assign]
    return cast(dict[str, Any], world.carrier.begin(world.order(frozen))["spec"])


def newest(spec: dict[str, Any]) -> int | None:
    found, _ = latest_checkpoint([Path(p) for p in spec["checkpoints"]], key="key-1")
    return found.step if found else None


def test_the_newest_checkpoint_of_another_lane_is_sent(world: World) -> None:
    for step in (3, 7):
        checkpoint(world.head_run(1).checkpoints, step)
    spec = second_attempt(world)
    assert newest(spec) == 7
    assert all(p.startswith(str(world.base)) for p in spec["checkpoints"])
    assert [os.listdir(p) for p in spec["checkpoints"]] == [["7"]], "only the newest one travels"


def test_a_damaged_checkpoint_is_not_sent_but_the_one_before_it(world: World) -> None:
    checkpoint(world.head_run(1).checkpoints, 3)
    (checkpoint(world.head_run(1).checkpoints, 7) / "state").write_bytes(b"damage!")
    assert newest(second_attempt(world)) == 3
    assert any("passed over" in s for s in world.said)


def test_what_the_lane_has_of_an_earlier_attempt_is_not_sent(world: World) -> None:
    checkpoint(world.head_run(1).checkpoints, 7)
    checkpoint(world.lane_run(1).checkpoints, 7)
    spec = second_attempt(world)
    assert spec["checkpoints"] == [str(world.lane_run(1).checkpoints)]
    assert newest(spec) == 7
    assert not any(args[0] == "checkpoints" for args in world.wire.named("begin"))


def test_a_newer_one_of_the_head_joins_an_older_one_of_the_lane(world: World) -> None:
    checkpoint(world.head_run(1).checkpoints, 8)
    checkpoint(world.lane_run(1).checkpoints, 7)
    (checkpoint(world.lane_run(1).checkpoints, 9) / "state").unlink()  # not whole: it does not count
    spec = second_attempt(world)
    assert newest(spec) == 8
    assert len(spec["checkpoints"]) == 2


def test_a_damaged_newest_one_does_not_have_an_older_one_sent(world: World) -> None:
    checkpoint(world.head_run(1).checkpoints, 5)
    (checkpoint(world.head_run(1).checkpoints, 9) / "state").write_bytes(b"damage!")
    checkpoint(world.lane_run(1).checkpoints, 7)
    assert newest(second_attempt(world)) == 7
    assert not any(args[0] == "checkpoints" for args in world.wire.named("begin"))


def test_a_first_attempt_asks_for_no_checkpoints(world: World) -> None:
    world.agent.start = lambda spec, run: {"ok": True, "spec": spec}  # type: ignore[method-assign]
    assert world.carrier.begin(world.order(world.frozen(1)))["spec"]["checkpoints"] == []
    assert world.wire.named("kept_checkpoints") == []
