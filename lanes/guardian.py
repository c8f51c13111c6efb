"""The tiny parent of the controller: starts it again when it dies. Imports no Ray, so little can kill it.

Both hold a lock for as long as they live. Each waits for the other's lock: the kernel hands it over at the instant
of the other's death, whatever the reason, and no pid is ever trusted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from core.errors import Exit, LabError
from core.home import Home
from lanes.start import lock_held, start_guardian

# A controller that dies this soon is not given another start at once.
_HEALTHY_S = 6.0
_MAX_DELAY_S = 30.0


def main(argv: list[str]) -> int:
    home = Home(Path(argv[0]), Path(argv[1]) if argv[1] else None)
    lock = take_lock(home.guardian_lock, patience_s=1.0)
    if lock is None:
        return 0  # another guardian lives
    adopt, delay = argv[2] == "adopt", 0.0
    asked_before = _asked_down(home)
    child: subprocess.Popen[bytes] | None = None
    while True:
        began = time.monotonic()
        if not adopt:
            child = _spawn(home)
            if not _wait_until_held(home, child):
                code = child.wait()
                if code in (Exit.REFUSED, Exit.BAD_INPUT):
                    _say(f"the controller refuses to start (exit {code}); see above")
                    return code
        adopt = False
        wait_for_lock_release(home.controller_lock)
        if child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=5)
        if child is not None and child.returncode in (Exit.REFUSED, Exit.BAD_INPUT):
            _say(f"the controller refuses to go on (exit {child.returncode}); see above")
            return child.returncode
        if _asked_down(home) > asked_before:
            os.close(lock)
            # In this order: a submit that still saw our lock has committed by now, so this look finds it.
            if not _submitted_since_down(home):
                _say("the controller went down as asked")
                return 0
            again = take_lock(home.guardian_lock, patience_s=1.0)
            if again is None:
                return 0
            lock, asked_before = again, _asked_down(home)
        delay = 0.0 if time.monotonic() - began > _HEALTHY_S else min(_MAX_DELAY_S, delay * 2 or 0.25)
        _say(f"the controller is gone; starting it again{f' in {delay:g} s' if delay else ''}")
        time.sleep(delay)


def take_lock(path: Path, *, patience_s: float) -> int | None:
    """An exclusive lock on `path` as an open descriptor, or None when somebody holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            # Somebody may only be looking (a shared lock for an instant): try for a while.
            if time.monotonic() > deadline:
                os.close(fd)
                return None
            time.sleep(0.02)


def wait_for_lock_release(path: Path) -> None:
    """Return when nobody holds the lock at `path`.

    A shared lock waits for the holder just as well, and whoever looks meanwhile never takes the waiter for one: with
    an exclusive one, a controller that was killed as it got the dead guardian's lock looked like a living guardian.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


@contextlib.contextmanager
def start_and_watch_guardian(home: Home, going: Callable[[], bool]) -> Iterator[None]:
    """The controller's side: whenever no guardian lives, start one, until `going` says that we go down for good."""

    def watch() -> None:
        while True:
            wait_for_lock_release(home.guardian_lock)
            if going():
                return
            start_guardian(home, adopt=True)
            deadline = time.monotonic() + 10
            while not lock_held(home.guardian_lock) and time.monotonic() < deadline:
                time.sleep(0.02)

    threading.Thread(target=watch, name="guardian", daemon=True).start()
    yield


def _spawn(home: Home) -> subprocess.Popen[bytes]:
    args = [sys.executable, "-m", "lanes.controller", str(home.path), str(home.cluster_file or "")]
    return subprocess.Popen(args, stdin=subprocess.DEVNULL, cwd=home.create_runtime())


def _wait_until_held(home: Home, child: subprocess.Popen[bytes]) -> bool:
    while child.poll() is None:
        if lock_held(home.controller_lock):
            return True
        time.sleep(0.02)
    return lock_held(home.controller_lock)


def _asked_down(home: Home) -> int:
    """The sequence number of the end that a person asked for; 0 if there is none, or a controller came up since."""
    up = "SELECT coalesce(max(seq), 0) FROM event WHERE kind = 'controller-up'"
    why = "kind = 'controller-down' AND data ->> '$.why' = 'asked'"
    return _scalar(home, f"SELECT max(seq) FROM event WHERE {why} AND seq > ({up})")


def _submitted_since_down(home: Home) -> int:
    asked = "SELECT max(seq) FROM event WHERE kind = 'down-asked'"
    return _scalar(home, f"SELECT max(seq) FROM event WHERE kind IN ('submitted', 'swept') AND seq > ({asked})")


def _scalar(home: Home, sql: str) -> int:
    from core.journal import Journal

    try:
        with Journal.open(home) as journal:
            return int(journal.conn.execute(sql).fetchone()[0] or 0)
    except LabError:
        return 0


def _say(message: str) -> None:
    # The log may be on a full disk: that must not end the one who restarts.
    with contextlib.suppress(OSError):
        print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} guardian: {message}", flush=True)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
