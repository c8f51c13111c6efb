"""Starting, waking and asking for the controller. Imports nothing heavy: the command line stands on this."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from core.home import Home

NEWS, SOON = b"journal", b"soon"


def lock_held(path: Path) -> bool:
    """Does a living process hold the lock at `path`? A pid in a file could be anybody's; a lock cannot."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def controller_alive(home: Home) -> bool:
    return lock_held(home.controller_lock)


def wake(home: Home) -> None:
    """Tell the controller that the journal has news. If this is lost, it looks by itself soon after."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.setblocking(False)
        s.sendto(NEWS, str(home.wake_socket))


class Bell:
    """For somebody who has much to say to the controller: one socket for all of it. Nothing rests on any of it.

    `announce` says that a commit comes within a millisecond or so, so that the controller is awake then; `wake`, that
    it is there.
    """

    def __init__(self, home: Home) -> None:
        self._address = str(home.wake_socket)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def announce(self) -> None:
        self._send(SOON)

    def wake(self) -> None:
        self._send(NEWS)

    def close(self) -> None:
        self._socket.close()

    def _send(self, word: bytes) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(word, self._address)


def ensure_controller(home: Home) -> bool:
    """Start guardian and controller unless they live. Returns at once; True when something was started.

    LAB_NO_START=1 turns this off (for tests, and for people who start it by other means).
    """
    if os.environ.get("LAB_NO_START") == "1" or _guarded(home):
        return False
    start_guardian(home, adopt=controller_alive(home))
    return True


def _guarded(home: Home) -> bool:
    """Does a guardian live? A dying process's locks go one by one, and a child between fork and exec holds copies of
    its parent's: without a controller a held lock is believed only when it is still held a moment later."""
    for _ in range(5):
        if not lock_held(home.guardian_lock):
            return False
        if controller_alive(home):
            return True
        time.sleep(0.02)
    return lock_held(home.guardian_lock)


def start_guardian(home: Home, *, adopt: bool) -> int:
    """Start the guardian in a session of its own. Returns its pid."""
    runtime = home.create_runtime()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "LAB_ATTEMPT"))}
    # A user's folder must never be on our path: it may hold a package called `core`.
    env["PYTHONSAFEPATH"] = "1"
    env["LAB_HOME"] = str(home.path)
    args = [
        sys.executable,
        "-m",
        "lanes.guardian",
        str(home.path),
        str(home.cluster_file or ""),
        "adopt" if adopt else "start",
    ]
    with home.controller_log.open("ab") as log:
        process = subprocess.Popen(
            args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=runtime, env=env, start_new_session=True
        )
    process.returncode = 0  # it outlives us: no warning about a child that still runs
    return process.pid
