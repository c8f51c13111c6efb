"""A small world for tests of second copies: the real controller and its journal, a pool that only keeps books, and a
clock that is set by hand. Nothing runs and nothing sleeps: a test says how each batch ends, and takes every turn.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.errors import Unavailable
from core.home import Home
from core.journal import Journal, Role, query
from core.journal.query import Attempt, Batch
from core.states import AttemptState, Cause, JobState, LaneState
from core.states import EventKind as K
from lanes import controller as controllers
from lanes.flights import write_ended
from lanes.later import Message
from lanes.pool import types
from lanes.pool.types import BatchDone, Cell, CellEnd
from tests.lanes.cells import Submitter, ask

import toysweep  # isort: skip

OF_THE_FIRST_S = 60.0  # after so long what runs is overdue: other cells took far less
FAST_S = 0.05
_LOOK_S = 0.3  # more than what lies between two looks for something to double


class FakePool:
    """In the place of the pool of this machine: keeps what it was given until a test says how it ended.

    Attributes:
        batches: what it has, by nonce, in the order of their starts.
        stops: nonce -> job -> why it is to stop.
        started: every batch that it was ever given.
        size_: cells of the next batch.
    """

    def __init__(self, home: Home, say: Callable[[Message], None]) -> None:
        self.say = say
        self.batches: dict[str, types.Batch] = {}
        self.stops: dict[str, dict[int, Cause]] = {}
        self.started: list[types.Batch] = []
        self.size_ = 1

    def crew(self, spec_digest: str, spec: Mapping[str, Any]) -> str:
        return "crew"

    def can(self, spec: Mapping[str, Any]) -> str:
        return ""

    def size(self, crew: str) -> int:
        return self.size_

    def seconds(self, crew: str, cells: int) -> float:
        return 1.0

    def load(self, crew: str) -> tuple[int, int]:
        return 0, 0

    def start(self, batch: types.Batch, *, time_limit: float | None = None, ahead: bool = False) -> None:
        self.batches[batch.nonce] = batch
        self.stops[batch.nonce] = {}
        self.started.append(batch)

    def stop_cells(self, jobs: set[int], cause: Cause, *, only: str = "") -> None:
        for nonce, batch in self.batches.items():
            if not only or nonce == only:
                mine = [c.job for c in batch.cells if c.job in jobs]
                self.stops[nonce] = {**dict.fromkeys(mine, cause), **self.stops[nonce]}

    def tick(self) -> None: ...

    def close(self) -> None: ...


class World:
    """A controller with two or more empty lanes of this machine.

    Attributes:
        now: what its clock says.
    """

    def __init__(self, folder: Path, *, lanes: Sequence[str] = ("left", "right"), cores: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        cluster = folder / "cluster.yaml"
        cluster.write_text("lanes:\n" + "".join(f"  {x}: {{transport: local, cores: {cores}}}\n" for x in lanes))
        self.home = Home(folder / "home", cluster)
        self.home.create()
        self.journal = Journal.open(self.home, Role.CONTROLLER, create=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(controllers, "Pool", FakePool)
            self.controller = controllers.Controller(self.home, self.journal)
        pool: Any = self.controller.dispatch.pool.local
        self.pool: FakePool = pool
        self.dispatch = self.controller.dispatch
        self.twins = self.dispatch.twins
        self.books = self.controller.m.books
        self.now = 1000.0
        self.controller.scheduler.outlook.clock = lambda: self.now
        self.controller.roster.declare()
        for lane, book in self.books.items():
            book.hello = {"cores": cores, "memory_mb": 10_000, "gpus": []}
            self.set_lane(lane, LaneState.UP)
        with self.journal.transaction() as tx:
            tx.append(K.CONTROLLER_UP, data={"pid": 1, "boot": "x", "cluster": "", "ray": []})

    def close(self) -> None:
        self.controller.live.close()
        self.journal.close()

    # What happens.

    def sweep(self, cells: int, *, spec: Mapping[str, Any] | None = None, **more: Any) -> int:
        """Somebody submits a sweep. Returns its id."""
        return Submitter(self.home, toysweep.Toy(), **(spec or {})).sweep([{"i": i} for i in range(cells)], **more)

    def ask(self, kind: K, *jobs: int) -> None:
        """Somebody asks something of these jobs."""
        ask(self.home, kind, *jobs)

    def set_lane(self, lane: str, state: LaneState) -> None:
        """In our books alone: the roster would start its agent."""
        self.books[lane].state = state

    def turn(self, dt: float = _LOOK_S, *, times: int = 1) -> None:
        """Time passes, and the controller's loop takes a turn."""
        for _ in range(times):
            self.now += dt
            self.controller._blocked = False  # as if what waits were tried again at once
            self.controller._changed = True
            self.controller._turn()
            self.check()

    def end(
        self,
        nonce: str,
        *,
        ends: Iterable[CellEnd] = (),
        back: Collection[int] = (),
        seconds: float = FAST_S,
    ) -> None:
        """The batch comes back; what is not named went well."""
        batch = self.pool.batches.pop(nonce)
        del self.pool.stops[nonce]
        ends = list(ends)
        named = {*back, *(e.job for e in ends)}
        ok = [c.job for c in batch.cells if c.job not in named]
        done = BatchDone(nonce, ok, ends, sorted(back), {}, seconds, None)
        self.controller._handle(("batch", batch.lane, done))
        self.check()

    def end_all(self, *, but: Collection[str] = ()) -> None:
        """All batches end well, and all that come after them."""
        for _ in range(400):
            for nonce in [n for n in self.pool.batches if n not in but]:
                self.end(nonce, seconds=FAST_S * len(self.pool.batches[nonce].cells))
            self.turn(0.01)
            if not self.pool.batches.keys() - set(but):
                return
        raise AssertionError(f"batches do not cease: {list(self.pool.batches.values())}")

    # What there is.

    def jobs(self, nonce: str) -> list[int]:
        return [c.job for c in self.pool.batches[nonce].cells]

    def cells(self, nonce: str) -> tuple[Cell, ...]:
        return self.pool.batches[nonce].cells

    def cells_of(self, sweep: int) -> range:
        """Ids of a sweep's own cells."""
        return range(sweep + 1, sweep + 1 + query.sweep(self.journal.conn, sweep).cells)

    def lane(self, nonce: str) -> str:
        return self.pool.batches[nonce].lane

    @property
    def copies(self) -> list[str]:
        """Nonces of second copies that nobody has told to stop."""
        return list(self.twins.running)

    def stopped(self, nonce: str) -> set[Cause]:
        """Why all cells of this batch are to stop; empty when one is not."""
        stops = self.pool.stops[nonce]
        return set(stops.values()) if stops.keys() == set(self.jobs(nonce)) else set()

    def free(self, lane: str) -> int:
        return self.books[lane].free().cores

    def state(self, job: int) -> JobState:
        return query.job(self.journal.conn, job).state

    def attempts(self, job: int) -> list[Attempt]:
        return query.attempts(self.journal.conn, job)

    def placed(self, job: int) -> list[tuple[int, str]]:
        """(attempt, lane) of every batch that the journal has under way with this cell."""
        found = query.open_batches(self.journal.conn)
        return [(n, b.lane) for b in found for first, last, n in b.cells if first <= job <= last]

    def won(self) -> int:
        """How often a second copy was what counted."""
        return sum(
            e.kind == K.BATCH_ENDED and "ended first" in e.data["reason"]
            for e in query.events(self.journal.conn, limit=1_000_000)
        )

    # What always holds.

    def check(self) -> None:
        """The books agree with each other, with the pool, and with the journal."""
        d = self.dispatch
        assert d.fresh == sum(f.seq is None for f in d.flights.values()), "placements that are not recorded"
        assert d.flying == Counter(f.sweep for f in d.flights.values() if f.sweep is not None), "batches of each sweep"
        held = {n: lane for lane, book in self.books.items() for n in book.batches}
        assert held == {n: b.lane for n, b in self.pool.batches.items()}, "slots that are held"
        assert d.flights.keys() - d.done.keys() <= self.pool.batches.keys()
        assert self.twins.beaten.keys() | self.twins.running.keys() <= self.pool.batches.keys()
        copied = Counter(b.copy_of for b in self.twins.running.values())
        assert copied.keys() <= d.flights.keys()
        assert set(copied.values()) <= {1}, "copies of one batch"
        assert self.twins.tried <= d.flights.keys()
        recorded = {f.batch.nonce for f in d.flights.values() if f.seq is not None}
        found = query.open_batches(self.journal.conn)
        assert {b.nonce for b in found} == recorded
        often = [job for job, n in Counter(j for b in found for j in _jobs(b)).items() if n > 1]
        assert not often, f"cells with more than one open batch: {often}"

    def check_over(self, *sweeps: int) -> None:
        """The sweeps have ended, each cell with exactly one record that says so, and nothing is left in any book."""
        for sweep in sweeps:
            assert self.state(sweep).terminal, (sweep, self.state(sweep))
        d, t = self.dispatch, self.twins
        left = [d.flights, d.done, d.fresh, d.flying, t.running, t.beaten, t.winners, t.tried]
        assert not any(left), left
        mine = [job for sweep in sweeps for job in (sweep, *self.cells_of(sweep))]
        ends = self._ends()
        wrong = {job: ends[job] for job in mine if ends[job] != 1}
        assert not wrong, f"terminal records other than one: {wrong}"

    def _ends(self) -> Counter[int]:
        ends: Counter[int] = Counter()
        for e in query.events(self.journal.conn, limit=1_000_000):
            if e.kind == K.BATCH_ENDED:
                ends.update(job for first, last, _ in e.data["ok"] for job in range(first, last + 1))
            elif e.kind == K.CELLS and JobState(e.data["state"]).terminal:
                ends.update(job for first, last in e.data["cells"] for job in range(first, last + 1))
            elif e.job is not None and (
                e.kind == K.JOB_ENDED or (e.kind == K.CELL_ENDED and e.data["to"] != JobState.QUEUED)
            ):
                ends[e.job] += 1
        return ends


