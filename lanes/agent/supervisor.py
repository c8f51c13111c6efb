"""The supervisor's work: make the working folder, start the kind, watch, end, collect, seal.

It adopts orphaned descendants, and leaves only when nothing of the attempt's is left running.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import time
import traceback
from pathlib import Path
from typing import Any, Dict, List, Optional, Set

from core.declared import Declared
from core.fsio import no_space, read_json
from core.rundir import RunDir, drop_unfinished_checkpoints, seal
from lanes.agent import failpoint, procs, setup, spawn
from lanes.agent.beat import INTERVAL_S, Heart, Phase
from lanes.agent.outcome import collect
from lanes.agent.safe import clean, read_dict
from lanes.agent.verdict import (
    CANCELLED,
    DISK_FULL,
    ERROR,
    MEMORY,
    OK,
    PREEMPTED,
    SETUP,
    TIME_LIMIT,
    Ended,
    Found,
    Stop,
    verdict,
)

NOTIFY = "notify"  # in the agent's root: the path of the socket at which it listens
PROCS = "procs"  # in the run directory: pid and start time of everything that runs
RESERVE = "reserve"  # a little disk, given up so that the seal still fits on a full one
RESERVE_BYTES = 256 << 10
_MEMORY_EVERY_S = 0.2


class Revoked(Exception):
    """This attempt may never commit: end everything and leave no seal."""


class Stopped(Exception):
    """Asked to stop before the child existed."""


class Supervisor:
    """The life of one attempt, from its working folder to its seal."""

    def __init__(self, run: RunDir, root: Path) -> None:
        self.dir = run
        self.root = root
        self.spec: Dict[str, Any] = read_json(run.spec, {})
        self.log_fd = os.open(run.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        os.dup2(self.log_fd, 1)
        os.dup2(self.log_fd, 2)
        self.heart = Heart(run.heartbeat)
        self.heart.beat(Phase.SETUP)
        self.stop: Optional[Stop] = None
        self.kill_at: Optional[float] = None
        self.ended: Optional[Ended] = None
        self.child: Optional[spawn.Child] = None
        self.max_rss = 0
        self._asked = ""  # the last stop request acted on
        self._listed: Set[procs.Proc] = set()
        self._oom_before = procs.oom_kills()
        self._begun = time.monotonic()
        self._started_at = self._begun
        self._setup_until = self._begun + float((self.spec.get("limits") or {}).get("setup_s") or 600.0)
        self._next_memory = 0.0
        self._sigterm = False
        self._wake, wake_write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for sig in (signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(sig, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        for sig in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(sig, signal.SIG_IGN)

    def run(self) -> None:
        try:
            outcome = self._run()
            with self.heart.beating():
                self._seal(outcome)
            self._refuse_if_revoked()
        except Revoked:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.dir.manifest)  # the revocation came while it was being written
            self.note("revoked: nothing of this attempt may be committed")
            self._end_everything()
            shutil.rmtree(self.dir.path / "tmp", ignore_errors=True)
        self.heart.beat(Phase.ENDED)
        self._notify("ended")

    def note(self, text: str) -> None:
        """A line of our own in the log."""
        with contextlib.suppress(OSError):
            os.write(self.log_fd, f"lab: {text}\n".encode("utf-8", "backslashreplace"))

    # The attempt, step by step.

    def _run(self) -> Dict[str, Any]:
        declared = Declared(self.spec, str(self.dir.path))
        prepared: Optional[setup.Prepared] = None
        try:
            self._hold_reserve()
            prepared = setup.prepare(self.spec, self.dir, digests=self.root / "digests", tick=self._setup_tick)
            self._setup_tick()
            failpoint("runner.before_child")
            self._start(prepared.cwd, declared)
            self._watch()
        except Stopped:
            pass
        except setup.SetupError as error:
            self.stop = self.stop or Stop(error.cause, error.message)
        except spawn.SpawnError as error:
            self.stop = self.stop or Stop(SETUP, str(error))
        except OSError as error:
            full = no_space(error)
            if not full:
                self.note(traceback.format_exc())
            self.stop = self.stop or Stop(DISK_FULL if full else SETUP, f"the working folder cannot be made: {error}")
        except Revoked:
            raise
        except Exception as error:  # a bug of ours, or something very odd: still it ends with a seal that says so
            self.note(traceback.format_exc())
            what = "the working folder cannot be made" if self.child is None else "its supervisor stumbled"
            cause = SETUP if self.child is None else ERROR
            self.stop = self.stop or Stop(cause, f"{what}: {type(error).__name__}: {error}")
        seconds = time.monotonic() - self._started_at if self.child else 0.0
        self.heart.beat(Phase.ENDING)
        self._end_everything()
        try:
            return self._look(prepared, declared, seconds)
        except Revoked:
            raise
        except Exception as error:
            if not isinstance(error, OSError):
                self.note(traceback.format_exc())
            cause = DISK_FULL if no_space(error) else ERROR
            self.stop = self.stop or Stop(cause, f"the results could not be collected: {error}")
            return {**verdict(Found(self.ended, self.stop)), "seconds": round(seconds, 3)}

    def _start(self, cwd: Path, declared: Declared) -> None:
        procs.become_subreaper()
        self.child = spawn.start_child(self.spec, self.dir, cwd, log_fd=self.log_fd, declared=declared)
        self._started_at = time.monotonic()
        self.heart.child = self.child.pid
        self.heart.beat(Phase.RUNNING)
        self._list_processes([self.child.pid])
        self._notify("started")

    def _watch(self) -> None:
        """Until the child has ended: limits, requests, memory, proof of life."""
        limits = self.spec.get("limits") or {}
        limit = float(limits.get("time_s") or "inf")
        grace = float(limits.get("grace_s") or 0.0)
        deadline = self._started_at + limit
        while True:
            self._reap()
            if self._is_over():
                return
            self._requests()
            now = time.monotonic()
            if now >= deadline and self.stop is None:
                self._ask(Stop(TIME_LIMIT, f"it ran longer than its time limit of {limit:g} s"), grace)
            if self.kill_at is not None and now >= self.kill_at:
                self.note("killing everything that is left")
                return
            if now >= self._next_memory:
                self._look_at_memory()
            self.heart.tick()
            until = [self._next_memory, now + INTERVAL_S]
            until += [deadline] if self.stop is None else []
            until += [self.kill_at] if self.kill_at is not None else []
            self._sleep(max(0.0, min(until) - now))

    def _look(self, prepared: Optional[setup.Prepared], declared: Declared, seconds: float) -> Dict[str, Any]:
        """Collect the outputs and everything else that the verdict needs."""
        found = collect(
            self.dir,
            self.spec,
            Found(self.ended, self.stop),
            prepared=prepared,
            declared=declared,
            child=self.child,
            oom_before=self._oom_before,
            tick=self.heart.tick,
        )
        largest = max(self.max_rss >> 20, int(found["max_rss_mb"]))
        return {**found, "seconds": round(seconds, 3), "max_rss_mb": largest}

    def _seal(self, outcome: Dict[str, Any]) -> None:
        self.heart.beat(Phase.SEALING)
        self._refuse_if_revoked()
        outcome = clean(outcome)
        self.note(f"ended: {outcome['cause']}" + (f": {outcome['message']}" if outcome["message"] else ""))
        shutil.rmtree(self.dir.path / "tmp", ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(spawn.short_name(self.spec))
        with contextlib.suppress(OSError):
            os.unlink(self.dir.path / RESERVE)
        drop_unfinished_checkpoints(self.dir)
        failpoint("runner.before_seal")
        try:
            seal(self.dir, outcome=outcome)
        except OSError as error:
            if not no_space(error):
                raise
            shutil.rmtree(self.dir.work, ignore_errors=True)  # scratch; the seal matters more
            if outcome["cause"] == OK:
                outcome.update(cause=DISK_FULL, message="the disk was full when the results were sealed")
            seal(self.dir, outcome=outcome)
        failpoint("runner.after_seal")

    # Requests and limits.

    def _requests(self) -> None:
        """Act on stop.json (from the agent) and on SIGTERM (from whoever shuts this machine down)."""
        request = read_dict(self.dir.stop)
        text = repr(sorted(request.items()))
        if request and text != self._asked:
            self._asked = text
            action = request.get("action")
            if action == "revoke":
                raise Revoked
            cause = str(request.get("cause") or CANCELLED)
            grace = 0.0 if action == "kill" else float(request.get("grace_s") or 0.0)
            self._ask(Stop(cause, "stopped as asked" if cause != CANCELLED else "cancelled"), grace)
        if self._sigterm:
            self._sigterm = False
            grace = float((self.spec.get("limits") or {}).get("grace_s") or 0.0)
            self._ask(Stop(PREEMPTED, "its supervisor was asked to leave (SIGTERM)"), grace)

    def _ask(self, stop: Stop, grace: float) -> None:
        """Warn the child and give it `grace` seconds; a later request can only shorten them."""
        until = time.monotonic() + max(0.0, grace)
        if self.stop is None:
            self.stop = stop
            self.note(f"{stop.message}; {grace:g} s to leave")
            if self.child is not None and grace > 0:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.child.pid, signal.SIGTERM)
        self.kill_at = until if self.kill_at is None else min(self.kill_at, until)

    def _refuse_if_revoked(self) -> None:
        if read_dict(self.dir.stop).get("action") == "revoke":
            raise Revoked

    def _setup_tick(self) -> None:
        self.heart.tick()
        self._requests()
        if self.stop is not None:
            raise Stopped
        if time.monotonic() > self._setup_until:
            raise setup.SetupError(SETUP, "the working folder was not ready within its limit of time")

    def _look_at_memory(self) -> None:
        """Sum of the resident sets of all descendants (shared pages count more than once) against the grant."""
        grant = (self.spec.get("grant") or {}).get("memory_mb")
        self._next_memory = time.monotonic() + (_MEMORY_EVERY_S if grant else INTERVAL_S)
        pids = procs.descendants(os.getpid())
        self._list_processes(pids)
        rss = procs.rss_bytes(pids)
        self.heart.rss_mb = rss >> 20
        self.max_rss = max(self.max_rss, rss)
        if grant and rss > int(grant) << 20:
            message = f"it used {rss >> 20} MiB (sum of resident sets) and was granted {grant} MiB"
            self.note(message)
            self.stop = Stop(MEMORY, message)
            self.kill_at = 0.0

    def _on_sigterm(self, *_: object) -> None:
        self._sigterm = True

    # Processes.

    def _reap(self) -> bool:
        """Collect what has ended. Returns whether any child of ours is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if self.child is not None and pid == self.child.pid:
                if os.WIFSIGNALED(status):
                    self.ended = Ended(signal=os.WTERMSIG(status))
                else:
                    self.ended = Ended(exit_code=os.WEXITSTATUS(status))

    def _is_over(self) -> bool:
        return self.ended is not None

    def _end_everything(self) -> None:
        """Kill what is left of the attempt, grandchildren in their own sessions included, until nothing is."""
        marker = str(self.spec.get("marker"))
        me = os.getpid()
        told = time.monotonic() + 5.0
        scanned = False
        while True:
            left = self._reap()
            pids = procs.descendants(me) if left else []
            found: Set[procs.Proc] = {p for p in map(procs.identify, pids) if p is not None}
            if not pids or not scanned:
                # Processes that are not below us any more can be told by the marker alone.
                found.update(procs.marked(marker))
                scanned = True
            if not left and not found:
                break
            for proc in found:
                procs.kill(proc)
            if time.monotonic() > told:
                told += 60.0
                self.note(f"still waiting for {sorted(p.pid for p in found)} to die")
            self.heart.tick()
            self._sleep(0.01)
        self._list_processes([])

    def _list_processes(self, pids: List[int]) -> None:
        """Leave on disk what runs, for an agent that may have to clean up after us."""
        now = {p for p in map(procs.identify, pids) if p is not None}
        if now != self._listed:
            self._listed = now
            procs.write_list(str(self.dir.path / PROCS), sorted(now))

    def _sleep(self, seconds: float) -> None:
        """Until a signal comes, or `seconds` have passed."""
        ready, _, _ = select.select([self._wake], [], [], seconds)
        if ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)

    # Disk and news.

    def _hold_reserve(self) -> None:
        with open(self.dir.path / RESERVE, "wb") as f:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(f.fileno(), 0, RESERVE_BYTES)
            else:
                f.write(bytes(RESERVE_BYTES))

    def _notify(self, what: str) -> None:
        """Best effort: whoever is not told looks again within a second."""
        with contextlib.suppress(OSError):
            agent = (self.root / NOTIFY).read_text().strip()
            _send(agent, f"{self.spec['job']}.{self.spec['attempt']} {what}")
        if self.spec.get("wake"):
            _send(str(self.spec["wake"]), f"{self.spec['job']}.{self.spec['attempt']} {what}")


def _send(address: str, text: str) -> None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.setblocking(False)
        s.sendto(text.encode(), address)
