"""What is known here of the pool of a remote lane: the controller is answered from it at once, without the link."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from lanes.pool.crew import crew_key
from lanes.pool.far import Far, RayWorkers
from lanes.pool.sizer import Sizer
from lanes.pool.types import Batch

TARGET_S = 0.25  # of a batch: the way there takes longer than on this machine
BARRED_S = 60.0  # for so long nothing is sent to a lane that could not load the kind


class FarBooks:
    """The batches that a remote lane was given, how many cells they should hold, and what it does not take now.

    Args:
        ray: on a joined lane, who starts workers there.
    """

    def __init__(self, ray: RayWorkers | None) -> None:
        self._ray = ray
        self._lock = threading.RLock()
        self._running: dict[str, Far] = {}
        self._sizers: dict[str, Sizer] = {}
        self._barred: dict[str, tuple[float, str]] = {}  # crew (of the lane, or "" for all) -> until when, why
        self._crews: dict[str, str] = {}  # crew of the lane -> key of the spec

    # What the controller asks.

    def unable(self, crew: str) -> str:
        """Why this crew has no workers there, as was found out not long ago; empty when it can have."""
        return (self._ray.refused() if self._ray is not None else "") or self._bar_of(crew)

    def busy(self) -> str:
        """Why nothing is sent there just now; empty when it can be."""
        return (self._ray.ready() if self._ray is not None else "") or self._bar_of("")

    def _bar_of(self, name: str) -> str:
        with self._lock:
            until, why = self._barred.get(name, (0.0, ""))
        return why if time.monotonic() < until else ""

    def size(self, crew: str) -> int:
        """How many cells the next batch should hold."""
        with self._lock:
            return self._sizer(crew).next()

    def seconds(self, crew: str, cells: int) -> float:
        """How long a batch of so many cells should take; infinity when nobody knows."""
        with self._lock:
            return self._sizer(crew).seconds(cells)

    def load(self, crew: str) -> tuple[int, int]:
        """(batches that hold a slot, batches that were sent ahead of one)."""
        with self._lock:
            mine = [f for f in self._running.values() if crew_key(f.batch.spec) == crew]
            return sum(not f.ahead for f in mine), sum(f.ahead for f in mine)

    def in_flight(self) -> dict[str, Batch]:
        with self._lock:
            return {nonce: f.batch for nonce, f in self._running.items()}

    # What is found out.

    def _take_bars(self, refused: Mapping[str, str]) -> None:
        for crew, why in refused.items():
            key = self._crews.get(crew)
            if key is not None:
                self._bar(key, BARRED_S, why)

    def _bar(self, crew: str, seconds: float, why: str) -> None:
        with self._lock:
            self._barred[crew] = (time.monotonic() + seconds, why)

    def _sizer(self, crew: str) -> Sizer:
        return self._sizers.setdefault(crew, Sizer(TARGET_S))
