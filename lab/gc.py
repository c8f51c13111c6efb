"""Retention: what may go, and how it goes.

`plan` looks at what is there and writes nothing; `collect` removes exactly what a plan names, after looking again under
the journal's own lock. What a job left is recorded as discarded before any of it is removed, and all that is removed
is written to `gc.log` first. What a succeeded job's evidence needs stays, unless its age was named explicitly.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import DiskFull
from core.failpoint import failpoint
from core.fsio import no_space
from core.home import Home
from core.journal import Event, Journal
from core.states import EventKind
from lab.gclook import (
    BATCHES,
    CHECKPOINTS,
    CODE,
    DAMAGED,
    DAY_S,
    FAILED,
    FRESH_S,
    LEFT,
    LIVE,
    OLD_LIVE,
    PARTS,
    RESULTS_OF,
    RUNS,
    SCRATCH,
    Item,
    Limits,
    Look,
    live_db,
)
from lab.quota import Verdict, choose

__all__ = [
    "BATCHES",
    "CHECKPOINTS",
    "CODE",
    "DAMAGED",
    "DAY_S",
    "FAILED",
    "LEFT",
    "LIVE",
    "PARTS",
    "RESULTS_OF",
    "RUNS",
    "SCRATCH",
    "Collected",
    "Item",
    "Limits",
    "Plan",
    "collect",
    "plan",
]

_CHUNK = 1000  # jobs that are recorded in one transaction


@dataclass(frozen=True)
class Plan:
    """Attributes:
    items: what goes.
    verdicts: of each quota, whether it is then met.
    """

    items: tuple[Item, ...]
    limits: Limits
    now: float
    verdicts: tuple[Verdict, ...] = ()

    @property
    def met(self) -> bool:
        return all(v.met for v in self.verdicts)

    def classes(self) -> dict[str, tuple[int, int]]:
        """(how many, bytes) of each class."""
        out: dict[str, tuple[int, int]] = {}
        for item in self.items:
            n, size = out.get(item.sort, (0, 0))
            out[item.sort] = n + 1, size + item.bytes
        return out

    def jobs(self) -> dict[int, tuple[int, list[str]]]:
        """(bytes, classes) of each job, the largest first."""
        out: dict[int, tuple[int, list[str]]] = {}
        for item in self.items:
            if item.job is not None:
                size, sorts = out.get(item.job, (0, []))
                out[item.job] = size + item.bytes, sorts if item.sort in sorts else [*sorts, item.sort]
        return dict(sorted(out.items(), key=lambda kv: (-kv[1][0], kv[0])))

    @property
    def bytes(self) -> int:
        return sum(i.bytes for i in self.items)


@dataclass
class Collected:
    """What was removed, and what was not, with the reason."""

    items: list[Item] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def plan(home: Home, conn: sqlite3.Connection, limits: Limits, now: float | None = None) -> Plan:
    """What would go now. Nothing is changed."""
    when = time.time() if now is None else now
    look = Look(home, conn, limits, when)
    old = tuple(look.everything())
    if not limits.quotas:
        return Plan(old, limits, when)
    chosen = choose(look, home, conn, old, limits.quotas)
    return Plan(chosen.items, limits, when, chosen.verdicts)


def collect(home: Home, journal: Journal, planned: Plan) -> Collected:
    """Remove what `planned` names, if it may still go.

    Raises:
        DiskFull: not even the record of it could be written.
    """
    out = Collected()
    for items in _chunks(planned.items):
        with journal.transaction() as tx:
            look = Look(home, tx.conn, planned.limits, planned.now)
            fit = [i for i in items if look.still(i)]
            tx.extend(_event(tx.conn, i) for i in fit if i.recorded)
        failpoint("gc-recorded")
        others = [i for i in items if i not in fit and (not i.paths or any(_there(home, p) for p in i.paths))]
        out.kept += [f"{_said(i)} is in use again" for i in others]
        _write_down(home, fit)
        for item in fit:
            if item.sort == LIVE:
                _forget_live(home, planned, look)
            remove = _remove_store if item.sort == CODE else _remove
            wrong = [w for path in item.paths if (w := remove(home.path / path))]
            out.kept += wrong
            if not wrong:
                out.items.append(item)
    return out


def _event(conn: sqlite3.Connection, item: Item) -> Event:
    known = conn.execute(
        "SELECT what FROM discarded WHERE job = ? AND attempt = ?", (item.job, item.attempt)
    ).fetchone()
    what = sorted({*(json.loads(known[0]) if known else ()), *item.what})
    return Event(EventKind.DISCARDED, item.job, item.attempt or None, None, {"what": what, "bytes": item.bytes})


def _forget_live(home: Home, planned: Plan, look: Look) -> None:
    old = json.dumps(look.old_attempts())
    with live_db(home) as live, contextlib.suppress(sqlite3.Error):
        if live is not None:
            for table in ("metric", "beat", "kept"):
                live.execute(f"DELETE FROM {table} WHERE {OLD_LIVE}", (old,))


def _write_down(home: Home, items: Sequence[Item]) -> None:
    """One line for each thing, before it goes."""
    if not items:
        return
    lines = [
        json.dumps({"at": round(time.time(), 3), "class": i.sort, "job": i.job, "paths": i.paths, "bytes": i.bytes})
        for i in items
    ]
    try:
        with (home.path / "gc.log").open("a") as f:
            f.write("\n".join(lines) + "\n")
            f.flush()
            os.fsync(f.fileno())
    except OSError as error:
        if no_space(error):
            said = f"the disk of {home.path} is full: what is to be removed could not be written down"
            raise DiskFull(said, hint="free a little space first") from error
        raise


def _remove(path: Path) -> str:
    """Remove a file or folder. Returns why it could not be, or ""."""
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            _open_up(path)
            failpoint("gc-removing")
            shutil.rmtree(path)
            if path.parent.parent.name == "attempts":
                with contextlib.suppress(OSError):
                    path.parent.rmdir()  # the job's last attempt
    except OSError as error:
        return f"{path} could not be removed: {error.strerror or error}"
    return ""


def _remove_store(path: Path) -> str:
    """Remove stored code that no job names. Out of the way first: a submit that takes it for whole touches it before
    it looks, so one that is young after it was moved is wanted, and goes back."""
    aside = path.with_name(f".{path.name[:12]}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        path.rename(aside)
        if time.time() - aside.lstat().st_mtime < FRESH_S:
            with contextlib.suppress(OSError):  # stored anew meanwhile
                aside.rename(path)
                return f"{path} is in use again"
    except OSError as error:
        return f"{path} could not be removed: {error.strerror or error}"
    return _remove(aside)


def _there(home: Home, path: str) -> bool:
    return os.path.lexists(home.path / path)


def _open_up(folder: Path) -> None:
    """A program may have left folders into which nobody may write."""
    for here, names, _ in os.walk(folder):
        for name in names:
            full = Path(here) / name
            if not full.is_symlink() and not os.access(full, os.W_OK | os.X_OK):
                with contextlib.suppress(OSError):
                    full.chmod(0o700)


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for at in range(0, len(items), _CHUNK):
        yield items[at : at + _CHUNK]


def _said(item: Item) -> str:
    return item.paths[0] if item.paths else item.sort
