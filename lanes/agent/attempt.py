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

from core.fsio import no_space, write_json
from core.rundir import RunDir
from lanes.agent import beat, procs, spawn
from lanes.agent.safe import clean, number, open_plain, read_dict
from lanes.agent.supervisor import PROCS
from lanes.agent.verdict import step_of

RESCAN_S = 1.0
START_GRACE_S = 3.0  # a runner that has not begun after this, and has no process, never will
REVOKE_GRACE_S = 5.0  # a supervisor that has not obeyed after this is killed itself
METRICS_CHUNK = 64 << 10  # of step rows in one report
BACKLOG = 1 << 20  # step rows further behind than this are passed over; the file has them all
_TAIL = 4096
_SMALL = 64 << 10  # progress.json is not read beyond this

Report = Dict[str, Any]


class Attempt:
    """One known attempt, as its files and processes show it."""

    def __init__(self, name: str, run: RunDir, start_grace_s: float) -> None:
        self.run = run
        self.job, self.attempt = (int(x) for x in name.split("."))
        self.since = time.monotonic()
        self.revoked_at: Optional[float] = None
        self.wanted: Optional[Dict[str, Any]] = None  # a request to the supervisor that did not fit on the disk yet
        self.look_again_s = RESCAN_S
        self._grace = start_grace_s
        self._clear = False
        self._spec: Dict[str, Any] = {}
        self._fence_fd: Optional[int] = None
        self._last: Report = {
            "job": self.job, "attempt": self.attempt, "phase": "starting", "beat": 0, "pid": 0, "child": 0,
            "rss_mb": 0, "sealed": False, "clear": False, "outcome": None, "progress": None, "step": None,
            "log_size": 0, "boot_id": None, "reason": "",
        }  # fmt: skip

    def spec(self) -> Dict[str, Any]:
        if not self._spec:
            self._spec = read_dict(self.run.spec)
        return self._spec

    def revoked(self) -> bool:
        return self.revoked_at is not None or read_dict(self.run.stop).get("action") == "revoke"

    def held(self) -> bool:
        """Does a supervisor hold the lock?"""
        fd = self._lock()
        if fd is not None:
            os.close(fd)
        return fd is None and self.run.lock.exists()

    def runner(self, boot: str) -> Optional[procs.Proc]:
        started = read_dict(self.run.started)
        if not started.get("pid") or started.get("boot_id") != boot:
            return None
        return procs.Proc(int(started["pid"]), int(started.get("start_ticks") or 0))

    def report(self, offset: Optional[int], boot: str) -> Tuple[Report, int]:
        """Everything known now, and the offset up to which metrics were read. None for `offset`: no metrics.

        What cannot be made out now is said as it was last: one odd run directory must not hide the others.
        """
        try:
            report, end = self._look(offset, boot)
        except Exception as error:
            reason = f"unreadable: {type(error).__name__}: {error}"
            # An attempt that was lost stays lost, for the reason that it was.
            reason = self._last["reason"] if self._last["phase"] == "lost" else clean(reason)
            self.look_again_s = RESCAN_S
            return {**self._last, **_no_rows(offset or 0), "reason": reason}, offset or 0
        self._last = report
        return report, end

    def _look(self, offset: Optional[int], boot: str) -> Tuple[Report, int]:
        run = self.run
        self.look_again_s = RESCAN_S
        # In this order: a supervisor writes started.json under its lock and the seal before it lets go. Begun, not
        # held and not sealed then means dead, whatever happens between two of these lines.
        begun = run.started.exists()
        held = self.held()
        manifest = read_dict(run.manifest)
        heart = beat.read(run.heartbeat)
        phase, reason = "starting", ""
        if manifest:
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
        metrics = _no_rows(0)
        if offset is not None:
            # The last report of an attempt carries all that is left to tell; it may be forgotten after that.
            metrics, offset = self._metrics(offset, BACKLOG if manifest else METRICS_CHUNK)
        report: Report = {
            "job": self.job,
            "attempt": self.attempt,
            "phase": phase,
            "beat": heart.counter if heart else 0,
            "pid": heart.pid if heart else 0,
            "child": heart.child if heart else 0,
            "rss_mb": heart.rss_mb if heart else 0,
            "sealed": bool(manifest),
            "clear": self._clear,
            "outcome": manifest.get("outcome"),
            "progress": _progress(run.path / "progress.json"),
            "step": self._step(),
            "log_size": _size(run.log),
            "boot_id": str(read_dict(run.started).get("boot_id") or boot),  # the one in which its pid means something
            "reason": reason,
            **metrics,
        }
        return report, offset or 0

    def _lost(self, boot: str, begun: bool) -> str:
        """Why an attempt that nobody supervises is gone; empty while it may still begin.

        Before it says so it makes sure that no late supervisor can begin, and that nothing of it lives.
        """
        run = self.run
        if not begun:
            revoked = self.revoked()
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
        if self.revoked():
            return "revoked"
        started = read_dict(run.started)
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
        started = read_dict(self.run.started)
        # Pids of before a reboot mean nothing now.
        listed = procs.read_list(str(self.run.path / PROCS)) if started.get("boot_id") == boot else []
        runner = self.runner(boot)
        return procs.kill_strays(marker, [*listed, *([runner] if runner else [])], log=str(self.run.log.resolve()))

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

    def _metrics(self, offset: int, limit: int) -> Tuple[Dict[str, Any], int]:
        """Complete new step rows, each with the byte at which it begins; what is no step row is passed over."""
        found = _no_rows(offset)
        try:
            with open_plain(self.run.metrics) as f:
                size = os.fstat(f.fileno()).st_size
                begin = offset if size >= offset else 0  # it was written anew
                skipped = max(0, size - begin - BACKLOG)
                begin += skipped
                if size <= begin:
                    return found, begin
                base = max(0, begin - 1)  # with the byte before, which tells whether a line begins here
                f.seek(base)
                blob = f.read(begin - base + limit)
        except OSError:
            return found, offset
        start = blob.find(b"\n") + 1 if base < begin else 0
        end = max(start, blob.rfind(b"\n") + 1)
        at = base + start
        found.update(metrics_from=at, metrics_skipped=skipped)
        if (not start and base < begin) or end == start:
            # No whole line here. One that is longer than a report is no step row: go on behind it.
            return found, base + len(blob) if len(blob) == begin - base + limit else max(begin, at)
        for line in blob[start : end - 1].split(b"\n"):
            if step_of(line) is not None:
                found["metrics"].append(line.decode("utf-8", "replace"))
                found["metrics_at"].append(at)
            at += len(line) + 1
        return found, base + end

    def _step(self) -> Optional[int]:
        try:
            with open_plain(self.run.metrics) as f:
                f.seek(max(0, os.fstat(f.fileno()).st_size - _TAIL))
                lines = f.read().split(b"\n")[:-1]
        except OSError:
            return None
        return next((s for s in map(step_of, reversed(lines)) if s is not None), None)


def _no_rows(offset: int) -> Report:
    """What a report says of step rows: the lines, where each begins, where the first line looked at begins, and how
    many bytes before that were passed over."""
    return {"metrics": [], "metrics_at": [], "metrics_from": offset, "metrics_skipped": 0}


def _progress(path: Path) -> Optional[Report]:
    """What a program says of its progress, when it is of the right form."""
    try:
        said = read_dict(path, limit=_SMALL)
    except OSError:
        return None
    done, total, note = said.get("done"), said.get("total"), said.get("note") or ""
    if not isinstance(note, str) or not all(x is None or number(x) for x in (done, total)) or not said:
        return None
    return {"done": done, "total": total, "note": clean(note)}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
