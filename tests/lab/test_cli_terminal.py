"""On a real terminal: the bar of `--wait`, colours, and that Ctrl-C typed there stops watching only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

from core.errors import Exit
from core.journal import Event, Journal, Role
from core.states import EventKind as K
from tests.lab.journals import many_jobs
from tests.lab.shell import Shell, shell  # noqa: F401
from tests.lab.toys import finish
from tests.support import wait_for


class Terminal:
    """A program at a terminal of 80 columns, and all that it has shown."""

    def __init__(self, shell: Shell, *args: str) -> None:  # noqa: F811
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            shell.argv(*args),
            env={**shell.env, "TERM": "xterm-256color"},
            cwd=shell.cwd,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.shown = ""

    def see(self, text: str) -> None:
        """Wait until `text` was shown."""
        try:
            wait_for(lambda: text in self._read(), f"{text!r} on the terminal", deadline_s=30)
        except AssertionError as error:
            raise AssertionError(f"{error}; there is: {self.shown!r}") from None

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> int:
        deadline = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read()
        self._read()
        os.close(self.master)
        return self.process.wait(1)

    def _read(self) -> str:
        with contextlib.suppress(OSError):
            while select.select([self.master], [], [], 0.02)[0]:
                blob = os.read(self.master, 65536)
                if not blob:
                    break
                self.shown += blob.decode(errors="replace")
        return self.shown


def test_waiting_shows_a_bar_and_then_the_end(shell: Shell) -> None:  # noqa: F811
    terminal = Terminal(shell, "submit", "toy", "--wait", "--results")
    terminal.see("queued")
    terminal.see("━")
    with Journal.open(shell.home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.extend([Event(K.PLACED, 1, 1, "local", {"nonce": "x", "grant": {"cores": 1}})])
    terminal.see("running on local")
    with Journal.open(shell.home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.append(K.REQUEUED, job=1, data={"cause": "disk-full", "reason": "disk full"})
    terminal.see("queued, disk full")
    finish(shell.home, 1, rows=[{"cell": "a", "err": 0.5}])
    assert terminal.end() == 0
    assert "✓ succeeded" in terminal.shown
    assert "toys  1 row" in terminal.shown


def test_ctrl_c_at_the_keyboard(shell: Shell) -> None:  # noqa: F811
    terminal = Terminal(shell, "submit", "toy", "--wait")
    terminal.see("━")
    terminal.type(b"\x03")
    assert terminal.end() == Exit.INTERRUPTED
    assert "stopped watching; job 1 goes on" in terminal.shown
    assert "Traceback" not in terminal.shown


def test_status_has_colours_and_fits(shell: Shell) -> None:  # noqa: F811
    many_jobs(shell.home, 200)
    terminal = Terminal(shell, "status")
    assert terminal.end() == 0
    assert "\x1b[1m● running\x1b[0m" in terminal.shown
    assert terminal.shown.count("\n") <= 24


def test_watch_draws_over_itself(shell: Shell) -> None:  # noqa: F811
    many_jobs(shell.home, 3)
    terminal = Terminal(shell, "status", "--watch")
    terminal.see("3 jobs")
    with Journal.open(shell.home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.append(K.JOB_ENDED, job=3, data={"state": "cancelled", "cause": "cancelled", "reason": "cancelled"})
    terminal.see("− cancelled")
    assert terminal.shown.count("\x1b[H\x1b[2J") >= 2
    terminal.type(b"\x03")
    assert terminal.end() == 0
