"""The sockets between pool and workers: who is listened to, and what pieces and ends of frames do."""

from __future__ import annotations

import pickle
import queue
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lanes.pool import links as module
from lanes.pool.links import Link, Links
from lanes.pool.wire import Caller, Frames, packed
from tests.support import wait_for

Said = queue.SimpleQueue[Any]


@pytest.fixture
def links(tmp_path: Path) -> Iterator[Links]:
    found = Links(tmp_path / "s")
    yield found
    found.close()
    assert not (tmp_path / "s").exists()


def _expect(links: Links) -> tuple[str, list[Link], Said]:
    opened: list[Link] = []
    said: Said = queue.SimpleQueue()

    def hear(link: Link) -> Callable[[Any], None]:
        opened.append(link)
        return said.put

    return links.expect(hear), opened, said


def test_a_worker_is_heard_and_answered(links: Links) -> None:
    token, opened, said = _expect(links)
    worker = Caller(links.path, token)
    worker.send({"n": 1})
    assert said.get(timeout=10) == {"n": 1}
    opened[0].send([b"x" * 5_000_000, 2])  # more than a socket takes at once
    opened[0].send("next")
    blob, two = worker.receive()
    assert (len(blob), two, worker.receive()) == (5_000_000, 2, "next")
    opened[0].close()
    assert worker.receive() is None
    assert stat.S_IMODE(links.path.stat().st_mode) == 0o600


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a stranger was unpickled",)


@pytest.mark.parametrize("hello", [b"", b"short", b"0" * 64, b"0" * 64 + packed(_Bomb()), packed(_Bomb()) * 9])
def test_a_stranger_is_turned_away(links: Links, hello: bytes) -> None:
    token, opened, said = _expect(links)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.settimeout(10)
        stranger.connect(str(links.path))
        stranger.sendall(hello)
        stranger.shutdown(socket.SHUT_WR)
        try:
            assert stranger.recv(1) == b""
        except ConnectionResetError:
            pass
    assert not opened
    assert said.empty()
    # The one that was expected still comes in, once.
    Caller(links.path, token).send("mine")
    assert said.get(timeout=10) == "mine"
    again = Caller(links.path, token)
    assert again.receive() is None
    assert len(opened) == 1


def test_one_that_says_nothing_does_not_stay(links: Links, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELLO_S", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.settimeout(10)
        silent.connect(str(links.path))
        assert silent.recv(1) == b""


def test_another_user_is_turned_away(links: Links, monkeypatch: pytest.MonkeyPatch) -> None:
    token, opened, said = _expect(links)
    monkeypatch.setattr("os.getuid", lambda: 4242)
    with pytest.raises(OSError):  # noqa: PT011 - the kernel's words differ
        Caller(links.path, token)._read(1) or (_ for _ in ()).throw(ConnectionResetError)
    assert not opened
    assert said.empty()


def test_half_a_frame_says_nothing(links: Links) -> None:
    token, opened, said = _expect(links)
    worker = Caller(links.path, token)
    worker.send(1)
    worker._socket.sendall(packed("never whole")[:-1])
    assert said.get(timeout=10) == 1
    worker._socket.close()
    assert said.get(timeout=10) is None, "its end, and nothing of the torn frame"
    opened[0].send("to nobody")  # harms nobody
    assert said.empty()


@pytest.mark.parametrize("nonsense", [struct.pack("<Q", 1 << 62), struct.pack("<Q", 3) + b"abc"])
def test_what_is_no_frame_ends_the_link(links: Links, nonsense: bytes) -> None:
    token, _, said = _expect(links)
    worker = Caller(links.path, token)
    worker._socket.sendall(nonsense)
    assert said.get(timeout=10) is None
    assert worker.receive() is None


def test_frames_in_any_pieces() -> None:
    values = [1, "two", [3] * 1000, {"four": b"4" * 3000}]
    stream = b"".join(map(packed, values))
    for size in (1, 7, 8, 9, 1000, len(stream)):
        frames = Frames()
        got = [v for i in range(0, len(stream), size) for v in frames.feed(stream[i : i + size])]
        assert got == values
    assert pickle.loads(packed(values)[8:]) == values


def test_one_that_never_comes_is_forgotten(links: Links) -> None:
    token, opened, _ = _expect(links)
    links.forget(token)
    assert Caller(links.path, token).receive() is None
    assert wait_for(lambda: not opened, "nobody")
