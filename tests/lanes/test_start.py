"""Whether a guardian lives is asked while processes die: what only looks, or is dying, is not taken for one."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from core.home import Home
from core.journal import Journal, Role
from core.states import EventKind
from lanes import guardian, start
from tests.support import wait_for


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home", None)
    home.create()
    home.create_runtime()
    return home


def hold(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def test_who_waits_for_a_lock_is_not_taken_for_its_holder(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that is killed just as it was handed the dead guardian's lock must not look like a guardian."""
    fd = hold(home.guardian_lock)
    seen: list[bool] = []
    close = os.close

    def look(which: int) -> None:
        if threading.current_thread().name == "waiter":
            monkeypatch.setattr(guardian.os, "close", close)
            seen.append(start.lock_held(home.guardian_lock))
        close(which)

    monkeypatch.setattr(guardian.os, "close", look)
    waiter = threading.Thread(target=guardian.wait_for_lock_release, args=(home.guardian_lock,), name="waiter")
    waiter.start()
    assert start.lock_held(home.guardian_lock)
    close(fd)
    waiter.join(30)
    assert seen == [False]


def test_a_guardian_that_dies_just_now_is_started_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is let go a moment later (a child before its exec, a process whose files are being closed)."""
    started: list[bool] = []
    monkeypatch.delenv("LAB_NO_START", raising=False)
    monkeypatch.setattr(start, "start_guardian", lambda _home, *, adopt: started.append(adopt) or 1)
    fd = hold(home.guardian_lock)
    sleep, naps = time.sleep, []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 1:
            os.close(fd)
        sleep(seconds)

    monkeypatch.setattr(start.time, "sleep", nap)
    assert start.ensure_controller(home)
    assert started == [False]


def test_a_living_pair_is_left_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[bool] = []
    monkeypatch.delenv("LAB_NO_START", raising=False)
    monkeypatch.setattr(start, "start_guardian", lambda _home, *, adopt: started.append(adopt) or 1)
    fds = [hold(home.guardian_lock), hold(home.controller_lock)]
    wait_for(lambda: start.controller_alive(home), "both locks")
    assert not start.ensure_controller(home)
    # A guardian that is still starting its controller is left alone too.
    os.close(fds.pop())
    assert not start.ensure_controller(home)
    assert started == []
    os.close(fds.pop())


def test_a_down_from_before_the_newest_start_counts_no_more(home: Home) -> None:
    def told(kind: EventKind, **data: object) -> int:
        with Journal.open(home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
            return tx.append(kind, data=data)

    assert guardian._asked_down(home) == 0
    told(EventKind.CONTROLLER_UP, pid=1)
    asked = told(EventKind.CONTROLLER_DOWN, why="asked")
    assert guardian._asked_down(home) == asked
    told(EventKind.CONTROLLER_UP, pid=2)
    assert guardian._asked_down(home) == 0, "who crashes after that is started again, whatever could be read before"
    told(EventKind.CONTROLLER_DOWN, why="SIGTERM")
    assert guardian._asked_down(home) == 0
    told(EventKind.CONTROLLER_UP, pid=3)
    assert guardian._asked_down(home) < told(EventKind.CONTROLLER_DOWN, why="asked") == guardian._asked_down(home)
