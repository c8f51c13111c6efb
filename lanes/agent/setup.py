"""The working folder: made fresh from what was declared, and compared with that again at the end.

Inputs up to 64 MiB are copied while they are hashed, so what was hashed is what the program reads. Larger ones are
linked, hashed (once per lane and version of the file), and looked at again when the program has ended.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from core.fsio import digest, read_json, safe_join, walk_files, write_json
from core.rundir import RunDir

COPY_LIMIT = 64 << 20
SETTLED_S = 2.0  # a file changed more recently than this may change again within one tick of its clock
_CHUNK = 1 << 20
_NOISE = ("*.pyc", "*/__pycache__/*", "__pycache__/*")

Signature = Tuple[int, ...]
Tick = Callable[[], None]


class SetupError(Exception):
    """The working folder cannot be made as declared: the cause, and a sentence for the user."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message


class Linked(NamedTuple):
    """An input that was too large to copy, and how it looked when it was hashed."""

    name: str
    path: str
    sha256: str
    signature: Signature


class Prepared(NamedTuple):
    """What was put where: the state against which the end is compared."""

    cwd: Path
    put: Dict[str, Signature]  # below work/: path -> signature
    linked: List[Linked]


def prepare(spec: Dict[str, Any], run: RunDir, *, digests: Optional[Path], tick: Tick) -> Prepared:
    """Fill work/ and inputs/ as the spec says.

    Raises:
        SetupError: an input is missing or is not what it was at submit (`stale-input`), or a path leads outside.
        OSError: the disk is full.
    """
    for folder in (run.work, run.inputs):
        shutil.rmtree(folder, ignore_errors=True)  # what a lost start may have left
    run.create()
    code = spec.get("code") or {}
    if code.get("path"):
        _copy_tree(Path(code["path"]), run.work, tick)
    cwd = _inside(run.work, code.get("subdir") or ".", "the working folder")
    cwd.mkdir(parents=True, exist_ok=True)
    linked: List[Linked] = []
    for item in spec.get("inputs") or []:
        place = _inside(run.inputs, item["name"], f"the input {item['name']!r}")
        place.parent.mkdir(parents=True, exist_ok=True)
        linked += _put_input(item, place, digests, tick)
        if item.get("dest"):
            dest = _inside(run.work, item["dest"], f"the input {item['name']!r}")
            dest.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                dest.unlink()  # a declared input wins over a file of the same name in the code
            try:
                os.symlink(place, dest)
            except OSError as error:
                what = f"the input {item['name']!r} cannot be put at {item['dest']}"
                raise SetupError("setup", f"{what}: {error}") from error
    put = {rel.as_posix(): signature(run.work / rel) for rel in walk_files(run.work)}
    return Prepared(cwd, put, linked)


def changed_inputs(linked: List[Linked], tick: Tick) -> List[str]:
    """One sentence per linked input whose bytes are no longer those that were hashed before the run."""
    wrong = []
    for item in linked:
        if _tree_signature(item.path) == item.signature:
            continue
        try:
            now = hash_path(Path(item.path), tick)
        except OSError as error:
            wrong.append(f"the input {item.name!r} ({item.path}) went away while the job ran: {error.strerror}")
            continue
        if now != item.sha256:
            wrong.append(f"the input {item.name!r} ({item.path}) changed while the job ran")
    return wrong


def left_behind(run: RunDir, prepared: Prepared, outputs: List[str]) -> List[str]:
    """Files in work/ that are new or changed and were not declared as outputs."""
    left = []
    subdir = prepared.cwd.relative_to(run.work).as_posix()
    prefix = "" if subdir == "." else subdir + "/"
    wanted = [os.path.normpath(o) for name in outputs for o in (name, prefix + name)]
    for rel in walk_files(run.work):
        name = rel.as_posix()
        if any(fnmatch.fnmatch(name, pattern) for pattern in _NOISE):
            continue
        if any(name == w or name.startswith(w + "/") for w in wanted):
            continue
        if prepared.put.get(name) != signature(run.work / rel):
            left.append(name)
    return left


def collect_outputs(run: RunDir, prepared: Prepared, outputs: List[str], tick: Tick) -> List[str]:
    """Copy the declared outputs to artifacts/. Returns one sentence per output that is not there."""
    missing = []
    for name in outputs:
        source = next((p for p in (prepared.cwd / name, run.work / name) if os.path.lexists(p)), None)
        kept = run.artifacts / os.path.normpath(name)
        if source is None:
            if not kept.exists():
                missing.append(f"the declared output {name} was not written")
            continue
        real = Path(os.path.realpath(source))
        if not _is_new(source, run, prepared):
            missing.append(f"the declared output {name} was not written: the one in work/ came with the code or inputs")
        elif os.path.commonpath([str(real), os.path.realpath(run.path)]) != os.path.realpath(run.path):
            missing.append(f"the declared output {name} leads outside the run directory, to {real}")
        elif not real.exists():
            missing.append(f"the declared output {name} is a link to nothing")
        else:
            kept.parent.mkdir(parents=True, exist_ok=True)
            if real.is_dir():
                _copy_tree(real, kept, tick)
            else:
                _move(real, kept)
    return missing


