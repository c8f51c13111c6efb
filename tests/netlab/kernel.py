"""The system calls that Python has no name for. Standard library only: the keeper runs without site-packages."""

from __future__ import annotations

import ctypes
import os
import signal

NEWNS = 0x00020000
NEWUTS = 0x04000000
NEWIPC = 0x08000000
NEWPID = 0x20000000
NEWNET = 0x40000000

_MS_RDONLY = 1
_MS_REMOUNT = 32
_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    _check(_libc.setns(fd, kind), "setns")


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent is gone, however that came about."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl")


def private_mounts() -> None:
    """What is mounted from now on in this mount namespace is seen nowhere else."""
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)


def mount(kind: str, target: str, options: str = "") -> None:
    _mount(kind, target, kind, 0, options)


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Show `source` (a file or a folder) at `target`, which is made if need be."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.lexists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(source, target, None, _MS_BIND | _MS_REC)
    if read_only:
        _mount(None, target, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)


def overlay(lower: str, upper: str, work: str, target: str) -> None:
    _mount("overlay", target, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")


def change_root(folder: str) -> None:
    """Make `folder` (a mount) the root of this mount namespace; the old root is gone from it."""
    os.chdir(folder)
    os.makedirs(".old", exist_ok=True)
    _check(_libc.pivot_root(b".", b".old"), "pivot_root")
    os.chdir("/")
    _check(_libc.umount2(b"/.old", _MNT_DETACH), "umount2 of the old root")
    os.rmdir("/.old")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    words = [None if x is None else os.fsencode(x) for x in (source, target, kind)]
    done = _libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(data) or None)
    _check(done, f"mount of {source or kind} at {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
