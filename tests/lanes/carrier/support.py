"""A head and a lane in two folders, and between them a wire that loses, damages and delays what a test tells it to."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.cluster import LaneConfig
from core.digests import Digests
from core.fsio import digest, sha256_file, walk_files
from core.home import Home
from core.rundir import RunDir, seal
from lanes.agent import procs, spawn
from lanes.agent.agent import Agent
from lanes.agent.envs import Environments
from lanes.agent.leftovers import Leftovers
from lanes.agent.store import Store
from lanes.carrier import Carrier
from lanes.transport import LinkDown, RemoteError

REPO = Path(__file__).resolve().parents[3]
Cut = Callable[[int, str], str]  # number of the call, method -> "" | "before" | "after"
Mangle = Callable[[str, tuple[Any, ...], Any], Any]  # method, arguments, answer -> answer


class Wire:
    """A transport that calls the parts of the far end in this process, what is said going through JSON as it would."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.cut: Cut = lambda n, method: ""
        self.mangle: Mangle = lambda method, args, answer: answer
        self.damage: Callable[[str, tuple[Any, ...]], tuple[Any, ...]] = lambda method, args: args
        self.up = 0  # bytes that reached the lane
        self.down = 0  # bytes that reached the head
        self._lock = threading.Lock()

    def call(self, method: str, *args: Any, timeout_s: float | None = None, bulk: bool = False, **named: Any) -> Any:
        with self._lock:
            number = len(self.calls)
            self.calls.append((method, args))
        how = self.cut(number, method)
        if how == "before":
            raise LinkDown(f"the wire was cut before {method}")
        target = next(p for p in self.parts if hasattr(p, method))
        args = self.damage(method, args)
        with self._lock:
            self.up += sum(len(a) for a in args if isinstance(a, bytes))
        try:
            answer = getattr(target, method)(*_through_json(args), **_through_json(named))
        except Exception as error:
            raise RemoteError(type(error).__name__, str(error)) from None
        if how == "after":
            raise LinkDown(f"the wire was cut before the answer of {method}")
        answer = self.mangle(method, args, _through_json(answer))
        with self._lock:
            self.down += _bytes_in(answer)
        return answer

    def named(self, method: str) -> list[tuple[Any, ...]]:
        return [args for name, args in self.calls if name == method]

    def link(self) -> dict[str, Any]:
        return {"up": True, "age_s": 0.0, "error": "", "refused": None, "address": "test", "tries": 0}

    def knock(self) -> None: ...

    def drop(self, for_s: float = 0.0) -> None: ...

    def close(self) -> None: ...


