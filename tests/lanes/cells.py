"""Sweeps written straight into the journal, and what came of them: for tests of the controller by itself."""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.digests import Digests
from core.fsio import canonical, digest
from core.home import Home
from core.journal import Event, Journal, Role, query
from core.journal.query import Job
from core.kind import Kind
from core.kindcode import look_at_kind
from core.spec import JobSpec, Limits, Needs, key_of
from core.states import EventKind as K
from core.states import JobState
from lanes.start import wake
from tests.support import tail, wait_for

sys.path.append(str(Path(__file__).parent))  # as a package of somebody else's would be found

Cells = Sequence[Mapping[str, Any]]


def spec_of(home: Home, kind: Kind, **more: Any) -> dict[str, Any]:
    """The spec of a submit, with its code in the store."""
    home.create()
    entry = f"{type(kind).__module__}:{type(kind).__name__}"
    with Digests(home.digests) as digests:
        for _ in range(5):
            found = look_at_kind(kind, digests, entry=entry)
            if found.store(home):
                break
        else:
            raise AssertionError("the code keeps changing")
    spec = JobSpec(
        kind=kind.name,
        entry=entry,
        kind_code=found.ref,
        python=sys.executable,
        needs=Needs(**more.pop("needs", {})),
        limits=Limits(**{"grace_s": 0.5, **more.pop("limits", {})}),
        **more,
    )
    return spec.model_dump(mode="json")


class Submitter:
    """Writes sweeps and pooled jobs of one kind into the journal of a home."""

    def __init__(self, home: Home, kind: Kind, **spec: Any) -> None:
        self.home = home
        self.kind = kind
        self.spec = spec_of(home, kind, **spec)
        self.digest = digest(self.spec)

    def _common(self, **more: Any) -> dict[str, Any]:
        return {
            "spec": self.digest,
            "kind": self.kind.name,
            "priority": 0,
            "idem": None,
            "tags": [],
            "note": "",
            "held": False,
            "rerun_of": None,
            "after": [],
            "pooled": int(self.kind.pooled),
            **more,
        }

    def _spec_event(self) -> Event:
        return Event(K.SPEC, data={"digest": self.digest, "data": canonical(self.spec).decode()})

    def sweep(self, cells: Cells, *, members: Iterable[int] = (), **more: Any) -> int:
        """Record a sweep. Returns its id."""
        with Journal.open(self.home, Role.CLIENT, create=True) as journal, journal.transaction() as tx:
            s = tx.next_job_id()
            rows = ((i, json.dumps(p)) for i, p in enumerate(cells, s + 1))
            tx.add_cells((i, s, digest([self.digest, text]), f"cell {i - s}", text, None) for i, text in rows)
            data = self._common(
                name=f"a sweep of {len(cells)}",
                params={},
                key=digest(["sweep", s]),
                cells=len(cells),
                axes=[["i", []]],
                members=list(members),
                **{"at_once": None, "max_fails": None, **more},
            )
            tx.extend([self._spec_event(), Event(K.SWEPT, job=s, data=data)])
        wake(self.home)
        return s

    def job(self, params: Mapping[str, Any], **more: Any) -> int:
        """Record one job."""
        with Journal.open(self.home, Role.CLIENT, create=True) as journal, journal.transaction() as tx:
            j = tx.next_job_id()
            key = key_of(self.spec, dict(params))
            data = self._common(name="one", params=dict(params), key=key, **more)
            tx.extend([self._spec_event(), Event(K.SUBMITTED, job=j, data=data)])
        wake(self.home)
        return j


def grid(n: int, **special: Iterable[int]) -> list[dict[str, Any]]:
    """n cells that go well, but for those whose numbers are given: grid(10, fail=[3], die=[4])."""
    out: list[dict[str, Any]] = [{"i": i} for i in range(n)]
    for do, which in special.items():
        for i in which:
            out[i]["do"] = do.replace("_", "-")
    return out


def ask(home: Home, kind: K, *jobs: int) -> None:
    with Journal.open(home, Role.CLIENT) as journal, journal.transaction() as tx:
        tx.extend([Event(kind, job=j) for j in jobs])
    wake(home)


