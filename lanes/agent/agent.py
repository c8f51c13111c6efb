"""The lane agent: starts attempts, tells what became of them, and is sure before it says that one is gone.

It keeps nothing in memory that matters. `active/` holds one file per live attempt; everything else is read from the
run directories, so an agent that was killed is replaced by a new one that knows as much.
"""

from __future__ import annotations

import contextlib
import fcntl
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
from lanes.agent import FAILPOINTS, beat, failpoint, probe, procs, spawn
from lanes.agent.runner import BOOTSTRAP, NOTIFY, PROCS
from lanes.agent.verdict import step_of

RESCAN_S = 1.0
START_GRACE_S = 3.0  # a runner that has not begun after this, and has no process, never will
REVOKE_GRACE_S = 5.0  # a supervisor that has not obeyed after this is killed itself
METRICS_CHUNK = 64 << 10
READ_LIMIT = 8 << 20
_CODE_ROOT = Path(__file__).resolve().parents[2]
_STRENGTH = {"stop": 1, "kill": 2, "revoke": 3}
_TAIL = 4096

Report = Dict[str, Any]


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
        self._runs: Dict[str, _Run] = {}
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
            if run.started.exists() or run.manifest.exists() or entry.held():
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
            with contextlib.suppress(OSError):
                os.unlink(spawn.short_name(entry.spec()))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._active / name)
            del self._runs[name]
        return {"ok": True}

    def _know(self, name: str, path: Path) -> "_Run":
        entry = self._runs.get(name)
        if entry is None or entry.run.path != path:
            entry = self._runs[name] = _Run(name, RunDir(path), self._start_grace_s)
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


