"""A package as the drift kinds leave it, made in a moment: real submit, real seals, tables and events; no training.

    made = Package(home, here, monkeypatch); made.submit(); made.state({...}); made.run()

What each job leaves can be changed before it is written: `made.change["eval"] = function`.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

import core.kind
from core.fsio import sha256_file, write_json
from core.home import Home
from core.journal import Event, Journal, Role, query
from core.rundir import seal
from core.states import EventKind as K
from core.study import Take
from core.tables import append_part
from jobs.drift.digests import arrays_sha256, image_digests, images_sha256, payload_sha256
from lab.claims import stating
from lab.submission import Request, submit
from lanes.taken import with_made_inputs

KINDS = """
from typing import Any, Optional
from core.kind import Kind, Params

class PxParams(Params):
    n: Optional[int] = None
    seed: Optional[int] = None
    steps: Optional[int] = None
    alpha: Optional[float] = None
    real: Optional[str] = None
    control: str = ""
    variant: str = ""
    checkpoint: str = "final"
    least_n: Optional[int] = None
    allow_shared_encoder: bool = False

class Px(Kind):
    Params = PxParams
    summary = "a stand-in"
    code = ("core.errors",)
    def run(self, ctx): pass
"""
NAMES = ("data", "extractor", "train", "sample", "eval", "nn", "contract", "summary", "audit")
IMAGE = (4, 4, 1)
N, TRAIN, REFERENCE = 400, 600, 420
STEPS = 600
ALPHAS = (1.0, 2.0)
Made = dict[str, Any]


class Package:
    """One package in one home. Change what you like before `submit`, or `run`.

    Attributes:
        params: job name -> parameters. change: job name -> what is done to its files and rows before the seal.
        fail: jobs that fail, with why. ids: job name -> id.
    """

    def __init__(self, home: Home, here: Path, monkeypatch: pytest.MonkeyPatch, *, study: str = "pkg") -> None:
        self.home, self.here, self.study = home, here, study
        self.change: dict[str, Callable[[Made], None]] = {}
        self.ids: dict[str, int] = {}
        self.fail: dict[str, str] = {"eval-broken": "it diverged"}
        self._files: dict[str, dict[str, bytes]] = {}
        self._honest: dict[str, dict[str, bytes]] = {}
        self._rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.profile = "cached"
        self.encoder = True
        self.better = 60.0  # FID of the untrained control
        self.move = 4.0  # by how much FID moves with alpha
        self.params: dict[str, dict[str, Any]] = {}
        self.takes: dict[str, dict[str, str]] = {}
        self._plan()
        register(here, monkeypatch)

    def _plan(self) -> None:
        def job(name: str, params: Mapping[str, Any], **takes: str) -> None:
            self.params[name], self.takes[name] = dict(params), takes

        job("data", {"seed": 0})
        job("extractor", {"seed": 0}, data="data")
        for variant, s in (("full", 1), ("full", 2), ("full", 3), ("untrained", 1)):
            tail = "-untrained" if variant == "untrained" else "" if s == 1 else f"-s{s}"
            full = {"seed": s, "steps": STEPS, "real": "digits", "variant": variant}
            job(f"train{tail}", full, data="data")
            job(f"sample{tail}", {"seed": 7, "n": N, "alpha": 1.5}, train=f"train{tail}")
            told = {"control": "untrained"} if variant == "untrained" else {}
            self._judged(job, f"eval{tail}", f"sample{tail}", f"train{tail}", told)
        for alpha in ALPHAS:
            job(f"sample-a{alpha:g}", {"seed": 7, "n": N, "alpha": alpha}, train="train")
            self._judged(job, f"eval-a{alpha:g}", f"sample-a{alpha:g}", "train", {})
        job("eval-broken", {"variant": "broken"}, sample="sample", data="data")
        job("nn", {"seed": 3}, sample="sample", data="data")
        roles = {r: r for r in ("data", "extractor", "train", "sample", "eval", "nn")}
        job("contract", {"least_n": N}, **roles)
        job("audit", {}, **roles)
        evals = [n for n in self.params if n.startswith("eval")]
        job("summary", {}, **{n.replace("-", "_").replace(".", "_"): f"?{n}" for n in evals})

    @staticmethod
    def _judged(job: Callable[..., None], name: str, sample: str, train: str, params: Mapping[str, Any]) -> None:
        job(name, params, sample=sample, extractor="extractor", data="data", train=train)

    # What a person does.

    def submit(self) -> None:
        requests = []
        for name, takes in self.takes.items():
            given = tuple(Take(n, f"{self.study}/{m.lstrip('?')}", "", m.startswith("?")) for n, m in takes.items())
            params = {k: v for k, v in self.params[name].items() if v is not None}
            kind, called = f"px-{name.partition('-')[0]}", f"{self.study}/{name}"
            requests.append(Request(kind, params, name=called, takes=given, literal=True, study=self.study))
        answers = submit(self.home, requests, cwd=self.here)
        self.ids = {name: a.id for name, a in zip(self.takes, answers, strict=True)}

    def claim(self, **over: Any) -> dict[str, Any]:
        """An honest claim of this package, with other values for what is named."""
        seeds = [{r: f"{self.study}/{r}{tail}" for r in ("train", "sample", "eval")} for tail in ("", "-s2", "-s3")]
        given = {
            "schema": "lab.claim/1",
            "name": "digits",
            "statement": "FID is {eval.fid:.2f} of {eval.fid.n} samples, {control.fid:.2f} untrained; over seeds "
            "{seeds.fid.mean:.2f}, deviation {seeds.fid.std:.2f}, on 4x4 digits with alpha 1.5.",
            "wants": "closest-feasible",
            "package": self.study,
            "cites": {
                **{r: f"{self.study}/{r}" for r in NAMES},
                "control": f"{self.study}/eval-untrained",
                "sweep": [f"{self.study}/eval-a{a:g}" for a in ALPHAS],
                "seeds": seeds,
            },
            "selection": {"rule": "all", "over": {"seed": [1, 2, 3]}},
            "knobs": ["alpha"],
            "comparisons": [{"a": "eval.fid", "b": "control.fid"}],
            "notes": [{"text": "training makes it 4.0-fold better", "of": "control.fid / eval.fid"}],
        }
        return {**given, **over}

    def state(self, given: Mapping[str, Any] | None = None) -> int:
        with Journal.open(self.home, Role.CLIENT) as journal:
            return stating.state(journal, given if given is not None else self.claim())[1]

    def run(self, *names: str) -> None:
        """Let jobs end, each after what it takes; those that have ended are left alone."""
        with Journal.open(self.home, Role.CONTROLLER) as journal:
            journal.conn.execute("PRAGMA synchronous = OFF")  # nobody pulls the plug here
            live = {name for name, i in self.ids.items() if not query.job(journal.conn, i).state.terminal}
            todo = [name for name in names or self.ids if name in live]
            while todo:
                name = next(n for n in todo if not {t.lstrip("?") for t in self.takes[n].values()} & set(todo))
                self._end(journal, name)
                todo.remove(name)

    # What the jobs do.

    def _end(self, journal: Journal, name: str) -> None:
        job_id = self.ids[name]
        state, cause = ("failed", "error") if name in self.fail else ("succeeded", "ok")
        made: Made = {"files": {}, "json": {}, "arrays": {}, "tables": {}, "plan": {}, "env": dict(ENVIRONMENT)}
        if state == "succeeded":
            getattr(self, f"_{name.partition('-')[0]}")(name, made)
            self._honest[name] = _blobs(made)
            self.change.get(name, lambda _: None)(made)
        files = _blobs(made)
        self._files[name], self._rows[name] = files, made["tables"]
        ended = Ended(files, made["tables"], state, cause, self.fail.get(name, ""), made["env"], made["plan"])
        finish(journal, job_id, ended)

    def _data(self, _name: str, made: Made) -> None:
        rng = np.random.default_rng(0)
        arrays: dict[str, npt.NDArray[Any]] = {}
        for split, n in (("train", TRAIN), ("reference", REFERENCE), ("held", REFERENCE)):
            arrays[f"{split}_images"] = rng.uniform(-1, 1, (n, *IMAGE)).astype(np.float32)
            arrays[f"{split}_labels"] = np.arange(n) % 10
            arrays[f"{split}_ids"] = np.arange(n)
        made["arrays"]["data.npz"] = arrays
        splits = {s: {"n": len(arrays[f"{s}_images"]), "sha256": images_sha256(arrays[f"{s}_images"])} for s in SPLITS}
        made["json"]["data.json"] = {"splits": splits, "classes": 10, "source": "digits"}

    def _extractor(self, _name: str, made: Made) -> None:
        rng = np.random.default_rng(1)
        weights = {"w1": rng.normal(size=(16, 8)), "b1": rng.normal(size=32)}
        data = self._npz("data", "data.npz")
        splits = {s: images_sha256(data[f"{s}_images"]) for s in SPLITS}
        payload = {
            "schema": "lab.eval-contract/1",
            "profile": self.profile,
            "extractor_sha256": arrays_sha256(weights),
            "feature_dim": 8,
            "metrics": {"fid": {"estimator": "unbiased-cov nuclear"}},
            "data_sha256": payload_sha256(splits),
            "reference_sha256": splits["reference"],
            "reference_n": REFERENCE,
        }
        made["arrays"]["extractor.npz"] = weights
        made["arrays"]["reference.npz"] = {"features": rng.normal(size=(REFERENCE, 8)), "labels": np.arange(REFERENCE)}
        made["json"]["contract.json"] = {"payload": payload, "sha256": payload_sha256(payload)}

    def _train(self, name: str, made: Made) -> None:
        params = self.params[name]
        rng = np.random.default_rng(params["seed"] + 100 * len(name))
        untrained = params["variant"] == "untrained"
        last = 0 if untrained else params["steps"]
        encoder = {"conv": rng.normal(size=(16, 4))}
        data = self._npz("data", "data.npz")
        splits = {s: images_sha256(data[f"{s}_images"]) for s in SPLITS}
        made["arrays"]["model.npz"] = {"w": rng.normal(size=(8, 8))}
        if self.encoder:
            made["arrays"]["encoder.npz"] = encoder
        made["json"]["config.json"] = {
            **{k: v for k, v in params.items() if v is not None},
            "data_sha256": payload_sha256(splits),
            "training_encoder_sha256": arrays_sha256(encoder) if self.encoder else None,
        }
        made["plan"] = {"rows": {}, "last_step": last, "artifacts": ["model.npz"]}
        made["tables"]["drift_steps"] = [
            {"step": s, "loss": 1.0 / (1 + s), "negatives_per_group": 8, "alpha_mean": 1.5,
             "unconditional_weight_mean": 0.4, "drift_norm": 1.0, "finite": True}
            for s in sorted({*range(0, last, 20), last})
        ]  # fmt: skip

    def _sample(self, name: str, made: Made) -> None:
        train, params = self.takes[name]["train"], self.params[name]
        rng = np.random.default_rng(sum(name.encode()) + (params.get("seed") or 0))
        images = rng.uniform(-1, 1, (params["n"], *IMAGE)).astype(np.float32)
        arrays = {"images": images, "labels": np.arange(len(images)) % 10}
        arrays["ids"] = np.array([f"S{i:06d}" for i in range(len(images))])
        made["arrays"]["samples.npz"] = arrays
        made["json"]["samples.json"] = {
            "train_sha256": _sha(self._files[train]["model.npz"]),
            "config_sha256": _sha(self._files[train]["config.json"]),
            "alpha": params["alpha"],
            "n": len(images),
            "seed": params.get("seed"),
            "content_sha256": images_sha256(images),
        }
        made["tables"]["drift_samples"] = sample_rows(images, params["alpha"])

    def _eval(self, name: str, made: Made) -> None:
        sample = self.takes[name]["sample"]
        images = self._npz(sample, "samples.npz")["images"]
        reference = images_sha256(self._npz("data", "data.npz")["reference_images"])
        contract = json.loads(self._files["extractor"]["contract.json"])["sha256"]
        alpha, seed = self.params[sample]["alpha"], self.params[sample].get("seed") or 7
        value = 15.0 + {"-s2": 0.2, "-s3": -0.1, "-a1": self.move, "-a2": -self.move / 2}.get(name[4:], 0.0)
        if name == "eval-untrained":
            value = self.better
        base = {
            "std": None, "n": len(images), "alpha": alpha, "seed": seed, "contract": contract, "reference": reference,
            "samples": images_sha256(images), "device_class": "cpu", "control": self.params[name].get("control", ""),
        }  # fmt: skip
        rows = [
            {"metric": "fid", "value": value, **base},
            {"metric": "is_mean", "value": 5.0 + 0.01 * value, **base},
            {"metric": "fid_floor", "value": 2.0, **base, "control": "held", "alpha": None, "samples": "f" * 64},
        ]
        made["tables"]["drift_eval"] = rows
        made["json"]["evaluation.json"] = {"schema": "lab.evaluation/1", "rows": [dict(r) for r in rows]}
        made["arrays"]["features.npz"] = {"features": np.random.default_rng(4).normal(size=(len(images), 8))}

    def _nn(self, _name: str, made: Made) -> None:
        rng = np.random.default_rng(5)
        arrays, rows = {}, []
        for which, shift in (("samples", 0.0), ("held", 0.01)):
            cosine = rng.uniform(0.2, 0.8, 300) + shift
            arrays |= {f"{which}_cosine": cosine, f"{which}_index": np.arange(300)}
            rows.append({"which": which, "against": "train", "n": 300, "n_against": TRAIN, "mean": float(cosine.mean()),
                         "median": float(np.median(cosine)), "p95": float(np.quantile(cosine, 0.95)),
                         "label_match": 0.5, "seed": 3})  # fmt: skip
        made["arrays"]["nn.npz"], made["tables"]["drift_nn"] = arrays, rows

    def _contract(self, _name: str, made: Made) -> None:
        row = {"of": "eval", "check": "contract", "expected": "a", "found": "a", "passed": True}
        made["tables"]["drift_contract"] = [row]

    def _audit(self, _name: str, made: Made) -> None:
        made["tables"]["audit"] = [
            {
                "of": "eval",
                "check": r["metric"],
                "expected": repr(r["value"]),
                "found": repr(r["value"]),
                "passed": True,
            }
            for r in self._rows["eval"].get("drift_eval", [])
        ]

    def _summary(self, _name: str, made: Made) -> None:
        rows = []
        for name in (n for n in self.ids if n.startswith("eval")):
            if name in self.fail:
                rows.append({"node": name, "state": "failed", "reason": self.fail[name], "metric": None, "value": None,
                             "alpha": None, "seed": None, "n": None})  # fmt: skip
            for r in self._rows.get(name, {}).get("drift_eval", []):
                if r["control"] != "held":
                    told = {k: r[k] for k in ("metric", "value", "alpha", "seed", "n")}
                    rows.append({"node": name, "state": "succeeded", "reason": "", **told})
        made["tables"]["drift_summary"] = rows
        made["json"]["summary.json"] = {"rows": [dict(r) for r in rows]}

    def _npz(self, name: str, file: str) -> Any:
        """What later jobs make of a file; of one that cannot be read, what they would have made of the honest one."""
        try:
            return dict(np.load(io.BytesIO(self._files[name][file]), allow_pickle=False))
        except (zipfile.BadZipFile, ValueError):
            return dict(np.load(io.BytesIO(self._honest[name][file]), allow_pickle=False))


SPLITS = ("train", "reference", "held")
ENVIRONMENT = {"python": "3.11.2", "platform": "Linux 6.1 x86_64", "packages": {"numpy": "2.0"}, "grant": {"cores": 1}}


def sample_rows(images: npt.NDArray[Any], alpha: float) -> list[dict[str, Any]]:
    return [
        {"sample_id": f"S{i:06d}", "label": i % 10, "alpha": alpha, "digest": d}
        for i, d in enumerate(image_digests(images))
    ]


def register(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds of an outside package; the audit's in a module of its own, as an audit must be."""
    site = folder.parent / "pxkinds"
    site.mkdir(exist_ok=True)
    points = {}
    for name in NAMES:
        module = "pxaudit" if name == "audit" else "pxmodule"
        made = f'\nclass {name.capitalize()}(Px):\n    name = "px-{name}"\n'
        file = site / f"{module}.py"
        start = file.read_text() if file.exists() else KINDS
        if made not in start:
            file.write_text(start + made)
        points[f"px-{name}"] = EntryPoint(f"px-{name}", f"{module}:{name.capitalize()}", core.kind.GROUP)
    monkeypatch.syspath_prepend(str(site))
    for module in ("pxaudit", "pxmodule"):
        sys.modules.pop(module, None)
    importlib.invalidate_caches()
    # What is copied with each kind is not what is tested here, and nobody pulls the plug.
    monkeypatch.setattr("core.kindcode.OURS", ("core",))
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(core.kind, "entry_points", lambda: points)
    monkeypatch.setattr("lab.planning.entry_points", lambda: points)


