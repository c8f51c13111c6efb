"""The run directory of one attempt: its paths, its frozen spec, its seal. The same on every lane.

    attempts/JOB/N/
        spec.json       frozen job, attempt number, input digests (written before anything runs)
        env.json        what was realised: interpreter, packages, device, git, allow-listed variables
        plan.json       what the kind says must be there at the end (written before the work starts)
        log.txt         stdout and stderr of everything that ran
        heartbeat       fixed-size record of the supervisor: proof of life
        metrics.jsonl   step rows
        outcome.json    how the child saw its own end (absent if it was killed)
        opens.json      files read or left that were not declared
        checkpoints/STEP/   each with its own manifest.json, written last
        work/  inputs/  artifacts/  results/
        manifest.json   the seal, written last by atomic rename

Standard library only, Python 3.9: the lane agent carries this module.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

from core.fsio import fsync_dir, read_json, sha256_file, walk_files, write_json

SPEC_VERSION = 1
MANIFEST_VERSION = 1

# Sealed: what a claim could cite. Not sealed: `work/` (scratch) and what changes after the end.
SEALED_FILES = ("spec.json", "env.json", "plan.json", "log.txt", "metrics.jsonl", "outcome.json", "opens.json")
SEALED_FOLDERS = ("artifacts", "results", "checkpoints")


@dataclass(frozen=True)
class RunDir:
    """Every path of one attempt, in one place."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @property
    def spec(self) -> Path:
        return self.path / "spec.json"

    @property
    def env(self) -> Path:
        return self.path / "env.json"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def heartbeat(self) -> Path:
        return self.path / "heartbeat"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def outcome(self) -> Path:
        return self.path / "outcome.json"

    @property
    def opens(self) -> Path:
        return self.path / "opens.json"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def lock(self) -> Path:
        """Held (flock) by the supervisor for as long as it lives: liveness without trusting a pid."""
        return self.path / "lock"

    @property
    def started(self) -> Path:
        """Written by the supervisor before the child exists: a second supervisor then refuses to run."""
        return self.path / "started.json"

    @property
    def stop(self) -> Path:
        """A request to the supervisor: {"action": "stop"|"kill"|"revoke", "cause": ..., "grace_s": ...}."""
        return self.path / "stop.json"

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def inputs(self) -> Path:
        return self.path / "inputs"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def results(self) -> Path:
        return self.path / "results"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def create(self) -> None:
        for folder in (self.path, self.work, self.inputs, self.artifacts, self.results, self.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)


def build_manifest(run: RunDir, *, outcome: Dict[str, Any]) -> Dict[str, Any]:
    """Hash everything that the seal covers, as it lies on disk now.

    Args:
        run: the attempt's folder.
        outcome: how it ended: cause, message, exit_code, signal, seconds, ...

    Returns:
        {"version", "job", "attempt", "key", "outcome", "files": {relative path: [sha256, bytes]},
        "executable": those artifacts that are programs}
    """
    spec = read_json(run.spec, {}) or {}
    files: Dict[str, List[Any]] = {}
    executable: List[str] = []
    names = [Path(n) for n in SEALED_FILES if (run.path / n).is_file()]
    for folder in SEALED_FOLDERS:
        if (run.path / folder).is_dir():
            names += [Path(folder) / rel for rel in walk_files(run.path / folder)]
    for rel in names:
        full = run.path / rel
        if full.is_symlink():
            files[rel.as_posix()] = ["link:" + os.readlink(full), 0]
        else:
            info = full.stat()
            files[rel.as_posix()] = [sha256_file(full), info.st_size]
            if rel.parts[0] == "artifacts" and info.st_mode & 0o100:
                executable.append(rel.as_posix())
    return {
        "version": MANIFEST_VERSION,
        "job": spec.get("job"),
        "attempt": spec.get("attempt"),
        "key": spec.get("key"),
        "nonce": spec.get("nonce"),
        "outcome": outcome,
        "files": files,
        "executable": executable,
    }


def seal(run: RunDir, *, outcome: Dict[str, Any]) -> Dict[str, Any]:
    """Write the manifest last. After this the attempt may be committed; before it, never."""
    manifest = build_manifest(run, outcome=outcome)
    for name in manifest["files"]:
        full = run.path / name
        if not full.is_symlink():
            with open(full, "rb") as f:
                os.fsync(f.fileno())
    for folder in SEALED_FOLDERS:
        if (run.path / folder).is_dir():
            fsync_dir(run.path / folder)
    write_json(run.manifest, manifest)
    return manifest


def verify_manifest(run: RunDir, manifest: Optional[Dict[str, Any]] = None) -> List[str]:
    """Re-hash what the manifest names. Returns one sentence per difference; empty means: equal."""
    manifest = manifest if manifest is not None else read_json(run.manifest)
    if not manifest:
        return [f"{run.manifest}: no manifest: this attempt was never sealed"]
    wrong: List[str] = []
    for name, (want, size) in manifest["files"].items():
        full = run.path / name
        if str(want).startswith("link:"):
            if not full.is_symlink() or "link:" + os.readlink(full) != want:
                wrong.append(f"{full}: the link is not the one that was sealed")
        elif not full.is_file():
            wrong.append(f"{full}: missing ({size} bytes were sealed)")
        elif sha256_file(full) != want:
            wrong.append(f"{full}: the bytes differ from what was sealed")
    listed = set(manifest["files"])
    for folder in SEALED_FOLDERS:
        if (run.path / folder).is_dir():
            for rel in walk_files(run.path / folder):
                if f"{folder}/{rel.as_posix()}" not in listed:
                    wrong.append(f"{run.path / folder / rel}: appeared after the seal")
    return wrong


