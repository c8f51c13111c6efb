"""What programs leave in a run directory is read here: whatever lies there, it can neither stop us nor hold us up.

A program may put a folder, a pipe, JSON of another shape or a name that is no text where we expect a file of ours.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from typing import IO, Any, Dict, Union

PathLike = Union[str, "os.PathLike[str]"]


def clean(value: Any) -> Any:
    """The same with every text valid UTF-8: what came from an undecodable name is written as an escape (`\\udce9`)."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {clean(k): clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]
    return value


def open_plain(path: PathLike) -> IO[bytes]:
    """Open a regular file for reading; never waits, as a pipe would make one.

    Raises:
        FileNotFoundError: there is nothing, or something else, at `path`.
        OSError: it cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
        raise
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    raise FileNotFoundError(errno.ENOENT, "no regular file", str(path))


def read_dict(path: PathLike, *, limit: int = -1) -> Dict[str, Any]:
    """The JSON object at `path`; empty where there is none, or none that can be understood.

    Raises:
        OSError: there may be one, but it cannot be read now: whoever asks must not take it for absent.
    """
    try:
        with open_plain(path) as f:
            blob = f.read(limit)
        value = json.loads(blob)
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def number(value: Any) -> bool:
    """Is this a finite number (and no truth value)?"""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
