"""Batches of pooled cells: formed, sent to the pool, and recorded.

A batch is sent first and recorded after, so that no worker waits for the disk: its cells are pure, and one that ran
before its placement was recorded has harmed nothing. All ends that came in and all placements of one turn of the
controller's loop share one transaction; the placement of a batch that takes but milliseconds waits for its end. What
dies with us is in the batches' run directories (see `aftermath`).
"""

from __future__ import annotations

import math
import secrets
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from core.journal import Event, Tx
from core.states import AttemptState, Cause, EventKind
from lanes import lookups
from lanes.flights import Flight, Written, write_ended, write_placed
from lanes.ledger import grant_of
from lanes.lookups import CellRow, Waiting
from lanes.mirror import Mirror, Spec, say
from lanes.pool.front import Front
from lanes.pool.types import Batch, BatchDone, Cell, CellEnd
from lanes.ranges import runs_of, spans_of
from lanes.sweeps import LiveSweep
from lanes.twins import Twins

if TYPE_CHECKING:
    from lanes.outlook import Outlook
    from lanes.pool.pool import Pool

_PATIENCE_S = 0.01  # for so long the placement of a batch that is soon done waits to be recorded together with its end
_SOON_S = 0.005
_AHEAD_S = 0.15  # nothing is sent ahead behind batches that take longer
_FAR_AHEAD_S = 1.0  # on another lane, where the way there and back is part of it
_LEAST_S = 0.006  # near the end of a sweep a shorter batch would cost more than it evens out
_UNKNOWN = 4  # cells of the first batches, when nobody knows how long they take: they could be hours


