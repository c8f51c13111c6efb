"""One lane for a test: a real agent, real supervisors, real programs; everything started is ended and checked."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.fsio import read_json, sha256_file
from core.rundir import RunDir
from lanes.agent import procs, spawn
from lanes.agent.agent import Agent
from tests.support import wait_for

REPO = Path(__file__).resolve().parents[2]
WAIT_S = 30.0
Report = dict[str, Any]


class Lane:
    """An agent on a folder of its own, and the attempts that a test gave it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "lane"
        self.socket = folder / "s"
        self.specs: list[dict[str, Any]] = []
        self.agents: list[Agent] = []
        self.agent = self.new_agent()

    def new_agent(self, **settings: Any) -> Agent:
        """Another agent object on the same folder: what follows a killed agent."""
        self.agent = Agent(self.root, home_hash="test", socket_path=self.socket, **settings)
        self.agents.append(self.agent)
        return self.agent

    def run_dir(self, job: int, attempt: int = 1) -> RunDir:
        return RunDir(self.folder / "attempts" / str(job) / str(attempt))

    def spec(self, job: int, argv: list[str], **changes: Any) -> dict[str, Any]:
        nonce = os.urandom(8).hex()
        attempt = changes.pop("attempt", 1)
        spec = {
            "version": 1,
            "job": job,
            "attempt": attempt,
            "nonce": nonce,
            "kind": "command",
            "entry": "jobs.command:Command",
            "params": {"argv": argv, "env": {}},
            "key": f"key-{job}",
            "inputs": [],
            "code": {"digest": None, "path": None, "subdir": ""},
            "kind_path": str(REPO),
            "python": sys.executable,
            "grant": {"cores": 1, "memory_mb": None, "gpus": [], "resources": []},
            "limits": {"time_s": None, "grace_s": 5.0, "setup_s": 60.0},
            "env": {},
            "marker": f"lab:test:{job}:{attempt}:{nonce}",
            "outputs": [],
            "expect": {},
            "checkpoints": [],
            "allow_undeclared": [],
            "wake": str(self.folder / "nobody-listens-here"),
            **changes,
        }
        self.specs.append(spec)
        return spec

    def python(self, job: int, code: str, *args: str, **changes: Any) -> dict[str, Any]:
        return self.spec(job, [sys.executable, "-c", code, *args], **changes)

    def start(self, spec: dict[str, Any]) -> RunDir:
        run = self.run_dir(spec["job"], spec["attempt"])
        answer = self.agent.start(spec, str(run.path))
        assert answer["ok"], answer
        return run

    def report(self, job: int) -> Report:
        return next(r for r in self.agent.poll({}, 0)["reports"] if r["job"] == job)

    def wait(self, job: int, condition: Callable[[Report], Any], what: str) -> Report:
        def look() -> Report | None:
            report = self.report(job)
            return report if condition(report) else None

        found = wait_for(look, f"{what} (job {job})", deadline_s=WAIT_S)
        assert found is not None
        return found

    def wait_running(self, job: int) -> Report:
        return self.wait(job, lambda r: r["phase"] == "running" and r["child"], "the child to run")

    def wait_gone(self, job: int) -> Report:
        report = self.wait(job, lambda r: r["phase"] in ("ended", "lost") and r["clear"], "the attempt to be gone")
        marker = next(s["marker"] for s in self.specs if s["job"] == job)
        assert procs.marked(marker) == [], "clear was said while something lives"
        return report

    def outcome(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Run to the end; the sealed outcome."""
        self.start(spec)
        report = self.wait_gone(spec["job"])
        assert report["sealed"], report
        found: dict[str, Any] = report["outcome"]
        return found

    def log(self, job: int) -> str:
        return self.run_dir(job).log.read_text()

    def started_pid(self, job: int) -> int:
        return int(wait_for(lambda: read_json(self.run_dir(job).started), "the supervisor", deadline_s=WAIT_S)["pid"])

    def end(self) -> None:
        for agent in self.agents:
            agent.close()
        for spec in self.specs:
            assert procs.kill_strays(spec["marker"]) == []
            with contextlib.suppress(OSError):
                os.unlink(spawn.short_name(spec))


def declared(path: Path, name: str = "data", dest: str | None = None) -> dict[str, Any]:
    """An input as a spec lists it."""
    size = path.stat().st_size
    return {"name": name, "path": str(path), "dest": dest, "sha256": sha256_file(path), "size": size, "tree": False}


def wait_file(path: Path, what: str) -> str:
    """The text of a file that a program writes to say how far it is."""
    return wait_for(lambda: path.read_text() if path.exists() else "", f"{what} ({path.name})", deadline_s=WAIT_S)


def alive(pid: int) -> bool:
    return procs.identify(pid) is not None


def kill9(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# A program with a child in a session of its own that ignores SIGTERM, and a grandchild likewise with no environment.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
folder = sys.argv[1]
def stay(name):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setsid()
    open(os.path.join(folder, name + ".new"), "w").write(str(os.getpid()))
    os.rename(os.path.join(folder, name + ".new"), os.path.join(folder, name))
if os.fork() == 0:
    stay("child")
    if os.fork() == 0:
        # The marker is gone from this one, and its parent will be too.
        os.execve(sys.executable, [sys.executable, "-c", '''
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid()
open(sys.argv[1] + ".new", "w").write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
''', os.path.join(folder, "grandchild")], {})
    time.sleep(600)
time.sleep(600)
"""
