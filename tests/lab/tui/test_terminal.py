"""`lab top` as a program on a real terminal: it begins, it leaves, and it goes quietly when the terminal does."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
import time
from pathlib import Path

import pytest

from core.errors import Exit
from core.journal import Event, Journal, Role
from core.states import EventKind as K
from tests.lab.journals import many_jobs
from tests.lab.shell import Shell, shell  # noqa: F401
from tests.lab.test_cli_terminal import Terminal
from tests.support import wait_for


@pytest.fixture
def full(shell: Shell) -> Shell:  # noqa: F811
    many_jobs(shell.home, 30)
    shell.env["TERM"] = "xterm-256color"
    return shell


def test_it_shows_leaves_and_gives_the_terminal_back(full: Shell) -> None:
    terminal = Terminal(full, "top")
    terminal.see("number 28")
    terminal.type(b"q")
    assert terminal.end() == 0
    assert "\x1b[?1049h" in terminal.shown
    assert "\x1b[?1049l" in terminal.shown  # the screen of before
    assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.index("\x1b[?25l")  # the cursor is back
    assert "Traceback" not in terminal.shown


def test_ctrl_c_leaves(full: Shell) -> None:
    terminal = Terminal(full, "top")
    terminal.see("number 28")
    terminal.type(b"\x03")
    assert terminal.end() == 0


def test_what_changes_in_the_journal_is_seen(full: Shell) -> None:
    terminal = Terminal(full, "top")
    terminal.see("number 28")
    with Journal.open(full.home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        data = {"state": "failed", "cause": "error", "reason": "told you so"}
        tx.extend([Event(K.JOB_ENDED, job=28, data=data)])
    terminal.see("told you so")
    terminal.type(b"q")
    assert terminal.end() == 0


def test_a_terminal_that_is_closed_ends_it_quietly(full: Shell) -> None:
    terminal = Terminal(full, "top")
    terminal.see("number 28")
    os.close(terminal.master)
    assert terminal.process.wait(20) == 0


def test_a_terminal_that_is_closed_under_nohup_ends_it_too(full: Shell) -> None:
    """Without the signal only reading and writing fail; that must not become a busy loop, or a hang."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        terminal = Terminal(full, "top")
    finally:
        signal.signal(signal.SIGHUP, before)
    terminal.see("number 28")
    os.close(terminal.master)
    assert terminal.process.wait(20) == 0


def test_sigterm_leaves_and_gives_the_terminal_back(full: Shell) -> None:
    terminal = Terminal(full, "top")
    terminal.see("number 28")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 0
    assert "\x1b[?1049l" in terminal.shown


def test_ctrl_z_gives_the_terminal_back_for_a_while(full: Shell) -> None:
    terminal = Terminal(full, "top")
    terminal.see("number 28")
    terminal.type(b"\x1a")
    wait_for(lambda: _state(terminal.process.pid) == "T", "that it stops")
    terminal.see("\x1b[?1049l")
    before = len(terminal.shown)
    terminal.process.send_signal(signal.SIGCONT)
    wait_for(lambda: "number 28" in terminal._read()[before:], "all of the screen again")
    terminal.type(b"q")
    assert terminal.end() == 0


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_another_size_is_taken_at_once(full: Shell) -> None:
    terminal = Terminal(full, "top")
    terminal.see("number 28")
    fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 40, 0, 0))
    terminal.process.send_signal(signal.SIGWINCH)
    terminal.see("this is 40x12")
    terminal.type(b"q")
    assert terminal.end() == 0


def test_no_color_sends_no_colours(full: Shell) -> None:
    import re

    full.env["NO_COLOR"] = "1"
    terminal = Terminal(full, "top")
    terminal.see("number 28")
    terminal.type(b"?")
    terminal.see("unfold or fold a sweep")
    terminal.type(b"qq")
    assert terminal.end() == 0
    codes = {c for m in re.findall(r"\x1b\[([0-9;]*)m", terminal.shown) for c in m.split(";")}
    assert codes <= {"", "0", "1", "2", "4", "7", "39", "49"}, codes
    assert {"1", "7"} <= codes  # bold and reversed say it instead


def test_little_is_sent_while_little_changes(full: Shell) -> None:
    terminal = Terminal(full, "top")
    terminal.see("number 28")
    wait_for(lambda: "succeeded" in terminal._read(), "all of the screen")
    end = time.monotonic() + 1.5  # what is still on its way after the start
    while time.monotonic() < end:
        terminal._read()
    before, begun = len(terminal.shown), time.monotonic()
    while time.monotonic() - begun < 4.0:
        terminal._read()
    assert 0 < len(terminal.shown) - before < 4 * 1500  # the clock, times that go on
    terminal.type(b"q")
    assert terminal.end() == 0


@pytest.mark.parametrize("words", [("top",), ("top", "--theme", "pink"), ("top", "--json")])
def test_without_a_terminal_it_is_one_sentence(full: Shell, words: tuple[str, ...]) -> None:
    done = full(*words)
    assert done.code == Exit.BAD_INPUT
    assert len((done.err + done.out).splitlines()) == 1
    assert "pink" in done.err or "lab status --watch" in done.err + done.out


def test_a_dumb_terminal_is_told_so(full: Shell) -> None:
    import pty
    import subprocess

    master, slave = pty.openpty()
    done = subprocess.run(
        full.argv("top"), env={**full.env, "TERM": "dumb"}, stdin=slave, stdout=slave, stderr=subprocess.PIPE, text=True
    )
    os.close(slave)
    os.close(master)
    assert done.returncode == Exit.BAD_INPUT
    assert "TERM is 'dumb'" in done.stderr


def test_nothing_else_loads_textual(full: Shell) -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.argv = ['lab', 'status']; from lab.main import main; main(['status', '-q'])\n"
        "assert not [m for m in sys.modules if m.startswith('textual') or m.startswith('lab.tui')]"
    )
    subprocess.run([sys.executable, "-c", code], env=full.env, cwd=full.cwd, check=True, capture_output=True)
