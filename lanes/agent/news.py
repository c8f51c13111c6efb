"""What is new in run directories, for a head that keeps a mirror of them: many attempts, one question, one answer."""

from __future__ import annotations

import binascii
import contextlib
import os
import re
from pathlib import Path
from typing import Any, Dict, List, Tuple

from core.fsio import sha256_file
from core.rundir import RunDir
from lanes.agent.safe import open_plain, read_dict

GROWING = ("log.txt", "metrics.jsonl")  # continued where the head's copy ends
WHOLE = ("started.json", "env.json", "plan.json", "progress.json")  # small, replaced by rename
LIMIT = 256 << 10  # bytes of one answer
WHOLE_LIMIT = 1 << 20
OVERLAP = 256  # so much of the head's copy is compared before it is continued
_LEAST = 16 << 10
_STEP = re.compile(r"\d{1,18}")


def news(root: Path, wanted: Dict[str, Dict[str, Any]], limit: int = LIMIT) -> Dict[str, Any]:
    """What the head has not seen yet.

    Args:
        root: the agent's folder; run directories are `attempts/JOB/N` below it.
        wanted: {"JOB.N": {"nonce", "grown": {name: [offset, inode or 0, crc32 of the last OVERLAP bytes before it]},
            "whole": {name: signature}}}

    Returns:
        {"attempts": {"JOB.N": {"grown": {name: {"inode", "size", "offset", "length"}}, "whole": {name: {"signature",
        "length"}}, "checkpoints": [[step, signature], ...]}}, "data": all bytes, in the order in which they are named,
        "more": there is more than went into this answer}. A grown file whose offset is 0 begins anew.
    """
    found: Dict[str, Any] = {}
    parts: List[bytes] = []
    more = False
    share = max(_LEAST, limit // max(1, len(wanted)))
    for key, has in sorted(wanted.items()):
        job, attempt = (int(x) for x in key.split("."))
        run = RunDir(root / "attempts" / str(job) / str(attempt))
        if has.get("nonce") and read_dict(run.spec).get("nonce") != has["nonce"]:
            continue
        said: Dict[str, Any] = {"grown": {}, "whole": {}, "checkpoints": checkpoints(run)}
        for name in WHOLE:
            with contextlib.suppress(OSError):
                _add_whole(run.path / name, has.get("whole") or {}, said, parts)
        for name in GROWING:
            with contextlib.suppress(OSError):
                more |= _add_grown(run.path / name, (has.get("grown") or {}).get(name) or [0, 0, 0], share, said, parts)
        found[key] = said
    return {"attempts": found, "data": b"".join(parts), "more": more}


def read_many(run: Path, names: List[str], limit: int = 1 << 20) -> Dict[str, Any]:
    """Small files of one run directory: {"sizes": of each name in order, -1 for none, "data": all their bytes}.

    At most `limit` bytes: the names that do not fit are left out at the end.
    """
    sizes: List[int] = []
    parts: List[bytes] = []
    home = os.path.realpath(run) + os.sep
    for name in names:
        blob = None
        with contextlib.suppress(OSError):
            real = os.path.realpath(run / name)
            if real.startswith(home):
                with open_plain(real) as f:
                    blob = f.read(limit + 1)
        if blob is not None and sum(map(len, parts)) + len(blob) > limit:
            break
        sizes.append(-1 if blob is None else len(blob))
        parts.append(blob or b"")
    return {"sizes": sizes, "data": b"".join(parts)}


def checkpoints(run: RunDir) -> List[List[Any]]:
    """[step, signature of its manifest] of each completed checkpoint."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(run.checkpoints):
            if _STEP.fullmatch(name):
                with contextlib.suppress(OSError):
                    found.append([int(name), _signature(os.stat(run.checkpoints / name / "manifest.json"))])
    return sorted(found)


def kept_checkpoints(root: Path, job: int) -> List[Dict[str, Any]]:
    """The completed checkpoints of all attempts of a job that lie on this lane.

    Returns:
        [{"attempt", "path": of the folder with all steps, "steps": {step: SHA-256 of its manifest.json}}, ...]; only
        those whose files have the sizes that the manifest names.
    """
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(root / "attempts" / str(int(job))):
            run = RunDir(root / "attempts" / str(int(job)) / name)
            steps = {
                str(step): sha256_file(run.checkpoints / str(step) / "manifest.json")
                for step, _ in checkpoints(run)
                if _fits(run.checkpoints / str(step))
            }
            if name.isdigit():
                found.append({"attempt": int(name), "path": str(run.checkpoints), "steps": steps})
    return found


def _fits(folder: Path) -> bool:
    files = read_dict(folder / "manifest.json").get("files")
    if not isinstance(files, dict):
        return False
    try:
        return all(os.stat(folder / name).st_size == size for name, (_sha, size) in files.items())
    except (OSError, TypeError, ValueError):
        return False


def _add_whole(path: Path, seen: Dict[str, Any], said: Dict[str, Any], parts: List[bytes]) -> None:
    with open_plain(path) as f:
        signature = _signature(os.fstat(f.fileno()))
        if seen.get(path.name) == signature:
            return
        blob = f.read(WHOLE_LIMIT + 1)
    if len(blob) <= WHOLE_LIMIT:
        said["whole"][path.name] = {"signature": signature, "length": len(blob)}
        parts.append(blob)


def _add_grown(path: Path, at: List[int], share: int, said: Dict[str, Any], parts: List[bytes]) -> bool:
    """Returns whether there is more."""
    offset, inode, crc = at
    with open_plain(path) as f:
        info = os.fstat(f.fileno())
        if not _continues(f.fileno(), info, offset, inode, crc):
            offset = 0
        elif info.st_size == offset:
            return False
        blob = os.pread(f.fileno(), share, offset)
    if path.name.endswith(".jsonl"):
        blob = _whole_lines(blob, full=len(blob) == share)
    if not blob and offset:
        return False
    row = {"inode": info.st_ino, "size": info.st_size, "offset": offset, "length": len(blob)}
    said["grown"][path.name] = row
    parts.append(blob)
    return bool(blob) and offset + len(blob) < info.st_size


def _continues(fd: int, info: os.stat_result, offset: int, inode: int, crc: int) -> bool:
    """Is this the file of which the head has the first `offset` bytes?"""
    if (inode and inode != info.st_ino) or info.st_size < offset:
        return False
    back = min(OVERLAP, offset)
    return binascii.crc32(os.pread(fd, back, offset - back)) == crc


def _whole_lines(blob: bytes, *, full: bool) -> bytes:
    """Up to the last line's end: a reader of the mirror is never shown half a row. A giant line comes in pieces."""
    end = blob.rfind(b"\n") + 1
    return blob if full and not end else blob[:end]


def _signature(info: os.stat_result) -> str:
    return f"{info.st_ino}-{info.st_mtime_ns}-{info.st_size}"


def split(answer: Dict[str, Any]) -> List[Tuple[str, str, Dict[str, Any], bytes]]:
    """The answer of `news` taken apart: (attempt, name, what is said of it, its bytes), in order."""
    data, at, found = answer["data"], 0, []
    for key in sorted(answer["attempts"]):
        said = answer["attempts"][key]
        for part, names in (("whole", WHOLE), ("grown", GROWING)):
            for name in names:
                if name in said[part]:
                    row = said[part][name]
                    found.append((key, name, row, data[at : at + row["length"]]))
                    at += row["length"]
    return found
