"""A home with something of everything that a report tells: scores, trainings, a study, a sweep, a parity run, failed,
held and waiting jobs, lanes with a ladder. Made of real events, seals and table parts; nothing runs."""

from __future__ import annotations

import copy
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from core.fsio import sha256_file
from core.home import Home
from core.journal import Event, Journal, Role
from core.rundir import seal
from core.states import EventKind as K
from core.tables import append_part
from jobs.dose.summary_tables import SUMMARY
from jobs.score.schema import FILES, SCORE
from jobs.train.schema import CANDIDATES, TRAINING
from tests.lab.test_floor import made_row

CLUSTER = """lanes:
  local: {transport: local, cores: 1}
  far: {transport: ssh, host: example.org}
"""


def png(shade: int = 90, size: tuple[int, int] = (320, 180)) -> bytes:
    """A picture."""
    out = io.BytesIO()
    Image.new("RGB", size, (shade, 120, 160)).save(out, "PNG")
    return out.getvalue()


class Scene:
    """Commits jobs as the controller would, each with a sealed run directory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cluster.yaml").write_text(CLUSTER)
        self.home = Home(folder / "home", folder / "cluster.yaml")
        self.jobs = 0
        self._told: list[Event] = []
        self._events(
            Event(K.LANE, lane="local", data={"state": "up", "reason": "", "info": json.dumps({"cores": 2})}),
        )

    def _events(self, *events: Event) -> None:
        self._told += events

    def commit(self) -> None:
        """Write down what was told so far, at once."""
        with Journal.open(self.home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
            tx.extend(self._told)
        self._told = []

    def elsewhere(self, folder: Path) -> Scene:
        """A copy of the home, to be harmed."""
        shutil.copytree(self.home.path.parent, folder, dirs_exist_ok=True)
        out = copy.copy(self)
        out.home, out._told = Home(folder / "home", folder / "cluster.yaml"), []
        return out

    def submit(
        self,
        kind: str,
        name: str = "",
        *,
        params: Mapping[str, Any] | None = None,
        argv: Sequence[str] = (),
        study: str = "",
        after: Sequence[tuple[str, int]] = (),
        held: bool = False,
        key: str = "",
    ) -> int:
        """A job that waits."""
        self.jobs += 1
        n = self.jobs
        spec: dict[str, Any] = {"kind": kind, "inputs": [], "code": None, "needs": {"cores": 1}, "limits": {},
                                "argv": list(argv)}  # fmt: skip
        digest = f"s{n}"
        data = {"kind": kind, "name": name, "params": dict(params or {}), "key": key or f"{n:064x}", "priority": 0,
                "spec": digest, "held": held, "idem": None, "tags": [], "note": "", "rerun_of": None,
                "after": [list(a) for a in after]}  # fmt: skip
        if study:
            data["study"] = study
        self._events(
            Event(K.SPEC, data={"digest": digest, "data": json.dumps(spec)}), Event(K.SUBMITTED, job=n, data=data)
        )
        return n

    def place(self, job: int) -> None:
        self._events(
            Event(K.PLACED, job, 1, "local", {"nonce": "n", "grant": {"cores": 1}}),
            Event(K.STARTED, job, 1, "local", {"pid": 1, "boot": "b"}),
        )

    def end(
        self,
        job: int,
        kind: str,
        *,
        tables: Mapping[str, pa.Table] | None = None,
        artifacts: Mapping[str, bytes] | None = None,
        state: str = "succeeded",
        reason: str = "",
        undeclared: Sequence[str] = (),
    ) -> int:
        """Let a job end."""
        run = self.home.run_dir(job, 1)
        run.create()
        run.spec.write_text(json.dumps({"job": job, "attempt": 1, "key": f"{job:064x}"}))
        for name, data in (artifacts or {}).items():
            (run.artifacts / name).parent.mkdir(parents=True, exist_ok=True)
            (run.artifacts / name).write_bytes(data)
        parts = []
        for name, rows in (tables or {}).items():
            path = run.results / f"{name}.arrow"
            with pa.OSFile(str(path), "wb") as f, pa.ipc.new_file(f, rows.schema) as writer:
                writer.write_table(rows)
            where: dict[str, Any] = {"job": job, "attempt": 1, "lane": "local", "key": f"{job:064x}", "kind": kind}
            parts.append(append_part(self.home, **where, table=name, arrow_path=path, schema=rows.schema).data())
        seal(run, outcome={"cause": "ok"})
        self.place(job)
        cause = "ok" if state == "succeeded" else "error"
        ended = {"state": state, "cause": cause, "message": reason, "seconds": 61.5, "undeclared": list(undeclared),
                 "manifest": sha256_file(run.manifest), "parts": parts if state == "succeeded" else []}  # fmt: skip
        told = {"state": state, "cause": cause, "reason": reason, "undeclared": len(undeclared)}
        self._events(Event(K.ATTEMPT_ENDED, job, 1, "local", ended), Event(K.JOB_ENDED, job=job, data=told))
        return job

    # What labs have.

    def score(self, bundle: str, seg: float, **more: Any) -> int:
        """A scoring that may promote; `more`: other values of its row."""
        job = self.submit("score", bundle, params={"archive": bundle}, argv=("lab", "submit", "score", "--set", "x=1"))
        rows = pa.Table.from_pylist([{**made_row(bundle, seg), **more}], schema=SCORE)
        file = {"name": "filter.int8", "bytes": 4000, "sha256": f"of {bundle}", "counts": True}
        tables = {"score": rows, "score_files": pa.Table.from_pylist([file], schema=FILES)}
        return self.end(job, "score", tables=tables, artifacts={"report.txt": b"score 1.95\n"})

    def train(self, branch: str, value: float, ships: str) -> int:
        """A training that ships the file of a submission."""
        job = self.submit("train", branch, params={"alpha": 20.0, "h": 16})
        common = {"branch": branch, "quantity": "surrogate value"}
        own: dict[str, Any] = {
            **{n: "0" * 64 for n in TRAINING.names if n.endswith("_sha256")},
            **dict.fromkeys((n for n in TRAINING.names if pa.types.is_int64(TRAINING.field(n).type)), 1),
            "mode": "fresh",
            "device": "cpu",
            "torch": "2",
            "seconds": 1.0,
            "bundle_bytes": 4000,
            "shipped_sha256": f"of {ships}",
        }
        measured: dict[str, Any] = {"evaluation_terms": "{}", "psnr": 30.0, "chosen": False, "bytes": 4000}
        candidates = [
            {**common, **measured, "weights": "decoded", "evaluation_value": 9.0},
            {**common, **measured, "weights": "average-int8", "evaluation_value": value, "psnr": 32.5, "chosen": True},
        ]
        tables = {
            "training": pa.Table.from_pylist([{**common, **own}], schema=TRAINING),
            "candidates": pa.Table.from_pylist(candidates, schema=CANDIDATES),
        }
        return self.end(job, "train", tables=tables, artifacts={"training.png": png(), "preview.png": png(40)})

    def dose(self) -> list[int]:
        """A study of two nodes: a comparison that failed, and a summary that lists it."""
        study, typed = f"dose@{self.jobs + 1}", ("lab", "submit", "dose", "-s", "size=small")
        part = self.submit("dose-compare", "dose/compare_d1000", study=study, argv=typed)
        whole = self.submit("dose-summary", "dose/summary", study=study, argv=typed, after=[("any", part)])
        self.end(part, "dose-compare", state="failed", reason="it diverged at step 12")
        row = {"photons": 1000.0, "view": "dense", "gridsize": 2, "arm": "lsqml", "metric": "frc50", "unit": "1/px",
               "greater_is_better": True, "seeds": 3, "planned": 3, "mean": 0.25, "sd": 0.01, "least": 0.24,
               "most": 0.26, "photons_per_pixel": 12.5}  # fmt: skip
        tables = {"dose_summary": pa.Table.from_pylist([row], schema=SUMMARY)}
        self.end(whole, "dose-summary", tables=tables, artifacts={"quality.png": png(200)})
        return [part, whole]

    def lanes(self) -> None:
        """A remote lane that fell off its ladder, and why."""
        rung = {"message": "answered in 12 ms", "evidence": {}, "role": ""}
        bad = {"message": "1 GPU declared, 0 found", "hint": "correct cluster.yaml", "role": ""}
        info = json.dumps({"cores": 8, "declared": {"transport": "ssh", "host": "example.org"}})
        self._events(
            Event(K.LANE, lane="far", data={"state": "quarantined", "reason": "2 attempts lost", "info": info}),
            Event(K.RUNG, lane="far", data={"rung": "reachable", "ok": True, **rung}),
            Event(K.RUNG, lane="far", data={"rung": "device", "ok": False, **bad}),
        )


def whole(folder: Path) -> Scene:
    """Something of everything."""
    s = Scene(folder)
    s.score("first", 0.006)
    s.score("first", 0.00602)
    s.train("long500_alpha20_h16", 3.25, "second")
    s.score("second", 0.004)
    s.score("worse", 0.0055)
    s.score("quick look", 0.009, authority="proxy", why="the first 16 pairs only")
    s.train("long500_alpha10_h16", 3.5, "nobody's")
    s.dose()
    s.submit("command", "held for 3 reasons", params={"argv": ["python3", "x.py"]}, held=True)
    waits = s.submit(
        "command", params={"argv": ["python3", "it's.py"]}, argv=("lab", "submit", "command", "--", "it's")
    )
    s.submit("command", params={"argv": ["python3", "y.py", "--n", "3"]}, after=[("ok", waits)])
    runs = s.submit("command", "sleep 60", params={"argv": ["sleep", "60"]})
    s.place(runs)
    odd = s.submit("command", "reader", params={"argv": ["cat"]})
    s.end(odd, "command", undeclared=["/etc/hosts2"], artifacts={"out.txt": b"1\n"})
    s.lanes()
    s.commit()
    return s
