"""Reading what is not in the journal: live news, lanes as declared, how busy this machine is, one job in depth.

Everything here may be missing, half written or gone at the next look; the answer is then less, never an error.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from core import cluster
from core.errors import LabError
from core.home import Home
from core.journal import query
from core.journal.query import Job
from core.live import LiveAttempt, read_attempts, read_lanes, silence
from core.states import JobState, LaneState
from lab.tui import clean
from lab.tui.curves import Curves, Together, is_number
from lab.tui.facts import Detail, JournalFacts, LaneFact, SweepFact, Usage
from lab.tui.reading import Paced

_TAIL_BYTES, _TAIL_LINES = 1 << 16, 200
_WHOLE_BYTES, _WHOLE_LINES = 4 << 20, 20_000
_EXPLAIN_S = 5.0  # at most so often for a job whose reasons may change
_GPU_S = 2.0


class LiveNews:
    """live.db, looked into only when it changed; ages go on by this machine's own clock."""

    def __init__(self, home: Home, clock: Callable[[], float] = time.monotonic) -> None:
        self._home = home
        self._clock = clock
        self._conn: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._version: int | None = None
        self._read_at = 0.0
        self._attempts: dict[tuple[int, int], LiveAttempt] = {}
        self._lanes: dict[str, dict[str, Any]] = {}

    def read(self) -> tuple[dict[tuple[int, int], LiveAttempt], dict[str, dict[str, Any]]]:
        """(attempts, probes of lanes), each with its age now."""
        now = self._clock()
        if self._changed():
            # What somebody else's program left there may be anything.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._attempts, self._lanes = read_attempts(self._home), read_lanes(self._home)
                self._read_at = now
        gone = now - self._read_at
        if gone <= 0:
            return self._attempts, self._lanes
        attempts = {
            at: replace(a, age_s=a.age_s + gone) if a.age_s is not None else a for at, a in self._attempts.items()
        }
        return attempts, {
            n: {**d, "age_s": d["age_s"] + gone} if d["age_s"] is not None else d for n, d in self._lanes.items()
        }

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _changed(self) -> bool:
        try:
            found = self._home.live.stat()
        except OSError:
            self.close()
            self._attempts, self._lanes, self._file = {}, {}, None
            return False
        file = (found.st_dev, found.st_ino)
        try:
            if file != self._file or self._conn is None:
                self.close()
                self._conn = sqlite3.connect(self._home.live, timeout=0.2)
                self._file, self._version = file, None
            version = int(self._conn.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            self.close()
            return False
        if version == self._version:
            return False
        self._version = version
        return True


class Lanes:
    """The lanes of cluster.yaml beside what journal and live.db say of them."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._stamp: tuple[int, int] | None = None
        self._declared: cluster.Cluster = cluster.DEFAULT
        self._machine = Machine()
        self.trouble = ""

    def look(self, facts: JournalFacts, probes: Mapping[str, Mapping[str, Any]]) -> tuple[LaneFact, ...]:
        self._reload()
        known = {name: (state, reason, wish, info) for name, state, reason, wish, info in facts.lanes}
        out = []
        for config in self._declared.lanes:
            state, reason, wish, info = known.pop(config.name, (LaneState.DECLARED, "", None, {}))
            probe = probes.get(config.name, {})
            found = {**info, **probe}
            usage = _told(probe)
            if config.transport == "local":
                usage = self._machine.usage(bool(found.get("gpus")))
            names = tuple(_gpu_name(g) for g in found.get("gpus") or ())
            out.append(
                LaneFact(
                    config.name,
                    state,
                    reason,
                    wish,
                    config.transport,
                    config.about,
                    config.cores if config.cores is not None else _whole(found.get("cores")),
                    config.memory_mb if config.memory_mb is not None else _whole(found.get("memory_mb")),
                    names[: config.gpus] if config.gpus is not None else names,
                    str(found.get("platform") or ""),
                    probe.get("age_s"),
                    usage,
                    silence(probe),
                )
            )
        for name, (state, reason, wish, info) in known.items():
            out.append(LaneFact(name, state, reason, wish, about="no longer in cluster.yaml", cores=info.get("cores")))
        return tuple(out)

    def _reload(self) -> None:
        path = self._home.cluster_file
        if path is None:
            return
        try:
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                self._stamp = stamp
                self._declared = cluster.load(path)
                self.trouble = ""
        except LabError as error:
            self.trouble = str(error)
        except OSError:
            self._stamp = None


class Machine:
    """How busy the machine is on which the screen runs, which is the lane `local`."""

    def __init__(self) -> None:
        self._gpu: tuple[float | None, float | None] = (None, None)
        self._gpu_at = -math.inf
        self._nvml: Any = None
        self._begun = False

    def usage(self, gpus: bool) -> Usage:
        import psutil

        try:
            cpu: float | None = psutil.cpu_percent(None)
            memory = psutil.virtual_memory()
        except (OSError, RuntimeError, ValueError):
            return Usage()
        if not self._begun:  # the first answer compares with nothing
            self._begun, cpu = True, None
        busy, full = self._gpus() if gpus else (None, None)
        return Usage(cpu, (memory.total - memory.available) / 1048576, memory.total / 1048576, busy, full)

    def _gpus(self) -> tuple[float | None, float | None]:
        now = time.monotonic()
        if now - self._gpu_at < _GPU_S:
            return self._gpu
        self._gpu_at = now
        try:
            if self._nvml is None:
                import pynvml

                pynvml.nvmlInit()
                self._nvml = pynvml
            each = [self._nvml.nvmlDeviceGetHandleByIndex(i) for i in range(self._nvml.nvmlDeviceGetCount())]
            busy = [float(self._nvml.nvmlDeviceGetUtilizationRates(h).gpu) for h in each]
            memory = [self._nvml.nvmlDeviceGetMemoryInfo(h) for h in each]
            full = [100.0 * m.used / m.total for m in memory if m.total]
            self._gpu = (_mean(busy), _mean(full))
        except Exception:  # no driver, no card, no permission: NVML has an exception of its own for each
            self._gpu, self._gpu_at = (None, None), math.inf
        return self._gpu


class Depth:
    """One job in depth: its curve, its log, why it waits. Whatever is costly is done once, or now and then."""

    def __init__(self, home: Home, clock: Callable[[], float] = time.monotonic) -> None:
        self._home = home
        self._clock = clock
        self._of: tuple[int, int] | None = None
        self._curves = Curves()
        self._together = Together()
        self._tail: LogTail | None = None
        self._explained: dict[tuple[Any, ...], tuple[str, ...]] = {}
        self._waiting: Paced[tuple[str, ...]] = Paced(clock)
        self._waiting_for: tuple[Any, ...] = ()
        self._explained_at = -math.inf
        self._row: tuple[tuple[Any, ...], Detail] | None = None

    def look(
        self, conn: sqlite3.Connection | None, job_id: int, sweep: SweepFact | None, version: int, *, whole_log: bool
    ) -> Detail | None:
        """Everything about `job_id`; `version` changes when the journal did."""
        if conn is None:
            return self._row[1] if self._row is not None and self._row[1].job.id == job_id else None
        if self._row is None or self._row[0] != (job_id, version):
            try:
                job = query.with_attempts(conn, [query.job(conn, job_id)])[0]
                attempts = tuple(query.attempts(conn, job_id)[-50:])
                batch = query.batch_of(conn, job_id) if job.sweep is not None or job.pooled else None
            except (LabError, sqlite3.Error):
                return None
            self._row = ((job_id, version), Detail(job, attempts, batch=batch.dir if batch is not None else ""))
        base = self._row[1]
        self._turn_to(base)
        self._curves.read(self._home, *(self._of or (0, 0)))
        several = base.job.is_sweep and not base.job.pooled
        series = self._together.read(self._home, conn, job_id, version) if several else ()
        log, note = self._log(base, whole_log)
        explained = self._explain(conn, base.job, version)
        curves = self._curves.points
        return replace(base, sweep=sweep, curves=curves, series=series, log=log, log_note=note, explained=explained)

    def _turn_to(self, base: Detail) -> None:
        at = (base.job.id, base.job.attempts)
        path = self._home.batches / base.batch / "log.txt" if base.batch else self._home.run_dir(*at).log
        if at != self._of or self._tail is None or self._tail.path != path:
            self._of = at
            self._curves = Curves()
            self._tail = LogTail(path)

    def _log(self, base: Detail, whole: bool) -> tuple[tuple[str, ...], str]:
        job = base.job
        if job.is_sweep:
            return (), ""
        if not job.attempts and not base.batch:
            return (), "nothing was printed: it has not started"
        assert self._tail is not None
        lines, note = self._tail.read(whole)
        if base.batch and not note:
            note = "what all cells of its batch printed"
        return lines, note

    def _explain(self, conn: sqlite3.Connection, job: Job, version: int) -> tuple[str, ...]:
        """`lab explain`, at most every few seconds for what may change, once for the rest."""
        key = (job.id, job.state, job.attempts, job.wish, job.undeclared)
        if job.state is not JobState.QUEUED:
            if key not in self._explained:
                if len(self._explained) > 200:
                    self._explained.clear()
                self._explained[key] = self._ask(conn, job)
            return self._explained[key]
        if self._waiting_for[:1] != (key,):
            self._waiting, self._explained_at = Paced(self._clock), -math.inf
        if self._waiting_for != (key, version) and self._clock() - self._explained_at >= _EXPLAIN_S:
            self._waiting_for, self._explained_at = (key, version), self._clock()
            self._waiting.touch()
        return self._waiting.get(lambda: self._ask(conn, job))

    def _ask(self, conn: sqlite3.Connection, job: Job) -> tuple[str, ...]:
        try:
            from lab.explain import explain

            found = explain(self._home, conn, job.id)
        except (LabError, sqlite3.Error, OSError) as error:
            return (f"why is not known: {error}",)
        except (ValueError, KeyError, TypeError, AttributeError):
            return ()  # a job of another version of lab, which says less of itself
        return tuple(clean.one_line(s) for s in (found.sentence, *found.details))


class LogTail:
    """The end of a file that grows, is replaced, or goes away. Never reads more than its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[Any, ...] | None = None
        self._lines: tuple[str, ...] = ()
        self._seen = False

    def read(self, whole: bool) -> tuple[tuple[str, ...], str]:
        """(the last lines, why there are none or what is wrong with them)."""
        bytes_, lines = (_WHOLE_BYTES, _WHOLE_LINES) if whole else (_TAIL_BYTES, _TAIL_LINES)
        try:
            # Not a pipe or device: opening one could wait for ever.
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            if self._seen:
                return self._lines, "the log file is gone; these are its last lines"
            return (), "nothing was printed yet"
        with os.fdopen(fd, "rb") as f:
            try:
                found = os.fstat(fd)
                stamp = (found.st_ino, found.st_size, found.st_mtime_ns, whole)
                if stamp != self._stamp:
                    size = found.st_size
                    f.seek(max(0, size - bytes_))
                    blob = f.read(bytes_)
                    if size > bytes_ and b"\n" in blob:
                        blob = blob[blob.index(b"\n") + 1 :]  # the first line has lost its beginning
                    self._lines, self._stamp, self._seen = tuple(clean.clean_lines(blob, lines)), stamp, True
            except OSError as error:
                return self._lines, f"the log cannot be read ({error.strerror or error})"
        return self._lines, "" if self._lines else "nothing was printed yet"


def _told(probe: Mapping[str, Any]) -> Usage:
    """What a lane's agent says of how busy it is, where it does."""
    said = probe.get("usage")
    if not isinstance(said, Mapping):
        return Usage()
    gpus = [g for g in said.get("gpus") or () if isinstance(g, Mapping)]
    busy = [float(g["busy"]) for g in gpus if is_number(g.get("busy"))]
    full = [float(g["memory"]) for g in gpus if is_number(g.get("memory"))]
    cpu, memory = said.get("cpu"), said.get("memory_mb")
    return Usage(
        float(cpu) if is_number(cpu) else None,
        float(memory) if is_number(memory) else None,
        _whole(probe.get("memory_mb")),
        _mean(busy),
        _mean(full),
    )


def _gpu_name(gpu: Any) -> str:
    name = str(gpu.get("name") or "GPU") if isinstance(gpu, Mapping) else str(gpu)
    return clean.one_line(name.removeprefix("NVIDIA ").removeprefix("GeForce "))


def _whole(value: Any) -> int | None:
    return int(value) if is_number(value) and math.isfinite(value) else None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
