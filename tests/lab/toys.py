"""A kind of an outside package, and a stand-in for the controller: what tests of submitting need, without Ray."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pytest

import core.kind
from core.fsio import sha256_file
from core.home import Home
from core.journal import Event, Journal, Role, query
from core.rundir import seal
from core.states import EventKind as K
from core.states import JobState
from core.tables import append_part
from lanes.taken import with_made_inputs

SOURCE = """
from pathlib import Path
from typing import Literal
from pydantic import Field
from core.kind import Kind, Params

class ToyParams(Params):
    alpha: float = Field(1.0, gt=0, description="how strongly")
    sizes: tuple[int, ...] = (1, 4)
    label: str = "x"
    mode: Literal["fast", "slow"] = "fast"
    data: Path | None = None

class Toy(Kind):
    name = "toy"
    summary = "a toy"
    Params = ToyParams
    needs = {"cores": 1}

    def tables(self):
        import pyarrow as pa
        return {"toys": pa.schema([("cell", pa.string()), ("err", pa.float64())])}

    def inputs(self, params):
        return {} if params.data is None else {"data": params.data}

    def questions(self):
        from core.kind import Question
        worst = "select cell, max(err) as worst from toys where {jobs} group by 1"
        both = "select cell, b.err - a.err as moved from toys a join toys b using (cell) where a.job={0} and b.job={1}"
        return {
            "worst": Question("the worst of each cell", worst),
            "moved": Question("what moved between two jobs", both, jobs=2),
        }

class Needy(Toy):
    name = "needy"
    packages = ("no-such-distribution",)

class Program(Kind):
    name = "program"
    summary = "starts something of the user's"
    Params = ToyParams
    user_code = True

    def describe(self, params):
        return f"program {params.label}"

class Liar(Toy):
    name = "another"

class Quick(Toy):
    name = "quick"
    pooled = True

class StudyParams(Params):
    seeds: int = Field(2, ge=1)
    twice: bool = False

class Dag(Kind):
    name = "dag"
    summary = "a study of toys"
    Params = StudyParams

    def study(self, params):
        from core.study import Study
        s = Study("dag")
        base = s.job("toy", {"alpha": 9}, name="base")
        many = s.sweep("toy", grid={"alpha": range(1, params.seeds + 1)}, after=[base], at_once=2, name="many")
        end = ("dag", {}) if params.twice else ("toy", {"label": "end"})
        s.job(*end, after=[s.any(many)], name="end")
        return s

class Doses(Kind):
    name = "doses"
    summary = "a study whose jobs take files of each other"
    Params = StudyParams

    def study(self, params):
        from core.study import Study
        s = Study("doses")
        s.note("dose 1e9 is  left out")
        data = s.job("toy", {"label": "data"}, name="data")
        parts = [
            s.job("toy", {"alpha": i + 1}, takes={"data": data, "truth": (data, "truth.npz")}, name=f"part{i + 1}")
            for i in range(params.seeds)
        ]
        s.job("toy", {"label": "end"}, takes={f"part{i + 1}": s.any(p) for i, p in enumerate(parts)}, name="end")
        return s
"""


def register(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Register the kinds above from a module of their own. Returns its file."""
    file = folder / "toykinds" / "toymodule.py"
    file.parent.mkdir()
    file.write_text(SOURCE)
    monkeypatch.syspath_prepend(str(file.parent))
    sys.modules.pop("toymodule", None)
    importlib.invalidate_caches()
    classes = {"toy": "Toy", "needy": "Needy", "program": "Program", "liar": "Liar", "broken": "Missing"}
    classes |= {"quick": "Quick", "dag": "Dag", "doses": "Doses"}
    points = {name: EntryPoint(name, f"toymodule:{cls}", core.kind.GROUP) for name, cls in classes.items()}
    monkeypatch.setattr(core.kind, "entry_points", lambda: points)
    monkeypatch.setattr("lab.planning.entry_points", lambda: points)
    return file


def open_sweep(home: Home, sweep_id: int) -> None:
    """What the controller does when all that a sweep waits for has ended."""
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.append(K.SWEEP_OPENED, job=sweep_id)


def end_sweep(home: Home, sweep_id: int) -> None:
    """What the controller does when all cells of a sweep have ended."""
    with Journal.open(home, Role.CONTROLLER) as journal:
        counts = query.sweep_counts(journal.conn, sweep_id)
        good = set(counts) == {JobState.SUCCEEDED}
        end = {"state": "succeeded", "cause": "ok", "reason": ""}
        if not good:
            failed = counts.get(JobState.FAILED, 0)
            end = {"state": "failed", "cause": "error", "reason": f"{failed} of {sum(counts.values())} cells failed"}
        with journal.transaction() as tx:
            tx.append(K.JOB_ENDED, job=sweep_id, data=end)