class Dispatch:
    """The controller's side of the pool."""

    def __init__(self, mirror: Mirror, pool: Pool) -> None:
        self.m = mirror
        self.pool = Front(pool, mirror)
        self.flights: dict[str, Flight] = {}
        self.flying: Counter[int] = Counter()  # batches of each sweep
        self.done: dict[str, BatchDone] = {}  # came in, not recorded
        mirror.listeners.append(self.hear)
        self.fresh = 0  # flights whose placement is not recorded
        self._record_at = 0.0  # when it should be at the latest
        self._refused: dict[tuple[str, str], str] = {}  # spec digest, lane -> what was said of it last
        self._known_crews: set[tuple[str, str]] = set()  # lane, crew: of which a batch has come back
        self.outlook: Outlook | None = None  # is told when what is under way should end
        self._pace: dict[tuple[int, str], float] = {}  # sweep, lane -> seconds that a cell took in its newest batch
        self.twins = Twins()

    def poolable(self, spec: Spec) -> bool:
        """Can any lane that it may go to run what has this spec in warm workers? If not it runs by itself."""
        wanted = spec.needs.lane
        return any(
            book.pools and (wanted is None or wanted == name) and not self._why_not(spec, name)
            for name, book in self.m.books.items()
        )

    def bars(self, spec: Spec) -> frozenset[str]:
        """Lanes with warm workers to which no batch of this spec is to be sent now."""
        found = {n: self._why_not(spec, n) or self.pool.busy(n) for n, book in self.m.books.items() if book.pools}
        for name, why in found.items():
            self.m.books[name].bar(spec.digest, why)
        return frozenset(name for name, why in found.items() if why)

    def _why_not(self, spec: Spec, lane: str) -> str:
        why = self.pool.can(spec.digest, spec.data, lane)
        if why and self._refused.get((spec.digest, lane)) != why:
            self._refused[(spec.digest, lane)] = why
            where = f" on lane {lane}" if self.pool.is_far(lane) else ""
            say(f"{spec.data['kind']} jobs do not run in warm workers{where}: {why}")
        return why

    def size(self, spec: Spec, lane: str | None = None) -> int:
        """How many cells the next batch may hold, on that lane or (None) on whichever lane it goes to."""
        crew = self._crew(spec)
        if lane is None:
            return min((self.size(spec, n) for n, b in self.m.books.items() if b.pools), default=1)
        size = self.pool.size(crew, lane)
        return max(1, size if (lane, crew) in self._known_crews else min(_UNKNOWN, size))

    def _crew(self, spec: Spec) -> str:
        return self.pool.crew(spec.digest, spec.data)

    # Out.

    def send_cells(
        self,
        sweep: LiveSweep,
        spec: Spec,
        lane: str,
        gpus: tuple[int, ...],
        *,
        slots: int,
        ahead: bool = False,
        cells: Sequence[int] = (),
    ) -> bool:
        """Send the next batch of a sweep, small enough to leave the other slots their share of what is left.

        Args:
            cells: these and no others.
        """
        if cells:
            mine = sorted(cell for cell in cells if sweep.waiting.discard(cell))
            rows = lookups.cells(self.m.journal.conn, spans_of(mine), sweep.spec)
            if not rows:
                return False
            self._send(rows, sweep.id, spec, lane, gpus, ahead=ahead)
            self.flying[sweep.id] += 1
            return True
        share = math.ceil(len(sweep.waiting) / max(1, slots))
        pace = self._pace.get((sweep.id, lane))
        n = min(self.size(spec, lane), max(share, int(_LEAST_S / pace) if pace else 1))
        rows = lookups.cells(self.m.journal.conn, sweep.waiting.peek(n), sweep.spec)
        if not sweep.uniform:
            rows = rows[: next((i for i, row in enumerate(rows) if row.spec != spec.digest), len(rows))]
        if not rows:
            return False
        sweep.waiting.take(len(rows))
        self._send(rows, sweep.id, spec, lane, gpus, ahead=ahead)
        self.flying[sweep.id] += 1
        return True

    def send_ahead(self, sweeps: Sequence[LiveSweep]) -> None:
        """Have a batch at hand for each worker that is soon done, so that none of them waits for us.

        Only for the sweep whose turn it is, and only while its batches are short: such a batch holds a slot that is not
        free yet.
        """
        sweep = next(iter(sweeps), None)
        if sweep is None or not sweep.uniform or sweep.row.at_once is not None or sweep.row.max_fails is not None:
            return
        lanes = {lane for of, lane in self._pace if of == sweep.id}
        if not lanes:
            return
        if self.outlook is not None and self.outlook.unlike and self.outlook.is_long(self.m.spec(sweep.spec)):
            return  # which cells go where is weighed for each batch
        flights: dict[str, list[Flight]] = {}
        for nonce, f in self.flights.items():
            if f.sweep == sweep.id and f.batch.lane in lanes and nonce not in self.done:
                flights.setdefault(f.batch.lane, []).append(f)
        now, spec = time.monotonic(), self.m.spec(sweep.spec)
        for lane, mine in flights.items():
            if any(f.sent < now - (_FAR_AHEAD_S if self.pool.is_far(lane) else _AHEAD_S) for f in mine):
                continue
            busy, waiting = self.pool.load(self._crew(spec), lane)
            for _ in range(busy - waiting):
                if not sweep.waiting:
                    return
                self.send_cells(sweep, spec, lane, (), slots=2 * max(busy, self.flying[sweep.id]), ahead=True)

    def send_jobs(self, jobs: Sequence[Waiting], spec: Spec, lane: str, gpus: tuple[int, ...]) -> None:
        """Send pooled jobs that belong to no sweep."""
        self._send(sorted(job.row for job in jobs), None, spec, lane, gpus)

    def _send(
        self,
        rows: Sequence[CellRow],
        sweep: int | None,
        spec: Spec,
        lane: str,
        gpus: tuple[int, ...],
        *,
        ahead: bool = False,
    ) -> None:
        cells = tuple(Cell(r.id, r.attempts + 1, r.key, r.params) for r in rows)
        flight = Flight(self._batch(cells, spec, lane, gpus), sweep, runs_of((c.job, c.attempt) for c in cells))
        self.flights[flight.batch.nonce] = flight
        self._start(flight, spec, ahead=ahead)
        self._is_fresh(self.pool.seconds(self._crew(spec), len(rows), lane))

    def _batch(self, cells: tuple[Cell, ...], spec: Spec, lane: str, gpus: tuple[int, ...]) -> Batch:
        nonce = secrets.token_hex(4)
        where = f"{cells[0].job}-{nonce}"
        return Batch(nonce, where, lane, spec.digest, spec.data, grant_of(spec.needs, gpus), cells)

    def _start(self, flight: Flight, spec: Spec, *, ahead: bool = False) -> None:
        batch = flight.batch
        self.m.books[batch.lane].hold_batch(batch.nonce, batch.grant)
        if self.outlook is not None and len(self.m.books) > 1:
            self.outlook.sent(batch.nonce, batch.lane, spec, [c.job for c in batch.cells])
        self.pool.start(batch, time_limit=spec.data["limits"]["time_s"], ahead=ahead)

    def _is_fresh(self, seconds: float) -> None:
        """A placement is to be recorded; that of a batch which takes no longer than `seconds` may wait for its end."""
        now = time.monotonic()
        soon = now + _PATIENCE_S if seconds < _SOON_S else now
        self._record_at = min(soon, self._record_at) if self.fresh else soon
        self.fresh += 1

    def stop(self, jobs: Collection[int]) -> None:
        """Have cells that are under way stopped: they are being cancelled."""
        wanted = set(jobs)
        under_way = {c.job for f in self.flights.values() for c in f.batch.cells if c.job in wanted}
        if under_way:
            self.pool.stop_cells(under_way, Cause.CANCELLED)

    # Second copies.

    def may_double(self, nonce: str) -> bool:
        """Is that batch under way, and was it never doubled? One copy is all that a batch gets, however it fares."""
        return nonce in self.flights and nonce not in self.done and nonce not in self.twins.tried

    def double(self, nonce: str, lane: str, gpus: tuple[int, ...]) -> None:
        """Start the cells of the batch `nonce` once more, on another lane. The first of the two to end well counts."""
        first = self.flights[nonce]
        spec = self.m.spec(first.batch.spec_digest)
        batch = self._batch(first.batch.cells, spec, lane, gpus)
        self.twins.tried.add(nonce)
        twin = self.twins.running[batch.nonce] = Flight(batch, first.sweep, first.runs, copy_of=nonce)
        begun = f"batch {first.batch.dir}: a second copy of it begins on lane {lane}"
        say(f"{begun}, where it should end before the first one does on {first.batch.lane}")
        self._start(twin, spec)

    def _twin_back(self, twin: Flight, done: BatchDone) -> None:
        """A second copy ended before the first did. If some of it went well, and nothing ill, it is what counts: a
        batch that takes long ends before all its cells have begun, and those go back to the queue."""
        nonce, jobs = twin.copy_of, {c.job for c in twin.batch.cells}
        if nonce not in self.flights or nonce in self.done:
            return
        well = len(done.ok) + sum(e.state is AttemptState.SUCCEEDED for e in done.ends)
        if not well or well + len(done.back) != len(jobs):
            return
        if lookups.wishes(self.m.journal.conn, twin.spans):
            return  # what is to be held or cancelled is what people know of: the first
        first = self.flights[nonce]
        self.twins.winners[nonce] = twin.batch.lane
        self.twins.beaten[nonce] = first.batch.lane
        self.done[nonce] = BatchDone(nonce, [], [], sorted(jobs), {}, time.monotonic() - first.sent, None)
        self._admit(twin)
        self.done[done.nonce] = done
        self.pool.stop_batch(first.batch, Cause.PREEMPTED)

    def _admit(self, twin: Flight) -> None:
        """The copy is now the only one: it is recorded as every batch is, after the end of the first."""
        self.flights[twin.batch.nonce] = twin
        assert twin.sweep is not None
        self.flying[twin.sweep] += 1
        self._is_fresh(0.0)

    def _first_back(self, done: BatchDone) -> None:
        """The first of two copies ended: the second takes its place if nothing came of it, and is stopped otherwise."""
        twin = self.twins.of(done.nonce)
        if twin is None:
            return
        del self.twins.running[twin.batch.nonce]
        if len(done.back) == len(twin.batch.cells) and not done.no_room:
            self._admit(twin)
        else:
            self._beat(twin)

    def _beat(self, twin: Flight) -> None:
        self.twins.beaten[twin.batch.nonce] = twin.batch.lane
        self.pool.stop_batch(twin.batch, Cause.PREEMPTED)

    def end_copies(self, lanes: Collection[str]) -> None:
        """Other work could go to these lanes: second copies make way."""
        for nonce, twin in [*self.twins.running.items()]:
            if twin.batch.lane in lanes:
                del self.twins.running[nonce]
                self._beat(twin)

    # Back.

    def take(self, done: BatchDone) -> None:
        """A batch came back: its slot is free at once, its cells are as soon as that is recorded."""
        lane = self.twins.beaten.pop(done.nonce, None)
        if lane is not None:
            self._let_go(lane, done)
            return
        twin = self.twins.running.pop(done.nonce, None)
        if twin is not None:
            self._let_go(twin.batch.lane, done)
            self._twin_back(twin, done)
            return
        flight = self.flights.get(done.nonce)
        if flight is None or done.nonce in self.done:
            return
        self.done[done.nonce] = done
        self._first_back(done)
        if done.ok:
            lane = flight.batch.lane
            self._known_crews.add((lane, self.pool.crew(flight.batch.spec_digest, flight.batch.spec)))
            if flight.sweep is not None:
                self._pace[(flight.sweep, lane)] = max(1e-6, done.seconds / len(done.ok))
        self._let_go(flight.batch.lane, done)

    def _let_go(self, lane: str, done: BatchDone) -> None:
        book = self.m.books.get(lane)
        if book is not None:
            book.release_batch(done.nonce)
        if self.outlook is not None:
            self.outlook.back(done.nonce)
        if done.no_room:
            # Until the reserve can be held again there is too little room for anything new.
            self.m.crowded = True
            if self.m.journal.release_reserve():
                say(f"the disk of {self.m.home.path} is full: no batch is sent until there is room")

    @property
    def waits(self) -> bool:
        """Is there something to record?"""
        return bool(self.done) or self.fresh > 0

    def patience(self) -> float:
        """Seconds for which the placements need not be recorded: their batches are about to end, and both go into one
        transaction. 0: record."""
        if self.done or not self.fresh:
            return 0.0
        return max(0.0, self._record_at - time.monotonic())

    def is_doubtful(self, limited: Collection[int]) -> bool:
        """Did a cell of one of these sweeps not end well? Then how many have failed must be known before the next."""
        return any(d.ends and self.flights[d.nonce].sweep in limited for d in self.done.values())

    # Recording.

    def write(self, tx: Tx, only: Iterable[str] | None = None) -> Written:
        """Write all ends that came in, and all placements that are not recorded, into `tx`."""
        out = Written()
        for nonce in self.done if only is None else only:
            flight = self.flights[nonce]
            seq = flight.seq if flight.seq is not None else self._placed(tx, flight, out)
            if seq is None:
                continue
            winner = self.twins.winners.get(nonce)
            reason = "" if winner is None else f"a second copy on lane {winner} ended first"
            write_ended(tx, flight, seq, self.done[nonce], out, reason=reason)
        for nonce, flight in self.flights.items():
            if flight.seq is None and nonce not in out.placed and nonce not in out.dropped and only is None:
                self._placed(tx, flight, out)
        return out

    def _placed(self, tx: Tx, flight: Flight, out: Written) -> int | None:
        """Record the placement. None: it is a copy that has to wait for its first one's end, or that is void."""
        if flight.copy_of:
            if flight.copy_of in self.flights and flight.copy_of not in out.ended:
                return None
            if not lookups.all_queued(tx.conn, flight.spans):
                out.dropped.append(flight.batch.nonce)  # cancelled meanwhile, or held: it counts for nothing
                return None
        return write_placed(tx, flight, out)

    def landed(self, written: Written) -> None:
        """What was written is on disk."""
        for nonce, seq in written.placed.items():
            self.flights[nonce].seq = seq
            self.fresh -= 1
        for nonce in [*written.ended, *written.dropped]:
            flight = self.flights.pop(nonce)
            if self.done.pop(nonce, None) is None:
                self._beat(flight)
            self.twins.winners.pop(nonce, None)
            self.twins.tried.discard(nonce)
            if flight.sweep is not None:
                self.flying[flight.sweep] -= 1
                if not self.flying[flight.sweep]:
                    del self.flying[flight.sweep]
        self.fresh -= len(written.dropped)
        if written.stirs:
            self.m.stale = True
        self.m.heard(written.events)

    def hear(self, events: Sequence[Event]) -> None:
        """A sweep that has ended has no pace."""
        for event in events:
            if event.kind is EventKind.JOB_ENDED and event.job is not None:
                for key in [k for k in self._pace if k[0] == event.job]:
                    del self._pace[key]

    def give_up(self, nonce: str, message: str) -> None:
        """An end that we cannot record as it came is recorded as a failure of all its cells."""
        done, flight = self.done[nonce], self.flights[nonce]
        ends = [
            CellEnd(c.job, c.attempt, AttemptState.FAILED, Cause.BAD_SEAL, message, None, ())
            for c in flight.batch.cells
        ]
        self.done[nonce] = replace(done, ok=[], ends=ends, back=[], tables={}, manifest=None)

    def lane_gone(self, lane: str) -> None:
        """The lane was given up: what it has of ours goes back to the queue, and is refused if it comes back."""
        self.pool.give_up(lane)