class _Run:
    """One known attempt, as its files and processes show it."""

    def __init__(self, name: str, run: RunDir, start_grace_s: float) -> None:
        self.run = run
        self.job, self.attempt = (int(x) for x in name.split("."))
        self.since = time.monotonic()
        self.revoked_at: Optional[float] = None
        self.look_again_s = RESCAN_S
        self._grace = start_grace_s
        self._clear = False
        self._spec: Dict[str, Any] = {}
        self._fence_fd: Optional[int] = None

    def spec(self) -> Dict[str, Any]:
        if not self._spec:
            self._spec = read_json(self.run.spec, {}) or {}
        return self._spec

    def held(self) -> bool:
        """Does a supervisor hold the lock?"""
        fd = self._lock()
        if fd is not None:
            os.close(fd)
        return fd is None and self.run.lock.exists()

    def runner(self, boot: str) -> Optional[procs.Proc]:
        started = read_json(self.run.started) or {}
        if not started.get("pid") or started.get("boot_id") != boot:
            return None
        return procs.Proc(int(started["pid"]), int(started.get("start_ticks") or 0))

    def report(self, offset: int, boot: str) -> Tuple[Report, int]:
        """Everything known now, and the offset up to which metrics were read."""
        run = self.run
        self.look_again_s = RESCAN_S
        # In this order: a supervisor writes started.json under its lock and the seal before it lets go. Begun, not
        # held and not sealed then means dead, whatever happens between two of these lines.
        begun = run.started.exists()
        held = self.held()
        manifest = read_json(run.manifest)
        heart = beat.read(run.heartbeat)
        phase, reason = "starting", ""
        if manifest is not None:
            phase = "ended"
            if not self._clear:
                # It seals when nothing is left; only its own last moment remains.
                self._clear = not held and not self._kill(boot)
                self.look_again_s = 0.02
        elif held:
            phase = "running" if heart is not None and heart.phase != beat.Phase.SETUP else "starting"
            if self.revoked_at is not None and time.monotonic() - self.revoked_at > REVOKE_GRACE_S:
                self._kill(boot)
        else:
            reason = self._lost(boot, begun)
            phase = "lost" if reason else "starting"
        metrics, offset = self._metrics(offset)
        report: Report = {
            "job": self.job,
            "attempt": self.attempt,
            "phase": phase,
            "beat": heart.counter if heart else 0,
            "pid": heart.pid if heart else 0,
            "child": heart.child if heart else 0,
            "rss_mb": heart.rss_mb if heart else 0,
            "sealed": manifest is not None,
            "clear": self._clear,
            "outcome": manifest.get("outcome") if manifest else None,
            "progress": read_json(run.path / "progress.json"),
            "step": self._step(),
            "metrics": metrics,
            "log_size": _size(run.log),
            "reason": reason,
        }
        return report, offset

    def _lost(self, boot: str, begun: bool) -> str:
        """Why an attempt that nobody supervises is gone; empty while it may still begin.

        Before it says so it makes sure that no late supervisor can begin, and that nothing of it lives.
        """
        run = self.run
        if not begun:
            revoked = (read_json(run.stop) or {}).get("action") == "revoke"
            young = time.monotonic() - self.since < self._grace and not revoked
            if young or (not revoked and procs.marked(str(self.spec().get("marker")))):
                self.look_again_s = 0.2
                return ""
            if not self._fence(boot):
                self.look_again_s = 0.2
                return ""
        if not self._clear:
            self._clear = not self._kill(boot)
        if (read_json(run.stop) or {}).get("action") == "revoke":
            return "revoked"
        started = read_json(run.started) or {}
        if started.get("fenced") or self._fence_fd is not None:
            return "start-lost"
        return "lane-rebooted" if started.get("boot_id") not in (None, boot) else "runner-died"

    def _fence(self, boot: str) -> bool:
        """Take the lock and leave the word by which any late supervisor refuses. False when one came first."""
        if self._fence_fd is not None:
            return True
        try:
            self.run.path.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.run.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            return no_space(error) and not procs.marked(str(self.spec().get("marker")))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        if self.run.started.exists():
            os.close(fd)
            return False
        try:
            write_json(self.run.started, {"fenced": True, "boot_id": boot}, sync=False)
        except OSError:
            self._fence_fd = fd  # the disk is full: the lock itself keeps the late one out for as long as we live
            return True
        os.close(fd)
        return True

    def _kill(self, boot: str) -> List[procs.Proc]:
        """End everything of this attempt's; returns what would not die."""
        marker = str(self.spec().get("marker") or "")
        if not marker:
            return []
        started = read_json(self.run.started) or {}
        # Pids of before a reboot mean nothing now.
        listed = procs.read_list(str(self.run.path / PROCS)) if started.get("boot_id") == boot else []
        runner = self.runner(boot)
        return procs.kill_strays(marker, [*listed, *([runner] if runner else [])])

    def _lock(self) -> Optional[int]:
        """The lock, taken for a moment; None when it is held or not there."""
        try:
            fd = os.open(self.run.lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return None
        return fd

    def _metrics(self, offset: int) -> Tuple[List[str], int]:
        """Complete new step rows; what is no step row is passed over."""
        try:
            with open(self.run.metrics, "rb") as f:
                if os.fstat(f.fileno()).st_size <= offset:
                    return [], offset
                f.seek(offset)
                blob = f.read(METRICS_CHUNK)
        except OSError:
            return [], offset
        end = blob.rfind(b"\n") + 1
        if not end and len(blob) == METRICS_CHUNK:
            return [], offset + len(blob)  # a line longer than a chunk is no step row
        lines = [x for x in blob[:end].split(b"\n") if step_of(x) is not None]
        return [x.decode("utf-8", "replace") for x in lines], offset + end

    def _step(self) -> Optional[int]:
        try:
            with open(self.run.metrics, "rb") as f:
                f.seek(max(0, os.fstat(f.fileno()).st_size - _TAIL))
                lines = f.read().split(b"\n")[:-1]
        except OSError:
            return None
        return next((s for s in map(step_of, reversed(lines)) if s is not None), None)


def _said(report: Report) -> str:
    """What must be different for a waiting poll to return: beats, memory and log growth alone are no news."""
    names = ("phase", "pid", "child", "sealed", "clear", "progress", "reason")
    return json.dumps([report[n] for n in names], sort_keys=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
