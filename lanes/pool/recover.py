"""What a batch whose worker is gone has proven: the cells in its spool are done, whoever died since."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from core.fsio import read_json, sha256_file
from core.states import AttemptState, Cause
from lanes.agent.safe import open_plain
from lanes.pool.folder import INDEX, LOG, MANIFEST, SPEC, seal_dead
from lanes.pool.spool import FILE, end_of, joined, once, read_spool
from lanes.pool.types import BatchDone, Cell, CellEnd

_TAIL = 64 << 10
_FATAL = "Fatal Python error: "  # how faulthandler begins


def recover(
    folder: Path, nonce: str, cells: Iterable[Cell], *, running: CellEnd | None = None, seconds: float = 0.0
) -> BatchDone:
    """The end of a batch that nobody ended.

    Args:
        running: the end of the cell that ran when the worker died; it counts unless the spool says otherwise.
    """
    written, whole = read_spool(folder / FILE)
    frames = once(written)
    with contextlib.suppress(OSError):
        if (folder / FILE).stat().st_size > whole and not (folder / MANIFEST).exists():
            os.truncate(folder / FILE, whole)
    wanted = {c.job for c in cells}
    ok = sorted(job for f in frames for job in f.ok if job in wanted)
    ends = [end_of(row) for f in frames for row in f.ends]
    ends = [e for e in ends if e.job in wanted]
    ended = {*ok, *(e.job for e in ends)}
    if running is not None and running.job in wanted - ended:
        ends.append(running)
        ended.add(running.job)
        _index_rest(folder, running.job)
    manifest = _manifest(folder, nonce, ok, ends, running)
    return BatchDone(
        nonce=nonce,
        ok=ok,
        ends=ends,
        back=sorted(wanted - ended),
        tables=joined(f.tables for f in frames),
        seconds=seconds or (frames[-1].seconds if frames else 0.0),
        manifest=manifest,
        worker_died=True,
    )


def last_words(folder: Path) -> str:
    """What the interpreter said of a crash of its own ("Segmentation fault"); empty when it said nothing."""
    with contextlib.suppress(OSError), open_plain(folder / LOG) as f:
        f.seek(max(0, os.fstat(f.fileno()).st_size - _TAIL))
        for line in reversed(f.read().decode("utf-8", "replace").splitlines()):
            if line.startswith(_FATAL):
                return line.removeprefix(_FATAL).strip()
    return ""


def _index_rest(folder: Path, job: int) -> None:
    """What is in the log behind the last slice is the running cell's."""
    with contextlib.suppress(OSError):
        size = (folder / LOG).stat().st_size
        start = 0
        with contextlib.suppress(FileNotFoundError):
            for line in (folder / INDEX).read_bytes().splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    start = max(start, int(json.loads(line)["to"]))
        if size > start:
            with open(folder / INDEX, "a") as f:
                f.write(f'{{"job":{job},"from":{start},"to":{size}}}\n')


def _manifest(folder: Path, nonce: str, ok: list[int], ends: list[CellEnd], running: CellEnd | None) -> str | None:
    """The seal that the worker left, or one made now over what lies there."""
    if (folder / MANIFEST).is_file():
        with contextlib.suppress(OSError):
            return sha256_file(folder / MANIFEST)
    spec = read_json(folder / SPEC, {})
    head = {name: spec.get(name) for name in ("dir", "lane", "spec_digest")} if isinstance(spec, dict) else {}
    good = len(ok) + sum(1 for e in ends if e.state is AttemptState.SUCCEEDED)
    outcome = {
        "cause": str(running.cause if running is not None else Cause.RUNNER_DIED),
        "message": running.message if running is not None else "its worker ended before the batch did",
        "succeeded": good,
        "failed": len(ok) + len(ends) - good,
    }
    return seal_dead(folder, {"nonce": nonce, **head}, outcome)
