"""Batches of pooled cells: formed, sent to the pool, and recorded.

A batch is sent first and recorded after, so that no worker waits for the disk: its cells are pure, and one that ran
before its placement was recorded has harmed nothing. All ends that came in and all placements of one turn of the
controller's loop share one transaction; the placement of a batch that takes but milliseconds waits for its end. What
dies with us is in the batches' run directories (see `recover`).
"""

from __future__ import annotations

import functools
import math
import secrets
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from core.journal import Event, Tx, query
from core.states import AttemptState, Cause, EventKind
from lanes import decide, lookups
from lanes.decide import Known
from lanes.ledger import grant_of
from lanes.lookups import CellRow, Waiting
from lanes.mirror import Mirror, Spec, say
from lanes.parts import of_committed, part_of
from lanes.pool.front import Front
from lanes.pool.types import Batch, BatchDone, Cell, CellEnd
from lanes.ranges import Span, runs_of, spans_of
from lanes.sweeps import LiveSweep

if TYPE_CHECKING:
    from lanes.outlook import Outlook
    from lanes.pool.pool import Pool

_PATIENCE_S = 0.01  # for so long the placement of a batch that is soon done waits to be recorded together with its end
_SOON_S = 0.005
_AHEAD_S = 0.15  # nothing is sent ahead behind batches that take longer
_FAR_AHEAD_S = 1.0  # on another lane, where the way there and back is part of it
_LEAST_S = 0.006  # near the end of a sweep a shorter batch would cost more than it evens out
_UNKNOWN = 4  # cells of the first batches, when nobody knows how long they take: they could be hours


@dataclass
class Flight:
    """A batch that is under way. `seq` is that of its placement, None until it is recorded."""

    batch: Batch
    sweep: int | None
    runs: list[list[int]]
    seq: int | None = None
    sent: float = field(default_factory=time.monotonic)

    @property
    def spans(self) -> list[Span]:
        return [(first, last) for first, last, _ in self.runs]

    @functools.cached_property
    def attempts(self) -> dict[int, int]:
        return {c.job: c.attempt for c in self.batch.cells}


