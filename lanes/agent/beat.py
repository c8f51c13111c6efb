"""The heartbeat: one record of fixed size, written in place, so that it works on a full disk too.

The counter is at both ends: a reader that meets a half-written record sees that, and keeps what it had.
A beat carries no wall-clock time that another machine could compare with its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import Iterator, NamedTuple, Optional

SIZE = 128
INTERVAL_S = 0.5


class Phase:
    """What the supervisor is doing."""

    SETUP = "setup"
    RUNNING = "running"
    ENDING = "ending"  # the child is gone or being ended; leftovers are killed, outputs collected
    SEALING = "sealing"
    ENDED = "ended"


class Beat(NamedTuple):
    counter: int
    pid: int
    child: int
    phase: str
    rss_mb: int
    monotonic: float


class Heart:
    """The writing side."""

    def __init__(self, path: "os.PathLike[str]") -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        self._counter = 0
        self.phase = Phase.SETUP
        self.child = 0
        self.rss_mb = 0
        self._next = 0.0

    def beat(self, phase: Optional[str] = None) -> None:
        """Write the next record now."""
        if phase is not None:
            self.phase = phase
        self._counter += 1
        n = self._counter
        text = f"{n} {os.getpid()} {self.child} {self.phase} {self.rss_mb} {time.monotonic():.3f} {n}"
        try:
            os.pwrite(self._fd, text.ljust(SIZE - 1).encode() + b"\n", 0)
        except OSError:
            pass  # a full disk on a filesystem that copies on write: the lock still says that we live
        self._next = time.monotonic() + INTERVAL_S

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Beat from a thread, around work that has no place to tick in."""
        over = threading.Event()

        def go_on() -> None:
            while not over.wait(INTERVAL_S):
                self.beat()

        thread = threading.Thread(target=go_on, name="heart", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def tick(self) -> None:
        """Write the next record when it is due. Called from every long loop."""
        if time.monotonic() >= self._next:
            self.beat()


def read(path: "os.PathLike[str]") -> Optional[Beat]:
    try:
        with open(path, "rb") as f:
            words = f.read(SIZE).split()
        if len(words) != 7 or words[0] != words[6]:
            return None
        return Beat(int(words[0]), int(words[1]), int(words[2]), words[3].decode(), int(words[4]), float(words[5]))
    except (OSError, ValueError):
        return None
