"""How pool and workers talk: pickled plain values over a Unix socket, each with its length in front.

A worker first shows the token that it was given at its start, as it is; nothing of a stranger is ever unpickled.
Standard library only: the worker's end of it comes from the snapshot.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TOKEN_BYTES = 64
_HEAD = struct.Struct("<Q")
_MOST = 1 << 31  # no batch and no answer is as long as that


def packed(value: Any) -> bytes:
    blob = pickle.dumps(value, 5)
    return _HEAD.pack(len(blob)) + blob


class Frames:
    """Puts together what comes in pieces. A frame that never becomes whole says nothing."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """The values that `data` completes.

        Raises:
            ValueError: the other side does not speak as agreed.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _HEAD.size:
            (size,) = _HEAD.unpack_from(buffer)
            if size > _MOST:
                raise ValueError(f"a frame of {size} bytes")
            end = _HEAD.size + size
            if len(buffer) < end:
                return
            value = pickle.loads(memoryview(buffer)[_HEAD.size : end].tobytes())
            del buffer[:end]
            yield value


class Caller:
    """The worker's end."""

    def __init__(self, path: str | Path, token: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._socket.sendall(token.encode())

    def receive(self) -> Any:
        """The next value; None when the other side is gone."""
        head = self._read(_HEAD.size)
        body = self._read(_HEAD.unpack(head)[0]) if head is not None else None
        return None if body is None else pickle.loads(body)

    def send(self, value: Any) -> None:
        self._socket.sendall(packed(value))

    def _read(self, size: int) -> bytearray | None:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view:
            got = self._socket.recv_into(view)
            if not got:
                return None
            view = view[got:]
        return buffer
