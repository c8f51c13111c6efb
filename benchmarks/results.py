"""`lab results` on a million rows, against DuckDB alone on the same files.

python -m benchmarks.results [rows]

Each query runs in turn through lab (journal, digests, views) and in a bare DuckDB connection that was told the names of
the files; then both as whole processes. The promise: at most twice DuckDB alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Timing, in_turn, process, ratio, table
from core.home import Home
from core.journal import Journal, Role
from core.journal.store import Tx
from core.states import EventKind as K

ROWS = 1_000_000
CELLS = 100_000
RUNS = 9

QUERIES = {
    "group by": "SELECT backend, count(*) n, avg(error) mean, max(error) worst FROM bench GROUP BY backend",
    "filter": "SELECT job, backend, error FROM bench WHERE error < 0.01 AND size = 7",
    "all of it": "SELECT * FROM bench",
}
_BARE = """
import sys, duckdb, pyarrow.csv as csv
files, sql = sys.argv[2:], sys.argv[1]
with duckdb.connect() as db:
    db.read_parquet(files, union_by_name=True).create_view("bench")
    table = db.sql(sql).to_arrow_table()
csv.write_csv(table, sys.stdout.buffer)
"""


def main(words: list[str]) -> int:
    rows = int(words[0]) if words else ROWS
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} at the start, Python {sys.version.split()[0]}")
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="lab-bench-") as folder:
        home = Home(Path(folder) / "home")
        cells = min(CELLS, rows)
        with Journal.open(home, Role.CONTROLLER, create=True) as journal:
            fill(journal, cells, rows // cells)
            files = sorted(str(p) for p in (home.tables / "bench").glob("*.parquet"))
            size = sum(os.path.getsize(f) for f in files)
            time.sleep(2.5)  # a younger file is never trusted unread; "nothing remembered" shows what that costs
            print(f"{rows:,} rows of {cells:,} cells in {len(files)} files, {size / 1e6:.1f} MB")
            for name, sql in QUERIES.items():
                worst = max(worst, compare_query(home, journal, name, sql, files))
            worst = max(worst, compare_read(home, journal, files))
        for name in ("group by", "filter"):
            worst = max(worst, compare_process(home, name, QUERIES[name], files))
    print(f"\nthe largest ratio is {worst:.2f}")
    return 0 if worst <= 2 else 1


def compare_query(home: Home, journal: Journal, name: str, sql: str, files: list[str]) -> float:
    from core.tables import query

    def ours() -> Any:
        return query(home, journal.conn, sql)

    assert in_order(ours(), sql).equals(in_order(bare(sql, files)(), sql)), "lab and DuckDB do not agree"

    def cold() -> Any:
        for path in home.path.glob("digests.db*"):
            path.unlink()
        return ours()

    times = in_turn(RUNS, **{"lab": ours, "DuckDB alone": bare(sql, files)})
    times |= {"lab, nothing remembered": in_turn(RUNS, x=cold)["x"]}
    return show(f"{name}: {sql}", times)


def compare_read(home: Home, journal: Journal, files: list[str]) -> float:
    from core.tables import read_table

    def ours() -> object:
        return read_table(home, journal.conn, "bench")

    times = in_turn(RUNS, **{"lab": ours, "DuckDB alone": bare(QUERIES["all of it"], files)})
    return show("read_table, against DuckDB's SELECT *", times)


def compare_process(home: Home, name: str, sql: str, files: list[str]) -> float:
    lab = [sys.executable, "-P", "-m", "lab", "results", "--format", "csv", "--sql", sql]
    alone = [sys.executable, "-P", "-c", _BARE, sql, *files]
    times = in_turn(RUNS, **{"lab": process(lab, {"LAB_HOME": str(home.path)}), "DuckDB alone": process(alone)})
    return show(f"{name}, a process from start to end, as CSV", times)


def bare(sql: str, files: list[str]) -> Callable[[], Any]:
    import duckdb

    def run() -> Any:
        with duckdb.connect() as db:
            db.read_parquet(files, union_by_name=True).create_view("bench")
            return db.sql(sql).to_arrow_table()

    return run


def in_order(rows: Any, sql: str) -> Any:
    """Without the mean, whose last digit depends on the order in which threads add."""
    rows = rows.drop_columns([n for n in rows.column_names if n == "mean"])
    return rows.sort_by([(n, "ascending") for n in (("backend",) if "GROUP" in sql else ("job", "error"))])


def fill(journal: Journal, cells: int, each: int) -> None:
    """A sweep of `cells` cells with `each` rows, recorded in batches and compacted as the controller does it."""
    import hashlib
    import json

    each = max(1, each)
    with journal.transaction() as tx:
        s = tx.next_job_id()
        tx.append(K.SPEC, data={"digest": "d", "data": json.dumps({"kind": "bench"})})
        tx.add_cells(
            (s + 1 + i, s, hashlib.sha256(b"%d" % i).hexdigest(), f"a={i}", json.dumps({"a": i}), None)
            for i in range(cells)
        )
        data = {"spec": "d", "kind": "bench", "name": "", "params": {}, "key": f"{s:064x}", "priority": 0, "idem": None}
        more = {"tags": [], "note": "", "held": False, "rerun_of": None, "after": [], "cells": cells, "pooled": 1}
        tail = {"at_once": None, "max_fails": None, "axes": [["a", [0, 1]]], "members": []}
        tx.append(K.SWEPT, job=s, data={**data, **more, **tail})
        tx.append(K.SWEEP_OPENED, job=s)
    step = max(1, 50_000 // each)
    for begin in range(s + 1, s + cells + 1, step):
        with journal.transaction() as tx:
            _batch(tx, begin, min(begin + step - 1, s + cells), each)
    compact(journal)


def _batch(tx: Tx, first: int, last: int, each: int) -> None:
    import hashlib

    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(first)
    n = (last - first + 1) * each
    rows = pa.table(
        {
            "job": pa.array(np.repeat(np.arange(first, last + 1), each), pa.int64()),
            "attempt": pa.array(np.ones(n), pa.int32()),
            "backend": pa.array(np.array(["torch", "tensorflow", "numpy"])[rng.integers(0, 3, n)]),
            "size": rng.integers(1, 100, n),
            "error": rng.random(n),
            "loss": rng.normal(size=n),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    blob = bytes(sink.getvalue().to_pybytes())
    cells = [[first, last, 1]]
    placed = tx.append(
        K.BATCH_PLACED, lane="local", data={"dir": str(first), "nonce": "0", "grant": {}, "cells": cells}
    )
    part = {"table": "bench", "path": "", "rows": n, "bytes": len(blob), "first": first, "last": last}
    part["sha256"] = hashlib.sha256(blob).hexdigest()
    data = {"batch": placed, "seconds": 1.0, "cause": "ok", "reason": "", "manifest": None, "back": []}
    seq = tx.append(K.BATCH_ENDED, lane="local", data={**data, "ok": cells, "parts": [part]})
    tx.attach(seq, 0, blob)


def compact(journal: Journal) -> None:
    import queue

    from lanes.compactor import Compactor

    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    compactor = Compactor(journal.home, journal, inbox.put)
    inline = "SELECT count(*) FROM part WHERE path = ''"
    now = 0.0
    began = time.perf_counter()
    while journal.conn.execute(inline).fetchone()[0]:
        now += 100.0
        compactor.maybe(now, True)
        try:
            _, _, body = inbox.get(timeout=0.2)
        except queue.Empty:
            continue
        with journal.transaction() as tx:
            compactor.commit(tx, body)
    compactor.finish()
    print(f"compacted in {time.perf_counter() - began:.2f} s")


def show(title: str, times: dict[str, Timing]) -> float:
    peer = times["DuckDB alone"]
    table(
        title,
        [
            (name, f"{t.median * 1000:.1f}", t.spread, "1" if t is peer else f"{ratio(t, peer):.2f}")
            for name, t in times.items()
        ],
    )
    return ratio(times["lab"], peer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
