"""A little disk that is held, so that what matters most still fits when the disk is full."""

from __future__ import annotations

import os
from pathlib import Path

from core.fsio import write_atomic


class Reserve:
    """One file that is given up when its room is needed.

    Args:
        place: its path.
        size: bytes to hold.
    """

    def __init__(self, place: Path, size: int) -> None:
        self._place = place
        self._size = size
        self._held = False

    def hold(self) -> None:
        """Take the room, if there is any and it is not held yet."""
        if self._held:
            return
        try:
            # Random: a disk that compresses would hold nothing back for zeros.
            write_atomic(self._place, os.urandom(self._size), sync=False)
            self._held = True
        except OSError:
            pass

    def give(self) -> bool:
        """Give it up. Returns whether there was something to give up."""
        self._held = False
        try:
            os.unlink(self._place)
        except OSError:
            return False
        return True