@dataclass
class Written:
    """What one transaction says of batches; it comes true when that is committed (`Dispatch.landed`)."""

    events: list[Event] = field(default_factory=list)
    placed: dict[str, int] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    stirs: bool = False


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

    def poolable(self, spec: Spec) -> bool:
        """Can any lane that it may go to run what has this spec in warm workers? If not it runs by itself."""
        wanted = spec.needs.lane
        return any(
            book.pools and (wanted is None or wanted == name) and not self._why_not(spec, name)
            for name, book in self.m.books.items()
        )

    def bars(self, spec: Spec) -> frozenset[str]:
        """Lanes with warm workers to which no batch of this spec is to be sent now."""
        return frozenset(
            name
            for name, book in self.m.books.items()
            if book.pools and (self._why_not(spec, name) or self.pool.busy(name))
        )

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
        nonce = secrets.token_hex(4)
        grant = grant_of(spec.needs, gpus)
        batch = Batch(
            nonce=nonce,
            dir=f"{rows[0].id}-{nonce}",
            lane=lane,
            spec_digest=spec.digest,
            spec=spec.data,
            grant=grant,
            cells=tuple(Cell(r.id, r.attempts + 1, r.key, r.params) for r in rows),
        )
        self.flights[nonce] = Flight(batch, sweep, runs_of((r.id, r.attempts + 1) for r in rows))
        self.m.books[lane].hold_batch(nonce, grant)
        if self.outlook is not None and len(self.m.books) > 1:
            self.outlook.sent(nonce, lane, spec, [r.id for r in rows])
        self.pool.start(batch, time_limit=spec.data["limits"]["time_s"], ahead=ahead)
        now = time.monotonic()
        soon = now + _PATIENCE_S if self.pool.seconds(self._crew(spec), len(rows), lane) < _SOON_S else now
        self._record_at = min(soon, self._record_at) if self.fresh else soon
        self.fresh += 1

    def stop(self, jobs: Collection[int]) -> None:
        """Have cells that are under way stopped: they are being cancelled."""
        wanted = set(jobs)
        under_way = {c.job for f in self.flights.values() for c in f.batch.cells if c.job in wanted}
        if under_way:
            self.pool.stop_cells(under_way, Cause.CANCELLED)

    # Back.

    def take(self, done: BatchDone) -> None:
        """A batch came back: its slot is free at once, its cells are as soon as that is recorded."""
        flight = self.flights.get(done.nonce)
        if flight is None or done.nonce in self.done:
            return
        self.done[done.nonce] = done
        if done.ok:
            lane = flight.batch.lane
            self._known_crews.add((lane, self.pool.crew(flight.batch.spec_digest, flight.batch.spec)))
            if flight.sweep is not None:
                self._pace[(flight.sweep, lane)] = max(1e-6, done.seconds / len(done.ok))
        book = self.m.books.get(flight.batch.lane)
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
            self._ended(tx, flight, seq, self.done[nonce], out)
        for nonce, flight in self.flights.items():
            if flight.seq is None and nonce not in out.placed and only is None:
                self._placed(tx, flight, out)
        return out

    def landed(self, written: Written) -> None:
        """What was written is on disk."""
        for nonce, seq in written.placed.items():
            self.flights[nonce].seq = seq
            self.fresh -= 1
        for nonce in written.ended:
            flight = self.flights.pop(nonce)
            del self.done[nonce]
            if flight.sweep is not None:
                self.flying[flight.sweep] -= 1
                if not self.flying[flight.sweep]:
                    del self.flying[flight.sweep]
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

    def _placed(self, tx: Tx, flight: Flight, out: Written) -> int:
        b = flight.batch
        data = {"dir": b.dir, "nonce": b.nonce, "grant": b.grant, "cells": flight.runs}
        event = Event(EventKind.BATCH_PLACED, lane=b.lane, data=data)
        seq = out.placed[b.nonce] = tx.extend([event])
        out.events.append(event)
        return seq

    def _ended(self, tx: Tx, flight: Flight, seq: int, done: BatchDone, out: Written) -> None:
        verdict = decide.conclude_batch(done, self._known(tx, flight, seq, done))
        tables = of_committed(done.tables, verdict, len(flight.batch.cells))
        attempts = flight.attempts
        ok = runs_of((job, attempts[job]) for job in verdict.ok)
        back = runs_of((job, attempts[job]) for job in verdict.back)
        data: dict[str, Any] = {
            "batch": seq,
            "seconds": done.seconds,
            "cause": str(Cause.OK),
            "reason": "",
            "manifest": done.manifest,
            "ok": ok,
            "back": back,
            "parts": [part_of(name, table) for name, table in tables],
        }
        if verdict.ended:
            tx.extend(verdict.ended)
        end = Event(EventKind.BATCH_ENDED, lane=flight.batch.lane, data=data)
        end_seq = tx.extend([end])
        for place, (_, table) in enumerate(tables):
            tx.attach(end_seq, place, table.data)
        if verdict.answered:
            tx.extend(verdict.answered)
        out.events += [*verdict.ended, end, *verdict.answered]
        out.ended.append(done.nonce)
        again = flight.sweep is None and (back or any(e.data["to"] == "queued" for e in verdict.ended))
        out.stirs = out.stirs or bool(again) or any(lookups.needed(tx.conn, *span) for span in flight.spans)

    def _known(self, tx: Tx, flight: Flight, seq: int, done: BatchDone) -> Known:
        conn, spans, attempts = tx.conn, flight.spans, flight.attempts
        plain = len(done.ok) == len(attempts)
        used: dict[int, int] = {}
        for end in done.ends:
            if attempts.get(end.job, 1) > 1:
                used.update(lookups.causes(conn, [(end.job, attempts[end.job])], str(end.cause)))
        return Known(
            seq=seq,
            lane=flight.batch.lane,
            attempts=attempts,
            spec=flight.batch.spec,
            unwanted=frozenset(lookups.unwanted(conn, spans) & attempts.keys()),
            used=used,
            wishes={} if plain else lookups.wishes(conn, spans),
        )

    def lane_gone(self, lane: str) -> None:
        """The lane was given up: what it has of ours goes back to the queue, and is refused if it comes back."""
        self.pool.give_up(lane)

    # After a death.

    def recover(self) -> None:
        """Batches that were under way when the controller died: what their run directories prove is taken."""
        conn = self.m.journal.conn
        for open_batch in query.open_batches(conn):
            spans = [(first, last) for first, last, _ in open_batch.cells]
            sweep = lookups.sweep_of(conn, spans[0][0])
            home = query.job(conn, spans[0][0])
            rows = (
                lookups.jobs(conn, spans) if sweep is None else lookups.cells(conn, spans, query.job(conn, sweep).spec)
            )
            numbers = {job: n for first, last, n in open_batch.cells for job in range(first, last + 1)}
            spec = self.m.spec(home.spec)
            batch = Batch(
                nonce=open_batch.nonce,
                dir=open_batch.dir,
                lane=open_batch.lane,
                spec_digest=spec.digest,
                spec=spec.data,
                grant=open_batch.grant,
                cells=tuple(Cell(r.id, numbers[r.id], r.key, r.params) for r in rows),
            )
            runs = [list(r) for r in open_batch.cells]
            self.flights[batch.nonce] = Flight(batch, sweep, runs, open_batch.seq)
            if sweep is not None:
                self.flying[sweep] += 1
            if self.pool.is_far(batch.lane):
                # It may well run there: the lane is asked, for as long as it takes to answer.
                self.m.books[batch.lane].hold_batch(batch.nonce, batch.grant)
                self.pool.adopt(batch)
                say(f"batch {batch.dir}: lane {batch.lane} is asked what became of it")
                continue
            self.done[batch.nonce] = self.collect(batch)
            found = self.done[batch.nonce]
            back = len(found.back)
            say(f"batch {batch.dir}: {len(found.ok)} of {len(batch.cells)} cells had succeeded, {back} go back")

    def abandon(self) -> None:
        """We go down: the workers here are ended, and what they had done by then is taken. Other lanes work on."""
        self.pool.close(kill=self.m.killing)
        for nonce, flight in self.flights.items():
            if nonce not in self.done and not (self.pool.is_far(flight.batch.lane) and not self.m.killing):
                self.done[nonce] = self.collect(flight.batch)

    def collect(self, batch: Batch) -> BatchDone:
        try:
            found = self.pool.collect(self.m.home.batches / batch.dir, batch.cells)
        except Exception as error:
            say(f"batch {batch.dir} cannot be read ({type(error).__name__}: {error}): its cells run again")
            found = BatchDone(batch.nonce, [], [], [c.job for c in batch.cells], {}, 0.0, None, True)
        return replace(found, nonce=batch.nonce)
