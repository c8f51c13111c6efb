"""Whose lane it is: locks, epochs, and processes that stand in the way."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lanes.agent import owner, procs
from lanes.agent.owner import Claim, Refused, claim
from tests.lanes.support import alive
from tests.support import wait_for

OURS = {"home": "aaaaaaaaaaaa", "head": "me@here:/home", "lane": "mini", "take": False}
THEIRS = {"home": "bbbbbbbbbbbb", "head": "you@there:/home", "lane": "mini", "take": False}

HOLD = """
import fcntl, json, os, signal, sys
sys.path.insert(0, sys.argv[3])
from lanes.agent import procs
if len(sys.argv) > 4: signal.signal(signal.SIGTERM, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
about = {"pid": os.getpid(), "ticks": procs.identify(os.getpid()).ticks, "boot": procs.boot_id()}
about.update(json.loads(sys.argv[2]))
os.pwrite(fd, json.dumps(about).encode() + b" " * 200, 0)
print("held", flush=True)
while True: signal.pause()
"""
Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """A process that holds the lock at a path and says of itself what it is told to say."""
    made: list[subprocess.Popen[str]] = []

    def start(path: Path, *, stubborn: bool = False, **about: Any) -> subprocess.Popen[str]:
        path.parent.mkdir(parents=True, exist_ok=True)
        repo = str(Path(__file__).resolve().parents[3])
        argv = [sys.executable, "-c", HOLD, str(path), json.dumps(about), repo, *(["x"] if stubborn else [])]
        made.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        assert made[-1].stdout is not None
        assert made[-1].stdout.readline() == "held\n"
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "POLITE_S", 0.3)
    monkeypatch.setattr(owner, "LOCK_WAIT_S", 5.0)


def unlock(held: Claim) -> None:
    """Close the lock's descriptor, as the end of the process would."""
    path = os.path.realpath(held.agent_root / owner.AGENT_LOCK)
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}") == path:
                os.close(int(fd))
        except OSError:
            continue


def lock_of(root: Path, who: dict[str, Any] = OURS) -> Path:
    return root / "heads" / who["home"] / who["lane"] / owner.AGENT_LOCK


def test_the_first_claim_and_the_next(tmp_path: Path) -> None:
    first = claim(tmp_path, **OURS)
    assert (first.epoch, first.lost()) == (1, "")
    unlock(first)
    second = claim(tmp_path, **OURS)
    assert (second.epoch, second.lost()) == (2, "")
    assert "newer connection" in first.lost()
    unlock(second)


def test_another_home_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    ours = claim(tmp_path, **OURS)
    before = (tmp_path / "owner.json").read_text()
    with pytest.raises(Refused) as caught:
        claim(tmp_path, **THEIRS)
    assert caught.value.args[:2] == ("owned", "foreign-owner")
    assert "me@here:/home" in caught.value.args[2]
    assert (tmp_path / "owner.json").read_text() == before
    assert ours.lost() == ""
    unlock(ours)
    theirs = claim(tmp_path, **{**THEIRS, "take": True})
    assert "you@there:/home" in ours.lost()
    unlock(theirs)
    with pytest.raises(Refused):
        claim(tmp_path, **OURS)


def test_a_lane_that_was_given_up_is_anybodys(tmp_path: Path) -> None:
    one, two = claim(tmp_path, **OURS), claim(tmp_path, **{**OURS, "lane": "bat00"})
    assert owner.release(one)
    assert one.lost()
    assert not owner.release(one)
    assert two.lost() == ""
    with pytest.raises(Refused):
        claim(tmp_path, **THEIRS)
    assert owner.release(two)
    unlock(one)
    unlock(two)
    theirs = claim(tmp_path, **THEIRS)
    assert theirs.epoch > two.epoch, "an older process must not find its own epoch again"
    unlock(theirs)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"home": 5}'])
def test_a_damaged_owner_file_is_somebodys(text: str, tmp_path: Path) -> None:
    (tmp_path / "owner.json").write_text(text)
    with pytest.raises(Refused):
        claim(tmp_path, **OURS)
    taken = claim(tmp_path, **{**OURS, "take": True})
    assert taken.lost() == ""
    unlock(taken)


