"""Paths that a submit names: declared inputs, outputs, expected artifacts. Each is looked at before anything starts."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.digests import Digests
from core.errors import BadInput
from core.fsio import safe_join
from core.spec import InputFile, Made
from core.study import Take
from lab.resident import Look, Resident, hashed


@dataclass(frozen=True)
class Place:
    """Where the submit was made, as the run directory will mirror it.

    Attributes:
        cwd: the folder that relative paths are relative to.
        root: the code root, copied to work/; None when no code goes along.
        subdir: `cwd` relative to `root`: the program starts in work/SUBDIR.
    """

    cwd: Path
    root: Path | None = None
    subdir: str = ""


def declared_inputs(words: Iterable[str], place: Place, digests: Digests, *, into_work: bool) -> list[InputFile]:
    """Hash the inputs of `--input [NAME=]PATH[:DEST]`.

    Without DEST an input lies in work/ where the program would find it from its own folder: at the same relative path
    when it comes from inside the code root, under NAME or its own name otherwise.

    Args:
        into_work: does the kind start a program that looks for files by path? Kinds that ask `ctx.input(name)` get
            nothing put into work/ unless DEST says so.

    Raises:
        BadInput: missing, unreadable, not a file or folder, leading outside the run directory, or named twice.
    """
    out: list[InputFile] = []
    for word in words:
        name, path, dest = _split(word, place.cwd)
        rel = None
        if dest is not None:
            rel = _inside_work(dest, place, f"the input {word!r} would be put at {dest}")
        elif into_work:
            rel = _natural(path, name, place)
        _safe(name or path.name, f"the name of the input {word!r}")
        out.append(_hashed(name or path.name, path, rel, digests, word))
    return out


def lane_inputs(items: Iterable[Resident], place: Place, look: Look, *, into_work: bool) -> list[InputFile]:
    """The inputs that lie on a lane, hashed there. Where they go is as with `declared_inputs`."""

    def dest_of(name: str | None, base: str, dest: str | None) -> str | None:
        _safe(name or base, "the name of an input")
        if dest is None and not into_work:
            return None
        return _inside_work(dest or name or base, place, f"the input {name or base!r}")

    return [hashed(item, look, dest_of) for item in items]


def made_inputs(takes: Iterable[tuple[Take, str, str]], place: Place, *, into_work: bool) -> list[InputFile]:
    """The inputs that other jobs make: what they are is known when those have run.

    Args:
        takes: each with its maker's key, and with what that is called.
        into_work: as with `declared_inputs`: then it lies under its name.
    """
    out = []
    for take, key, label in takes:
        _safe(take.name, "the name of an input")
        dest = _inside_work(take.name, place, f"the input {take.name!r}") if into_work else None
        made = Made(key=key, file=take.file, optional=take.optional, label=label)
        out.append(InputFile(name=take.name, path="", dest=dest, sha256="", size=0, tree=not take.file, made=made))
    return out


def kind_inputs(found: Mapping[str, Path], place: Place, digests: Digests) -> list[InputFile]:
    """Hash the inputs that follow from a kind's parameters."""
    return [_hashed(name, place.cwd / path, None, digests, str(path)) for name, path in found.items()]


def refuse_twins(inputs: Iterable[InputFile]) -> None:
    """Raises BadInput when two inputs have one name or one place."""
    names: dict[str, str] = {}
    places: dict[str, str] = {}
    for item in inputs:
        if item.name in names:
            raise BadInput(
                f"two inputs are called {item.name!r}: {names[item.name]} and {_whence(item)}",
                hint="name one of them with --input NAME=PATH",
            )
        if item.dest is not None and item.dest in places:
            raise BadInput(
                f"two inputs would be put at work/{item.dest}: {places[item.dest]} and {_whence(item)}",
                hint="say where with --input PATH:DEST",
            )
        names[item.name] = _whence(item)
        if item.dest is not None:
            places[item.dest] = _whence(item)


