"""The pool's end of the sockets to its workers: one listening socket, one thread for all of them.

Only a process of ours that shows a token which was handed to a worker is listened to. Sending never waits: what the
socket does not take at once, the thread sends when it can.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lanes.pool.wire import TOKEN_BYTES, Frames, packed

_HELLO_S = 10.0  # to show a token
_STRANGERS = 64  # connections that have shown none yet
_CHUNK = 1 << 20
_CREDENTIALS = struct.Struct("3i")

Heard = Callable[[Any], None]


class Link:
    """A connection to one worker. `heard` is called on the links' thread with each value, and with None at its end."""

    def __init__(self, links: Links, sock: socket.socket, heard: Heard) -> None:
        self.heard = heard
        self.sock = sock
        self.frames = Frames()
        self._links = links
        self._lock = threading.Lock()
        self._rest = bytearray()
        self._closed = False

    def send(self, value: Any) -> None:
        """Send it, now or soon. To one that is gone it is not sent, and `heard` is told of that end."""
        blob = packed(value)
        with self._lock:
            sent = 0
            if not self._rest:
                with contextlib.suppress(BlockingIOError):
                    try:
                        sent = self.sock.send(blob)
                    except BlockingIOError:
                        raise
                    except OSError:
                        return  # the thread sees it as well
            if sent == len(blob):
                return
            self._rest += memoryview(blob)[sent:]
        self._links.poke(self)

    def flush(self) -> bool:
        """Send what is left of it. True when nothing is."""
        with self._lock:
            try:
                while self._rest:
                    with memoryview(self._rest) as view:
                        sent = self.sock.send(view[:_CHUNK])
                    del self._rest[:sent]
            except BlockingIOError:
                return False
            except OSError:
                self._rest.clear()
            return True

    def close(self) -> None:
        """Say no more and hear no more."""
        self.heard = _nobody
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class Links:
    """All connections. `expect` a worker, then it may connect."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        path.chmod(0o600)
        self._socket.listen(_STRANGERS)
        self._socket.setblocking(False)
        self._expected: dict[bytes, Callable[[Link], Heard]] = {}
        self._strangers: dict[socket.socket, tuple[float, bytearray]] = {}
        self._pokes, self._poked = socket.socketpair()
        for end in (self._pokes, self._poked):
            end.setblocking(False)
        self._waiting: set[Link] = set()
        self._closed = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ, self._accept)
        self._selector.register(self._poked, selectors.EVENT_READ, self._hear_poke)
        self._thread = threading.Thread(target=self._run, name="pool-links", daemon=True)
        self._thread.start()

    def expect(self, opened: Callable[[Link], Heard]) -> str:
        """Returns the token for a worker; `opened` is called once, when it has connected, and says who hears it."""
        token = secrets.token_hex(TOKEN_BYTES // 2)
        self._expected[token.encode()] = opened
        return token

    def forget(self, token: str) -> None:
        """It will not come any more."""
        self._expected.pop(token.encode(), None)

    def poke(self, link: Link | None = None) -> None:
        if link is not None:
            self._waiting.add(link)
        with contextlib.suppress(OSError):
            self._pokes.send(b"x")

    def close(self) -> None:
        self._closed = True
        self.poke()
        self._thread.join(timeout=5.0)
        self.path.unlink(missing_ok=True)

    # On the thread.

    def _run(self) -> None:
        while not self._closed:
            for key, events in self._selector.select(_HELLO_S if self._strangers else None):
                if isinstance(key.data, Link):
                    if events & selectors.EVENT_READ:
                        self._read(key.data)
                    elif key.data.flush():
                        self._watch(key.data, selectors.EVENT_READ)
                else:
                    key.data(key.fileobj)
            now = time.monotonic()
            for sock in [s for s, (since, _) in self._strangers.items() if now - since > _HELLO_S]:
                self._turn_away(sock)
        for one in [*self._selector.get_map().values()]:
            with contextlib.suppress(OSError):
                one.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self._pokes.close()

    def _accept(self, _: Any) -> None:
        try:
            sock, _address = self._socket.accept()
        except OSError:
            return
        sock.setblocking(False)
        if len(self._strangers) >= _STRANGERS or not _is_ours(sock):
            sock.close()
            return
        self._strangers[sock] = (time.monotonic(), bytearray())
        self._selector.register(sock, selectors.EVENT_READ, self._hear_stranger)

    def _hear_stranger(self, sock: socket.socket) -> None:
        token = self._strangers[sock][1]
        try:
            data = sock.recv(TOKEN_BYTES - len(token))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        token += data
        if data and len(token) < TOKEN_BYTES:
            return
        # Each token opens one connection, once.
        opened = self._expected.pop(bytes(token), None)
        if opened is None:
            self._turn_away(sock)
            return
        del self._strangers[sock]
        link = Link(self, sock, _nobody)
        self._selector.modify(sock, selectors.EVENT_READ, link)
        link.heard = opened(link)

    def _turn_away(self, sock: socket.socket) -> None:
        del self._strangers[sock]
        self._selector.unregister(sock)
        sock.close()

    def _hear_poke(self, _: Any) -> None:
        with contextlib.suppress(OSError):
            self._poked.recv(4096)
        while self._waiting:
            link = self._waiting.pop()
            if not link.flush():
                self._watch(link, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _watch(self, link: Link, events: int) -> None:
        with contextlib.suppress(KeyError, ValueError):  # it has ended meanwhile
            self._selector.modify(link.sock, events, link)

    def _read(self, link: Link) -> None:
        try:
            data = link.sock.recv(_CHUNK)
            for value in link.frames.feed(data):
                link.heard(value)
        except BlockingIOError:
            return
        except Exception:  # what it says is no frame: it is as good as gone
            data = b""
        if not data:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(link.sock)
            link.sock.close()
            heard, link.heard = link.heard, _nobody
            heard(None)


def _is_ours(sock: socket.socket) -> bool:
    """The folder keeps others out already; where the kernel can tell, it is asked as well."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    try:
        _pid, uid, _gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    except OSError:
        return False
    return bool(uid == os.getuid())


def _nobody(_: Any) -> None:
    return None
