"""How a folder travels and is kept: a plan of everything in it, then the bytes of its files, as one stream.

The plan comes first, so that the far end can refuse a bad one before it writes anything, and can check every file the
moment it is complete. A plan knows files and links and nothing else: no device, no pipe, no way out of the folder.
Both ends use this module: standard library only, Python 3.9.
"""

from __future__ import annotations

import json
import posixpath
import re
import struct
from typing import Any, Dict, List, NamedTuple, Set

from core.fsio import digest

KINDS = ("code", "inputs", "checkpoints")
NAME = re.compile(r"[0-9a-f]{64}(\.x)?")  # `.x`: the same bytes, to be executable
HEAD = struct.Struct(">8sQ")  # the magic word, and how long the plan is
MAGIC = b"labtree1"
PLAN_LIMIT = 256 << 20
_NAME_BYTES = 4096
_LINK = "link:"


class Entry(NamedTuple):
    """One file (or link) of a folder."""

    name: str  # relative, `/` between folders
    sha256: str  # of its bytes, or `link:TARGET`
    size: int  # 0 for links
    executable: bool

    @property
    def link(self) -> str:
        """Where it points; empty for a file."""
        return self.sha256[len(_LINK) :] if self.sha256.startswith(_LINK) else ""


def encode(entries: List[Entry]) -> bytes:
    """The beginning of the stream."""
    text = json.dumps([list(e) for e in entries], separators=(",", ":")).encode()
    return HEAD.pack(MAGIC, len(text)) + text


def plan_size(head: bytes) -> int:
    """How many bytes the stream begins with before the first file's, from its first HEAD.size bytes.

    Raises:
        ValueError: this is no such stream.
    """
    magic, size = HEAD.unpack(head[: HEAD.size])
    if magic != MAGIC or size > PLAN_LIMIT:
        raise ValueError("what was sent is not a folder as lab sends it")
    return HEAD.size + int(size)


def decode(text: bytes) -> List[Entry]:
    """The plan from its JSON, checked.

    Raises:
        ValueError: with a sentence that names what is wrong with it.
    """
    try:
        rows = json.loads(text)
        entries = [Entry(str(n), str(h), int(s), bool(x)) for n, h, s, x in rows]
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the plan of the folder cannot be read: {error}") from error
    check(entries)
    return entries


def check(entries: List[Entry]) -> None:
    """Refuse what could not lie below one folder, or would lead out of it.

    Raises:
        ValueError: with a sentence that names the entry.
    """
    names: Set[str] = set()
    for entry in entries:
        _check_name(entry.name)
        if entry.name in names:
            raise ValueError(f"{entry.name!r} is there twice")
        names.add(entry.name)
        if entry.link:
            _check_link(entry)
        elif not re.fullmatch(r"[0-9a-f]{64}", entry.sha256) or entry.size < 0:
            raise ValueError(f"{entry.name!r} has no digest or no size")
    for name in names:
        folder = posixpath.dirname(name)
        while folder:
            if folder in names:
                raise ValueError(f"{name!r} lies below {folder!r}, which is not a folder")
            folder = posixpath.dirname(folder)


def tree_digest(kind: str, entries: List[Entry]) -> str:
    """What a folder of this kind is named by: for code the executable bits count, for data they do not."""
    if kind == "code":
        return digest([[e.name, e.sha256, e.executable] for e in entries])
    return digest([[e.name, e.sha256] for e in entries])


def note(kind: str, entries: List[Entry]) -> Dict[str, Any]:
    """What is kept beside an entry of the store, so that it can be checked later."""
    return {"version": 1, "kind": kind, "entries": [list(e) for e in entries]}


def _check_name(name: str) -> None:
    # U+FFFD and lone surrogates are allowed: they are names that some file really has.
    bad = (
        not name
        or "\0" in name
        or name.startswith("/")
        or posixpath.normpath(name) != name
        or name.split("/", 1)[0] == ".."
        or len(name.encode("utf-8", "surrogateescape")) > _NAME_BYTES
    )
    if bad or name == ".":
        raise ValueError(f"{name[:200]!r} cannot be the name of a file in a folder that is sent")


def _check_link(entry: Entry) -> None:
    words = [w for w in entry.link.split("/") if w not in ("", ".")]
    up = next((i for i, w in enumerate(words) if w != ".."), len(words))
    # `..` behind a name is refused too: the name may be a link, and then leads up from somewhere else.
    if entry.link.startswith("/") or "\0" in entry.link or ".." in words[up:] or up > entry.name.count("/"):
        raise ValueError(f"the link {entry.name!r} leads out of its folder, to {entry.link!r}")
