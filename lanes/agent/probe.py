"""What a lane has: asked by the head before anything is placed there."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

from lanes.agent import AGENT_VERSION, procs

_GPU_FIELDS = "index,name,uuid,memory.total"


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
    }


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
