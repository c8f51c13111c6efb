"""The process of one attempt's supervisor: detached, begun at most once, alive as long as it holds the lock.

One process an attempt, in a session of its own, child of nobody: neither the agent's end nor Ray's reaches it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import List, NoReturn, Optional

from core.fsio import write_json
from core.rundir import RunDir
from lanes.agent import failpoint, procs
from lanes.agent.safe import read_dict
from lanes.agent.supervisor import Supervisor

BOOTSTRAP = "import sys; sys.path.append(sys.argv[1]); from lanes.agent.runner import main; main(sys.argv[2:])"
LOCK_WAIT_S = 2.0


def main(argv: List[str]) -> NoReturn:
    """`argv` is [run directory, agent root]. Returns to the caller's caller at once; the work goes on detached."""
    if os.fork():
        os._exit(0)
    os.setsid()
    code = 0
    try:
        supervise(RunDir(Path(argv[0])), Path(argv[1]))
    except BaseException:
        traceback.print_exc()
        code = 1
    os._exit(code)


def supervise(run: RunDir, root: Path) -> None:
    """Run the attempt, unless it is or was run already."""
    os.chdir("/")
    os.umask(0o022)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _be_neutral()
    lock = _take_lock(run)
    if lock is None:
        return
    failpoint("runner.after_lock")
    if run.started.exists() or run.manifest.exists() or read_dict(run.stop).get("action") == "revoke":
        return
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # from here on the agent may call; requests are read anyway
    me = procs.identify(os.getpid())
    write_json(
        run.started,
        {
            "pid": os.getpid(),
            "start_ticks": me.ticks if me else 0,
            "boot_id": procs.boot_id(),
            "hostname": socket.gethostname(),
            "python": sys.version.split()[0],
            "time": time.time(),
        },
        sync=False,
    )
    failpoint("runner.after_started")
    Supervisor(run, root).run()


def _take_lock(run: RunDir) -> Optional[int]:
    """The run directory's lock, or None when another supervisor has it. An agent may hold it for a moment to look."""
    fd = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except OSError:
            if time.monotonic() > until:
                os.close(fd)
                return None
            time.sleep(0.01)


def _be_neutral() -> None:
    """Neither nicer nor more killable than any program, whatever started the agent."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as f:
        f.write("0")
