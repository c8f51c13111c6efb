"""Frames: whatever is sent arrives as it was, whatever is damaged is noticed at once, small goes before large."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from lanes.agent import boot, frames
from lanes.agent.frames import Broken, Outbox, Parser


def wire(message: dict[str, Any], key: int = 1) -> bytes:
    return b"".join(frames.frames(message, key))


def there_and_back(message: dict[str, Any], step: int = 1 << 20) -> list[dict[str, Any]]:
    data, parser, found = wire(message), Parser(), []
    for at in range(0, len(data), step):
        found += parser.feed(data[at : at + step])
    return found


@pytest.mark.parametrize(
    "message",
    [
        {"id": 1, "ok": None},
        {"id": 1, "ok": ["ä", 1.5, {"a": [True, None]}, "\udce9"]},
        {"id": 1, "ok": b""},
        {"id": 1, "ok": b"\x00\xff" * 10},
        {"id": 1, "args": [b"one", {"x": b"two"}, "three"], "named": {"data": b"four"}},
        {"id": 1, "ok": os.urandom(3 * frames.PART + 17)},
        {"id": 1, "ok": "x" * (2 * frames.PART + 5)},
        {"id": 1, "ok": ["y" * (2 * frames.PART), b"z" * frames.PART]},
        # What a program wrote into its rows must not be taken for bytes of ours.
        {"id": 1, "ok": {"$blob": 0}},
        {"id": 1, "ok": [{"$blob": 0}, b"bytes", '"$blob"', {"$blob": 7, "x": 1}]},
    ],
    ids=lambda m: str(m)[:40],
)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_message_arrives_as_it_was_sent(message: dict[str, Any], step: int) -> None:
    if step < 100 and len(wire(message)) > 10_000:
        step *= 1000
    assert there_and_back(message, step) == [message]


def test_frames_are_small_whatever_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = list(frames.frames({"id": 1, "ok": bytes(1 << 20)}, 1))
    assert max(map(len, pieces)) <= frames.FRAME_LIMIT + frames.HEADER.size
    with pytest.raises(ValueError, match="too large"):
        frames.frames({"id": 1, "ok": bytes(frames.MESSAGE_LIMIT)}, 1)
    with pytest.raises(TypeError, match="set"):
        frames.frames({"id": 1, "ok": {1, 2}}, 1)


def test_any_flipped_bit_is_noticed() -> None:
    """And is noticed before anything more is needed: a damaged length must not make us wait."""
    rng = random.Random(5)
    data = bytearray(wire({"id": 1, "ok": [b"some bytes", "some text"]}))
    follow = wire({"id": 2, "ok": "more"})
    for at in range(len(data)):
        bad = bytearray(data)
        bad[at] ^= 1 << rng.randrange(8)
        with pytest.raises(Broken):
            Parser().feed(bytes(bad) + follow)
    # The negative twin: undamaged, the same passes.
    assert [m["id"] for m in Parser().feed(bytes(data) + follow)] == [1, 2]


@pytest.mark.parametrize(
    "data",
    [
        b"motd: welcome to this machine\n",
        b"\0" * 64,
        frames.frame(b"[1, 2]"),
        frames.frame(b"no json"),
        frames.frame(b'{"id":1}', b"bytes that nobody names"),
        frames.frame(b'{"part":"x"}', b"y"),
        frames.frame(b'{"last":[1],"text":3}', b"y"),
        frames.frame(b'{"id":1,"$blob":{"mark":"$blob","sizes":[9]}}', b"y"),
        frames.frame(b'{"id":1,"ok":{"$blob":5},"$blob":{"mark":"$blob","sizes":[1]}}', b"y"),
    ],
    ids=lambda d: repr(d[:40]),
)
def test_garbage_is_broken_and_nothing_else(data: bytes) -> None:
    with pytest.raises(Broken):
        Parser().feed(data)


def test_a_message_without_end_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MESSAGE_LIMIT", 4 * frames.PART)
    parser, piece = Parser(), frames.frame(b'{"part":1}', bytes(frames.PART))
    with pytest.raises(Broken, match="larger"):
        for _ in range(6):
            parser.feed(piece)


def drain(outbox: Outbox) -> list[bytes]:
    out = []
    while (data := outbox.get(0.0)) is not None:
        out.append(data)
    return out


def test_a_command_goes_between_the_parts_of_an_upload() -> None:
    outbox, parser = Outbox(), Parser()
    outbox.put({"id": 1, "args": [bytes(10 * frames.PART)]}, bulk=True)
    first = [outbox.get(0.0) for _ in range(3)]
    outbox.put({"id": 2})
    outbox.put({"id": 3}, bulk=True)
    rest = drain(outbox)
    found = [m["id"] for data in [*first, *rest] for m in parser.feed(data or b"")]
    assert found == [2, 1, 3]
    assert parser.feed(b"") == []
    assert [m["id"] for m in Parser().feed(rest[0])] == [2], "the very next frame is the command"


def test_what_is_withdrawn_is_not_sent_on_and_leaves_nothing_behind() -> None:
    outbox, parser = Outbox(), Parser()
    withdraw = outbox.put({"id": 1, "args": [bytes(10 * frames.PART)]}, bulk=True)
    never = outbox.put({"id": 2, "args": [bytes(10 * frames.PART)]}, bulk=True)
    outbox.put({"id": 3}, bulk=True)
    for _ in range(2):
        parser.feed(outbox.get(0.0) or b"")
    assert parser._parts
    withdraw()
    never()
    rest = drain(outbox)
    assert [m["id"] for data in rest for m in parser.feed(data)] == [3]
    assert len(rest) == 2, "one frame says that the rest does not come, one is the other message"
    assert parser._parts == {}


def test_an_outbox_knows_when_all_is_sent() -> None:
    outbox = Outbox()
    assert outbox.empty()
    outbox.put({"id": 1})
    assert not outbox.empty()
    assert outbox.get(0.0) is not None
    assert not outbox.empty(), "whoever took it may still be sending it"
    assert outbox.get(0.0) is None
    assert outbox.empty()


def test_a_beat_waits_behind_nothing() -> None:
    outbox = Outbox()
    outbox.beat()
    outbox.beat()
    assert len(drain(outbox)) == 1
    outbox.put({"id": 1}, bulk=True)
    outbox.beat()
    assert [m.get("beat", m.get("id")) for d in drain(outbox) for m in Parser().feed(d)] == [1, 1]


def test_the_frames_of_the_first_step_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """lanes.agent.boot has its own few lines of this, for Pythons that cannot import the module."""
    read, write = os.pipe()
    boot.say(write, {"need": "ä"})
    os.close(write)
    with os.fdopen(read, "rb") as f:
        assert Parser().feed(f.read()) == [{"need": "ä"}]
    sent = [frames.frame(b'{"files":[["a",3]]}', b"abc")]
    monkeypatch.setattr(boot, "_exactly", lambda n: (sent[0][:n], sent.__setitem__(0, sent[0][n:]))[0])
    assert boot.hear() == ({"files": [["a", 3]]}, b"abc")
    sent[0] = frames.frame(b"{}", b"abc")[:-1] + b"d"
    with pytest.raises(boot.Refusal):
        boot.hear()
