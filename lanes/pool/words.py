"""A page of memory that a worker and the controller share: where the worker is, and what is asked of it.

The worker says what it is doing with a few stores of eight bytes; the controller can read them after its death. It
lies in a file, so that neither needs the other to be alive. Standard library only.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

# What worker and pool say to each other. A snapshot with another number is not run in a pool.
PROTOCOL = 3

PID = 0
READY = 1  # 1 once the kind is loaded
BATCH = 2  # serial number of the batch that is under way, 0 between batches
CELL = 3  # index of the cell that runs, -1 between cells
SINCE = 4  # when that cell began: monotonic nanoseconds of this machine
STOP = 5  # written by the controller: counts the requests in stop.json
DONE = 6  # cells of the batch that have ended
TICKS = 7  # when the kernel started the worker: with PID it means this process and no later one
_COUNT = 8


class Words:
    """The shared page, as signed 64-bit words: `words.view[CELL]`."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
        fd = os.open(path, flags, 0o600)
        try:
            if create:
                os.ftruncate(fd, _COUNT * 8)
            self._map = mmap.mmap(fd, _COUNT * 8)
        finally:
            os.close(fd)
        self.view = memoryview(self._map).cast("q")
        if create:
            self.view[CELL] = -1

    def running(self, batch: int) -> tuple[int, int] | None:
        """(index, since) of the cell that runs in this batch; None between cells.

        The worker stores `SINCE` before `CELL`, and `CELL` is read first here: no new index with an old time.
        """
        if self.view[BATCH] != batch:
            return None
        index, since = self.view[CELL], self.view[SINCE]
        return None if index < 0 else (index, since)

    def close(self) -> None:
        self.view.release()
        self._map.close()
