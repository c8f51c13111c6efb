"""What the operating system knows about processes, and how to end all of those that belong to one attempt.

An attempt's processes are found three ways: as descendants of its supervisor (a subreaper, so that orphans come
back to it), by the marker in their environment, and by the list that the supervisor leaves on disk. A pid alone is
never believed: it goes with the kernel's start time of that process, and both with the boot id.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Dict, Iterable, List, NamedTuple, Optional, Set

PROC = "/proc"
MARKER = "LAB_ATTEMPT"

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Proc(NamedTuple):
    """One process that cannot be mistaken for a later one with the same pid."""

    pid: int
    ticks: int


def has_proc() -> bool:
    return os.path.isdir(PROC + "/self")


def boot_id() -> str:
    """Different after every boot of this machine; one word for machines that do not say."""
    with contextlib.suppress(OSError), open(PROC + "/sys/kernel/random/boot_id") as f:
        return f.read().strip()
    if sys.platform == "darwin":
        found = _output(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]).strip()
        if found:
            return found
    return "unknown"


def start_ticks(pid: int) -> Optional[int]:
    """When the kernel started `pid`, in its own ticks; None when there is no such process (or it is a zombie)."""
    fields = _stat(pid)
    if fields is None:
        if has_proc() or not _exists(pid):
            return None
        return 0
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def identify(pid: int) -> Optional[Proc]:
    ticks = start_ticks(pid)
    return None if ticks is None else Proc(pid, ticks)


def alive(proc: Proc) -> bool:
    return start_ticks(proc.pid) == proc.ticks


def become_subreaper() -> bool:
    """Have orphaned descendants come back to this process (Linux)."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Be killed when the parent goes. Called in a child between fork and exec."""
    if _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL)) and os.getppid() != parent:
        os._exit(125)  # it went before we could ask


def descendants(root: int) -> List[int]:
    """Pids of all live descendants of `root` (zombies included), nearest first."""
    if not has_proc():
        return _below(root, _parents_from_ps())
    found: List[int] = []
    queue = [root]
    while queue:
        pid = queue.pop(0)
        kids = _children(pid)
        if kids is None:
            return _below(root, _parents_from_proc())
        found += kids
        queue += kids
    return found


def rss_bytes(pids: Iterable[int]) -> int:
    """Sum of the resident sets. Pages shared between processes count once in each of them."""
    if not has_proc():
        wanted = {str(p) for p in pids}
        rows = (line.split() for line in _output(["/bin/ps", "-axo", "pid=,rss="]).splitlines())
        return sum(int(row[1]) * 1024 for row in rows if len(row) == 2 and row[0] in wanted)
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError, ValueError), open(f"{PROC}/{pid}/statm", "rb") as f:
            total += int(f.read().split()[1]) * page
    return total


def oom_kills() -> int:
    """How often the kernel's out-of-memory killer has struck since boot."""
    with contextlib.suppress(OSError, ValueError), open(PROC + "/vmstat") as f:
        for line in f:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def marked(marker: str, log: str = "") -> List[Proc]:
    """Every live process, except this one, that carries exactly this marker in its environment or prints to `log`.

    A program may clear its environment and leave its session; as long as it prints into the attempt's log it is the
    attempt's. (Its current folder would say less: a person may stand there with a shell.)
    """
    me = os.getpid()
    if not has_proc():
        word = f"{MARKER}={marker}"
        lines = _output(["/bin/ps", "eww", "-axo", "pid=,command="]).splitlines()
        return [Proc(int(x.split()[0]), 0) for x in lines if word in x.split() and int(x.split()[0]) != me]
    needle = f"{MARKER}={marker}".encode()
    found = []
    seen = {str(me)}
    went = True
    while went:
        went = False
        for name in set(os.listdir(PROC)) - seen:
            seen.add(name)
            if not name.isdigit():
                continue
            blob = _environ(int(name))
            # One that ended while we looked may have forked another that was not listed yet: look for new ones.
            went = went or not blob
            if (needle in blob and needle in blob.split(b"\0")) or (log and _prints_to(name, log)):
                proc = identify(int(name))
                if proc is not None:
                    found.append(proc)
                else:
                    went = True
    return found


def _prints_to(pid: str, log: str) -> bool:
    for fd in ("1", "2"):
        with contextlib.suppress(OSError):
            if os.readlink(f"{PROC}/{pid}/fd/{fd}") in (log, log + " (deleted)"):
                return True
    return False


