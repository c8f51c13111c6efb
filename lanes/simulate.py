"""A lab in virtual time: the placement and the learning of the controller, over lanes and cells that are made up.

Nothing here waits. What a lane is really like (its speed, its start-up, when it leaves or fails) is known to the
simulator alone; `place`, `Speeds` and `Longest` learn it from the ends, as they do in the controller. Thousands of
lanes and 100,000 cells take seconds.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from core.spec import Needs
from lanes.copies import Alone, second_copies
from lanes.longest import Length, Longest
from lanes.placement import place
from lanes.speeds import Speeds, work_of
from lanes.views import Capacity, LaneView, Pace, Placed, Running, Wanted, times


class Place(Protocol):
    """As `lanes.placement.place`."""

    def __call__(
        self, wanted: Sequence[Wanted], lanes: Sequence[LaneView], paces: Mapping[str, Pace], *, now: float
    ) -> list[Placed]: ...


_ROLES = frozenset({"eval"})


@dataclass(frozen=True)
class Machine:
    """A lane as it really is.

    Attributes:
        speed: seconds of work that a slot does in a second.
        start_s: seconds that an attempt holds its slot before it works.
        joins, leaves: when it comes and goes; what runs on it when it goes is lost and runs again.
        probe: what its admission probe says of its slowness; None: it has none.
    """

    name: str
    speed: float = 1.0
    slots: int = 1
    start_s: float = 0.0
    joins: float = 0.0
    leaves: float = math.inf
    probe: float | None = None


@dataclass(frozen=True)
class CellOf:
    """A cell: its parameters, which placement sees, and its seconds at speed 1, which it does not."""

    params: Mapping[str, Any]
    work_s: float


@dataclass
class Outcome:
    """What came of it: when the last cell ended, how often one ran in vain, and what each lane did."""

    makespan: float
    ran: int
    lost: int
    cells: dict[str, int]
    copies: int = 0


@dataclass
class _Slot:
    held: dict[int, tuple[float, float]] = field(default_factory=dict)  # attempt -> (since, expected seconds)
    here: bool = False
    view: LaneView | None = None


class Simulator:
    """One run. See `simulate`."""

    def __init__(
        self,
        machines: Sequence[Machine],
        cells: Sequence[CellOf],
        *,
        seed: int = 0,
        noise: float = 0.03,
        place: Place = place,
        tick_s: float = 0.0,
        copies: bool = False,
        learns: bool = True,
    ) -> None:
        self.machines = {m.name: m for m in machines}
        self.cells = cells
        self._rng = random.Random(seed)
        self._noise = noise
        self._place = place
        self._tick_s = tick_s
        self._copies = copies
        self._learns = learns
        self.speeds = Speeds()
        self._lanes = {m.name: _Slot() for m in machines}
        self._needs = Needs()
        self._works = [work_of("cell", c.params) for c in cells]
        self._waiting = Longest(self._length, range(len(cells)))
        self._family = self._works[0].family if cells else ""
        self._done: set[int] = set()
        self._running: dict[int, tuple[int, str]] = {}  # attempt -> cell, lane
        self._of_cell: dict[int, list[int]] = {}
        self._wants: dict[int, Wanted] = {}
        self._said = (0, False)
        self._events: list[tuple[float, int, str, Any]] = []
        self._n = 0
        self._pace = Pace({}, 0.0)
        self._paced = -1
        self.now = self._glances = 0.0
        self.outcome = Outcome(0.0, 0, 0, {m.name: 0 for m in machines})

    def run(self) -> Outcome:
        for m in self.machines.values():
            if m.probe is not None:
                self.speeds.probed(m.name, m.probe)
            self._at(m.joins, "join", m.name)
            if m.leaves < math.inf:
                self._at(m.leaves, "leave", m.name)
        while self._events and len(self._done) < len(self.cells):
            self.now = self._events[0][0]
            until = self.now + self._tick_s
            while self._events and self._events[0][0] <= until:
                at, _, what, body = heapq.heappop(self._events)
                self.now = at
                self._happens(what, body)
            self._send()
        if len(self._done) < len(self.cells):
            raise RuntimeError(f"{len(self.cells) - len(self._done)} cells never ran: placement sends them nowhere")
        return self.outcome

    # What happens.

    def _at(self, when: float, what: str, body: Any) -> None:
        self._n += 1
        heapq.heappush(self._events, (when, self._n, what, body))

    def _happens(self, what: str, body: Any) -> None:
        if what == "join":
            self._lanes[body].here = True
            self._change(body)
        elif what == "leave":
            lane = self._lanes[body]
            lane.here = False
            for attempt in [*lane.held]:
                cell = self._release(attempt)
                self.outcome.lost += 1
                if cell not in self._done and not self._of_cell.get(cell):
                    self._waiting.add(cell)
            self._change(body)
        elif body[0] in self._running:
            self._ended(*body)

    def _ended(self, attempt: int, seconds: float) -> None:
        lane = self._running[attempt][1]
        cell = self._release(attempt)
        if cell in self._done:
            return
        self._done.add(cell)
        for other in [*self._of_cell.get(cell, ())]:
            self._release(other)
        self.outcome.makespan = self.now
        self.outcome.cells[lane] += 1
        if self._learns:
            self.speeds.ended(lane, self._works[cell], seconds)
            self.speeds.started(lane, self.machines[lane].start_s)

    def _release(self, attempt: int) -> int:
        cell, lane = self._running.pop(attempt)
        self._of_cell[cell].remove(attempt)
        self._lanes[lane].held.pop(attempt, None)
        self._change(lane)
        return cell

    def _change(self, lane: str) -> None:
        self._lanes[lane].view = None

    # Placement, as the controller does it.

    def _send(self) -> None:
        views = [self._view(name) for name in self._lanes]
        free = sum(times(self._needs, v.free) for v in views if v.open and v.free.cores > 0)
        if not free:
            return
        if not self._waiting:
            if self._copies:
                self._copy(views)
            return
        for placed in self._place(self._wanted(free), views, {self._family: self._paces(views)}, now=self.now):
            self._begin(placed.job, placed.lane)

    def _copy(self, views: Sequence[LaneView]) -> None:
        alone: list[Alone] = []
        for attempt, (cell, lane) in self._running.items():
            if len(self._of_cell[cell]) > 1:
                continue
            since = self._lanes[lane].held[attempt][0]
            length = self._length(cell)
            again = self.speeds.seconds(lane, self._works[cell])
            if length is None or again is None:
                continue
            run = Running(since, since + self.machines[lane].start_s + again.factor, 1)
            alone.append(Alone(cell, self._needs, self._family, lane, run.left(self.now), length.at_most))
        for placed in second_copies(alone, views, {self._family: self._paces(views)}):
            self.outcome.copies += 1
            self._begin(placed.job, placed.lane)
        self._glance()

    def _glance(self) -> None:
        """Look again though nothing ends: what runs longer than it should is seen by the clock alone."""
        if self._running and self._glances < self.now:
            self._glances = self.now + max(0.25, 0.05 * self.now)
            self._at(self._glances, "glance", (0, 0.0))

    def _wanted(self, free: int) -> list[Wanted]:
        ends = self.speeds.ends(self._family)
        # Near the end all are listed, and before that the longest and some of each length.
        cells, rest = self._waiting.first(max(free + 1, MOST - SPREAD), ends=ends, spread=SPREAD)
        if (self._waiting.sorted, ends > 0) != self._said:
            self._said = self._waiting.sorted, ends > 0
            self._wants.clear()
        wants = [self._wants.get(cell) or self._want(cell, known=ends > 0) for cell in cells]
        wants[0] = replace(wants[0], rest_s=rest)
        return wants

    def _want(self, cell: int, *, known: bool) -> Wanted:
        expected, at_most = self._waiting.length(cell) if known else (None, None)
        found = Wanted(cell, self._needs, family=self._family, work_s=expected, at_most=at_most, group=1)
        self._wants[cell] = found
        return found

    def _length(self, cell: int) -> Length | None:
        found = self.speeds.work(self._works[cell])
        return None if found is None else Length(found.factor, found.at_most)

    def _begin(self, cell: int, lane: str) -> None:
        machine = self.machines[lane]
        self._waiting.discard(cell)
        self._n += 1
        seconds = self.cells[cell].work_s / machine.speed * math.exp(self._rng.gauss(0.0, self._noise))
        guess = self.speeds.seconds(lane, self._works[cell])
        expected = guess.factor if guess is not None else 0.0
        self._running[self._n] = (cell, lane)
        self._of_cell.setdefault(cell, []).append(self._n)
        self._lanes[lane].held[self._n] = (self.now, machine.start_s + expected)
        self.outcome.ran += 1
        self._at(self.now + machine.start_s + seconds, "end", (self._n, seconds))
        self._change(lane)

    def _view(self, name: str) -> LaneView:
        lane, machine = self._lanes[name], self.machines[name]
        if lane.view is None:
            total = Capacity(machine.slots, None, ())
            free = replace(total, cores=machine.slots - len(lane.held)) if lane.held else total
            start_s = self.speeds.start_s(name) if machine.start_s else 0.0
            running = tuple(Running(since, since + expected, 1) for since, expected in lane.held.values())
            lane.view = LaneView(name, total, free, _ROLES, lane.here, start_s=start_s, running=running)
        return lane.view

    def _paces(self, views: Sequence[LaneView]) -> Pace:
        stamp = self.speeds.fits(self._family)
        if stamp != self._paced:
            self._paced = stamp
            self._pace = self.speeds.pace(self._family, [(v.name, v.total.cores) for v in views])
        return self._pace


MOST = 512  # candidates of one placement
SPREAD = 64


def simulate(machines: Sequence[Machine], cells: Sequence[CellOf], **options: Any) -> Outcome:
    """Run all cells. Options: see `Simulator`."""
    return Simulator(machines, cells, **options).run()


def lower_bound(machines: Sequence[Machine], cells: Sequence[CellOf]) -> float:
    """No placement can end sooner: all work over all speed, or the longest cell on the fastest lane."""
    power = sum(m.speed * m.slots for m in machines)
    return max(sum(c.work_s for c in cells) / power, max(c.work_s for c in cells) / max(m.speed for m in machines))


def greedy(
    wanted: Sequence[Wanted], lanes: Sequence[LaneView], paces: Mapping[str, Pace], *, now: float
) -> list[Placed]:
    """A list scheduler: the first free lane takes the next cell, in the order of the grid."""
    cells = sorted(w.job for w in wanted)
    slots = [v.name for v in lanes if v.open for _ in range(max(0, v.free.cores))]
    return [Placed(cell, lane, ()) for cell, lane in zip(cells, slots, strict=False)]
