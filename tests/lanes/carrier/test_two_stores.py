"""Two processes serve one lane for a moment, an old and a new one: what both finish is there once, and both say so."""

from __future__ import annotations

import binascii
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lanes.agent import packing
from lanes.agent.store import Store
from lanes.agent.upload import Upload
from tests.lanes.carrier.support import World, contents, sha


class Thing:
    """Something to send, as a stream."""

    def __init__(self, tree: bool) -> None:
        blob = os.urandom(5000)
        self.tree = tree
        if tree:
            rows = [packing.Entry(name, sha(blob), len(blob), False) for name in ("a", "deep/b")]
            self.name = packing.tree_digest("inputs", rows)
            self.stream = packing.encode(rows) + blob * len(rows)
            self.want = dict.fromkeys(("a", "deep/b"), sha(blob))
        else:
            self.name, self.stream = sha(blob), blob

    def begin(self, store: Store) -> dict[str, Any]:
        return store.begin("inputs", self.name, len(self.stream), self.name, self.tree)

    def send(self, store: Store, offset: int, size: int | None = None) -> dict[str, Any]:
        block = self.stream[offset : None if size is None else offset + size]
        return store.put_chunk("inputs", self.name, offset, block, binascii.crc32(block))

    def is_at(self, path: str) -> bool:
        there = Path(path)
        return contents(there) == self.want if self.tree else sha(there.read_bytes()) == self.name


@pytest.fixture(params=[False, True], ids=["file", "folder"])
def thing(request: pytest.FixtureRequest) -> Thing:
    return Thing(request.param)


@pytest.fixture
def stores(world: World) -> list[Store]:
    return [world.store, Store(world.base)]


def together(work: list[Callable[[], Any]]) -> list[Any]:
    answers: list[Any] = [None] * len(work)

    def do(at: int) -> None:
        try:
            answers[at] = work[at]()
        except BaseException as error:
            answers[at] = error

    threads = [threading.Thread(target=do, args=(at,)) for at in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def both_know_all(stores: list[Store], thing: Thing) -> None:
    first, second = stores
    assert thing.begin(first)["state"] == "ready"
    assert thing.send(first, 0)["offset"] == len(thing.stream)
    assert thing.begin(second)["offset"] == len(thing.stream), "it finds on the disk what the first one was sent"


def check_kept(world: World, thing: Thing, answers: list[Any]) -> None:
    path = str(world.base / "store" / "inputs" / thing.name)
    assert answers == [{"state": "there", "path": path}] * len(answers)
    assert thing.is_at(path)
    assert world.store.verify("inputs", thing.name)["equal"]
    assert [p.name for p in (world.base / "store" / "partial").iterdir() if p.is_dir()] == []


def test_two_finish_the_same_at_the_same_moment(
    world: World, stores: list[Store], thing: Thing, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_know_all(stores, thing)
    gate = threading.Barrier(2)
    finish = Upload.finish

    def at_once(self: Upload, *args: Any) -> None:
        gate.wait(30)
        finish(self, *args)

    monkeypatch.setattr(Upload, "finish", at_once)
    check_kept(world, thing, together([lambda s=s: s.finish("inputs", thing.name) for s in stores]))


def test_one_finishes_long_after_the_other(world: World, stores: list[Store], thing: Thing) -> None:
    """What is kept is left alone: an attempt may be reading it."""
    both_know_all(stores, thing)
    first = stores[0].finish("inputs", thing.name)
    inode = os.stat(first["path"]).st_ino
    check_kept(world, thing, [first, stores[1].finish("inputs", thing.name)])
    assert os.stat(first["path"]).st_ino == inode


def test_one_finishes_while_the_other_begins(
    world: World, stores: list[Store], thing: Thing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other found it missing, and then nothing to go on from: it is not sent once more."""
    first, second = stores
    thing.begin(first)
    thing.send(first, 0)
    look = Upload.look

    def late(self: Upload) -> None:
        assert first.finish("inputs", thing.name)["state"] == "there"
        look(self)

    monkeypatch.setattr(Upload, "look", late)
    check_kept(world, thing, [thing.begin(second)])


def test_what_is_not_whole_is_not_said_to_be_there(world: World, stores: list[Store], thing: Thing) -> None:
    first, second = stores
    both_know_all(stores, thing)
    place = world.base / "store" / "partial" / f"inputs-{thing.name}"
    for path in place.rglob("*"):
        if path.is_file() and path.name != "plan":
            os.truncate(path, 4999)
    assert [s.finish("inputs", thing.name) for s in stores] == [{"state": "look"}] * 2
    assert second.have("inputs", [thing.name]) == {}
    state = thing.begin(second)
    assert state["offset"] < len(thing.stream), "it is asked for again"
    while thing.send(second, state["offset"])["state"] == "look":
        state = thing.begin(second)
    assert thing.begin(second)["offset"] == len(thing.stream)
    assert thing.send(first, 0) == {"state": "look"}
    check_kept(world, thing, together([lambda: second.finish("inputs", thing.name)]))