@dataclass(frozen=True)
class Ended:
    """How a job ended, and what it left."""

    files: Mapping[str, bytes]
    tables: Mapping[str, list[dict[str, Any]]]
    state: str
    cause: str
    reason: str
    environment: Mapping[str, Any]
    plan: Mapping[str, Any]


def finish(journal: Journal, job_id: int, ended: Ended) -> None:
    """What lane and controller do with a job: run directory, seal, parts, the committing events."""
    home = journal.home
    job = query.job(journal.conn, job_id)
    n = job.attempts + 1
    run = home.run_dir(job_id, n)
    run.create()
    spec = with_made_inputs(home, journal.conn, job, query.spec_of(journal.conn, job.spec))
    told = {"job": job_id, "attempt": n, "key": job.key, "nonce": "x", "params": job.params}
    write_json(run.spec, {**told, "inputs": spec["inputs"], "absent": spec.get("absent", [])}, sync=False)
    write_json(run.env, dict(ended.environment), sync=False)
    if ended.plan:
        write_json(run.plan, dict(ended.plan), sync=False)
    run.log.write_text(f"log of {job_id}\n")
    for name, data in ended.files.items():
        (run.artifacts / name).write_bytes(data)
    parts = []
    for name, rows in ended.tables.items() if ended.state == "succeeded" else ():
        path = run.results / f"{name}.arrow"
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(path), "wb") as f, pa.ipc.new_file(f, table.schema) as writer:
            writer.write_table(table)
        part = append_part(
            home, job=job_id, attempt=n, lane="local", key=job.key, kind=job.kind, table=name, arrow_path=path
        )
        parts.append(part.data())
    seal(run, outcome={"cause": ended.cause})
    end = {"state": ended.state, "cause": ended.cause}
    data = {**end, "message": ended.reason, "seconds": 1.0, "undeclared": [], "parts": parts}
    data["manifest"] = sha256_file(run.manifest)
    with journal.transaction() as tx:
        tx.extend(
            [
                Event(K.PLACED, job_id, n, "local", {"nonce": "x", "grant": {"cores": 1}}),
                Event(K.STARTED, job_id, n, "local", {"pid": 1, "boot": "b"}),
                Event(K.ATTEMPT_ENDED, job_id, n, "local", data),
                Event(K.JOB_ENDED, job=job_id, data={**end, "reason": ended.reason}),
            ]
        )


def _blobs(made: Made) -> dict[str, bytes]:
    files = {n: _json(v) for n, v in made["json"].items()} | {n: _npz(v) for n, v in made["arrays"].items()}
    return files | made["files"]


def _npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _json(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True) + "\n").encode()


def _sha(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()
