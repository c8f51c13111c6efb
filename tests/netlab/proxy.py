"""A TCP proxy in a thread of the test: it delays, corrupts, cuts and stalls what passes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType

_CHUNK = 16 << 10
_TURN_S = 0.05  # no thread stays longer in a socket: while one does, it cannot be closed with a RST


@dataclass
class Fault:
    """Something that goes wrong in a connection.

    Attributes:
        kind: "flip" a byte; "eof": close both sides; "reset": both get a RST; "stall": nothing more passes.
        way: "down" (to the client) or "up".
        after: bytes of that way that pass first.
        times: how many connections it happens to.
    """

    kind: str
    way: str = "down"
    after: int = 0
    times: int = 1


class Proxy:
    """Listens on 127.0.0.1:`port` and passes everything on to `target`, but for its faults.

    Args:
        target: (address, port).
        banner_delay_s: the first bytes to the client of each connection come so much later.
    """

    address = "127.0.0.1"

    def __init__(self, target: tuple[str, int], *faults: Fault, banner_delay_s: float = 0.0) -> None:
        self.target = target
        self.banner_delay_s = banner_delay_s
        self.connections = 0
        self.passed = {"up": 0, "down": 0}
        self._faults = list(faults)
        self._guard = threading.Lock()
        self._open: set[socket.socket] = set()
        self._going = threading.Event()
        self._going.set()
        self._end = threading.Event()
        self._listener = socket.create_server((self.address, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def add(self, fault: Fault) -> None:
        """For connections that are open, counted from now, and for those to come."""
        with self._guard:
            self._faults.append(fault)

    def pending(self) -> int:
        """Faults that have not happened yet."""
        with self._guard:
            return sum(fault.times for fault in self._faults)

    def stall(self) -> None:
        """Nothing passes until `go`; connections stay open and new ones are accepted."""
        self._going.clear()

    def go(self) -> None:
        self._going.set()

    def drop(self, *, reset: bool = True) -> None:
        """End every connection that is open."""
        with self._guard:
            sockets = list(self._open)
        for sock in sockets:
            _close(sock, reset)

    def close(self) -> None:
        self._end.set()
        self._going.set()
        _close(self._listener, False)
        self.drop()

    def _accept(self) -> None:
        while not self._end.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self.target, timeout=30)
        except OSError:
            _close(client, True)
            return
        for sock in (client, server):
            sock.settimeout(_TURN_S)
        with self._guard:
            self._open |= {client, server}
        threading.Thread(target=self._pump, args=(client, server, "up"), daemon=True).start()
        self._pump(server, client, "down")

    def _pump(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        reset = False
        begin = {id(f): 0 for f in self._faults}
        passed = 0
        try:
            if way == "down" and self.banner_delay_s:
                self._end.wait(self.banner_delay_s)
            while data := _receive(source):
                self._going.wait()
                fault, at = self._due(way, passed, len(data), begin)
                if fault is not None:
                    if fault.kind == "flip":
                        data = data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :]
                    else:
                        _send(sink, data[:at])
                        reset = fault.kind == "reset"
                        if fault.kind == "stall":
                            self._end.wait()
                        return
                _send(sink, data)
                passed += len(data)
                with self._guard:
                    self.passed[way] += len(data)
        except OSError:
            pass
        finally:
            _close(source, reset)
            _close(sink, reset)
            with self._guard:
                self._open -= {source, sink}

    def _due(self, way: str, passed: int, size: int, begin: dict[int, int]) -> tuple[Fault | None, int]:
        """The fault that falls into the next `size` bytes, and where in them."""
        with self._guard:
            for fault in self._faults:
                start = begin.setdefault(id(fault), passed)
                at = start + fault.after - passed
                if fault.way == way and fault.times > 0 and 0 <= at < size:
                    fault.times -= 1
                    return fault, at
        return None, 0


def _receive(source: socket.socket) -> bytes:
    while True:
        with contextlib.suppress(TimeoutError):
            return source.recv(_CHUNK)


def _send(sink: socket.socket, data: bytes) -> None:
    while data:
        with contextlib.suppress(TimeoutError):
            data = data[sink.send(data) :]


def _close(sock: socket.socket, reset: bool) -> None:
    with contextlib.suppress(OSError):
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            sock.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        sock.close()
