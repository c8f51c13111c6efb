"""Which files a job really read: every open and exec of all its processes, seen by the kernel.

A seccomp filter, installed between fork and exec, makes the kernel ask whoever holds its listener (the supervisor of
an attempt, or a parity run outside of one) at each open; it notes the path and lets the call go on. That needs no
privilege, and sees programs in any language. It does not see io_uring, 32-bit programs, or what a program of another
user (setuid) reads. Where seccomp cannot be had, an audit hook is put into every Python process instead
(`audit.py`); the outcome says which of the two it was.

Standard library only, Python 3.9: the lane agent carries this module.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import sys
import threading
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from core.declared import Declared, regular
from core.marks import MarkedLog, mark_of


class _Abi(NamedTuple):
    audit_arch: int
    seccomp: int
    open: Optional[int]
    creat: Optional[int]
    openat: int
    openat2: int
    execve: int
    execveat: int
    rename: Optional[int]
    renameat: int
    renameat2: int
    link: Optional[int]
    linkat: int
    o_directory: int


_ABIS: Dict[str, _Abi] = {
    "x86_64": _Abi(0xC000003E, 317, 2, 85, 257, 437, 59, 322, 82, 264, 316, 86, 265, 0o200000),
    "aarch64": _Abi(0xC00000B7, 277, None, None, 56, 437, 221, 281, None, 38, 276, None, 37, 0o40000),
}

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_GET_ACTION_AVAIL = 2
_GET_NOTIF_SIZES = 3
_NEW_LISTENER = 1 << 3
_WAIT_KILLABLE_RECV = 1 << 5
_RET_ALLOW = 0x7FFF0000
_RET_USER_NOTIF = 0x7FC00000
_NOTIF = struct.Struct("=QIIiIQ6Q")  # id, pid, flags, nr, arch, ip, args
_RESP = struct.Struct("=QqiI")
_IOCTL_RECV = 0xC0502100
_IOCTL_SEND = 0xC0182101
_IOCTL_SET_FLAGS = 0x40082104
_CONTINUE = 1
_AT_FDCWD = -100
_ALIASES = (
    ("/proc/self/", ""), ("/proc/thread-self/", ""), ("/dev/fd/", "fd/"),
    ("/dev/stdin", "fd/0"), ("/dev/stdout", "fd/1"), ("/dev/stderr", "fd/2"),
)  # fmt: skip
_O_PATH = 0o10000000


def available() -> bool:
    """Can this machine ask us at every open, and may we read the paths from our own descendants?"""
    abi = _abi()
    if abi is None or struct.calcsize("P") != 8:
        return False
    with contextlib.suppress(OSError, ValueError), open("/proc/sys/kernel/yama/ptrace_scope") as f:
        if int(f.read()) > 1:
            return False
    libc = _libc()
    action = ctypes.c_uint32(_RET_USER_NOTIF)
    sizes = (ctypes.c_uint16 * 3)()
    return (
        libc.syscall(abi.seccomp, _GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0
        and libc.syscall(abi.seccomp, _GET_NOTIF_SIZES, 0, ctypes.byref(sizes)) == 0
        and (sizes[0], sizes[1]) == (_NOTIF.size, _RESP.size)
    )


def install() -> int:
    """Put the filter on this process and all that it will start. Returns the descriptor to answer at.

    Raises:
        OSError: a filter with a listener is there already (a job inside a job), or the kernel refuses.
    """
    abi = _abi()
    if abi is None:
        raise OSError(errno.ENOSYS, "no filter for this machine")
    libc = _libc()
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    code = _filter(abi)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    fd = -1
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE_RECV, _NEW_LISTENER):
        fd = libc.syscall(abi.seccomp, _SET_MODE_FILTER, flags, program)
        if fd >= 0:
            return int(fd)
    raise OSError(ctypes.get_errno(), "seccomp")


class Tracer(threading.Thread):
    """Answers the kernel's questions, and tells `declared` what was opened.

    Args:
        marked: where the opens of marked processes are written down besides, while they wait: when such a process
            has ended, all that it opened is there to be read.
    """

    def __init__(self, fd: int, declared: Declared, marked: Optional[MarkedLog] = None) -> None:
        super().__init__(name="opens", daemon=True)
        self._fd = fd
        self._declared = declared
        self._marked = marked
        self._abi = _abi() or next(iter(_ABIS.values()))
        self._readv = _libc().process_vm_readv
        self._readv.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 5]
        self._readv.restype = ctypes.c_ssize_t
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._buffer = ctypes.create_string_buffer(2 * self._page)
        self._iov = (ctypes.c_uint64 * 6)()
        self.blind = 0  # calls whose path could not be read
        self.seen = 0
        with contextlib.suppress(OSError):  # wake the waiting program on our processor (Linux 6.6)
            fcntl.ioctl(fd, _IOCTL_SET_FLAGS, 1)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        empty = bytes(_NOTIF.size)
        while True:
            try:
                events = poll.poll()
                if events and events[0][1] & select.POLLIN:
                    self._answer(fcntl.ioctl(self._fd, _IOCTL_RECV, empty))
                elif events:
                    return  # nothing with this filter lives any more
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno == errno.EBADF:
                    return
                # ENOENT: the program was killed before we could answer.

    def finish(self, timeout: float = 5.0) -> None:
        """Wait until every question is answered. Call it when nothing of the job lives."""
        self.join(timeout)
        if not self.is_alive():
            os.close(self._fd)
            if self._marked is not None:
                self._marked.close()

    def _answer(self, raw: bytes) -> None:
        ident, tid, _flags, nr, _arch, _ip, *args = _NOTIF.unpack(raw)
        self.seen += 1
        after = None
        try:
            after = self._look(nr, tid, args)
        except Exception:  # whatever it is, an unanswered question would hold the program up for ever
            self.blind += 1
            self._tell(self._mark(tid), "?", "")
        finally:
            fcntl.ioctl(self._fd, _IOCTL_SEND, _RESP.pack(ident, 0, 0, _CONTINUE))
        if after is not None:
            with contextlib.suppress(OSError, ValueError):
                after()

    def _look(self, nr: int, tid: int, args: List[int]) -> "Optional[_After]":
        """What must be read while the program waits. Returns what can be done once it goes on."""
        abi = self._abi
        if nr == abi.openat:
            return self._open(tid, args[0], args[1], args[2])
        if nr == abi.open:
            return self._open(tid, _AT_FDCWD, args[0], args[1])
        if nr == abi.creat:
            return self._open(tid, _AT_FDCWD, args[0], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        if nr == abi.openat2:
            how = self._memory(tid, args[2], 8)
            return self._open(tid, args[0], args[1], struct.unpack("=Q", how)[0]) if len(how) == 8 else None
        if nr in (abi.execve, abi.execveat):
            return self._exec(tid, *((_AT_FDCWD, args[0]) if nr == abi.execve else (args[0], args[1])))
        two = nr in (abi.rename, abi.link)
        old = self._path(tid, _AT_FDCWD, args[0]) if two else self._path(tid, args[0], args[1])
        new = self._path(tid, _AT_FDCWD, args[1]) if two else self._path(tid, args[2], args[3])
        if new:
            self._named(tid, old, new, link=nr in (abi.link, abi.linkat))
        return None

    def _open(self, tid: int, dirfd: int, address: int, flags: int) -> "Optional[_After]":
        if flags & (_O_PATH | self._abi.o_directory):
            return None
        path = self._path(tid, dirfd, address)
        if not path:
            return None
        mark = self._mark(tid)
        known = self._declared.known(path)
        if known and not mark:
            return None
        write = flags & os.O_ACCMODE
        existed = bool(flags & os.O_CREAT) and os.path.lexists(path)
        if (flags & os.O_CREAT and not existed) or (flags & os.O_TRUNC and write):
            self._tell(mark, "w", path)
            return None if known else _After(self._declared.made, path)
        if write == os.O_WRONLY:
            return None
        if mark:
            self._tell(mark, "r", regular(path))
        return None if known else _After(self._declared.read, path)

    def _exec(self, tid: int, dirfd: int, address: int) -> "Optional[_After]":
        path = self._path(tid, dirfd, address)
        if not path:
            return None
        mark = self._mark(tid)
        if mark:
            self._tell(mark, "x", path)
            self._tell(mark, "r", regular(path))
        return _After(self._declared.ran, path)

    def _named(self, tid: int, old: str, new: str, *, link: bool) -> None:
        """A file gets another name. One that had none (O_TMPFILE) was made by whoever gives it its first."""
        mark = self._mark(tid)
        if link and (not old or old.endswith(" (deleted)")):
            self._declared.made(new)
            self._tell(mark, "w", new)
        elif old and os.path.lexists(old):
            folder = os.path.isdir(old)
            self._declared.renamed(old, new, folder=folder)
            self._tell(mark, "d" if folder else "m", old, new)

    def _mark(self, tid: int) -> int:
        return mark_of(tid) if self._marked is not None else 0

    def _tell(self, mark: int, letter: str, path: Optional[str], new: str = "") -> None:
        if mark and path is not None and self._marked is not None:
            self._marked.tell(mark, letter, path, new)

    def _path(self, tid: int, dirfd: int, address: int) -> str:
        """The absolute path that a call names; empty when its memory cannot be read."""
        raw = self._memory(tid, address, 4096).split(b"\0", 1)
        if len(raw) != 2:
            self.blind += 1
            self._tell(self._mark(tid), "?", "")
            return ""
        name = os.fsdecode(raw[0])
        dirfd = ctypes.c_int32(dirfd & 0xFFFFFFFF).value
        try:
            if not name.startswith("/"):
                base = os.readlink(f"/proc/{tid}/cwd" if dirfd == _AT_FDCWD else f"/proc/{tid}/fd/{dirfd}")
                name = f"{base}/{name}" if name else base
            if name.startswith(("/proc/", "/dev/fd/", "/dev/std")):
                name = _special(name, tid)
        except OSError:
            return ""
        return name

    def _memory(self, tid: int, address: int, size: int) -> bytes:
        # Two pieces, cut where a page ends: what follows the string may not be mapped.
        first = min(size, self._page - address % self._page)
        base = ctypes.addressof(self._buffer)
        self._iov[0], self._iov[1] = base, size
        self._iov[2], self._iov[3] = address, first
        self._iov[4], self._iov[5] = address + first, size - first
        at = ctypes.addressof(self._iov)
        got = self._readv(tid, at, 1, at + 16, 2 if size > first else 1, 0)
        return ctypes.string_at(base, got) if got > 0 else b""


class _After:
    """A call for later: cheaper than a closure, and easy to read in a traceback."""

    __slots__ = ("_call", "_path")

    def __init__(self, call: Callable[[str], None], path: str) -> None:
        self._call = call
        self._path = path

    def __call__(self) -> None:
        self._call(self._path)


def send_fd(sock: socket.socket, fd: int) -> None:
    """Pass `fd` over a unix socket; imports nothing, for it runs between fork and exec."""
    sock.sendmsg([b"t"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])


def _special(name: str, tid: int) -> str:
    """What a name below /proc or /dev that leads to a file of elsewhere means to `tid`; empty for all others."""
    for before, after in _ALIASES:
        if name == before or (before.endswith("/") and name.startswith(before)):
            name = f"/proc/{tid}/{after}{name[len(before) :]}"
            break
    if "/cwd/" in name or "/root/" in name:
        return os.path.realpath(name)
    if "/fd/" not in name:
        return ""
    found = os.path.realpath(name)
    return "" if found.startswith("/proc/") or found.endswith(" (deleted)") else found


def _abi() -> Optional[_Abi]:
    return _ABIS.get(platform.machine()) if sys.platform.startswith("linux") else None


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _filter(abi: _Abi) -> bytes:
    """The filter: ask at opens that may read or create, at new names and execs; let everything else pass.

    Jumps are counted from the next instruction; blocks are laid out so that each ends by returning.
    """
    ld, jeq, jset, and_, ret = 0x20, 0x15, 0x45, 0x54, 0x06
    nr, arch, args = 0, 4, 16

    def op(code: int, k: int, jt: int = 0, jf: int = 0) -> bytes:
        return struct.pack("=HBBI", code, jt, jf, k)

    def flags_block(arg: int) -> List[bytes]:
        return [
            op(ld, args + 8 * arg),
            op(jset, _O_PATH | abi.o_directory, 5, 0),
            op(jset, os.O_CREAT | os.O_TRUNC, 3, 0),
            op(and_, os.O_ACCMODE),
            op(jeq, os.O_WRONLY, 2, 0),
            op(jeq, os.O_ACCMODE, 1, 0),
            op(ret, _RET_USER_NOTIF),
            op(ret, _RET_ALLOW),
        ]

    asked = [abi.openat2, abi.execve, abi.execveat, abi.renameat, abi.renameat2, abi.linkat]
    asked += [n for n in (abi.creat, abi.rename, abi.link) if n is not None]
    out = [op(ld, arch), op(jeq, abi.audit_arch, 1, 0), op(ret, _RET_ALLOW), op(ld, nr)]
    blocks: List[Tuple[int, int]] = [(abi.openat, 2)] + ([(abi.open, 1)] if abi.open is not None else [])
    for number, arg in blocks:
        block = flags_block(arg)
        out += [op(jeq, number, 0, len(block)), *block]
    out += [op(jeq, number, len(asked) - i, 0) for i, number in enumerate(asked)]
    out += [op(ret, _RET_ALLOW), op(ret, _RET_USER_NOTIF)]
    return b"".join(out)
