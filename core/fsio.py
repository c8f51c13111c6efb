"""The one place where files are written so that a kill or a full disk leaves the old one or the new one.

Standard library only, Python 3.9: the lane agent carries this module to machines that have nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Iterator, Optional, Union

PathLike = Union[str, "os.PathLike[str]"]

_CHUNK = 1 << 20


def fsync_dir(path: PathLike) -> None:
    """Make renames inside `path` durable (a no-op where folders cannot be opened)."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: PathLike, data: Union[bytes, str], *, sync: bool = True, mode: int = 0o644) -> None:
    """Write `data` beside `path` under a name of our own, sync it, rename it over `path`.

    Raises:
        OSError: the disk is full, or the folder is not ours; `path` is then as it was.
    """
    path = Path(path)
    blob = data.encode() if isinstance(data, str) else data
    # pid and a random part: two writers never share a temporary name.
    tmp = path.parent / f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), mode)
    try:
        try:
            view = memoryview(blob)
            while view:
                view = view[os.write(fd, view) :]
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(tmp, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(tmp)
        raise
    if sync:
        fsync_dir(path.parent)


def write_json(path: PathLike, value: Any, *, sync: bool = True) -> None:
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True) + "\n", sync=sync)


def read_json(path: PathLike, default: Any = None) -> Any:
    """The JSON at `path`; `default` where there is none, where it may not be read, or where it does not parse."""
    try:
        return json.loads(Path(path).read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError, ValueError, RecursionError):
        return default


def canonical(value: Any) -> bytes:
    """One byte string per JSON value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical(value)).hexdigest()


def sha256_file(path: PathLike) -> str:
    """SHA-256 (hex) of the bytes at `path`."""
    h = hashlib.sha256()
    with open(path, "rb", buffering=0) as f:
        while True:
            block = f.read(_CHUNK)
            if not block:
                return h.hexdigest()
            h.update(block)


def walk_files(root: PathLike) -> Iterator[Path]:
    """Every regular file and symbolic link below `root`, in sorted order, as paths relative to it."""
    root = Path(root)
    for folder, names, files in os.walk(root):
        names.sort()
        here = Path(folder)
        # A link to a folder is listed by os.walk among the folders and never entered: it is a leaf.
        links = [n for n in names if (here / n).is_symlink()]
        for name in sorted(files + links):
            yield (here / name).relative_to(root)


def tree_size(root: PathLike) -> int:
    total = 0
    for rel in walk_files(root):
        with contextlib.suppress(OSError):
            total += os.lstat(Path(root) / rel).st_size
    return total


def safe_join(root: PathLike, name: str) -> Path:
    """`root/name`, refused when it would lead outside `root` or is absolute.

    Raises:
        ValueError: with a sentence that names the path.
    """
    rel = os.path.normpath(name)
    if not name or os.path.isabs(name) or rel == ".." or rel.startswith(".." + os.sep):
        raise ValueError(f"the path {name!r} leads outside its folder")
    return Path(root) / rel


def no_space(error: BaseException) -> bool:
    """Is this the operating system saying that the disk (or a quota) is full?"""
    import errno

    seen: Optional[BaseException] = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            return True
        if "database or disk is full" in str(seen) or "No space left on device" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
