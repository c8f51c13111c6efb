"""A wheel made anew from an installed distribution: how an equal machine is provided without any index.

Its RECORD lists every file with its hash; each is read, compared, and put where a wheel has it. What was changed since
it was installed is refused: the lane would get something that nobody released. The same distribution gives the same
bytes each time, so that nothing is sent twice.
"""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import importlib.metadata
import io
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.tags import Tag, parse_tag

from core.errors import BadInput

# Written by installers, not by those who made the wheel.
_INSTALLERS = {"RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}
_DATE = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20
_LEVEL = 1  # of compression: what follows is a network, not an archive for ever


class CannotRebuild(BadInput):
    """The installed distribution cannot be made into a wheel again; the message is a sentence that says why."""


@dataclass(frozen=True)
class Installed:
    """An installed distribution as a wheel would be called: known from two small files."""

    dist: importlib.metadata.Distribution
    file: str
    tags: frozenset[Tag]
    stamp: str  # SHA-256 of its RECORD: changes with what is installed


def installed(name: str) -> Installed:
    """The installed distribution called `name`.

    Raises:
        CannotRebuild: it is not installed, or not from a wheel.
    """
    try:
        dist = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise CannotRebuild(f"{name} is not installed here") from None
    said, record = dist.read_text("WHEEL"), dist.read_text("RECORD")
    if not said or not record:
        raise CannotRebuild(f"{name} was not installed from a wheel here, so that none can be made of it")
    if '"editable": true' in (dist.read_text("direct_url.json") or ""):
        raise CannotRebuild(f"{name} is installed here as a link to its sources (editable)")
    info = _info_folder(dist)
    lines = [line.partition(":")[2].strip() for line in said.splitlines() if line.startswith("Tag:")]
    tags = frozenset(tag for line in lines for tag in parse_tag(line))
    if not tags:
        raise CannotRebuild(f"the wheel of {name} does not say what it is for")
    build = re.search(r"^Build:\s*(\S+)", said, re.MULTILINE)
    parts = [info.removesuffix(".dist-info"), *([build[1]] if build else [])]
    parts += [".".join(dict.fromkeys(line.split("-")[i] for line in lines)) for i in range(3)]
    return Installed(dist, "-".join(parts) + ".whl", tags, hashlib.sha256(record.encode()).hexdigest())


def rebuild(found: Installed, target: Path) -> None:
    """Write the wheel to `target`; whoever calls renames it.

    Raises:
        CannotRebuild: a file is gone, was changed, or lies where no wheel could have put it.
        OSError: the disk is full.
    """
    dist = found.dist
    name = str(dist.metadata["Name"])
    info = _info_folder(dist)
    record = dist.read_text("RECORD") or ""
    scripts = _generated_scripts(dist)
    site = Path(str(dist.locate_file("")))
    rows: list[tuple[str, str, int]] = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as z:
        # The metadata last, as a wheel should have it.
        entries = sorted((line for line in csv.reader(record.splitlines()) if line), key=lambda e: (info in e[0], e[0]))
        for entry in entries:
            path, wanted = entry[0], entry[1] if len(entry) > 1 else ""
            place = _place(name, info, path, site, scripts)
            if place is None:
                continue
            full = Path(str(dist.locate_file(path)))
            rows.append(_add(z, name, full, place, wanted))
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows([*rows, (f"{info}/RECORD", "", "")])
        z.writestr(_entry(f"{info}/RECORD", 0o644), out.getvalue())


def _place(name: str, info: str, path: str, site: Path, scripts: frozenset[str]) -> str | None:
    """Where a wheel has the file that was installed at `path` (relative to `site`); None: nowhere."""
    pure = PurePosixPath(path)
    if pure.suffix == ".pyc" or "__pycache__" in pure.parts:
        return None
    if pure.parts[0] == info and pure.name in _INSTALLERS and len(pure.parts) == 2:
        return None
    if not path.startswith("../") and not pure.is_absolute():
        return path
    data = f"{info.removesuffix('.dist-info')}.data"
    full = Path(os.path.normpath(site / path))
    python = site.parent.name  # PREFIX/lib/python3.11/site-packages
    prefix = site.parents[2]
    if full.parent == prefix / "bin":
        return None if full.name in scripts else f"{data}/scripts/{full.name}"
    for lib in ("lib64", "lib"):  # the other of purelib and platlib, where they are apart
        other = prefix / lib / python / site.name
        if full.is_relative_to(other):
            return f"{data}/{'platlib' if lib == 'lib64' else 'purelib'}/{full.relative_to(other).as_posix()}"
    include = prefix / "include" / "site" / python
    if full.is_relative_to(include):  # include/site/python3.11/NAME/...
        return f"{data}/headers/{'/'.join(full.relative_to(include).parts[1:])}"
    if full.is_relative_to(prefix):
        return f"{data}/data/{full.relative_to(prefix).as_posix()}"
    raise CannotRebuild(f"{name} has put a file at {full}, where no wheel could")


def _add(z: zipfile.ZipFile, name: str, full: Path, place: str, wanted: str) -> tuple[str, str, int]:
    """Copy one file into the wheel. Returns its row of RECORD."""
    try:
        mode = full.stat().st_mode & 0o777
        source = full.open("rb")
    except OSError as error:
        raise CannotRebuild(
            f"{name} is not whole here: {full} cannot be read ({error.strerror})", hint=f"install {name} again"
        ) from error
    kind, _, text = wanted.partition("=")
    before = hashlib.new(kind) if kind else None
    after = hashlib.sha256()
    size = 0
    with source, z.open(_entry(place, 0o755 if mode & 0o111 else 0o644), "w", force_zip64=True) as out:
        first = True
        while block := source.read(_CHUNK):
            if before is not None:
                before.update(block)
            if first and "/scripts/" in place and ".data/" in place:
                block = _plain_shebang(block)
            first = False
            after.update(block)
            size += len(block)
            out.write(block)
    if before is not None and _text(before.digest()) != text and not _rewritten(place):
        raise CannotRebuild(
            f"{name} was changed here since it was installed ({full})", hint=f"install {name} again, or give its wheel"
        )
    return place, f"sha256={_text(after.digest())}", size


def _rewritten(place: str) -> bool:
    """Installers write the interpreter's path into scripts, after hashing in some versions."""
    return ".data/scripts/" in place


def _plain_shebang(block: bytes) -> bytes:
    line, newline, rest = block.partition(b"\n")
    if line.startswith(b"#!") and b"python" in line:
        return b"#!python" + newline + rest
    if line.startswith(b"#!/bin/sh") and rest.startswith(b"'''exec' "):  # a long path, as pip writes it
        return b"#!python\n" + rest.split(b"\n", 2)[2]
    return block


def _generated_scripts(dist: importlib.metadata.Distribution) -> frozenset[str]:
    """Scripts that the installer makes from entry points."""
    text = dist.read_text("entry_points.txt")
    if not text:
        return frozenset()
    found = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(text)
    groups = ("console_scripts", "gui_scripts")
    return frozenset(name for group in groups if found.has_section(group) for name in found.options(group))


def _info_folder(dist: importlib.metadata.Distribution) -> str:
    path = getattr(dist, "_path", None)
    if path is None or not str(path).endswith(".dist-info"):
        raise CannotRebuild(f"{dist.metadata['Name']} was not installed from a wheel here")
    return Path(str(path)).name


def _entry(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (0o100000 | mode) << 16
    return entry


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
