"""One attempt as the agent sees it: from its files, its lock and its processes, never from memory.

Nothing here trusts a pid file or a clock of another machine. "Lost" is said only of an attempt that began and that
nobody supervises any more, or that can no longer begin; "clear" only when nothing of it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from core.fsio import no_space, read_json, write_json
from core.rundir import RunDir
from lanes.agent import beat, procs, spawn
from lanes.agent.supervisor import PROCS
from lanes.agent.verdict import step_of

RESCAN_S = 1.0
START_GRACE_S = 3.0  # a runner that has not begun after this, and has no process, never will
REVOKE_GRACE_S = 5.0  # a supervisor that has not obeyed after this is killed itself
METRICS_CHUNK = 64 << 10
_TAIL = 4096

Report = Dict[str, Any]


class Attempt:
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
            with contextlib.suppress(OSError):
                os.unlink(spawn.short_name(self.spec()))
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


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
