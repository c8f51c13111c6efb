"""A lane for the ladder without a network: a real store, a real journal, and a machine that says what it is told.

The fake plays the controller too: jobs of the ladder run when it is their turn, and end as the test says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.cluster import LaneConfig
from core.fsio import write_json
from core.home import Home
from core.journal import Event, Journal, Role
from core.rundir import seal
from core.states import EventKind as K
from core.tables import append_part
from lanes.admission import Tools
from lanes.agent import machine as probes
from lanes.agent.store import Store
from lanes.transport import LinkDown, RemoteError

HELLO = {
    "version": 1, "boot_id": "boot-1", "hostname": "bat00", "cores": 4, "memory_mb": 8000, "gpus": [],
    "python": "3.11.7", "executable": "/usr/bin/python3", "platform": "Linux-x86_64", "disk_free": 1 << 40, "pid": 7,
}  # fmt: skip
MACHINE: dict[str, Any] = {**HELLO, "memory_free_mb": 6000, "power": {}, "heat": [], "clock": 1000.0, "load": [0.1]}
PACKAGES: dict[str, Any] = {
    "python": "3.11.7", "executable": "/usr/bin/python3", "broken": {},
    "versions": {"pydantic": "2.12", "numpy": "2.1", "numba": "0.62", "pyarrow": "21", "scikit-image": "0.25",
                 "matplotlib": "3.9", "torch": None, "tensorflow": None, "scipy": None, "ray": None},
}  # fmt: skip
DISK: dict[str, Any] = {"path": "/lane", "free": 40 << 30, "files_free": 10**6, "write": {"ok": True, "full": False}}
CARD: dict[str, Any] = {"index": 0, "name": "RTX 4090", "uuid": "u", "memory_mb": 24000, "memory_used_mb": 300}

STEPS = ("smoke", "train", "cells", "parity", "outlives")
PARITY_ROWS = (
    {"role": "candidate", "candidate": "numba", "verdict": "pass", "reason": "", "own_reason": None, "max_rel": 1e-7},
    {"role": "mutant", "candidate": "collapses", "verdict": "fail", "reason": "x", "own_reason": True, "max_rel": 1.0},
    {"role": "gate", "candidate": "judge", "verdict": "pass", "reason": "", "own_reason": None, "max_rel": None},
)


class World:
    """A lane, a head's home, and time.

    Attributes:
        told: everything that was said to the controller, in order.
        calls: methods that the far end was asked for.
        answers: by method: what the far end says instead (a value, or something to be called with the arguments).
        ends: step -> how its job ends: what `play` does with it; missing: well.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.home = Home(folder / "head")
        self.home.create()
        self.name = "bat00"
        settings = {"host": "bat00.lab", "transport": "ssh", "user": "me", **settings}
        self.config = LaneConfig("bat00", **settings)
        self.interpreter: str | None = None
        self.store = Store(folder / "lane")
        self.clock = 0.0
        self.tools = Tools(self._sleep, lambda: self.clock, lambda: 1000.0, job_s=3600.0)
        self.told: list[tuple[str, Any]] = []
        self.calls: list[str] = []
        self.answers: dict[str, Any] = {}
        self.found: dict[str, Any] = {"machine": MACHINE, "packages": PACKAGES, "disk": DISK}
        self.state: dict[str, Any] = {"up": True, "age_s": 0.0, "error": "", "refused": None, "tries": 0}
        self.ends: dict[str, Callable[[int], list[Event]]] = {}
        self.rows: list[dict[str, Any]] = [dict(r) for r in PARITY_ROWS]
        self.jobs: dict[str, int] = {}
        self.steps_made = 0
        self.report: dict[str, Any] | None = None
        self.closed: list[float] = []
        self.away: Callable[[float], None] = self._go_on
        self.admitting = False
        self._turns: Iterator[str] = iter(())

    # As lanes.admission.words.Access.

    def call(self, method: str, *args: Any, timeout_s: float = 60, **named: Any) -> Any:
        self.calls.append(method)
        if method in self.answers:
            said = self.answers[method]
            if isinstance(said, Exception):
                raise said
            return said(*args, **named) if callable(said) else said
        if method == "hello":
            return dict(HELLO)
        if method == "begin_look":
            return args[0]
        if method == "look":
            return {"known": True, "done": True, "found": self.found[args[0]], "error": ""}
        if method == "poll":
            return {"reports": [dict(self.report)] if self.report is not None else [], "boot_id": "boot-1"}
        if method == "verify" and args[0] == "code":  # what the carrier would have sent
            return {"state": "done", "equal": True, "why": ""}
        try:
            return getattr(self.store, method)(*args, **named)
        except Exception as error:
            raise RemoteError(type(error).__name__, str(error)) from error

    def link(self) -> dict[str, Any]:
        return {**self.state, "address": "me@bat00.lab:22"}

    def knock(self) -> None:
        self.state["tries"] += 1

    def close_for(self, seconds: float) -> None:
        self.closed.append(seconds)
        self.clock += seconds
        self.away(seconds)

    def carrier(self, method: str, *args: Any, **named: Any) -> Any:
        assert (method, args) == ("send_code", (["c" * 64],))
        self.calls.append("carrier.send_code")

    def say(self, what: str, body: Any) -> None:
        self.told.append((what, body))
        if what == "admitting":
            self.admitting = bool(body)
            self._turns = iter([s for s in STEPS if s in self.jobs])

    # What the test looks at.

    def rungs(self) -> dict[str, bool]:
        """Rung (with its role) -> did it hold, in the order in which they were climbed."""
        return {
            body["rung"] + (f" {body['role']}" if body["role"] else ""): body["ok"]
            for what, body in self.told
            if what == "rung"
        }

    def failed(self) -> dict[str, Any]:
        """The first rung that did not hold."""
        return next(body for what, body in self.told if what == "rung" and not body["ok"])

    def roles(self) -> dict[str, bool]:
        return {body["role"]: body["ok"] for what, body in self.told if what == "admitted"}

    def cancelled(self) -> list[int]:
        return [i for what, body in self.told if what == "cancel" for i in body[0]]

    # The controller and the machine.

    def submit(self, *steps: str) -> dict[str, int]:
        """The jobs of a ladder, as `lab lane admit` would leave them in the journal."""
        spec = {"kind_code": {"digest": "d", "store": "c" * 64}, "needs": {"lane": "bat00", "admission": True}}
        events = [Event(K.SPEC, data={"digest": "s", "data": json.dumps(spec)})]
        self.jobs = {step: i for i, step in enumerate(steps, start=1)}
        for step, i in self.jobs.items():
            kind = {"parity": "parity"}.get(step, "smoke")
            data = {"spec": "s", "kind": kind, "name": step, "params": {}, "key": f"{i:064x}", "priority": 0}
            data |= {"idem": None, "tags": [], "note": "", "held": False, "rerun_of": None, "after": []}
            events.append(Event(K.SUBMITTED, job=i, data=data))
        self.write(events)
        return self.jobs

    def write(self, events: list[Event]) -> None:
        with Journal.open(self.home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
            tx.extend(events)

    def _sleep(self, seconds: float) -> None:
        """Time passes: the next job has its turn."""
        self.clock += max(seconds, 0.01)
        if self.report is not None and self.report["phase"] == "running":
            if self.closed:  # the connections are open again: the background attempt comes to its end
                self._finish("outlives")
            return
        if not self.admitting:
            return
        step = next(self._turns, None)
        if step is not None:
            self.begin(step)
            if step != "outlives" or step in self.ends:
                self._finish(step)

    def begin(self, step: str) -> None:
        job = self.jobs[step]
        placed = {"nonce": "n", "grant": {"cores": 1}}
        self.write(
            [
                Event(K.PLACED, job=job, attempt=1, lane=self.name, data=placed),
                Event(K.STARTED, job=job, attempt=1, lane=self.name, data={"pid": 1, "boot": "b"}),
            ]
        )
        if step == "outlives":
            self.report = {
                "job": job, "attempt": 1, "phase": "running", "pid": 77, "step": 2, "boot_id": "boot-1", "reason": "",
                "outcome": None, "metrics": self.metrics(2),
            }  # fmt: skip

    def _go_on(self, seconds: float) -> None:
        """The background attempt makes a step a second while nothing is connected."""
        assert self.report is not None
        self.report["step"] += int(seconds)
        self.report["metrics"] = self.metrics(self.report["step"])

    def metrics(self, steps: int, *, gap_after: int = -1, gap_s: float = 0.0) -> list[str]:
        out = []
        for step in range(1, steps + 1):
            t = step + (gap_s if 0 <= gap_after < step else 0.0)
            out.append(json.dumps({"step": step, "t": float(t), "loss": 0.5}))
        return out

    def _finish(self, step: str) -> None:
        if self.report is not None and step == "outlives":
            self.report = None  # harvested, and forgotten by the agent
        job = self.jobs[step]
        self.write(self.ends.get(step, self.well)(job))

    def well(self, job: int, *, hostname: str = "bat00") -> list[Event]:
        """The job succeeds, and its run directory comes back."""
        from lanes.admission.ladder import echo

        run = self.home.run_dir(job, 1)
        run.create()
        write_json(run.spec, {"job": job, "attempt": 1, "key": "k", "nonce": "n"})
        write_json(run.env, {"hostname": hostname})
        (run.artifacts / "echo.bin").write_bytes(echo("nonce", 1 << 10))
        (run.checkpoints / "1").mkdir()
        (run.checkpoints / "1" / "weights.json").write_text("[]")
        run.metrics.write_text("\n".join(self.metrics(150)) + "\n")
        seal(run, outcome={"cause": "ok"})
        parts = [self._table(job)] if self.jobs.get("parity") == job else []
        end = {"state": "succeeded", "cause": "ok", "message": "", "seconds": 1.5, "manifest": "m", "undeclared": []}
        done = {"state": "succeeded", "cause": "ok", "reason": "", "undeclared": 0}
        return [
            Event(K.ATTEMPT_ENDED, job, 1, self.name, {**end, "parts": parts}),
            Event(K.JOB_ENDED, job, data=done),
        ]

    def badly(self, job: int, cause: str = "error", reason: str = "it ended with exit 1", log: str = "") -> list[Event]:
        """The job fails."""
        run = self.home.run_dir(job, 1)
        run.create()
        run.log.write_text(log)
        end = {"state": "failed", "cause": cause, "message": reason, "seconds": 1.0, "manifest": None, "undeclared": []}
        done = {"state": "failed", "cause": cause, "reason": reason, "undeclared": 0}
        return [
            Event(K.ATTEMPT_ENDED, job, 1, self.name, {**end, "parts": []}),
            Event(K.JOB_ENDED, job, data=done),
        ]

    def _table(self, job: int) -> dict[str, Any]:
        place = self.home.path / "rows.arrow"
        table = pa.Table.from_pylist(self.rows)
        with pa.OSFile(str(place), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        asked = {"job": job, "attempt": 1, "lane": self.name, "key": "k", "kind": "parity", "table": "parity"}
        return append_part(self.home, **asked, arrow_path=place).data()  # type: ignore[arg-type]


def data_of(world: World, *roles: str) -> dict[str, Any]:
    """What is asked of the controller for these roles, with the jobs in the journal."""
    steps = ["smoke"]
    steps += ["train"] if {"train", "promote"} & set(roles) else []
    steps += ["parity", "outlives"]
    jobs = world.submit(*steps)
    echo = {"name": "echo.bin", "nonce": "nonce", "kib": 1}
    return {"roles": list(roles), "jobs": jobs, "pace_s": 1.0, "echo": echo}


def unreachable(*_: Any, **__: Any) -> Any:
    raise LinkDown("no route to host")


__all__ = ["CARD", "DISK", "MACHINE", "PACKAGES", "World", "data_of", "probes", "unreachable"]
