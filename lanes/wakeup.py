"""The controller's ear: one datagram means that the journal has news. Losing one costs a quarter of a second."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from core.home import Home
from lanes.start import SOON


class WakeSocket:
    """Bound while in a `with` block; each datagram becomes a `wake` message, or `soon`: a commit is under way."""

    def __init__(self, home: Home, inbox: Callable[[tuple[str, str, Any]], None]) -> None:
        self._path = home.create_runtime() / home.wake_socket.name
        self._inbox = inbox
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> WakeSocket:
        self._path.unlink(missing_ok=True)
        self._socket.bind(str(self._path))
        self._path.chmod(0o600)
        threading.Thread(target=self._listen, name="wake", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while word := self._socket.recv(64):
                self._inbox(("soon" if word == SOON else "wake", "", None))