class World:
    """One home, one lane, and what is between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.home.create()
        self.base = folder / "lane"
        self.root = self.base / "heads" / self.home.hash / "mini"
        self.agent = Agent(self.root, home_hash=self.home.hash, socket_path=folder / "s")
        self.store = Store(self.base)
        self.leftovers = Leftovers(self.base)
        self.environments = Environments(self.base, self.root)
        self.wire = Wire(self.store, self.agent, self.leftovers, self.environments)
        self.said: list[str] = []
        self.carriers: list[Carrier] = []
        self.specs: list[dict[str, Any]] = []
        self.carrier = self.new_carrier()

    def new_carrier(self, **settings: Any) -> Carrier:
        """What follows when the head's process ended."""
        self.carrier = Carrier(
            self.home, LaneConfig("mini", transport="ssh"), self.wire, say=self.said.append, **settings
        )
        self.carriers.append(self.carrier)
        return self.carrier

    def new_store(self) -> Store:
        """What follows when the process at the far end ended."""
        self.store = Store(self.base)
        self.wire.parts = (self.store, self.agent, self.leftovers, self.environments)
        return self.store

    def end(self) -> None:
        for carrier in self.carriers:
            carrier.close()
        self.agent.close()
        for spec in self.specs:
            assert procs.kill_strays(spec["marker"]) == []
            with contextlib.suppress(OSError):
                os.unlink(spawn.short_name(spec))

    def long_ago(self) -> None:
        """Everything in the store was asked for a while ago."""
        for stamp in (self.base / "store" / "used").iterdir():
            os.utime(stamp, (1000, 1000))

    # Things of the head.

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def code(self, files: dict[str, str]) -> str:
        """A snapshot in the home's store; returns its path."""
        rows = [[n, sha(t.encode()), n.endswith(".sh")] for n, t in sorted(files.items())]
        place = self.home.code / digest(rows)
        for name, text in files.items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if name.endswith(".sh") else 0o644)
        return str(place)

    def frozen(self, job: int, argv: list[str] | None = None, **changes: Any) -> dict[str, Any]:
        """A spec as lanes.freeze makes it."""
        n, nonce = changes.pop("attempt", 1), os.urandom(8).hex()
        spec = {
            "version": 1,
            "job": job,
            "attempt": n,
            "nonce": nonce,
            "kind": "command",
            "entry": "jobs.command:Command",
            "params": {"argv": argv or ["/bin/true"], "env": {}},
            "key": f"key-{job}",
            "lane": "mini",
            "inputs": [],
            "code": {"digest": None, "path": None, "subdir": ""},
            "kind_path": self.code({"kind.py": "x = 1\n"}),
            "kind_digest": "d",
            "packages": {},
            "python": sys.executable,
            "grant": {"cores": 1, "memory_mb": None, "gpus": [], "resources": []},
            "limits": {"time_s": None, "grace_s": 5.0, "setup_s": 60.0},
            "env": {},
            "marker": f"lab:{self.home.hash}:{job}:{n}:{nonce}",
            "outputs": [],
            "expect": {},
            "checkpoints": [],
            "allow_undeclared": [],
            "wake": "/head/agent.sock",
            "base_env": {"PATH": "/head/bin:/usr/bin:/bin", "HOME": "/head/home", "USER": "headuser"},
            **changes,
        }
        self.specs.append(spec)
        return spec

    def order(self, frozen: dict[str, Any]) -> dict[str, Any]:
        return {"frozen": frozen, "lane_python": None}

    # Things of the lane.

    def lane_run(self, job: int, n: int = 1) -> RunDir:
        return RunDir(self.root / "attempts" / str(job) / str(n))

    def head_run(self, job: int, n: int = 1) -> RunDir:
        return self.home.run_dir(job, n)

    def known(self, frozen: dict[str, Any], files: dict[str, bytes] | None = None) -> RunDir:
        """A run directory on the lane as a supervisor would have made it, the head knowing that it asked for it."""
        job, n = int(frozen["job"]), int(frozen["attempt"])
        for run in (self.lane_run(job, n), self.head_run(job, n)):
            run.create()
            run.spec.write_text(json.dumps(frozen, indent=1, sort_keys=True) + "\n")
        run = self.lane_run(job, n)
        for name, data in (files or {}).items():
            path = run.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return run

    def sealed(self, frozen: dict[str, Any], files: dict[str, bytes]) -> RunDir:
        run = self.known(frozen, {"log.txt": b"", **files})
        seal(run, outcome={"cause": "ok", "message": "", "exit_code": 0})
        return run

    def saw(self, *at: tuple[int, int]) -> None:
        """Only tell the mirror what lives: a test makes its rounds itself."""
        with self.carrier._mirror._guard:
            self.carrier._mirror._live = set(at)


def entry(path: Path, name: str = "data", dest: str | None = None) -> dict[str, Any]:
    """An input as a spec lists it."""
    with Digests(None) as digests:
        content = digests.of(path)
    return {
        "name": name, "path": str(path), "dest": dest, "sha256": content.sha256, "size": content.size,
        "tree": content.tree, "lane": None,
    }  # fmt: skip


def contents(folder: Path) -> dict[str, str]:
    """Everything below, by digest or link."""
    return {
        rel.as_posix(): f"link:{os.readlink(folder / rel)}"
        if (folder / rel).is_symlink()
        else sha256_file(folder / rel)
        for rel in walk_files(folder)
    }


def sha(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _through_json(value: Any) -> Any:
    """As the other end would get it: lists for tuples, text keys, bytes as they are."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, dict):
        assert all(isinstance(k, str) for k in value), value
        return {k: _through_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_through_json(v) for v in value]
    json.dumps(value)
    return value


def _bytes_in(value: Any) -> int:
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_bytes_in, value.values()))
    return 0
