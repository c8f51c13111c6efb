"""From the journal to `Speeds`: how the newest attempts and batches went. Read-only; needs no controller."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from lanes.speeds import Speeds, Work, work_of

_ENDS, _BATCHES = 1500, 100


def read_ends(conn: sqlite3.Connection, *, ends: int = _ENDS, batches: int = _BATCHES) -> Speeds:
    """What the newest ends teach, in the order in which they came."""
    speeds = Speeds()
    lanes = conn.execute("SELECT name, data FROM lane").fetchall()
    for name, data in lanes:
        tell_probe(speeds, name, json.loads(data))
    specs: dict[str, dict[str, Any]] = {}
    found: list[tuple[int, str, Work, float, float | None, float | None]] = []
    for r in conn.execute(_NEWEST, (ends,)):
        data = json.loads(r["data"])
        if data.get("state") != "succeeded" or not data.get("seconds"):
            continue
        work = work_of_job(r["kind"], r["spec"], json.loads(r["params"]), needs_of(conn, specs, r["spec"]))
        start = r["started"] - r["placed"] if r["started"] is not None else None
        tail = r["at"] - r["started"] - float(data["seconds"]) if r["started"] is not None else None
        found.append((r["seq"], r["lane"], work, float(data["seconds"]), start, tail))
    for r in conn.execute(_NEWEST_BATCHES, (batches,)):
        data = json.loads(r["data"])
        cells = sum(last - first + 1 for first, last, _ in data["ok"])
        if not cells or not data["seconds"]:
            continue
        job = conn.execute(_JOB, (data["ok"][0][0],)).fetchone()
        params = json.loads(job["params"]) if cells == 1 else {}
        spec = job["spec"] or conn.execute(_JOB, (job["sweep"],)).fetchone()["spec"]
        work = work_of_job(job["kind"], spec, params, needs_of(conn, specs, spec))
        found.append((r["seq"], r["lane"], work, float(data["seconds"]) / cells, None, None))
    for _, lane, work, seconds, start, tail in sorted(found, key=lambda end: end[0]):
        speeds.ended(lane, work, seconds)
        if start is not None:
            speeds.started(lane, start)
        if tail is not None:
            speeds.closed(lane, tail)
    return speeds


def tell_probe(speeds: Speeds, lane: str, hello: Mapping[str, Any]) -> None:
    """What the lane's probe says of its speed, if it does: seconds for a fixed piece of work, `work_s`."""
    took = hello.get("work_s")
    if isinstance(took, (int, float)) and took > 0:
        speeds.probed(lane, took / ORDINARY_S)


ORDINARY_S = 0.05  # what the probe's piece of work takes on an ordinary machine


def work_of_job(kind: str, spec: str, params: Mapping[str, Any], needs: Mapping[str, Any]) -> Work:
    return work_of(kind, params, spec=spec, cores=int(needs.get("cores") or 1), gpus=int(needs.get("gpus") or 0))


def needs_of(conn: sqlite3.Connection, known: dict[str, dict[str, Any]], spec: str) -> dict[str, Any]:
    """The needs that a spec states; `known` is where they are kept."""
    found = known.get(spec)
    if found is None:
        row = conn.execute("SELECT data -> '$.needs' FROM spec WHERE digest = ?", (spec,)).fetchone()
        found = known[spec] = dict(json.loads(row[0])) if row and row[0] else {}
    return found


# By the index of ends, which holds them by job: the newest jobs are near enough to the newest ends.
_NEWEST = """SELECT e.seq AS seq, e.at AS at, e.lane AS lane, e.data AS data, j.kind AS kind, j.spec AS spec,
        j.params AS params, p.at AS placed, b.at AS started
    FROM (SELECT seq, at, lane, data, job, attempt FROM event WHERE kind = 'attempt-ended'
          ORDER BY job DESC, attempt DESC LIMIT ?) e
    JOIN job j ON j.id = e.job JOIN attempt_state a ON a.id = e.job * 4096 + e.attempt
    JOIN event p ON p.seq = a.placed LEFT JOIN event b ON b.seq = a.started"""
_NEWEST_BATCHES = """SELECT e.seq AS seq, b.lane AS lane, e.data AS data FROM
    (SELECT lane, ended FROM batch WHERE ended IS NOT NULL ORDER BY seq DESC LIMIT ?) b
    JOIN event e ON e.seq = b.ended"""
_JOB = "SELECT kind, spec, params, sweep FROM job WHERE id = ?"
