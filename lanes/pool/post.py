"""How the parts of a pool on another lane speak to each other: by files, which outlive all of them.

    crews/CREW/                all workers of one crew
        setup.json             what its workers have in common
        orders/NUMBER-NONCE    batches that wait; whoever renames one to his own `order` has it
        state.json             how often workers died before they were ready, and why the kind cannot be loaded
        wN/                    one worker: setup.json, order, words, stop.json, kill, work/, out.log, lock, gone.json
    batches/DIR/               run directories
    ends/NONCE                 how a batch ended: the first to write it decides
    bells/NAME                 pipes at which whoever waits is woken

An order is one line of JSON that is looked at by everybody, and the rest, which only the worker reads. The agent, the
worker and its keeper may each die without the others; nothing that was said is lost with them. Standard library only,
Python 3.9: both the lane's agent and the snapshot of a kind carry this module.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
from pathlib import Path
from typing import Any

SETUP, ORDERS, STATE, ENDS, BATCHES, BELLS = "setup.json", "orders", "state.json", "ends", "batches", "bells"
ORDER, WORDS, STOP, KILL, WORK, OUT, LOCK, GONE = (
    "order", "words", "stop.json", "kill", "work", "out.log", "lock", "gone.json",
)  # fmt: skip
AGENT_BELL = "agent"
NONCE = re.compile(r"[0-9a-f]{8}")
CREW = re.compile(r"[0-9a-f]{16}")
DIR = re.compile(r"[0-9]{1,18}-[0-9a-f]{8}")
_WAITING = re.compile(r"([0-9]{16})-([0-9a-f]{8})(a?)")


def order_name(number: int, nonce: str, ahead: bool) -> str:
    return f"{number:016d}-{nonce}{'a' if ahead else ''}"


def waiting(crew: Path) -> list[tuple[str, str, bool]]:
    """(file name, nonce, was it sent ahead) of the batches that wait, in order."""
    found = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(crew / ORDERS)):
            match = _WAITING.fullmatch(name)
            if match:
                found.append((name, match.group(2), bool(match.group(3))))
    return found


def claim(crew: Path, name: str, place: Path) -> bool:
    """Take an order that waits. False when somebody was quicker."""
    try:
        os.rename(crew / ORDERS / name, place)
    except FileNotFoundError:
        return False
    return True


def read_order(path: Path, *, whole: bool = False) -> dict[str, Any] | None:
    """What an order says to everybody (or all of it); None when there is none."""
    try:
        with open(path, "rb") as f:
            head = json.loads(f.readline())
            if whole:
                head.update(json.loads(f.read()))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return head if isinstance(head, dict) else None


def publish(ends: Path, nonce: str, end: dict[str, Any]) -> bool:
    """Say how a batch ended. False when that was said already: the first word counts.

    Raises:
        OSError: the disk is full, say.
    """
    tmp = ends / f".{nonce}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        with open(tmp, "w") as f:
            json.dump({"nonce": nonce, **end}, f)
        try:
            os.link(tmp, ends / nonce)
        except FileExistsError:
            return False
        return True
    finally:
        with contextlib.suppress(OSError):
            os.unlink(tmp)


def ring(bells: Path, name: str) -> None:
    """Wake whoever waits at this bell. Nobody may: he looks by himself soon after."""
    with contextlib.suppress(OSError):
        fd = os.open(bells / name, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(fd, b"x")
        finally:
            os.close(fd)


class Bell:
    """A pipe with a name, at which one process waits to be woken."""

    def __init__(self, bells: Path, name: str) -> None:
        self._path = bells / name
        bells.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self._path, 0o600)
        # For writing as well: else it would be at its end whenever nobody else has it open.
        self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def wait(self, seconds: float) -> None:
        """Return when somebody rang, or after so long."""
        with contextlib.suppress(OSError, ValueError):
            if select.select([self._fd], [], [], max(0.0, seconds))[0]:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._fd, 4096)

    def close(self, *, remove: bool = False) -> None:
        if remove:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        with contextlib.suppress(OSError):
            os.close(self._fd)
