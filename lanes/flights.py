"""Batches that are under way, and what is recorded of them."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field
from typing import Any

from core.journal import Event, Tx
from core.states import Cause, EventKind
from lanes import decide, lookups
from lanes.decide import Known
from lanes.parts import of_committed, part_of
from lanes.pool.types import Batch, BatchDone
from lanes.ranges import Span, runs_of


@dataclass
class Flight:
    """A batch that is under way.

    Attributes:
        seq: that of its placement, None until it is recorded.
        copy_of: nonce of the batch whose cells it runs a second time, if it does.
    """

    batch: Batch
    sweep: int | None
    runs: list[list[int]]
    seq: int | None = None
    sent: float = field(default_factory=time.monotonic)
    copy_of: str = ""

    @property
    def spans(self) -> list[Span]:
        return [(first, last) for first, last, _ in self.runs]

    @functools.cached_property
    def attempts(self) -> dict[int, int]:
        return {c.job: c.attempt for c in self.batch.cells}


@dataclass
class Written:
    """What one transaction says of batches; it comes true when that is committed (`Dispatch.landed`).

    Attributes:
        dropped: copies whose cells nobody waits for any more: nothing is said of them.
    """

    events: list[Event] = field(default_factory=list)
    placed: dict[str, int] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    stirs: bool = False


def write_placed(tx: Tx, flight: Flight, out: Written) -> int:
    """Record that a batch was placed. Returns the sequence number."""
    b = flight.batch
    data = {"dir": b.dir, "nonce": b.nonce, "grant": b.grant, "cells": flight.runs}
    if flight.copy_of:
        data["copy_of"] = flight.copy_of
    event = Event(EventKind.BATCH_PLACED, lane=b.lane, data=data)
    seq = out.placed[b.nonce] = tx.extend([event])
    out.events.append(event)
    return seq


def write_ended(tx: Tx, flight: Flight, seq: int, done: BatchDone, out: Written, *, reason: str = "") -> None:
    """Record how the batch that was placed at `seq` ended."""
    verdict = decide.conclude_batch(done, _known(tx, flight, seq, done))
    tables = of_committed(done.tables, verdict, len(flight.batch.cells))
    attempts = flight.attempts
    ok = runs_of((job, attempts[job]) for job in verdict.ok)
    back = runs_of((job, attempts[job]) for job in verdict.back)
    data: dict[str, Any] = {
        "batch": seq,
        "seconds": done.seconds,
        "cause": str(Cause.OK),
        "reason": reason,
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


def _known(tx: Tx, flight: Flight, seq: int, done: BatchDone) -> Known:
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
