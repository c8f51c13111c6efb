"""On a full disk environments go that nobody needs, and none of which that is not shown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.fsio import write_json
from lanes.agent import procs
from lanes.agent.envmake import MARKER
from lanes.agent.envtrim import TOLD
from lanes.environment.which import remember
from tests.lanes.carrier.support import World, entry

OLD, NEW = "a" * 20, "b" * 20
SIZE = 100_000
DAY = 86400.0


@pytest.fixture
def env(world: World) -> Path:
    """Two environments of a lane: what was made last is told by the head, the older one is not."""
    for days, name in ((30, OLD), (20, NEW)):
        place = world.base / "env" / name
        (place / "bin").mkdir(parents=True)
        (place / "bin" / "python").symlink_to(sys.executable)
        (place / "big").write_bytes(bytes(SIZE))
        (place / MARKER).write_text(json.dumps({"digest": name}))
        aged(place, days)
    owned(world, "mini")
    made(world, NEW)
    world.carrier.tidy([])
    return world.base / "env"


def aged(place: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(place / MARKER, (then, then))


def owned(world: World, *lanes: str) -> None:
    write_json(world.base / "owner.json", {"home": world.home.hash, "lanes": dict.fromkeys(lanes, 1)})


def made(world: World, name: str) -> None:
    python = str(world.base / "env" / name / "bin" / "python")
    remember(world.home, "mini", {"python": python, "made": True, "named": None})


def trimmed(world: World, size: int = 1 << 40) -> list[str]:
    """Names of environments that are there after room was to be made."""
    world.store.trim(size)
    return sorted(os.listdir(world.base / "env"))


def test_what_nobody_needs_goes(world: World, env: Path) -> None:
    answer = world.store.trim(1 << 40)
    assert answer["dropped"] == [["env", OLD]]
    assert answer["freed"] >= SIZE
    assert os.listdir(env) == [NEW]
    assert trimmed(world) == [NEW]


def test_it_goes_last(world: World, env: Path) -> None:
    """An input that is not used is sent again in less time than an environment is made."""
    given = world.file("given.bin", os.urandom(5000))
    world.agent.start = lambda spec, run: {"ok": True}  # type: ignore[method-assign]
    assert world.carrier.begin(world.order(world.frozen(1, inputs=[entry(given)])))["ok"]
    world.long_ago()
    assert trimmed(world, 5000) == [OLD, NEW]
    assert os.listdir(world.base / "store" / "inputs") == []
    assert trimmed(world, 5000) == [NEW]


def told_by_another_lane(world: World) -> None:
    owned(world, "mini", "other")
    (world.root.parent / "other").mkdir()
    write_json(
        world.base / "heads" / world.home.hash / "other" / TOLD,
        {"pythons": {str(world.base / "env" / OLD / "bin" / "python"): 1.0}},
    )


def told(world: World) -> None:
    made(world, OLD)
    world.carrier.tidy([])


def another_lane_is_silent(world: World) -> None:
    owned(world, "mini", "other")


def nobody_owns_it(world: World) -> None:
    (world.base / "owner.json").unlink()


def fresh(world: World) -> None:
    aged(world.base / "env" / OLD, 0.9)


def asked_for(world: World) -> None:
    assert world.environments.env_have(OLD) is not None


def in_use(world: World) -> None:
    """By an attempt that the head ordered before it had the other one made."""
    world.known(world.frozen(1, python=str(world.base / "env" / OLD / "bin" / "python")))
    world.agent.adopt([(1, 1, str(world.lane_run(1).path))])


def of_a_crew(world: World) -> None:
    write_json(world.root / "crews" / "c" / "setup.json", {"python": str(world.base / "env" / OLD / "bin" / "python")})


@pytest.mark.parametrize(
    "why",
    [told, told_by_another_lane, another_lane_is_silent, nobody_owns_it, fresh, asked_for, in_use, of_a_crew],
    ids=lambda why: why.__name__,
)
def test_what_may_be_needed_stays(world: World, env: Path, why: Callable[[World], None]) -> None:
    (world.root / "crews" / "c").mkdir(parents=True)
    why(world)
    assert trimmed(world) == [OLD, NEW]


@pytest.mark.parametrize("how", ["started", "stands behind a word"])
def test_what_a_process_runs_from_stays(world: World, env: Path, how: str) -> None:
    python = str(env / OLD / "bin" / "python") if how == "started" else sys.executable
    more = [] if how == "started" else [str(env / OLD / "lib")]
    process = subprocess.Popen(
        [python, "-c", "print(1, flush=True); input()", *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert trimmed(world) == [OLD, NEW]
    finally:
        process.kill()
        process.communicate()
    assert trimmed(world) == [NEW]


def test_what_a_process_has_loaded_from_stays(world: World, env: Path) -> None:
    """A program may have cleared its words and its environment: a compiled module that it uses is seen still."""
    import mmap

    with (env / OLD / "big").open("rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ):
        assert trimmed(world) == [OLD, NEW]
    assert trimmed(world) == [NEW]


def test_where_processes_cannot_be_seen_it_stays(world: World, env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(procs, "PROC", str(world.folder / "none"))
        assert trimmed(world) == [OLD, NEW]
    assert trimmed(world) == [NEW]


def test_an_order_keeps_its_environment_while_its_data_is_sent(
    world: World, env: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload itself makes room; what it is sent for starts with an interpreter that was named long ago."""
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 64 << 20))
    given = world.file("given.bin", os.urandom(5000))
    order: dict[str, Any] = world.order(world.frozen(1, inputs=[entry(given)]))
    order["lane_python"] = str(env / OLD / "bin" / "python")
    assert world.carrier.begin(order)["cause"] == "disk-full"
    assert world.wire.named("trim")
    assert sorted(os.listdir(env)) == [OLD, NEW]
    # After a week it is named no more.
    note = world.root / TOLD
    about = json.loads(note.read_text())
    note.write_text(json.dumps({"pythons": {p: at - 8 * DAY for p, at in about["pythons"].items()}}))
    world.new_carrier().tidy([])
    assert trimmed(world) == [NEW]
