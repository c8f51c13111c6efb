"""Sweeps of pooled cells and their rows, recorded as the controller would record them, without running anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from core.journal import Journal
from core.journal.store import Tx
from core.states import EventKind as K

Row = Mapping[str, Any]

SPEC: dict[str, Any] = {
    "kind": "toy",
    "version": 1,
    "inputs": [],
    "code": None,
    "kind_code": {"digest": "k"},
    "packages": {},
    "env": {},
    "outputs": [],
    "needs": {"cores": 1, "gpus": 0},
    "limits": {"time_s": 60.0},
}


def sweep(tx: Tx, axes: Mapping[str, Sequence[Any]], *, members: Sequence[int] = (), kind: str = "toy") -> int:
    """Record an open sweep over the product of `axes`. Returns its id."""
    import itertools

    s = tx.next_job_id()
    tx.append(K.SPEC, data={"digest": "d1", "data": json.dumps(SPEC)})
    cells = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    tx.add_cells(
        (s + 1 + i, s, f"{s:08x}{i:056x}", " ".join(f"{k}={v}" for k, v in cell.items()), json.dumps(cell), None)
        for i, cell in enumerate(cells)
    )
    data = {
        "spec": "d1",
        "kind": kind,
        "name": "a sweep",
        "params": {},
        "key": f"{s:064x}",
        "priority": 0,
        "idem": None,
        "tags": [],
        "note": "",
        "held": False,
        "rerun_of": None,
        "after": [],
        "cells": len(cells),
        "pooled": 1,
        "at_once": None,
        "max_fails": None,
        "axes": [[name, list(values)] for name, values in axes.items()],
        "members": list(members),
    }
    tx.append(K.SWEPT, job=s, data=data)
    tx.append(K.SWEEP_OPENED, job=s)
    return s


def payload(rows: Sequence[Row], schema: pa.Schema | None = None) -> bytes:
    """Rows with `job` and `attempt` as a worker sends them."""
    table = pa.Table.from_pylist([dict(r) for r in rows], schema=schema)
    table = table.set_column(0, "job", table.column("job").cast(pa.int64()))
    table = table.set_column(1, "attempt", table.column("attempt").cast(pa.int32()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def batch(
    tx: Tx,
    first: int,
    last: int,
    make: Callable[[int], Sequence[Row] | Row],
    *,
    table: str = "t",
    folder: str | None = None,
    manifest: str | None = "m",
    sha256: str | None = None,
) -> int:
    """Place and end a batch of the cells `first` to `last`, all well, with the rows that `make` gives for each job."""
    name = folder or f"{first}-00000000"
    data: dict[str, Any] = {"dir": name, "nonce": "00000000", "grant": {"cores": 1}, "cells": [[first, last, 1]]}
    placed = tx.append(K.BATCH_PLACED, lane="local", data=data)
    rows = []
    for job in range(first, last + 1):
        made = make(job)
        rows += [{"job": job, "attempt": 1, **r} for r in ([made] if isinstance(made, Mapping) else made)]
    parts = []
    if rows:
        blob = payload(rows)
        digest = sha256 or hashlib.sha256(blob).hexdigest()
        parts.append(
            {
                "table": table,
                "path": "",
                "rows": len(rows),
                "bytes": len(blob),
                "sha256": digest,
                "first": first,
                "last": last,
            }
        )
    data = {
        "batch": placed,
        "seconds": 0.1,
        "cause": "ok",
        "reason": "",
        "manifest": manifest,
        "ok": [[first, last, 1]],
        "back": [],
        "parts": parts,
    }
    seq = tx.append(K.BATCH_ENDED, lane="local", data=data)
    if rows:
        tx.attach(seq, 0, blob)
    return seq


def end(tx: Tx, s: int, state: str = "succeeded") -> None:
    cause = "ok" if state == "succeeded" else "error"
    tx.append(K.JOB_ENDED, job=s, data={"state": state, "cause": cause, "reason": "", "undeclared": 0})


def compact(journal: Journal, *, rounds: int = 20) -> list[str]:
    """Let the compactor work until it has nothing to do, as the controller would. Returns what it committed."""
    import queue

    from lanes.compactor import Compactor

    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    compactor = Compactor(journal.home, journal, inbox.put)
    done = []
    now = 1000.0
    for _ in range(rounds):
        now += 100.0
        compactor.maybe(now, True)
        if compactor._thread is not None:
            compactor._thread.join()
        while not inbox.empty():
            what, _lane, body = inbox.get()
            done.append(body.merged.table)
            assert what == "compacted"
            with journal.transaction() as tx:
                compactor.commit(tx, body)
    compactor.maybe(now + 1000.0, True)
    compactor.finish()
    return done
