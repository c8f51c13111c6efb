"""What earlier versions left on a lane: the agent's code of heads that have been updated since.

Code is removed only when nobody can be running from it, and that must be shown: by the record of each process that
serves, which names its code, and by what all processes were started with. Where neither can be seen (no /proc), or
somebody serves who does not say from what, everything stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from lanes.agent import owner, procs
from lanes.agent.safe import read_dict
from lanes.agent.trees import remove_tree

KEPT = 3  # of the versions that were used last so many stay: a head may go back to an older one
UNUSED_S = 86400.0  # a version that was used more recently stays: somebody may be about to run it
_DIGEST = re.compile(r"[0-9a-f]{16}")
_HALF = re.compile(r"[0-9a-f]{16}\.\d+\.[0-9a-f]{8}\.part(\.old)?|\.gone-[0-9a-f]{8}")


class Leftovers:
    """Cleans up below one lane's folder.

    Args:
        base: the lane's root folder.
    """

    def __init__(self, base: Path) -> None:
        self._base = Path(base)
        self._folder = self._base / "agent"

    def tidy_code(self) -> Dict[str, Any]:
        """Remove versions of the agent that nobody uses, and what was left of half sent ones.

        Returns:
            {"removed": their names, "why": why nothing could be, if that is so}
        """
        places = {p.name: p for p in listed(self._folder)}
        for name in [n for n in places if _HALF.fullmatch(n) and _unused(places[n])]:
            remove_tree(places[name])
        versions = sorted((n for n in places if _DIGEST.fullmatch(n)), key=lambda n: -_used_at(places[n]))
        old = [n for n in versions[KEPT:] if _unused(places[n])]
        if not old:
            return {"removed": [], "why": ""}
        if not procs.has_proc():
            return {"removed": [], "why": "this machine does not show what its processes were started with"}
        serving = self._serving()
        if serving is None:
            return {"removed": [], "why": "somebody serves here who does not say with which version"}
        free = set(old) - serving
        free -= named_by_processes(free)
        removed = []
        for name in sorted(free):
            gone = self._folder / f".gone-{os.urandom(4).hex()}"
            with contextlib.suppress(OSError):
                os.rename(places[name], gone)  # never seen half removed
                removed.append(name)
                remove_tree(gone)
        return {"removed": removed, "why": ""}

    def _serving(self) -> Optional[Set[str]]:
        """The versions with which lanes below this root are served now; None: that cannot be told."""
        found = {owner.CODE}
        for lock in (self._base / "heads").glob("*/*/" + owner.AGENT_LOCK):
            try:
                if not _held(lock):
                    continue
                record = read_dict(lock, limit=4096)
                proc = procs.Proc(int(record.get("pid") or 0), int(record.get("ticks") or 0))
            except (OSError, ValueError, TypeError):
                return None
            if not record.get("code") or record.get("boot") != procs.boot_id() or not procs.alive(proc):
                return None
            found.add(str(record["code"]))
        return found


def _held(lock: Path) -> bool:
    fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def named_by_processes(names: Set[str], files: Tuple[str, ...] = ("cmdline", "environ")) -> Set[str]:
    """Those of `names` that a process was started with: supervisors and keepers have the path of their code there.

    Args:
        files: what to look at of each process, by its name in /proc.
    """
    found: Set[str] = set()
    for blob in _words_of_processes(files) if names else ():
        found.update(name for name in names if os.fsencode(name) in blob)
    return found


def _words_of_processes(files: Tuple[str, ...]) -> Iterator[bytes]:
    for pid in os.listdir(procs.PROC):
        if pid.isdigit():
            for what in files:
                # Another user's environment cannot be read, and is none of ours.
                with contextlib.suppress(OSError), open(f"{procs.PROC}/{pid}/{what}", "rb") as f:
                    yield f.read()


def _unused(place: Path) -> bool:
    return time.time() - _used_at(place) > UNUSED_S


def _used_at(place: Path) -> float:
    """When it came, or somebody was last started from it (see boot.py); the future if that cannot be told."""
    try:
        return os.lstat(place).st_mtime
    except OSError:
        return float("inf")


def listed(folder: Path) -> List[Path]:
    """What lies in a folder; nothing where there is none."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
