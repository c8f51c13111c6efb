"""Processor quotas and sleep by control groups, version 1 or 2, whichever is there. Standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

PREFIX = "labnet"
_PERIOD_US = 50_000
_WAIT_S = 10.0


class Cgroups:
    """The control groups of one lab; a group a lane.

    Args:
        tag: names the lab, `labnet.PID.START.NUMBER`; its owner is found by it when it died.

    Attributes:
        cpu: folder of this lab under which quotas are set, or None with the reason in `no_cpu`.
        freezer: folder under which lanes are put to sleep, or None with the reason in `no_freezer`.
    """

    def __init__(self, tag: str, mounts: str = "/proc/mounts") -> None:
        self.tag = tag
        self._v1, self._v2 = _mounted(mounts)
        self.cpu, self.no_cpu = self._claim("cpu")
        self.freezer, self.no_freezer = self._claim("freezer")

    def add(self, lane: str, pid: int, quota: float | None) -> None:
        """Put `pid` and all that it will start into the lane's groups; `quota` is in cores."""
        for group in self._groups(lane):
            group.mkdir(exist_ok=True)
            (group / "cgroup.procs").write_text(str(pid))
        if quota is not None:
            self.set_quota(lane, quota)

    def set_quota(self, lane: str, cores: float | None) -> None:
        """Raises OSError with the reason when there is no cgroup for it."""
        if self.cpu is None:
            raise OSError(f"no processor quotas here: {self.no_cpu}")
        group = self.cpu / lane
        limit = -1 if cores is None else max(1000, int(cores * _PERIOD_US))
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{'max' if limit < 0 else limit} {_PERIOD_US}")
            return
        (group / "cpu.cfs_quota_us").write_text("-1")
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(limit))

    def freeze(self, lane: str, asleep: bool = True) -> None:
        """Stop, or wake, every process of the lane; returns when all of them are."""
        if self.freezer is None:
            raise OSError(f"lanes cannot be put to sleep here: {self.no_freezer}")
        _freeze(self.freezer / lane, asleep)

    def pids(self, lane: str) -> list[int]:
        for group in self._groups(lane):
            with contextlib.suppress(OSError):
                return [int(x) for x in (group / "cgroup.procs").read_text().split()]
        return []

    def remove(self) -> None:
        clear({folder for folder in (self.cpu, self.freezer) if folder is not None})

    def _groups(self, lane: str) -> list[Path]:
        return sorted({folder / lane for folder in (self.cpu, self.freezer) if folder is not None})

    def _claim(self, controller: str) -> tuple[Path | None, str]:
        base = self._v1.get(controller) or self._v2
        if base is None:
            return None, "no cgroup file system is mounted"
        folder = base / self.tag
        try:
            folder.mkdir(exist_ok=True)
            if base == self._v2 and controller == "cpu":
                for level in (base, folder):
                    (level / "cgroup.subtree_control").write_text("+cpu")
        except OSError as error:
            with contextlib.suppress(OSError):
                folder.rmdir()
            return None, f"{base} gives no {controller} group ({error.strerror})"
        return folder, ""


def abandoned(mounts: str = "/proc/mounts") -> list[Path]:
    """The folders of all labs on this machine, of the living too: the caller knows which are dead."""
    v1, v2 = _mounted(mounts)
    bases = {*v1.values(), *([v2] if v2 else [])}
    return [p for base in bases for p in base.glob(f"{PREFIX}.*.*") if p.is_dir()]


def clear(folders: Iterable[Path]) -> None:
    """Wake and kill everything in the groups of labs, and remove them. All at once: whoever is frozen by one group
    cannot be killed by way of another."""
    end = time.monotonic() + _WAIT_S
    left = list(folders)
    while left and time.monotonic() < end:
        groups = [g for folder in left for g in (*(p for p in folder.iterdir() if p.is_dir()), folder)]
        for group in groups:
            with contextlib.suppress(OSError):
                for pid in (group / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
        for group in groups:
            for file, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                if (group / file).exists():
                    with contextlib.suppress(OSError):
                        (group / file).write_text(word)
        for group in groups:
            with contextlib.suppress(OSError):
                group.rmdir()
        left = [folder for folder in left if folder.is_dir()]
        if left:
            time.sleep(0.005)


def _freeze(group: Path, asleep: bool) -> None:
    if (group / "freezer.state").exists():
        file, word, told = "freezer.state", "FROZEN" if asleep else "THAWED", "freezer.state"
    else:
        file, word, told = "cgroup.freeze", "1" if asleep else "0", "cgroup.events"
    (group / file).write_text(word)
    end = time.monotonic() + _WAIT_S
    while (word if told == file else f"frozen {word}") not in (group / told).read_text():
        if time.monotonic() > end:
            raise OSError(f"{group} does not become {word}")
        time.sleep(0.002)


def _mounted(mounts: str) -> tuple[dict[str, Path], Path | None]:
    """Where each controller of version 1 is mounted, and version 2 if it is."""
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for line in Path(mounts).read_text().splitlines():
        _, point, kind, options, *_ = line.split()
        if kind == "cgroup2":
            v2 = v2 or Path(point)
        elif kind == "cgroup":
            for word in options.split(","):
                v1.setdefault(word, Path(point))
    return v1, v2
