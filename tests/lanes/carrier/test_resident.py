"""Data that lies on a lane, hashed there as the head would; and what a submit is told about large uploads."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from core.digests import Digests
from lanes.agent import hashing, setup
from lanes.agent import store as store_module
from lanes.carrier import data, largest, weigh
from tests.lanes.carrier.support import World


class Access:
    name = "mini"

    def __init__(self, world: World) -> None:
        self._world = world

    def call(self, method: str, *args: Any, timeout_s: float = 60, **named: Any) -> Any:
        return self._world.wire.call(method, *args, **named)


def test_a_lane_path_has_the_digest_that_the_head_would_give_it(world: World) -> None:
    world.file("set/a", os.urandom(3000))
    world.file("set/deep/b", b"b")
    folder = world.folder / "data" / "set"
    (folder / "l").symlink_to("deep")
    (folder / "f").symlink_to("a")
    for path in (folder, folder / "a"):
        with Digests(None) as digests:
            here = digests.of(path)
        answer = data(Access(world), {"path": str(path)})
        assert answer["ok"], answer
        found = answer["data"]
        assert (found["sha256"], found["size"], found["tree"]) == (here.sha256, here.size, here.tree)
        assert setup.hash_path(path) == found["sha256"], "and setup finds the same"
        assert found["sha256"][:12] in answer["message"]


def test_changed_data_has_another_digest_and_signature(world: World) -> None:
    path = world.file("big.bin", bytes(2 << 20))
    first = data(Access(world), {"path": str(path)})["data"]
    with path.open("r+b") as f:
        f.write(b"1")
    os.utime(path, ns=(1, 1))
    second = data(Access(world), {"path": str(path)})["data"]
    assert first["sha256"] != second["sha256"]
    assert first["signature"] != second["signature"]


@pytest.mark.parametrize(
    ("path", "what"),
    [("/nowhere/at/all", "is not there"), ("relative", "absolute"), ("", "absolute"), ("/dev/null", "neither")],
)
def test_bad_paths_are_answered_with_a_sentence(world: World, path: str, what: str) -> None:
    answer = data(Access(world), {"path": path})
    assert not answer["ok"]
    assert what in answer["message"]
    assert answer["hint"]


def test_long_hashing_is_asked_for_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "WAIT_S", 0.0)
    path = world.file("big.bin", os.urandom(24 << 20))
    states = []
    world.wire.mangle = lambda method, args, answer: (states.append(answer), answer)[1]
    answer = data(Access(world), {"path": str(path)})
    assert answer["data"]["size"] == 24 << 20
    assert states[0]["state"] == "working"
    assert states[-1]["state"] == "done"
    assert all(0 <= s["done"] <= 24 << 20 for s in states[:-1])


def test_a_settled_large_file_is_hashed_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = world.file("big.bin", os.urandom(2 << 20))
    hashed: list[Path] = []
    real = hashing.sha256_of
    monkeypatch.setattr(hashing, "sha256_of", lambda p, *more: (hashed.append(p), real(p, *more))[1])
    now = time.time()
    for number, (clock, times) in enumerate([(now, 1), (now, 2), (now + 60, 3), (now + 60, 3)]):
        monkeypatch.setattr(hashing.time, "time", lambda clock=clock: clock)
        assert data(Access(world), {"path": str(path)})["ok"]
        assert len(hashed) == times, f"look {number}: young files are not remembered, others are"
    with path.open("r+b") as f:
        f.write(b"other")
    answer = data(Access(world), {"path": str(path)})
    assert len(hashed) == 4, "and it is looked whether it is still the same"
    assert answer["data"]["sha256"] == real(path)


def test_the_five_largest_folders(world: World) -> None:
    for number in range(7):
        world.file(f"set/{number}/deep/x", bytes(1000 * (number + 1)))
    world.file("set/beside", bytes(3500))
    alone = world.file("alone/one", bytes(50_000))
    folder = world.folder / "data" / "set"
    found = largest([folder, alone, alone, world.folder / "missing"])
    assert found == [
        (str(alone.parent), 50_000), (str(folder / "6"), 7000), (str(folder / "5"), 6000), (str(folder / "4"), 5000),
        (str(folder / "3"), 4000),
    ]  # fmt: skip
    weight = weigh([folder, alone])
    assert weight.total == 28_000 + 3500 + 50_000
    assert not weight.is_large
    assert str(weight).startswith("82 kB; the largest folders: ")
    assert weigh([]).largest == ()
