"""How busy a lane is: told with every frame, for the live view only. Nothing is decided by it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from typing import Any, Dict, List, Optional, Tuple

EVERY_S = 1.0  # not asked for more often
GPU_EVERY_S = 5.0

_GPU_FIELDS = "index,utilization.gpu,memory.used,memory.total"


class Usage:
    """Processors, memory and GPUs of this machine, as percentages of all that there is.

    GPUs are asked for by a thread (nvidia-smi takes its time), so that no frame waits for them.
    """

    def __init__(self, *, gpus: bool) -> None:
        self._ask_gpus = gpus
        self._ticks = _cpu_ticks()
        self._at = time.monotonic()
        self._gpus_at = -GPU_EVERY_S
        self._last: Dict[str, Any] = {}
        self._gpus: List[Dict[str, Any]] = []
        self._asking: Optional[threading.Thread] = None

    def now(self) -> Dict[str, Any]:
        """{"cpu": percent, "memory_mb": used, "gpus": [{"index", "busy", "memory"}]}; what cannot be read is absent."""
        at = time.monotonic()
        if self._last and at - self._at < EVERY_S:
            return self._last
        found: Dict[str, Any] = {}
        ticks = _cpu_ticks()
        if ticks is not None and self._ticks is not None and ticks[1] > self._ticks[1]:
            busy, total = ticks[0] - self._ticks[0], ticks[1] - self._ticks[1]
            found["cpu"] = round(min(100.0, max(0.0, 100.0 * busy / total)), 1)
        elif ticks is None:  # no /proc: the load says nearly the same
            with contextlib.suppress(OSError):
                found["cpu"] = round(min(100.0, 100.0 * os.getloadavg()[0] / (os.cpu_count() or 1)), 1)
        memory = _memory_used_mb()
        if memory is not None:
            found["memory_mb"] = memory
        if self._ask_gpus:
            self._look_at_gpus(at)
            found["gpus"] = self._gpus
        self._ticks, self._at, self._last = ticks, at, found
        return found

    def _look_at_gpus(self, at: float) -> None:
        if at - self._gpus_at >= GPU_EVERY_S and not (self._asking is not None and self._asking.is_alive()):
            self._gpus_at = at
            self._asking = threading.Thread(target=self._read_gpus, name="gpu-usage", daemon=True)
            self._asking.start()

    def _read_gpus(self) -> None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                ["nvidia-smi", "--query-gpu=" + _GPU_FIELDS, "--format=csv,noheader,nounits"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=20,
                check=True,
            )
            self._gpus = gpu_lines(done.stdout.decode("utf-8", "replace"))


def gpu_lines(text: str) -> List[Dict[str, Any]]:
    """What nvidia-smi says, one dictionary a GPU; what it calls [N/A] is absent."""
    out = []
    for line in text.splitlines():
        words = [w.strip() for w in line.split(",")]
        if len(words) != 4 or not words[0].isdigit():
            continue
        gpu: Dict[str, Any] = {"index": int(words[0])}
        with contextlib.suppress(ValueError):
            gpu["busy"] = float(words[1])
        with contextlib.suppress(ValueError, ZeroDivisionError):
            gpu["memory"] = round(100.0 * float(words[2]) / float(words[3]), 1)
        out.append(gpu)
    return out


def _cpu_ticks() -> Optional[Tuple[int, int]]:
    """(busy, all) clock ticks of all processors since the start of the machine; None without /proc."""
    try:
        with open("/proc/stat") as f:
            fields = [int(w) for w in f.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    return sum(fields) - sum(fields[3:5]), sum(fields)


def _memory_used_mb() -> Optional[int]:
    try:
        with open("/proc/meminfo") as f:
            found = {line.split(":")[0]: int(line.split()[1]) for line in f}
        return (found["MemTotal"] - found["MemAvailable"]) >> 10
    except (OSError, ValueError, KeyError, IndexError):
        return None
