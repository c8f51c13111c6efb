"""What belongs into a lane's environment: exact versions, from the project's lock or from this installation.

A lock is read for one target: markers are evaluated as they hold there. What has no exact version is refused, naming
file and line: an environment that is not the same tomorrow is none.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from core.errors import BadInput
from lanes.environment.target import Target

# Looked for in the project's folder, in this order.
NAMES = ("requirements.lock", "pylock.toml", "uv.lock", "requirements.txt")
_IGNORED = ("--index-url", "-i", "--extra-index-url", "--find-links", "-f", "--no-index", "--trusted-host",
            "--only-binary", "--no-binary", "--prefer-binary", "--pre", "--require-hashes")  # fmt: skip


@dataclass(frozen=True)
class Pin:
    """One distribution in one version.

    Attributes:
        name: canonical ("scikit-image").
        hashes: SHA-256 (hex) of wheels that may be used; empty: any.
    """

    name: str
    version: str
    hashes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Lock:
    """Exact versions for one target.

    Attributes:
        source: where they come from, for people.
        whole: it claims to hold everything that its packages need.
        notes: what people should know.
    """

    pins: tuple[Pin, ...]
    source: str
    whole: bool = True
    notes: tuple[str, ...] = ()

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return [(p.name, p.version) for p in self.pins]

    def requirements(self) -> str:
        """As a requirements file; with hashes where every pin has some."""
        hashed = all(p.hashes for p in self.pins)
        lines = []
        for p in self.pins:
            tail = "".join(f" --hash=sha256:{h}" for h in sorted(p.hashes)) if hashed else ""
            lines.append(f"{p.name}=={p.version}{tail}")
        return "".join(line + "\n" for line in lines)


def find(folder: Path | None) -> tuple[Path | None, tuple[str, ...]]:
    """(the project's lock or None, notes on what was passed over)."""
    notes = []
    for name in NAMES if folder is not None else ():
        assert folder is not None
        path = folder / name
        if not path.is_file():
            continue
        if name == "requirements.txt":
            loose = _loose(path)
            if loose:
                notes.append(f"{path} is no lock ({loose}): not used")
                continue
        return path, tuple(notes)
    return None, tuple(notes)


def read(path: Path, target: Target) -> Lock:
    """The lock in `path`: a requirements file, a pylock.toml or a uv.lock.

    Raises:
        BadInput: it cannot be read, or does not say exact versions; with the line where there is one.
    """
    try:
        if path.name == "uv.lock":
            pins = _uv(path, target)
        elif path.suffix == ".toml":
            pins = _pylock(path, target)
        else:
            pins = _requirements(path, target, ())
    except OSError as error:
        raise BadInput(f"the lock {path} cannot be read ({error.strerror})", hint="correct the path") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"the lock {path} is no text file", hint="correct the path") from error
    return Lock(_once(path, pins), str(path))


# Requirements files.


def _requirements(path: Path, target: Target | None, above: tuple[Path, ...]) -> list[Pin]:
    """All pins of a requirements file and of those that it includes. `target` None: markers are not looked at."""
    if path in above:
        raise BadInput(f"{path} includes itself", hint="take that line out")
    pins = []
    for line, text in _lines(path):
        where = f"{path}:{line}"
        word, _, rest = text.replace("=", " ", 1).partition(" ") if text.startswith("--") else text.partition(" ")
        if word in ("-r", "--requirement"):
            pins += _requirements(path.parent / rest.strip(), target, (*above, path))
            continue
        if word in _IGNORED or word in ("-c", "--constraint"):
            continue
        if text.startswith("-"):
            raise BadInput(f"{where}: {word} names no version", hint="build a wheel of it and name that version")
        pin = _pin(where, text, target)
        if pin is not None:
            pins.append(pin)
    return pins


def _lines(path: Path) -> list[tuple[int, str]]:
    """(number of its first line, text) of each logical line without comments."""
    out: list[tuple[int, str]] = []
    begun, text = 0, ""
    for number, raw in enumerate(path.read_text().splitlines(), 1):
        part = re.sub(r"(^|\s)#.*$", "", raw)
        begun = begun or number
        if part.endswith("\\"):
            text += part[:-1] + " "
            continue
        text = (text + part).strip()
        if text:
            out.append((begun, text))
        begun, text = 0, ""
    if text.strip():
        out.append((begun, text.strip()))
    return out


def _pin(where: str, text: str, target: Target | None) -> Pin | None:
    hashes = re.findall(r"\s--hash[= ](\w+):([0-9a-fA-F]+)", text)
    bare = re.sub(r"\s--hash[= ]\S+", "", text)
    bare = re.sub(r"\s--(config-settings?|global-option)[= ]\S+", "", bare).strip()
    try:
        found = Requirement(bare)
    except InvalidRequirement as error:
        first = str(error).splitlines()[0]
        raise BadInput(f"{where}: {bare!r} is no requirement ({first})", hint="write NAME==VERSION") from None
    version = _exact(found)
    if version is None:
        raise BadInput(f"{where}: {bare!r} does not say one exact version", hint=f"write {found.name}==VERSION")
    if target is not None and found.marker is not None and not found.marker.evaluate(dict(target.markers)):
        return None
    return Pin(canonicalize_name(found.name), version, frozenset(h.lower() for kind, h in hashes if kind == "sha256"))