@pytest.mark.parametrize("state", ["running", "stubborn", "stopped"])
def test_an_older_holder_is_ended(state: str, tmp_path: Path, hold: Hold) -> None:
    process = hold(lock_of(tmp_path), stubborn=state == "stubborn", home=OURS["home"], epoch=5)
    if state == "stopped":
        process.send_signal(signal.SIGSTOP)
    taken = claim(tmp_path, **OURS)
    assert taken.epoch == 6, "above what runs, also when nobody knows of it any more"
    assert process.wait(20) in (-signal.SIGTERM, -signal.SIGKILL)
    assert taken.lost() == ""
    unlock(taken)


def test_a_newer_holder_is_left_alone(tmp_path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that begin at the same time: the one with the lower epoch gives way, and does not end the other."""
    holder: list[Any] = []
    real = owner._write

    def late(root: Path, agent_root: Path, what: dict[str, Any]) -> None:
        real(root, agent_root, what)
        holder.append(hold(lock_of(root), home=OURS["home"], epoch=what["epoch"] + 1))

    monkeypatch.setattr(owner, "_write", late)
    with pytest.raises(Refused) as caught:
        claim(tmp_path, **OURS)
    assert caught.value.args[1] == "evicted"
    assert holder[0].poll() is None


def test_a_lock_that_is_held_for_a_moment_is_broken_when_ours_stands_still(tmp_path: Path, hold: Hold) -> None:
    process = hold(tmp_path / owner.OWNER_LOCK, home=OURS["home"])
    process.send_signal(signal.SIGSTOP)
    taken = claim(tmp_path, **OURS)
    assert process.wait(20) == -signal.SIGKILL
    unlock(taken)


def test_the_momentary_lock_of_another_home_is_not_broken(
    tmp_path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "LOCK_WAIT_S", 1.0)
    process = hold(tmp_path / owner.OWNER_LOCK, home=THEIRS["home"])
    with pytest.raises(Refused) as caught:
        claim(tmp_path, **OURS)
    assert caught.value.args[:2] == ("owned", "held")
    assert str(process.pid) in caught.value.args[2]
    assert process.poll() is None


def test_a_pid_of_another_boot_is_nobody_of_ours(tmp_path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder on a shared disk: the pid names somebody else here."""
    monkeypatch.setattr(owner, "LOCK_WAIT_S", 1.0)
    process = hold(lock_of(tmp_path), home=OURS["home"], epoch=1, boot="of another machine")
    with pytest.raises(Refused, match="another machine"):
        claim(tmp_path, **OURS)
    assert process.poll() is None


def test_a_pid_that_was_given_to_another_is_left_alone(
    tmp_path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "LOCK_WAIT_S", 1.0)
    me = procs.identify(os.getpid())
    assert me is not None
    bystander = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        hold(lock_of(tmp_path), home=OURS["home"], epoch=1, pid=bystander.pid, ticks=1)
        with pytest.raises(Refused):
            claim(tmp_path, **OURS)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_taking_a_lane_ends_the_other_heads_process(tmp_path: Path, hold: Hold) -> None:
    (tmp_path / "owner.json").write_text(json.dumps({**THEIRS, "epoch": 9, "lanes": {"mini": 9}}))
    process = hold(lock_of(tmp_path, THEIRS), home=THEIRS["home"], epoch=9)
    process.send_signal(signal.SIGSTOP)
    taken = claim(tmp_path, **{**OURS, "take": True})
    assert taken.epoch == 10
    wait_for(lambda: not alive(process.pid), "the other head's process to end", deadline_s=20)
    unlock(taken)


def test_a_full_disk_takes_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlock(claim(tmp_path, **OURS))
    reserve = lock_of(tmp_path).parent / "reserve"
    reserve.write_bytes(bytes(4096))
    real = owner.write_atomic

    def full(path: Path, data: str, **named: Any) -> None:
        if reserve.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data, **named)

    monkeypatch.setattr(owner, "write_atomic", full)
    again = claim(tmp_path, **OURS)
    assert again.epoch == 2
    unlock(again)


def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(Refused) as caught:
        claim(tmp_path, **OURS)
    assert caught.value.args[:2] == ("agent", "locks")
    assert "local disk" in caught.value.args[3]


def test_an_owner_file_that_cannot_be_read_just_now_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = claim(tmp_path, **OURS)

    def unreadable(path: Path, **named: Any) -> dict[str, Any]:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(owner, "read_dict", unreadable)
        assert held.lost() == ""
    (tmp_path / "owner.json").unlink()
    assert "nobody" in held.lost()
    unlock(held)