def _whence(item: InputFile) -> str:
    return f"what {item.made.label} makes" if item.made is not None else item.path


def names_below(names: Iterable[str], what: str) -> tuple[str, ...]:
    """Names of outputs or artifacts, each inside its folder, each once."""
    out: dict[str, None] = {}
    for name in names:
        _safe(name, what)
        out[os.path.normpath(name)] = None
    return tuple(out)


def read_prefixes(paths: Iterable[str], cwd: Path) -> tuple[str, ...]:
    """Paths that the program may read without being called undeclared."""
    return tuple(os.path.normpath(cwd / Path(p).expanduser()) for p in paths)


def _split(word: str, cwd: Path) -> tuple[str | None, Path, str | None]:
    """(NAME or None, PATH, DEST or None). A path that exists as it stands is never taken apart."""
    whole = cwd / Path(word).expanduser()
    if os.path.lexists(whole):
        return None, whole, None
    name: str | None = None
    rest = word
    if "=" in word:
        name, rest = word.split("=", 1)
        if not name or not rest:
            raise BadInput(f"the input {word!r} has no {'path' if name else 'name'}", hint="write --input NAME=PATH")
        if os.path.lexists(cwd / Path(rest).expanduser()):
            return name, cwd / Path(rest).expanduser(), None
    if ":" in rest:
        path, dest = rest.rsplit(":", 1)
        if path and os.path.lexists(cwd / Path(path).expanduser()):
            if not dest:
                raise BadInput(f"the input {word!r} ends with a colon", hint="write --input PATH or --input PATH:DEST")
            return name, cwd / Path(path).expanduser(), dest
    missing = cwd / Path(rest).expanduser()
    raise BadInput(f"the input {rest!r} does not exist ({missing})", hint="correct the path")


def _natural(path: Path, name: str | None, place: Place) -> str:
    if name is not None:
        return _inside_work(name, place, f"the input {name!r} would be put at {name}")
    full = os.path.normpath(path)
    rel = os.path.relpath(full, place.root or place.cwd)
    if rel not in (".", "..") and not rel.startswith("../"):
        return Path(rel).as_posix()
    return _inside_work(os.path.basename(full), place, f"the input {path}")


def _inside_work(dest: str, place: Place, what: str) -> str:
    rel = os.path.normpath(os.path.join(place.subdir, dest))
    if os.path.isabs(dest) or rel in (".", "..") or rel.startswith("../"):
        raise BadInput(f"{what}, outside the run directory", hint="give a relative path below the working folder")
    return Path(rel).as_posix()


def _safe(name: str, what: str) -> None:
    if "\0" in name or os.path.normpath(name) == ".":
        raise BadInput(f"{what} is {name!r}, which names no file", hint="give a relative path")
    try:
        safe_join("/", name)
    except ValueError:
        raise BadInput(
            f"{what} is {name!r}, outside the run directory", hint="give a relative path without .."
        ) from None


def _hashed(name: str, path: Path, dest: str | None, digests: Digests, shown: str) -> InputFile:
    full = Path(os.path.normpath(path.absolute()))
    try:
        mode = full.stat().st_mode
    except FileNotFoundError:
        why = f"is a link to nothing ({full})" if full.is_symlink() else f"does not exist ({full})"
        raise BadInput(f"the input {shown!r} {why}", hint="correct the path") from None
    except OSError as error:
        raise BadInput(f"the input {shown!r} cannot be read ({error.strerror})", hint="make it readable") from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise BadInput(f"the input {shown!r} is neither a file nor a folder ({full})", hint="name a file or a folder")
    try:
        content = digests.of(full)
    except OSError as error:
        where = error.filename or full
        why = error.strerror or str(error)
        raise BadInput(
            f"the input {shown!r} cannot be read: {where}: {why}", hint="mend that and submit again"
        ) from error
    return InputFile(name=name, path=str(full), dest=dest, sha256=content.sha256, size=content.size, tree=content.tree)