def signature(path: "os.PathLike[str] | str") -> Signature:
    """What tells, without reading it, that a file is still the one that was looked at."""
    info = os.lstat(path)
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def hash_path(path: Path, tick: Tick = lambda: None) -> str:
    """SHA-256 of a file's bytes; of a folder, of the canonical list of (path, SHA-256) of all below it."""
    if not path.is_dir():
        return _hash_file(path, None, tick)
    rows = []
    for rel in walk_files(path):
        full = path / rel
        if full.is_dir():  # a link to a folder
            rows.append([rel.as_posix(), "link:" + os.readlink(full)])
        else:
            rows.append([rel.as_posix(), _hash_file(full, None, tick)])
    return digest(rows)


def _put_input(item: Dict[str, Any], place: Path, digests: Optional[Path], tick: Tick) -> List[Linked]:
    source = Path(item["path"])
    try:
        real = Path(os.path.realpath(source))
        before = _tree_signature(real)
        size = _tree_bytes(real)
        if size <= COPY_LIMIT and real.is_dir():
            _copy_tree(real, place, tick)
            found = hash_path(place, tick)
            if found != item["sha256"]:
                found = hash_path(real, tick)  # links inside the folder may have been made plain by the copy
        elif size <= COPY_LIMIT:
            found = _hash_file(real, place, tick)
        else:
            found = _remembered(real, before, digests, tick)
            os.symlink(real, place)
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise
        raise SetupError(
            "stale-input", f"the input {item['name']!r} ({source}) cannot be read: {error.strerror}"
        ) from error
    if found != item["sha256"]:
        made = item.get("made") or {}
        then, remedy = "it was when the job was submitted", "submit again to use the new one"
        if made:
            job = made.get("job")
            then, remedy = f"job {job} made", f"`lab verify {job}` names the file, `lab rerun {job}` makes it again"
        raise SetupError(
            "stale-input",
            f"the input {item['name']!r} ({source}) is not what {then} "
            f"({found[:12]} now, {str(item['sha256'])[:12]} then); {remedy}",
        )
    return [Linked(item["name"], str(real), found, before)] if size > COPY_LIMIT else []


def _remembered(path: Path, before: Signature, digests: Optional[Path], tick: Tick) -> str:
    """The digest of a large input, computed once per lane and version of the file."""
    note = None if digests is None else digests / f"{before[0]}-{before[1]}.json"
    if note is not None and path.is_file():
        known = read_json(note, {})
        if isinstance(known, dict) and known.get("signature") == list(before):
            return str(known["sha256"])
    found = hash_path(path, tick)
    quiet = time.time() - max(before[3:5]) / 1e9 > SETTLED_S
    if note is not None and path.is_file() and quiet and _tree_signature(path) == before:
        with contextlib.suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json(note, {"signature": list(before), "sha256": found, "path": str(path)}, sync=False)
    return found


def _hash_file(source: Path, copy: Optional[Path], tick: Tick) -> str:
    """SHA-256 of `source`, copying the very bytes that were hashed to `copy`."""
    h = hashlib.sha256()
    with open(source, "rb", buffering=0) as f, contextlib.ExitStack() as stack:
        out = stack.enter_context(open(copy, "wb", buffering=0)) if copy is not None else None
        while True:
            block = f.read(_CHUNK)
            if not block:
                break
            h.update(block)
            if out is not None:
                view = memoryview(block)
                while view:
                    view = view[out.write(view) :]
            tick()
    if copy is not None:
        os.chmod(copy, os.stat(source).st_mode & 0o777 | 0o200)  # what is kept in a lane's store is read-only
    return h.hexdigest()


def _copy_tree(source: Path, target: Path, tick: Tick) -> None:
    """Copy what lies below `source` into `target`, links as links, times and modes kept."""
    if not source.is_dir():
        raise SetupError("setup", f"the code snapshot {source} is not there")
    for folder, names, files in os.walk(source):
        here = target / Path(folder).relative_to(source)
        here.mkdir(parents=True, exist_ok=True)
        for name in [n for n in names if os.path.islink(os.path.join(folder, n))] + files:
            shutil.copy2(os.path.join(folder, name), here / name, follow_symlinks=False)
            with contextlib.suppress(OSError, NotImplementedError):
                if not os.path.islink(here / name):
                    os.chmod(here / name, os.stat(here / name).st_mode | 0o200)  # a snapshot may be read-only
            tick()


def _is_new(source: Path, run: RunDir, prepared: Prepared) -> bool:
    """Did the run write this? A file that lay there from the start proves nothing."""
    rels = [source / rel for rel in walk_files(source)] if source.is_dir() and not source.is_symlink() else [source]
    return any(prepared.put.get(p.relative_to(run.work).as_posix()) != signature(p) for p in rels)


def _move(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copy2(source, target)


def _tree_signature(path: "Path | str") -> Signature:
    """Signature of a file, or of everything below a folder."""
    if not os.path.isdir(path):
        info = os.stat(path)
        return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    out: List[int] = []
    for rel in walk_files(path):
        out += [int(hashlib.sha256(os.fsencode(rel)).hexdigest()[:12], 16), *signature(Path(path) / rel)]
    return tuple(out)


def _tree_bytes(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(os.stat(path / rel).st_size for rel in walk_files(path))


def _inside(root: Path, name: str, what: str) -> Path:
    try:
        return safe_join(root, name)
    except ValueError as error:
        raise SetupError("setup", f"{what}: {error}") from error