def _exact(found: Requirement) -> str | None:
    specs = list(found.specifier)
    if found.url or len(specs) != 1 or specs[0].operator not in ("==", "===") or "*" in specs[0].version:
        return None
    try:
        return str(Version(specs[0].version))
    except InvalidVersion:
        return None


def _loose(path: Path) -> str:
    """Why a requirements.txt is no lock; empty: it is one."""
    try:
        _requirements(path, None, ())
    except (BadInput, OSError, UnicodeDecodeError) as error:
        return error.message.rpartition(f"{path}:")[2] if isinstance(error, BadInput) else str(error)
    return ""


# pylock.toml (the format of PEP 751).


def _pylock(path: Path, target: Target) -> list[Pin]:
    body = _toml(path)
    pins = []
    for entry in _tables(path, body, "packages"):
        name = str(entry.get("name") or "")
        if not _holds(path, name, entry.get("marker"), target):
            continue
        version = entry.get("version")
        if not name or not isinstance(version, str) or entry.get("directory") or entry.get("vcs"):
            raise BadInput(f"{path}: the package {name!r} has no version", hint="lock a released version of it")
        wheels = entry.get("wheels")
        hashes = [
            str(w["hashes"]["sha256"]).lower()
            for w in (wheels if isinstance(wheels, list) else [])
            if isinstance(w, dict) and isinstance(w.get("hashes"), dict) and w["hashes"].get("sha256")
        ]
        pins.append(Pin(canonicalize_name(name), str(Version(version)), frozenset(hashes)))
    return pins


# uv.lock: the graph below the project itself, as `uv export` would give it.


def _uv(path: Path, target: Target) -> list[Pin]:
    body = _toml(path)
    packages = _tables(path, body, "package")
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for entry in packages:
        by_name.setdefault(canonicalize_name(str(entry.get("name"))), []).append(entry)
    roots = [e for e in packages if set(e.get("source") or {}) & {"editable", "virtual"}]
    if not roots:
        raise BadInput(f"{path} has no project in it", hint="run `uv lock` in the project's folder")
    pins: dict[tuple[str, str], Pin] = {}
    todo: list[tuple[Mapping[str, Any], frozenset[str]]] = [(e, frozenset()) for e in roots]
    seen: set[tuple[str, str, frozenset[str]]] = set()
    while todo:
        entry, extras = todo.pop()
        name, version = canonicalize_name(str(entry.get("name"))), str(entry.get("version") or "")
        if (name, version, extras) in seen:
            continue
        seen.add((name, version, extras))
        if entry not in roots:
            if not version or "registry" not in (entry.get("source") or {}):
                raise BadInput(f"{path}: {name} comes from no index", hint="lock a released version of it")
            wheels = [w for w in entry.get("wheels") or () if isinstance(w, dict)]
            hashes = [str(w.get("hash"))[7:] for w in wheels if str(w.get("hash")).startswith("sha256:")]
            pins[name, version] = Pin(name, str(Version(version)), frozenset(hashes))
        needs = list(entry.get("dependencies") or ())
        for extra in extras:
            needs += (entry.get("optional-dependencies") or {}).get(extra) or ()
        for need in needs:
            if not _holds(path, name, need.get("marker"), target):
                continue
            fitting = [
                e
                for e in by_name.get(canonicalize_name(str(need.get("name"))), ())
                if need.get("version") in (None, e.get("version"))
                and (
                    not e.get("resolution-markers")
                    or any(_holds(path, name, m, target) for m in e["resolution-markers"])
                )
            ]
            if not fitting:
                raise BadInput(f"{path}: {name} needs {need.get('name')}, which is not in it", hint="run `uv lock`")
            todo.append((fitting[0], frozenset(need.get("extra") or ())))
    return list(pins.values())


def _holds(path: Path, name: str, marker: Any, target: Target) -> bool:
    if not marker:
        return True
    try:
        # Groups and extras of the lock itself: the default ones, that is none.
        environment = {**target.markers, "extra": "", "extras": set(), "dependency_groups": set()}
        return Marker(str(marker)).evaluate(environment)  # type: ignore[arg-type]
    except InvalidMarker:
        raise BadInput(f"{path}: the marker {marker!r} of {name} cannot be read", hint="lock again") from None


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: this is no TOML ({error})", hint="lock again") from None


def _tables(path: Path, body: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = body.get(name)
    if not isinstance(found, list) or not all(isinstance(e, dict) for e in found):
        raise BadInput(f"{path} lists no packages", hint="is it a lock?")
    return found


def _once(path: Path, pins: Sequence[Pin]) -> tuple[Pin, ...]:
    found: dict[str, Pin] = {}
    for pin in pins:
        other = found.setdefault(pin.name, pin)
        if other.version != pin.version:
            raise BadInput(
                f"{path} has {pin.name} as {other.version} and as {pin.version} for one lane", hint="remove one"
            )
    if not found:
        raise BadInput(f"{path} locks nothing for this lane", hint="give another with --lock")
    return tuple(sorted(found.values(), key=lambda p: p.name))
