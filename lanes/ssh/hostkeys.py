"""Whom we trust: a file of our own in the format of OpenSSH's known_hosts, changed only when a person says so."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.fsio import write_atomic
from lanes.transport import LinkRefused

Standing = Literal["same", "unknown", "changed"]


@dataclass(frozen=True)
class HostKey:
    """A key as a machine shows it.

    Attributes:
        name: of the machine, as it is kept: `host` or `[host]:port`.
        kind: such as ssh-ed25519.
        blob: the public key in ssh's own encoding.
    """

    name: str
    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def line(self) -> str:
        return f"{self.name} {self.kind} {base64.b64encode(self.blob).decode()}"


@dataclass(frozen=True)
class Seen:
    """A machine's key beside what we know of it; `known` are the keys that we have for it."""

    key: HostKey
    standing: Standing
    known: tuple[HostKey, ...]


def known(path: Path, name: str) -> tuple[HostKey, ...]:
    """The keys kept for the machine `name`. Lines that are none are passed over: what they named is unknown then."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    return tuple(key for key in map(_parse, lines) if key is not None and key.name == name.lower())


def look(path: Path, key: HostKey) -> Seen:
    """A machine of which we have keys, and not this one, has changed: also when this one is of another kind."""
    have = known(path, key.name)
    if any(k.kind == key.kind and k.blob == key.blob for k in have):
        return Seen(key, "same", have)
    return Seen(key, "changed" if have else "unknown", have)


def check(path: Path, key: HostKey, lane: str) -> None:
    """Raises LinkRefused (rung "trusted") unless this very key is kept for this machine."""
    seen = look(path, key)
    if seen.standing == "unknown":
        raise LinkRefused(
            "trusted",
            "host-key-unknown",
            f"the host key of {key.name} is not known: it shows {key.kind} {key.fingerprint}",
            f"compare that with `ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` on that machine, then "
            f"`lab lane trust {lane}`",
        )
    if seen.standing == "changed":
        before = ", ".join(f"{k.kind} {k.fingerprint}" for k in seen.known)
        raise LinkRefused(
            "trusted",
            "host-key-changed",
            f"THE HOST KEY OF {key.name} HAS CHANGED: it was {before} and is now {key.kind} {key.fingerprint}; "
            f"somebody may be listening in",
            f"ask whoever runs that machine whether it was installed anew; only then `lab lane trust {lane} --replace`",
        )


def store(path: Path, key: HostKey, *, replace: bool = False) -> None:
    """Trust `key` from now on. With `replace`, whatever else was kept for that machine goes.

    Raises:
        LinkRefused: another key is kept for it, and `replace` was not said.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        seen = look(path, key)
        if seen.standing == "same" and len(seen.known) == 1:
            return
        if seen.standing == "changed" and not replace:
            check(path, key, "NAME")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        keep = [line for line in lines if (_parse(line) or _NOBODY).name != key.name]
        write_atomic(path, "".join(f"{line}\n" for line in [*keep, key.line]), mode=0o600)
    finally:
        os.close(lock)


_NOBODY = HostKey("", "", b"")


def _parse(line: str) -> HostKey | None:
    words = line.split()
    if len(words) < 3 or line.lstrip().startswith(("#", "@", "|")):
        return None
    try:
        return HostKey(words[0].lower(), words[1], base64.b64decode(words[2], validate=True))
    except ValueError:
        return None
