"""Second copies of batches: near the end of a sweep, what holds it up is started once more on a lane that is free.

Both copies have the same cells and the same attempt numbers, and neither knows of the other. Only one is ever in the
journal: while the first one is under way the second is a secret of this controller, as every batch is until its
placement is recorded. When the second one ends well before the first, one transaction says that the first came back
as if it had never been placed, and that the second was placed and ended; the loser is stopped, and what it says later
is refused. Only pooled cells are doubled, for only they are pure: a command may have done something that must not be
done twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.states import JobState
from lanes import lookups
from lanes.copies import Alone, second_copies
from lanes.views import LaneView, Running, can_ever

if TYPE_CHECKING:
    from core.spec import Needs
    from lanes.dispatch import Dispatch
    from lanes.flights import Flight
    from lanes.lookups import Waiting
    from lanes.mirror import Mirror, Spec
    from lanes.outlook import Outlook
    from lanes.sweeps import Sweeps

_EVERY_S = 0.25
_WORTH_S = 2.0  # what is done sooner than this by itself is not worth a copy
_CELLS = 64  # a batch of more is never what holds up the end


@dataclass
class Twins:
    """Books about second copies. Owned by `Dispatch`.

    Attributes:
        running: copies that are under way and not recorded, by nonce.
        beaten: nonce -> lane of those that lost; each holds its slot until its lane lets it go.
        tried: nonces of batches that are or were doubled.
        winners: nonce of a batch that was beaten -> lane of the copy that ended first; until that is recorded.
    """

    running: dict[str, Flight] = field(default_factory=dict)
    beaten: dict[str, str] = field(default_factory=dict)
    winners: dict[str, str] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)

    def of(self, nonce: str) -> Flight | None:
        """The copy of the batch `nonce`."""
        return next((f for f in self.running.values() if f.copy_of == nonce), None)


class Doubler:
    """Says when, and of what, a second copy is started. Owned by the controller's one thread."""

    def __init__(self, mirror: Mirror, sweeps: Sweeps, dispatch: Dispatch, outlook: Outlook) -> None:
        self.m = mirror
        self.sweeps = sweeps
        self.dispatch = dispatch
        self.outlook = outlook
        self._next = 0.0

    def look(self, queue: Iterable[Waiting]) -> None:
        """Start second copies of what should take much longer where it is, where nothing else could go.

        Args:
            queue: jobs of no sweep that wait.
        """
        now = self.outlook.clock()
        if now < self._next or not self.dispatch.flights or len(self.m.books) < 2:
            return
        self._next = now + _EVERY_S
        views = [v for v in (self.outlook.view(book) for book in self.m.books.values()) if v.open and v.pools]
        wanted = self._wanted(queue)
        contested = {v.name for v in views if any(can_ever(needs, v) is None for needs in wanted)}
        self.dispatch.end_copies(contested)
        views = [v for v in views if v.name not in contested]
        if not any(v.free.cores > 0 for v in views):
            return
        specs: dict[str, tuple[Spec, dict[int, str], list[Alone]]] = {}
        for nonce, flight, alone in self._alone(now, views):
            spec = self.m.spec(flight.batch.spec_digest)
            _, nonces, mine = specs.setdefault(spec.digest, (spec, {}, []))
            nonces[alone.job] = nonce
            mine.append(alone)
        for spec, nonces, mine in specs.values():
            bars = self.dispatch.bars(spec)
            free = [v for v in views if v.name not in bars]
            paces = {family: self.outlook.pace(family, views) for family in {a.family for a in mine}}
            for placed in second_copies(mine, free, paces):
                self.dispatch.double(nonces[placed.job], placed.lane, placed.gpus)
                free = [v for v in free if v.name != placed.lane]  # its view is stale: the next look sees it anew
            views = [v for v in views if v in free or v.name in bars]

    def _wanted(self, queue: Iterable[Waiting]) -> list[Needs]:
        """What those need that wait for a slot, each sort once."""
        specs = {job.spec for job in queue}
        for sweep in self.sweeps.live.values():
            at_once = sweep.row.at_once
            if sweep.placeable and (at_once is None or sweep.started < at_once):
                specs.add(sweep.spec)
        return [self.m.spec(digest).needs for digest in specs]

    def _alone(self, now: float, views: list[LaneView]) -> Iterator[tuple[str, Flight, Alone]]:
        """What runs once, could run twice, and should run for long."""
        for nonce, flight in self.dispatch.flights.items():
            cells = [c.job for c in flight.batch.cells]
            if flight.sweep is None or len(cells) > _CELLS or flight.copy_of or not self.dispatch.may_double(nonce):
                continue
            sweep = self.sweeps.live.get(flight.sweep)
            if sweep is None or sweep.state is not JobState.RUNNING or sweep.row.at_once is not None:
                continue
            running = self.outlook.running(nonce)
            left_s = 0.0 if running is None else Running(*running, 1).left(now)
            if left_s < _WORTH_S:
                continue
            lengths = [self.outlook.length_of(cell) for cell in cells]
            conn = self.m.journal.conn
            if None in lengths or lookups.unwanted(conn, flight.spans) or lookups.wishes(conn, flight.spans):
                continue
            long_s = sum(x.at_most for x in lengths if x is not None)
            needs = self.m.spec(flight.batch.spec_digest).needs
            family = self.outlook.family_of(cells[0])
            yield nonce, flight, Alone(cells[0], needs, family, flight.batch.lane, left_s, long_s)
