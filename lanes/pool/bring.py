"""A batch that ended on another lane: its run directory is brought to the head, and then it is as if it had run here.

What the lane says of a batch counts as far as its files bear it out: the manifest names the digest of each, and the
rows are those of the spool. A batch whose worker died is read from its folder as on this machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.fsio import read_json, sha256_file
from core.states import AttemptState, Cause
from lanes.pool.ends import death
from lanes.pool.folder import ENV, INDEX, LOG, MANIFEST, METRICS, SPEC, SPOOL, write_new
from lanes.pool.recover import recover
from lanes.pool.spool import end_of
from lanes.pool.types import Batch, BatchDone, CellEnd

FILES = frozenset((SPEC, ENV, LOG, INDEX, METRICS, SPOOL, MANIFEST))
CHUNK = 1 << 20

Read = Callable[[str, int, int], bytes]  # file, offset, size


class Unfit(Exception):
    """What came is not what the lane says it is."""


def bring(batches: Path, batch: Batch, end: Mapping[str, Any], data: Mapping[str, bytes], read: Read) -> BatchDone:
    """Put the batch's run directory below `batches`, unless it is there; return how the batch ended.

    Args:
        data: files that came with the end; of the others `read` is asked.

    Raises:
        Unfit: a file is not as the manifest has it, or the manifest is another batch's.
        OSError: this disk is full.
    """
    folder = batches / batch.dir
    if end.get("dir") == batch.dir and not folder.exists():
        names = [(str(name), int(size)) for name, size, _ in end["files"] if name in FILES]
        tmp = batches / f".far-{batch.nonce}"
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir()
        try:
            for name, size in names:
                _write(tmp / name, size, data.get(name), read)
            if end["how"] == "answer" and end.get("manifest"):
                check(tmp, batch, str(end["manifest"]))
            os.rename(tmp, folder)
        except BaseException:
            shutil.rmtree(tmp, ignore_errors=True)
            raise
    return _answered(folder, batch, end) if end["how"] == "answer" else _died(folder, batch, end)


def check(folder: Path, batch: Batch, digest: str) -> None:
    """Raise Unfit unless the seal in `folder` is this batch's, and everything there is as it says."""
    try:
        blob = (folder / MANIFEST).read_bytes()
        found = json.loads(blob)
        files: dict[str, Any] = found["files"]
        if found["nonce"] != batch.nonce or found["dir"] != batch.dir:
            raise Unfit(f"the manifest is that of batch {found['dir']}")
        if hashlib.sha256(blob).hexdigest() != digest:
            raise Unfit("the manifest is not the one that was announced")
        if set(files) - FILES:
            raise Unfit(f"it names the file {min(set(files) - FILES)!r}")
        for name, (sha, size) in files.items():
            if (folder / name).stat().st_size != size or sha256_file(folder / name) != sha:
                raise Unfit(f"{name} is not what the manifest says")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unfit(f"it has no manifest that can be read: {error}") from error


def unfit(batch: Batch, why: str) -> BatchDone:
    """Nothing of it can be believed."""
    message = f"what came back of batch {batch.dir} is not what the lane announced: {why}"
    ends = [CellEnd(c.job, c.attempt, AttemptState.FAILED, Cause.BAD_SEAL, message) for c in batch.cells]
    return BatchDone(batch.nonce, [], ends, [], {}, 0.0, None)


def back(batch: Batch) -> BatchDone:
    """As if it had never been placed."""
    return BatchDone(batch.nonce, [], [], [c.job for c in batch.cells], {}, 0.0, None)


def _answered(folder: Path, batch: Batch, end: Mapping[str, Any]) -> BatchDone:
    attempts = {c.job: c.attempt for c in batch.cells}
    said = {e.job: e for e in map(end_of, end["ends"]) if attempts.get(e.job) == e.attempt}
    if not end.get("manifest") and not (folder / SPOOL).exists():
        left = [job for job in attempts if job not in said]
        return BatchDone(batch.nonce, [], list(said.values()), left, {}, float(end["seconds"]), None)
    found = recover(folder, batch.nonce, batch.cells)
    # What could not be written down is in the answer alone.
    ends = [*(e for e in found.ends if e.job not in said), *said.values()]
    ended = {e.job for e in ends}
    ok = [job for job in found.ok if job not in ended]
    rest = [job for job in found.back if job not in ended]
    return replace(found, ok=ok, ends=ends, back=rest, seconds=float(end["seconds"]), worker_died=False)


def _died(folder: Path, batch: Batch, end: Mapping[str, Any]) -> BatchDone:
    running, index, ran = None, end.get("index"), end.get("ran_s")
    if isinstance(index, int) and 0 <= index < len(batch.cells):
        cell = batch.cells[index]
        if end.get("killed"):
            state, cause, message = end["killed"]
        elif end.get("reboot"):
            state, cause = AttemptState.LOST, Cause.LANE_REBOOTED
            message = "the lane was started anew while it ran"
        else:
            state, cause, message = death(folder, oom=bool(end.get("oom")))
        running = CellEnd(cell.job, cell.attempt, AttemptState(state), Cause(cause), str(message), ran)
    return recover(folder, batch.nonce, batch.cells, running=running)


def _write(path: Path, size: int, inline: bytes | None, read: Read) -> None:
    if inline is not None:
        write_new(path, inline)
        return
    with open(path, "xb") as f:
        while f.tell() < size:
            piece = read(path.name, f.tell(), min(CHUNK, size - f.tell()))
            if not piece:
                break  # a log may have been cut short by now; the manifest says whether that matters
            f.write(piece)


def fetched(batches: Path, batch: Batch) -> BatchDone | None:
    """The end of a batch whose run directory is here already, but of which no end is recorded; None: it is not."""
    folder = batches / batch.dir
    if not folder.is_dir():
        return None
    found = recover(folder, batch.nonce, batch.cells)
    outcome: dict[str, Any] = (read_json(folder / MANIFEST, {}) or {}).get("outcome") or {}
    with contextlib.suppress(TypeError, ValueError):
        found = replace(found, seconds=float(outcome.get("seconds") or found.seconds))
    return found


def split(files: Sequence[Sequence[Any]], data: bytes, at: int) -> tuple[dict[str, bytes], int]:
    """The files that travelled with an end, cut out of `data` from `at` on; and where the next end's begin."""
    out: dict[str, bytes] = {}
    for name, size, inline in files:
        if inline:
            out[str(name)] = data[at : at + int(size)]
            at += int(size)
    return out, at
