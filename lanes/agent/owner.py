"""Whose lane this is: one head at a time, and of that head one process that serves each of its lane names.

`owner.json` in the lane's root names the home that owns it. Every process that begins to serve raises the epoch in it;
whoever finds that his lane's epoch is no longer his own has been replaced and does nothing more. The lock beside the
agent's folder is held as long as a process serves, so that two never work at the same time, not even when the older
one was stopped and goes on an hour later: it is ended before the newer one begins.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from core.fsio import no_space, write_atomic
from lanes.agent import procs
from lanes.agent.safe import read_dict

OWNER = "owner.json"
OWNER_LOCK = "owner.lock"
AGENT_LOCK = "agent.lock"
CODE = Path(__file__).resolve().parents[2].name  # on a lane: the digest of the code that this process runs
POLITE_S = 1.5  # from the request to leave to SIGKILL
LOCK_WAIT_S = 8.0


class Refused(Exception):
    """This head may not have this lane: (rung, cause, message, hint)."""


class Claim(NamedTuple):
    """The right to serve. Holds until somebody raises the epoch."""

    root: Path
    home: str
    lane: str
    epoch: int

    @property
    def agent_root(self) -> Path:
        return self.root / "heads" / self.home / self.lane

    def lost(self) -> str:
        """Why the claim no longer holds, in one sentence; empty as long as it does."""
        try:
            owner = read_dict(self.root / OWNER)
        except OSError:
            return ""  # it cannot be read just now: whoever evicts us also takes the lock, and ends us
        if owner.get("home") != self.home:
            return f"the lane was taken over by {owner.get('head') or 'nobody that is named'}"
        if _lanes(owner).get(self.lane) != self.epoch:
            return "a newer connection of the same head serves this lane"
        return ""


def claim(root: Path, *, home: str, head: str, lane: str, take: bool) -> Claim:
    """Become the one that serves `lane` for `home`; an older process that does is ended.

    The lock is held until this process ends.

    Raises:
        Refused: the lane belongs to another head; its locks do not work; an older process cannot be ended.
        OSError: owner.json cannot be written.
    """
    agent_root = root / "heads" / home / lane
    agent_root.mkdir(parents=True, exist_ok=True, mode=0o700)
    held = _lock(root / OWNER_LOCK, {"home": home})
    try:
        owner = read_dict(root / OWNER)
        if (root / OWNER).exists() and owner.get("home") not in ("", home) and not take:
            whose = owner.get("head") or "a head that its owner.json does not name"
            raise Refused(
                "owned",
                "foreign-owner",
                f"the folder {root} of this lane belongs to {whose}",
                f"end that head's use of the lane, or give this lane another `root`; if that head is gone for good, "
                f"remove {root / OWNER} there",
            )
        # Also above those of processes that still run, when a person has removed the file.
        running = [_holder(p).get("epoch") for p in (root / "heads").glob("*/*/" + AGENT_LOCK)]
        epoch = 1 + max(int(e or 0) for e in (owner.get("epoch"), *running))
        lanes = {**(_lanes(owner) if owner.get("home") == home else {}), lane: epoch}
        _write(root, agent_root, {"home": home, "head": head, "epoch": epoch, "lanes": lanes})
    finally:
        os.close(held)
    if owner.get("home") not in (None, "", home):
        for lock in _locks_of_others(root, home):
            os.close(_lock(lock, {}, above=epoch))
    _lock(agent_root / AGENT_LOCK, {"home": home, "epoch": epoch, "code": CODE}, above=epoch)
    return Claim(root, home, lane, epoch)


def release(claim: Claim) -> bool:
    """Say in owner.json that this lane is no longer ours; the file goes with the last one. False: it was not ours."""
    held = _lock(claim.root / OWNER_LOCK, {"home": claim.home})
    try:
        if claim.lost():
            return False
        owner = read_dict(claim.root / OWNER)
        lanes = {name: epoch for name, epoch in _lanes(owner).items() if name != claim.lane}
        if lanes:
            _write(claim.root, claim.agent_root, {**owner, "lanes": lanes})
        else:
            # The epoch stays: who comes next must not count from the beginning again.
            _write(claim.root, claim.agent_root, {"home": "", "head": "nobody", "epoch": owner["epoch"], "lanes": {}})
        return True
    finally:
        os.close(held)


def _lanes(owner: Dict[str, Any]) -> Dict[str, Any]:
    lanes = owner.get("lanes")
    return lanes if isinstance(lanes, dict) else {}


def _locks_of_others(root: Path, home: str) -> List[Path]:
    return [p for p in sorted((root / "heads").glob("*/*/" + AGENT_LOCK)) if p.parent.parent.name != home]


def _write(root: Path, agent_root: Path, owner: Dict[str, Any]) -> None:
    """On a full disk at the price of the agent's reserve: a lane that cannot be reached cannot be cleaned up either."""
    text = json.dumps(owner, indent=1, sort_keys=True) + "\n"
    for last in (False, True):
        try:
            write_atomic(root / OWNER, text, mode=0o600)
            return
        except OSError as error:
            if last or not no_space(error):
                raise
            with contextlib.suppress(OSError):
                os.unlink(agent_root / "reserve")


def _lock(path: Path, about: Dict[str, Any], *, above: int = 0) -> int:
    """Hold the lock at `path`, ending the older process that has it. Returns the descriptor that holds it.

    Args:
        about: what to say of ourselves to whoever wants it next.
        above: leave a holder alone whose epoch is newer than this (0: every holder).

    Raises:
        Refused: it stays held, or locks do not work there.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    begun = time.monotonic()
    told: Optional[procs.Proc] = None
    since = begun
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                os.close(fd)
                raise Refused(
                    "agent", "locks", f"{path} cannot be locked ({error.strerror})", "put `root` on a local disk"
                ) from error
        holder = _holder(path)
        if int(holder.get("epoch") or 0) > above > 0:
            os.close(fd)
            raise Refused("owned", "evicted", "a newer connection of the same head serves this lane", "")
        proc = procs.Proc(int(holder.get("pid") or 0), int(holder.get("ticks") or 0))
        here = holder.get("boot") == procs.boot_id() and proc.pid not in (0, os.getpid())
        # A lock that is held for a moment only is broken when whoever has it stands still, and is one of ours.
        still = holder.get("home") == about.get("home") and time.monotonic() - begun > POLITE_S
        if here and (above > 0 or still):
            if proc != told:
                procs.kill(proc, signal.SIGTERM)
                told, since = proc, time.monotonic()
            elif time.monotonic() - since > POLITE_S:
                procs.kill(proc, signal.SIGKILL)
        if time.monotonic() - begun > LOCK_WAIT_S:
            os.close(fd)
            where = "on this machine" if here else "on another machine, it seems"
            raise Refused(
                "owned",
                "held",
                f"{path} is held by process {proc.pid or '?'} {where}, which does not let go",
                "end that process",
            )
        time.sleep(0.02)
    me = procs.identify(os.getpid())
    text = json.dumps({**about, "pid": os.getpid(), "ticks": me.ticks if me else 0, "boot": procs.boot_id()})
    with contextlib.suppress(OSError):  # on a full disk the next one finds an older name: it waits, and says so
        os.pwrite(fd, text.encode() + b"\n", 0)
        os.ftruncate(fd, len(text) + 1)
    return fd


def _holder(path: Path) -> Dict[str, Any]:
    try:
        found = read_dict(path, limit=4096)
        return {k: v for k, v in found.items() if isinstance(v, (int, str))}
    except OSError:
        return {}
