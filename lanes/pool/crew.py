"""The controller's side of warm workers: which specs may share one, how one is made, watched and ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.fsio import digest, write_json
from core.home import Home
from core.states import AttemptState, Cause
from lanes.agent import procs
from lanes.agent.spawn import THREADS
from lanes.pool import words as w
from lanes.pool.folder import SPARE
from lanes.pool.links import Link
from lanes.pool.sizer import Sizer
from lanes.pool.types import Batch
from lanes.pool.words import PROTOCOL, Words
from lanes.ray_session import HERE

_LEAST_MB = 512  # Python, Ray, Arrow and the kind itself, before the first cell
_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "USER", "LOGNAME", "SHELL", "TZ", "LD_LIBRARY_PATH")


def crew_key(spec: Mapping[str, Any]) -> str:
    """Specs with the same key may share a warm worker."""
    names = ("kind", "entry", "version", "python", "env", "packages", "needs")
    return digest({**{n: spec[n] for n in names}, "store": spec["kind_code"]["store"]})[:16]


def why_not(home: Home, spec: Mapping[str, Any]) -> str:
    """Why cells of this spec cannot run in a pool on this machine; empty when they can."""
    if not _same_python(str(spec["python"])):
        return f"it wants the interpreter {spec['python']}, and warm workers run {sys.executable}"
    for item in spec.get("inputs") or ():
        if item.get("lane"):
            return f"its input {item['name']!r} lies on lane {item['lane']}"
    return why_not_anywhere(home, spec)


def why_not_anywhere(home: Home, spec: Mapping[str, Any]) -> str:
    """Why cells of this spec cannot run in any pool; empty when they can."""
    if spec["needs"].get("gpus"):
        return "it needs a GPU, which a warm worker would hold between batches"
    most = spec["needs"].get("memory_mb")
    if most is not None and most < _LEAST_MB:
        return f"its {most} MiB of memory are less than the {_LEAST_MB} MiB that a warm worker needs"
    if spec.get("code"):
        return "it runs code of the user's own"
    if spec.get("outputs"):
        return "it declares output files"
    plan = spec.get("expect") or {}
    if plan.get("artifacts"):
        return "it is expected to leave artifacts"
    for item in spec.get("inputs") or ():
        if item.get("tree") or item.get("dest"):
            return f"its input {item['name']!r} is a folder, or has a place in the working folder"
    place = home.code / str(spec["kind_code"]["store"]) / "lanes" / "pool" / "words.py"
    try:
        if f"\nPROTOCOL = {PROTOCOL}\n" not in place.read_text():
            return "it was submitted with another version of lab"
    except OSError:
        return "it was submitted with a version of lab that had no warm workers"
    return ""


@dataclass
class Running:
    """A batch that the pool has: with a worker, or waiting for one."""

    batch: Batch
    time_limit: float | None
    ahead: bool  # it may only wait for a worker that is busy, and not for long
    since: float
    worker: Worker | None = None
    serial: int = 0
    stops: dict[int, tuple[float, str]] = field(default_factory=dict)  # job -> when it was asked, cause
    killed: tuple[AttemptState, Cause, str] | None = None  # why we ended the worker


@dataclass
class Crew:
    """All workers of one key, and the batches that wait for one of them, in order."""

    key: str
    sizer: Sizer = field(default_factory=Sizer)
    idle: list[Worker] = field(default_factory=list)
    busy: list[Worker] = field(default_factory=list)
    warming: list[Worker] = field(default_factory=list)  # they have not connected yet
    waiting: list[Running] = field(default_factory=list)
    deaths: int = 0  # in a row, before the kind was loaded
    refused: str = ""  # what a worker said that could not load the kind
    refused_at: float = 0.0
    tainted: int = 0  # workers that were ended because they had read undeclared files

    @property
    def missing(self) -> int:
        """How many more workers are needed."""
        ahead = sum(r.ahead for r in self.waiting) if self.busy else 0
        return len(self.waiting) - ahead - len(self.warming)

    def leave(self, worker: Worker) -> None:
        for group in (self.idle, self.busy, self.warming):
            if worker in group:
                group.remove(worker)


class Worker:
    """One warm worker: its actor, its folder, its shared words, its socket.

    Args:
        socket, token: where it is to connect, and what it shows there.
    """

    def __init__(
        self,
        home: Home,
        crew: Crew,
        name: str,
        first: Batch,
        socket: Path,
        token: str,
    ) -> None:
        import ray

        from lanes.pool.worker import PoolWorker

        spec, grant = first.spec, first.grant
        self.crew = crew
        self.token = token
        self.link: Link | None = None  # once it has connected
        self.folder = home.runtime / "pool" / name
        (self.folder / "work").mkdir(parents=True, mode=0o700)
        self._spare = home.batches / SPARE / name
        self.words = Words(self.folder / "words", create=True)
        self.serial = 0
        self.known: set[str] = set()  # spec digests that it has been told
        self.born = self.idle_since = time.monotonic()
        self.setup_s = float((spec.get("limits") or {}).get("setup_s") or 600.0)
        self.run: Running | None = None  # the batch that it has
        self.well = False  # it has done a batch, so the kind can be loaded
        self.late = False  # ended by us, for it was not ready in time
        self.ended = False  # somebody sees to its end
        self.gone = False
        self._proc: procs.Proc | None = None
        self._stops: dict[str, str] = {}  # job -> cause
        self._asked = 0
        setup = {
            "protocol": PROTOCOL,
            "folder": str(self.folder),
            "socket": str(socket),
            "token": token,
            "spare": str(self._spare),
            "kind_path": str(home.code / str(spec["kind_code"]["store"])),
            "entry": spec["entry"],
            "env": environment(spec, grant, self.folder),
            # Ray's own files, which it opens whenever it likes.
            "extra": (str(home.runtime / "ray"),),
        }
        # Never on a lane that joined: what it needs lies here.
        options = {"num_cpus": 0, "resources": HERE, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 1}
        self.actor = ray.remote(PoolWorker).options(**options).remote(setup)
        self.serving = self.actor.serve.remote()  # ends when the worker does

    @property
    def ready(self) -> bool:
        return bool(self.words.view[w.READY])

    @property
    def proc(self) -> procs.Proc | None:
        """The worker's process, once it has said who it is."""
        if self._proc is None and self.words.view[w.PID]:
            self._proc = procs.Proc(self.words.view[w.PID], self.words.view[w.TICKS])
        return self._proc

    @property
    def lives(self) -> bool:
        return self.proc is not None and procs.alive(self.proc)

    def rss_mb(self) -> float:
        return procs.rss_bytes([self.proc.pid]) / (1 << 20) if self.proc is not None else 0.0

    def give(self, run: Running, order: dict[str, Any]) -> None:
        """Send it a batch."""
        assert self.link is not None
        self.run, run.worker = run, self
        self._stops = {}
        self.link.send(order)

    def ask_stop(self, jobs: Mapping[int, str], nonce: str) -> None:
        """Have the cells of batch `nonce` in `jobs` (job -> cause) stopped, or not begun."""
        self._stops.update((str(job), cause) for job, cause in jobs.items())
        write_json(self.folder / "stop.json", {nonce: self._stops}, sync=False)
        self._asked += 1
        self.words.view[w.STOP] = self._asked

    def kill(self) -> None:
        """End it and what its cells started. May be called again."""
        import ray

        proc = self.proc
        below = [procs.identify(p) for p in procs.descendants(proc.pid)] if proc and procs.alive(proc) else []
        with contextlib.suppress(Exception):
            ray.kill(self.actor, no_restart=True)
        for one in (proc, *below):
            if one is not None:
                procs.kill(one, signal.SIGKILL)

    def dismiss(self, patience_s: float = 2.0) -> None:
        """End one that has nothing to do, in a way that Ray does not report as a crash; then remove its folder."""
        import ray

        if self.link is not None:
            self.link.close()
        with contextlib.suppress(Exception):
            ray.kill(self.actor, no_restart=True)
        if not self.wait_gone(patience_s):
            self.kill()
        if self.wait_gone():
            self.remove()

    def wait_gone(self, within_s: float = 5.0) -> bool:
        """Wait until nothing of it can write any more."""
        deadline = time.monotonic() + within_s
        while self.proc is not None and procs.alive(self.proc):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def remove(self) -> None:
        """Forget its folder; the process must be gone, and nobody may look at its words any more."""
        if self.gone:
            return
        self.gone = True
        self.words.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        for spare in self._spare.parent.glob(f"{self._spare.name}-*"):
            shutil.rmtree(spare, ignore_errors=True)