def counts(home: Home, sweep: int) -> dict[str, int]:
    with Journal.open(home) as journal:
        return {str(s): n for s, n in query.sweep_counts(journal.conn, sweep).items()}


def wait_end(home: Home, job_id: int, deadline_s: float = 90.0) -> Job:
    """The row of a job or a sweep once it has ended."""

    def ended() -> Job | None:
        with Journal.open(home) as journal:
            job = query.job(journal.conn, job_id)
        return job if job.state.terminal else None

    try:
        found = wait_for(ended, f"job {job_id} to end", deadline_s=deadline_s)
    except AssertionError as error:
        with Journal.open(home) as journal:
            seen = query.sweep_counts(journal.conn, job_id)
        raise AssertionError(f"{error}; cells {seen}\n{tail(home)}") from None
    assert found is not None
    return found


def rows(home: Home, table: str, first: int, last: int) -> list[dict[str, Any]]:
    """All live rows of the jobs `first` to `last`, whether compacted or not."""
    out: list[dict[str, Any]] = []
    with Journal.open(home) as journal:
        journal.conn.execute("BEGIN")  # one look: what is compacted meanwhile is still there in it
        for part in query.parts(journal.conn, table=table):
            if part.inline:
                data = query.payload(journal.conn, part.id)
                assert data is not None, part
                found = pa.ipc.open_stream(io.BytesIO(data)).read_all()
            else:
                found = pq.read_table(home.tables / part.path)
            assert found.num_rows == part.rows
            out += [r for r in found.to_pylist() if first <= r["job"] <= last]
    return out


def check_cells(home: Home, sweep: int, want: Mapping[int, JobState] | None = None) -> Counter[JobState]:
    """Exactly one terminal record a cell, a row of each that succeeded, and no other row.

    Args:
        want: the state of cells by place in the sweep; those that are not named succeeded.
    """
    with Journal.open(home) as journal:
        conn = journal.conn
        one = query.sweep(conn, sweep)
        cells = {j.id: j for j in query.jobs(conn, sweep=sweep)}
        assert sorted(cells) == list(one.own)
        ends: Counter[int] = Counter()
        states: dict[int, str] = {}
        for e in query.events(conn, limit=10_000_000):
            if e.kind == K.BATCH_ENDED:
                for first, last, _n in e.data["ok"]:
                    ends.update(range(first, last + 1))
                    states.update(dict.fromkeys(range(first, last + 1), "succeeded"))
            elif e.kind == K.CELLS and JobState(e.data["state"]).terminal:
                for first, last in e.data["cells"]:
                    ends.update(range(first, last + 1))
                    states.update(dict.fromkeys(range(first, last + 1), e.data["state"]))
            elif e.kind == K.CELL_ENDED and e.data["to"] != JobState.QUEUED:
                assert e.job is not None
                ends[e.job] += 1
                states[e.job] = e.data["to"]
            elif e.kind == K.JOB_ENDED:
                assert e.job is not None
                ends[e.job] += 1
                states[e.job] = e.data["state"]
        open_now = query.open_batches(conn)
    wrong = {j: ends[j] for j in one.own if ends[j] != 1}
    assert not wrong, f"terminal records other than one: {wrong}"
    assert ends[sweep] == 1
    assert not open_now
    assert all(states[j] == cells[j].state for j in one.own)
    for place, state in (want or {}).items():
        assert cells[sweep + 1 + place].state is state, cells[sweep + 1 + place]
    found = rows(home, "toy", sweep + 1, sweep + one.cells)
    per_job = Counter(r["job"] for r in found)
    fine = {j for j, job in cells.items() if job.state is JobState.SUCCEEDED}
    assert per_job == Counter(fine), {j: per_job[j] for j in per_job.keys() ^ fine} or per_job.most_common(3)
    for r in found:
        p = cells[r["job"]].params
        assert (r["i"], r["square"]) == (p["i"], p["i"] ** 2)
        assert r["attempt"] == cells[r["job"]].attempts
    return Counter(j.state for j in cells.values())
