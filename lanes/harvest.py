"""From a sealed attempt to something that can be committed: verify the bytes, count again, make the table parts.

Runs in a worker thread, away from the controller's loop. It writes only files that nothing lists yet; the journal's
transaction is what makes them true.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.fsio import no_space, read_json, sha256_file
from core.home import Home
from core.journal.query import Attempt, Job
from core.rundir import RunDir, newest_step, verify_manifest
from core.states import AttemptState, Cause
from lanes.decide import Ended


class NoRoom(Exception):
    """The disk has no room for the table parts; nothing is lost, try again when there is."""


def harvest(home: Home, job: Job, attempt: Attempt) -> Ended:
    """Look at a sealed run directory and say how the attempt really ended.

    Raises:
        NoRoom: a part could not be written.
    """
    run = home.run_dir(job.id, attempt.n)
    manifest = read_json(run.manifest)
    wrong = _identity(manifest, job, attempt) or verify_manifest(run, manifest)
    if wrong:
        return Ended(AttemptState.FAILED, Cause.BAD_SEAL, _first(wrong))
    outcome = manifest["outcome"]
    undeclared = tuple(outcome.get("undeclared") or ())
    common: dict[str, Any] = {
        "exit_code": outcome.get("exit_code"),
        "signal": outcome.get("signal"),
        "seconds": outcome.get("seconds"),
        "cpu_s": outcome.get("cpu_s"),
        "max_rss_mb": outcome.get("max_rss_mb"),
        "undeclared": undeclared,
        "manifest": sha256_file(run.manifest),
    }
    cause = _cause(outcome.get("cause"))
    if cause is Cause.SIGNAL:
        common["idle_from"] = idle_from(home, job.id, attempt.n)
    if cause is not Cause.OK:
        return Ended(AttemptState.FAILED, cause, str(outcome.get("message") or ""), **common)
    try:
        parts, rows = _parts(home, job, attempt, run)
    except Exception as error:
        if no_space(error):
            raise NoRoom(str(error)) from error
        message = f"its result tables cannot be read: {type(error).__name__}: {error}"
        return Ended(AttemptState.FAILED, Cause.INCOMPLETE, message, **common)
    missing = _missing(run, rows)
    if missing:
        return Ended(AttemptState.FAILED, Cause.INCOMPLETE, missing, **common)
    return Ended(AttemptState.SUCCEEDED, Cause.OK, "", parts=tuple(parts), **common)


def _identity(manifest: Any, job: Job, attempt: Attempt) -> list[str]:
    """A seal counts only for the very attempt that the journal placed."""
    if not isinstance(manifest, dict):
        return ["its manifest cannot be read"]
    want = {"job": job.id, "attempt": attempt.n, "key": job.key, "nonce": attempt.nonce}
    return [
        f"the seal is of {name} {manifest.get(name)}, not {value}"
        for name, value in want.items()
        if manifest.get(name) != value
    ]


def _parts(home: Home, job: Job, attempt: Attempt, run: RunDir) -> tuple[list[dict[str, Any]], dict[str, int]]:
    files = sorted(run.results.glob("*.arrow")) if run.results.is_dir() else []
    if not files:
        return [], {}
    from core.tables import append_part

    parts, rows = [], {}
    for file in files:
        part = append_part(
            home,
            job=job.id,
            attempt=attempt.n,
            lane=attempt.lane,
            key=job.key,
            kind=job.kind,
            table=file.stem,
            arrow_path=file,
        )
        parts.append(
            {"table": file.stem, "path": part.path, "rows": part.rows, "bytes": part.bytes, "sha256": part.sha256}
        )
        rows[file.stem] = part.rows
    return parts, rows


def _missing(run: RunDir, rows: dict[str, int]) -> str:
    """The head's own count against what was planned: the lane's word is not taken for it."""
    spec, plan = read_json(run.spec, {}), read_json(run.plan, {})
    for expect in (spec.get("expect") or {}, plan):
        for table, n in (expect.get("rows") or {}).items():
            if rows.get(table, 0) != n:
                return f"{n} rows of {table} were planned, {rows.get(table, 0)} are there"
        for name in expect.get("artifacts") or ():
            path = run.artifacts / name
            if not path.exists() or (path.is_file() and path.stat().st_size == 0):
                return f"the artifact {name} was planned and is {'empty' if path.exists() else 'missing'}"
        last = expect.get("last_step")
        if last is not None:
            reached = last_step(run.metrics)
            if reached is None or reached < last:
                return f"step {last} was planned, the last one is {'none' if reached is None else reached}"
    return ""


def last_step(metrics: Path) -> int | None:
    """The highest step in metrics.jsonl, or None."""
    import json

    best: int | None = None
    if metrics.is_file():
        with metrics.open("rb") as f:
            for line in f:
                try:
                    step = int(json.loads(line)["step"])
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue
                best = step if best is None else max(best, step)
    return best


def idle_from(home: Home, job: int, n: int) -> int:
    """The attempt after the newest of 1 to n that left a checkpoint newer than all before it."""
    best, since = -1, 1
    for k in range(1, n + 1):
        step = newest_step(home.run_dir(job, k).checkpoints)
        if step > best:
            best, since = step, k + 1
    return since


def _cause(word: Any) -> Cause:
    try:
        return Cause(str(word))
    except ValueError:
        return Cause.ERROR


def _first(sentences: list[str]) -> str:
    more = f" (and {len(sentences) - 1} more)" if len(sentences) > 1 else ""
    return sentences[0] + more