def environment(spec: Mapping[str, Any], grant: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The environment of a worker, as lanes.agent.spawn makes it for an attempt."""
    cores = str(max(1, int(grant.get("cores") or 1)))
    env = {name: os.environ[name] for name in _PASSED if name in os.environ}
    env["PATH"] = str(spec.get("path") or env.get("PATH") or os.defpath)
    env.setdefault("LANG", "C.UTF-8")
    env["PYTHONUNBUFFERED"] = "1"
    env.update(dict.fromkeys(THREADS, cores))
    # Threads that spin while they wait for one another starve the neighbours they wait for.
    env.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0", KMP_BLOCKTIME="0")
    env.update({str(k): str(v) for k, v in (spec.get("env") or {}).items()})
    env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    env["CUDA_VISIBLE_DEVICES"] = ",".join(str(g) for g in grant.get("gpus") or ())
    env["TMPDIR"] = str(folder / "work")
    env["LAB_CORES"] = cores
    env["PYTHONPATH"] = ""  # programs that a cell starts must not find our snapshot by accident
    env["PYTHONSAFEPATH"] = "1"
    return env


def spec_blob(spec: Mapping[str, Any]) -> bytes:
    return json.dumps(spec, sort_keys=True, separators=(",", ":")).encode()


def _same_python(wanted: str) -> bool:
    mine = sys.executable
    if os.path.abspath(wanted) == os.path.abspath(mine):
        return True
    same_folder = os.path.realpath(os.path.dirname(wanted)) == os.path.realpath(os.path.dirname(mine))
    return same_folder and os.path.realpath(wanted) == os.path.realpath(mine)
