"""What goes over the one channel between the head and a lane: frames that are checked, in two queues.

A message is JSON, with the bytes values of it beside the text. It travels in frames of at most `PART` bytes, so that
a small one never waits for long behind a large one. Both ends use this module: standard library only, Python 3.9.
"""

from __future__ import annotations

import binascii
import json
import os
import struct
import threading
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Tuple

MAGIC = b"lab\x01"
# The magic word, length of the JSON, length of the blob, crc32 of both, and the crc32 of these sixteen bytes: a length
# that was damaged under way must not have us wait for bytes that nobody sends.
HEADER = struct.Struct(">4sIIII")
PART = 64 << 10
FRAME_LIMIT = PART + 4096  # of JSON and blob together
MESSAGE_LIMIT = 64 << 20
_BLOB = "$blob"

Message = Dict[str, Any]


class Broken(Exception):
    """What came is no frame of ours, or not as it was sent. The connection is of no use any more."""


def frame(text: bytes, blob: "bytes | memoryview" = b"") -> bytes:
    """One frame. At most FRAME_LIMIT bytes of `text` and `blob`."""
    crc = binascii.crc32(blob, binascii.crc32(text))
    head = struct.pack(">4sIII", MAGIC, len(text), len(blob), crc)
    return b"".join((head, struct.pack(">I", binascii.crc32(head)), text, blob))


def frames(message: Message, key: int) -> Iterator[bytes]:
    """The frames of one message; `key` tells its parts from those of another that is under way.

    Raises:
        TypeError, ValueError: it cannot be said in JSON (bytes can), or is larger than MESSAGE_LIMIT.
    """
    return _cut(*_checked(message), key)


def _checked(message: Message) -> Tuple[bytes, List[bytes], int]:
    """Text, bytes values and the size of both together."""
    text, blobs = _encode(message)
    size = len(text) + sum(map(len, blobs))
    if size > MESSAGE_LIMIT:
        raise ValueError(f"a message of {size} bytes is too large (the limit is {MESSAGE_LIMIT})")
    return text, blobs, size


def _cut(text: bytes, blobs: List[bytes], size: int, key: int) -> Iterator[bytes]:
    if size <= PART:
        yield frame(text, b"".join(blobs))
        return
    pieces = [memoryview(piece)[at : at + PART] for piece in (text, *blobs) for at in range(0, len(piece), PART)]
    for piece in pieces[:-1]:
        yield frame(b'{"part":%d}' % key, piece)
    yield frame(b'{"last":%d,"text":%d}' % (key, len(text)), pieces[-1])


class Parser:
    """Makes messages of bytes as they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._parts: Dict[int, bytearray] = {}

    def feed(self, data: bytes) -> List[Message]:
        """The messages that `data` completes.

        Raises:
            Broken: with a sentence.
        """
        self._buffer += data
        found: List[Message] = []
        while True:
            size = self._size()
            if size is None or len(self._buffer) < size:
                return found
            whole = bytes(self._buffer[:size])
            del self._buffer[:size]
            message = self._take(whole)
            if message is not None:
                found.append(message)

    def _size(self) -> Optional[int]:
        """How long the frame is that begins the buffer; None as long as that cannot be said."""
        start = bytes(self._buffer[: HEADER.size])
        if not MAGIC.startswith(start[:4]):
            raise Broken(f"no frame begins with {start[:16]!r}")
        if len(start) < HEADER.size:
            return None
        _magic, text, blob, _crc, check = HEADER.unpack(start)
        if binascii.crc32(start[:-4]) != check or text + blob > FRAME_LIMIT:
            raise Broken("the beginning of a frame was damaged under way")
        return HEADER.size + int(text) + int(blob)

    def _take(self, whole: bytes) -> Optional[Message]:
        _magic, text, _blob, crc, _check = HEADER.unpack(whole[: HEADER.size])
        if binascii.crc32(whole[HEADER.size :]) != crc:
            raise Broken("a frame was damaged under way (its checksum is wrong)")
        head, blob = whole[HEADER.size : HEADER.size + text], whole[HEADER.size + text :]
        message = _loads(head)
        try:
            if "part" in message:
                self._add(int(message["part"]), blob)
                return None
            if "forget" in message:
                self._parts.pop(int(message["forget"]), None)
                return None
            if "last" in message:
                key, size = int(message["last"]), int(message["text"])
                self._add(key, blob)
                both = memoryview(self._parts.pop(key))
                head, blob = bytes(both[:size]), bytes(both[size:])
        except (KeyError, TypeError, ValueError) as error:
            raise Broken(f"a frame does not say what it is part of ({error})") from error
        return _decode(head, blob)

    def _add(self, key: int, blob: bytes) -> None:
        self._parts.setdefault(key, bytearray()).extend(blob)
        if len(self._parts[key]) > MESSAGE_LIMIT:
            raise Broken(f"a message is larger than {MESSAGE_LIMIT} bytes")


class Outbox:
    """What is still to be sent: all that is not bulk goes first. One thread takes, any may put."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._queues: Tuple[Deque["_Entry"], Deque["_Entry"]] = (deque(), deque())
        self._keys = 0
        self._taken = False  # the last frame that was taken may not be sent yet
        self._closed = False

    def put(self, message: Message, *, bulk: Optional[bool] = False) -> Callable[[], None]:
        """Queue `message` (bulk None: as bulk if it is larger than one frame).

        Returns:
            what takes back those frames of it that are not sent yet.

        Raises:
            TypeError, ValueError: as `frames`; nothing is queued then.
        """
        with self._ready:
            self._keys += 1
            key = self._keys
        text, blobs, size = _checked(message)
        entry = _Entry(_cut(text, blobs, size, key), key)
        with self._ready:
            self._queues[size > PART if bulk is None else bulk].append(entry)
            self._ready.notify()

        def withdraw() -> None:
            entry.wanted = False

        return withdraw

    def beat(self) -> None:
        """Queue a sign of life, unless something that says as much is waiting."""
        with self._ready:
            idle = not self._queues[0]
        if idle:
            self.put({"beat": 1})

    def get(self, wait_s: float) -> Optional[bytes]:
        """The next frame to be sent; None when none came within `wait_s`, or this is closed."""
        with self._ready:
            self._taken = False
            while not self._closed:
                for queue in self._queues:
                    while queue:
                        piece = queue[0].next()
                        if piece is not None:
                            self._taken = True
                            return piece
                        queue.popleft()
                if not self._ready.wait(wait_s):
                    return None
            return None

    def empty(self) -> bool:
        """Is everything sent?"""
        with self._ready:
            return not self._taken and not any(self._queues)

    def close(self) -> None:
        with self._ready:
            self._closed = True
            self._ready.notify_all()


