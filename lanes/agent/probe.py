"""What a lane has: asked by the head before anything is placed there, and closely while it is admitted.

`hello` is cheap and told at every connection. `Probes` looks closely, which takes seconds: each look is begun, and
asked for until it is done, so that no call on the channel is a long one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

from lanes.agent import AGENT_VERSION, machine, procs, pythons

_GPU_FIELDS = "index,name,uuid,memory.total"
_WORK = 600_000  # steps, about 0.05 s on an ordinary machine


def hello(root: Path) -> Dict[str, Any]:
    """The lane in one dictionary. GPUs are asked for once in the life of this process."""
    return {
        "version": AGENT_VERSION,
        "boot_id": procs.boot_id(),
        "hostname": socket.gethostname(),
        "cores": cores(),
        "memory_mb": memory_mb(),
        "gpus": gpus(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": f"{platform.system()}-{platform.machine()}",
        "disk_free": shutil.disk_usage(root).free,
        "pid": os.getpid(),
        "work_s": work_s(),
    }


@functools.lru_cache(maxsize=None)
def work_s() -> float:
    """Seconds for a small fixed piece of work: the first word on how fast this machine is. Once in a process's life.

    Long enough that a share of a processor (a quota gives it in slices of a tenth of a second) shows.
    """
    began = time.perf_counter()
    x = 1
    for _ in range(_WORK):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
    return time.perf_counter() - began if x else 0.0


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_mb() -> int:
    """Main memory, or the limit of the control group that we are in if that is less."""
    total = 0
    with contextlib.suppress(ValueError, OSError, AttributeError):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/memory.max") as f:
        limit = int(f.read())
        total = min(total or limit, limit)
    return total >> 20


@functools.lru_cache(maxsize=None)
def _gpu_lines() -> List[str]:
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader,nounits"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.decode("utf-8", "replace").splitlines()


def gpus() -> List[Dict[str, Any]]:
    found = []
    for line in _gpu_lines():
        words = [w.strip() for w in line.split(",")]
        if len(words) == 4 and words[0].isdigit():
            memory = int(words[3]) if words[3].isdigit() else 0
            found.append({"index": int(words[0]), "name": words[1], "uuid": words[2], "memory_mb": memory})
    return found


_KEPT = 16  # looks that are remembered


class Probes:
    """Close looks at this lane, each in a thread of its own.

    Args:
        root: a folder of ours on the lane: its disk is the one that counts.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(root)
        self._guard = threading.Lock()
        self._looks: Dict[str, Dict[str, Any]] = {}
        self._number = 0

    def begin_look(self, what: str, **asked: Any) -> str:
        """Begin to look. Returns the name by which `look` tells the result.

        Args:
            what: "machine": all that `machine_now` says; "packages": of the interpreter `python` the `names` (of
                distributions) and `imports` (of modules); "disk": room, and whether `size` bytes can be written.

        Raises:
            ValueError: there is no such look.
        """
        looks: Dict[str, Callable[..., Dict[str, Any]]] = {
            "machine": self.machine_now,
            "packages": machine.packages,
            "disk": self.disk_now,
        }
        if what not in looks:
            raise ValueError(f"there is no look called {what!r}, only {', '.join(looks)}")
        with self._guard:
            self._number += 1
            name = f"{what}-{os.getpid()}-{self._number}"
            self._looks[name] = {"done": False, "found": None, "error": ""}
            while len(self._looks) > _KEPT:
                del self._looks[next(iter(self._looks))]
        threading.Thread(target=self._run, args=(name, looks[what], asked), name=f"look-{what}", daemon=True).start()
        return name

    def look(self, name: str) -> Dict[str, Any]:
        """{"known": was it begun here, "done", "found": the answer, "error": why there is none}"""
        with self._guard:
            kept = self._looks.get(name)
            return (
                {"known": False, "done": True, "found": None, "error": ""} if kept is None else {**kept, "known": True}
            )

    def machine_now(self) -> Dict[str, Any]:
        """What `hello` says and more; wall-clock time is told for people only."""
        said = hello(self._root)
        said.update(
            gpus=machine.gpus(),
            memory_free_mb=machine.memory_free_mb(),
            heat=machine.heat(),
            power=machine.power(),
            disk=machine.disk(self._root),
            pythons=[{k: str(p[k]) for k in ("python", "version", "problem") if k in p} for p in pythons.find()],
            clock=time.time(),
            cores_of_machine=os.cpu_count() or 1,
            tools={name: shutil.which(name) for name in ("uv", "git", "nvidia-smi")},
        )
        with contextlib.suppress(OSError, AttributeError):
            said["load"] = [round(x, 2) for x in os.getloadavg()]
        return said

    def disk_now(self, size: int = 1 << 20) -> Dict[str, Any]:
        return {**machine.disk(self._root), "write": machine.try_disk(self._root, size)}

    def _run(self, name: str, work: Callable[..., Dict[str, Any]], asked: Dict[str, Any]) -> None:
        try:
            said: Dict[str, Any] = {"done": True, "found": work(**asked), "error": ""}
        except Exception as error:
            said = {"done": True, "found": None, "error": f"{type(error).__name__}: {error}"}
        with self._guard:
            if name in self._looks:
                self._looks[name] = said
