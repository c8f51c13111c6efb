"""The folder in which a report lies: writing it anew, and finding where it differs from one that was built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from core.errors import BadInput, NotFound
from core.fsio import walk_files, write_atomic
from lab.report.build import ABOUT, about
from lab.report.sections.floor import Asked, asked_of

_SHOWN = 160


@dataclass(frozen=True)
class Difference:
    """One file that is not what it would be now. `said`: missing, new, or where the first difference is."""

    path: str
    said: str


def refuse_foreign(folder: Path) -> None:
    """Raises BadInput where `folder` holds something that is no report: it would be overwritten."""
    if folder.is_dir() and any(folder.iterdir()) and not _about(folder):
        raise BadInput(f"{folder} holds something else than a report", hint="name an empty folder with -o")
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file", hint="name a folder with -o")


def asked_in(folder: Path) -> Asked:
    """With what the report in `folder` was built.

    Raises:
        NotFound: there is none.
    """
    found = _about(folder)
    if not found:
        raise NotFound(f"there is no report in {folder}", hint="`lab report` builds one; -o names another folder")
    return asked_of(found.get("asked") or {})


def write(folder: Path, files: Mapping[str, bytes]) -> int:
    """Write a report; pages that it no longer has are removed. Returns how many files were written.

    What is equal is left alone. `report.json` comes first, so that a folder that was half written is known for ours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = {rel.as_posix() for rel in walk_files(folder)} if _about(folder) else set()
    n = 0
    for path in sorted(files, key=lambda p: (p != ABOUT, p)):
        full = folder / path
        if path in old and not full.is_symlink() and full.read_bytes() == files[path]:
            continue
        full.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(full, files[path], sync=False)
        n += 1
    for path in sorted(old - set(files)):
        (folder / path).unlink()
        for above in (folder / path).relative_to(folder).parents:
            if above != Path() and not any((folder / above).iterdir()):
                (folder / above).rmdir()
    return n


def differences(folder: Path, files: Mapping[str, bytes]) -> list[Difference]:
    """What of the report in `folder` is not what `files` say, in order of paths."""
    there = {rel.as_posix() for rel in walk_files(folder)}
    out = []
    for path in sorted(there | set(files)):
        if path not in there:
            out.append(Difference(path, "is not in the folder, and would be now"))
        elif path not in files:
            out.append(Difference(path, "is in the folder, and would not be now"))
        else:
            old = (folder / path).read_bytes()
            if old != files[path]:
                out.append(Difference(path, _first(old, files[path])))
    return out


def _first(old: bytes, new: bytes) -> str:
    """Where two files begin to differ."""
    try:
        lines = zip_longest(old.decode().splitlines(), new.decode().splitlines())
    except UnicodeDecodeError:
        return f"differs ({len(old):,} bytes in the folder, {len(new):,} now)"
    for n, (a, b) in enumerate(lines, 1):
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a or "", b or "", strict=False)) if x != y), 0)
            return f"line {n}: {_cut(a, at)} in the folder, {_cut(b, at)} now"
    return "differs in how its lines end"


def _cut(line: str | None, at: int) -> str:
    if line is None:
        return "nothing"
    start = max(0, at - 40)
    return repr(("…" if start else "") + line[start : start + _SHOWN])


def _about(folder: Path) -> dict[str, Any]:
    try:
        return about((folder / ABOUT).read_bytes())
    except OSError:
        return {}