def kill(proc: Proc, sig: int = signal.SIGKILL) -> None:
    """Send `sig` if this is still the process that was meant."""
    if alive(proc):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(proc.pid, sig)


def kill_strays(marker: str, listed: Iterable[Proc] = (), *, log: str = "", within_s: float = 5.0) -> List[Proc]:
    """SIGKILL everything with the marker, everything listed and what those started, until nothing is left.

    Returns:
        what still lives after `within_s` (asleep in the kernel, or another user's): empty means clear.
    """
    deadline = time.monotonic() + within_s
    known: Set[Proc] = {p for p in listed if alive(p)}
    pause = 0.002
    while True:
        known.update(marked(marker, log))
        for proc in list(known):
            known.update(p for p in map(identify, descendants(proc.pid)) if p is not None and p.pid != os.getpid())
        if not known:
            return []
        met, known = known, {p for p in known if alive(p)}
        for proc in known:
            kill(proc)
        # Whoever was met and is gone by now may have forked first: only a look that meets nobody says that it is over.
        if time.monotonic() > deadline:
            return sorted(known or met)
        time.sleep(pause)
        pause = min(0.1, pause * 2)


def write_list(path: str, procs: Iterable[Proc]) -> None:
    """Leave the list of an attempt's processes for an agent that may have to clean up after us."""
    text = "".join(f"{p.pid} {p.ticks}\n" for p in procs)
    tmp = path + ".tmp"
    with contextlib.suppress(OSError):
        with open(tmp, "w") as f:
            f.write(text)
        os.replace(tmp, path)


def read_list(path: str) -> List[Proc]:
    found = []
    with contextlib.suppress(OSError), open(path, errors="replace") as f:
        for line in f:
            with contextlib.suppress(ValueError):
                pid, ticks = line.split()
                found.append(Proc(int(pid), int(ticks)))
    return found


def _prctl(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _environ(pid: int) -> bytes:
    """The environment of `pid`; empty when it has none, is gone, or is another user's."""
    until = time.monotonic() + 0.2
    while True:
        try:
            with open(f"{PROC}/{pid}/environ", "rb") as f:
                blob = f.read()
        except OSError:
            return b""
        if blob or time.monotonic() > until:
            return blob
        # In the midst of exec a process has no environment yet, and must not pass for one that has none.
        fields = _stat(pid)
        if fields is None or fields[0] in (b"Z", b"X") or len(fields) < 49:
            return b""
        size, start, end = fields[20], fields[47], fields[48]
        if size == b"0" or (start == end and end != b"0"):
            return b""
        time.sleep(0.0005)


def _stat(pid: int) -> Optional[List[bytes]]:
    """The fields of /proc/PID/stat from the state on (the name before it may hold anything)."""
    try:
        with open(f"{PROC}/{pid}/stat", "rb") as f:
            return f.read().rpartition(b")")[2].split()
    except OSError:
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _children(pid: int) -> Optional[List[int]]:
    """Direct children, from the kernel's own lists; None where it keeps none."""
    kids: List[int] = []
    try:
        tasks = os.listdir(f"{PROC}/{pid}/task")
    except OSError:
        return []
    for task in tasks:
        try:
            with open(f"{PROC}/{pid}/task/{task}/children") as f:
                kids += [int(x) for x in f.read().split()]
        except FileNotFoundError:
            if os.path.exists(f"{PROC}/{pid}/task/{task}"):
                return None
        except (OSError, ValueError):
            continue
    return kids


def _parents_from_proc() -> Dict[int, int]:
    parents = {}
    for name in os.listdir(PROC):
        fields = _stat(int(name)) if name.isdigit() else None
        if fields:
            parents[int(name)] = int(fields[1])
    return parents


def _parents_from_ps() -> Dict[int, int]:
    rows = (line.split() for line in _output(["/bin/ps", "-axo", "pid=,ppid="]).splitlines())
    return {int(row[0]): int(row[1]) for row in rows if len(row) == 2}


def _below(root: int, parents: Dict[int, int]) -> List[int]:
    kids: Dict[int, List[int]] = {}
    for pid, parent in parents.items():
        kids.setdefault(parent, []).append(pid)
    found: List[int] = []
    queue = [root]
    while queue:
        step = kids.get(queue.pop(0), [])
        found += step
        queue += step
    return found


def _output(argv: List[str]) -> str:
    """What a small system tool prints; nothing where it does not exist."""
    import subprocess

    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")