def _jobs(batch: Batch) -> list[int]:
    return [job for first, last, _ in batch.cells for job in range(first, last + 1)]


def ended(
    cells: Iterable[Cell], state: AttemptState, cause: Cause = Cause.ERROR, *, undeclared: tuple[str, ...] = ()
) -> list[CellEnd]:
    """The same end for each of these cells."""
    return [CellEnd(c.job, c.attempt, state, cause, "as the test says", 0.1, undeclared) for c in cells]


class Chance:
    """Random work, ends, requests, lanes that come and go, and records that fail; the invariants after every step.

    Args:
        folder: for its world.
        seed: the same one does the same.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.r = r = random.Random(seed)
        lanes = ("left", "right", "mid")[: r.choice([2, 2, 3])]
        self.world = world = World(folder, lanes=lanes, cores=r.choice([1, 2]))
        world.pool.size_ = r.choice([1, 2, 4])
        self.fails = r.random() < 0.4
        spec = {"retries": {"error": r.choice([0, 1, 2])}} if r.random() < 0.5 else {}
        self.sweeps: list[int] = []
        for _ in range(r.choice([1, 2])):
            more: dict[str, Any] = {"max_fails": r.choice([0, 1, 3])} if r.random() < 0.2 else {}
            more |= {"at_once": 2} if r.random() < 0.1 else {}
            self.sweeps.append(world.sweep(r.choice([2, 5, 9, 14]), spec=spec, **more))

    def write_ended(self, *args: Any, **named: Any) -> None:
        """In the place of `write_ended`: now and then a bug, or a journal that somebody holds."""
        if self.fails and self.r.random() < 0.05:
            raise RuntimeError("said the test")
        if self.fails and self.r.random() < 0.03:
            raise Unavailable("the journal is held, said the test")
        write_ended(*args, **named)

    def step(self) -> None:
        r, world, x = self.r, self.world, self.r.random()
        if x < 0.55:
            if world.pool.batches:
                self._end_one()
        elif x < 0.6:
            self._ask()
        elif x < 0.68:
            world.now += OF_THE_FIRST_S
        elif x < 0.71:
            world.set_lane(r.choice(list(world.books)), r.choice([LaneState.UP, LaneState.UNREACHABLE]))
        if r.random() < 0.6:
            world.turn()
        world.check()

    @property
    def over(self) -> bool:
        return not self.world.pool.batches and all(self.world.state(s).terminal for s in self.sweeps)

    def _ask(self) -> None:
        sweep = self.r.choice(self.sweeps)
        kind = self.r.choice([K.CANCEL_ASKED, K.HOLD_ASKED, K.RELEASE_ASKED, K.RELEASE_ASKED])
        self.world.ask(kind, sweep if self.r.random() < 0.25 else self.r.choice(self.world.cells_of(sweep)))

    def _end_one(self) -> None:
        r, world = self.r, self.world
        pairs = [n for n in world.pool.batches if n in world.twins.running or n in world.twins.beaten]
        nonce = r.choice(pairs if pairs and r.random() < 0.5 else list(world.pool.batches))
        stops = world.pool.stops[nonce]
        ends: list[CellEnd] = []
        for cell in world.cells(nonce):
            if cell.job in stops and r.random() < 0.8:
                ends += ended([cell], AttemptState.CANCELLED, stops[cell.job])
        rest = [c for c in world.cells(nonce) if c.job not in {e.job for e in ends}]
        some = [c for c in rest if r.random() < 0.7]
        back: list[int] = []
        how = r.random()
        if 0.5 <= how < 0.6:
            back = [c.job for c in rest]
        elif 0.6 <= how < 0.75:
            back = [c.job for c in rest[r.randrange(len(rest) + 1) :]]
        elif 0.75 <= how < 0.9:
            ends += [e for c in some for e in ended([c], r.choice([AttemptState.FAILED, AttemptState.LOST]))]
        elif how >= 0.9:
            ends += ended(some, AttemptState.SUCCEEDED, Cause.OK, undeclared=("/x",))
        world.end(nonce, ends=ends, back=back)

    def finish(self) -> None:
        """Nothing more goes wrong: all ends."""
        world, self.fails = self.world, False
        for lane in world.books:
            world.set_lane(lane, LaneState.UP)
        for sweep in self.sweeps:
            world.ask(K.RELEASE_ASKED, sweep, *world.cells_of(sweep))
        world.turn()
        world.end_all()
        world.check_over(*self.sweeps)
