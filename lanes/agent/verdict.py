"""How an attempt ended, in one word and one sentence: a pure function of what was found.

Exit 0 alone is not success. A stop that was asked for before the end names the cause, whatever the program made of
it: a training loop that leaves quietly on SIGTERM has not finished.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from core.rundir import RunDir
from lanes.agent.safe import open_plain

# The strings of core.states.Cause, which needs a newer Python than lanes have.
OK, ERROR, SIGNAL, TIME_LIMIT, CANCELLED = "ok", "error", "signal", "time-limit", "cancelled"
PREEMPTED, SETUP, STALE_INPUT, MEMORY, HOST_MEMORY = "preempted", "setup", "stale-input", "memory", "host-memory"
DISK_FULL, INCOMPLETE = "disk-full", "incomplete"

# Exit codes by which the child says what it could not write down.
EXIT_ERROR, EXIT_DISK_FULL, EXIT_LEFT, EXIT_CANNOT_FAIL = 1, 92, 93, 94
_BY_EXIT = {EXIT_DISK_FULL: DISK_FULL, EXIT_LEFT: PREEMPTED, EXIT_CANNOT_FAIL: "check-cannot-fail"}

FULL_BELOW = 64 << 10  # bytes free at which a disk is full for a program that just failed
_TAIL = 1 << 20


class Ended(NamedTuple):
    """How the child's process ended, as the kernel said it."""

    exit_code: Optional[int] = None
    signal: Optional[int] = None


class Stop(NamedTuple):
    """Why the supervisor ended it."""

    cause: str
    message: str


class Found(NamedTuple):
    """Everything that bears on the verdict."""

    ended: Optional[Ended]
    stop: Optional[Stop] = None
    child: Optional[Dict[str, Any]] = None  # outcome.json
    oom_kill: bool = False
    disk_free: int = 1 << 40
    missing: Sequence[str] = ()  # sentences: outputs and expectations that were not met
    stale: Sequence[str] = ()


def verdict(found: Found) -> Dict[str, Any]:
    """Returns: {"cause", "message", "exit_code", "signal"}."""
    child = found.child or {}
    ended = found.ended or Ended()
    code = _whole(child.get("exit_code", ended.exit_code))
    number = _whole(child.get("signal", ended.signal))
    cause, message = _judge(found, child, ended, code, number)
    return {"cause": cause, "message": message, "exit_code": code, "signal": number}


def _judge(
    found: Found, child: Dict[str, Any], ended: Ended, code: Optional[int], number: Optional[int]
) -> Tuple[str, str]:
    if found.stop is not None:
        return found.stop
    said, why = str(child.get("cause") or ""), str(child.get("message") or "")
    killed = number == 9 or code in (137, -9)
    if killed and found.oom_kill:
        return HOST_MEMORY, "killed by the machine's out-of-memory killer: it has too little memory for what runs on it"
    if said and said != OK:
        if said in (ERROR, SIGNAL) and found.disk_free < FULL_BELOW:
            return DISK_FULL, f"the disk of the run directory is full; {why}"
        return said, why
    if ended.signal is not None:
        return SIGNAL, f"the kind's process was ended by {_signal_name(ended.signal)}, which was not ours"
    if ended.exit_code in _BY_EXIT:
        return _BY_EXIT[ended.exit_code], "the disk is full" if ended.exit_code == EXIT_DISK_FULL else why
    if ended.exit_code != 0 or not said:
        if found.disk_free < FULL_BELOW:
            return DISK_FULL, "the disk of the run directory is full"
        return ERROR, f"the kind's process ended with exit {ended.exit_code} and left no word; see the log"
    if found.stale:
        return STALE_INPUT, "; ".join(found.stale)
    if found.missing:
        return INCOMPLETE, "exit 0, but " + "; ".join(found.missing)
    return OK, ""


def unmet(
    spec: Dict[str, Any], plan: Dict[str, Any], run: RunDir, rows: Dict[str, int], last: Optional[int]
) -> List[str]:
    """One sentence for each thing that was planned, by the user or the kind, and is not there."""
    missing: List[str] = []
    for expect in (spec.get("expect") or {}, plan or {}):
        for table, want in (expect.get("rows") or {}).items():
            have = int(rows.get(table, 0))
            if have != int(want):
                missing.append(f"the table {table} has {have} rows and {want} were planned")
        want_step = expect.get("last_step")
        if want_step is not None and (last is None or last < int(want_step)):
            there = "there are no step rows" if last is None else f"the step rows end at {last}"
            missing.append(f"{there} and step {want_step} was planned")
        for name in expect.get("artifacts") or ():
            why = _artifact(run.artifacts / name)
            if why:
                missing.append(f"the artifact {name} {why}")
    return list(dict.fromkeys(missing))


def last_step(metrics: Path) -> Optional[int]:
    """The highest step among the last rows of metrics.jsonl; lines that are no step rows do not count."""
    try:
        with open_plain(metrics) as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - _TAIL))
            lines = f.read().split(b"\n")
    except OSError:
        return None
    steps = [step for step in map(step_of, lines) if step is not None]
    return max(steps) if steps else None


def step_of(line: bytes) -> Optional[int]:
    if not line.startswith(b"{"):
        return None
    try:
        return _whole(json.loads(line).get("step"))
    except (ValueError, RecursionError):
        return None


def _whole(value: Any) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _artifact(path: Path) -> str:
    if path.is_dir():
        return "" if any(p.is_file() and p.stat().st_size for p in path.rglob("*")) else "is an empty folder"
    if not path.exists():
        return "is missing"
    return "" if path.stat().st_size else "is empty"


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