# Checkpoints: a folder a step, made under a temporary name, its manifest written last. What begins with a dot is one
# that is being made or removed; nothing reads it.

_STEP = re.compile(r"^\d+$")
_UNFINISHED = re.compile(r"^\.\d+\.\d+\.(tmp|old)$")
KEEP_LEAST = 2  # checkpoints: the one before is what a damaged one falls back to


@dataclass(frozen=True)
class Checkpoint:
    """One verified checkpoint. `path` holds the kind's files; `meta` is what it saved beside them."""

    step: int
    path: Path
    meta: Dict[str, Any]
    attempt: int


def seal_checkpoint(
    tmp: Path,
    final: Path,
    *,
    step: int,
    key: str,
    attempt: int,
    meta: Dict[str, Any],
    old: Optional[Path] = None,
    written: Callable[[], None] = lambda: None,
) -> None:
    """Turn the filled folder `tmp` into the checkpoint `final` by manifest, sync and rename.

    Args:
        old: where a checkpoint goes that has this place, before it is removed; None: there is none.
        written: called when the manifest is on the disk, before the rename.
    """
    files: Dict[str, List[Any]] = {}
    for rel in walk_files(tmp):
        full = tmp / rel
        with open(full, "rb") as f:
            os.fsync(f.fileno())
        files[rel.as_posix()] = [sha256_file(full), full.stat().st_size]
    write_json(
        tmp / "manifest.json",
        {"version": 1, "step": step, "key": key, "attempt": attempt, "meta": meta, "files": files},
    )
    written()
    if old is not None and final.exists():
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
    os.replace(tmp, final)
    fsync_dir(final.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def verify_checkpoint(path: Path, *, key: str) -> "tuple[Optional[Checkpoint], str]":
    """(checkpoint, "") when every byte is as it was written and it belongs to `key`; else (None, why)."""
    manifest = read_json(path / "manifest.json")
    if not isinstance(manifest, dict):
        return None, f"{path}: no readable manifest"
    if manifest.get("key") != key:
        return None, f"{path}: belongs to another job (key {str(manifest.get('key'))[:12]})"
    try:
        for name, (want, _size) in manifest["files"].items():
            full = path / name
            if not full.is_file() or sha256_file(full) != want:
                return None, f"{full}: differs from what was written"
        return Checkpoint(int(manifest["step"]), path, manifest.get("meta", {}), int(manifest["attempt"])), ""
    except (KeyError, TypeError, ValueError, AttributeError):
        return None, f"{path}: its manifest is none of ours"
    except OSError as error:
        return None, f"{path}: cannot be read ({error.strerror or error})"


def look_at_checkpoints(folders: List[Path], *, key: str) -> "Iterator[tuple[Optional[Checkpoint], str]]":
    """`verify_checkpoint` of all in `folders` (attempts, newest first), newest first, each as it is asked for."""
    found = []
    for order, folder in enumerate(folders):
        if folder.is_dir():
            found += [(int(p.name), -order, p) for p in folder.iterdir() if _STEP.match(p.name)]
    for _step, _order, path in sorted(found, reverse=True):
        yield verify_checkpoint(path, key=key)


def latest_checkpoint(folders: List[Path], *, key: str) -> "tuple[Optional[Checkpoint], List[str]]":
    """The newest verified checkpoint in `folders` (attempts, newest first) and why newer ones were passed over."""
    notes: List[str] = []
    for checkpoint, why in look_at_checkpoints(folders, key=key):
        if checkpoint is not None:
            return checkpoint, notes
        notes.append(why)
    return None, notes


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint in `folder`, verified or not; -1: there is none."""
    try:
        return max((int(n) for n in os.listdir(folder) if _STEP.match(n)), default=-1)
    except OSError:
        return -1


def superseded_checkpoints(folder: Path, *, keep: int, key: str) -> List[Path]:
    """Those in `folder` that are older than the newest `keep` which verify. As long as fewer do: none."""
    good = 0
    steps = sorted((int(p.name) for p in folder.iterdir() if _STEP.match(p.name)), reverse=True)
    if len(steps) <= keep:
        return []
    for at, step in enumerate(steps):
        good += verify_checkpoint(folder / str(step), key=key)[0] is not None
        if good >= keep:
            return [folder / str(old) for old in reversed(steps[at + 1 :])]
    return []


def drop_unfinished_checkpoints(run: RunDir) -> None:
    """What was being made or removed when the attempt's processes ended: nothing may cite it."""
    with contextlib.suppress(OSError):
        for name in os.listdir(run.checkpoints):
            if _UNFINISHED.match(name):
                shutil.rmtree(run.checkpoints / name, ignore_errors=True)
