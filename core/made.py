"""Files that one job makes and another takes: where they stand, and what their bytes are by the seal.

The digests come from the manifest that was committed, so nothing is hashed here; whoever takes a file compares it with
its digest, as with any declared input.
"""

from __future__ import annotations

import json
import posixpath
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.digests import Content
from core.errors import BadInput
from core.fsio import digest, read_json, sha256_file
from core.home import Home
from core.states import EventKind

_BELOW = "artifacts/"
_NAMED = 5


class NotThere(BadInput):
    """What a job made cannot be taken: a sentence about that job, e.g. "job 7's run directory is gone"."""


@dataclass(frozen=True)
class Standing:
    """A succeeded job of which the run directory is there, with the manifest that was committed.

    Attributes:
        run: the run directory of its committed attempt.
        files: path below that -> [SHA-256, or `link:` and where it leads; bytes].
    """

    job: int
    attempt: int
    run: Path
    files: Mapping[str, Any]


def standing(home: Home, conn: sqlite3.Connection, job: int) -> Standing:
    """The evidence of `job`, a succeeded one.

    Raises:
        NotThere: it has not succeeded, keeps no files, or they are no longer what was committed.
    """
    row = conn.execute(_COMMITTED, (job,)).fetchone()
    if row is None:
        raise NotThere(f"job {job} has not succeeded")
    attempt, how, manifest, discarded = row
    if discarded:
        raise NotThere(f"the files of job {job} were discarded", hint=_again(job))
    if how != EventKind.ATTEMPT_ENDED:
        raise NotThere(f"job {job} ran in a batch and keeps no files", hint="take files of a job that runs by itself")
    run = home.run_dir(job, int(attempt))
    try:
        if manifest is not None and sha256_file(run.manifest) != manifest:
            raise NotThere(f"the manifest of job {job} is not the one that was committed", hint=_again(job))
    except OSError:
        raise NotThere(f"the run directory of job {job} is gone", hint=_again(job)) from None
    read = read_json(run.manifest, {})
    if not isinstance(read, dict) or not isinstance(read.get("files"), dict):
        raise NotThere(f"job {job} has no readable manifest", hint=_again(job))
    return Standing(job, int(attempt), run.path, read["files"])


_COMMITTED = """SELECT a.id % 4096, e.kind, e.data ->> '$.manifest',
        EXISTS (SELECT 1 FROM discarded d WHERE d.job = s.id AND d.attempt = 0)
    FROM job_state s JOIN attempt_state a ON a.id BETWEEN s.id * 4096 AND s.id * 4096 + 4095 AND a.state = 'succeeded'
        JOIN event e ON e.seq = a.ended
    WHERE s.id = ? AND s.state = 'succeeded'"""


def succeeded(conn: sqlite3.Connection, key: str) -> list[int]:
    """Jobs with this key that have succeeded, newest first; none that read what it had not declared."""
    return [int(r[0]) for r in conn.execute(_SUCCEEDED, (key,))]


_SUCCEEDED = """SELECT s.id FROM job_state s LEFT JOIN event w ON w.seq = s.news
    WHERE s.key = ? AND s.state = 'succeeded' AND s.cells IS NULL
        AND coalesce(nullif(w.data ->> '$.undeclared', '[]'), 0) = 0
    ORDER BY s.id DESC"""


def content(made: Standing, file: str) -> Content:
    """Digest and bytes of a file or folder below artifacts/ (empty: all of it), as `core.digests` would have them.

    Raises:
        NotThere: there is no such file, or a link in it leads out of it.
    """
    there = {name[len(_BELOW) :]: (str(v[0]), int(v[1])) for name, v in made.files.items() if name.startswith(_BELOW)}
    if file in there:
        sha256, size = _followed(made.job, there, file)
        if sha256 is None:
            raise NotThere(f"{file} of job {made.job} is a link to a folder", hint="take the folder itself")
        return Content(sha256, size)
    prefix = f"{file}/" if file else ""
    names = sorted((n for n in there if n.startswith(prefix)), key=lambda n: _as_walked(n[len(prefix) :]))
    if not names:
        named = ", ".join(sorted(there)[:_NAMED]) + (", ..." if len(there) > _NAMED else "")
        said = f"made no file {file!r}" if file else "made no files"
        raise NotThere(f"job {made.job} {said}", hint=f"it made: {named or 'nothing'}")
    rows: list[list[str]] = []
    total = 0
    for name in names:
        # Taken are the files of this folder: a link that leads out of it would lead to nothing.
        sha256, size = _followed(made.job, there, name, prefix)
        rows.append([name[len(prefix) :], sha256 if sha256 is not None else there[name][0]])
        total += size
    return Content(digest(rows), total, tree=True)


def made_inputs(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Inputs of a spec (as JSON) that other jobs make."""
    return [item for item in spec.get("inputs") or () if item.get("made")]


def makers(conn: sqlite3.Connection, job: int) -> list[dict[str, Any]]:
    """The same of a job in the journal, without reading the rest of its spec."""
    return [json.loads(r[0]) for r in conn.execute(_MADE_INPUTS, (job,))]


_MADE_INPUTS = """SELECT i.value FROM job_state s JOIN event e ON e.seq = s.submit
    JOIN spec p ON p.digest = e.data ->> '$.spec', json_each(p.data, '$.inputs') i
    WHERE s.id = ? AND s.sweep IS NULL AND i.value ->> '$.made' IS NOT NULL"""


def _followed(job: int, there: Mapping[str, tuple[str, int]], name: str, prefix: str = "") -> tuple[str | None, int]:
    """Digest and size of a file, links between files below `prefix` followed; (None, 0) for a link to a folder."""
    at = name
    for _ in range(40):
        sha256, size = there[at]
        if not sha256.startswith("link:"):
            return sha256, size
        to = sha256.removeprefix("link:")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(at), to))
        inside = target.startswith(prefix) if prefix else not target.startswith("..")
        if posixpath.isabs(to) or not inside or not _is_there(there, target):
            said = f"{name} of job {job} is a link that leads out of {prefix or 'its artifacts'}, to {to}"
            raise NotThere(said, hint="let the job copy it there")
        if target not in there:
            return None, 0
        at = target
    raise NotThere(f"{name} of job {job} is a link to itself", hint="let it be a file")


def _is_there(there: Iterable[str], target: str) -> bool:
    return target == "." or any(n == target or n.startswith(f"{target}/") for n in there)


def _as_walked(name: str) -> list[tuple[int, str]]:
    """Sorts as core.fsio.walk_files goes: the files of a folder before the folders in it."""
    *folders, last = name.split("/")
    return [*((1, folder) for folder in folders), (0, last)]


def _again(job: int) -> str:
    return f"`lab rerun {job}` makes them again"
