"""The socket at which runners wake a waiting poll. Without one, poll looks every 0.1 s."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from pathlib import Path
from typing import Optional, Union

from core.fsio import write_atomic

_DEAF_S = 0.1


class Ear:
    """Listens for words of runners; what they say does not matter.

    Args:
        path: a short path for the socket; None: do not listen.
        notice: the file in which runners find that path.
    """

    def __init__(self, path: Union[str, Path, None], notice: Path) -> None:
        self._socket = None if path is None else _listen(path, notice)

    @property
    def address(self) -> str:
        """Where to knock; empty when nobody listens."""
        return str(self._socket.getsockname()) if self._socket is not None else ""

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def nudge(self) -> None:
        """Have a poll that waits in another thread look again."""
        if self._socket is not None:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                s.setblocking(False)
                s.sendto(b"look", self._socket.getsockname())

    def wait(self, seconds: float) -> None:
        """Until somebody says something, or `seconds` have passed (or less, if nobody can)."""
        sock = self._socket
        if sock is None:
            time.sleep(min(seconds, _DEAF_S))
            return
        with contextlib.suppress(OSError, ValueError):
            if select.select([sock], [], [], seconds)[0]:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        sock.recv(256)


def _listen(path: Union[str, Path], notice: Path) -> Optional[socket.socket]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.setblocking(False)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        sock.bind(str(path))
        write_atomic(notice, str(path), sync=False)
    except OSError:
        sock.close()
        return None
    return sock