class _Entry:
    """One message that waits."""

    def __init__(self, pieces: Iterator[bytes], key: int) -> None:
        self._pieces = pieces
        self._key = key
        self._begun = False
        self.wanted = True

    def next(self) -> Optional[bytes]:
        if self.wanted:
            piece = next(self._pieces, None)
            self._begun = piece is not None
            return piece
        # The other end holds a part of it, and must not wait for the rest.
        begun, self._begun = self._begun, False
        return frame(b'{"forget":%d}' % self._key) if begun else None


def _encode(message: Message) -> Tuple[bytes, List[bytes]]:
    """JSON text, and the bytes values in the order in which they stand in it."""
    blobs: List[bytes] = []
    mark = _BLOB

    def blob(value: Any) -> Any:
        if isinstance(value, (bytes, bytearray, memoryview)):
            blobs.append(bytes(value))
            return {mark: len(blobs) - 1}
        raise TypeError(f"a value of type {type(value).__name__} cannot be sent")

    text = json.dumps(message, separators=(",", ":"), default=blob)
    if not blobs:
        return text.encode("ascii"), blobs
    while text.count(f'"{mark}"') != len(blobs):
        # The message holds this word itself: whatever a program wrote must not be taken for one of ours.
        mark = f"{_BLOB}{os.urandom(4).hex()}"
        blobs.clear()
        text = json.dumps(message, separators=(",", ":"), default=blob)
    about = json.dumps({"mark": mark, "sizes": [len(b) for b in blobs]}, separators=(",", ":"))
    return f'{text[:-1]},"{_BLOB}":{about}}}'.encode("ascii"), blobs


def _decode(text: bytes, blob: bytes) -> Message:
    message = _loads(text)
    about = message.pop(_BLOB, None)
    if about is None:
        if blob:
            raise Broken("a frame has bytes that its text does not name")
        return message
    try:
        mark, sizes = str(about["mark"]), [int(n) for n in about["sizes"]]
        if sum(sizes) != len(blob):
            raise Broken("a frame has more or fewer bytes than its text names")
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        values = [blob[end - size : end] for size, end in zip(sizes, ends)]

        def put_back(found: Dict[str, Any]) -> Any:
            return values[found[mark]] if len(found) == 1 and mark in found else found

        whole = json.loads(text, object_hook=put_back)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Broken(f"the bytes of a frame cannot be placed ({error})") from error
    whole.pop(_BLOB)
    return dict(whole)


def _loads(text: bytes) -> Message:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Broken(f"a frame holds no JSON ({error})") from error
    if not isinstance(message, dict):
        raise Broken("a frame holds JSON that is no object")
    return message
