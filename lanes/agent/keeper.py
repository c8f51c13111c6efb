"""The keeper of one warm worker: starts it, watches over its limits, and says what became of its batch if it dies.

A process of its own, in a session of its own, child of nobody: the agent may go and come back. If the keeper itself is
killed the worker goes with it (where the kernel can do that), and the agent does what is left to do: see `bury`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional

from core.fsio import write_json
from lanes.agent import failpoint, procs
from lanes.agent.safe import read_dict
from lanes.pool import post
from lanes.pool import words as w
from lanes.pool.words import Words

BOOTSTRAP = "import sys; sys.path.append(sys.argv[1]); from lanes.agent.keeper import main; main(sys.argv[2:])"
WORKER = "from lanes.pool.afar import main; main()"
LOOK_S = 0.05
_MEMORY_EVERY = 4  # looks
_FULL_S = 0.5


def main(argv: List[str]) -> NoReturn:
    """`argv` is [worker's folder]. Returns to the caller's caller at once; the work goes on detached."""
    if os.fork():
        os._exit(0)
    os.setsid()
    code = 0
    try:
        keep(Path(argv[0]))
    except BaseException:
        traceback.print_exc()
        code = 1
    os._exit(code)


def keep(folder: Path) -> None:
    """Keep the worker, unless somebody does already."""
    os.chdir("/")
    os.umask(0o022)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    lock = take_lock(folder)
    if lock is None or (folder / post.GONE).exists():
        return
    failpoint("keeper.after_lock")
    for sig in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(sig, signal.SIG_IGN)
    procs.become_subreaper()
    _Keeper(folder).run()


def take_lock(folder: Path) -> Optional[int]:
    """The lock of a worker's folder, or None when somebody has it (or the folder is gone)."""
    try:
        fd = os.open(folder / post.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd
    except OSError:
        os.close(fd)
        return None


def bury(folder: Path, *, killed: Optional[List[str]] = None, **about: Any) -> None:
    """Whatever is left of a worker is ended, and what it had is said to have ended so. May be done again.

    Args:
        killed: state, cause and sentence, if it was ended on purpose.
        about: more for whoever asks how it ended (`oom`, `reboot`, `late`, `code`).
    """
    setup = read_dict(folder / post.SETUP)
    page = Words(folder / post.WORDS)
    try:
        if not about.get("reboot"):
            # One that Ray started carries no marker of ours.
            itself = procs.Proc(page.view[w.PID], page.view[w.TICKS])
            procs.kill_strays(str(setup["marker"]), [itself] if itself.pid else [])
        ready, now = bool(page.view[w.READY]), time.monotonic_ns()
        found = page.running(page.view[w.BATCH]) if page.view[w.BATCH] else None
    finally:
        page.close()
    order = post.read_order(folder / post.ORDER)
    if order is not None:
        end = {
            "how": "death",
            "dir": order["dir"],
            "crew": Path(setup["crew"]).name,
            "index": found[0] if found is not None else None,
            "ran_s": max(0.0, (now - found[1]) / 1e9) if found is not None and not about.get("reboot") else None,
            "killed": killed,
            "oom": bool(about.get("oom")),
            "reboot": bool(about.get("reboot")),
        }
        _until_there_is_room(lambda: post.publish(Path(setup["ends"]), str(order["nonce"]), end))
    gone = {"ready": ready, "refused": str(read_dict(folder / "refused.json").get("message") or ""), **about}
    _until_there_is_room(lambda: write_json(folder / post.GONE, gone, sync=False))
    with contextlib.suppress(OSError, KeyError):
        if os.path.islink(setup["tmp"]):
            os.unlink(setup["tmp"])
    post.ring(Path(setup["bells"]), post.AGENT_BELL)


def _until_there_is_room(write: Any) -> None:
    from core.fsio import no_space

    while True:
        try:
            write()
            return
        except OSError as error:
            if not no_space(error):
                raise
            time.sleep(_FULL_S)


class _Keeper:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.setup: Dict[str, Any] = read_dict(folder / post.SETUP)
        self.page = Words(folder / post.WORDS)
        self.oom = procs.oom_kills()
        self.born = time.monotonic()
        self.killed: Optional[List[str]] = None
        self.late = False
        self.code: Optional[int] = None
        self.proc: Optional[procs.Proc] = None
        self._child: "Optional[subprocess.Popen[bytes]]" = None
        self._order: Dict[str, Any] = {}
        self._order_seen: Any = None
        self._stops: Dict[int, List[Any]] = {}  # job -> [since when it is to stop, cause]
        self._stops_seen: Any = None
        self._looks = 0
        self._wake, wake = os.pipe()
        for fd in (self._wake, wake):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        if not self.setup.get("ray"):
            self._start()
        while not self._is_gone():
            self._look()
            with contextlib.suppress(OSError):
                if select.select([self._wake], [], [], LOOK_S)[0]:
                    os.read(self._wake, 4096)
        oom = self.killed is None and procs.oom_kills() > self.oom
        self.page.close()
        failpoint("keeper.before_bury")
        bury(self.folder, killed=self.killed, oom=oom, late=self.late, code=self.code)

    def _start(self) -> None:
        log = os.open(self.folder / post.OUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        me = os.getpid()

        def become() -> None:
            os.setsid()
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            for sig in (signal.SIGHUP, signal.SIGINT):
                signal.signal(sig, signal.SIG_DFL)
            procs.die_with_parent(me)

        try:
            self._child = subprocess.Popen(
                [str(self.setup["python"]), "-P", "-c", WORKER, str(self.folder)],
                stdin=null, stdout=log, stderr=log, env=self.setup["env"], cwd=str(self.folder / post.WORK),
                preexec_fn=become, close_fds=True,
            )  # fmt: skip
            self.proc = procs.identify(self._child.pid)
        except (OSError, subprocess.SubprocessError) as error:
            why = f"the interpreter {self.setup['python']} cannot be started on this lane: {error}"
            write_json(self.folder / "refused.json", {"message": why}, sync=False)
            self.code = 127

    def _is_gone(self) -> bool:
        if self._child is not None:
            self.code = self._child.poll()
        elif self.code is None and self.proc is None and self.page.view[w.PID]:
            self.proc = procs.Proc(self.page.view[w.PID], self.page.view[w.TICKS])  # Ray started it
        with contextlib.suppress(ChildProcessError):  # orphans that came to us
            while self._child is None or self.code is not None:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
        if self.code is not None:
            return True
        if self.proc is None:
            return self.late or (self.folder / post.KILL).exists()
        return self._child is None and not procs.alive(self.proc)

    def _look(self) -> None:
        """Is there a reason to end it?"""
        self._looks += 1
        if self.killed is not None or (self.folder / post.KILL).exists():
            self._kill()
            return
        if not self.page.view[w.READY]:
            if not self.late and time.monotonic() - self.born > float(self.setup["setup_s"]):
                self.late = True
                self._kill()
            return
        found = self.page.running(self.page.view[w.BATCH]) if self.page.view[w.BATCH] else None
        if found is None:
            return
        order = self._read_order()
        if order:
            self.killed = self._over(order, *found)
            if self.killed is not None:
                self._kill()

    def _over(self, order: Dict[str, Any], index: int, since: int) -> Optional[List[str]]:
        """State, cause and sentence, if this batch's worker must be ended."""
        now = time.monotonic()
        self._read_stops(order)
        if self._stops:
            job = _job_of(self.folder / post.ORDER, index)
            if job in self._stops:
                asked, cause = self._stops[job]
                if now - max(asked, since / 1e9) > float(order.get("grace_s") or 0.0):
                    return ["cancelled", cause, "cancelled" if cause == "cancelled" else "stopped as asked"]
        limit = order.get("time_limit")
        if limit is not None and now - since / 1e9 > float(limit):
            return ["failed", "time-limit", f"it ran longer than its time limit of {float(limit):g} s"]
        most = self.setup.get("memory_mb")
        if most and self.proc is not None and self._looks % _MEMORY_EVERY == 0:
            used = procs.rss_bytes([self.proc.pid]) / (1 << 20)
            if used > float(most):
                sentence = f"its worker held {used:.0f} MiB of memory, more than the {most} MiB that it was granted"
                return ["failed", "memory", sentence]
        return None

    def _read_order(self) -> Dict[str, Any]:
        try:
            info = os.stat(self.folder / post.ORDER)
        except OSError:
            return {}
        seen = (info.st_ino, info.st_mtime_ns, info.st_size)
        if seen != self._order_seen:
            self._order = post.read_order(self.folder / post.ORDER) or {}
            self._order_seen, self._stops, self._stops_seen = seen, {}, None
        return self._order

    def _read_stops(self, order: Dict[str, Any]) -> None:
        try:
            seen = os.stat(self.folder / post.STOP).st_mtime_ns
        except OSError:
            return
        if seen != self._stops_seen:
            self._stops_seen = seen
            said = read_dict(self.folder / post.STOP).get(str(order["nonce"])) or {}
            for job, cause in said.items():
                self._stops.setdefault(int(job), [time.monotonic(), str(cause)])

    def _kill(self) -> None:
        if self.proc is not None:
            below = [procs.identify(p) for p in procs.descendants(self.proc.pid)]
            for one in (self.proc, *below):
                if one is not None:
                    procs.kill(one)


def _job_of(order: Path, index: int) -> Optional[int]:
    whole = post.read_order(order, whole=True) or {}
    try:
        return int(whole["cells"][0][index])
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def launch(folder: Path, code_root: Path, env: Dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start the keeper of the worker in `folder`; reap what is returned."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", BOOTSTRAP, str(code_root), str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=env,
        start_new_session=True,
        close_fds=True,
    )