def place(home: Home, job_id: int) -> None:
    """Put a job onto the lane, and leave it there."""
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.append(K.PLACED, job=job_id, attempt=1, lane="local", data={"nonce": "x", "grant": {"cores": 1}})


def batch(home: Home, first: int, last: int, *, failed: Mapping[int, str] | None = None, log: str = "") -> str:
    """Do with pooled cells what the pool does: one batch, its folder, its log with a slice for each cell."""
    failed = failed or {}
    folder = home.batches / f"{first}-00c0ffee"
    folder.mkdir(parents=True)
    with (folder / "log.txt").open("w") as text, (folder / "log.idx").open("w") as index:
        for job in range(first, last + 1):
            start = text.tell()
            text.write(log.format(job=job))
            if text.tell() > start:
                index.write(json.dumps({"job": job, "from": start, "to": text.tell()}) + "\n")
    (folder / "manifest.json").write_text("{}\n")
    good = [[i, i, 1] for i in range(first, last + 1) if i not in failed]
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        placed = {"dir": folder.name, "nonce": "00c0ffee", "grant": {"cores": 1}, "cells": [[first, last, 1]]}
        seq = tx.append(K.BATCH_PLACED, lane="local", data=placed)
        for job, message in failed.items():
            end = {"batch": seq, "state": "failed", "cause": "error", "message": message, "seconds": 0.1}
            end |= {"to": "failed", "reason": message, "undeclared": []}
            tx.append(K.CELL_ENDED, job=job, attempt=1, lane="local", data=end)
        done = {"batch": seq, "seconds": 1.0, "cause": "ok", "reason": "", "ok": good, "back": [], "parts": []}
        done["manifest"] = sha256_file(folder / "manifest.json")
        tx.append(K.BATCH_ENDED, lane="local", data=done)
    return folder.name


def finish(
    home: Home,
    job_id: int,
    *,
    rows: Sequence[Mapping[str, Any]] = (),
    more: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({}),
    state: str = "succeeded",
    cause: str = "ok",
    undeclared: Sequence[str] = (),
    seconds: float = 1.5,
    artifacts: Mapping[str, str] | None = None,
) -> None:
    """Do with a job what lane and controller would: a sealed run directory, table parts, the committing events."""
    with Journal.open(home, Role.CONTROLLER) as journal:
        job = query.job(journal.conn, job_id)
        n = job.attempts + 1
        run = home.run_dir(job_id, n)
        run.create()
        spec = with_made_inputs(home, journal.conn, job, query.spec_of(journal.conn, job.spec))
        told = {"job": job_id, "attempt": n, "key": job.key, "nonce": "x", "inputs": spec["inputs"]}
        run.spec.write_text(json.dumps({**told, "absent": spec.get("absent", [])}))
        run.log.write_text(f"log of {job_id}\n")
        for name, text in (artifacts or {}).items():
            (run.artifacts / name).parent.mkdir(parents=True, exist_ok=True)
            (run.artifacts / name).write_text(text)
        parts = []
        for name, given in {"toys": rows, **more}.items():
            if not given:
                continue
            path = run.results / f"{name}.arrow"
            table = pa.Table.from_pylist(list(given))
            with pa.OSFile(str(path), "wb") as f, pa.ipc.new_file(f, table.schema) as writer:
                writer.write_table(table)
            part = append_part(
                home, job=job_id, attempt=n, lane="local", key=job.key, kind=job.kind, table=name, arrow_path=path
            )
            parts.append(part.data())
        seal(run, outcome={"cause": cause})
        data = {
            "state": state,
            "cause": cause,
            "message": "",
            "seconds": seconds,
            "manifest": sha256_file(run.manifest),
            "undeclared": list(undeclared),
            "parts": parts if state == "succeeded" else [],
        }
        end = {"state": state, "cause": cause, "reason": "" if state == "succeeded" else "it broke"}
        with journal.transaction() as tx:
            tx.extend(
                [
                    Event(K.PLACED, job_id, n, "local", {"nonce": "x", "grant": {"cores": 1}}),
                    Event(K.STARTED, job_id, n, "local", {"pid": 1, "boot": "b"}),
                    Event(K.ATTEMPT_ENDED, job_id, n, "local", data),
                    Event(K.JOB_ENDED, job=job_id, data={**end, "undeclared": int(bool(undeclared))}),
                ]
            )
