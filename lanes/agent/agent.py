"""The lane agent: starts attempts, tells what became of them, and is sure before it says that one is gone.

It keeps nothing in memory that matters. `active/` holds one file per live attempt; everything else is read from the
run directories, so an agent that was killed is replaced by a new one that knows as much.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from core.fsio import no_space, read_json, safe_join, walk_files, write_atomic, write_json
from core.rundir import SEALED_FILES, SEALED_FOLDERS, RunDir
from lanes.agent import FAILPOINTS, failpoint, probe, procs, spawn
from lanes.agent.attempt import RESCAN_S, START_GRACE_S, Attempt, Report
from lanes.agent.runner import BOOTSTRAP
from lanes.agent.supervisor import NOTIFY

READ_LIMIT = 8 << 20
_CODE_ROOT = Path(__file__).resolve().parents[2]
_STRENGTH = {"stop": 1, "kill": 2, "revoke": 3}


class Agent:
    """All attempts of one lane.

    Args:
        root: the agent's own folder on this lane.
        home_hash: tells the attempts of one home from another's.
        socket_path: a short path at which runners wake a waiting `poll`; without it, poll looks every 0.1 s.
    """

    def __init__(
        self,
        root: Path,
        *,
        home_hash: str,
        socket_path: Union[str, Path, None] = None,
        start_grace_s: float = START_GRACE_S,
    ) -> None:
        self.root = Path(root)
        self.home_hash = home_hash
        self._active = self.root / "active"
        self._active.mkdir(parents=True, exist_ok=True)
        self._boot = procs.boot_id()
        self._start_grace_s = start_grace_s
        self._guard = threading.RLock()
        self._runs: Dict[str, Attempt] = {}
        self._launched: List["subprocess.Popen[bytes]"] = []
        self._socket = self._listen(socket_path)
        for file in sorted(self._active.iterdir()):
            if not file.name.startswith("."):
                self._know(file.name, Path(file.read_text().strip()))

    def close(self) -> None:
        """Let go of the socket. Attempts go on."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def hello(self) -> Dict[str, Any]:
        return probe.hello(self.root)

    def start(self, spec: Dict[str, Any], run_dir: str) -> Dict[str, Any]:
        """Launch the attempt's supervisor, unless the attempt was begun before. Repeatable.

        Returns:
            {"ok": True, "pid": ...}, or {"ok": False, "cause": ..., "reason": a sentence}.
        """
        name = f"{spec['job']}.{spec['attempt']}"
        run = RunDir(Path(run_dir))
        with self._guard:
            try:
                known = read_json(run.spec)
                if known is not None and known.get("nonce") != spec.get("nonce"):
                    return {"ok": False, "cause": "setup", "reason": f"{run_dir} belongs to another attempt"}
                run.path.mkdir(parents=True, exist_ok=True)
                if known is None:
                    write_json(run.spec, spec, sync=False)
                if self._active_path(name) is None:
                    write_atomic(self._active / name, str(run.path), sync=False)
            except OSError as error:
                cause = "disk-full" if no_space(error) else "setup"
                return {"ok": False, "cause": cause, "reason": f"{run_dir} cannot be made: {error}"}
            entry = self._know(name, run.path)
            # A held lock without a beginning may be a dying supervisor's: one more is harmless, the lock decides.
            if run.started.exists() or run.manifest.exists():
                return {"ok": True, "pid": int((read_json(run.started) or {}).get("pid") or 0)}
            entry.since = time.monotonic()
            failpoint("agent.before_launch")
            try:
                launched = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", BOOTSTRAP, str(_CODE_ROOT), str(run.path), str(self.root)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=self._runner_env(spec),
                    start_new_session=True,
                    close_fds=True,
                )
            except OSError as error:
                return {"ok": False, "cause": "setup", "reason": f"no supervisor can be started: {error}"}
            failpoint("agent.after_launch")
            self._launched = [p for p in self._launched if p.poll() is None] + [launched]
            return {"ok": True, "pid": launched.pid}

    def adopt(self, attempts: List[Tuple[int, int, str]]) -> Dict[str, Any]:
        """Know these attempts (job, attempt, run directory), whether or not this lane remembers them."""
        with self._guard:
            for job, attempt, run_dir in attempts:
                name = f"{job}.{attempt}"
                if self._active_path(name) is None:
                    with contextlib.suppress(OSError):
                        write_atomic(self._active / name, str(run_dir), sync=False)
                self._know(name, Path(run_dir))
        return {"ok": True}

    def poll(self, cursor: Optional[Dict[str, Any]] = None, wait_s: float = 0.0) -> Dict[str, Any]:
        """What became of every known attempt; at once when something is new, else after `wait_s`.

        Returns:
            {"cursor": pass this next time, "reports": [...], "boot_id": ...}
        """
        deadline = time.monotonic() + wait_s
        cursor = dict(cursor or {})
        while True:
            with self._guard:
                self._launched = [p for p in self._launched if p.poll() is None]
                runs = sorted(self._runs.items())
            new: Dict[str, Any] = {}
            reports: List[Report] = []
            for name, entry in runs:
                seen = cursor.get(name) or {}
                report, offset = entry.report(int(seen.get("metrics") or 0), self._boot)
                reports.append(report)
                new[name] = {"metrics": offset, "said": _said(report)}
            changed = {n: c["said"] for n, c in new.items()} != {n: (c or {}).get("said") for n, c in cursor.items()}
            news = changed or any(r["metrics"] for r in reports)
            rest = deadline - time.monotonic()
            if news or rest <= 0:
                return {"cursor": new, "reports": reports, "boot_id": self._boot}
            self._wait(min(rest, RESCAN_S, *[e.look_again_s for _, e in runs] or [RESCAN_S]))

    def signal(
        self, job: int, attempt: int, action: str, cause: str = "cancelled", grace_s: float = 0.0
    ) -> Dict[str, Any]:
        """Ask the attempt's supervisor to stop it (with grace), kill it, or revoke it. Repeatable; never weaker."""
        entry = self._runs.get(f"{job}.{attempt}")
        if entry is None:
            return {"ok": False, "known": False}
        with self._guard:
            now = read_json(entry.run.stop) or {}
            if _STRENGTH[action] >= _STRENGTH.get(str(now.get("action")), 0):
                # The first cause stays: a kill that follows a time limit is still a time limit.
                cause = str(now.get("cause") or cause)
                entry.run.path.mkdir(parents=True, exist_ok=True)
                write_json(entry.run.stop, {"action": action, "cause": cause, "grace_s": grace_s}, sync=False)
                if action == "revoke" and entry.revoked_at is None:
                    entry.revoked_at = time.monotonic()
        runner = entry.runner(self._boot)
        if runner is not None and entry.held():
            procs.kill(runner, signal.SIGUSR1)
        self._nudge()
        return {"ok": True, "known": True}

    def read(self, path: str, offset: int = 0, size: int = READ_LIMIT) -> bytes:
        """Bytes of one file inside a known run directory.

        Raises:
            PermissionError: the path, links resolved, is in none of them.
        """
        real = os.path.realpath(path)
        homes = [os.path.realpath(e.run.path) for e in list(self._runs.values())] + [os.path.realpath(self.root)]
        if not any(real.startswith(home + os.sep) for home in homes):
            raise PermissionError(f"{path} is in no run directory of this lane")
        with open(real, "rb") as f:
            f.seek(offset)
            return f.read(min(size, READ_LIMIT))

    def files(self, run_dir: str) -> List[Dict[str, Any]]:
        """What of a run directory the head may want: sealed files and folders, and the seal."""
        run = RunDir(Path(run_dir))
        names = [Path(n) for n in (*SEALED_FILES, "manifest.json", "started.json")]
        for folder in SEALED_FOLDERS:
            if (run.path / folder).is_dir():
                names += [Path(folder) / rel for rel in walk_files(run.path / folder)]
        found = []
        for rel in names:
            with contextlib.suppress(OSError):
                info = os.lstat(run.path / rel)
                link = os.readlink(run.path / rel) if os.path.islink(run.path / rel) else None
                found.append({"name": rel.as_posix(), "size": info.st_size, "mtime_ns": info.st_mtime_ns, "link": link})
        return found

    def put(self, name: str, data: bytes) -> str:
        """Keep `data` in this lane's own folder. Returns the path."""
        path = safe_join(self.root / "files", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
        return str(path)

    def reap(self, job: int, attempt: int) -> Dict[str, Any]:
        """Forget an attempt of which nothing lives. The run directory stays."""
        name = f"{job}.{attempt}"
        with self._guard:
            entry = self._runs.get(name)
            if entry is None:
                return {"ok": True}
            report, _ = entry.report(0, self._boot)
            if not report["clear"]:
                return {"ok": False, "reason": f"attempt {name} is not clear yet"}
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._active / name)
            del self._runs[name]
        return {"ok": True}

    def _know(self, name: str, path: Path) -> "Attempt":
        entry = self._runs.get(name)
        if entry is None or entry.run.path != path:
            entry = self._runs[name] = Attempt(name, RunDir(path), self._start_grace_s)
        return entry

    def _active_path(self, name: str) -> Optional[str]:
        try:
            return (self._active / name).read_text()
        except OSError:
            return None

    def _runner_env(self, spec: Dict[str, Any]) -> Dict[str, str]:
        env = {name: os.environ[name] for name in spawn.INHERITED if name in os.environ and name != FAILPOINTS}
        if FAILPOINTS in os.environ:
            env[FAILPOINTS] = os.environ[FAILPOINTS]
        env.setdefault("PATH", spawn.DEFAULT_PATH)
        env[procs.MARKER] = str(spec["marker"])
        return env

    def _listen(self, path: Union[str, Path, None]) -> Optional[socket.socket]:
        if path is None:
            return None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            sock.bind(str(path))
            write_atomic(self.root / NOTIFY, str(path), sync=False)
        except OSError:
            sock.close()
            return None
        return sock

    def _nudge(self) -> None:
        """Have a poll that waits in another thread look again."""
        if self._socket is not None:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                s.setblocking(False)
                s.sendto(b"look", self._socket.getsockname())

    def _wait(self, seconds: float) -> None:
        sock = self._socket
        if sock is None:
            time.sleep(min(seconds, 0.1))
            return
        with contextlib.suppress(OSError, ValueError):
            if select.select([sock], [], [], seconds)[0]:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        sock.recv(256)


def _said(report: Report) -> str:
    """What must be different for a waiting poll to return: beats, memory and log growth alone are no news."""
    names = ("phase", "pid", "child", "sealed", "clear", "progress", "reason")
    return json.dumps([report[n] for n in names], sort_keys=True)
