"""Batches that were under way when a controller died or goes down: what their run directories prove is taken."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from core.journal import query
from lanes import lookups
from lanes.flights import Flight
from lanes.mirror import say
from lanes.pool.types import Batch, BatchDone, Cell

if TYPE_CHECKING:
    from lanes.dispatch import Dispatch


def recover(d: Dispatch) -> None:
    """Batches that were under way when the controller died: what their run directories prove is taken."""
    conn = d.m.journal.conn
    for open_batch in query.open_batches(conn):
        spans = [(first, last) for first, last, _ in open_batch.cells]
        sweep = lookups.sweep_of(conn, spans[0][0])
        home = query.job(conn, spans[0][0])
        rows = lookups.jobs(conn, spans) if sweep is None else lookups.cells(conn, spans, query.job(conn, sweep).spec)
        numbers = {job: n for first, last, n in open_batch.cells for job in range(first, last + 1)}
        spec = d.m.spec(home.spec)
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
        d.flights[batch.nonce] = Flight(batch, sweep, runs, open_batch.seq)
        if sweep is not None:
            d.flying[sweep] += 1
        if d.pool.is_far(batch.lane):
            # It may well run there: the lane is asked, for as long as it takes to answer.
            d.m.books[batch.lane].hold_batch(batch.nonce, batch.grant)
            d.pool.adopt(batch)
            say(f"batch {batch.dir}: lane {batch.lane} is asked what became of it")
            continue
        d.done[batch.nonce] = collect(d, batch)
        found = d.done[batch.nonce]
        back = len(found.back)
        say(f"batch {batch.dir}: {len(found.ok)} of {len(batch.cells)} cells had succeeded, {back} go back")


def abandon(d: Dispatch) -> None:
    """We go down: the workers here are ended, and what they had done by then is taken. Other lanes work on."""
    d.pool.close(kill=d.m.killing)
    for nonce, flight in d.flights.items():
        if nonce not in d.done and not (d.pool.is_far(flight.batch.lane) and not d.m.killing):
            d.done[nonce] = collect(d, flight.batch)


def collect(d: Dispatch, batch: Batch) -> BatchDone:
    try:
        found = d.pool.collect(d.m.home.batches / batch.dir, batch.cells)
    except Exception as error:
        say(f"batch {batch.dir} cannot be read ({type(error).__name__}: {error}): its cells run again")
        found = BatchDone(batch.nonce, [], [], [c.job for c in batch.cells], {}, 0.0, None, True)
    return replace(found, nonce=batch.nonce)
